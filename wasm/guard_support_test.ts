/**
 * What the tests of guards share: a memory laid out for them, random bytes by a seed, and what other people's libraries
 * make of the same frames.
 *
 * @module
 */
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { SUITES } from "../tests/vectors/frames.ts";
import { type Core, makeArena } from "./core.ts";
import { GUARD_SCRATCH_BYTES, makeWasmGuard, type WasmGuard } from "./guard.ts";

export const HEADER_BYTES = 48;
/** The Castagnoli polynomial, bits reflected. */
const CASTAGNOLI = 0x82f63b78;
const crc32c = await createCRC32(CASTAGNOLI);
const xxh64 = await createXXHash64();

/** A suite that the core has. */
export type Suite = (typeof SUITES)[number];
export const CORE_SUITES: readonly Suite[] = SUITES.filter((suite) => suite.name !== "aes-256-gcm");
/** Those that make tags. */
export const TAGGING_SUITES = CORE_SUITES.filter((suite) => suite.tagBytes > 0);

export const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
/** For the message of an assertion over random bytes. */
export const why = `replay with DST_SEED=${seed}`;

/** Marsaglia's xorshift of 32 bits. */
export function randomFrom(start: number): () => number {
  let state = start | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

export function fillRandomly(bytes: Uint8Array): void {
  const next = randomFrom(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = next() >>> 24;
}

/** What seals a payload or header. */
export interface Keys {
  readonly header: Uint8Array<ArrayBuffer>;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** Ciphertext (with a digest, the same bytes) and tag. */
export interface Sealed {
  readonly text: Uint8Array;
  readonly tag: Uint8Array;
}

function digestOf(suite: Suite, key: Uint8Array, bytes: Uint8Array): Uint8Array {
  switch (suite.digest) {
    case 0:
      return new Uint8Array(0);
    case 1:
      return new Uint8Array([...crc32c.init().update(bytes).digest("binary").toReversed(), 0, 0, 0, 0]);
    case 2:
      return xxh64.init().update(bytes).digest("binary").toReversed();
    case 3:
      return blake2b(bytes, { dkLen: 32, key: suite.keyed ? key : undefined });
    default:
      return hmac(sha256, key, bytes);
  }
}

function encrypt(key: Uint8Array, counter: bigint, associated: Uint8Array, plain: Uint8Array): Sealed {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, counter, true);
  const sealed = chacha20poly1305(key, nonce, associated).encrypt(plain);
  return { text: sealed.subarray(0, plain.length), tag: sealed.subarray(plain.length) };
}

/** A payload as SPEC.md, 4.1 and 4.3, wants it sealed. */
export function expectedPayload(suite: Suite, keys: Keys, counter: bigint, plain: Uint8Array): Sealed {
  if (suite.cipher !== 0) return encrypt(keys.header, counter, new Uint8Array(0), plain);
  return { text: plain, tag: digestOf(suite, keys.payload, plain) };
}

/** A header likewise. */
export function expectedHeader(
  suite: Suite,
  keys: Keys,
  counter: bigint,
  plain: Uint8Array,
  payloadTag: Uint8Array,
): Sealed {
  if (suite.cipher !== 0) return encrypt(keys.header, counter, payloadTag, plain);
  return { text: plain, tag: digestOf(suite, keys.header, new Uint8Array([...plain, ...payloadTag])) };
}

/** A guard on a memory full of random bytes. */
export class Bench {
  readonly core: Core;
  readonly guard: WasmGuard;
  readonly suite: Suite;
  readonly keys: Keys;
  readonly scratchAt: number;
  readonly nonceAt: number;
  readonly tagAt: number;
  readonly prefixAt: number;
  /** Two areas of 1 MiB, for plaintext and for ciphertext. */
  readonly from: number;
  readonly to: number;

  constructor(suite: Suite, core: Core = makeArena(3 * 1024 * 1024)) {
    this.core = core;
    this.suite = suite;
    fillRandomly(core.bytes.subarray(core.freeFrom, core.freeFrom + 0x210000));
    this.scratchAt = core.freeFrom;
    this.nonceAt = this.scratchAt + GUARD_SCRATCH_BYTES;
    this.tagAt = this.nonceAt + 64;
    this.prefixAt = this.tagAt + 64;
    this.from = core.freeFrom + 4096;
    this.to = this.from + 0x100000;
    const next = randomFrom(seed ^ 0x6b657973);
    const key = () => Uint8Array.from({ length: 32 }, () => next() >>> 24);
    this.keys = { header: key(), payload: key() };
    this.guard = makeWasmGuard(core, suite.cipher, suite.digest, suite.keyed, this.scratchAt);
    if (suite.keyed) this.guard.setKeys(this.keys.header, this.keys.payload);
  }

  putNonce(counter: bigint): void {
    this.core.view.setBigUint64(this.nonceAt, counter, true);
  }

  /** A copy of what is in the memory. */
  read(at: number, bytes: number): Uint8Array<ArrayBuffer> {
    return this.core.bytes.slice(at, at + bytes);
  }

  tag(): Uint8Array {
    return this.read(this.tagAt, this.suite.tagBytes);
  }
}
