/**
 * The primitives that the vectors are made of, written from the specifications alone: nothing here comes from, or is
 * used by, the implementation that the vectors check. Slow and plain on purpose.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { gcm } from "@noble/ciphers/aes.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2b, blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";

/** A byte string that noble takes and gives. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Lower-case hexadecimal digits of the bytes. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The bytes that an even number of hexadecimal digits stand for. */
export function unhex(digits: string): Bytes {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** The UTF-8 bytes of a text. */
export function text(value: string): Bytes {
  return new TextEncoder().encode(value);
}

/** One byte string after the other. */
export function concat(...parts: Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** An unsigned integer of `bytes` bytes, little-endian. */
export function le(value: number | bigint, bytes: number): Bytes {
  let rest = BigInt(value);
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++, rest >>= 8n) out[i] = Number(rest & 0xffn);
  if (rest !== 0n) throw new RangeError(`Cannot write ${value}: it does not fit ${bytes} bytes`);
  return out;
}

/** `count` bytes that follow no short period: byte i is the high byte of i · 0x9e3779b1 + seed · 0x85ebca6b. */
export function pattern(count: number, seed: number): Bytes {
  return Uint8Array.from(
    { length: count },
    (_, i) => (Math.imul(i + 1, 0x9e3779b1) + Math.imul(seed, 0x85ebca6b)) >>> 24,
  );
}

/** CRC-32C (RFC 3720, appendix B.4), bit by bit: the reflected polynomial is 0x82f63b78. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

const MASK = (1n << 64n) - 1n;
// The five primes of the xxHash specification, "XXH64 algorithm description".
const [P1, P2, P3, P4, P5] = [
  0x9E3779B185EBCA87n,
  0xC2B2AE3D27D4EB4Fn,
  0x165667B19E3779F9n,
  0x85EBCA77C2B2AE63n,
  0x27D4EB2F165667C5n,
] as const;
const rotate = (x: bigint, by: bigint) => ((x << by) | (x >> (64n - by))) & MASK;
const round = (lane: bigint, input: bigint) => rotate((lane + input * P2) & MASK, 31n) * P1 & MASK;

/** XXH64 with seed 0, step by step as the xxHash specification has it. */
export function xxh64(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  let hash: bigint;
  if (bytes.length < 32) {
    hash = P5;
  } else {
    const lanes = [(P1 + P2) & MASK, P2, 0n, (0n - P1) & MASK];
    for (; at + 32 <= bytes.length; at += 32) {
      for (let i = 0; i < 4; i++) lanes[i] = round(lanes[i], view.getBigUint64(at + 8 * i, true));
    }
    hash = rotate(lanes[0], 1n) + rotate(lanes[1], 7n) + rotate(lanes[2], 12n) + rotate(lanes[3], 18n);
    for (const lane of lanes) hash = ((hash & MASK) ^ round(0n, lane)) * P1 + P4;
  }
  hash = (hash + BigInt(bytes.length)) & MASK;
  for (; at + 8 <= bytes.length; at += 8) {
    hash = (rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4) & MASK;
  }
  if (at + 4 <= bytes.length) {
    hash = (rotate(hash ^ (BigInt(view.getUint32(at, true)) * P1 & MASK), 23n) * P2 + P3) & MASK;
    at += 4;
  }
  for (; at < bytes.length; at++) hash = rotate(hash ^ (BigInt(bytes[at]) * P5 & MASK), 11n) * P1 & MASK;
  hash = (hash ^ (hash >> 33n)) * P2 & MASK;
  hash = (hash ^ (hash >> 29n)) * P3 & MASK;
  return hash ^ (hash >> 32n);
}

/** BLAKE2b with 32 bytes of output; with a key it is the keyed mode of RFC 7693. */
export function blake2b256(bytes: Uint8Array, key?: Uint8Array): Bytes {
  return blake2b(bytes, { dkLen: 32, key });
}

/** HMAC-SHA-256 (RFC 2104). */
export function hmacSha256(key: Uint8Array, bytes: Uint8Array): Bytes {
  return hmac(sha256, key, bytes);
}

/** HKDF of the Noise specification, section 4.3, two outputs, with BLAKE2s. */
export function hkdf2(chainingKey: Uint8Array, input: Uint8Array): [Bytes, Bytes] {
  const temporary = hmac(blake2s, chainingKey, input);
  const first = hmac(blake2s, temporary, Uint8Array.of(1));
  return [first, hmac(blake2s, temporary, concat(first, Uint8Array.of(2)))];
}

/** HKDF of the Noise specification, section 4.3, three outputs, with BLAKE2s. */
function hkdf3(chainingKey: Uint8Array, input: Uint8Array): [Bytes, Bytes, Bytes] {
  const temporary = hmac(blake2s, chainingKey, input);
  const first = hmac(blake2s, temporary, Uint8Array.of(1));
  const second = hmac(blake2s, temporary, concat(first, Uint8Array.of(2)));
  return [first, second, hmac(blake2s, temporary, concat(second, Uint8Array.of(3)))];
}

/** What noble gives, or null where it throws because a tag is wrong. */
function orNull(open: () => Uint8Array): Uint8Array | null {
  try {
    return open();
  } catch {
    return null;
  }
}

/** The AEADs of the record layer, by the name of the cipher. */
export const AEAD = {
  "chacha20-poly1305": {
    nonce: (counter: number | bigint) => concat(new Uint8Array(4), le(counter, 8)),
    seal: (key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, plain: Uint8Array) =>
      chacha20poly1305(key, nonce, associated).encrypt(plain),
    open: (key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, sealed: Uint8Array) =>
      orNull(() => chacha20poly1305(key, nonce, associated).decrypt(sealed)),
  },
  "aes-256-gcm": {
    nonce: (counter: number | bigint) => concat(new Uint8Array(4), le(counter, 8).reverse()),
    seal: (key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, plain: Uint8Array) =>
      gcm(key, nonce, associated).encrypt(plain),
    open: (key: Uint8Array, nonce: Uint8Array, associated: Uint8Array, sealed: Uint8Array) =>
      orNull(() => gcm(key, nonce, associated).decrypt(sealed)),
  },
} as const;

/** One side's symmetric state during the handshake (Noise specification, section 5.2). */
export class SymmetricState {
  chainingKey: Bytes;
  hash: Bytes;
  #key: Bytes | null = null;
  #nonce = 0;

  constructor(protocolName: string) {
    const name = text(protocolName);
    this.hash = name.length <= 32 ? concat(name, new Uint8Array(32 - name.length)) : blake2s(name);
    this.chainingKey = this.hash;
  }

  mixHash(data: Uint8Array): void {
    this.hash = blake2s(concat(this.hash, data));
  }

  mixKey(input: Uint8Array): void {
    [this.chainingKey, this.#key] = hkdf2(this.chainingKey, input);
    this.#nonce = 0;
  }

  mixKeyAndHash(input: Uint8Array): void {
    const [chainingKey, hash, key] = hkdf3(this.chainingKey, input);
    this.chainingKey = chainingKey;
    this.mixHash(hash);
    this.#key = key;
    this.#nonce = 0;
  }

  encryptAndHash(plain: Uint8Array): Bytes {
    if (!this.#key) throw new Error("Cannot encrypt: no key has been mixed in");
    const nonce = AEAD["chacha20-poly1305"].nonce(this.#nonce++);
    const sealed = AEAD["chacha20-poly1305"].seal(this.#key, nonce, this.hash, plain) as Bytes;
    this.mixHash(sealed);
    return sealed;
  }

  /** The plaintext, or null when it does not authenticate. */
  decryptAndHash(sealed: Uint8Array): Bytes | null {
    if (!this.#key) throw new Error("Cannot decrypt: no key has been mixed in");
    const plain = AEAD["chacha20-poly1305"].open(
      this.#key,
      AEAD["chacha20-poly1305"].nonce(this.#nonce++),
      this.hash,
      sealed,
    );
    this.mixHash(sealed);
    return plain as Bytes | null;
  }

  /** The two keys for what follows the handshake (section 5.2, Split). */
  split(): [Bytes, Bytes] {
    return hkdf2(this.chainingKey, new Uint8Array(0));
  }
}

/** What a handshake leaves behind. */
export interface Handshake {
  /** The initiator's message: its ephemeral public key and the sealed payload. */
  first: Bytes;
  /** The responder's message. */
  second: Bytes;
  /** The hash of the whole transcript. */
  hash: Bytes;
  /** Split's first key: frames from the initiator. */
  k1: Bytes;
  /** Split's second key: frames from the responder. */
  k2: Bytes;
}

/**
 * Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s with given ephemeral private keys: `-> psk, e` and `<- e, ee`. Both sides compute
 * the same, so the sender's side of each message is enough.
 */
export function noiseNNpsk0(
  input: {
    prologue: Uint8Array;
    psk: Uint8Array;
    initiator: Uint8Array;
    responder: Uint8Array;
    payloads: readonly [Uint8Array, Uint8Array];
  },
): Handshake {
  const state = new SymmetricState("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s");
  state.mixHash(input.prologue);

  const initiatorPublic = x25519.getPublicKey(input.initiator);
  state.mixKeyAndHash(input.psk);
  state.mixHash(initiatorPublic);
  state.mixKey(initiatorPublic); // with a psk an `e` is mixed into the key too (section 9.2)
  const first = concat(initiatorPublic, state.encryptAndHash(input.payloads[0]));

  const responderPublic = x25519.getPublicKey(input.responder);
  state.mixHash(responderPublic);
  state.mixKey(responderPublic);
  state.mixKey(x25519.getSharedSecret(input.responder, initiatorPublic));
  const second = concat(responderPublic, state.encryptAndHash(input.payloads[1]));

  const [k1, k2] = state.split();
  return { first, second, hash: state.hash, k1, k2 };
}
