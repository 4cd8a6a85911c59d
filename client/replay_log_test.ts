import assert from "node:assert/strict";
import { Operation, RequestFlag } from "../engine/block.ts";
import { Random } from "../engine/random.ts";
import { Slots } from "../engine/slots.ts";
import { makeArena } from "../wasm/core.ts";
import { LEDGER_BYTES, MutationLedger } from "./ledger.ts";
import { makeReplayRoom, REPLAY_BYTES_OF_LANE_MIN, ReplayLog, ReplayMemory } from "./replay_log.ts";

const EPOCHS = [1, 2].map((fill) => new Uint8Array(16).fill(fill));
const { WRITE, DISCARD, WRITE_ZEROES } = Operation;

/** So many lanes, all in this thread, over one memory. */
class Bench {
  readonly slots = new Slots(makeArena(4 * 1024 * 1024));
  readonly ledger: MutationLedger;
  readonly memory: ReplayMemory;
  readonly logs: ReplayLog[];

  /** @param acknowledged by the ledger's count, and covered */
  constructor(lanes = 1, acknowledged = 0) {
    const words = new Int32Array(new SharedArrayBuffer(LEDGER_BYTES));
    words.fill(acknowledged, 0, 2);
    // The last one that may be lost.
    words[8] = acknowledged;
    this.ledger = new MutationLedger(words.buffer);
    const room = makeReplayRoom(lanes, 0);
    this.memory = new ReplayMemory(room);
    // As each thread has its own.
    this.logs = Array.from({ length: lanes }, (_, lane) => {
      return new ReplayLog(new ReplayMemory(room), lane, this.slots, this.ledger);
    });
    this.ledger.meet(EPOCHS[0]);
    for (const log of this.logs) log.epochs = this.ledger.epochs;
  }

  /** A mutation is acknowledged, with one byte all over. */
  keep(lane: number, operation: number, offset: number, length: number, fill: number, flags = 0): boolean {
    const log = this.logs[lane];
    const bytes = operation === WRITE ? length : 0;
    if (!log.reserve(bytes, 1)) return false;
    this.slots.setRange(lane, offset, length);
    const at = this.slots.payloadAt(lane);
    if (operation === WRITE) this.slots.arena.bytes.fill(fill, at, at + length);
    return log.append(lane, operation, flags, 0, bytes);
  }

  /** What is to be written again: operation, flags, offset, length and what the payload consists of. */
  get uncovered(): unknown[] {
    return Array.from(this.memory.uncovered(this.ledger.covered), (place) => {
      const payload = new Uint8Array(this.memory.bytesOf(place) + 2).fill(0xee);
      this.memory.load(place, payload, 1);
      assert.deepEqual([payload[0], payload.at(-1)], [0xee, 0xee]);
      const fills = [...new Set(payload.slice(1, -1))];
      const { offset, length } = this.memory;
      return [this.memory.operationOf(place), this.memory.flagsOf(place), offset[place], length[place], ...fills];
    });
  }
}

Deno.test("room is shared evenly, and no lane has too little of it", () => {
  assert.equal(makeReplayRoom(4, 64 * 1024 * 1024).bytesOfLane, 16 * 1024 * 1024);
  assert.equal(makeReplayRoom(3, 1).bytesOfLane, REPLAY_BYTES_OF_LANE_MIN);
});

Deno.test("what several lanes keep comes back in the order in which it was acknowledged, with all that it was", () => {
  const bench = new Bench(2);
  const far = 5 * 2 ** 32;
  bench.keep(0, WRITE, far, 4096, 1);
  bench.keep(1, DISCARD, 0, far, 0);
  bench.keep(1, WRITE, 512, 512, 2, RequestFlag.FUA);
  bench.keep(0, WRITE_ZEROES, 0, 2 ** 33, 0, RequestFlag.NO_UNMAP | RequestFlag.FAST_ZERO);
  assert.deepEqual(bench.uncovered, [
    [WRITE, 0, far, 4096, 1],
    [DISCARD, 0, 0, far],
    [WRITE, 1, 512, 512, 2],
    [WRITE_ZEROES, 6, 0, 2 ** 33],
  ]);
  assert.equal(bench.memory.usedBytes, 4608);
});

Deno.test("what is covered is not written again, and its room is free as soon as it is wanted", () => {
  const bench = new Bench(2);
  bench.keep(0, WRITE, 0, 4096, 1);
  const mark = bench.ledger.mark();
  bench.keep(1, WRITE, 4096, 4096, 2);
  assert.equal(bench.logs[1].cover(mark), true);
  assert.deepEqual(bench.uncovered, [[WRITE, 0, 4096, 4096, 2]]);
  assert.equal(bench.memory.usedBytes, 8192);
  bench.logs[0].trim();
  assert.deepEqual([bench.memory.usedBytes, bench.logs[0].isEmpty, bench.logs[1].isEmpty], [4096, true, false]);
});

Deno.test("a part of a WRITE is taken from where it is, and any payload may go round the end of the ring", () => {
  const bench = new Bench();
  const [log] = bench.logs;
  const { bytesOfLane } = bench.memory;
  for (let at = 0; at < bytesOfLane - 1024; at += 1024) bench.keep(0, WRITE, at, 1024, 1);
  log.cover(bench.ledger.mark());
  const payloadAt = bench.slots.payloadAt(0);
  bench.slots.setRange(0, 0, 8192);
  for (let i = 0; i < 8192; i++) bench.slots.arena.bytes[payloadAt + i] = i >> 8;
  assert.ok(log.reserve(8192, 2));
  assert.ok(log.append(0, WRITE, 0, 0, 4096));
  assert.ok(log.append(0, WRITE, 0, 4096, 4096));
  const fills = Array.from({ length: 32 }, (_, i) => i);
  assert.deepEqual(bench.uncovered, [
    [WRITE, 0, 0, 4096, ...fills.slice(0, 16)],
    [WRITE, 0, 4096, 4096, ...fills.slice(16)],
  ]);
});

Deno.test("there is no more room than there is, for payload and for entries, and half of either is much", () => {
  const bench = new Bench();
  const [log] = bench.logs;
  const { bytesOfLane, entriesOfLane } = bench.memory;
  assert.equal(log.reserve(bytesOfLane + 1, 1), false);
  assert.equal(log.reserve(bytesOfLane, 1), true);
  assert.equal(log.reserve(1, 1), false);
  assert.equal(log.reserve(0, entriesOfLane), false);
  log.giveBack(bytesOfLane, 1);
  for (let i = 0; i < entriesOfLane / 2 - 1; i++) assert.ok(bench.keep(0, DISCARD, 0, 512, 0));
  assert.equal(log.isHigh, false);
  assert.ok(bench.keep(0, DISCARD, 0, 512, 0));
  assert.equal(log.isHigh, true);
  for (let i = 0; i < entriesOfLane / 2; i++) assert.ok(bench.keep(0, DISCARD, 0, 512, 0));
  assert.equal(bench.keep(0, DISCARD, 0, 512, 0), false);
  log.cover(bench.ledger.mark());
  assert.ok(bench.keep(0, WRITE, 0, bytesOfLane / 8, 1));
  assert.equal(log.isHigh, false);
  for (let i = 0; i < 3; i++) assert.ok(bench.keep(0, WRITE, 0, bytesOfLane / 8, 1));
  assert.equal(log.isHigh, true);
});

Deno.test("once there is another epoch nothing is taken, covered or removed until the lane knows of it", () => {
  const bench = new Bench(2);
  const [log] = bench.logs;
  bench.keep(0, WRITE, 0, 512, 1);
  bench.keep(0, WRITE, 512, 512, 2);
  const mark = bench.ledger.mark();
  bench.ledger.meet(EPOCHS[1], { lane: 1, freeze: () => (bench.memory.freeze(), true) });
  assert.equal(bench.keep(0, WRITE, 1024, 512, 3), false);
  assert.equal(log.cover(mark), false);
  log.trim();
  assert.equal(bench.ledger.mark(), mark);
  assert.equal(bench.uncovered.length, 2);
  log.epochs = bench.ledger.epochs;
  assert.ok(bench.ledger.replayed(log.epochs));
  log.trim();
  assert.deepEqual([bench.uncovered, log.isEmpty], [[], true]);
});

Deno.test("the order holds where the counts go round", () => {
  const bench = new Bench(2, 0x7fff_fffd);
  for (let i = 0; i < 6; i++) bench.keep(i % 2, WRITE, i * 512, 512, i + 1);
  assert.deepEqual(bench.uncovered.map((entry) => (entry as number[])[4]), [1, 2, 3, 4, 5, 6]);
  bench.ledger.cover((0x7fff_fffd + 3) | 0);
  assert.deepEqual(bench.uncovered.map((entry) => (entry as number[])[4]), [4, 5, 6]);
});

Deno.test("whatever is kept and covered, what comes back is what a list says", () => {
  const seed = Date.now() % 2 ** 31;
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const bench = new Bench(3);
  let list: { order: number; shown: unknown[] }[] = [];
  for (let step = 0; step < 4000; step++) {
    const lane = random.below(3);
    const fill = random.below(256);
    const offset = 512 * random.below(1000);
    const length = 512 * (1 + random.below(64));
    const operation = [WRITE, WRITE, DISCARD][random.below(3)];
    if (bench.keep(lane, operation, offset, length, fill)) {
      const fills = operation === WRITE ? [fill] : [];
      list.push({ order: bench.ledger.mark(), shown: [operation, 0, offset, length, ...fills] });
    } else {
      assert.ok(bench.logs[lane].isHigh);
      bench.logs[lane].cover(bench.ledger.mark());
      list = [];
    }
    if (random.below(50) === 0) {
      const mark = bench.ledger.covered + random.below(1 + bench.ledger.mark() - bench.ledger.covered);
      bench.logs[lane].cover(mark);
      list = list.filter(({ order }) => order > mark);
    }
    if (step % 100 === 0) assert.deepEqual(bench.uncovered, list.map(({ shown }) => shown));
  }
});
