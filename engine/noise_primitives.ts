/**
 * The primitives of the Noise handshake, by the noble libraries. A connection needs them once, for two short messages,
 * so what counts here is that they are well examined, not how fast they are.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { KEY_BYTES, type NoisePrimitives } from "../protocol/guard.ts";

/** Bytes of an AEAD's nonce, and where the counter begins in it (Noise specification, section 12.3). */
const NONCE_BYTES = 12;
const COUNTER_AT = 4;

/** See {@link NoisePrimitives}. They have no state: one object serves all connections of a thread. */
export const noisePrimitives: NoisePrimitives = {
  publicKey: (privateKey) => x25519.getPublicKey(privateKey),

  sharedSecret(privateKey, publicKey) {
    try {
      return x25519.getSharedSecret(privateKey, publicKey);
    } catch (error) {
      // The library refuses the points of small order, whose secret is all zero (RFC 7748, section 6.1), by an exception;
      // what is no key at all is this side's own mistake.
      if (privateKey.length === KEY_BYTES && publicKey.length === KEY_BYTES) return null;
      throw error;
    }
  },

  hash: (data) => blake2s(data),

  hmac: (key, data) => hmac(blake2s, key, data),

  seal: (key, nonce, associated, plaintext) => chacha20poly1305(key, nonceOf(nonce), associated).encrypt(plaintext),

  open(key, nonce, associated, ciphertext) {
    try {
      return chacha20poly1305(key, nonceOf(nonce), associated).decrypt(ciphertext);
    } catch {
      return null;
    }
  },
};

function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  new DataView(nonce.buffer).setUint32(COUNTER_AT, counter, true);
  return nonce;
}
