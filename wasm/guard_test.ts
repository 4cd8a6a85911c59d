import assert from "node:assert/strict";
import { macKeys, rekeyed, SUITES } from "../tests/vectors/frames.ts";
import { makeArena } from "./core.ts";
import { GUARD_SCRATCH_BYTES, makeWasmGuard, type WasmGuard } from "./guard.ts";

/** A frame of the golden vectors: hexadecimal digits where the names say nothing else. */
interface Vector {
  readonly name: string;
  readonly key: string;
  readonly n: number;
  readonly plain_header: string;
  readonly plain_payload: string;
  readonly frame: string;
}

const HEADER_BYTES = 48;
const REKEY_FRAMES = 2 ** 20;
const suites = SUITES.filter((suite) => suite.name !== "aes-256-gcm");

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

for (const suite of suites) {
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

  Deno.test(`${suite.name} in pieces, with headers in between, gives what the whole gives`, () => {
    const guard = makeWasmGuard(core, suite.cipher, suite.digest, suite.keyed, scratchAt);
    if (suite.keyed) guard.setKeys(new Uint8Array(32).fill(1), new Uint8Array(32).fill(2));
    const headerAt = at;
    const tagAt = at + 256;
    const from = at + 1024;
    const to = from + 70000;
    for (let i = 0; i < 70000; i++) core.bytes[from + i] = Math.imul(i, 0x9e3779b1) >>> 24;
    const plain = core.bytes.slice(from, from + 65536);
    putNonce(7);
    for (const bytes of [1, 511, 512, 513, 4096, 5000, 65535, 65536]) {
      guard.seal(nonceAt, from, to, bytes, tagAt);
      const whole = core.bytes.slice(to, to + bytes).toHex() + core.bytes.slice(tagAt, tagAt + suite.tagBytes).toHex();
      for (const cut of [512, 1024, 4608, 65024]) {
        if (cut >= bytes) break;
        core.bytes.fill(0, to, to + bytes);
        guard.begin(nonceAt);
        guard.sealPiece(from, to, cut);
        guard.sealHeader(nonceAt, headerAt);
        guard.sealPiece(from + cut, to + cut, bytes - cut);
        guard.finishSeal(tagAt);
        const found = core.bytes.slice(to, to + bytes).toHex() +
          core.bytes.slice(tagAt, tagAt + suite.tagBytes).toHex();
        assert.equal(found, whole, `${bytes} bytes cut at ${cut}`);

        const opened = guard.encrypts ? to : from;
        guard.begin(nonceAt);
        guard.openPiece(opened, cut);
        assert.ok(guard.openHeader(nonceAt, headerAt));
        guard.openPiece(opened + cut, bytes - cut);
        assert.ok(guard.finishOpen(tagAt), `${bytes} bytes cut at ${cut}`);
        assert.ok(core.bytes.slice(opened, opened + bytes).every((byte, i) => byte === plain[i]));
      }
    }
    guard.close();
  });
}

Deno.test("a bit that has changed anywhere is seen", () => {
  for (const suite of suites.filter((suite) => suite.tagBytes > 0)) {
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
