/**
 * Cases of sessions: who holds an export, what a session is resumed with, how it ends (SPEC.md, 6.2 and 6.3).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { join, readTlvs, tlvText } from "./bytes.ts";
import { type GrantFields, joinTlvs, type OpenFields, openTlvs } from "./door_messages.ts";
import { Peer } from "./peer.ts";
import { ask, Session } from "./session.ts";
import type { Case, Register } from "./suite.ts";

/** Asks for a session that must be refused; answers the TLVs. */
async function refuses(context: Case, name: string, fields: OpenFields, status: number) {
  using peer = await Peer.greet(context.options);
  const { answer } = await ask(peer, FrameType.OPEN, openTlvs(name, fields));
  assert.equal(answer.status, status);
  return readTlvs(answer.payload);
}

/** Asks for a lane; answers the status. The connection is dropped. */
export async function joins(context: Case, id: Uint8Array, generation: number, lane = 0): Promise<number> {
  using peer = await Peer.greet(context.options);
  const { answer } = await ask(peer, FrameType.JOIN, joinTlvs(id, { generation, lane }));
  return answer.status;
}

/** Waits until a session is not there any more: what ends it is not said to a stranger. */
export async function isGone(context: Case, id: Uint8Array): Promise<void> {
  // A generation that is too low asks without changing anything; the session has at least generation 1.
  while (await joins(context, id, 1) !== Status.NO_SESSION) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** The 40 bytes of RESUME. */
function resumeOf(grant: GrantFields, changed: Partial<GrantFields> = {}): Uint8Array {
  const { storage, durability, writeEpoch } = { ...grant, ...changed };
  const epoch = new Uint8Array(8);
  new DataView(epoch.buffer).setBigUint64(0, writeEpoch, true);
  return join(storage, durability, epoch);
}

/** CURRENT as (access, text), or null. */
function currentOf(tlvs: Map<number, Uint8Array[]>): [number, string] | null {
  const value = tlvs.get(Tlv.CURRENT)?.[0];
  if (value === undefined) return null;
  const view = new DataView(value.buffer, value.byteOffset);
  assert.equal(view.getUint32(4, true), 0);
  return [view.getUint32(0, true), new TextDecoder().decode(value.subarray(8))];
}

/** Registers them. */
export function registerOwnershipCases(test: Register): void {
  test("a second writer is BUSY, and is told who holds the export; readers are admitted", async (context) => {
    const { disk } = context.exports;
    using holder = await Session.open(context.options, disk, { holder: "the first" });
    const current = currentOf(await refuses(context, disk, { holder: "the second" }, Status.BUSY))!;
    assert.equal(current[0], 1);
    assert.match(current[1], /^the first at .*127\.0\.0\.1/);
    using asking = await Peer.greet(context.options);
    const { answer } = await ask(asking, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, disk));
    assert.deepEqual(currentOf(readTlvs(answer.payload)), current);
    using reader = await Session.open(context.options, disk, { access: 0 });
    assert.equal((await reader.read(0, 4096)).length, 4096);
    await reader.close();
    await holder.close();
    using next = await Session.open(context.options, disk);
    await next.close();
    const after = await ask(asking, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, disk));
    assert.equal(currentOf(readTlvs(after.answer.payload)), null);
  });

  test("a shared export has several writers, and its write epoch stays", async (context) => {
    const { shared } = context.exports;
    using first = await Session.open(context.options, shared);
    using second = await Session.open(context.options, shared);
    assert.equal(first.grant.writeEpoch, second.grant.writeEpoch);
    const payload = new Uint8Array(4096).fill(7);
    await first.write(0, payload);
    assert.deepEqual(await second.read(0, 4096), payload);
    await first.close();
    await second.close();
  });

  test("the write epoch grows with a different writer, and only then", async (context) => {
    const { disk } = context.exports;
    const id = crypto.getRandomValues(new Uint8Array(16));
    using first = await Session.open(context.options, disk, { session: id });
    await first.close();
    using same = await Session.open(context.options, disk, { session: id });
    assert.equal(same.grant.writeEpoch, first.grant.writeEpoch);
    await same.close();
    using reader = await Session.open(context.options, disk, { access: 0 });
    assert.equal(reader.grant.writeEpoch, first.grant.writeEpoch);
    await reader.close();
    using other = await Session.open(context.options, disk);
    assert.equal(other.grant.writeEpoch, first.grant.writeEpoch + 1n);
    for (const identity of ["instance", "durability", "storage"] as const) {
      assert.deepEqual(other.grant[identity], first.grant[identity]);
    }
    await other.close();
  });

  test("the id of a session that exists is SESSION_EXISTS", async (context) => {
    using session = await Session.open(context.options, context.exports.disk);
    await refuses(context, context.exports.disk, { session: session.id }, Status.SESSION_EXISTS);
    await refuses(context, context.exports.shared, { session: session.id, access: 0 }, Status.SESSION_EXISTS);
    await session.close();
  });

  test("RESUME is granted where storage and write epoch are the same, whatever the durability", async (context) => {
    const { disk } = context.exports;
    using first = await Session.open(context.options, disk);
    await first.close();
    const { id, grant } = first;
    using again = await Session.open(context.options, disk, { session: id, resume: resumeOf(grant) });
    assert.equal(again.grant.writeEpoch, grant.writeEpoch);
    await again.close();
    const durability = new Uint8Array(16).fill(9);
    using other = await Session.open(context.options, disk, {
      session: id,
      resume: resumeOf(grant, { durability }),
    });
    assert.deepEqual(other.grant.durability, grant.durability);
    await other.close();
  });

  test("RESUME with another storage is STORAGE_CHANGED, with another writer since EPOCH_CHANGED", async (context) => {
    const { disk } = context.exports;
    using first = await Session.open(context.options, disk);
    await first.close();
    const { id, grant } = first;
    const storage = new Uint8Array(16).fill(9);
    const refusals: [Partial<GrantFields>, number][] = [
      [{ storage }, Status.STORAGE_CHANGED],
      [{ storage, writeEpoch: grant.writeEpoch + 1n }, Status.STORAGE_CHANGED],
      [{ writeEpoch: grant.writeEpoch + 1n }, Status.EPOCH_CHANGED],
      [{ writeEpoch: grant.writeEpoch - 1n }, Status.EPOCH_CHANGED],
    ];
    for (const [changed, status] of refusals) {
      await refuses(context, disk, { session: id, resume: resumeOf(grant, changed) }, status);
    }
    const stranger = crypto.getRandomValues(new Uint8Array(16));
    await refuses(context, disk, { session: stranger, resume: resumeOf(grant) }, Status.EPOCH_CHANGED);
    using other = await Session.open(context.options, disk);
    await refuses(context, disk, { session: id, resume: resumeOf(grant) }, Status.EPOCH_CHANGED);
    await other.close();
    await refuses(context, disk, { session: id, resume: resumeOf(grant) }, Status.EPOCH_CHANGED);
  });

  test("STEAL ends the holder, which is told FENCED", async (context) => {
    const { disk } = context.exports;
    using holder = await Session.open(context.options, disk, { leaseMs: 60_000 });
    await holder.write(0, new Uint8Array(4096).fill(1));
    using thief = await Session.open(context.options, disk, { steal: true });
    assert.equal(thief.grant.writeEpoch, holder.grant.writeEpoch + 1n);
    assert.equal((await holder.peer.receive()).type, FrameType.FENCED);
    await holder.peer.ended();
    assert.equal(await joins(context, holder.id, 2), Status.NO_SESSION);
    assert.deepEqual(await thief.read(0, 4096), new Uint8Array(4096).fill(1));
    await thief.close();
  });

  test("STEAL ends a holder that has no connection, and is no crime where there is none", async (context) => {
    const { disk } = context.exports;
    using holder = await Session.open(context.options, disk, { leaseMs: 60_000, steal: true });
    holder.peer.close();
    using thief = await Session.open(context.options, disk, { steal: true });
    assert.equal(await joins(context, holder.id, 2), Status.NO_SESSION);
    await thief.close();
  });

  test("STEAL waits for what executes", async (context) => {
    const { slow } = context.exports;
    using holder = await Session.open(context.options, slow);
    const payload = new Uint8Array(4096).fill(0x5a);
    await holder.send(Operation.WRITE, 0, 4096, { payload });
    const { status } = await holder.peer.call({ type: FrameType.PING, flags: 1, slot: 0, sequence: 1 });
    assert.equal(status, 1, "it executes");
    using thief = await Session.open(context.options, slow, { steal: true });
    assert.ok(thief.fencing.length > 0, "FENCING was sent");
    assert.equal(thief.fencing[0].length, 1, "one request executes");
    assert.deepEqual(await thief.read(0, 4096), payload);
    await thief.close();
  });

  test("a session without a lease ends with its connection, unanswered requests and all", async (context) => {
    const { disk } = context.exports;
    using session = await Session.open(context.options, disk, { leaseMs: 0 });
    for (let slot = 0; slot < 16; slot++) await session.send(Operation.READ, 0, 65536, { slot });
    session.peer.close();
    await isGone(context, session.id);
    using next = await Session.open(context.options, disk);
    await next.close();
  });

  test("a session with a lease keeps its export without a connection", async (context) => {
    const { disk } = context.exports;
    using session = await Session.open(context.options, disk, { leaseMs: 60_000, holder: "the keeper" });
    session.peer.close();
    const current = currentOf(await refuses(context, disk, {}, Status.BUSY))!;
    assert.match(current[1], /^the keeper at /);
    await session.rejoin();
    await session.close();
    assert.equal(await joins(context, session.id, 9), Status.NO_SESSION);
  });

  test("a lease that runs out ends the session", async (context) => {
    const { disk } = context.exports;
    using session = await Session.open(context.options, disk, { leaseMs: 300 });
    session.peer.close();
    await isGone(context, session.id);
    using next = await Session.open(context.options, disk);
    await next.close();
  });

  test("CLOSE waits for what executes", async (context) => {
    const { slow } = context.exports;
    using session = await Session.open(context.options, slow, { leaseMs: 60_000 });
    await session.send(Operation.WRITE, 0, 4096, { payload: new Uint8Array(4096).fill(3), slot: 1 });
    await session.peer.send({ type: FrameType.CLOSE });
    assert.equal((await session.reply(Operation.WRITE, 1)).status, Status.OK);
    const reply = await session.peer.receive();
    assert.deepEqual([reply.type, reply.status], [FrameType.CLOSE | REPLY, Status.OK]);
    await session.peer.ended();
    assert.equal(await joins(context, session.id, 2), Status.NO_SESSION);
  });

  test("a request after CLOSE ends the connection", async (context) => {
    const { slow } = context.exports;
    using session = await Session.open({ ...context.options, feeding: "whole" }, slow, { access: 0 });
    const { peer } = session;
    const close = peer.next({ type: FrameType.CLOSE });
    const read = peer.next({ type: Operation.READ, sequence: 1, length: 4096 });
    await peer.write(join(close, read));
    // The exporter may have answered the CLOSE by then; the READ it must not answer.
    try {
      assert.equal((await peer.receive()).type, FrameType.CLOSE | REPLY);
      await peer.ended();
    } catch (error) {
      assert.equal((error as Error).name, "EndOfStream");
    }
    await isGone(context, session.id);
  });
}
