/**
 * What protects the frames of one direction (`FrameGuard` of `protocol/guard.ts`), done by the Rust core.
 *
 * @module
 */
import type { Core } from "./core.ts";
import type * as Generated from "./pkg/dst_core_bg.wasm.d.ts";

/** Bytes of the arena that a guard is given, a multiple of 64: its state, and at the end where keys are handed over. */
export const GUARD_SCRATCH_BYTES = 1024;
/** Bytes of a key. */
const KEY_BYTES = 32;
/** Where in the scratch the core finds new keys: that of headers, then that of payloads. */
const KEYS_AT = GUARD_SCRATCH_BYTES - 2 * KEY_BYTES;
/** Bytes of a header (SPEC.md, section 4). */
const HEADER_BYTES = 48;
/** Bytes of a nonce's counter. */
const NONCE_BYTES = 8;
/** The most bytes of one call: of a whole payload, or of a piece of it. */
const TEXT_BYTES_MAX = 65536;

/** An algorithm of the core. */
interface Algorithm {
  /** What the core calls it: a digest's number, or a cipher's with 256 added. 0 if the core has nothing to do. */
  readonly number: number;
  readonly name: string;
  readonly tagBytes: number;
  readonly encrypts: boolean;
  readonly keys: "never" | "may have" | "must have";
}

/** By the digest's number (SPEC.md, section 2). */
const DIGESTS: readonly Algorithm[] = [
  { number: 0, name: "none", tagBytes: 0, encrypts: false, keys: "never" },
  { number: 1, name: "crc32c", tagBytes: 8, encrypts: false, keys: "never" },
  { number: 2, name: "xxh64", tagBytes: 8, encrypts: false, keys: "never" },
  { number: 3, name: "blake2b-256", tagBytes: 32, encrypts: false, keys: "may have" },
  { number: 4, name: "hmac-sha256", tagBytes: 32, encrypts: false, keys: "must have" },
];
/** By the cipher's number. The core has no AES: without instructions for it that is slow, or its time tells the key. */
const CIPHERS: readonly (Algorithm | undefined)[] = [
  undefined,
  { number: 256 + 1, name: "chacha20-poly1305", tagBytes: 16, encrypts: true, keys: "must have" },
];

/**
 * A `FrameGuard` whose work is done by the core. Its state lies in the arena, so nothing is allocated per call, and
 * {@link close} leaves no key behind.
 *
 * Ranges outside the free area, and pieces that do not follow {@link begin}, are errors of the program and throw.
 */
export class WasmGuard {
  /** Bytes of a tag. */
  readonly tagBytes: number;
  /** Whether sealing changes the payload's bytes. */
  readonly encrypts: boolean;
  readonly #core: Core;
  readonly #exports: typeof Generated;
  readonly #algorithm: Algorithm;
  readonly #number: number;
  readonly #at: number;
  readonly #keyed: boolean;
  /** Whether there is something to work with: keys, or no need of them. */
  #ready: boolean;
  /** Whether a payload has been begun and not finished. */
  #begun = false;

  /** See {@link makeWasmGuard}. */
  constructor(core: Core, algorithm: Algorithm, keyed: boolean, scratchAt: number) {
    this.tagBytes = algorithm.tagBytes;
    this.encrypts = algorithm.encrypts;
    this.#core = core;
    this.#exports = core.exports;
    this.#algorithm = algorithm;
    this.#number = algorithm.number;
    this.#at = scratchAt;
    this.#keyed = keyed;
    this.#ready = !keyed;
    core.bytes.fill(0, scratchAt, scratchAt + GUARD_SCRATCH_BYTES);
    if (!keyed && this.#number !== 0) this.#exports.guard_start(this.#number, scratchAt);
  }

  /**
   * From now on these keys, which the caller may wipe afterwards. A payload that has been begun must be finished
   * before.
   *
   * @param headerKey 32 bytes
   * @param payloadKey 32 bytes; a cipher does not look at it
   */
  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    if (!this.#keyed) throw new Error(`Cannot set keys: this ${this.#algorithm.name} has none`);
    if (headerKey.length !== KEY_BYTES || payloadKey.length !== KEY_BYTES) {
      throw new RangeError(`Cannot set keys of ${headerKey.length} and ${payloadKey.length} bytes: they have 32`);
    }
    if (this.#begun) throw new Error("Cannot set keys: a payload is not finished");
    const { bytes } = this.#core;
    const keysAt = this.#at + KEYS_AT;
    bytes.set(headerKey, keysAt);
    bytes.set(payloadKey, keysAt + KEY_BYTES);
    this.#exports.guard_set_keys(this.#number, this.#at, keysAt);
    bytes.fill(0, keysAt, keysAt + 2 * KEY_BYTES);
    this.#ready = true;
  }

  /**
   * Writes the payload's tag, and with a cipher the ciphertext.
   *
   * @param nonceAt offset of the nonce's counter, 8 bytes little-endian
   * @param at offset of the plaintext
   * @param toAt where the ciphertext goes: `at`, or a range apart
   * @param bytes 1 to 65536
   * @param tagAt where the tag goes
   */
  seal(nonceAt: number, at: number, toAt: number, bytes: number, tagAt: number): void {
    this.#checkText(at, bytes);
    this.#checkRoom(toAt, bytes);
    this.#checkRoom(tagAt, this.tagBytes);
    this.#checkNonce(nonceAt);
    if (this.#number === 0) return;
    this.#exports.guard_seal(this.#number, this.#at, nonceAt, at, toAt, bytes, tagAt);
  }

  /**
   * Checks the payload's tag in constant time, and with a cipher puts the plaintext in place of the ciphertext.
   *
   * @param nonceAt as it was sealed with
   * @param at offset of the payload
   * @param bytes 1 to 65536
   * @param tagAt offset of the tag
   * @returns whether the tag is right; when it is not, the payload's bytes are of no use
   */
  open(nonceAt: number, at: number, bytes: number, tagAt: number): boolean {
    this.#checkText(at, bytes);
    this.#checkRoom(tagAt, this.tagBytes);
    this.#checkNonce(nonceAt);
    if (this.#number === 0) return true;
    return this.#exports.guard_open(this.#number, this.#at, nonceAt, at, bytes, tagAt) !== 0;
  }

  /** Begins a payload that comes in pieces. One that was not finished is forgotten. */
  begin(nonceAt: number): void {
    this.#checkNonce(nonceAt);
    this.#begun = true;
    if (this.#number !== 0) this.#exports.guard_begin(this.#number, this.#at, nonceAt);
  }

  /** Seals the next piece: a multiple of 512 bytes, up to 65536, but for the last. */
  sealPiece(at: number, toAt: number, bytes: number): void {
    this.#checkBegun();
    this.#checkText(at, bytes);
    this.#checkRoom(toAt, bytes);
    if (this.#number !== 0) this.#exports.guard_seal_piece(this.#number, this.#at, at, toAt, bytes);
  }

  /** Writes the tag of the pieces. */
  finishSeal(tagAt: number): void {
    this.#checkBegun();
    this.#checkRoom(tagAt, this.tagBytes);
    this.#begun = false;
    if (this.#number !== 0) this.#exports.guard_finish_seal(this.#number, this.#at, tagAt);
  }

  /** Opens the next piece, as {@link sealPiece}, in place. */
  openPiece(at: number, bytes: number): void {
    this.#checkBegun();
    this.#checkText(at, bytes);
    if (this.#number !== 0) this.#exports.guard_open_piece(this.#number, this.#at, at, bytes);
  }

  /** As {@link open}, of the pieces. */
  finishOpen(tagAt: number): boolean {
    this.#checkBegun();
    this.#checkRoom(tagAt, this.tagBytes);
    this.#begun = false;
    return this.#number === 0 || this.#exports.guard_finish_open(this.#number, this.#at, tagAt) !== 0;
  }

  /** Seals the 48 bytes of a header in place, bound to the payload tag right behind, and writes its tag behind that. */
  sealHeader(nonceAt: number, at: number): void {
    this.#checkRoom(at, HEADER_BYTES + 2 * this.tagBytes);
    this.#checkNonce(nonceAt);
    if (this.#number !== 0) this.#exports.guard_seal_header(this.#number, this.#at, nonceAt, at);
  }

  /**
   * Opens in place what {@link sealHeader} has made.
   *
   * @returns whether its tag is right; when it is not, the header's bytes are of no use
   */
  openHeader(nonceAt: number, at: number): boolean {
    this.#checkRoom(at, HEADER_BYTES + 2 * this.tagBytes);
    this.#checkNonce(nonceAt);
    return this.#number === 0 || this.#exports.guard_open_header(this.#number, this.#at, nonceAt, at) !== 0;
  }

  /** Wipes keys and state, and what work with them has left elsewhere in the core. The guard is of no use any more. */
  close(): void {
    this.#ready = false;
    this.#begun = false;
    this.#core.bytes.fill(0, this.#at, this.#at + GUARD_SCRATCH_BYTES);
    this.#exports.wipe_stack();
  }

  #checkNonce(nonceAt: number): void {
    if (!this.#ready) throw new Error(`Cannot use ${this.#algorithm.name}: it has no keys, or is closed`);
    this.#checkRoom(nonceAt, NONCE_BYTES);
  }

  #checkBegun(): void {
    if (!this.#begun) throw new Error("Cannot go on with a payload: none has been begun");
  }

  #checkText(at: number, bytes: number): void {
    if (!(bytes >= 1 && bytes <= TEXT_BYTES_MAX && this.#core.holds(at, bytes))) this.#refuse(at, bytes);
  }

  #checkRoom(at: number, bytes: number): void {
    if (!this.#core.holds(at, bytes)) this.#refuse(at, bytes);
  }

  #refuse(at: number, bytes: number): never {
    const { freeFrom, size } = this.#core;
    throw new RangeError(
      `Cannot use ${this.#algorithm.name} on ${bytes} bytes at ${at}: ` +
        `payloads and pieces have 1 to ${TEXT_BYTES_MAX}, and the free area is from ${freeFrom} to ${size}`,
    );
  }
}

/**
 * Makes the guard of one direction of one connection.
 *
 * @param cipher its number (SPEC.md, section 2); not `aes-256-gcm`, which the core does not have
 * @param digest its number: what tags are without a cipher; with one it does not matter
 * @param keyed whether `setKeys` comes before the first frame: always with a cipher and with HMAC
 * @param scratchAt offset of {@link GUARD_SCRATCH_BYTES} in the free area, a multiple of 64, that nobody else uses
 * @throws RangeError if there is no such guard
 */
export function makeWasmGuard(
  core: Core,
  cipher: number,
  digest: number,
  keyed: boolean,
  scratchAt: number,
): WasmGuard {
  const algorithm = cipher === 0 ? DIGESTS[digest] : CIPHERS[cipher];
  if (algorithm === undefined) {
    throw new RangeError(`Cannot make a guard of cipher ${cipher} and digest ${digest}: the core does not have it`);
  }
  const wrong = keyed ? "never" : "must have";
  if (algorithm.keys === wrong) throw new RangeError(`Cannot make a guard: ${algorithm.name} ${wrong} a key`);
  if (scratchAt % 64 !== 0 || !core.holds(scratchAt, GUARD_SCRATCH_BYTES)) {
    throw new RangeError(
      `Cannot make a guard at ${scratchAt}: it needs ${GUARD_SCRATCH_BYTES} bytes at a multiple of 64`,
    );
  }
  return new WasmGuard(core, algorithm, keyed, scratchAt);
}
