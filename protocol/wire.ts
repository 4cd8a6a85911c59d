/**
 * Where things lie in a frame, and what they are: SPEC.md, sections 2, 4 and 5. Everything is little-endian.
 *
 * @module
 */
import type { Memory } from "./consumer.ts";
import { assert } from "./assert.ts";
import { SIZE_MAX } from "./limits.ts";

/** The one version that there is. */
export const VERSION = 1;

/** Bytes of a hello before its body, in both directions. */
export const HELLO_BYTES = 16;
/** Offsets within a hello. */
export const HelloAt = { MAGIC: 0, VERSION_LOW: 8, VERSION_HIGH: 10, BODY_BYTES: 12 } as const;
/** `DSTHELLO`, the magic of the client's hello, as two u32. */
export const HELLO_MAGIC = [0x48545344, 0x4f4c4c45] as const;
/** `DSTREPLY`, the magic of the exporter's answer, as two u32. */
export const HELLO_REPLY_MAGIC = [0x52545344, 0x594c5045] as const;

/** Bytes of the id of a key. */
export const KEY_ID_BYTES = 16;

/** Bytes of a frame's header, without tags. */
export const HEADER_BYTES = 48;
/** `DST1` in memory. */
export const FRAME_MAGIC = 0x31545344;
/** Bytes of the longest tag: BLAKE2b-256 and HMAC-SHA-256. */
export const TAG_BYTES_MAX = 32;
/** Bytes of the longest prefix: a header and two tags. */
export const PREFIX_BYTES_MAX = HEADER_BYTES + 2 * TAG_BYTES_MAX;

/** Offsets within a frame's header. */
export const HeaderAt = {
  MAGIC: 0,
  TYPE: 4,
  ZERO: 5,
  FLAGS: 6,
  SLOT: 8,
  LANE: 10,
  SEQUENCE: 12,
  OFFSET: 16,
  LENGTH: 24,
  PAYLOAD_BYTES: 32,
  STATUS: 36,
  NUMBER: 40,
} as const;

/** The types of a frame. Types 1 to 7 are the values of `Operation`. */
export const FrameType = {
  READ: 0x01,
  WRITE: 0x02,
  FLUSH: 0x03,
  DISCARD: 0x04,
  WRITE_ZEROES: 0x05,
  CACHE: 0x06,
  BLOCK_STATUS: 0x07,
  PING: 0x10,
  LIST: 0x20,
  DESCRIBE: 0x21,
  OPEN: 0x22,
  JOIN: 0x23,
  CLOSE: 0x24,
  RESIZED: 0x30,
  SHUTTING_DOWN: 0x31,
  FENCED: 0x32,
  FENCING: 0x33,
} as const;

/** The highest type that is a request: 8 to this are for later versions, and answered NOT_SUPPORTED. */
export const REQUEST_TYPE_MAX = 0x0f;
/** The reply to type t is t | REPLY. */
export const REPLY = 0x80;

/** Flag of a READ: the data must come in one reply, as in this version it always does. The others: `RequestFlag`. */
export const FLAG_DF = 8;
/** Flag of a PING: slot and sequence name a request. */
export const FLAG_PROBE = 1;
/** What the reply to a PING with FLAG_PROBE says in its status. */
export const ProbeState = { UNKNOWN: 0, EXECUTING: 1, DONE: 2 } as const;

/** The ciphers by number (SPEC.md, section 2). */
export const Cipher = { NONE: 0, CHACHA20_POLY1305: 1, AES_256_GCM: 2 } as const;
/** The digests by number (SPEC.md, section 2). */
export const Digest = { NONE: 0, CRC32C: 1, XXH64: 2, BLAKE2B_256: 3, HMAC_SHA_256: 4 } as const;

const TAG_BYTES = [0, 8, 8, 32, 32];

/** Bytes T of a tag under the digest, with cipher `none`; -1 for a number that is no digest. */
export function tagBytesOf(digest: number): number {
  return TAG_BYTES[digest] ?? -1;
}

/** Whether a digest can be keyed, and so be used where there is a key and no cipher. */
export function isKeyable(digest: number): boolean {
  return digest === Digest.BLAKE2B_256 || digest === Digest.HMAC_SHA_256;
}

/**
 * Reads a u64.
 *
 * @param at arena offset
 * @returns a safe integer, or -1 when it is above 2^53 - 1
 */
export function readUint64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  if (high > 0x1f_ffff) return -1;
  return high * 0x1_0000_0000 + view.getUint32(at, true);
}

/**
 * Writes a safe integer as a u64.
 *
 * @param at arena offset
 * @param value 0 to 2^53 - 1
 */
export function writeUint64(view: DataView, at: number, value: number): void {
  assert(value >= 0 && value <= SIZE_MAX, "a u64 is a safe integer");
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

/**
 * Writes a frame's header, all but the frame's number, which `FrameCodec.seal` writes.
 *
 * @param at arena offset of the header
 * @param offset bytes, a safe integer
 * @param length bytes, a safe integer
 */
export function writeHeader(
  memory: Memory,
  at: number,
  type: number,
  flags: number,
  slot: number,
  lane: number,
  sequence: number,
  offset: number,
  length: number,
  payloadBytes: number,
  status: number,
): void {
  const view = memory.view;
  view.setUint32(at + HeaderAt.MAGIC, FRAME_MAGIC, true);
  // Type, then the zero byte, which a type below 256 leaves zero.
  view.setUint16(at + HeaderAt.TYPE, type, true);
  view.setUint16(at + HeaderAt.FLAGS, flags, true);
  view.setUint16(at + HeaderAt.SLOT, slot, true);
  view.setUint16(at + HeaderAt.LANE, lane, true);
  view.setUint32(at + HeaderAt.SEQUENCE, sequence, true);
  writeUint64(view, at + HeaderAt.OFFSET, offset);
  writeUint64(view, at + HeaderAt.LENGTH, length);
  view.setUint32(at + HeaderAt.PAYLOAD_BYTES, payloadBytes, true);
  view.setUint32(at + HeaderAt.STATUS, status, true);
}

/**
 * Writes a header's offset and length, which are taken from arrays for the reason given at {@link frameRange}.
 *
 * @param at arena offset of the header
 * @param offsets bytes, safe integers
 * @param lengths bytes, safe integers
 * @param index which of them
 */
export function writeRange(
  memory: Memory,
  at: number,
  offsets: Float64Array,
  lengths: Float64Array,
  index: number,
): void {
  const view = memory.view;
  const offset = offsets[index];
  const length = lengths[index];
  assert(offset >= 0 && offset <= SIZE_MAX && length >= 0 && length <= SIZE_MAX, "a range has safe integers");
  view.setUint32(at + HeaderAt.OFFSET, offset >>> 0, true);
  view.setUint32(at + HeaderAt.OFFSET + 4, Math.floor(offset / 0x1_0000_0000), true);
  view.setUint32(at + HeaderAt.LENGTH, length >>> 0, true);
  view.setUint32(at + HeaderAt.LENGTH + 4, Math.floor(length / 0x1_0000_0000), true);
}

/** Whether a header's u64 at the arena offset is zero. */
export function isZero64(view: DataView, at: number): boolean {
  return (view.getUint32(at, true) | view.getUint32(at + 4, true)) === 0;
}

/** The type of the frame whose header is at the arena offset. */
export function frameType(memory: Memory, at: number): number {
  return memory.bytes[at + HeaderAt.TYPE];
}

/** The flags of the frame whose header is at the arena offset. */
export function frameFlags(memory: Memory, at: number): number {
  return memory.view.getUint16(at + HeaderAt.FLAGS, true);
}

/** The slot of the frame whose header is at the arena offset. */
export function frameSlot(memory: Memory, at: number): number {
  return memory.view.getUint16(at + HeaderAt.SLOT, true);
}

/** The lane of the frame whose header is at the arena offset. */
export function frameLane(memory: Memory, at: number): number {
  return memory.view.getUint16(at + HeaderAt.LANE, true);
}

/** The sequence of the frame whose header is at the arena offset. */
export function frameSequence(memory: Memory, at: number): number {
  return memory.view.getUint32(at + HeaderAt.SEQUENCE, true);
}

/** The offset field of the frame at the arena offset, or -1 when it is above 2^53 - 1. */
export function frameOffset(memory: Memory, at: number): number {
  return readUint64(memory.view, at + HeaderAt.OFFSET);
}

/** The length field of the frame at the arena offset, or -1 when it is above 2^53 - 1. */
export function frameLength(memory: Memory, at: number): number {
  return readUint64(memory.view, at + HeaderAt.LENGTH);
}

/**
 * Reads offset and length of the frame at the arena offset into `range`; -1 for one above 2^53 - 1. A number above 2^31
 * that is handed from function to function becomes an object each time, one in an array does not.
 *
 * @param range gets offset and length, in bytes
 */
export function frameRange(memory: Memory, at: number, range: Float64Array): void {
  range[0] = readUint64(memory.view, at + HeaderAt.OFFSET);
  range[1] = readUint64(memory.view, at + HeaderAt.LENGTH);
}

/** The bytes of payload of the frame whose header is at the arena offset. */
export function framePayloadBytes(memory: Memory, at: number): number {
  return memory.view.getUint32(at + HeaderAt.PAYLOAD_BYTES, true);
}

/** The status of the frame whose header is at the arena offset. */
export function frameStatus(memory: Memory, at: number): number {
  return memory.view.getUint32(at + HeaderAt.STATUS, true);
}
