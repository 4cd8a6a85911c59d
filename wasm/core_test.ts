import assert from "node:assert/strict";
import { makeArena, MEMORY_BYTES_MAX } from "./core.ts";
import { fillRandomly } from "./guard_support_test.ts";

Deno.test("warming up leaves the memory as it was", () => {
  const core = makeArena(1024 * 1024);
  fillRandomly(core.bytes.subarray(core.freeFrom));
  const before = core.bytes.slice(core.freeFrom);
  core.warmUp();
  const after = core.bytes.subarray(core.freeFrom);
  assert.ok(before.every((byte, i) => byte === after[i]));
});

Deno.test("a memory that is hardly larger than the core warms up too, or not at all", () => {
  const { freeFrom } = makeArena(1024 * 1024);
  const core = makeArena(freeFrom);
  core.warmUp();
  assert.ok(core.bytes.subarray(core.freeFrom).every((byte) => byte === 0));
});

Deno.test("a memory tells which ranges are in its free area, also of what is no number", () => {
  for (const core of [makeArena(1024 * 1024), makeArena(MEMORY_BYTES_MAX)]) {
    const { freeFrom, size } = core;
    const right: [number, number][] = [[freeFrom, 0], [freeFrom, 8], [size, 0], [size - 1, 1]];
    const wrong: [number, number][] = [
      [freeFrom - 1, 8],
      [0, 0],
      [freeFrom, -1],
      [freeFrom, size - freeFrom + 1],
      [size, 1],
      [freeFrom, 2 ** 31],
      [NaN, 8],
      [freeFrom, NaN],
    ];
    for (const [at, length] of right) assert.ok(core.holds(at, length), `${length} bytes at ${at}`);
    for (const [at, length] of wrong) assert.ok(!core.holds(at, length), `${length} bytes at ${at}`);
  }
});

Deno.test("a memory has at least the wanted size, in whole pages, at a page-aligned address that stays", () => {
  for (const wanted of [131072, 131073, 1024 * 1024 - 1, 5 * 1024 * 1024]) {
    const arena = makeArena(wanted);
    assert.equal(arena.size, Math.ceil(wanted / 65536) * 65536);
    assert.equal(arena.bytes.length, arena.size);
    assert.equal(arena.view.byteLength, arena.bytes.length);
    assert.equal(arena.view.buffer, arena.bytes.buffer);
    assert.equal(arena.address % 4096, 0);
    assert.ok(arena.address > 0 && arena.address < 2 ** 47);
    assert.equal(arena.freeFrom % 4096, 0);
    assert.ok(arena.freeFrom > 0 && arena.freeFrom <= arena.bytes.length);
    arena.warmUp();
    const now = Deno.UnsafePointer.value(Deno.UnsafePointer.of(arena.bytes));
    assert.equal(Number(now), arena.address);
  }
});

Deno.test("every arena is an instance of its own", () => {
  const one = makeArena(1024 * 1024);
  const other = makeArena(1024 * 1024);
  assert.notEqual(one.address, other.address);
  one.bytes.fill(1, one.freeFrom);
  assert.ok(other.bytes.subarray(other.freeFrom).every((byte) => byte === 0));
});

// By now the tests before have had the loader compiled for a small memory: V8 then takes `bytes.length` for negative
// here. What works on such a memory is in `guard_oracle_test.ts`.
Deno.test("the largest memory knows its size, and has views that reach its end", () => {
  const arena = makeArena(MEMORY_BYTES_MAX);
  assert.equal(arena.size, 2 ** 32 - 65536);
  arena.bytes[arena.size - 1] = 0x5a;
  assert.equal(arena.view.getUint8(arena.size - 1), 0x5a);
  assert.ok(arena.holds(arena.size - 8, 8));
});

Deno.test("a memory of an impossible size is refused by name of the limit", () => {
  for (const bytes of [0, -1, 0.5, NaN, Infinity, MEMORY_BYTES_MAX + 1, 2 ** 32]) {
    assert.throws(() => makeArena(bytes), { name: "RangeError", message: new RegExp(`1 to ${MEMORY_BYTES_MAX}$`) });
  }
  assert.throws(() => makeArena(1), { name: "RangeError", message: /the core itself needs it to have \d+$/ });
});
