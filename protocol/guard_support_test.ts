/**
 * Cryptography for the tests of the machines, made from SPEC.md and other people's libraries alone: slow and plain.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { blake2s } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import assert from "node:assert/strict";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { SUITES } from "../tests/vectors/frames.ts";
import { AEAD, blake2b256, hmacSha256 } from "../tests/vectors/primitives.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { makeWasmGuard } from "../wasm/guard.ts";
import type { Memory } from "./consumer.ts";
import { type Cryptography, type FrameGuard, type NoisePrimitives, PIECE_BYTES } from "./guard.ts";

/** The Castagnoli polynomial, its bits reversed (RFC 3720, B.4). */
const CASTAGNOLI = 0x82f63b78;
const crc32cHasher = await createCRC32(CASTAGNOLI);
const xxh64Hasher = await createXXHash64();

/** Bytes of a tag by digest, as SPEC.md, section 2 has them. */
const TAG_BYTES = [0, 8, 8, 32, 32];
const HEADER_BYTES = 48;

/** The tag over the bytes under a digest, as SPEC.md, 4.1 and 4.3 have it. */
export function tagOf(digest: number, bytes: Uint8Array, key?: Uint8Array): Uint8Array {
  if (digest === 0) return new Uint8Array(0);
  if (digest === 3) return blake2b256(bytes, key);
  if (digest === 4) return hmacSha256(key!, bytes);
  const tag = new Uint8Array(8);
  // The library gives the number with its highest byte first.
  tag.set((digest === 1 ? crc32cHasher : xxh64Hasher).init().update(bytes).digest("binary").reverse());
  return tag;
}

/** By the noble libraries. */
const noise: NoisePrimitives = {
  publicKey: (privateKey) => x25519.getPublicKey(privateKey),
  sharedSecret: (privateKey, publicKey) => x25519.getSharedSecret(privateKey, publicKey),
  hash: (data) => blake2s(data),
  hmac: (key, data) => hmac(blake2s, key, data),
  seal: (key, nonce, associated, plaintext) =>
    chacha20poly1305(key, AEAD["chacha20-poly1305"].nonce(nonce), associated).encrypt(plaintext),
  open: (key, nonce, associated, ciphertext) =>
    AEAD["chacha20-poly1305"].open(key, AEAD["chacha20-poly1305"].nonce(nonce), associated, ciphertext),
};

/** Whether the core can do a suite. */
export function coreHas(suite: { cipher: number; digest: number; keyed: boolean }): boolean {
  const core = makeArena(2 ** 20);
  try {
    makeWasmGuard(core, suite.cipher, suite.digest, suite.keyed, core.freeFrom).close();
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

const coreSuites = new Set(SUITES.filter(coreHas).map(nameOf));

function nameOf({ cipher, digest, keyed }: { cipher: number; digest: number; keyed: boolean }): string {
  return `${cipher} ${digest} ${keyed}`;
}

/** All suites over the core's own memory, by the core where it has them. */
export function coreCryptography(core: Core, sealed: NonceUse = () => {}): Cryptography {
  const reference = referenceCryptography(core, sealed);
  return {
    ...reference,
    makeGuard: (cipher, digest, keyed, scratchAt) =>
      coreSuites.has(nameOf({ cipher, digest, keyed }))
        ? makeWasmGuard(core, cipher, digest, keyed, scratchAt)
        : reference.makeGuard(cipher, digest, keyed, scratchAt),
  };
}

/** One use of a key: which it was, and the nonce's counter. */
export type NonceUse = (key: Uint8Array, nonce: bigint) => void;

/** What the guards of the two kinds have in common: where their memory is, and payloads in pieces. */
abstract class ReferenceGuard implements FrameGuard {
  abstract readonly tagBytes: number;
  abstract readonly encrypts: boolean;
  protected headerKey = new Uint8Array(0);
  protected payloadKey = new Uint8Array(0);
  #isKeyed = false;
  #nonce = -1n;
  #pieces: { at: number; toAt: number; bytes: number }[] | null = null;

  constructor(protected readonly memory: Memory, readonly keyed: boolean) {}

  /** Gives what goes on the wire, and the tag. */
  abstract sealBytes(key: Uint8Array, nonce: bigint, plain: Uint8Array, bound: Uint8Array): [Uint8Array, Uint8Array];
  /** Gives the plaintext, or null when the tag is wrong. */
  abstract openBytes(
    key: Uint8Array,
    nonce: bigint,
    wire: Uint8Array,
    bound: Uint8Array,
    tag: Uint8Array,
  ): Uint8Array | null;

  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    assert.ok(this.keyed && headerKey.length === 32 && payloadKey.length === 32);
    this.headerKey = headerKey.slice();
    this.payloadKey = payloadKey.slice();
    this.#isKeyed = true;
  }

  seal(nonceAt: number, at: number, toAt: number, bytes: number, tagAt: number): void {
    this.begin(nonceAt);
    this.sealPiece(at, toAt, bytes);
    this.finishSeal(tagAt);
  }

  open(nonceAt: number, at: number, bytes: number, tagAt: number): boolean {
    this.begin(nonceAt);
    this.openPiece(at, bytes);
    return this.finishOpen(tagAt);
  }

  begin(nonceAt: number): void {
    assert.equal(this.#pieces, null, "one payload at a time");
    this.#nonce = this.nonce(nonceAt);
    this.#pieces = [];
  }

  sealPiece(at: number, toAt: number, bytes: number): void {
    assert.ok(bytes >= 1 && bytes <= PIECE_BYTES, "a piece has its limits");
    assert.ok(at === toAt || at + bytes <= toAt || toAt + bytes <= at, "a piece is sealed in place or elsewhere");
    for (const { bytes } of this.#pieces!) assert.equal(bytes, PIECE_BYTES, "only the last piece is short");
    this.#pieces!.push({ at, toAt, bytes });
  }

  openPiece(at: number, bytes: number): void {
    this.sealPiece(at, at, bytes);
  }

  finishSeal(tagAt: number): void {
    const [wire, tag] = this.sealBytes(this.payloadKey, this.#nonce, this.#plain(), new Uint8Array(0));
    this.memory.bytes.set(tag, tagAt);
    if (this.encrypts) this.#place(wire);
    this.#pieces = null;
  }

  finishOpen(tagAt: number): boolean {
    const tag = this.memory.bytes.slice(tagAt, tagAt + this.tagBytes);
    const plain = this.openBytes(this.payloadKey, this.#nonce, this.#plain(), new Uint8Array(0), tag);
    if (plain !== null) this.#place(plain);
    this.#pieces = null;
    return plain !== null;
  }

  sealHeader(nonceAt: number, at: number): void {
    const { bytes } = this.memory;
    const tagAt = at + HEADER_BYTES + this.tagBytes;
    const plain = bytes.slice(at, at + HEADER_BYTES);
    const bound = bytes.slice(at + HEADER_BYTES, tagAt);
    const [wire, tag] = this.sealBytes(this.headerKey, this.nonce(nonceAt), plain, bound);
    bytes.set(wire, at);
    bytes.set(tag, tagAt);
  }

  openHeader(nonceAt: number, at: number): boolean {
    const { bytes } = this.memory;
    const tagAt = at + HEADER_BYTES + this.tagBytes;
    const tag = bytes.slice(tagAt, tagAt + this.tagBytes);
    const bound = bytes.slice(at + HEADER_BYTES, tagAt);
    const plain = this.openBytes(this.headerKey, this.nonce(nonceAt), bytes.slice(at, at + HEADER_BYTES), bound, tag);
    if (plain !== null) bytes.set(plain, at);
    return plain !== null;
  }

  close(): void {
    this.headerKey.fill(0);
    this.payloadKey.fill(0);
  }

  /** The eight bytes there, once keys are there that need them. */
  nonce(at: number): bigint {
    assert.equal(this.#isKeyed, this.keyed, "keys come before the first frame");
    return this.memory.view.getBigUint64(at, true);
  }

  #plain(): Uint8Array {
    const pieces = this.#pieces!;
    const whole = new Uint8Array(pieces.reduce((sum, { bytes }) => sum + bytes, 0));
    let done = 0;
    for (const { at, bytes } of pieces) {
      whole.set(this.memory.bytes.subarray(at, at + bytes), done);
      done += bytes;
    }
    return whole;
  }

  #place(whole: Uint8Array): void {
    let done = 0;
    for (const { toAt, bytes } of this.#pieces!) {
      this.memory.bytes.set(whole.subarray(done, done + bytes), toAt);
      done += bytes;
    }
  }
}

class DigestGuard extends ReferenceGuard {
  readonly tagBytes: number;
  readonly encrypts = false;

  constructor(memory: Memory, keyed: boolean, readonly digest: number) {
    super(memory, keyed);
    this.tagBytes = TAG_BYTES[digest];
  }

  sealBytes(key: Uint8Array, _nonce: bigint, plain: Uint8Array, bound: Uint8Array): [Uint8Array, Uint8Array] {
    const whole = new Uint8Array(plain.length + bound.length);
    whole.set(plain);
    whole.set(bound, plain.length);
    return [plain, tagOf(this.digest, whole, this.keyed ? key : undefined)];
  }

  openBytes(key: Uint8Array, nonce: bigint, wire: Uint8Array, bound: Uint8Array, tag: Uint8Array): Uint8Array | null {
    const [, expected] = this.sealBytes(key, nonce, wire, bound);
    return expected.every((byte, i) => byte === tag[i]) ? wire : null;
  }
}

class CipherGuard extends ReferenceGuard {
  readonly tagBytes = 16;
  readonly encrypts = true;
  readonly #aead;

  constructor(memory: Memory, cipher: number, readonly used: NonceUse) {
    super(memory, true);
    this.#aead = AEAD[cipher === 1 ? "chacha20-poly1305" : "aes-256-gcm"];
  }

  sealBytes(key: Uint8Array, nonce: bigint, plain: Uint8Array, bound: Uint8Array): [Uint8Array, Uint8Array] {
    this.used(key, nonce);
    const sealed = this.#aead.seal(key, this.#aead.nonce(nonce), bound, plain);
    return [sealed.slice(0, -16), sealed.slice(-16)];
  }

  openBytes(key: Uint8Array, nonce: bigint, wire: Uint8Array, bound: Uint8Array, tag: Uint8Array): Uint8Array | null {
    const sealed = new Uint8Array(wire.length + tag.length);
    sealed.set(wire);
    sealed.set(tag, wire.length);
    return this.#aead.open(key, this.#aead.nonce(nonce), bound, sealed);
  }
}

/**
 * All suites over a memory.
 *
 * @param sealed is told of every key and nonce that something is encrypted with
 */
export function referenceCryptography(memory: Memory, sealed: NonceUse = () => {}): Cryptography {
  return {
    ciphers: [1, 2],
    noise,
    makeGuard(cipher, digest, keyed, scratchAt) {
      assert.equal(scratchAt % 64, 0);
      assert.ok(cipher === 0 ? digest in TAG_BYTES : digest === 0 && keyed, "there is such a suite");
      return cipher === 0 ? new DigestGuard(memory, keyed, digest) : new CipherGuard(memory, cipher, sealed);
    },
  };
}
