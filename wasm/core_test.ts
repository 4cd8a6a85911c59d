import assert from "node:assert/strict";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { type Core, DIGEST_BYTES, DIGEST_INPUT_BYTES_MAX, makeArena, MEMORY_BYTES_MAX } from "./core.ts";

type Digest = "crc32c" | "crc32cPortable" | "xxh64";
const DIGESTS: readonly Digest[] = ["crc32c", "crc32cPortable", "xxh64"];
/** The Castagnoli polynomial, bits reflected. */
const CASTAGNOLI = 0x82f63b78;
const oracles = { crc: await createCRC32(CASTAGNOLI), xxh: await createXXHash64() };

const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
const why = `replay with DST_SEED=${seed}`;

/** Where tests put the result: the first bytes of the free area. The input comes some way behind. */
const INPUT = 64;
const core = makeArena(2 * 1024 * 1024);
core.warmUp();
fillRandomly(core.bytes.subarray(core.freeFrom));

/** Marsaglia's xorshift of 32 bits. */
function randomFrom(start: number): () => number {
  let state = start | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function fillRandomly(bytes: Uint8Array): void {
  const next = randomFrom(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = next() >>> 24;
}

/** The eight bytes that a digest writes, as hexadecimal digits in memory order. */
function digestOf(arena: Core, name: Digest, at: number, length: number): string {
  const out = arena.freeFrom;
  arena.bytes.fill(0xee, out, out + DIGEST_BYTES);
  arena[name](at, length, out);
  return arena.bytes.subarray(out, out + DIGEST_BYTES).toHex();
}

/** The same, by hash-wasm. */
function expected(arena: Core, name: Digest, at: number, length: number): string {
  const oracle = name === "xxh64" ? oracles.xxh : oracles.crc;
  const digest = oracle.init().update(arena.bytes.subarray(at, at + length)).digest("binary");
  return digest.toReversed().toHex().padEnd(2 * DIGEST_BYTES, "0");
}

function agree(at: number, length: number): void {
  for (const name of DIGESTS) {
    const found = digestOf(core, name, at, length);
    assert.equal(found, expected(core, name, at, length), `${name} of ${length} bytes at ${at}: ${why}`);
  }
}

/** Digests the bytes at an odd place. */
function digestOfBytes(name: Digest, bytes: Uint8Array): string {
  const at = core.freeFrom + INPUT + 1;
  core.bytes.set(bytes, at);
  return digestOf(core, name, at, bytes.length);
}

Deno.test("crc32c gives the digests of RFC 3720, appendix B.4", () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  const read = "01c00000000000000000000000000000140000000000040000000014000000182800000000000000" + "0200000000000000";
  const vectors: [Uint8Array, string][] = [
    [new Uint8Array(32), "aa36918a"],
    [new Uint8Array(32).fill(0xff), "43aba862"],
    [ascending, "4e79dd46"],
    [ascending.toReversed(), "5cdb3f11"],
    [Uint8Array.fromHex(read), "563a96d9"],
  ];
  for (const [bytes, digest] of vectors) {
    assert.equal(digestOfBytes("crc32c", bytes), `${digest}00000000`);
    assert.equal(digestOfBytes("crc32cPortable", bytes), `${digest}00000000`);
  }
});

Deno.test("xxh64 gives the digests that the xxHash project checks itself with", () => {
  const bytes = new Uint8Array(222);
  let generator = 2654435761n;
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = Number(generator >> 56n);
    generator = BigInt.asUintN(64, generator * 11400714785074694797n);
  }
  const vectors: [number, bigint][] = [
    [0, 0xef46db3751d8e999n],
    [1, 0xe934a84adb052768n],
    [4, 0x9136a0dca57457een],
    [14, 0x8282dcc4994e35c8n],
    [222, 0xb641ae8cb691c174n],
  ];
  for (const [length, digest] of vectors) {
    digestOfBytes("xxh64", bytes.subarray(0, length));
    assert.equal(core.view.getBigUint64(core.freeFrom, true), digest, `${length} bytes`);
  }
});

Deno.test("digests of every length up to 300 agree with hash-wasm", () => {
  for (let length = 0; length <= 300; length++) agree(core.freeFrom + INPUT + length % 16, length);
});

Deno.test("digests around every threshold of the kernels agree with hash-wasm", () => {
  const edges = [512, 4096, 16384, 20480, 16384 + 5275, 32768 + 5275, 65536, 131072, 256 * 1024];
  for (const edge of edges) {
    for (let length = edge - 1; length <= edge + 1; length++) agree(core.freeFrom + INPUT, length);
  }
  for (let past = -33; past <= 33; past++) {
    agree(core.freeFrom + INPUT, 512 + past);
    agree(core.freeFrom + INPUT, 20480 + past);
  }
});

Deno.test("digests agree with hash-wasm wherever the bytes begin", () => {
  for (let start = 0; start < 16; start++) {
    for (const length of [1, 31, 64, 255, 513, 4096, 4097, 20481]) agree(core.freeFrom + INPUT + start, length);
  }
});

Deno.test("digests of random ranges agree with hash-wasm", () => {
  const next = randomFrom(seed ^ 0x5bd1e995);
  const free = core.bytes.length - core.freeFrom - INPUT;
  for (let i = 0; i < 200; i++) {
    const length = i % 4 === 0 ? next() % 300000 : next() % 9000;
    agree(core.freeFrom + INPUT + next() % (free - length), length);
  }
});

Deno.test("a digest does not depend on the digests before it", () => {
  const at = core.freeFrom + INPUT;
  for (const length of [600, 30000, 4096]) {
    const first = digestOf(core, "crc32c", at, length);
    digestOf(core, "crc32c", at + 77, 100000);
    digestOf(core, "crc32cPortable", at + 5, 9999);
    assert.equal(digestOf(core, "crc32c", at, length), first);
  }
});

Deno.test("a digest writes its eight bytes and nothing else", () => {
  const small = makeArena(512 * 1024);
  fillRandomly(small.bytes.subarray(small.freeFrom));
  for (const name of DIGESTS) {
    for (const length of [0, 7, 4096, 100000]) {
      const before = small.bytes.slice(small.freeFrom);
      const out = small.freeFrom + 200001;
      small[name](small.freeFrom + 3, length, out);
      const after = small.bytes.slice(small.freeFrom);
      after.set(before.subarray(200001, 200001 + DIGEST_BYTES), 200001);
      assert.ok(after.every((byte, i) => byte === before[i]), `${name} of ${length} bytes: ${why}`);
    }
  }
});

Deno.test("a digest may be written over its own input", () => {
  const at = core.freeFrom + INPUT;
  for (const name of DIGESTS) {
    const digest = expected(core, name, at, 5000);
    const before = core.bytes.slice(at + 16, at + 16 + DIGEST_BYTES);
    core[name](at, 5000, at + 16);
    assert.equal(core.bytes.subarray(at + 16, at + 16 + DIGEST_BYTES).toHex(), digest, why);
    core.bytes.set(before, at + 16);
  }
});

Deno.test("warming up leaves the memory as it was", () => {
  const before = core.bytes.slice(core.freeFrom, core.freeFrom + 65536);
  core.warmUp();
  assert.deepEqual(core.bytes.slice(core.freeFrom, core.freeFrom + 65536), before);
});

Deno.test("a range outside the free area is refused, also one that is no number", () => {
  const { freeFrom } = core;
  const size = core.bytes.length;
  const wrong: [number, number, number][] = [
    [freeFrom - 1, 8, freeFrom],
    [0, 0, freeFrom],
    [freeFrom, -1, freeFrom],
    [freeFrom, size - freeFrom + 1, freeFrom],
    [size, 1, freeFrom],
    [freeFrom, DIGEST_INPUT_BYTES_MAX + 1, freeFrom],
    [freeFrom, 8, freeFrom - 1],
    [freeFrom, 8, size - DIGEST_BYTES + 1],
    [NaN, 8, freeFrom],
    [freeFrom, NaN, freeFrom],
    [freeFrom, 8, NaN],
  ];
  for (const name of DIGESTS) {
    for (const [at, length, out] of wrong) {
      assert.throws(() => core[name](at, length, out), RangeError, `${name}(${at}, ${length}, ${out})`);
    }
    core[name](size, 0, size - DIGEST_BYTES);
    core[name](size - 1, 1, freeFrom);
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
// here.
Deno.test("the largest memory is digested across 2 GiB and up to its end", () => {
  const arena = makeArena(MEMORY_BYTES_MAX);
  assert.equal(arena.size, 2 ** 32 - 65536);
  for (const at of [2 ** 31 - 2000, 2 ** 31, arena.size - 5000]) {
    fillRandomly(arena.bytes.subarray(at, at + 5000));
    for (const name of DIGESTS) {
      assert.equal(digestOf(arena, name, at, 5000), expected(arena, name, at, 5000), `${name} at ${at}: ${why}`);
    }
  }
  const out = arena.size - DIGEST_BYTES;
  arena.xxh64(arena.freeFrom, 0, out);
  assert.equal(arena.view.getBigUint64(out, true), 0xef46db3751d8e999n);
});

Deno.test("a memory of an impossible size is refused by name of the limit", () => {
  for (const bytes of [0, -1, 0.5, NaN, Infinity, MEMORY_BYTES_MAX + 1, 2 ** 32]) {
    assert.throws(() => makeArena(bytes), { name: "RangeError", message: new RegExp(`1 to ${MEMORY_BYTES_MAX}$`) });
  }
  assert.throws(() => makeArena(1), { name: "RangeError", message: /the core itself needs it to have \d+$/ });
});
