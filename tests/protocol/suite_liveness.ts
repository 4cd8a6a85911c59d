/**
 * Cases of life and of fairness: pings, slow peers, slow disks, and the exporter's own end (SPEC.md, 5.2, 5.3 and 6.1).
 *
 * @module
 */
import assert from "node:assert/strict";
import { HANDSHAKE_TIME_MS } from "../../protocol/limits.ts";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { hello } from "./bytes.ts";
import { helloBody, Peer } from "./peer.ts";
import { Session } from "./session.ts";
import type { Register, Target } from "./suite.ts";

const { READ, WRITE } = Operation;
const PING = FrameType.PING;
const PROBE = 1;

/** Registers them; the last one ends the target. */
export function registerLivenessCases(test: Register, takeTarget: () => Promise<Target>): void {
  test("a PING is answered with its token", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { access: 0 });
    for (const offset of [0, 1, 2 ** 32, 2 ** 53 - 1]) {
      const pong = await session.peer.call({ type: PING, offset });
      const { type, flags, slot, sequence, length, status } = pong;
      assert.equal(pong.offset, offset);
      assert.deepEqual({ type, flags, slot, sequence, length, status }, {
        type: PING | REPLY,
        flags: 0,
        slot: 0,
        sequence: 0,
        length: 0,
        status: 0,
      });
    }
    await session.close();
  });

  test("a PROBE tells what became of a request", async (context) => {
    using session = await Session.open(context.options, context.exports.slow);
    const probe = async (slot: number, sequence: number) => {
      const pong = await session.peer.call({ type: PING, flags: PROBE, slot, sequence, offset: 99 });
      assert.deepEqual([pong.type, pong.flags, pong.slot, pong.sequence], [PING | REPLY, PROBE, slot, sequence]);
      assert.equal(pong.offset, 99);
      return pong.status;
    };
    assert.equal(await probe(0, 0), 0);
    assert.equal(await probe(0, 1), 0);
    await session.send(WRITE, 0, 4096, { payload: new Uint8Array(4096) });
    assert.equal(await probe(0, 1), 1);
    assert.equal(await probe(0, 2), 0);
    assert.equal(await probe(1, 1), 0);
    await session.reply(WRITE);
    assert.equal(await probe(0, 1), 2);
    assert.equal(await probe(0, 0), 0);
    await session.close();
  });

  test("an idle client is pinged, and its PONG is taken", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { access: 0 });
    const { peer } = session;
    peer.answersPings = false;
    const ping = await peer.receive();
    const { type, flags, slot, sequence, length, status } = ping;
    assert.deepEqual([type, flags, slot, sequence, length, status], [PING, 0, 0, 0, 0, 0]);
    await peer.send({ type: PING | REPLY, offset: ping.offset });
    peer.answersPings = true;
    await session.read(0, 4096);
    await session.close();
  });

  test("a PONG that repeats another token ends the connection", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { access: 0 });
    const { peer } = session;
    peer.answersPings = false;
    const { offset } = await peer.receive();
    await peer.write(peer.next({ type: PING | REPLY, offset: offset + 1 }));
    await peer.ended();
  });

  test("a client that reads nothing holds up nobody else, and gets everything in the end", async (context) => {
    const { options, exports } = context;
    using lazy = await Session.open(options, exports.disk, { access: 0, depth: 64 });
    const length = lazy.grant.maxPayload;
    for (let slot = 0; slot < 64; slot++) await lazy.send(READ, slot * length, length, { slot });
    using lively = await Session.open(options, exports.disk);
    for (let i = 0; i < 50; i++) {
      await lively.write(0, new Uint8Array(4096).fill(i));
      assert.equal((await lively.read(0, 4096))[0], i);
      await lively.peer.call({ type: PING });
    }
    await lively.close();
    const seen = new Set<number>();
    for (let i = 0; i < 64; i++) {
      const reply = await lazy.peer.receive();
      assert.deepEqual([reply.type, reply.status, reply.payload.length], [READ | REPLY, Status.OK, length]);
      seen.add(reply.slot);
    }
    assert.equal(seen.size, 64);
    await lazy.close();
  });

  test("a disk that stalls holds up nobody else", async (context) => {
    const { options, exports } = context;
    using stalled = await Session.open(options, exports.stalled, { access: 0 });
    for (let slot = 0; slot < 8; slot++) await stalled.send(READ, 0, 4096, { slot });
    using lively = await Session.open(options, exports.disk);
    for (let i = 0; i < 20; i++) {
      await lively.write(4096 * i, new Uint8Array(4096).fill(i));
      await lively.read(4096 * i, 4096);
      await lively.peer.call({ type: PING });
    }
    const probe = await stalled.peer.call({ type: PING, flags: PROBE, slot: 7, sequence: 1 });
    assert.deepEqual([probe.type, probe.status], [PING | REPLY, 1], "all that was done while it executes");
    for (let i = 0; i < 8; i++) assert.equal((await stalled.peer.receive()).status, Status.OK);
    await lively.close();
    await stalled.close();
  });

  if (Deno.env.get("DST_TEST_LONG") === "1") {
    test("a peer that does not come to the point is sent away", async (context) => {
      using silent = await Peer.connect(context.options);
      using halfway = await Peer.connect(context.options);
      await halfway.write(hello(helloBody(context.options)).slice(0, 20));
      using greeted = await Peer.greet(context.options);
      using trickling = await Peer.connect(context.options);
      const bytes = hello(helloBody(context.options));
      let at = 0;
      const timer = setInterval(() => trickling.connection.write(bytes.subarray(at, ++at)).catch(() => {}), 900);
      const started = performance.now();
      await Promise.all([silent.ended(), halfway.ended(), greeted.ended(), trickling.ended()]);
      clearInterval(timer);
      assert.ok(performance.now() - started > HANDSHAKE_TIME_MS / 2, "there was time to come to the point");
    });
  }

  test("an exporter that stops tells its clients, and finishes what executes", async (context) => {
    const { options, exports } = context;
    using idle = await Session.open(options, exports.disk, { leaseMs: 60_000 });
    using detached = await Session.open(options, exports.shared, { leaseMs: 60_000 });
    detached.peer.close();
    using visitor = await Peer.greet(options);
    using busy = await Session.open(options, exports.slow, { leaseMs: 60_000 });
    await busy.send(WRITE, 0, 8192, { payload: new Uint8Array(8192).fill(1) });
    const probe = await busy.peer.call({ type: PING, flags: PROBE, slot: 0, sequence: 1 });
    assert.equal(probe.status, 1, "it executes");

    const target = await takeTarget();
    const stopped = target.stop();
    assert.equal((await idle.peer.receive()).type, FrameType.SHUTTING_DOWN);
    await idle.peer.ended();
    await visitor.ended();
    assert.equal((await busy.peer.receive()).type, FrameType.SHUTTING_DOWN);
    assert.equal((await busy.request(READ, 0, 4096, { slot: 1 })).status, Status.SHUTTING_DOWN);
    assert.equal((await busy.reply(WRITE)).status, Status.OK);
    await busy.peer.ended();
    await stopped;
    await assert.rejects(Peer.connect(options), Deno.errors.ConnectionRefused);
  });
}
