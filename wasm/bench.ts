/**
 * How fast the core digests, beside hash-wasm, in one run: `deno run -A wasm/bench.ts`. GB/s of one thread; the two
 * take turns, and the median of the rounds counts, so that a busy machine slows both.
 *
 * @module
 */
import { createCRC32, createXXHash64, type IHasher } from "hash-wasm";
import { makeArena } from "./core.ts";

const SIZES = [4096, 131072];
const ROUNDS = 9;
/** How long one contender runs in one round. */
const SAMPLE_MS = 20;

const core = makeArena(1024 * 1024);
const at = core.freeFrom + 4096;
crypto.getRandomValues(core.bytes.subarray(at, at + 65536));
core.bytes.copyWithin(at + 65536, at, at + 65536);
core.warmUp();

/** hash-wasm as it is used: it copies the input, and gives the digest as new bytes. */
function byHashWasm(hasher: IHasher): (bytes: number) => void {
  const inputs = new Map(SIZES.map((size) => [size, core.bytes.slice(at, at + size)]));
  return (bytes) => void hasher.init().update(inputs.get(bytes)!).digest("binary");
}

/** GB/s of one sample. */
function sample(digest: (bytes: number) => void, bytes: number): number {
  const started = performance.now();
  let digests = 0;
  let elapsedMs = 0;
  while (elapsedMs < SAMPLE_MS) {
    for (let i = 0; i < 64; i++) digest(bytes);
    digests += 64;
    elapsedMs = performance.now() - started;
  }
  return digests * bytes / elapsedMs / 1e6;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

const contenders = [
  {
    name: "crc32c",
    own: (bytes: number) => core.crc32c(at, bytes, core.freeFrom),
    other: byHashWasm(await createCRC32(0x82f63b78)),
  },
  {
    name: "crc32c without SIMD",
    own: (bytes: number) => core.crc32cPortable(at, bytes, core.freeFrom),
    other: byHashWasm(await createCRC32(0x82f63b78)),
  },
  {
    name: "xxh64",
    own: (bytes: number) => core.xxh64(at, bytes, core.freeFrom),
    other: byHashWasm(await createXXHash64()),
  },
];

console.log("GB/s".padEnd(22), "bytes".padStart(8), "own".padStart(8), "hash-wasm".padStart(10), "ratio".padStart(7));
for (const { name, own, other } of contenders) {
  for (const bytes of SIZES) {
    sample(own, bytes);
    sample(other, bytes);
    const owns: number[] = [];
    const others: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      owns.push(sample(own, bytes));
      others.push(sample(other, bytes));
    }
    const [a, b] = [median(owns), median(others)];
    const columns = [`${bytes}`.padStart(8), a.toFixed(2).padStart(8), b.toFixed(2).padStart(10)];
    console.log(name.padEnd(22), ...columns, (a / b).toFixed(2).padStart(7));
  }
}
