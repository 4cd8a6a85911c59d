/**
 * Writes the replies of the transmission phase. Each lies so that it ends where the payload begins, so that header and
 * payload go out as one piece. Cookies are copied as two 32-bit halves.
 *
 * @module
 */
import type { Memory } from "../consumer.ts";
import { EXTENT_BYTES, ExtentFlag } from "../request.ts";
import { reasonError, reasonText } from "./reason.ts";
import {
  CHUNK_BYTES,
  CHUNK_ERROR_BYTES,
  CHUNK_OFFSET_BYTES,
  ChunkType,
  CONTEXT_ID_BYTES,
  DESCRIPTOR_BYTES,
  Magic,
  MINIMUM_BLOCK_BYTES_MAX,
  SIMPLE_REPLY_BYTES,
  StatusFlag,
} from "./wire.ts";

const TWO_TO_32 = 0x1_0000_0000;
/** The longest descriptor: the largest multiple of every minimum block size that 32 bits hold. */
const DESCRIPTOR_LENGTH_MAX = TWO_TO_32 - MINIMUM_BLOCK_BYTES_MAX;

/**
 * A simple reply that ends at `endAt`.
 *
 * @param error an `NbdError`, or 0
 * @returns where it begins
 */
export function writeSimpleReply(
  memory: Memory,
  endAt: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): number {
  const at = endAt - SIMPLE_REPLY_BYTES;
  const view = memory.view;
  view.setUint32(at, Magic.SIMPLE_REPLY);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  return at;
}

/**
 * The header of a structured reply chunk, at `at`.
 *
 * @param flags `CHUNK_DONE` or 0
 * @param type a `ChunkType`
 * @param bytes the length of what follows it
 */
export function writeChunk(
  memory: Memory,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  bytes: number,
): void {
  const view = memory.view;
  view.setUint32(at, Magic.STRUCTURED_REPLY);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, bytes);
}

/**
 * The header of an OFFSET_DATA chunk with the offset, for `bytes` of data that begin at `dataAt`.
 *
 * @returns where it begins
 */
export function writeDataChunk(
  memory: Memory,
  dataAt: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  bytes: number,
): number {
  const at = dataAt - CHUNK_BYTES - CHUNK_OFFSET_BYTES;
  writeChunk(memory, at, flags, ChunkType.OFFSET_DATA, cookieHigh, cookieLow, CHUNK_OFFSET_BYTES + bytes);
  writeU64(memory.view, at + CHUNK_BYTES, offset);
  return at;
}

/**
 * An error chunk with its text, ending at `endAt`.
 *
 * @param reason a `Reason`, not NONE
 * @param offset where in the export it happened, or -1: the request as a whole failed
 * @returns where it begins
 */
export function writeErrorChunk(
  memory: Memory,
  endAt: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  reason: number,
  offset: number,
): number {
  const text = reasonText(reason);
  const bytes = CHUNK_ERROR_BYTES + text.length + (offset < 0 ? 0 : CHUNK_OFFSET_BYTES);
  const at = endAt - CHUNK_BYTES - bytes;
  writeChunk(memory, at, flags, offset < 0 ? ChunkType.ERROR : ChunkType.ERROR_OFFSET, cookieHigh, cookieLow, bytes);
  memory.view.setUint32(at + CHUNK_BYTES, reasonError(reason));
  memory.view.setUint16(at + CHUNK_BYTES + 4, text.length);
  memory.bytes.set(text, at + CHUNK_BYTES + CHUNK_ERROR_BYTES);
  if (offset >= 0) writeU64(memory.view, endAt - CHUNK_OFFSET_BYTES, offset);
  return at;
}

/**
 * Turns extents (`protocol/request.ts`) into NBD descriptors, in place: a descriptor is half as long, so it never
 * overtakes what is still to be read. Neighbours of one status are merged. It ends with the descriptor that reaches
 * `wanted`, and early with one that 32 bits can't hold.
 *
 * @param at where the extents lie and the descriptors go
 * @param extentBytes how many bytes of extents there are
 * @param wanted the request's length, at least 1
 * @param available bytes from the request's offset to the end of the export
 * @param one the client wants one descriptor, no longer than `wanted`
 * @returns the bytes of descriptors; 0 when the extents say nothing
 */
export function convertExtents(
  memory: Memory,
  at: number,
  extentBytes: number,
  wanted: number,
  available: number,
  one: boolean,
): number {
  const view = memory.view;
  const end = at + extentBytes;
  const limit = one ? wanted : available;
  let to = at;
  let covered = 0;
  let runBytes = 0;
  let runFlags = 0;
  for (let from = at; from + EXTENT_BYTES <= end; from += EXTENT_BYTES) {
    const extent = view.getUint32(from, true) + view.getUint32(from + 4, true) * TWO_TO_32;
    const bytes = Math.min(extent, limit - covered - runBytes);
    if (bytes === 0) continue;
    const flags = statusOf(view.getUint32(from + 8, true));
    if (runBytes > 0 && flags !== runFlags) {
      to = writeDescriptor(view, to, runBytes, runFlags);
      covered += runBytes;
      runBytes = 0;
      if (one || covered >= wanted) break;
    }
    runFlags = flags;
    runBytes += bytes;
    if (runBytes > DESCRIPTOR_LENGTH_MAX) break;
  }
  if (runBytes > 0) to = writeDescriptor(view, to, Math.min(runBytes, DESCRIPTOR_LENGTH_MAX), runFlags);
  return to - at;
}

/**
 * The header of a BLOCK_STATUS chunk with the context's id, for `bytes` of descriptors that begin at `dataAt`.
 *
 * @returns where it begins
 */
export function writeStatusChunk(
  memory: Memory,
  dataAt: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  contextId: number,
  bytes: number,
): number {
  const at = dataAt - CHUNK_BYTES - CONTEXT_ID_BYTES;
  writeChunk(memory, at, flags, ChunkType.BLOCK_STATUS, cookieHigh, cookieLow, CONTEXT_ID_BYTES + bytes);
  memory.view.setUint32(at + CHUNK_BYTES, contextId);
  return at;
}

/** Writes a safe integer as 64 bits, big-endian. */
export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_TO_32));
  view.setUint32(at + 4, value >>> 0);
}

/** Reads 64 bits, big-endian. Exact up to 2^53; above, rounded, and never below 2^53. */
export function readU64(view: DataView, at: number): number {
  return view.getUint32(at) * TWO_TO_32 + view.getUint32(at + 4);
}

function statusOf(extentFlags: number): number {
  return ((extentFlags & ExtentFlag.HOLE) !== 0 ? StatusFlag.HOLE : 0) |
    ((extentFlags & ExtentFlag.ZERO) !== 0 ? StatusFlag.ZERO : 0);
}

function writeDescriptor(view: DataView, at: number, bytes: number, flags: number): number {
  view.setUint32(at, bytes);
  view.setUint32(at + 4, flags);
  return at + DESCRIPTOR_BYTES;
}
