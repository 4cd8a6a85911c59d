// One suite, every backend, both loops: memory, a file in memory, files on ext4 and (where it can be mounted) xfs, with
// and without O_DIRECT, and a loop device.
import assert from "node:assert/strict";
import { ExtentFlag, Operation, RequestFlag } from "../../engine/block.ts";
import { Random } from "../../engine/random.ts";
import { SLOT_PAYLOAD_BYTES } from "../../engine/slots.ts";
import { Errno } from "../../ffi/errno.ts";
import { uringAvailable } from "../../ffi/uring.ts";
import { Bench, pattern, Scratch, whyNoMounts } from "./test_bench.ts";

const GIB = 1024 ** 3;
/** Sparse; past 4 GiB, so that offsets need more than 32 bits. */
const SIZE = 5 * GIB;
const KEEP = RequestFlag.NO_UNMAP;
const FAST = RequestFlag.FAST_ZERO;
const FUA = RequestFlag.FUA;

interface Row {
  name: string;
  /** Makes the disk and names it. */
  make(scratch: Scratch): string;
  direct?: boolean;
  needsMounts?: boolean;
  /** Whether WRITE_ZEROES with NO_UNMAP and FAST_ZERO succeeds. */
  fastKeep: boolean;
  /** Whether BLOCK_STATUS shows holes. */
  sparse: boolean;
  tmpfs?: boolean;
}

const rows: Row[] = [
  { name: "memory", make: () => `mem:${SIZE}`, fastKeep: false, sparse: true },
  { name: "file in memory", make: (s) => s.file("disk", SIZE), fastKeep: false, sparse: true, tmpfs: true },
  { name: "file", make: (s) => s.file("disk", SIZE), fastKeep: true, sparse: true },
  { name: "direct file", make: (s) => s.file("disk", SIZE), fastKeep: true, sparse: true, direct: true },
  {
    name: "file on xfs",
    make: (s) => s.file("disk", SIZE, s.filesystem("xfs", 512 * 1024 ** 2)),
    fastKeep: true,
    sparse: true,
    needsMounts: true,
  },
  {
    name: "block device",
    make: (s) => s.loopDevice(s.file("image", SIZE)),
    fastKeep: true,
    sparse: false,
    needsMounts: true,
  },
  {
    name: "direct block device of 4096-byte blocks",
    make: (s) => s.loopDevice(s.file("image", SIZE), "--sector-size", "4096"),
    fastKeep: true,
    sparse: false,
    needsMounts: true,
    direct: true,
  },
];

for (const row of rows) {
  for (const loop of ["uring", "poll"] as const) {
    const why = loop === "uring" ? uringAvailable() : null;
    const reason = why ?? (row.needsMounts ? whyNoMounts : null);
    Deno.test({
      name: `${row.name} over ${loop}${reason === null ? "" : `: skipped, ${reason}`}`,
      ignore: reason !== null,
      fn: async (t) => {
        using scratch = new Scratch(row.tmpfs ? "/dev/shm" : undefined);
        using bench = new Bench(loop, row.make(scratch), { direct: row.direct });
        await runSuite(t, row, bench);
      },
    });
  }
}

async function runSuite(t: Deno.TestContext, row: Row, bench: Bench): Promise<void> {
  const block = bench.device.geometry.logicalBlock;

  await t.step("the geometry is that of the disk", () => {
    const { size, physicalBlock, optimalIo, readOnly } = bench.device.geometry;
    assert.equal(size, SIZE);
    assert.ok(block >= 512 && physicalBlock >= block && optimalIo >= physicalBlock);
    assert.equal(readOnly, false);
    assert.equal(bench.disk.roundedOffBytes, 0);
  });

  await t.step("what was never written reads as zeroes", () => {
    assert.deepEqual(bench.read(0, 8192), new Uint8Array(8192));
    if (row.sparse) assert.deepEqual(bench.extents(0, SIZE), [{ length: SIZE, flags: 3 }]);
  });

  await t.step("first block, last block, across 4 GiB and a whole slot come back as written", () => {
    const places: [number, number][] = [
      [0, block],
      [SIZE - block, block],
      [4 * GIB - 8192, 16384],
      [GIB, SLOT_PAYLOAD_BYTES],
    ];
    for (const [offset, length] of places) assert.equal(bench.write(offset, length, 1), 0);
    for (const [offset, length] of places) assert.deepEqual(bench.read(offset, length), pattern(offset, length, 1));
  });

  await t.step("requests of no length succeed, wherever they are", () => {
    for (const operation of [Operation.READ, Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES]) {
      assert.equal(bench.run(operation, 0, 0), 0);
      assert.equal(bench.run(operation, SIZE, 0, operation === Operation.READ ? 0 : FUA), 0);
    }
    assert.equal(bench.run(Operation.BLOCK_STATUS, 0, 0), -Errno.EINVAL);
    assert.equal(bench.run(99, 0, block), -Errno.EINVAL);
  });

  await t.step("FLUSH and FUA succeed, several at once too", () => {
    assert.equal(bench.write(8 * block, block, 2, FUA), 0);
    assert.deepEqual(bench.read(8 * block, block), pattern(8 * block, block, 2));
    for (let slot = 0; slot < 4; slot++) bench.start(slot, Operation.FLUSH);
    for (let slot = 0; slot < 4; slot++) assert.equal(bench.finish(slot), 0);
    assert.equal(bench.run(Operation.CACHE, 0, SIZE), 0);
  });

  await t.step("every way of zeroing zeroes its range and leaves its neighbours", () => {
    const granule = Math.max(4096, block);
    for (const flags of [0, KEEP, FAST, FAST | KEEP, FUA, FUA | KEEP, FUA | FAST | KEEP]) {
      for (const [from, length] of [[granule, 4 * granule], [granule + block, granule], [granule, 40 * granule]]) {
        assert.equal(bench.write(0, 48 * granule, 3), 0);
        const status = bench.run(Operation.WRITE_ZEROES, from, length, flags);
        const expected = pattern(0, 48 * granule, 3);
        if ((flags & FAST) !== 0 && (flags & KEEP) !== 0 && !row.fastKeep) {
          assert.equal(status, -Errno.EOPNOTSUPP, `flags ${flags}`);
        } else {
          assert.equal(status, 0, `flags ${flags}`);
          expected.fill(0, from, from + length);
        }
        assert.deepEqual(bench.read(0, 48 * granule), expected, `flags ${flags}`);
      }
    }
  });

  await t.step("zeroing with NO_UNMAP leaves the range allocated", () => {
    if (!row.sparse) return;
    assert.equal(bench.write(2 * GIB, 65536, 4), 0);
    assert.equal(bench.run(Operation.FLUSH), 0);
    const before = Deno.statSync(`/proc/self/fd/${bench.disk.fd}`).blocks!;
    assert.equal(bench.run(Operation.WRITE_ZEROES, 2 * GIB, 65536, KEEP | FUA), 0);
    assert.ok(Deno.statSync(`/proc/self/fd/${bench.disk.fd}`).blocks! >= before);
    assert.equal(bench.run(Operation.WRITE_ZEROES, 2 * GIB, 65536, FUA), 0);
    assert.ok(Deno.statSync(`/proc/self/fd/${bench.disk.fd}`).blocks! < before);
  });

  await t.step("a discarded range reads as zeroes, over 4 GiB and to the last block", () => {
    assert.equal(bench.write(4 * GIB - 8192, 16384, 5), 0);
    assert.equal(bench.write(SIZE - 4096, 4096, 5), 0);
    assert.equal(bench.run(Operation.DISCARD, 4096, SIZE - 4096, FUA), 0);
    assert.deepEqual(bench.read(4 * GIB - 8192, 16384), new Uint8Array(16384));
    assert.deepEqual(bench.read(SIZE - 4096, 4096), new Uint8Array(4096));
    assert.deepEqual(bench.read(GIB, 4096), new Uint8Array(4096));
  });

  await t.step("the sparse map shows data where it is, and a long map takes several answers", () => {
    if (!row.sparse) {
      assert.deepEqual(bench.extents(block, SIZE - block), [{ length: SIZE - block, flags: 0 }]);
      return;
    }
    assert.equal(bench.run(Operation.DISCARD, 0, SIZE), 0);
    for (let i = 0; i < 150; i++) assert.equal(bench.write(i * 262144, 65536, 6), 0);
    assert.equal(bench.write(SIZE - 65536, 65536, 6), 0);
    const extents = bench.extents(0, SIZE);
    assert.equal(extents.length, 301);
    assert.deepEqual(extents.slice(0, 3), [
      { length: 65536, flags: 0 },
      { length: 196608, flags: ExtentFlag.HOLE | ExtentFlag.ZERO },
      { length: 65536, flags: 0 },
    ]);
    assert.deepEqual(extents.at(-1), { length: 65536, flags: 0 });
    assert.deepEqual(bench.extents(4096, 8192), [{ length: 8192, flags: 0 }]);
    assert.equal(bench.run(Operation.DISCARD, 0, SIZE), 0);
  });

  await t.step("any requests, several at a time, leave what a plain array would hold", () => {
    const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
    againstModel(bench, 4 * GIB - 65536, 131072, new Random(seed), `replay with DST_SEED=${seed}`);
  });
}

/** Random requests on four slots at a time, which never overlap, against an array. */
function againstModel(bench: Bench, base: number, length: number, random: Random, why: string): void {
  const block = bench.device.geometry.logicalBlock;
  const model = new Uint8Array(length);
  assert.equal(bench.run(Operation.WRITE_ZEROES, base, length), 0, why);
  const quarter = length / 4;
  for (let round = 0; round < 60; round++) {
    for (let slot = 0; slot < 4; slot++) {
      const from = slot * quarter + random.below(quarter / block) * block;
      const bytes = block * (1 + random.below(((slot + 1) * quarter - from) / block));
      const flags = (random.below(6) === 0 ? FUA : 0) | (random.below(2) === 0 ? KEEP : 0);
      const choice = random.below(4);
      if (choice === 0) {
        model.fill(0, from, from + bytes);
        bench.start(slot, Operation.WRITE_ZEROES, base + from, bytes, flags);
      } else if (choice === 1) {
        bench.start(slot, Operation.FLUSH);
      } else {
        const data = pattern(base + from, bytes, round);
        model.set(data, from);
        bench.slots.arena.bytes.set(data, bench.slots.payloadAt(slot));
        bench.start(slot, Operation.WRITE, base + from, bytes, flags & FUA);
      }
    }
    for (let slot = 0; slot < 4; slot++) assert.equal(bench.finish(slot), 0, why);
    assert.deepEqual(bench.read(base, length), model, why);
  }
}
