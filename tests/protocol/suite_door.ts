/**
 * Cases of the door phase: LIST, DESCRIBE, and what OPEN and JOIN are checked for (SPEC.md, sections 3, 5 and 6).
 *
 * @module
 */
import assert from "node:assert/strict";
import { CONTROL_BYTES_MAX, DEPTH_MAX, DOOR_REQUESTS_MAX, LEASE_MS_MAX } from "../../protocol/limits.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { join, readTlvs, tlv, tlv32, tlvText } from "./bytes.ts";
import { type GrantFields, joinTlvs, openTlvs, readGrant } from "./door_messages.ts";
import { Peer } from "./peer.ts";
import { ask, Session } from "./session.ts";
import { BIG_BYTES, type Case, DISK_BYTES, type Register } from "./suite.ts";

/** One page of LIST: names, sizes, accesses, and whether there is more. */
async function listPage(peer: Peer, after?: string) {
  const { answer } = await ask(
    peer,
    FrameType.LIST,
    after === undefined ? new Uint8Array(0) : tlvText(Tlv.AFTER, after),
  );
  assert.equal(answer.status, Status.OK);
  assert.ok(answer.payload.length <= CONTROL_BYTES_MAX);
  const tlvs = readTlvs(answer.payload);
  const entries = (tlvs.get(Tlv.ENTRY) ?? []).map((value) => {
    const view = new DataView(value.buffer, value.byteOffset, value.length);
    return {
      name: new TextDecoder().decode(value.subarray(16)),
      size: Number(view.getBigUint64(0, true)),
      access: view.getUint32(8, true),
      features: view.getUint32(12, true),
    };
  });
  return { entries, more: tlvs.has(Tlv.MORE) };
}

/** Asks on a connection of its own for something that must be refused with this status. */
async function refused(context: Case, type: number, payload: Uint8Array, status: number): Promise<string> {
  using peer = await Peer.greet(context.options);
  const { answer } = await ask(peer, type, payload);
  assert.equal(answer.status, status);
  const text = readTlvs(answer.payload).get(Tlv.TEXT);
  // The connection goes on.
  const again = await ask(peer, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, context.exports.disk));
  assert.equal(again.answer.status, Status.OK);
  return new TextDecoder().decode(text?.[0]);
}

async function describe(context: Case, name: string): Promise<GrantFields> {
  using peer = await Peer.greet(context.options);
  const { answer } = await ask(peer, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, name));
  assert.equal(answer.status, Status.OK);
  return readGrant(answer.payload);
}

/** Registers them. */
export function registerDoorCases(test: Register): void {
  test("LIST names every export once, in the order of their bytes, page after page", async (context) => {
    using peer = await Peer.greet(context.options);
    const names: string[] = [];
    let after: string | undefined;
    for (;;) {
      const { entries, more } = await listPage(peer, after);
      names.push(...entries.map(({ name }) => name));
      if (!more) break;
      assert.ok(entries.length > 0, "MORE comes with an entry");
      after = names.at(-1);
    }
    const encoder = new TextEncoder();
    const inOrder = context.target.names.toSorted((a, b) => {
      const [left, right] = [encoder.encode(a), encoder.encode(b)];
      const at = left.findIndex((byte, i) => byte !== right[i]);
      return at < 0 ? left.length - right.length : left[at] - (right[at] ?? -1);
    });
    assert.deepEqual(names, inOrder);
  });

  test("LIST says what each export is, and begins after a name that need not exist", async (context) => {
    using peer = await Peer.greet(context.options);
    const find = async (name: string) => {
      const { entries } = await listPage(peer, name.slice(0, -1));
      return entries.find((entry) => entry.name === name)!;
    };
    assert.equal((await find(context.exports.big)).size, BIG_BYTES);
    const disk = await find(context.exports.disk);
    assert.deepEqual([disk.size, disk.access], [DISK_BYTES, 1]);
    const readOnly = await find(context.exports.readOnly);
    assert.deepEqual([readOnly.access, readOnly.features & 128], [0, 128]);
    assert.equal((await find(context.exports.shared)).features & 64, 64);
    assert.deepEqual((await listPage(peer, "\u{10ffff}")).entries, []);
    const last = context.exports.stalled;
    const rest = (await listPage(peer, last.slice(0, -1))).entries;
    assert.equal(rest[0].name, last);
  });

  test("DESCRIBE says what an export is", async (context) => {
    const disk = await describe(context, context.exports.disk);
    assert.equal(disk.size, DISK_BYTES);
    assert.equal(disk.access, 1);
    assert.ok(Number.isInteger(Math.log2(disk.logicalBlock)));
    assert.equal(disk.size % disk.logicalBlock, 0);
    assert.equal((await describe(context, context.exports.readOnly)).access, 0);
    const big = await describe(context, context.exports.big);
    assert.equal(big.size, BIG_BYTES);
    assert.deepEqual(big.instance, disk.instance);
    assert.notDeepEqual(big.storage, disk.storage);
  });

  test("a name that no export has is NOT_FOUND", async (context) => {
    const text = await refused(context, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, "no such export"), Status.NOT_FOUND);
    assert.notEqual(text, "");
    await refused(context, FrameType.OPEN, openTlvs("no such export"), Status.NOT_FOUND);
  });

  test("TLVs that are missing, malformed or not known are refused, and the connection goes on", async (context) => {
    const { disk } = context.exports;
    const whole = [
      tlvText(Tlv.EXPORT, disk),
      tlv(Tlv.SESSION, new Uint8Array(16).fill(1)),
      tlv32(Tlv.ACCESS, [0]),
      tlvText(Tlv.HOLDER, "the suite"),
    ];
    const open = join(...whole);
    const badText = tlv(Tlv.HOLDER, [0xff, 0xfe]);
    const control = tlvText(Tlv.HOLDER, "a\nb");
    const longName = tlvText(Tlv.EXPORT, "x".repeat(256));
    const zeroSession = tlv(Tlv.SESSION, new Uint8Array(16));
    const bad: [number, Uint8Array][] = [
      ...whole.map((_, left): [number, Uint8Array] => [
        FrameType.OPEN,
        join(...whole.filter((_, i) => i !== left)),
      ]),
      [FrameType.OPEN, new Uint8Array(0)],
      [FrameType.OPEN, join(...whole.slice(0, 3), badText)],
      [FrameType.OPEN, join(...whole.slice(0, 3), control)],
      [FrameType.OPEN, join(...whole.slice(0, 3), tlvText(Tlv.HOLDER, ""))],
      [FrameType.OPEN, join(longName, ...whole.slice(1))],
      [FrameType.OPEN, join(whole[0], zeroSession, whole[2], whole[3])],
      [FrameType.OPEN, join(whole[0], tlv(Tlv.SESSION, new Uint8Array(15).fill(1)), whole[2], whole[3])],
      [FrameType.OPEN, join(whole[0], whole[1], tlv32(Tlv.ACCESS, [2]), whole[3])],
      [FrameType.OPEN, join(open, whole[0])],
      [FrameType.OPEN, join(open, tlv(Tlv.STEAL, [1], 1))],
      [FrameType.OPEN, join(open, tlv(Tlv.RESUME, new Uint8Array(39), 1))],
      [FrameType.OPEN, join(open, tlv(Tlv.RESUME, new Uint8Array(40).fill(0xff), 1))],
      [FrameType.OPEN, open.slice(0, -1)],
      [FrameType.JOIN, new Uint8Array(0)],
      [FrameType.JOIN, joinTlvs(new Uint8Array(16), { generation: 1 })],
      [FrameType.JOIN, joinTlvs(new Uint8Array(16).fill(1), { generation: 0 })],
      [FrameType.JOIN, joinTlvs(new Uint8Array(16).fill(1), { generation: 1, lane: 64 })],
      [FrameType.DESCRIBE, new Uint8Array(0)],
      [FrameType.DESCRIBE, tlvText(Tlv.EXPORT, "")],
      [FrameType.LIST, tlvText(Tlv.AFTER, "")],
    ];
    for (const [type, payload] of bad) await refused(context, type, payload, Status.BAD_REQUEST);
    for (const type of [FrameType.LIST, FrameType.DESCRIBE, FrameType.OPEN, FrameType.JOIN]) {
      await refused(context, type, tlv(999, [1], 1), Status.UNKNOWN_REQUIRED);
    }
    using peer = await Peer.greet(context.options);
    const { answer } = await ask(peer, FrameType.OPEN, join(tlv(999, [1], 0xfffe), open));
    assert.equal(answer.status, Status.OK);
  });

  test("OPEN for read-write where only reading is allowed is DENIED", async (context) => {
    await refused(context, FrameType.OPEN, openTlvs(context.exports.readOnly), Status.DENIED);
    using session = await Session.open(context.options, context.exports.readOnly, { access: 0 });
    assert.equal(session.grant.access, 0);
    await session.close();
  });

  test("OPEN grants what was asked for, within the limits", async (context) => {
    const open = async (fields: object) => {
      using session = await Session.open(context.options, context.exports.disk, { access: 0, ...fields });
      const { slots, maxPayload, payloadBytes, leaseMs, lanes, size } = session.grant;
      assert.ok(maxPayload >= 4096 && maxPayload <= 1048576 && payloadBytes >= maxPayload && lanes >= 1);
      assert.equal(size, DISK_BYTES);
      assert.equal(session.grant.access, 0);
      await session.close();
      return { slots, maxPayload, leaseMs };
    };
    assert.equal((await open({ depth: 1 })).slots, 1);
    assert.equal((await open({ depth: 0 })).slots, 1);
    assert.equal((await open({ depth: 33 })).slots, 33);
    assert.equal((await open({ depth: 0xffff_ffff })).slots, DEPTH_MAX);
    assert.equal((await open({ maxPayload: 4096 })).maxPayload, 4096);
    assert.equal((await open({ maxPayload: 1 })).maxPayload, 4096);
    assert.ok((await open({ maxPayload: 0xffff_ffff })).maxPayload >= 65536);
    assert.equal((await open({ leaseMs: 5000 })).leaseMs, 5000);
    assert.equal((await open({ leaseMs: 0xffff_ffff })).leaseMs, LEASE_MS_MAX);
    await open({ lanes: 0 });
    await open({ lanes: 1000 });
  });

  test("a lane that cannot be reserved is NO_RESOURCES, and the others stay", async (context) => {
    const sessions: Session[] = [];
    try {
      for (;;) {
        const peer = await Peer.greet(context.options);
        const id = crypto.getRandomValues(new Uint8Array(16));
        const tlvs = openTlvs(context.exports.readOnly, { access: 0, depth: DEPTH_MAX, session: id });
        const { answer } = await ask(peer, FrameType.OPEN, tlvs);
        peer.close();
        if (answer.status === Status.NO_RESOURCES) break;
        assert.equal(answer.status, Status.OK);
        assert.ok(sessions.length < 1000, "there is an end to what can be reserved");
        sessions.push(
          await Session.open(context.options, context.exports.readOnly, { access: 0, depth: DEPTH_MAX }).catch(() =>
            null
          ) ??
            await Session.open(context.options, context.exports.readOnly, { access: 0, depth: 1 }),
        );
      }
      for (const session of sessions) assert.equal((await session.read(0, 4096)).length, 4096);
    } finally {
      for (const session of sessions) session.peer.close();
    }
  });

  test("a type of the lane phase is BAD_REQUEST, and the connection ends", async (context) => {
    for (const type of [0x01, 0x02, 0x0f, FrameType.PING, FrameType.CLOSE]) {
      using peer = await Peer.greet(context.options);
      const answer = await peer.call({ type });
      assert.equal(answer.type, type | REPLY);
      assert.equal(answer.status, Status.BAD_REQUEST);
      await peer.ended();
    }
  });

  test("any other type ends the connection without an answer", async (context) => {
    for (const type of [0x00, 0x11, 0x1f, 0x25, 0x30, 0x31, 0x32, 0x33, 0x34, 0x7f, 0xa0, 0xa2, 0xff]) {
      using peer = await Peer.greet(context.options);
      await peer.send({ type });
      await peer.ended();
    }
  });

  test("a field that has to be zero ends the connection", async (context) => {
    const fields = [{ flags: 1 }, { slot: 1 }, { lane: 1 }, { sequence: 1 }, { offset: 1 }, { length: 2n ** 40n }, {
      status: 1,
    }, { zero: 1 }];
    for (const field of fields) {
      using peer = await Peer.greet(context.options);
      await peer.send({ type: FrameType.LIST, ...field });
      await peer.ended();
    }
  });

  test("a message that is too long ends the connection, one of the longest length is taken", async (context) => {
    using long = await Peer.greet(context.options);
    await long.send({ type: FrameType.LIST, payloadBytes: CONTROL_BYTES_MAX + 1 });
    await long.ended();
    using peer = await Peer.greet(context.options);
    const payload = tlv(999, new Uint8Array(CONTROL_BYTES_MAX - 8));
    assert.equal((await ask(peer, FrameType.LIST, payload)).answer.status, Status.OK);
  });

  test("one request too many is TOO_MANY, and the connection ends", async (context) => {
    using peer = await Peer.greet(context.options);
    const payload = tlvText(Tlv.EXPORT, "none");
    for (let i = 0; i < DOOR_REQUESTS_MAX; i++) {
      assert.equal((await ask(peer, FrameType.DESCRIBE, payload)).answer.status, Status.NOT_FOUND);
    }
    assert.equal((await ask(peer, FrameType.DESCRIBE, payload)).answer.status, Status.TOO_MANY);
    await peer.ended();
  });

  test("bytes behind an OPEN, before its answer, end the connection", async (context) => {
    const { options, exports } = context;
    using peer = await Peer.greet({ ...options, feeding: "whole" });
    const open = peer.next({ type: FrameType.OPEN, payload: openTlvs(exports.disk, { access: 0 }) });
    const early = peer.next({ type: FrameType.PING, offset: 1 });
    await peer.write(join(open, early));
    // They may be seen only when the answer is there: by then they are a frame of the lane.
    try {
      for (;;) await peer.receive();
    } catch (error) {
      assert.equal((error as Error).name, "EndOfStream");
    }
  });
}
