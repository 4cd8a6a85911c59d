import assert from "node:assert/strict";
import { close, eventfd, eventfdWrite } from "../ffi/libc.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine } from "./engine.ts";

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
