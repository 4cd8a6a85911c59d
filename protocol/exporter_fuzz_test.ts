import assert from "node:assert/strict";
import fc from "fast-check";
import { ProtocolError } from "./error.ts";
import { DOOR_SCRATCH_BYTES, ExporterDoor } from "./exporter_door.ts";
import { concat, CUTS, Feeder, type Fields, makeMemory, tlv, uint16s, uint32s } from "./harness_test.ts";
import { LANE, LaneSetup } from "./lane_setup_test.ts";
import { PENDING } from "./request.ts";

/** Fixed, so that every run is the same; fast-check prints what replays a failure. */
const SEED = 20_08_09;
const RUNS = 400;
/** WRITE, DISCARD, WRITE_ZEROES. */
const MUTATIONS = [2, 4, 5];
const ERRORS: readonly number[] = Object.values(ProtocolError);

/** Numbers that matter in a field: small ones mostly, and the edges. */
function field(bits: bigint): fc.Arbitrary<bigint> {
  const edges = [
    0n,
    1n,
    2n,
    511n,
    512n,
    8192n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 32n,
    2n ** 53n - 1n,
    2n ** 53n,
    2n ** 64n - 1n,
  ];
  const fitting = edges.filter((edge) => edge < 2n ** bits);
  return fc.oneof(fc.constantFrom(...fitting), fc.bigInt(0n, 2n ** bits - 1n), fc.bigInt(0n, 8n));
}

const smallNumber = (bits: bigint) => field(bits).map(Number);

const anyFrame: fc.Arbitrary<Fields> = fc.record({
  type: fc.oneof(fc.integer({ min: 1, max: 7 }), fc.constantFrom(0x10, 0x90, 0x24), fc.integer({ min: 0, max: 255 })),
  zero: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 1),
  flags: fc.oneof(fc.constant(0), smallNumber(16n)),
  slot: fc.oneof(fc.integer({ min: 0, max: 3 }), smallNumber(16n)),
  lane: fc.constantFrom(LANE, LANE, LANE, LANE, LANE, LANE, 0),
  sequence: fc.oneof(fc.integer({ min: 0, max: 4 }), smallNumber(32n)),
  offset: field(64n),
  length: field(64n),
  payload: fc.uint8Array({ maxLength: 1024 }),
  status: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 1),
});

/** Frames that a lane takes, so that the others meet a lane in every state. */
const goodFrame: fc.Arbitrary<Fields> = fc.record({
  type: fc.integer({ min: 1, max: 9 }),
  slot: fc.integer({ min: 0, max: 3 }),
  sequence: fc.integer({ min: 1, max: 2 }),
  offset: fc.constantFrom(0, 512, 65_024, 65_536),
  blocks: fc.integer({ min: 0, max: 2 }),
}).map(({ type, slot, sequence, offset, blocks }) => {
  const length = blocks * 512;
  if (type === 3) return { type, slot, sequence };
  return { type, slot, sequence, offset, length, payload: type === 2 ? new Uint8Array(length).fill(slot) : undefined };
});

type Step =
  | { do: "frame"; fields: Fields }
  | { do: "bytes"; bytes: Uint8Array }
  | { do: "complete"; slot: number; status: number }
  | { do: "reconnect" | "tick" | "close" | "resize" };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: goodFrame.map((fields): Step => ({ do: "frame", fields })) },
  { weight: 2, arbitrary: anyFrame.map((fields): Step => ({ do: "frame", fields })) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes): Step => ({ do: "bytes", bytes })) },
  {
    weight: 4,
    arbitrary: fc.record({ slot: fc.integer({ min: 0, max: 3 }), status: fc.constantFrom(0, 0, -5, -4000) })
      .map((what): Step => ({ do: "complete", ...what })),
  },
  { weight: 2, arbitrary: fc.constant<Step>({ do: "reconnect" }) },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: "tick" }, { do: "close" }, { do: "resize" }) },
);

/** What a client may see of a lane at any time: whole, numbered frames that are replies or announcements. */
function checkFrames(setup: LaneSetup): void {
  for (const { type, lane } of setup.frames()) {
    assert.ok((type & 0x80) !== 0 || type === 0x10 || type === 0x30, `type ${type}`);
    assert.equal(lane, LANE);
  }
}

for (const digest of [0, 1, 2]) {
  Deno.test(`whatever comes, a lane answers or ends the connection, and changes the disk once (digest ${digest})`, () => {
    const property = fc.property(
      fc.array(step, { maxLength: 40 }),
      fc.constantFrom(...CUTS),
      fc.boolean(),
      (steps, cut, later) => {
        const setup = new LaneSetup({ digest, cut }).connect();
        setup.answer = later ? PENDING : null;
        let now = 0;
        const executing = new Set<number>();
        const mutated = new Set<string>();
        for (const what of steps) {
          const before = setup.calls.length;
          if (what.do === "frame") setup.send(what.fields);
          else if (what.do === "bytes") setup.feeder.feed(what.bytes, cut);
          else if (what.do === "complete" && executing.delete(what.slot)) setup.lane.complete(what.slot, what.status);
          else if (what.do === "reconnect") setup.break().connect();
          else if (what.do === "tick") setup.lane.tick(now += 900);
          else if (what.do === "close") setup.lane.closed();
          else if (what.do === "resize") setup.lane.resized(65_536);
          assert.ok(setup.calls.length <= before + 1, "a frame is executed once at most");
          for (const [slot, operation, offset, length] of setup.calls.slice(before)) {
            if (what.do === "frame" && MUTATIONS.includes(operation)) {
              const name = `${slot}/${what.fields.sequence}`;
              assert.ok(!mutated.has(name), "a mutation is executed once, however often it is sent");
              mutated.add(name);
            }
            assert.ok(offset + length <= 65_536 && offset % 512 === 0 && length % 512 === 0);
            assert.ok(!executing.has(slot), "a slot carries one request at a time");
            if (later) executing.add(slot);
          }
          assert.equal(setup.lane.executing, executing.size);
          assert.ok(ERRORS.includes(setup.lane.error));
          assert.equal(setup.feeder.closed, setup.lane.error !== 0 && setup.lane.error !== ProtocolError.PEER_DEAD);
          checkFrames(setup);
          if (setup.feeder.closed) setup.break().connect();
        }
      },
    );
    fc.assert(property, { seed: SEED, numRuns: RUNS });
  });
}

Deno.test("whatever comes, a door answers or ends the connection", () => {
  const CONFIG = { ciphers: [0], digests: [0], keyRequired: false };
  const scratchAt = 0;
  const stagingAt = DOOR_SCRATCH_BYTES;
  const memory = makeMemory(stagingAt + 512);
  const start = concat(new TextEncoder().encode("DSTHELLO"), Uint8Array.from(uint16s(1, 1)));
  const body = concat(tlv(1, uint16s(0), 1), tlv(2, uint16s(0), 1));
  const good = concat(start, Uint8Array.from(uint32s(body.length)), body);
  const door = fc.record({
    hello: fc.oneof(
      fc.constant(good),
      fc.uint8Array({ maxLength: 100 }),
      fc.uint8Array({ maxLength: 60 }).map((end) => concat(start, end)),
    ),
    flips: fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(7)), { maxLength: 2 }),
    frames: fc.array(
      fc.tuple(
        fc.integer({ min: 0x1f, max: 0x25 }),
        fc.oneof(
          fc.uint8Array({ maxLength: 60 }),
          fc.array(fc.tuple(fc.integer({ min: 14, max: 40 }), fc.uint8Array({ maxLength: 40 }), fc.nat(1)), {
            maxLength: 6,
          }).map((tlvs) => concat(...tlvs.map(([type, value, flags]) => tlv(type, value, flags)))),
        ),
      ),
      { maxLength: 8 },
    ),
    end: fc.uint8Array({ maxLength: 100 }),
  });
  const property = fc.property(
    door,
    fc.constantFrom(...CUTS),
    fc.boolean(),
    ({ hello, flips, frames, end }, cut, flip) => {
      const bytes = hello.slice();
      if (flip) { for (const [at, bit] of flips) if (at < bytes.length) bytes[at] ^= 1 << bit; }
      let asked = 0;
      const machine = new ExporterDoor(memory, memory.cryptography, scratchAt, CONFIG, {
        transmit: (at, length) => assert.ok(at >= scratchAt && at + length <= stagingAt && length > 0),
        keyOf: () => null,
        randomBytes: (count) => new Uint8Array(count),
        list: () => ({ entries: [], more: false }),
        describe: () => null,
        open: () => asked++,
        join: () => asked++,
      });
      const feeder = new Feeder(memory, stagingAt, machine);
      feeder.feed(bytes, cut);
      let n = 0;
      for (const [type, payload] of frames) {
        const header = new Uint8Array(48);
        const view = new DataView(header.buffer);
        view.setUint32(0, 0x31545344, true);
        header[4] = type;
        view.setUint32(32, payload.length, true);
        view.setUint32(40, n++, true);
        feeder.feed(concat(header, payload), cut);
        if (!feeder.waiting) continue;
        machine.fencing(1);
        machine.refuse(34, "no");
        feeder.resume();
      }
      feeder.feed(end, cut);
      assert.ok(ERRORS.includes(machine.error));
      assert.equal(feeder.closed, machine.error !== 0);
      assert.equal(feeder.waiting, false);
      assert.ok(asked <= frames.length);
    },
  );
  fc.assert(property, { seed: SEED, numRuns: 3 * RUNS });
});
