import assert from "node:assert/strict";
import {
  cipherName,
  cipherNumbers,
  CIPHERS,
  digestName,
  digestNumbers,
  DIGESTS,
  parseCiphers,
  parseDigests,
  suiteDefaults,
  suitesOf,
} from "./algorithms.ts";

Deno.test("a list of algorithms keeps its order", () => {
  assert.deepEqual(parseDigests("crc32c"), ["crc32c"]);
  assert.deepEqual(parseDigests("none, xxh64"), ["none", "xxh64"]);
  assert.deepEqual(parseDigests("hmac-sha256,blake2b-256"), ["hmac-sha256", "blake2b-256"]);
  assert.deepEqual(parseCiphers("none,aes-256-gcm ,chacha20-poly1305"), ["none", "aes-256-gcm", "chacha20-poly1305"]);
});

Deno.test("an algorithm that is unknown or repeated is refused", () => {
  assert.throws(() => parseDigests("xxh46"), /"xxh46" is not one of .*did you mean xxh64/);
  assert.throws(() => parseDigests("none,none"), /given twice/);
  assert.throws(() => parseDigests(""), /not one of/);
  assert.throws(() => parseDigests("xxh64,"), /not one of/);
  assert.throws(() => parseCiphers("aes-256-gmc"), /"aes-256-gmc" is not one of .*did you mean aes-256-gcm/);
  assert.throws(() => parseCiphers("chacha20"), /did you mean chacha20-poly1305/);
  assert.throws(() => parseCiphers("none,none"), /given twice/);
  // Not even what every object has.
  assert.throws(() => parseCiphers("constructor"), RangeError);
});

Deno.test("names and the wire's numbers belong together as SPEC.md has them", () => {
  assert.deepEqual(cipherNumbers(["none", "chacha20-poly1305", "aes-256-gcm"]), [0, 1, 2]);
  assert.deepEqual(digestNumbers(["none", "crc32c", "xxh64", "blake2b-256", "hmac-sha256"]), [0, 1, 2, 3, 4]);
  for (const name of CIPHERS) assert.equal(cipherName(cipherNumbers([name])[0]), name);
  for (const name of DIGESTS) assert.equal(digestName(digestNumbers([name])[0]), name);
  assert.equal(cipherName(3), "cipher 3");
  assert.equal(digestName(5), "digest 5");
});

Deno.test("whoever has a key encrypts, and whoever has none checks, unless asked otherwise", () => {
  assert.equal(suiteDefaults(true).ciphers[0], "chacha20-poly1305");
  assert.ok(!suiteDefaults(true).ciphers.includes("none"));
  assert.deepEqual(suiteDefaults(false).ciphers, ["none"]);
  assert.equal(suiteDefaults(false).digests[0], "xxh64");
  assert.ok(!suiteDefaults(false).digests.includes("hmac-sha256"));
  for (const hasKey of [true, false]) assert.deepEqual(suitesOf(undefined, undefined, hasKey), suiteDefaults(hasKey));
});

Deno.test("what is asked for replaces its own default alone", () => {
  assert.deepEqual(suitesOf(["none"], undefined, true), { ciphers: ["none"], digests: ["blake2b-256", "hmac-sha256"] });
  assert.deepEqual(suitesOf(undefined, ["crc32c"], false), { ciphers: ["none"], digests: ["crc32c"] });
  assert.deepEqual(suitesOf(["none", "aes-256-gcm"], ["crc32c", "hmac-sha256"], true), {
    ciphers: ["none", "aes-256-gcm"],
    digests: ["crc32c", "hmac-sha256"],
  });
});

Deno.test("what no connection could come of is refused", () => {
  assert.throws(() => suitesOf(["aes-256-gcm"], undefined, false), /aes-256-gcm needs a key: give one/);
  assert.throws(
    () => suitesOf(undefined, ["hmac-sha256"], false),
    /hmac-sha256 needs a key: take one of blake2b-256, x/,
  );
  assert.throws(
    () => suitesOf(["none"], ["xxh64", "none"], true),
    /xxh64, none proves nothing .* of blake2b-256, hmac/,
  );
  // The cipher's own tags do.
  assert.deepEqual(suitesOf(undefined, ["xxh64"], true).digests, ["xxh64"]);
  assert.deepEqual(suitesOf(["none"], ["blake2b-256"], false).digests, ["blake2b-256"]);
});

Deno.test("what the machine does not have is left out, and missed where nothing else was asked for", () => {
  assert.deepEqual(suitesOf(undefined, undefined, true, [1]).ciphers, ["chacha20-poly1305"]);
  assert.deepEqual(suitesOf(["aes-256-gcm", "none"], undefined, true, [1]).ciphers, ["none"]);
  assert.deepEqual(suitesOf(undefined, undefined, false, []).ciphers, ["none"]);
  assert.throws(() => suitesOf(["aes-256-gcm"], undefined, true, [1]), /has no aes-256-gcm: that needs OpenSSL/);
});
