import assert from "node:assert/strict";
import { EXTENT_BYTES } from "../request.ts";
import { convertExtents, readU64, writeU64 } from "./reply.ts";

/** Converts extents of (length, flags) and answers descriptors of the same. */
function convert(
  extents: [number, number][],
  wanted: number,
  available = Number.MAX_SAFE_INTEGER,
  one = false,
): [number, number][] {
  const buffer = new ArrayBuffer(64 + extents.length * EXTENT_BYTES);
  const memory = { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
  extents.forEach(([length, flags], index) => {
    memory.view.setBigUint64(64 + index * EXTENT_BYTES, BigInt(length), true);
    memory.view.setUint32(64 + index * EXTENT_BYTES + 8, flags, true);
  });
  const bytes = convertExtents(memory, 64, extents.length * EXTENT_BYTES, wanted, available, one);
  const descriptors: [number, number][] = [];
  for (let at = 64; at < 64 + bytes; at += 8) {
    descriptors.push([memory.view.getUint32(at), memory.view.getUint32(at + 4)]);
  }
  return descriptors;
}

Deno.test("extents become descriptors with their flags", () => {
  assert.deepEqual(convert([[10, 0], [20, 3], [30, 2], [40, 1]], 100), [[10, 0], [20, 3], [30, 2], [40, 1]]);
});

Deno.test("flags that NBD does not know are left out", () => {
  assert.deepEqual(convert([[10, 0xfffffffc], [10, 0xffffffff]], 20), [[10, 0], [10, 3]]);
});

Deno.test("neighbours of one status are merged, empty extents left out", () => {
  assert.deepEqual(convert([[10, 3], [0, 0], [5, 3], [7, 0], [8, 0]], 100), [[15, 3], [15, 0]]);
});

Deno.test("only the last descriptor reaches past the request", () => {
  assert.deepEqual(convert([[10, 0], [90, 3], [50, 0]], 20), [[10, 0], [90, 3]]);
  assert.deepEqual(convert([[10, 0], [10, 3], [50, 0]], 20), [[10, 0], [10, 3]]);
});

Deno.test("no descriptor reaches past the end of the export", () => {
  assert.deepEqual(convert([[10, 0], [90, 3]], 30, 40), [[10, 0], [30, 3]]);
  assert.deepEqual(convert([[100, 0], [1, 3]], 30, 40), [[40, 0]]);
});

Deno.test("one descriptor is the merged first run, no longer than the request", () => {
  assert.deepEqual(convert([[10, 3], [10, 3], [10, 0]], 50, 1000, true), [[20, 3]]);
  assert.deepEqual(convert([[100, 3]], 50, 1000, true), [[50, 3]]);
});

Deno.test("an extent that 32 bits cannot hold ends the answer early, on a block boundary", () => {
  const TiB = 2 ** 40;
  const longest = 2 ** 32 - 65536;
  assert.deepEqual(convert([[TiB, 3], [10, 0]], 2 ** 32 - 1), [[longest, 3]]);
  assert.deepEqual(convert([[512, 0], [2 ** 32, 3], [10, 0]], 2 ** 32 - 1), [[512, 0], [longest, 3]]);
  assert.deepEqual(convert([[2 ** 31, 3], [2 ** 31, 3], [10, 0]], 2 ** 32 - 1), [[longest, 3]]);
  assert.deepEqual(convert([[longest, 3], [10, 0]], 2 ** 32 - 1), [[longest, 3], [10, 0]]);
  assert.deepEqual(convert([[TiB, 3]], 2 ** 32 - 512, TiB, true), [[longest, 3]]);
});

Deno.test("extents that say nothing become no descriptor", () => {
  assert.deepEqual(convert([], 10), []);
  assert.deepEqual(convert([[0, 3]], 10), []);
});

Deno.test("many extents are converted in place", () => {
  const extents: [number, number][] = Array.from({ length: 16384 }, (_, i) => [4096, i % 2 === 0 ? 0 : 3]);
  assert.deepEqual(convert(extents, 16384 * 4096), extents);
});

Deno.test("64-bit numbers are written and read exactly up to 2^53 - 1", () => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 512, 2 ** 53 - 1]) {
    writeU64(view, 0, value);
    assert.equal(view.getBigUint64(0), BigInt(value));
    assert.equal(readU64(view, 0), value);
  }
  view.setBigUint64(0, 2n ** 64n - 1n);
  assert(readU64(view, 0) > Number.MAX_SAFE_INTEGER);
});
