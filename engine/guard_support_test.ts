/**
 * What the suite of the guards works with: the guards that there are, memory for them, and what other people's
 * libraries make of the same bytes.
 *
 * @module
 */
import assert from "node:assert/strict";
import { libcrypto } from "../ffi/libcrypto.ts";
import { type FrameGuard, GUARD_SCRATCH_BYTES, PIECE_BYTES } from "../protocol/guard.ts";
import { digest, type Suite, SUITES } from "../tests/vectors/frames.ts";
import { AEAD, type Bytes, concat, hex, le } from "../tests/vectors/primitives.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { type CryptoChoice, makeCryptography, type ThreadCryptography } from "./cryptography.ts";
import type { Random } from "./random.ts";

/** A kind of guard of one provider. */
export interface Run {
  readonly name: string;
  readonly choice: CryptoChoice;
  readonly suite: Suite;
  /** The provider is not on this machine. */
  readonly ignore: boolean;
}

const missing = typeof libcrypto() === "string" ? " (there is no libcrypto.so.3)" : "";

/** Every guard that there is. Digests without a key are never OpenSSL's, `aes-256-gcm` is always. */
export const runs: readonly Run[] = [
  ...SUITES.filter((suite) => suite.name !== "aes-256-gcm")
    .map((suite) => ({ name: `wasm, ${suite.name}`, choice: "wasm" as const, suite, ignore: false })),
  ...SUITES.filter((suite) => suite.cipher !== 0 || suite.name === "hmac-sha256")
    .map((suite) => ({
      name: `openssl${missing}, ${suite.name}`,
      choice: "openssl" as const,
      suite,
      ignore: missing !== "",
    })),
];

/** A payload on the wire. */
export interface Sealed {
  readonly text: Bytes;
  readonly tag: Bytes;
}

/** How many guards a {@link GuardBench} has room for. */
export const SCRATCH_COUNT = 2;
/** Where things lie after the scratches, in bytes. Tags and headers are at odd places: guards take any. */
const NONCE_OFFSET = 8192;
const TAG_OFFSET = 8192 + 129;
const HEADER_OFFSET = 8192 + 515;
const TEXT_OFFSET = 16_384;
/** Room for one piece, at any place. */
const TEXT_ROOM_BYTES = PIECE_BYTES + 4096;
const MEMORY_BYTES = 1024 * 1024;

/** The suite by other people's libraries. */
class Oracle {
  readonly #suite: Suite;
  #headerKey: Uint8Array = new Uint8Array(0);
  #payloadKey: Uint8Array = new Uint8Array(0);

  constructor(suite: Suite) {
    this.#suite = suite;
  }

  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    this.#headerKey = headerKey;
    this.#payloadKey = payloadKey;
  }

  seal(nonce: bigint, payload: Uint8Array): Sealed {
    const suite = this.#suite;
    if (suite.cipher !== 0) return this.#encrypt(nonce, new Uint8Array(0), payload);
    return { text: payload as Bytes, tag: digest(suite.digest, payload, this.#keyed(this.#payloadKey)) as Bytes };
  }

  /** The whole prefix: header, the payload's tag, the header's tag. */
  sealHeader(nonce: bigint, header: Uint8Array, payloadTag: Uint8Array): Bytes {
    const suite = this.#suite;
    if (suite.cipher !== 0) {
      const { text, tag } = this.#encrypt(nonce, payloadTag, header);
      return concat(text, payloadTag, tag);
    }
    const bound = concat(header, payloadTag);
    return concat(bound, digest(suite.digest, bound, this.#keyed(this.#headerKey)));
  }

  #keyed(key: Uint8Array): Uint8Array | undefined {
    return this.#suite.keyed ? key : undefined;
  }

  /** Ciphers use the header's key for both. */
  #encrypt(nonce: bigint, associated: Uint8Array, plaintext: Uint8Array): Sealed {
    const { nonce: bytesOf, seal } = AEAD[this.#suite.name as keyof typeof AEAD];
    const sealed = seal(this.#headerKey, bytesOf(nonce), associated, plaintext) as Bytes;
    return { text: sealed.slice(0, -16), tag: sealed.slice(-16) };
  }
}

/** Memory with room for guards and what they work on. Everything outside what it names is checked to be left alone. */
export class GuardBench implements Disposable {
  readonly core: Core = makeArena(MEMORY_BYTES);
  readonly cryptography: ThreadCryptography;
  readonly oracle: Oracle;
  readonly nonceAt: number;
  readonly tagAt: number;
  readonly headerAt: number;
  readonly textAt: number;
  readonly #otherTextAt: number;
  readonly #run: Run;
  readonly #suite: Suite;
  /** Ranges that something may be written to: offset and bytes. */
  #named: [number, number][] = [];

  constructor(run: Run) {
    this.#run = run;
    this.#suite = run.suite;
    this.cryptography = makeCryptography(this.core, run.choice);
    this.oracle = new Oracle(run.suite);
    const from = this.core.freeFrom;
    this.nonceAt = from + NONCE_OFFSET;
    this.tagAt = from + TAG_OFFSET;
    this.headerAt = from + HEADER_OFFSET;
    this.textAt = from + TEXT_OFFSET;
    this.#otherTextAt = this.textAt + TEXT_ROOM_BYTES;
    assert.ok(this.#otherTextAt + TEXT_ROOM_BYTES <= this.core.size);
    // So that a guard which expects its scratch to be zeroes is seen.
    this.core.bytes.fill(0xa5, from);
  }

  /** A guard of the run's kind, without keys. */
  make(index = 0): FrameGuard {
    const { cipher, digest, keyed } = this.#suite;
    const scratchAt = this.core.freeFrom + index * GUARD_SCRATCH_BYTES;
    assert.equal(this.cryptography.providerOf(cipher, digest), this.#run.choice);
    return this.cryptography.makeGuard(cipher, digest, keyed, scratchAt);
  }

  /** A guard with random keys, where it has keys, which the oracle gets too. */
  keyedGuard(random: Random): FrameGuard {
    const guard = this.make();
    if (this.#suite.keyed) this.rekey(guard, random);
    return guard;
  }

  /** Gives guard and oracle new keys. */
  rekey(guard: FrameGuard, random: Random): void {
    const [headerKey, payloadKey] = [0, 0].map(() => Uint8Array.from({ length: 32 }, () => random.below(256)));
    guard.setKeys(headerKey, payloadKey);
    this.oracle.setKeys(headerKey, payloadKey);
  }

  /** A copy of a guard's scratch. */
  scratch(index: number): Bytes {
    const at = this.core.freeFrom + index * GUARD_SCRATCH_BYTES;
    return this.core.bytes.slice(at, at + GUARD_SCRATCH_BYTES);
  }

  /** Seals a payload; `place` is how far off a page it lies, and where its ciphertext goes: null in place. */
  seal(
    guard: FrameGuard,
    nonce: bigint,
    payload: Uint8Array,
    place: { at: number; toAt: number | null } = { at: 0, toAt: null },
  ): Sealed {
    const at = this.#put(this.textAt + place.at, payload);
    const toAt = place.toAt === null ? at : this.#name(this.#otherTextAt + place.toAt, payload.length);
    guard.seal(this.#putNonce(nonce), at, toAt, payload.length, this.#name(this.tagAt, guard.tagBytes));
    if (toAt !== at) assert.ok(this.#holds(at, payload), "the plaintext is left as it is");
    return this.#sealed(guard, guard.encrypts ? toAt : at, payload.length);
  }

  /** Opens a payload so far off a page, in place; null when it is refused. */
  open(guard: FrameGuard, nonce: bigint, sealed: Sealed, offset = 0): Bytes | null {
    const at = this.#put(this.textAt + offset, sealed.text);
    const tagAt = this.#put(this.tagAt, sealed.tag);
    if (!guard.open(this.#putNonce(nonce), at, sealed.text.length, tagAt)) return null;
    assert.ok(this.#holds(tagAt, sealed.tag), "the tag is left as it is");
    return this.core.bytes.slice(at, at + sealed.text.length);
  }

  /**
   * Seals a payload piece by piece, with something done before and after each that may use the same places: so pieces
   * are put there, and taken from there, when their turn comes.
   */
  sealPieces(guard: FrameGuard, nonce: bigint, payload: Uint8Array, between: () => void = () => {}): Sealed {
    const text = new Uint8Array(payload.length);
    guard.begin(this.#putNonce(nonce));
    between();
    for (let done = 0; done < payload.length; done += PIECE_BYTES) {
      const piece = payload.subarray(done, done + PIECE_BYTES);
      const at = this.#put(this.textAt, piece);
      const toAt = this.#name(this.#otherTextAt, piece.length);
      guard.sealPiece(at, toAt, piece.length);
      const fromAt = guard.encrypts ? toAt : at;
      text.set(this.core.bytes.subarray(fromAt, fromAt + piece.length), done);
      between();
    }
    guard.finishSeal(this.#name(this.tagAt, guard.tagBytes));
    return { text, tag: this.core.bytes.slice(this.tagAt, this.tagAt + guard.tagBytes) };
  }

  /** Opens a payload piece by piece; null when it is refused. */
  openPieces(guard: FrameGuard, nonce: bigint, sealed: Sealed, between: () => void = () => {}): Bytes | null {
    const opened = new Uint8Array(sealed.text.length);
    guard.begin(this.#putNonce(nonce));
    between();
    for (let done = 0; done < opened.length; done += PIECE_BYTES) {
      const piece = sealed.text.subarray(done, done + PIECE_BYTES);
      const at = this.#put(this.textAt, piece);
      guard.openPiece(at, piece.length);
      opened.set(this.core.bytes.subarray(at, at + piece.length), done);
      between();
    }
    return guard.finishOpen(this.#put(this.tagAt, sealed.tag)) ? opened : null;
  }

  /** Begins a payload and does not finish it. */
  abandon(guard: FrameGuard, nonce: bigint, isSealing: boolean): void {
    const at = this.#put(this.textAt, new Uint8Array(PIECE_BYTES).fill(1));
    guard.begin(this.#putNonce(nonce));
    if (isSealing) guard.sealPiece(at, at, PIECE_BYTES);
    else guard.openPiece(at, PIECE_BYTES);
  }

  /** The whole prefix of a header, sealed so far off its place. */
  sealHeader(guard: FrameGuard, nonce: bigint, header: Uint8Array, payloadTag: Uint8Array, offset = 0): Bytes {
    const at = this.#put(this.headerAt + offset, concat(header, payloadTag, new Uint8Array(guard.tagBytes).fill(0xee)));
    guard.sealHeader(this.#putNonce(nonce), at);
    return this.core.bytes.slice(at, at + header.length + 2 * guard.tagBytes);
  }

  /** The header of a prefix, opened so far off its place; null when it is refused. */
  openHeader(guard: FrameGuard, nonce: bigint, prefix: Uint8Array, offset = 0): Bytes | null {
    const at = this.#put(this.headerAt + offset, prefix);
    if (!guard.openHeader(this.#putNonce(nonce), at)) return null;
    assert.ok(this.#holds(at + 48, prefix.subarray(48)), "the tags are left as they are");
    return this.core.bytes.slice(at, at + 48);
  }

  /** Does something, and asserts that no byte outside the first scratch and what this has named is another one then. */
  expectingNoOtherWrites(action: () => void): void {
    const { core } = this;
    const before = core.bytes.slice(core.freeFrom);
    this.#named = [[core.freeFrom, GUARD_SCRATCH_BYTES]];
    action();
    const after = core.bytes.slice(core.freeFrom);
    for (const [at, bytes] of this.#named) {
      for (const copy of [before, after]) copy.fill(0, at - core.freeFrom, at - core.freeFrom + bytes);
    }
    assert.ok(isSame(before, after), "nothing else is written to");
  }

  [Symbol.dispose](): void {
    this.cryptography.close();
  }

  #sealed(guard: FrameGuard, at: number, bytes: number): Sealed {
    return {
      text: this.core.bytes.slice(at, at + bytes),
      tag: this.core.bytes.slice(this.tagAt, this.tagAt + guard.tagBytes),
    };
  }

  #putNonce(nonce: bigint): number {
    return this.#put(this.nonceAt, le(nonce, 8));
  }

  #put(at: number, bytes: Uint8Array): number {
    this.core.bytes.set(bytes, at);
    return this.#name(at, bytes.length);
  }

  #name(at: number, bytes: number): number {
    this.#named.push([at, bytes]);
    return at;
  }

  #holds(at: number, bytes: Uint8Array): boolean {
    return isSame(this.core.bytes.subarray(at, at + bytes.length), bytes);
  }
}

/** Whether two byte strings are the same; faster, and quieter when they are not, than assert.deepEqual. */
export function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

/** {@link isSame} of both parts. */
export function isSameSealed(one: Sealed, other: Sealed): boolean {
  return isSame(one.text, other.text) && hex(one.tag) === hex(other.tag);
}
