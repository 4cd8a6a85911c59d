import assert from "node:assert/strict";
import { Random } from "../engine/random.ts";
import { overlapBytes, OverlapTable } from "./overlap.ts";

const SLOTS = 8;

/** A lane's slots and its view of a table. */
class Lane {
  readonly offset = new Float64Array(SLOTS);
  readonly length = new Float64Array(SLOTS);
  readonly table: OverlapTable;

  constructor(memory: SharedArrayBuffer, lane: number) {
    this.table = new OverlapTable(memory, lane * SLOTS);
  }

  enter(slot: number, offset: number, length: number): boolean {
    this.offset[slot] = offset;
    this.length[slot] = length;
    return this.table.enter(slot, this.offset, this.length);
  }
}

function lanesOf(count: number): Lane[] {
  const memory = new SharedArrayBuffer(overlapBytes(count * SLOTS));
  return Array.from({ length: count }, (_, lane) => new Lane(memory, lane));
}

Deno.test("ranges that touch do not overlap; those that share a byte do", () => {
  const [lane] = lanesOf(1);
  assert(lane.enter(0, 4096, 4096));
  assert(lane.enter(1, 0, 4096));
  assert(lane.enter(2, 8192, 1));
  for (const [offset, length] of [[0, 4097], [8191, 1], [4096, 4096], [5000, 10], [0, 2 ** 53 - 1]]) {
    assert.equal(lane.enter(3, offset, length), false);
    lane.table.leave(3);
  }
});

Deno.test("a mutation waits for those before it alone, and in their order", () => {
  const [lane] = lanesOf(1);
  assert(lane.enter(0, 0, 512));
  assert(!lane.enter(1, 0, 1024));
  assert(!lane.enter(2, 512, 512));
  lane.table.leave(0);
  assert(lane.table.isClear(1));
  assert(!lane.table.isClear(2));
  // One that came later is in nobody's way.
  assert(!lane.enter(3, 0, 512));
  assert(lane.table.isClear(1));
  lane.table.leave(1);
  assert(lane.table.isClear(2) && lane.table.isClear(3));
});

Deno.test("lanes see each other's, also beyond 4 GiB", () => {
  const [one, two] = lanesOf(2);
  const far = 2 ** 52;
  assert(one.enter(7, far, 512));
  assert(!two.enter(7, far + 511, 512));
  assert(two.enter(0, far + 4096, 512));
  one.table.leave(7);
  assert(two.table.isClear(7));
});

Deno.test("a slot is entered once and leaves once", () => {
  const [lane] = lanesOf(1);
  assert(lane.enter(0, 0, 512));
  assert.throws(() => lane.enter(0, 512, 512), /already/);
  lane.table.leave(0);
  assert.throws(() => lane.table.leave(0), /no mutation/);
});

Deno.test("the table agrees with a list in order", () => {
  const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  const random = new Random(seed);
  const lanes = lanesOf(3);
  const list: { lane: number; slot: number; start: number; end: number }[] = [];
  const isClear = (index: number) => {
    const { start, end } = list[index];
    return list.slice(0, index).every((other) => other.end <= start || other.start >= end);
  };
  for (let step = 0; step < 20_000; step++) {
    const lane = random.below(3);
    const slot = random.below(SLOTS);
    const present = list.findIndex((one) => one.lane === lane && one.slot === slot);
    if (present < 0) {
      const start = random.below(40);
      const length = 1 + random.below(12);
      list.push({ lane, slot, start, end: start + length });
      assert.equal(lanes[lane].enter(slot, start, length), isClear(list.length - 1));
    } else if (random.below(2) === 0) {
      list.splice(present, 1);
      lanes[lane].table.leave(slot);
    } else {
      assert.equal(lanes[lane].table.isClear(slot), isClear(present));
    }
  }
});

Deno.test("no two threads ever hold overlapping ranges", async () => {
  const threads = 3;
  const memory = new SharedArrayBuffer(overlapBytes(threads));
  // What the range is about: whoever may write adds one, and nobody else may.
  const disk = new SharedArrayBuffer(4 * 16);
  const source = `
    import { OverlapTable } from ${JSON.stringify(new URL("./overlap.ts", import.meta.url).href)};
    self.onmessage = ({ data: { memory, disk, lane } }) => {
      const table = new OverlapTable(memory, lane);
      const cells = new Int32Array(disk);
      const [offset, length] = [new Float64Array(1), new Float64Array(1)];
      let state = lane + 1;
      let bad = 0;
      for (let i = 0; i < 20000; i++) {
        state = Math.imul(state, 1103515245) + 12345 & 0x7fffffff;
        offset[0] = (state >> 8) % 12;
        length[0] = 1 + (state >> 16) % 4;
        if (!table.enter(0, offset, length)) while (!table.isClear(0));
        const [from, to] = [offset[0], offset[0] + length[0]];
        for (let at = from; at < to; at++) if (Atomics.add(cells, at, 1) !== 0) bad++;
        for (let at = from; at < to; at++) Atomics.sub(cells, at, 1);
        table.leave(0);
      }
      self.postMessage(bad);
      self.close();
    };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const bad = await Promise.all(Array.from({ length: threads }, (_, lane) =>
    new Promise<number>((resolve) => {
      const worker = new Worker(url, { type: "module" });
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage({ memory, disk, lane });
    })));
  URL.revokeObjectURL(url);
  assert.deepEqual(bad, [0, 0, 0]);
});
