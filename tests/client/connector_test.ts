/**
 * What connections to exporters leave behind when they come to nothing.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Connector, type ConnectTarget } from "../../client/connector.ts";
import { makeLocalEngine } from "../../client/local_engine.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import { local, rejoin, scripted, start } from "./patient.ts";

const SLOTS = 4;

/** Whom nobody is to hear of. */
const never = {
  ready: () => assert.fail("it is not an exporter"),
  refused: () => assert.fail("nothing was asked for"),
  failed: (reason: string) => assert.fail(reason),
};

function targetAt(port: number): ConnectTarget {
  const target = { where: `127.0.0.1:${port}`, addresses: [local(port)], ciphers: [Cipher.NONE] };
  return { ...target, digests: [Digest.XXH64], answerMs: 86_400_000 };
}

for (const loop of ["uring", "poll"] as const) {
  Deno.test(`a connection that is ended before it has begun is never made, by ${loop}`, () => {
    const engine = makeLocalEngine(loop, SLOTS);
    const free = engine.slots.freeCount;
    const connection = new Connector(engine).connect(targetAt(1), never);
    connection.end();
    assert.equal(connection.isGone, true);
    for (let i = 0; i < 3; i++) engine.turn(0);
    assert.deepEqual([engine.loop.pending, engine.slots.freeCount], [0, free]);
    engine.close();
  });

  Deno.test(`of connections that are ended nothing is left, and soon no timer either, by ${loop}`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const engine = makeLocalEngine(loop, SLOTS);
    const free = engine.slots.freeCount;
    const connector = new Connector(engine);
    for (let i = 0; i < 50; i++) {
      const connection = connector.connect(targetAt(listener.addr.port), never);
      const accepted = listener.accept();
      const hello = accepted.then((peer) => peer.read(new Uint8Array(16)).finally(() => peer.close()));
      let isThere = false;
      hello.then(() => isThere = true);
      while (!isThere) {
        engine.turn(1);
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
      connection.end();
      while (!connection.isGone) engine.turn(1);
    }
    assert.deepEqual([engine.loop.pending, engine.slots.freeCount], [0, free]);
    const until = engine.now + 2000;
    while (engine.timers.count > 0 && engine.now < until) engine.turn(10);
    assert.equal(engine.timers.count, 0);
    listener.close();
    engine.close();
  });
}

Deno.test("however often a lane comes back, it needs no more than before", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { depth: 4 }, { slots: 4 });
  await using _ = lane;
  let visit = first;
  let before: typeof lane.resources | null = null;
  for (let round = 0; round < 100; round++) {
    const read = lane.read(0, 512);
    await visit.reply(await visit.take(), new Uint8Array(512));
    assert.equal((await read).status, 0);
    // Something is under way each time.
    const write = lane.write(0, 4096, round);
    await visit.take();
    visit.peer.close();
    ({ visit } = await rejoin(exporter, { slots: 4 }));
    await visit.reply(await visit.take());
    assert.equal((await write).status, 0);
    const now = lane.resources;
    before ??= now;
    assert.deepEqual([now.slots, now.operations], [before.slots, before.operations]);
    // The last second's, of connections that are gone.
    assert.ok(now.timers < 1000, `${now.timers} timers`);
  }
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.ok(lane.resources.timers <= before!.timers, `${lane.resources.timers} timers, ${before!.timers} before`);
});
