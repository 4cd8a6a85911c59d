/**
 * Numbers, seals and opens the frames of one connection (SPEC.md, section 4). Everything about tags is here, so that
 * the machines are the same under every digest and cipher.
 *
 * @module
 */
import { assert } from "./assert.ts";
import type { Memory } from "./consumer.ts";
import { ProtocolError } from "./error.ts";
import { SIZE_MAX } from "./limits.ts";
import { Digest, FRAME_MAGIC, HEADER_BYTES, HeaderAt, TAG_BYTES_MAX, tagBytesOf, writeUint64 } from "./wire.ts";

/**
 * The digests that a codec needs. Offsets are those of its {@link Memory}; both write 8 bytes at `outAt`: XXH64 with
 * seed 0 as u64, CRC-32C as u32 and four zero bytes.
 */
export interface Digests {
  crc32c(at: number, bytes: number, outAt: number): void;
  xxh64(at: number, bytes: number, outAt: number): void;
}

/** Bytes of the arena that a codec needs for itself: room for one tag. */
export const CODEC_SCRATCH_BYTES = TAG_BYTES_MAX;

/** The digests that a codec can be made with. The keyed ones come with the secure channel. */
export const CODEC_DIGESTS: readonly number[] = [Digest.NONE, Digest.CRC32C, Digest.XXH64];

/**
 * The frames of one connection, in both directions.
 *
 * @example
 * ```ts
 * codec.seal(payloadAt - codec.prefixBytes, payloadAt, payloadBytes); // then send prefix and payload
 * ```
 */
export class FrameCodec {
  /** Bytes T of a tag. */
  readonly tagBytes: number;
  /** Bytes of a frame before its payload: header and two tags. */
  readonly prefixBytes: number;
  /** Frames sealed so far, which is the number of the next. */
  sent: number;
  /** Frames opened so far, which is the number of the next. */
  received: number;
  readonly #memory: Memory;
  readonly #digests: Digests;
  readonly #scratchAt: number;
  readonly #digest: number;
  #payloadTagLow = 0;
  #payloadTagHigh = 0;

  /**
   * @param scratchAt arena offset of {@link CODEC_SCRATCH_BYTES} that nobody else uses
   * @param digest one of {@link CODEC_DIGESTS}
   * @param sent frames already sent on this connection
   * @param received frames already received on this connection
   */
  constructor(memory: Memory, digests: Digests, scratchAt: number, digest: number, sent = 0, received = 0) {
    assert(CODEC_DIGESTS.includes(digest), "the digest is one that the codec has");
    assert(Number.isSafeInteger(sent) && sent >= 0, "the number of frames sent is a safe integer");
    assert(Number.isSafeInteger(received) && received >= 0, "the number of frames received is a safe integer");
    this.#memory = memory;
    this.#digests = digests;
    this.#scratchAt = scratchAt;
    this.#digest = digest;
    this.tagBytes = tagBytesOf(digest);
    this.prefixBytes = HEADER_BYTES + 2 * this.tagBytes;
    this.sent = sent;
    this.received = received;
  }

  /**
   * Completes the frame whose header (all but its number) is at `at`: writes the number and both tags.
   *
   * @param at arena offset of the prefix
   * @param payloadAt arena offset of the payload; it need not follow the prefix
   * @param payloadBytes as the header says; 0 none
   */
  seal(at: number, payloadAt: number, payloadBytes: number): void {
    const view = this.#memory.view;
    assert(view.getUint32(at + HeaderAt.PAYLOAD_BYTES, true) === payloadBytes, "the header has the payload's length");
    assert(this.sent < SIZE_MAX, "the frame numbers last");
    writeUint64(view, at + HeaderAt.NUMBER, this.sent++);
    if (this.tagBytes === 0) return;
    const payloadTagAt = at + HEADER_BYTES;
    if (payloadBytes > 0) this.#tag(payloadAt, payloadBytes, payloadTagAt);
    else this.#memory.bytes.fill(0, payloadTagAt, payloadTagAt + this.tagBytes);
    this.#tag(at, HEADER_BYTES + this.tagBytes, payloadTagAt + this.tagBytes);
  }

  /**
   * Checks header tag, magic, number and zero byte of the frame whose prefix is at the arena offset, and remembers its
   * payload's tag.
   *
   * @returns 0 or a {@link ProtocolError}
   */
  openPrefix(at: number): number {
    const view = this.#memory.view;
    if (this.tagBytes > 0) {
      const headerTagAt = at + HEADER_BYTES + this.tagBytes;
      this.#tag(at, HEADER_BYTES + this.tagBytes, this.#scratchAt);
      const low = view.getUint32(headerTagAt, true);
      const high = view.getUint32(headerTagAt + 4, true);
      if (!this.#scratchIs(low, high)) {
        // Bytes that are of no frame at all are better named so.
        return view.getUint32(at, true) === FRAME_MAGIC ? ProtocolError.HEADER_TAG : ProtocolError.MAGIC;
      }
      this.#payloadTagLow = view.getUint32(at + HEADER_BYTES, true);
      this.#payloadTagHigh = view.getUint32(at + HEADER_BYTES + 4, true);
    }
    if (view.getUint32(at + HeaderAt.MAGIC, true) !== FRAME_MAGIC) return ProtocolError.MAGIC;
    const high = Math.floor(this.received / 0x1_0000_0000);
    if (
      view.getUint32(at + HeaderAt.NUMBER, true) !== this.received >>> 0 ||
      view.getUint32(at + HeaderAt.NUMBER + 4, true) !== high
    ) return ProtocolError.FRAME_NUMBER;
    if (this.#memory.bytes[at + HeaderAt.ZERO] !== 0) return ProtocolError.FIELD;
    if (
      view.getUint32(at + HeaderAt.PAYLOAD_BYTES, true) === 0 && this.tagBytes > 0 &&
      (this.#payloadTagLow | this.#payloadTagHigh) !== 0
    ) return ProtocolError.PAYLOAD_TAG;
    this.received++;
    return ProtocolError.NONE;
  }

  /**
   * Checks the payload of the frame opened last.
   *
   * @returns 0 or a {@link ProtocolError}
   */
  openPayload(payloadAt: number, payloadBytes: number): number {
    assert(payloadBytes > 0, "there is a payload");
    if (this.tagBytes === 0) return ProtocolError.NONE;
    this.#tag(payloadAt, payloadBytes, this.#scratchAt);
    return this.#scratchIs(this.#payloadTagLow, this.#payloadTagHigh) ? ProtocolError.NONE : ProtocolError.PAYLOAD_TAG;
  }

  #tag(at: number, bytes: number, outAt: number): void {
    if (this.#digest === Digest.XXH64) this.#digests.xxh64(at, bytes, outAt);
    else this.#digests.crc32c(at, bytes, outAt);
  }

  #scratchIs(low: number, high: number): boolean {
    const view = this.#memory.view;
    return view.getUint32(this.#scratchAt, true) === low && view.getUint32(this.#scratchAt + 4, true) === high;
  }
}
