import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { Operation, PENDING, RequestFlag } from "../block.ts";
import { Random } from "../random.ts";
import { SLOT_PAYLOAD_BYTES } from "../slots.ts";
import { ask, makeSlots, TestDisk, Told } from "./test_disk.ts";
import { VolatileLayer } from "./volatile.ts";

const SIZE = 1 << 20;

class Bench {
  readonly slots = makeSlots(12);
  readonly own = this.slots.reserve(4)!;
  readonly disk: TestDisk;
  readonly told = new Told();
  readonly layer: VolatileLayer;

  constructor(cacheBytes = 1 << 20, through = 0, seed = 1) {
    this.disk = new TestDisk(this.slots, SIZE);
    this.layer = new VolatileLayer({ kind: "volatile", bytes: cacheBytes, through, seed }, this.disk, this.slots);
  }

  submit(nth: number, operation: number, offset = 0, length = 0, flags = 0): number {
    return ask(this.layer, this.slots, this.own[nth], operation, offset, length, flags, this.told);
  }

  write(offset: number, length: number, value: number, flags = 0, nth = 0): number {
    const at = this.slots.payloadAt(this.own[nth]);
    this.slots.arena.bytes.fill(value, at, at + length);
    return this.submit(nth, Operation.WRITE, offset, length, flags);
  }

  payload(nth: number, length: number): Uint8Array {
    const at = this.slots.payloadAt(this.own[nth]);
    return this.slots.arena.bytes.slice(at, at + length);
  }

  read(offset: number, length: number): Uint8Array {
    assert.equal(this.submit(3, Operation.READ, offset, length), 0);
    return this.payload(3, length);
  }
}

/** A seed by which the requests that follow go through, or do not, at a share of one half. */
function seedOf(...choices: boolean[]): number {
  for (let seed = 0;; seed++) {
    const random = new Random(seed);
    if (choices.every((goesThrough) => random.next() < 0.5 === goesThrough)) return seed;
  }
}

const filled = (length: number, value: number) => new Uint8Array(length).fill(value);

Deno.test("a write is acknowledged before it is on the disk, reads see it, and FLUSH writes it down", () => {
  const bench = new Bench();
  assert.equal(bench.layer.geometry.volatileCache, true);
  assert.equal(bench.write(512, 1024, 7), 0);
  assert.equal(bench.write(1024, 1024, 8), 0);
  assert.equal(bench.disk.content[600], 0);
  const expected = new Uint8Array(3072);
  expected.fill(7, 512, 1024).fill(8, 1024, 2048);
  assert.deepEqual(bench.read(0, 3072), expected);
  assert.equal(bench.submit(0, Operation.FLUSH), 0);
  assert.deepEqual(bench.disk.content.slice(0, 3072), expected);
  assert.deepEqual(bench.disk.asked, ["READ 0+3072 0", "WRITE 512+1024 0", "WRITE 1024+1024 0", "FLUSH 0+0 0"]);
  assert.equal(bench.layer.cachedCount, 0);
});

Deno.test("lost without a seed, everything since the last FLUSH is gone", () => {
  const bench = new Bench();
  bench.write(0, 512, 1);
  bench.submit(0, Operation.FLUSH);
  bench.write(0, 512, 2);
  bench.submit(0, Operation.WRITE_ZEROES, 512, 512);
  bench.layer.lose(null);
  assert.deepEqual(bench.read(0, 512), filled(512, 1));
  assert.equal(bench.submit(0, Operation.FLUSH), 0);
  assert.deepEqual(bench.disk.content.slice(0, 512), filled(512, 1));
});

Deno.test("FUA goes through, after the older writes that it overlaps and no others", () => {
  const bench = new Bench();
  bench.write(0, 512, 1);
  bench.write(8192, 512, 2);
  assert.equal(bench.write(4096, 512, 3, RequestFlag.FUA), 0);
  assert.deepEqual(bench.disk.asked, ["WRITE 4096+512 1"]);
  assert.equal(bench.write(0, 1024, 4, RequestFlag.FUA), 0);
  assert.deepEqual(bench.disk.asked.slice(1), ["WRITE 0+512 0", "WRITE 0+1024 1"]);
  bench.layer.lose(null);
  assert.deepEqual(bench.read(0, 1024), filled(1024, 4));
  assert.deepEqual(bench.read(4096, 512), filled(512, 3));
  assert.deepEqual(bench.read(8192, 512), filled(512, 0));
});

Deno.test("cached zeroes are read as zeroes, and a discard leaves what was there or zeroes", () => {
  const bench = new Bench();
  bench.disk.content.fill(9);
  assert.equal(bench.submit(0, Operation.WRITE_ZEROES, 512, 512, RequestFlag.FAST_ZERO | RequestFlag.NO_UNMAP), 0);
  assert.deepEqual(bench.read(512, 512), filled(512, 0));
  assert.equal(bench.submit(0, Operation.DISCARD, 1024, 512), 0);
  const discarded = bench.read(1024, 512)[0];
  assert.ok(discarded === 9 || discarded === 0);
  bench.submit(0, Operation.FLUSH);
  assert.ok(bench.disk.asked.includes(`WRITE_ZEROES 512+512 ${RequestFlag.NO_UNMAP}`));
  assert.ok(bench.disk.asked.includes("DISCARD 1024+512 0"));
});

Deno.test("FAST_ZERO is refused where the disk below cannot do it", () => {
  const slots = makeSlots(4);
  const disk = new TestDisk(slots, SIZE, { fastZero: false });
  const layer = new VolatileLayer({ kind: "volatile", bytes: 1, through: 0, seed: 1 }, disk, slots);
  assert.equal(
    ask(layer, slots, 0, Operation.WRITE_ZEROES, 0, 512, RequestFlag.FAST_ZERO, new Told()),
    -Errno.EOPNOTSUPP,
  );
});

Deno.test("a full cache writes back its oldest mutations, and a write that had to wait is told later", () => {
  const bench = new Bench(1);
  assert.equal(bench.write(0, SLOT_PAYLOAD_BYTES / 2, 1), 0);
  assert.equal(bench.write(SLOT_PAYLOAD_BYTES / 2, SLOT_PAYLOAD_BYTES / 2, 2), 0);
  assert.equal(bench.write(0, 512, 3), 0);
  assert.equal(bench.disk.content[0], 1);
  assert.equal(bench.read(0, 512)[0], 3);

  bench.disk.deferred = true;
  assert.equal(bench.write(0, SLOT_PAYLOAD_BYTES, 4), PENDING);
  assert.equal(bench.write(512, 512, 5, 0, 1), PENDING);
  assert.deepEqual(bench.told.order, []);
  bench.disk.release();
  assert.deepEqual(bench.told.order, [bench.own[0], bench.own[1]]);
  bench.disk.deferred = false;
  assert.equal(bench.submit(2, Operation.FLUSH), 0);
  assert.deepEqual([bench.disk.content[0], bench.disk.content[512], bench.disk.content[1024]], [4, 5, 4]);
});

Deno.test("a mutation is not written back under a read that began below before it could be seen there", () => {
  const bench = new Bench();
  bench.write(0, 512, 1);
  bench.disk.deferred = true;
  assert.equal(bench.submit(1, Operation.READ, 0, 512), PENDING);
  assert.equal(bench.submit(2, Operation.FLUSH), PENDING);
  assert.equal(bench.disk.heldCount, 1);
  bench.disk.release();
  assert.deepEqual(bench.told.order, [bench.own[1], bench.own[2]]);
  assert.deepEqual(bench.payload(1, 512), filled(512, 1));
  assert.deepEqual(bench.disk.asked, ["READ 0+512 0", "WRITE 0+512 0", "FLUSH 0+0 0"]);
});

Deno.test("a failed write-back is reported by the FLUSH and by every later FLUSH and FUA", () => {
  const bench = new Bench();
  bench.write(0, 512, 1);
  bench.disk.failure = -Errno.EIO;
  assert.equal(bench.submit(0, Operation.FLUSH), -Errno.EIO);
  bench.disk.failure = 0;
  assert.equal(bench.submit(0, Operation.FLUSH), -Errno.EIO);
  assert.equal(bench.write(0, 512, 1, RequestFlag.FUA), -Errno.EIO);
  assert.equal(bench.write(0, 512, 2), 0);
  assert.deepEqual(bench.read(0, 512), filled(512, 2));
});

Deno.test("cached ranges are reported as data, others by the disk below", () => {
  const bench = new Bench();
  bench.write(4096, 512, 1);
  bench.write(4608, 512, 1);
  const extent = (offset: number, length: number): [number, number] => {
    assert.equal(bench.submit(0, Operation.BLOCK_STATUS, offset, length), 0);
    assert.equal(bench.layer.extentBytes(bench.own[0]), 16);
    const view = new DataView(bench.payload(0, 16).buffer);
    return [Number(view.getBigUint64(0, true)), view.getUint32(8, true)];
  };
  assert.deepEqual(extent(0, 8192), [4096, 3]);
  assert.deepEqual(extent(4096, 4096), [512, 0]);
  assert.deepEqual(extent(4608, 256), [256, 0]);
  assert.deepEqual(extent(5120, 512), [512, 3]);
});

Deno.test("empty requests succeed, and the reserved slots are given back", () => {
  const bench = new Bench();
  const free = bench.slots.freeCount;
  assert.equal(bench.submit(0, Operation.WRITE, SIZE, 0), 0);
  assert.equal(bench.submit(0, Operation.READ, SIZE, 0), 0);
  assert.equal(bench.layer.cachedCount, 0);
  bench.layer.close();
  assert.equal(bench.slots.freeCount, free + 5);
  assert.equal(bench.disk.closed, true);
  const few = makeSlots(2);
  assert.throws(
    () => new VolatileLayer({ kind: "volatile", bytes: 1 << 20, through: 0, seed: 1 }, new TestDisk(few, SIZE), few),
    /Cannot make a volatile cache/,
  );
});

Deno.test("a share of the mutations, by a seed, is on the disk at once, and the others are lost", () => {
  const survivors = (through: number, seed: number) => {
    const bench = new Bench(1 << 20, through, seed);
    for (let i = 0; i < 200; i++) assert.equal(bench.write(i * 512, 512, 1 + i), 0);
    assert.equal(bench.submit(0, Operation.WRITE_ZEROES, 512, 0), 0);
    const before = bench.read(0, 200 * 512);
    for (let i = 0; i < 200; i++) assert.equal(before[i * 512], 1 + i, "nobody can tell which are which");
    bench.layer.lose(null);
    const after = bench.read(0, 200 * 512);
    return Array.from({ length: 200 }, (_, i) => i).filter((i) => after[i * 512] !== 0);
  };
  assert.equal(survivors(0, 7).length, 0);
  assert.equal(survivors(1, 7).length, 200);
  const half = survivors(0.5, 7);
  assert(half.length > 60 && half.length < 140, `${half.length} of 200 have survived`);
  assert.deepEqual(survivors(0.5, 7), half);
  assert.notDeepEqual(survivors(0.5, 8), half);
});

Deno.test("what goes through goes after what it overlaps, and does not fail for what failed before", () => {
  const bench = new Bench(1 << 20, 0.5, seedOf(false, false, true, false, true));
  bench.write(0, 1024, 1);
  bench.write(4096, 512, 2);
  assert.equal(bench.write(512, 512, 3), 0);
  assert.deepEqual(bench.disk.asked, ["WRITE 0+1024 0", "WRITE 512+512 0"]);
  bench.disk.failure = -Errno.EIO;
  assert.equal(bench.submit(0, Operation.FLUSH), -Errno.EIO);
  bench.disk.failure = 0;
  assert.equal(bench.write(512, 512, 4), 0);
  assert.deepEqual(bench.disk.asked.slice(3), ["WRITE 512+512 0"]);
  assert.equal(bench.submit(0, Operation.FLUSH), -Errno.EIO);
});

Deno.test("lost with a seed, each sector is one that was written since the last FLUSH, or the flushed one", () => {
  const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  const why = `replay with DST_SEED=${seed}`;
  const sectors = 64;
  for (let round = 0; round < 60; round++) {
    const bench = new Bench(1 << 18);
    const possible = Array.from({ length: sectors }, () => new Set([0]));
    const newest = new Array<number>(sectors).fill(0);
    for (let value = 1; value < 40; value++) {
      const first = random.below(sectors);
      const count = 1 + random.below(Math.min(16, sectors - first));
      const kind = random.below(10);
      if (kind === 0) assert.equal(bench.submit(0, Operation.FLUSH), 0, why);
      else if (kind === 1) assert.equal(bench.submit(0, Operation.WRITE_ZEROES, first * 512, count * 512), 0, why);
      else assert.equal(bench.write(first * 512, count * 512, value, kind === 2 ? RequestFlag.FUA : 0), 0, why);
      for (let sector = 0; sector < sectors; sector++) {
        const touched = sector >= first && sector < first + count;
        if (kind > 0 && touched) newest[sector] = kind === 1 ? 0 : value;
        if (kind === 0 || kind === 2 && touched) possible[sector].clear();
        possible[sector].add(newest[sector]);
      }
    }
    const before = bench.read(0, sectors * 512);
    for (let sector = 0; sector < sectors; sector++) assert.equal(before[sector * 512], newest[sector], why);
    bench.layer.lose(random.below(2 ** 31));
    const after = bench.read(0, sectors * 512);
    bench.layer.lose(null);
    assert.deepEqual(bench.read(0, sectors * 512), after, `a survivor was lost; ${why}`);
    assert.equal(bench.submit(0, Operation.FLUSH), 0, why);
    assert.deepEqual(bench.disk.content.slice(0, sectors * 512), after, why);
    for (let sector = 0; sector < sectors; sector++) {
      const value = after[sector * 512];
      assert.ok(possible[sector].has(value), `sector ${sector} has ${value}; ${why}`);
      assert.deepEqual(after.slice(sector * 512, sector * 512 + 512), filled(512, value), `torn within; ${why}`);
    }
  }
});

Deno.test("with completions at any time, every read sees the newest acknowledged write", () => {
  const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  const bench = new Bench(1);
  const newest = new Uint8Array(64);
  bench.disk.deferred = true;
  for (let step = 0; step < 3000; step++) {
    // One request at a time on each of three slots, each with sectors of its own, so that the newest is well defined.
    const nth = random.below(3);
    const first = nth * 16 + random.below(8);
    const count = 1 + random.below(8);
    const value = 1 + random.below(255);
    const isRead = random.below(2) === 0;
    const operation = random.below(20);
    const status = operation === 0
      ? bench.submit(nth, Operation.FLUSH)
      : isRead
      ? bench.submit(nth, Operation.READ, first * 512, count * 512)
      : bench.write(first * 512, count * 512, value, operation === 1 ? RequestFlag.FUA : 0, nth);
    const other = (nth + 1) % 3;
    const otherStatus = bench.write((other * 16 + 15) * 512, 512, value, 0, other);
    while (bench.disk.heldCount > 0) bench.disk.release(1);
    if (status === PENDING) assert.equal(bench.told.statuses.get(bench.own[nth]), 0);
    if (otherStatus === PENDING) assert.equal(bench.told.statuses.get(bench.own[other]), 0);
    newest[other * 16 + 15] = value;
    if (operation === 0) continue;
    if (!isRead) newest.fill(value, first, first + count);
    else {
      const read = bench.payload(nth, count * 512);
      for (let i = 0; i < count; i++) assert.equal(read[i * 512], newest[first + i], `replay with DST_SEED=${seed}`);
    }
    bench.told.statuses.clear();
  }
});
