/**
 * Cases of lanes that are joined again: generations, the fence, and requests that must happen exactly once (SPEC.md, 6.4
 * and 7).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType } from "../../protocol/wire.ts";
import { joinTlvs } from "./door_messages.ts";
import { Peer } from "./peer.ts";
import { answerOf, ask, Session } from "./session.ts";
import { joins } from "./suite_ownership.ts";
import type { Register } from "./suite.ts";

const { READ, WRITE } = Operation;
/** A lease, and the end of whoever a failed test left behind. */
const LEASE = { leaseMs: 60_000, steal: true };

/** Registers them. */
export function registerFenceCases(test: Register): void {
  test("JOIN takes a generation above the present one, and closes the old connection", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    assert.equal(await joins(context, session.id, 1), Status.OLD_GENERATION);
    const old = session.peer;
    await session.rejoin();
    await old.ended();
    assert.equal(await joins(context, session.id, 2), Status.OLD_GENERATION);
    assert.equal(await joins(context, session.id, 1), Status.OLD_GENERATION);
    session.generation = 0xffff_fffd;
    await session.rejoin();
    assert.equal(await joins(context, session.id, 0xffff_fffe), Status.OLD_GENERATION);
    await session.read(0, 4096);
    await session.close();
  });

  test("JOIN for a session or a lane that there is not is refused", async (context) => {
    assert.equal(await joins(context, new Uint8Array(16).fill(7), 1), Status.NO_SESSION);
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    assert.equal(await joins(context, session.id, 1, session.grant.lanes), Status.BAD_REQUEST);
    assert.equal((await session.read(0, 4096)).length, 4096, "the lane is as it was");
    await session.close();
  });

  test("JOIN grants what the lane had", async (context) => {
    const wishes = { ...LEASE, depth: 7, maxPayload: 8192 };
    using session = await Session.open(context.options, context.exports.disk, wishes);
    const before = session.grant;
    await session.rejoin();
    assert.deepEqual(session.grant, before);
    await session.close();
  });

  test("sequences go on after a JOIN, and begin anew with FRESH", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    const payload = new Uint8Array(8192).fill(0x21);
    await session.write(0, payload);
    await session.write(0, payload, 0, 3);
    await session.rejoin();
    assert.equal((await session.resend(WRITE, 0, 8192, { payload: new Uint8Array(8192) })).status, Status.OK);
    assert.deepEqual(await session.read(0, 8192, 3), payload);
    session.peer.close();
    await session.rejoin(true);
    assert.deepEqual(await session.read(0, 8192), payload, "it has sequence 1");
    await session.rejoin(true);
    await session.peer.write(session.peer.next({ type: READ, sequence: 2, length: 4096 }));
    await session.peer.ended();
  });

  test("a request whose frame was cut is new on the next connection", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    await session.write(0, new Uint8Array(8192).fill(1));
    const lost = session.peer.next({
      type: WRITE,
      sequence: 2,
      length: 8192,
      payload: new Uint8Array(8192).fill(0x99),
    });
    await session.peer.write(lost.slice(0, -1));
    session.peer.close();
    await session.rejoin();
    const { status } = await session.peer.call({ type: FrameType.PING, flags: 1, slot: 0, sequence: 2 });
    assert.equal(status, 0, "it is unknown");
    assert.deepEqual(await session.read(0, 8192, 1), new Uint8Array(8192).fill(1));
    await session.write(0, new Uint8Array(8192).fill(2));
    assert.deepEqual(await session.read(0, 8192, 1), new Uint8Array(8192).fill(2));
    await session.close();
  });

  test("what was answered but never read is answered again from the slots", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { ...LEASE, depth: 32 });
    const payloadOf = (slot: number) => new Uint8Array(4096).fill(slot + 1);
    for (let slot = 0; slot < 32; slot++) {
      await session.send(WRITE, slot * 4096, 4096, { slot, payload: payloadOf(slot) });
    }
    await session.peer.flush();
    session.peer.close();
    await session.rejoin();
    for (let slot = 0; slot < 32; slot++) {
      const request = { slot, payload: payloadOf(slot) };
      assert.equal((await session.resend(WRITE, slot * 4096, 4096, request)).status, Status.OK);
    }
    for (let slot = 0; slot < 32; slot++) assert.deepEqual(await session.read(slot * 4096, 4096), payloadOf(slot));
    await session.close();
  });

  test("a lane that is joined again and again keeps working", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    for (let i = 0; i < 20; i++) {
      const payload = new Uint8Array(4096).fill(i);
      await session.write(0, payload);
      if (i % 2 === 0) session.peer.close();
      await session.rejoin(i % 5 === 4);
      assert.deepEqual(await session.read(0, 4096, 1), payload);
    }
    await session.close();
  });

  test("a request that executes while the lane is joined again happens once, and FENCING says so", async (context) => {
    using session = await Session.open(context.options, context.exports.slow, LEASE);
    const payload = new Uint8Array(8192).fill(0xc3);
    await session.send(WRITE, 0, 8192, { payload });
    const probe = await session.peer.call({ type: FrameType.PING, flags: 1, slot: 0, sequence: 1 });
    assert.equal(probe.status, 1, "it executes");
    // The connection is cut in the middle of another frame.
    const cut = session.peer.next({ type: WRITE, slot: 1, sequence: 1, offset: 65536, length: 8192, payload });
    await session.peer.write(cut.slice(0, 5000));
    session.peer.close();
    await session.rejoin();
    assert.ok(session.fencing.length > 0, "FENCING was sent");
    for (const { length, offset, slot, payload } of session.fencing) {
      assert.deepEqual([length, offset, slot, payload.length], [1, 0, 0, 0]);
    }
    const again = await session.resend(WRITE, 0, 8192, { payload: new Uint8Array(8192).fill(0xd4) });
    assert.equal(again.status, Status.OK);
    assert.deepEqual(await session.read(0, 8192, 2), payload, "it was executed once");
    assert.deepEqual(await session.read(65536, 8192, 2), new Uint8Array(8192), "what was cut was not executed");
    await session.close();
  });

  test("a JOIN that waits is refused when a later one comes", async (context) => {
    using session = await Session.open(context.options, context.exports.slow, LEASE);
    await session.send(WRITE, 0, 4096, { payload: new Uint8Array(4096).fill(1) });
    await session.peer.call({ type: FrameType.PING });
    using earlier = await Peer.greet(context.options);
    await earlier.send({ type: FrameType.JOIN, payload: joinTlvs(session.id, { generation: 2 }) });
    // The old connection ends when the first JOIN has been taken.
    await session.peer.ended();
    session.generation = 2;
    await session.rejoin();
    const { answer } = await answerOf(earlier, FrameType.JOIN);
    assert.equal(answer.status, Status.OLD_GENERATION);
    assert.equal((await session.read(0, 4096, 1))[0], 1);
    await session.close();
  });

  test("a JOIN that waits is refused when its session is stolen", async (context) => {
    using session = await Session.open(context.options, context.exports.slow, LEASE);
    await session.send(WRITE, 0, 4096, { payload: new Uint8Array(4096).fill(1) });
    await session.peer.call({ type: FrameType.PING });
    using joining = await Peer.greet(context.options);
    await joining.send({ type: FrameType.JOIN, payload: joinTlvs(session.id, { generation: 2 }) });
    await session.peer.ended();
    using thief = await Session.open(context.options, context.exports.slow, { steal: true });
    const { answer } = await answerOf(joining, FrameType.JOIN);
    assert.equal(answer.status, Status.NO_SESSION);
    await thief.close();
  });

  test("a peer that leaves while its JOIN waits changes nothing", async (context) => {
    using session = await Session.open(context.options, context.exports.slow, LEASE);
    await session.send(WRITE, 0, 4096, { payload: new Uint8Array(4096).fill(0x61) });
    await session.peer.call({ type: FrameType.PING });
    {
      using leaving = await Peer.greet(context.options);
      await leaving.send({ type: FrameType.JOIN, payload: joinTlvs(session.id, { generation: 2 }) });
      await session.peer.ended();
    }
    session.generation = 2;
    await session.rejoin();
    const again = await session.resend(WRITE, 0, 4096, { payload: new Uint8Array(4096).fill(0x61) });
    assert.equal(again.status, Status.OK);
    await session.close();
  });

  test("a READ that was lost with its connection is executed again", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    const length = session.grant.maxPayload;
    const payload = new Uint8Array(length).fill(0x42);
    await session.write(0, payload);
    for (let slot = 1; slot < 9; slot++) await session.send(READ, 0, length, { slot });
    // Part of a reply is taken, the rest never.
    await session.peer.take(100);
    session.peer.close();
    await session.rejoin();
    for (let slot = 1; slot < 9; slot++) {
      const reply = await session.resend(READ, 0, length, { slot });
      assert.equal(reply.status, Status.OK);
      assert.deepEqual(reply.payload, payload);
    }
    await session.close();
  });

  test("JOIN needs its session: one that was closed is NO_SESSION", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, LEASE);
    await session.close();
    using peer = await Peer.greet(context.options);
    const { answer } = await ask(peer, FrameType.JOIN, joinTlvs(session.id, { generation: 2 }));
    assert.equal(answer.status, Status.NO_SESSION);
  });
}
