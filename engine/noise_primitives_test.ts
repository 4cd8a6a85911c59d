import assert from "node:assert/strict";
import { createCipheriv, createHmac } from "node:crypto";
import { concat, hex, pattern, text, unhex } from "../tests/vectors/primitives.ts";
import { noisePrimitives } from "./noise_primitives.ts";

const NOTHING = new Uint8Array(0);

Deno.test("X25519 gives the vectors of RFC 7748", () => {
  // Section 5.2, both.
  const products = [
    [
      "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
      "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ],
    [
      "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
      "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
      "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ],
  ].map((row) => row.map(unhex));
  for (const [scalar, point, product] of products) {
    assert.deepEqual(noisePrimitives.sharedSecret(scalar, point), product);
  }
  // Section 6.1.
  const alice = unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
  const bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
  const alicePublic = noisePrimitives.publicKey(alice);
  const bobPublic = noisePrimitives.publicKey(bob);
  assert.equal(hex(alicePublic), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  assert.equal(hex(bobPublic), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
  assert.equal(hex(noisePrimitives.sharedSecret(alice, bobPublic)!), shared);
  assert.equal(hex(noisePrimitives.sharedSecret(bob, alicePublic)!), shared);
});

Deno.test("a public key of small order gives no shared secret", () => {
  // Every point whose order divides 8, on the curve or its twist, and the encodings that stand for the same after the
  // reduction modulo p = 2^255 - 19: 0, 1, p - 1, p, p + 1, and the two of order 8.
  const points = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  ];
  for (const point of points) assert.equal(noisePrimitives.sharedSecret(pattern(32, 1), unhex(point)), null, point);
  // The highest bit does not count.
  assert.equal(noisePrimitives.sharedSecret(pattern(32, 1), unhex("00".repeat(31) + "80")), null);
});

Deno.test("what is no key at all is a mistake of the caller's, not a bad secret", () => {
  assert.throws(() => noisePrimitives.sharedSecret(new Uint8Array(31), pattern(32, 2)));
  assert.throws(() => noisePrimitives.sharedSecret(pattern(32, 2), new Uint8Array(33)));
});

Deno.test("BLAKE2s gives the vector of RFC 7693, appendix B", () => {
  assert.equal(
    hex(noisePrimitives.hash(text("abc"))),
    "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
  );
});

Deno.test("HMAC with BLAKE2s agrees with another library's", () => {
  for (const keyBytes of [0, 1, 32, 63, 64, 65, 200]) {
    for (const dataBytes of [0, 1, 33, 64, 65]) {
      const [key, data] = [pattern(keyBytes, 3), pattern(dataBytes, 4)];
      const expected = createHmac("blake2s256", key).update(data).digest("hex");
      assert.equal(hex(noisePrimitives.hmac(key, data)), expected, `${keyBytes} ${dataBytes}`);
    }
  }
});

Deno.test("the AEAD agrees with another library's, its counter little-endian after four zero bytes", () => {
  const key = pattern(32, 5);
  for (const [counter, nonce] of [[0, "000000000000000000000000"], [0x0102, "000000000201000000000000"]] as const) {
    for (const [associated, plaintext] of [[NOTHING, NOTHING], [pattern(32, 6), NOTHING], [NOTHING, pattern(65, 7)]]) {
      const cipher = createCipheriv("chacha20-poly1305", key, unhex(nonce), { authTagLength: 16 });
      cipher.setAAD(associated, { plaintextLength: plaintext.length });
      const expected = concat(cipher.update(plaintext), cipher.final(), cipher.getAuthTag());
      assert.equal(hex(noisePrimitives.seal(key, counter, associated, plaintext)), hex(expected));
      assert.deepEqual(noisePrimitives.open(key, counter, associated, expected), plaintext);
    }
  }
});

Deno.test("the AEAD opens nothing that differs in a bit, or is too short for a tag", () => {
  const [key, associated] = [pattern(32, 8), pattern(32, 9)];
  const sealed = noisePrimitives.seal(key, 0, associated, pattern(5, 10));
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const other = sealed.slice();
    other[bit >> 3] ^= 1 << (bit & 7);
    assert.equal(noisePrimitives.open(key, 0, associated, other), null, `bit ${bit}`);
  }
  assert.equal(noisePrimitives.open(key, 1, associated, sealed), null);
  assert.equal(noisePrimitives.open(key, 0, pattern(31, 9), sealed), null);
  assert.equal(noisePrimitives.open(pattern(32, 11), 0, associated, sealed), null);
  for (const bytes of [0, 1, 15]) assert.equal(noisePrimitives.open(key, 0, associated, sealed.slice(0, bytes)), null);
});
