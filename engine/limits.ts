/**
 * How much memory everything takes, all of it when it is made: nothing is allocated for a request. Memory is counted in slots
 * (`slots.ts`), each of which has room for one request:
 *
 *     a slot = 4 KiB for a frame's prefix + 256 KiB for its payload                                    = 260 KiB
 *     a thread = its slots + 1 MiB, of which the core's tables and V8's rounding take a part           (threadBytes)
 *
 *     an attachment's lane, by ublk, of depth 128:
 *       128 requests: the tags of the device's queue are slots
 *     +   8 transmit area, into which what is encrypted goes from the slots (2 MiB, `transmit_area.ts`)
 *     +   9 copies: one FLUSH of its own, and 8 that are written again after a loss (`client/keeper.ts`)
 *     +   6 the session's own messages, two connections, two addresses, the last FLUSH                  = 151 slots, 39 MiB
 *     an attachment's lane, by NBD: 32 clients × (64 requests + 1 connection) instead of the 128       = 2103 slots, 535 MiB,
 *       of which only what was used is memory; the same for all that follow
 *     an attachment: its lanes, and the copies of what is not flushed (--replay-buffer, 64 MiB), over all lanes
 *
 *     an exporter's lane of depth 128: 128 requests + 1 for its own messages and its connection's frames = 129 slots, 33 MiB
 *     an exporter's Worker: 4096 slots, which are 31 such lanes with their connections, or 63 NBD clients      = 1041 MiB
 *     an exporter's door: 512 strangers + 64 who are told that there is no room + 448 who are known = 1024 slots, 261 MiB
 *
 * Beside the slots a thread has tables in V8's heap, of some bytes for each slot, stream and timer.
 *
 * @module
 */
import { SLOT_STRIDE_BYTES } from "./slots.ts";

/** What a thread's memory has beside its slots, in bytes: the core's own data are 116 KiB, the rest makes up whole slots. */
const OWN_BYTES = 1024 * 1024;

/** How large a thread's memory must be for so many slots, in bytes. It may come out with {@link SPARE_SLOTS} more. */
export function threadBytes(slots: number): number {
  return slots * SLOT_STRIDE_BYTES + OWN_BYTES;
}

/** How many slots at most a thread may have beyond those that it was made for. */
export const SPARE_SLOTS: number = Math.floor(OWN_BYTES / SLOT_STRIDE_BYTES);

/** Slots of an exporter's lane: one for each request that it grants at once, and one for the lane's own messages. */
export function exporterLaneSlots(depth: number): number {
  return depth + 1;
}
