import assert from "node:assert/strict";
import { macKeys, rekeyed } from "../tests/vectors/frames.ts";
import { makeArena } from "./core.ts";
import { GUARD_SCRATCH_BYTES, makeWasmGuard, type WasmGuard } from "./guard.ts";
import { CORE_SUITES, HEADER_BYTES, TAGGING_SUITES } from "./guard_support_test.ts";

/** A frame of the golden vectors: hexadecimal digits where the names say nothing else. */
interface Vector {
  readonly name: string;
  readonly key: string;
  readonly n: number;
  readonly plain_header: string;
  readonly plain_payload: string;
  readonly frame: string;
}

const REKEY_FRAMES = 2 ** 20;

const core = makeArena(2 * 1024 * 1024);
const scratchAt = core.freeFrom;
const nonceAt = scratchAt + GUARD_SCRATCH_BYTES;
const at = nonceAt + 64;

function putNonce(counter: number): void {
  core.view.setBigUint64(nonceAt, BigInt(counter), true);
}

function vectorsOf(name: string): Vector[] {
  const file = new URL(`../tests/vectors/frames-${name}.json`, import.meta.url);
  return JSON.parse(Deno.readTextFileSync(file)).vectors;
}

function setKeysOf(guard: WasmGuard, cipher: number, vector: Vector): void {
  const key = rekeyed(Uint8Array.fromHex(vector.key), Math.floor(vector.n / REKEY_FRAMES));
  const [header, payload] = cipher === 0 ? macKeys(key) : [key, key];
  guard.setKeys(header, payload);
}

for (const suite of CORE_SUITES) {
  Deno.test(`${suite.name} seals the golden frames, and opens them`, () => {
    const { cipher, digest, keyed, tagBytes } = suite;
    const guard = makeWasmGuard(core, cipher, digest, keyed, scratchAt);
    assert.equal(guard.tagBytes, tagBytes);
    const prefixBytes = HEADER_BYTES + 2 * tagBytes;
    const vectors = vectorsOf(suite.name);
    assert.ok(vectors.length > 40);
    for (const vector of vectors) {
      if (keyed) setKeysOf(guard, cipher, vector);
      const payload = Uint8Array.fromHex(vector.plain_payload);
      const payloadAt = at + prefixBytes;
      core.bytes.fill(0, at, payloadAt);
      core.bytes.set(Uint8Array.fromHex(vector.plain_header), at);
      core.bytes.set(payload, payloadAt);
      putNonce(2 * vector.n + 1);
      if (payload.length > 0) guard.seal(nonceAt, payloadAt, payloadAt, payload.length, at + HEADER_BYTES);
      putNonce(2 * vector.n);
      guard.sealHeader(nonceAt, at);
      const sealed = core.bytes.subarray(at, payloadAt + payload.length);
      assert.equal(sealed.toHex(), vector.frame, vector.name);

      assert.ok(guard.openHeader(nonceAt, at), vector.name);
      putNonce(2 * vector.n + 1);
      if (payload.length > 0) assert.ok(guard.open(nonceAt, payloadAt, payload.length, at + HEADER_BYTES), vector.name);
      assert.equal(core.bytes.subarray(at, at + HEADER_BYTES).toHex(), vector.plain_header, vector.name);
      assert.equal(
        core.bytes.subarray(payloadAt, payloadAt + payload.length).toHex(),
        vector.plain_payload,
        vector.name,
      );
    }
    guard.close();
  });
}

/** The tag of the bytes, at an odd place. */
function tagOf(digest: number, bytes: Uint8Array, key: Uint8Array | null): string {
  const guard = makeWasmGuard(core, 0, digest, key !== null, scratchAt);
  if (key !== null) {
    const padded = new Uint8Array(32);
    padded.set(key);
    guard.setKeys(new Uint8Array(32), padded);
  }
  core.bytes.set(bytes, at + 129);
  guard.seal(nonceAt, at + 129, at + 129, bytes.length, at + 1);
  guard.close();
  return core.bytes.slice(at + 1, at + 1 + guard.tagBytes).toHex();
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
  for (const [bytes, digest] of vectors) assert.equal(tagOf(1, bytes, null), `${digest}00000000`);
});

Deno.test("xxh64 gives the digests that the xxHash project checks itself with", () => {
  const bytes = new Uint8Array(222);
  let generator = 2654435761n;
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = Number(generator >> 56n);
    generator = BigInt.asUintN(64, generator * 11400714785074694797n);
  }
  const vectors: [number, string][] = [
    [1, "e934a84adb052768"],
    [4, "9136a0dca57457ee"],
    [14, "8282dcc4994e35c8"],
    [222, "b641ae8cb691c174"],
  ];
  for (const [length, digest] of vectors) {
    assert.equal(tagOf(2, bytes.subarray(0, length), null), Uint8Array.fromHex(digest).reverse().toHex());
  }
});

Deno.test("hmac-sha256 gives the MACs of RFC 4231, section 4", () => {
  const text = (value: string) => new TextEncoder().encode(value);
  // Keys of up to 32 bytes: HMAC fills up with zeroes.
  const vectors: [Uint8Array, Uint8Array, string][] = [
    [
      new Uint8Array(20).fill(0x0b),
      text("Hi There"),
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ],
    [
      text("Jefe"),
      text("what do ya want for nothing?"),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    [
      new Uint8Array(20).fill(0xaa),
      new Uint8Array(50).fill(0xdd),
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ],
  ];
  for (const [key, bytes, mac] of vectors) assert.equal(tagOf(4, bytes, key), mac);
});

/** Seals and opens a payload in every way, and headers. */
function useAll(guard: WasmGuard): void {
  const payloadAt = at + 1024;
  const tagAt = at + 512;
  putNonce(1);
  core.bytes.fill(0x33, at, payloadAt + 6000);
  for (const bytes of [20, 600, 5000]) {
    guard.seal(nonceAt, payloadAt, payloadAt, bytes, tagAt);
    guard.open(nonceAt, payloadAt, bytes, tagAt);
    guard.begin(nonceAt);
    guard.sealPiece(payloadAt, payloadAt, bytes);
    guard.finishSeal(tagAt);
  }
  guard.sealHeader(nonceAt, at);
  guard.openHeader(nonceAt, at);
}

Deno.test("closing leaves nothing of the keys anywhere in the core", () => {
  for (const suite of CORE_SUITES.filter((suite) => suite.keyed)) {
    const left = [1, 2].map((key) => {
      const guard = makeWasmGuard(core, suite.cipher, suite.digest, true, scratchAt);
      guard.setKeys(new Uint8Array(32).fill(key), new Uint8Array(32).fill(key + 16));
      useAll(guard);
      const used = core.bytes.slice(scratchAt, scratchAt + GUARD_SCRATCH_BYTES);
      assert.ok(used.some((byte) => byte !== 0));
      guard.close();
      assert.ok(
        core.bytes.subarray(scratchAt, scratchAt + GUARD_SCRATCH_BYTES).every((byte) => byte === 0),
        suite.name,
      );
      return core.bytes.slice(0, core.freeFrom).toHex();
    });
    // The core's own memory is the same after other keys: so nothing in it comes from them.
    assert.ok(left[0] === left[1], suite.name);
  }
});

Deno.test("keys are copied, not kept, and can be changed", () => {
  for (const suite of CORE_SUITES.filter((suite) => suite.keyed)) {
    const guard = makeWasmGuard(core, suite.cipher, suite.digest, true, scratchAt);
    const tagAt = at + 512;
    const tag = (fill: number) => {
      const keys = [new Uint8Array(32).fill(fill), new Uint8Array(32).fill(fill + 1)];
      guard.setKeys(keys[0], keys[1]);
      keys.forEach((key) => key.fill(0));
      core.bytes.fill(7, at, at + 100);
      putNonce(5);
      guard.seal(nonceAt, at, at, 100, tagAt);
      return core.bytes.slice(tagAt, tagAt + suite.tagBytes).toHex();
    };
    const first = tag(1);
    assert.notEqual(tag(9), first, suite.name);
    assert.equal(tag(1), first, suite.name);
    const keysAt = scratchAt + GUARD_SCRATCH_BYTES - 64;
    assert.ok(core.bytes.subarray(keysAt, keysAt + 64).every((byte) => byte === 0), "handed over and wiped");
    assert.throws(() => guard.setKeys(new Uint8Array(31), new Uint8Array(32)), /31 and 32 bytes/);
    guard.begin(nonceAt);
    assert.throws(() => guard.setKeys(new Uint8Array(32), new Uint8Array(32)), /not finished/);
    guard.close();
  }
});

Deno.test("a guard without its keys does nothing", () => {
  for (const suite of CORE_SUITES.filter((suite) => suite.keyed)) {
    const guard = makeWasmGuard(core, suite.cipher, suite.digest, true, scratchAt);
    assert.throws(() => guard.seal(nonceAt, at, at, 8, at + 64), /has no keys/);
    assert.throws(() => guard.open(nonceAt, at, 8, at + 64), /has no keys/);
    assert.throws(() => guard.begin(nonceAt), /has no keys/);
    assert.throws(() => guard.sealHeader(nonceAt, at), /has no keys/);
    assert.throws(() => guard.openHeader(nonceAt, at), /has no keys/);
  }
});

Deno.test("two guards on one core keep out of each other's way", () => {
  const other = makeWasmGuard(core, 1, 0, true, scratchAt + GUARD_SCRATCH_BYTES);
  const guard = makeWasmGuard(core, 1, 0, true, scratchAt);
  const area = scratchAt + 2 * GUARD_SCRATCH_BYTES;
  core.bytes.fill(0, area, area + 20000);
  other.setKeys(new Uint8Array(32).fill(1), new Uint8Array(32));
  guard.setKeys(new Uint8Array(32).fill(1), new Uint8Array(32));
  const [nonce, tag, one, two] = [area, area + 64, area + 1024, area + 4096];
  guard.begin(nonce);
  guard.sealPiece(one, one, 1024);
  other.begin(nonce);
  other.sealPiece(two, two, 1024);
  guard.sealPiece(one + 1024, one + 1024, 300);
  guard.finishSeal(tag);
  other.openPiece(two + 1024, 300);
  core.bytes.fill(0, two + 1024, two + 1324);
  assert.equal(core.bytes.slice(one, one + 1024).toHex(), core.bytes.slice(two, two + 1024).toHex());
  other.begin(nonce);
  other.openPiece(one, 1024);
  other.openPiece(one + 1024, 300);
  assert.ok(other.finishOpen(tag));
  assert.ok(core.bytes.subarray(one, one + 1324).every((byte) => byte === 0));
  guard.close();
  other.close();
});

Deno.test("a bit that has changed anywhere is seen", () => {
  for (const suite of TAGGING_SUITES) {
    const guard = makeWasmGuard(core, suite.cipher, suite.digest, suite.keyed, scratchAt);
    if (suite.keyed) guard.setKeys(new Uint8Array(32).fill(1), new Uint8Array(32).fill(2));
    const payloadAt = at + HEADER_BYTES + 2 * suite.tagBytes;
    const payloadBytes = 33;
    putNonce(3);
    core.bytes.fill(0x5a, at, payloadAt + payloadBytes);
    guard.seal(nonceAt, payloadAt, payloadAt, payloadBytes, at + HEADER_BYTES);
    guard.sealHeader(nonceAt, at);
    const sealed = core.bytes.slice(at, payloadAt + payloadBytes);
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      core.bytes.set(sealed, at);
      core.bytes[at + (bit >> 3)] ^= 1 << (bit & 7);
      const payloadTag = core.bytes.slice(at + HEADER_BYTES, at + HEADER_BYTES + suite.tagBytes);
      const header = guard.openHeader(nonceAt, at);
      core.bytes.set(payloadTag, at + HEADER_BYTES);
      const payload = guard.open(nonceAt, payloadAt, payloadBytes, at + HEADER_BYTES);
      const where = bit >> 3;
      assert.equal(header, where >= payloadAt - at, `${suite.name}: bit ${bit}`);
      const inPayload = where >= payloadAt - at || where >= HEADER_BYTES && where < HEADER_BYTES + suite.tagBytes;
      assert.equal(payload, !inPayload, `${suite.name}: bit ${bit}`);
    }
    guard.close();
  }
});

Deno.test("a guard that the core does not have is refused", () => {
  const wrong: [number, number, boolean][] = [
    [2, 0, true],
    [9, 0, true],
    [0, 9, false],
    [0, -1, false],
    [0, 2, true],
    [0, 0, true],
    [0, 4, false],
    [1, 0, false],
  ];
  for (const [cipher, digest, keyed] of wrong) {
    assert.throws(
      () => makeWasmGuard(core, cipher, digest, keyed, scratchAt),
      RangeError,
      `${cipher} ${digest} ${keyed}`,
    );
  }
  for (const place of [scratchAt + 8, scratchAt - 64, core.size - GUARD_SCRATCH_BYTES + 64, NaN]) {
    assert.throws(() => makeWasmGuard(core, 0, 2, false, place), RangeError, `at ${place}`);
  }
});

Deno.test("a guard refuses ranges outside the free area, and pieces that nothing began", () => {
  for (const digest of [0, 2]) {
    const guard = makeWasmGuard(core, 0, digest, false, scratchAt);
    assert.throws(() => guard.seal(nonceAt, at, at, 0, at + 64), RangeError);
    assert.throws(() => guard.seal(nonceAt, at, at, 65537, at + 64), RangeError);
    assert.throws(() => guard.seal(nonceAt, 0, at, 8, at + 64), RangeError);
    assert.throws(() => guard.seal(nonceAt, at, core.size - 7, 8, at + 64), RangeError);
    assert.throws(() => guard.seal(NaN, at, at, 8, at + 64), RangeError);
    assert.throws(() => guard.open(nonceAt, at, 8, core.size + 1), RangeError);
    assert.throws(() => guard.sealHeader(nonceAt, core.size - 47), RangeError);
    assert.throws(() => guard.openHeader(8, at), RangeError);
    assert.throws(() => guard.sealPiece(at, at, 8), /none has been begun/);
    assert.throws(() => guard.finishOpen(at), /none has been begun/);
    assert.throws(() => guard.setKeys(new Uint8Array(32), new Uint8Array(32)), /has none/);
    guard.close();
    assert.throws(() => guard.sealHeader(nonceAt, at), /is closed/);
  }
});
