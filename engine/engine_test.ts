import assert from "node:assert/strict";
import { close, eventfd, eventfdWrite } from "../ffi/libc.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine, Task } from "./engine.ts";

for (const loop of ["uring", "poll"] as const) {
  Deno.test(`${loop}: a completion sees the time at which it comes, however long the turn has waited`, () => {
    const engine = new Engine(makeLoop(loop), makeArena(arenaBytes(1)));
    const fd = eventfd();
    const waitedMs = 40;
    const startedMs = engine.now;
    let seenMs = -1;
    const kind = engine.loop.register({ complete: () => seenMs = engine.now });
    // The turn is left by the timer first, then finds the descriptor ready: in both a long wait lies before.
    engine.loop.pollIn(fd, kind, 0, 0);
    let expiredMs = -1;
    engine.timers.schedule(
      {
        expire: () => {
          expiredMs = engine.now;
          eventfdWrite(fd, 1);
        },
      },
      0,
      startedMs + waitedMs,
    );
    while (seenMs < 0) engine.turn(Infinity);
    assert.ok(expiredMs >= startedMs + waitedMs, `the timer saw ${expiredMs - startedMs} ms`);
    assert.ok(seenMs >= startedMs + waitedMs, `the completion saw ${seenMs - startedMs} ms`);
    engine.close();
    close(fd);
  });
}

Deno.test("a task goes on once in the next turn, after what came from the kernel, and that turn does not wait", () => {
  const engine = new Engine(makeLoop("poll"), makeArena(arenaBytes(1)));
  const order: string[] = [];
  const fd = eventfd();
  const kind = engine.loop.register({ complete: () => order.push("completion") });
  const task = new Task(() => {
    order.push(`task in turn ${engine.turnNumber}`);
    if (order.length < 4) engine.again(task);
  });
  engine.loop.pollIn(fd, kind, 0, 0);
  eventfdWrite(fd, 1);
  engine.again(task);
  engine.again(task);
  // Were there a wait, it would be for ever.
  engine.turn(Infinity);
  assert.deepEqual(order, ["completion", "task in turn 1"]);
  engine.turn(Infinity);
  engine.turn(Infinity);
  assert.deepEqual(order.slice(2), ["task in turn 2", "task in turn 3"]);
  engine.turn(0);
  assert.equal(order.length, 4);
  engine.close();
  close(fd);
});

Deno.test("tasks that ask for one another within a turn go on in the turn after", () => {
  const engine = new Engine(makeLoop("poll"), makeArena(arenaBytes(1)));
  const turns: number[] = [];
  const second = new Task(() => turns.push(engine.turnNumber));
  const first = new Task(() => engine.again(second));
  engine.again(first);
  engine.turn(0);
  assert.deepEqual(turns, []);
  engine.turn(0);
  assert.deepEqual(turns, [2]);
  engine.close();
});
