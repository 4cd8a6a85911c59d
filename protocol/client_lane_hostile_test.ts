import assert from "node:assert/strict";
import fc from "fast-check";
import type { Frame } from "../tests/vectors/frames.ts";
import { concat, le, pattern } from "../tests/vectors/primitives.ts";
import { extent, LANE, LaneBench, withRequests } from "./client_lane_support_test.ts";
import { Arena, PLAIN_SUITES, Random, Script, XXH64 } from "./client_support_test.ts";
import { ProtocolError } from "./error.ts";
import { Operation } from "./request.ts";
import { FrameType } from "./wire.ts";

Deno.test("what an honest exporter does not send ends the connection and completes nothing", () => {
  const block = pattern(512, 1);
  const cases: [string, Omit<Frame, "name" | "from">, number][] = [
    ["another lane", { type: 0x81, lane: 2, sequence: 1, payload: pattern(1024, 1) }, ProtocolError.LANE],
    ["a slot at the depth", { type: 0x81, slot: 4, sequence: 1 }, ProtocolError.SLOT],
    ["the largest slot", { type: 0x81, slot: 0xffff, sequence: 1 }, ProtocolError.SLOT],
    ["a reply in a free slot", { type: 0x81, slot: 3, sequence: 0 }, ProtocolError.UNEXPECTED_REPLY],
    ["a reply of another type", { type: 0x82, slot: 0, sequence: 1 }, ProtocolError.UNEXPECTED_REPLY],
    ["the sequence before", { type: 0x82, slot: 1, sequence: 0 }, ProtocolError.SEQUENCE],
    ["the sequence after", { type: 0x82, slot: 1, sequence: 2 }, ProtocolError.SEQUENCE],
    ["a flag in a reply", { type: 0x82, slot: 1, sequence: 1, flags: 1 }, ProtocolError.FIELD],
    ["an offset in a reply", { type: 0x82, slot: 1, sequence: 1, offset: 2 ** 40 }, ProtocolError.FIELD],
    ["a length in a reply", { type: 0x82, slot: 1, sequence: 1, length: 512 }, ProtocolError.FIELD],
    ["a READ's reply without data", { type: 0x81, slot: 0, sequence: 1 }, ProtocolError.PAYLOAD_BYTES],
    ["too little data", { type: 0x81, slot: 0, sequence: 1, payload: block }, ProtocolError.PAYLOAD_BYTES],
    ["too much data", { type: 0x81, slot: 0, sequence: 1, payload: pattern(1536, 1) }, ProtocolError.PAYLOAD_BYTES],
    [
      "data with an error",
      { type: 0x81, slot: 0, sequence: 1, status: 1, payload: block },
      ProtocolError.PAYLOAD_BYTES,
    ],
    ["data for a WRITE", { type: 0x82, slot: 1, sequence: 1, payload: block }, ProtocolError.PAYLOAD_BYTES],
    ["no extents", { type: 0x87, slot: 2, sequence: 1 }, ProtocolError.PAYLOAD_BYTES],
    ["half an extent", { type: 0x87, slot: 2, sequence: 1, payload: pattern(24, 1) }, ProtocolError.PAYLOAD_BYTES],
    [
      "more extents than fit",
      { type: 0x87, slot: 2, sequence: 1, payload: new Uint8Array(65536 + 16) },
      ProtocolError.PAYLOAD_BYTES,
    ],
    ["an empty extent", { type: 0x87, slot: 2, sequence: 1, payload: extent(0, 0) }, ProtocolError.EXTENTS],
    ["extents beyond the range", { type: 0x87, slot: 2, sequence: 1, payload: extent(4608, 0) }, ProtocolError.EXTENTS],
    [
      "extents whose sum is beyond the range",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(extent(4096, 0), extent(512, 0)) },
      ProtocolError.EXTENTS,
    ],
    [
      "an extent beyond safe integers",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(le(2n ** 63n, 8), le(0, 8)) },
      ProtocolError.EXTENTS,
    ],
    ["an unknown extent flag", { type: 0x87, slot: 2, sequence: 1, payload: extent(512, 4) }, ProtocolError.EXTENTS],
    [
      "an extent whose last word is not zero",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(le(512, 8), le(0, 4), le(1, 4)) },
      ProtocolError.EXTENTS,
    ],
    ["extents below one block", { type: 0x87, slot: 2, sequence: 1, payload: extent(256, 0) }, ProtocolError.EXTENTS],
    ["a request", { type: 0x02, slot: 1, sequence: 1 }, ProtocolError.TYPE],
    ["the reply to a type that is none", { type: 0x88, slot: 1, sequence: 1 }, ProtocolError.TYPE],
    ["type 0", { type: 0 }, ProtocolError.TYPE],
    ["type 0x80", { type: 0x80 }, ProtocolError.TYPE],
    ["type 0xff", { type: 0xff }, ProtocolError.TYPE],
    ["CLOSE from the exporter", { type: 0x24 }, ProtocolError.TYPE],
    ["a reply to RESIZED", { type: 0xb0 }, ProtocolError.TYPE],
    ["FENCING in the lane phase", { type: 0x33, length: 1 }, ProtocolError.PHASE],
    ["another answer to OPEN", { type: 0xa2 }, ProtocolError.PHASE],
    ["a reply to no CLOSE", { type: 0xa4 }, ProtocolError.UNEXPECTED_REPLY],
    ["a reply to no PING", { type: 0x90, offset: 1 }, ProtocolError.UNEXPECTED_REPLY],
    ["a PING with PROBE", { type: 0x10, flags: 1, slot: 0, sequence: 1 }, ProtocolError.FIELD],
    ["a PING with payload", { type: 0x10, payload: block }, ProtocolError.FIELD],
    ["a PING with status", { type: 0x10, status: 1 }, ProtocolError.FIELD],
    ["RESIZED with a length", { type: 0x30, offset: 512, length: 512 }, ProtocolError.FIELD],
    ["SHUTTING_DOWN with an offset", { type: 0x31, offset: 512 }, ProtocolError.FIELD],
    ["FENCED with a slot", { type: 0x32, slot: 1 }, ProtocolError.FIELD],
    ["FENCED with a sequence", { type: 0x32, sequence: 1 }, ProtocolError.FIELD],
  ];
  for (const [name, frame, error] of cases) {
    const bench = withRequests({ logicalBlock: 512 });
    bench.receive(frame);
    assert.equal(bench.lane.error, error, name);
    assert.ok(bench.feed.isClosed, name);
    assert.deepEqual(bench.takeEvents(), [], name);
    assert.equal(bench.lane.busy, 3, name);
  }
});

Deno.test("a token or a size beyond safe integers is refused", () => {
  for (const type of [FrameType.PING, FrameType.RESIZED]) {
    const bench = new LaneBench(PLAIN_SUITES[0]);
    const bytes = bench.script.next({ type, lane: LANE });
    bytes[16 + 6] = 0x20; // bit 53 of the offset field
    bench.feed.push(bytes);
    assert.equal(bench.lane.error, ProtocolError.FIELD);
  }
});

Deno.test("a second reply to the same request is refused", () => {
  const bench = withRequests();
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  assert.deepEqual(bench.takeEvents(), ["completed 1 0 0"]);
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  assert.equal(bench.lane.error, ProtocolError.UNEXPECTED_REPLY);
});

Deno.test("no flipped bit anywhere in a reply gets past a digest", () => {
  for (const suite of PLAIN_SUITES.slice(1)) {
    const arena = new Arena();
    const length = 64;
    const whole = new Script(suite);
    whole.n = 2;
    const bytes = whole.next({ type: 0x81, lane: LANE, slot: 0, sequence: 1, payload: pattern(length, 3) });
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const bench = new LaneBench(suite, {}, arena);
      bench.request(0, Operation.READ, 0, length);
      const bent = bytes.slice();
      bent[bit >> 3] ^= 1 << (bit & 7);
      bench.feed.push(bent);
      assert.ok(bench.feed.isClosed && bench.lane.error !== ProtocolError.NONE, `${suite.name}, bit ${bit}`);
      assert.deepEqual(bench.takeEvents(), []);
    }
  }
});

Deno.test("a frame that is missing, repeated or out of order is refused", () => {
  for (const skip of [-1, 1]) {
    const bench = withRequests();
    bench.script.n += skip;
    bench.receive({ type: 0x82, slot: 1, sequence: 1 });
    assert.equal(bench.lane.error, ProtocolError.FRAME_NUMBER);
  }
});

Deno.test("a pong that does not repeat what its ping asked is refused", () => {
  const wrong: Omit<Frame, "name" | "from">[] = [
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 2 },
    { type: 0x90, flags: 0, slot: 2, sequence: 1, offset: 1 },
    { type: 0x90, flags: 3, slot: 2, sequence: 1, offset: 1 },
    { type: 0x90, flags: 1, slot: 1, sequence: 1, offset: 1 },
    { type: 0x90, flags: 1, slot: 2, sequence: 2, offset: 1 },
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 1, status: 3 },
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 1, length: 1 },
  ];
  for (const frame of wrong) {
    const bench = withRequests();
    bench.lane.probe(2);
    bench.receive(frame);
    assert.ok(bench.feed.isClosed);
    assert.ok(bench.lane.error === ProtocolError.FIELD || bench.lane.error === ProtocolError.UNEXPECTED_REPLY);
  }
  const bench = new LaneBench(XXH64, { pingIdleMs: 1 });
  bench.lane.tick(1);
  bench.receive({ type: 0x90, offset: 1, status: 1 });
  assert.equal(bench.lane.error, ProtocolError.FIELD);
});

Deno.test("any bytes give verdicts and an error, never an exception or a loop without end", () => {
  const arena = new Arena();
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 6 }), (pieces) => {
      const bench = new LaneBench(PLAIN_SUITES[0], {}, arena);
      bench.request(0, Operation.READ, 0, 1024);
      for (const piece of pieces) if (!bench.feed.isClosed) bench.feed.push(piece);
      assert.equal(bench.feed.isClosed, bench.lane.error !== 0);
      assert.equal(bench.lane.busy, 1);
    }),
    { numRuns: 200 },
  );
});

Deno.test("well-formed frames with any fields give verdicts; only a right reply completes anything", () => {
  const seed = 20260101;
  const random = new Random(seed);
  const arena = new Arena();
  const types = [0x81, 0x82, 0x87, 0x83, 0x10, 0x90, 0x30, 0x31, 0x32, 0xa4, 0x33, 0x01, 0xff];
  const small = (limit: number) => random.below(4) === 0 ? random.below(limit) : 0;
  for (let run = 0; run < 2000; run++) {
    const bench = new LaneBench(PLAIN_SUITES[run % 3], {}, arena);
    bench.request(0, Operation.READ, 0, 64);
    bench.request(1, Operation.WRITE, 0, 64);
    bench.request(2, Operation.BLOCK_STATUS, 0, 4096);
    for (let i = 0; i < 4 && !bench.feed.isClosed; i++) {
      const frame = {
        type: types[random.below(types.length)],
        flags: small(3),
        slot: random.below(5),
        lane: random.below(20) === 0 ? 1 : LANE,
        sequence: random.below(8) === 0 ? random.below(3) : 1,
        offset: small(2 ** 31),
        length: small(3),
        status: small(50),
        payload: random.below(2) === 0 ? undefined : random.bytes([16, 64, 1 + random.below(80)][random.below(3)]),
      };
      bench.feed.push(bench.script.next(frame));
      for (const event of bench.takeEvents()) {
        if (!event.startsWith("completed")) continue;
        assert.ok(frame.slot < 3 && frame.sequence === 1 && frame.flags === 0, `seed ${seed}, run ${run}: ${event}`);
        assert.equal(event.endsWith(" 0"), frame.payload === undefined, `seed ${seed}, run ${run}: ${event}`);
      }
    }
    assert.ok(bench.lane.error === 0 || bench.feed.isClosed, `seed ${seed}, run ${run}`);
  }
});
