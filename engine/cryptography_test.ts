import assert from "node:assert/strict";
import { libcrypto } from "../ffi/libcrypto.ts";
import { PIECE_BYTES } from "../protocol/guard.ts";
import { Cipher, Digest } from "../protocol/wire.ts";
import { SUITES } from "../tests/vectors/frames.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { availableCiphers, CRYPTO_CHOICES, makeCryptography } from "./cryptography.ts";
import { GuardBench, isSame, isSameSealed, runs } from "./guard_support_test.ts";
import { Random } from "./random.ts";

const ignore = typeof libcrypto() === "string";
const NO_LIBRARY = "libcrypto.so.3: cannot open shared object file: No such file or directory";
const { CHACHA20_POLY1305, AES_256_GCM } = Cipher;

function makeCore(): Core {
  return makeArena(1024 * 1024);
}

Deno.test("the core alone has one cipher, and does every digest", () => {
  const cryptography = makeCryptography(makeCore(), "wasm");
  assert.deepEqual(cryptography.ciphers, [CHACHA20_POLY1305]);
  assert.deepEqual(availableCiphers("wasm"), [CHACHA20_POLY1305]);
  for (const { cipher, digest } of SUITES) {
    if (cipher !== AES_256_GCM) assert.equal(cryptography.providerOf(cipher, digest), "wasm");
  }
  assert.throws(() => cryptography.providerOf(AES_256_GCM, Digest.NONE), /aes-256-gcm.*OpenSSL/);
  assert.throws(() => cryptography.makeGuard(AES_256_GCM, Digest.NONE, true, makeCore().freeFrom), /aes-256-gcm/);
});

Deno.test({
  name: "OpenSSL does the ciphers and HMAC, the core the rest",
  ignore,
  fn() {
    const cryptography = makeCryptography(makeCore(), "openssl");
    assert.deepEqual(cryptography.ciphers, [CHACHA20_POLY1305, AES_256_GCM]);
    assert.deepEqual(availableCiphers("openssl"), [CHACHA20_POLY1305, AES_256_GCM]);
    for (const { cipher, digest } of SUITES) {
      const expected = cipher !== Cipher.NONE || digest === Digest.HMAC_SHA_256 ? "openssl" : "wasm";
      assert.equal(cryptography.providerOf(cipher, digest), expected);
    }
    assert.throws(() => cryptography.makeGuard(CHACHA20_POLY1305, Digest.NONE, false, makeCore().freeFrom), /key/);
  },
});

Deno.test({
  name: "left alone, both ciphers are there, and the choice is the same each time",
  ignore,
  fn() {
    const core = makeCore();
    const cryptography = makeCryptography(core, "auto");
    assert.deepEqual(cryptography.ciphers, [CHACHA20_POLY1305, AES_256_GCM]);
    assert.deepEqual(availableCiphers("auto"), [CHACHA20_POLY1305, AES_256_GCM]);
    assert.equal(cryptography.providerOf(AES_256_GCM, Digest.NONE), "openssl");
    assert.equal(cryptography.providerOf(Cipher.NONE, Digest.XXH64), "wasm");
    const again = makeCryptography(core, "auto");
    assert.deepEqual(again.ciphers, cryptography.ciphers);
    for (const { cipher, digest } of SUITES) {
      assert.equal(again.providerOf(cipher, digest), cryptography.providerOf(cipher, digest));
    }
  },
});

Deno.test("where OpenSSL is missing, only asking for it is an error, which says what to do", () => {
  const core = makeCore();
  for (const choice of CRYPTO_CHOICES) {
    if (choice === "openssl") {
      const expected = `Cannot use OpenSSL: ${NO_LIBRARY}; install OpenSSL 3 (libcrypto.so.3), or use --crypto wasm`;
      assert.throws(() => makeCryptography(core, choice, NO_LIBRARY), { message: expected });
      assert.throws(() => availableCiphers(choice, NO_LIBRARY), { message: expected });
      continue;
    }
    const cryptography = makeCryptography(core, choice, NO_LIBRARY);
    assert.deepEqual(cryptography.ciphers, [CHACHA20_POLY1305]);
    assert.deepEqual(availableCiphers(choice, NO_LIBRARY), [CHACHA20_POLY1305]);
    assert.equal(cryptography.providerOf(CHACHA20_POLY1305, Digest.NONE), "wasm");
    assert.equal(cryptography.providerOf(Cipher.NONE, Digest.HMAC_SHA_256), "wasm");
  }
});

Deno.test({
  name: "closing the cryptography of a thread closes the guards that it has made",
  ignore,
  fn() {
    const core = makeCore();
    const cryptography = makeCryptography(core, "openssl");
    const at = core.freeFrom;
    const guards = [0, 1, 2].map((index) => {
      const guard = cryptography.makeGuard(AES_256_GCM, Digest.NONE, true, at + 1024 * index);
      guard.setKeys(new Uint8Array(32), new Uint8Array(32));
      return guard;
    });
    guards[1].close();
    // What a closed guard has given back is not its own any more.
    core.bytes.fill(7, at + 1024, at + 2048);
    cryptography.close();
    for (const guard of guards) {
      assert.throws(() => guard.seal(at + 4096, at + 8192, at + 8192, 64, at + 4160), /Assertion failed/);
      assert.throws(() => guard.setKeys(new Uint8Array(32), new Uint8Array(32)), /Assertion failed/);
    }
    assert.ok(core.bytes.subarray(at + 1024, at + 2048).every((byte) => byte === 7));
    cryptography.close();
  },
});

Deno.test({
  name: "a guard that is closed gives its memory back",
  ignore,
  fn() {
    const core = makeCore();
    const cryptography = makeCryptography(core, "openssl");
    const key = new Uint8Array(32);
    const open = (count: number) => {
      for (let i = 0; i < count; i++) {
        const guard = cryptography.makeGuard(AES_256_GCM, Digest.NONE, true, core.freeFrom);
        guard.setKeys(key, key);
        guard.close();
      }
    };
    open(1000);
    const before = Deno.memoryUsage().rss;
    // More than a kilobyte each: if they stayed they would be seen.
    open(100_000);
    const grown = Deno.memoryUsage().rss - before;
    assert.ok(grown < 50 * 1024 * 1024, `${grown} bytes more than before`);
  },
});

for (const openssl of runs.filter((run) => run.choice === "openssl")) {
  const wasm = runs.find((run) => run.choice === "wasm" && run.suite === openssl.suite);
  if (wasm === undefined) continue;
  Deno.test({
    name: `what one provider seals the other opens: ${openssl.suite.name}`,
    ignore,
    fn() {
      const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
      const random = new Random(seed);
      using one = new GuardBench(openssl);
      using other = new GuardBench(wasm);
      const keys = [0, 1].map(() => Uint8Array.from({ length: 32 }, () => random.below(256)));
      const guards = [one, other].map((bench) => {
        const guard = bench.make();
        guard.setKeys(keys[0], keys[1]);
        return guard;
      });
      const lengths = [4096, PIECE_BYTES, PIECE_BYTES + 1, 16 * PIECE_BYTES];
      for (let i = 0; i < 20; i++) lengths.push(1 + random.below(3 * PIECE_BYTES));
      for (const bytes of lengths) {
        const why = `${bytes} bytes, replay with DST_SEED=${seed}`;
        const nonce = BigInt(random.below(2 ** 32)) << BigInt(random.below(33));
        const payload = Uint8Array.from({ length: bytes }, () => random.below(256));
        const header = payload.length < 48 ? new Uint8Array(48) : payload.slice(0, 48);
        const sealed = one.sealPieces(guards[0], nonce, payload);
        assert.ok(isSameSealed(other.sealPieces(guards[1], nonce, payload), sealed), why);
        assert.ok(isSame(one.openPieces(guards[0], nonce, sealed)!, payload), why);
        assert.ok(isSame(other.openPieces(guards[1], nonce, sealed)!, payload), why);
        const prefix = one.sealHeader(guards[0], nonce, header, sealed.tag);
        assert.deepEqual(other.sealHeader(guards[1], nonce, header, sealed.tag), prefix, why);
        assert.deepEqual(other.openHeader(guards[1], nonce, prefix), header, why);
        assert.deepEqual(one.openHeader(guards[0], nonce, prefix), header, why);
      }
    },
  });
}
