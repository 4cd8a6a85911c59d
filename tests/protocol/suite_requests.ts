/**
 * Cases of each request at its edges (SPEC.md, 5.1).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType } from "../../protocol/wire.ts";
import { randomBytes, randomOf, readTlvs, tlvText } from "./bytes.ts";
import { Peer } from "./peer.ts";
import { ask, Session } from "./session.ts";
import { BIG_BYTES, type Case, DISK_BYTES, FAILING_BYTES, type Register } from "./suite.ts";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS } = Operation;
const RANGED = [READ, WRITE, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS];
const FUA = 1;
const NO_UNMAP = 2;
const FAST_ZERO = 4;
const DF = 8;
/** Bits of FEATURES. */
const HAS_DISCARD = 2;
const HAS_FAST_ZERO = 8;

/** Runs with a session on an export, and closes it. */
async function withSession(
  context: Case,
  name: string,
  body: (session: Session) => Promise<void>,
  access = 1,
): Promise<void> {
  using session = await Session.open(context.options, name, { access });
  await body(session);
  await session.close();
}

/** The payload that a request of the type has to have. */
function payloadFor(type: number, length: number): Uint8Array | undefined {
  return type === WRITE ? new Uint8Array(length) : undefined;
}

/** The extents of a successful BLOCK_STATUS, which must suit its range. */
async function extentsOf(
  session: Session,
  offset: number,
  length: number,
): Promise<{ length: number; flags: number }[]> {
  const { status, payload } = await session.request(BLOCK_STATUS, offset, length);
  assert.equal(status, Status.OK);
  assert.ok(payload.length >= 16 && payload.length % 16 === 0 && payload.length <= session.grant.maxPayload);
  const view = new DataView(payload.buffer, payload.byteOffset);
  const extents: { length: number; flags: number }[] = [];
  let sum = 0;
  for (let at = 0; at < payload.length; at += 16) {
    assert.equal(view.getUint32(at + 12, true), 0);
    const extent = { length: Number(view.getBigUint64(at, true)), flags: view.getUint32(at + 8, true) };
    assert.ok(extent.flags <= 3 && extent.length > 0);
    sum += extent.length;
    extents.push(extent);
  }
  assert.ok(sum >= session.grant.logicalBlock && sum <= length);
  return extents;
}

/** Registers them. */
export function registerRequestCases(test: Register): void {
  test("what is written is read again: first block, last block, longest payload", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const { logicalBlock, maxPayload } = session.grant;
      const places = [[0, logicalBlock], [DISK_BYTES - logicalBlock, logicalBlock], [0, maxPayload]];
      places.push([DISK_BYTES - maxPayload, maxPayload], [logicalBlock * 3, 65536 - logicalBlock]);
      for (const [index, [offset, length]] of places.entries()) {
        const payload = randomBytes(context.seed * 1000 + index, length);
        await session.write(offset, payload);
        assert.deepEqual(await session.read(offset, length), payload, `${length} bytes at ${offset}`);
      }
    }));

  test("offsets on both sides of 4 GiB are different places", (context) =>
    withSession(context, context.exports.big, async (session) => {
      const half = 8192;
      const payload = randomBytes(context.seed, 2 * half);
      const edge = 2 ** 32;
      const low = new Uint8Array(half).fill(0x11);
      await session.write(0, low);
      await session.write(edge - half, payload);
      assert.deepEqual(await session.read(edge - half, half), payload.slice(0, half));
      assert.deepEqual(await session.read(edge, half), payload.slice(half));
      assert.deepEqual(await session.read(0, half), low);
      await session.write(BIG_BYTES - half, payload.slice(half));
      assert.deepEqual(await session.read(BIG_BYTES - half, half), payload.slice(half));
      assert.deepEqual(await session.read(BIG_BYTES - half - edge, half), new Uint8Array(half));
    }));

  test("a range beyond the end is OUT_OF_RANGE, however large its numbers", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const block = session.grant.logicalBlock;
      const offsets = [DISK_BYTES, DISK_BYTES - block, 2 ** 32, 2 ** 53 - block];
      for (const type of RANGED) {
        for (const offset of offsets) {
          const length = 2 * block;
          const { status } = await session.request(type, offset, length, { payload: payloadFor(type, length) });
          assert.equal(status, Status.OUT_OF_RANGE, `type ${type} at ${offset}`);
        }
      }
      for (const type of [DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS]) {
        for (const [offset, length] of [[0, 2 ** 53 - block], [block, DISK_BYTES], [2 ** 52, 2 ** 53 - block]]) {
          assert.equal((await session.request(type, offset, length)).status, Status.OUT_OF_RANGE);
        }
      }
      assert.equal((await session.read(DISK_BYTES - block, block)).length, block);
    }));

  test("numbers above 2^53 - 1 are refused with a status", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const { peer } = session;
      const block = BigInt(session.grant.logicalBlock);
      let sequence = 0;
      for (const offset of [2n ** 53n, 2n ** 63n, 2n ** 64n - block]) {
        sequence++;
        const reply = await peer.call({ type: READ, sequence, offset, length: block });
        assert.equal(reply.status, Status.OUT_OF_RANGE);
      }
      for (const length of [2n ** 53n, 2n ** 63n, 2n ** 64n - block]) {
        for (const type of [READ, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS]) {
          sequence++;
          const reply = await peer.call({ type, sequence, length });
          assert.equal(reply.status, Status.INVALID, `type ${type}, length ${length}`);
        }
      }
    }));

  test("a length of zero is INVALID, and so is a READ above the maximum payload", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      for (const type of RANGED) {
        if (type !== WRITE) assert.equal((await session.request(type, 0, 0)).status, Status.INVALID, `type ${type}`);
      }
      const { status } = await session.request(WRITE, 0, 0, { payload: new Uint8Array(0) });
      assert.equal(status, Status.INVALID);
      const { maxPayload, logicalBlock } = session.grant;
      assert.equal((await session.request(READ, 0, maxPayload + logicalBlock)).status, Status.INVALID);
    }));

  test("what is no multiple of the logical block is INVALID", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const block = session.grant.logicalBlock;
      if (block === 1) return;
      for (const type of RANGED) {
        for (
          const [offset, length] of [[1, block], [block / 2, block], [0, block - 1], [0, block + 1], [2 ** 25 + 1, 1]]
        ) {
          const { status } = await session.request(type, offset, length, { payload: payloadFor(type, length) });
          assert.equal(status, Status.INVALID, `type ${type}: ${length} bytes at ${offset}`);
        }
      }
    }));

  test("FLUSH has neither offset nor length", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      assert.equal((await session.request(FLUSH, 0, 0)).status, Status.OK);
      const block = session.grant.logicalBlock;
      assert.equal((await session.request(FLUSH, block, 0)).status, Status.INVALID);
      assert.equal((await session.request(FLUSH, 0, block)).status, Status.INVALID);
    }));

  test("each type takes its flags, and refuses others", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const allowed = new Map([[READ, DF], [WRITE, FUA], [DISCARD, FUA], [WRITE_ZEROES, FUA | NO_UNMAP]]);
      const length = 8192;
      for (const type of [...RANGED, FLUSH]) {
        const mine = (allowed.get(type as never) ?? 0) | (type === WRITE_ZEROES ? FAST_ZERO : 0);
        for (const flags of [1, 2, 4, 8, 16, 0x8000, 0xffff]) {
          if ((flags & ~mine) === 0) continue;
          const range: [number, number] = type === FLUSH ? [0, 0] : [0, length];
          const { status } = await session.request(type, ...range, { flags, payload: payloadFor(type, length) });
          assert.equal(status, Status.INVALID, `type ${type}, flags ${flags}`);
        }
      }
      const payload = randomBytes(context.seed, length);
      await session.write(0, payload, FUA);
      const { status, payload: read } = await session.request(READ, 0, length, { flags: DF });
      assert.equal(status, Status.OK);
      assert.deepEqual(read, payload);
      assert.equal((await session.request(WRITE_ZEROES, 0, length, { flags: FUA })).status, Status.OK);
      assert.equal((await session.request(WRITE_ZEROES, 0, length, { flags: NO_UNMAP | FUA })).status, Status.OK);
    }));

  test("WRITE_ZEROES leaves zeroes, with every flag", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const length = 131072;
      for (const flags of [0, FUA, NO_UNMAP, NO_UNMAP | FUA, FAST_ZERO, FAST_ZERO | NO_UNMAP]) {
        await session.write(0, new Uint8Array(length).fill(0xee));
        const { status } = await session.request(WRITE_ZEROES, 8192, length - 16384, { flags });
        if ((flags & FAST_ZERO) !== 0 && status === Status.NOT_SUPPORTED) {
          const isPlain = flags === FAST_ZERO && (session.grant.features & HAS_FAST_ZERO) !== 0;
          assert.ok(!isPlain, "FAST_ZERO works where FEATURES say so");
          continue;
        }
        assert.equal(status, Status.OK, `flags ${flags}`);
        const expected = new Uint8Array(length).fill(0xee).fill(0, 8192, length - 8192);
        assert.deepEqual(await session.read(0, length), expected, `flags ${flags}`);
      }
    }));

  test("DISCARD leaves zeroes or what was there, and touches nothing else", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const length = 131072;
      const before = new Uint8Array(length).fill(0xdd);
      for (const flags of [0, FUA]) {
        await session.write(0, before);
        const { status } = await session.request(DISCARD, 16384, length - 32768, { flags });
        if ((session.grant.features & HAS_DISCARD) === 0) {
          assert.ok([Status.OK, Status.NOT_SUPPORTED].includes(status as 0));
        } else assert.equal(status, Status.OK);
        const after = await session.read(0, length);
        assert.deepEqual(after.slice(0, 16384), before.slice(0, 16384));
        assert.deepEqual(after.slice(length - 16384), before.slice(length - 16384));
        assert.ok(after.every((byte) => byte === 0 || byte === 0xdd));
      }
    }));

  test("DISCARD, WRITE_ZEROES, CACHE and BLOCK_STATUS reach over more than 4 GiB", (context) =>
    withSession(context, context.exports.big, async (session) => {
      const payload = new Uint8Array(8192).fill(0x77);
      for (const at of [0, 2 ** 32, BIG_BYTES - 8192]) await session.write(at, payload);
      for (const type of [CACHE, WRITE_ZEROES, DISCARD]) {
        const { status } = await session.request(type, 0, BIG_BYTES);
        assert.ok(status === Status.OK || (type !== WRITE_ZEROES && status === Status.NOT_SUPPORTED), `type ${type}`);
      }
      for (const at of [0, 2 ** 32, BIG_BYTES - 8192]) {
        assert.deepEqual(await session.read(at, 8192), new Uint8Array(8192), `at ${at}`);
      }
      let at = 0;
      for (let requests = 0; at < BIG_BYTES; requests++) {
        assert.ok(requests < 10_000, "BLOCK_STATUS comes to an end");
        for (const extent of await extentsOf(session, at, BIG_BYTES - at)) at += extent.length;
      }
    }));

  test("BLOCK_STATUS never calls data a hole, nor zero", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const unit = 1024 * 1024;
      await session.request(WRITE_ZEROES, 0, 8 * unit);
      await session.write(unit, new Uint8Array(8192).fill(1));
      await session.write(5 * unit, new Uint8Array(8192).fill(2));
      for (let at = 0; at < 8 * unit;) {
        for (const { length, flags } of await extentsOf(session, at, 8 * unit - at)) {
          for (const data of [unit, 5 * unit]) {
            if (flags !== 0) assert.ok(at + length <= data || at >= data + 8192, `${length} bytes at ${at}: ${flags}`);
          }
          at += length;
        }
      }
      const block = session.grant.logicalBlock;
      const extents = await extentsOf(session, unit, block);
      assert.deepEqual(extents, [{ length: block, flags: 0 }]);
    }));

  test("a read-only session changes nothing", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      const before = await session.read(0, 8192);
      for (const type of [WRITE, DISCARD, WRITE_ZEROES]) {
        const { status } = await session.request(type, 0, 8192, { payload: payloadFor(type, 8192) });
        assert.equal(status, Status.READ_ONLY);
      }
      // The first rule that is broken counts.
      assert.equal((await session.request(DISCARD, 1, 0)).status, Status.READ_ONLY);
      assert.equal((await session.request(DISCARD, 0, 8192, { flags: 64 })).status, Status.INVALID);
      for (const type of [READ, CACHE, BLOCK_STATUS]) {
        const { status } = await session.request(type, 0, 8192);
        assert.ok(status === Status.OK || (type === CACHE && status === Status.NOT_SUPPORTED));
      }
      assert.equal((await session.request(FLUSH, 0, 0)).status, Status.OK);
      assert.deepEqual(await session.read(0, 8192), before);
    }, 0));

  test("request types of later versions are NOT_SUPPORTED, with and without a payload", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      for (let type = 0x08; type <= 0x0f; type++) {
        for (const payload of [undefined, new Uint8Array(1), new Uint8Array(session.grant.maxPayload)]) {
          const { status } = await session.request(type, 12345, 2 ** 50, { payload, flags: 0xffff });
          assert.equal(status, Status.NOT_SUPPORTED);
        }
      }
      assert.equal((await session.request(READ, 0, 4096)).status, Status.OK);
    }));

  test("a disk's error is the status of the request that had it", (context) =>
    withSession(context, context.exports.failing, async (session) => {
      const payload = new Uint8Array(8192).fill(9);
      assert.equal((await session.request(WRITE, 0, 8192, { payload })).status, Status.NO_SPACE);
      assert.equal((await session.request(READ, 0, 8192)).status, Status.IO);
      await session.write(FAILING_BYTES, payload);
      assert.deepEqual(await session.read(FAILING_BYTES, 8192), payload);
      assert.equal((await session.request(FLUSH, 0, 0)).status, Status.OK);
    }));

  test("many requests at once are each answered once, with their own data", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { depth: 64 });
    const bytes = 16384;
    for (let slot = 0; slot < 64; slot++) {
      const payload = new Uint8Array(bytes).fill(slot + 1);
      await session.send(WRITE, slot * bytes, bytes, { slot, payload });
    }
    await takeReplies(session, 64, WRITE, () => {});
    for (let slot = 0; slot < 64; slot++) await session.send(READ, slot * bytes, bytes, { slot });
    await takeReplies(session, 64, READ, (slot, payload) => {
      assert.deepEqual(payload, new Uint8Array(bytes).fill(slot + 1));
    });
    await session.close();
  });

  test("a long random run leaves what a model says", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { depth: 8 });
    const { seed } = context;
    const random = randomOf(seed);
    const area = 1024 * 1024;
    const unit = Math.max(512, session.grant.logicalBlock);
    const model = new Uint8Array(8 * area);
    for (let slot = 0; slot < 8; slot++) {
      assert.equal((await session.request(WRITE_ZEROES, slot * area, area, { slot })).status, Status.OK);
    }
    // Each slot has a region of its own, so that no two mutations in flight overlap.
    for (let round = 0; round < 25; round++) {
      const reads = new Map<number, [number, number]>();
      for (let slot = 0; slot < 8; slot++) {
        const length = unit * (1 + Math.floor(random() ** 3 * (session.grant.maxPayload / unit - 1)));
        const offset = slot * area + unit * Math.floor(random() * ((area - length) / unit));
        const kind = random();
        if (kind < 0.4) {
          reads.set(slot, [offset, length]);
          await session.send(READ, offset, length, { slot });
        } else if (kind < 0.8) {
          const payload = randomBytes(seed + round * 8 + slot, length);
          model.set(payload, offset);
          await session.send(WRITE, offset, length, { slot, payload, flags: kind < 0.45 ? FUA : 0 });
        } else {
          model.fill(0, offset, offset + length);
          await session.send(WRITE_ZEROES, offset, length, { slot, flags: kind < 0.9 ? NO_UNMAP : 0 });
        }
      }
      for (let i = 0; i < 8; i++) {
        const reply = await session.peer.receive();
        assert.equal(reply.status, Status.OK, `seed ${seed}`);
        const range = reads.get(reply.slot);
        if (range === undefined) continue;
        const expected = model.subarray(range[0], range[0] + range[1]);
        assert.ok(Buffer.compare(reply.payload, expected) === 0, `READ of ${range}, round ${round}, seed ${seed}`);
      }
    }
    await session.close();
  });

  test("the description of an export is that of its sessions", (context) =>
    withSession(context, context.exports.disk, async (session) => {
      using peer = await Peer.greet(context.options);
      const { answer } = await ask(peer, FrameType.DESCRIBE, tlvText(Tlv.EXPORT, context.exports.disk));
      const tlvs = readTlvs(answer.payload);
      const view = new DataView(tlvs.get(Tlv.BLOCKS)![0].slice().buffer);
      assert.equal(view.getUint32(0, true), session.grant.logicalBlock);
      assert.equal(view.getUint32(12, true), session.grant.discardGranularity);
    }));
}

/** Takes the replies of so many slots, in any order, each once and OK. */
async function takeReplies(
  session: Session,
  count: number,
  type: number,
  check: (slot: number, payload: Uint8Array) => void,
): Promise<void> {
  const seen = new Set<number>();
  for (let i = 0; i < count; i++) {
    const reply = await session.peer.receive();
    assert.deepEqual([reply.type, reply.status], [type | 0x80, Status.OK]);
    assert.equal(reply.sequence, session.sequences[reply.slot]);
    assert.ok(!seen.has(reply.slot), `slot ${reply.slot} is answered once`);
    seen.add(reply.slot);
    check(reply.slot, reply.payload);
  }
}
