import assert from "node:assert/strict";
import { makeArena, MEMORY_BYTES_MAX } from "./core.ts";
import {
  Bench,
  CORE_SUITES,
  expectedHeader,
  expectedPayload,
  HEADER_BYTES,
  randomFrom,
  seed,
  TAGGING_SUITES,
  why,
} from "./guard_support_test.ts";

/** A counter with all its bytes in use. */
const COUNTER = 0xf1e2_d3c4_b5a6_9788n;
const PIECE_BYTES = 65536;

/** As deepEqual, but fast where they are equal. */
function sameBytes(found: Uint8Array, expected: Uint8Array, what: string): void {
  if (!areSame(found, expected)) assert.deepEqual(found.toHex(), expected.toHex(), `${what}: ${why}`);
}

function areSame(found: Uint8Array, expected: Uint8Array): boolean {
  if (found.length !== expected.length) return false;
  for (let i = 0; i < found.length; i++) if (found[i] !== expected[i]) return false;
  return true;
}

/** Seals from one place to another, compares with the oracle, and opens. */
function roundTrip(bench: Bench, fromAt: number, toAt: number, length: number): void {
  const { core, guard, nonceAt, suite, tagAt } = bench;
  const what = `${suite.name}, ${length} bytes at ${fromAt - bench.from} to ${toAt - bench.to}`;
  const plain = bench.read(fromAt, length);
  const expected = expectedPayload(suite, bench.keys, COUNTER, plain);
  bench.putNonce(COUNTER);
  guard.seal(nonceAt, fromAt, toAt, length, tagAt);
  const sealedAt = guard.encrypts ? toAt : fromAt;
  sameBytes(bench.read(sealedAt, length), expected.text, what);
  sameBytes(bench.tag(), expected.tag, what);
  assert.ok(guard.open(nonceAt, sealedAt, length, tagAt), `${what}: ${why}`);
  sameBytes(bench.read(sealedAt, length), plain, what);
  if (suite.tagBytes === 0) return;
  core.bytes[tagAt + length % suite.tagBytes] ^= 1 << (length & 7);
  const copy = bench.read(sealedAt, length);
  assert.ok(!guard.open(nonceAt, sealedAt, length, tagAt), `${what}: ${why}`);
  core.bytes.set(copy, sealedAt);
}

for (const suite of CORE_SUITES) {
  Deno.test(`${suite.name}: payloads of every length up to 1100 are sealed and opened as other libraries do`, () => {
    const bench = new Bench(suite);
    for (let length = 1; length <= 1100; length++) roundTrip(bench, bench.from, bench.to, length);
  });

  Deno.test(`${suite.name}: payloads around every threshold, and of random lengths, at random places`, () => {
    const bench = new Bench(suite);
    const next = randomFrom(seed ^ 0x6c656e);
    const edges = [2048, 4096, 16384, 20480, 16384 + 5275, 32768 + 5275];
    const lengths = edges.flatMap((edge) => [edge - 1, edge, edge + 1]);
    for (let i = 0; i < 20; i++) lengths.push(1 + next() % 9000, 1 + next() % PIECE_BYTES);
    for (const length of [...lengths, PIECE_BYTES - 1, PIECE_BYTES]) {
      roundTrip(bench, bench.from + next() % 4096, bench.to + next() % 4096, length);
    }
  });

  Deno.test(`${suite.name}: it does not matter where the bytes are`, () => {
    const bench = new Bench(suite);
    for (let start = 0; start < 64; start++) {
      for (const length of [1, 17, 255, 513, 1300]) {
        roundTrip(bench, bench.from + start, bench.to + (start * 7) % 64, length);
        roundTrip(bench, bench.from + start, bench.from + start, length);
      }
    }
  });

  Deno.test(`${suite.name}: a payload in pieces is sealed and opened as a whole, however it is cut`, () => {
    const bench = new Bench(suite);
    const { guard, nonceAt, tagAt } = bench;
    const next = randomFrom(seed ^ 0x637574);
    const cases: [number, number[]][] = [];
    for (const length of [1, 512, 513, 1024, 1500, 2047, 2560]) {
      for (let first = 0; first < length; first += 512) {
        for (let second = first; second < length; second += 512) {
          cases.push([length, [...new Set([first, second])].filter((cut) => cut > 0)]);
        }
      }
    }
    for (let i = 0; i < 8; i++) {
      const length = PIECE_BYTES + 1 + next() % 300000;
      const cuts: number[] = [];
      const most = i % 2 === 0 ? PIECE_BYTES / 512 : 8;
      let at = 512 * (1 + next() % most);
      while (at < length) {
        cuts.push(at);
        at += 512 * (1 + next() % most);
      }
      cases.push([length, cuts]);
    }
    for (const [length, cuts] of cases) {
      const what = `${suite.name}, ${length} bytes cut at ${cuts}`;
      const plain = bench.read(bench.from, length);
      const expected = expectedPayload(suite, bench.keys, COUNTER, plain);
      const ends = [...cuts, length];
      bench.putNonce(COUNTER);
      guard.begin(nonceAt);
      ends.forEach((end, index) => {
        const at = ends[index - 1] ?? 0;
        guard.sealPiece(bench.from + at, bench.to + at, end - at);
        bench.putNonce(BigInt(index));
        guard.sealHeader(nonceAt, bench.prefixAt);
      });
      guard.finishSeal(tagAt);
      const sealedAt = guard.encrypts ? bench.to : bench.from;
      sameBytes(bench.read(sealedAt, length), expected.text, what);
      sameBytes(bench.tag(), expected.tag, what);
      bench.putNonce(COUNTER);
      guard.begin(nonceAt);
      ends.forEach((end, index) => {
        const at = ends[index - 1] ?? 0;
        guard.openPiece(sealedAt + at, end - at);
      });
      assert.ok(guard.finishOpen(tagAt), `${what}: ${why}`);
      sameBytes(bench.read(sealedAt, length), plain, what);
    }
  });

  Deno.test(`${suite.name}: headers are sealed and opened as other libraries do, wherever they are`, () => {
    const bench = new Bench(suite);
    const { core, guard, nonceAt } = bench;
    const { tagBytes } = suite;
    for (let start = 0; start < 64; start++) {
      const at = bench.from + 97 * start;
      const plain = bench.read(at, HEADER_BYTES);
      const payloadTag = bench.read(at + HEADER_BYTES, tagBytes);
      const counter = COUNTER - BigInt(start);
      const expected = expectedHeader(suite, bench.keys, counter, plain, payloadTag);
      bench.putNonce(counter);
      guard.sealHeader(nonceAt, at);
      sameBytes(bench.read(at, HEADER_BYTES), expected.text, suite.name);
      sameBytes(bench.read(at + HEADER_BYTES, tagBytes), payloadTag, suite.name);
      sameBytes(bench.read(at + HEADER_BYTES + tagBytes, tagBytes), expected.tag, suite.name);
      assert.ok(guard.openHeader(nonceAt, at), why);
      sameBytes(bench.read(at, HEADER_BYTES), plain, suite.name);
      if (suite.cipher !== 0) {
        guard.sealHeader(nonceAt, at);
        bench.putNonce(counter ^ 1n);
        assert.ok(!guard.openHeader(nonceAt, at), "another nonce opens nothing");
      }
      core.bytes.set(plain, at);
    }
  });

  Deno.test(`${suite.name}: only what a call is to write changes`, () => {
    const bench = new Bench(suite);
    const { core, guard, nonceAt, tagAt } = bench;
    const free = bench.from - 4096;
    for (const length of [1, 100, 513, 5000, PIECE_BYTES]) {
      const sealedAt = guard.encrypts ? bench.to + 3 : bench.from + 5;
      const before = core.bytes.slice(free);
      const allow = (after: Uint8Array, at: number, bytes: number) =>
        after.set(before.subarray(at - free, at - free + bytes), at - free);
      guard.seal(nonceAt, bench.from + 5, bench.to + 3, length, tagAt);
      guard.open(nonceAt, sealedAt, length, tagAt);
      const after = core.bytes.slice(free);
      allow(after, bench.scratchAt, 1024);
      allow(after, tagAt, suite.tagBytes);
      if (guard.encrypts) allow(after, bench.to + 3, length);
      assert.ok(areSame(after, before), `${suite.name}, ${length} bytes: ${why}`);
    }
  });
}

Deno.test("the twins without SIMD do what those with SIMD do", () => {
  const PORTABLE = 512;
  for (const suite of TAGGING_SUITES.filter((suite) => ["crc32c", "chacha20-poly1305"].includes(suite.name))) {
    const bench = new Bench(suite);
    const { core, guard, nonceAt, tagAt } = bench;
    const number = PORTABLE + (suite.cipher === 0 ? suite.digest : 256 + suite.cipher);
    const twinAt = bench.scratchAt;
    for (const length of [...Array(1100).keys()].map((i) => i + 1).concat(4096, 20480, 25000, PIECE_BYTES)) {
      const plain = bench.read(bench.from, length);
      guard.seal(nonceAt, bench.from, bench.to, length, tagAt);
      const tag = bench.tag();
      const text = bench.read(bench.to, length);
      const at = guard.encrypts ? bench.to : bench.from;
      assert.equal(core.exports.guard_open(number, twinAt, nonceAt, at, length, tagAt), 1, `${suite.name} ${length}`);
      sameBytes(bench.read(at, length), plain, suite.name);
      core.exports.guard_seal(number, twinAt, nonceAt, bench.from, bench.to, length, tagAt);
      sameBytes(bench.tag(), tag, suite.name);
      sameBytes(bench.read(bench.to, length), text, suite.name);
    }
    guard.sealHeader(nonceAt, bench.prefixAt);
    assert.equal(core.exports.guard_open_header(number, twinAt, nonceAt, bench.prefixAt), 1);
    core.exports.guard_seal_header(number, twinAt, nonceAt, bench.prefixAt);
    assert.ok(guard.openHeader(nonceAt, bench.prefixAt));
  }
});

Deno.test("the largest memory is worked on across 2 GiB and up to its end", () => {
  const core = makeArena(MEMORY_BYTES_MAX);
  for (const suite of TAGGING_SUITES) {
    const bench = new Bench(suite, core);
    const { guard, nonceAt } = bench;
    const length = 5000;
    const places = [2 ** 31 - 2000, 2 ** 31, core.size - length];
    for (const at of places) {
      const plain = bench.read(bench.from, length);
      core.bytes.set(plain, at);
      bench.putNonce(COUNTER);
      const tagAt = at === core.size - length ? at - 64 : core.size - suite.tagBytes;
      guard.seal(nonceAt, at, at, length, tagAt);
      const expected = expectedPayload(suite, bench.keys, COUNTER, plain);
      sameBytes(bench.read(at, length), expected.text, suite.name);
      sameBytes(bench.read(tagAt, suite.tagBytes), expected.tag, suite.name);
      assert.ok(guard.open(nonceAt, at, length, tagAt), `${suite.name} at ${at}: ${why}`);
      sameBytes(bench.read(at, length), plain, suite.name);
    }
    const prefixAt = core.size - HEADER_BYTES - 2 * suite.tagBytes;
    guard.sealHeader(nonceAt, prefixAt);
    assert.ok(guard.openHeader(nonceAt, prefixAt));
    guard.close();
  }
});
