/**
 * Checks of frames that have neither slot nor payload of their own: pings, notices, CLOSE (SPEC.md, sections 4 and 5).
 *
 * @module
 */
import type { Memory } from "./consumer.ts";
import {
  frameFlags,
  frameOffset,
  framePayloadBytes,
  frameSequence,
  frameSlot,
  frameStatus,
  HeaderAt,
  isZero64,
} from "./wire.ts";

/** Fields of a header that such a frame may use, a bit set. SLOT is slot and sequence. */
export const Field = { FLAGS: 1, SLOT: 2, OFFSET: 4, STATUS: 8 } as const;

/**
 * Whether all fields of the header but those named are zero; length and payload always are. An offset above 2^53 - 1
 * counts as wrong.
 *
 * @param at arena offset of the header
 * @param fields a {@link Field} set
 */
export function hasOnly(memory: Memory, at: number, fields: number): boolean {
  return ((fields & Field.FLAGS) !== 0 || frameFlags(memory, at) === 0) &&
    ((fields & Field.SLOT) !== 0 || (frameSlot(memory, at) | frameSequence(memory, at)) === 0) &&
    ((fields & Field.OFFSET) !== 0 ? frameOffset(memory, at) >= 0 : isZero64(memory.view, at + HeaderAt.OFFSET)) &&
    ((fields & Field.STATUS) !== 0 || frameStatus(memory, at) === 0) &&
    isZero64(memory.view, at + HeaderAt.LENGTH) && framePayloadBytes(memory, at) === 0;
}
