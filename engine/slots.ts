/**
 * The slots of one Worker: equal pieces of its one memory, each holding the payload of one request, with room for a
 * frame's prefix before it. The kernel, the digests and the cipher all work on these bytes in place.
 *
 * @module
 */
import type { Memory } from "../protocol/consumer.ts";

/** Bytes before a slot's payload: a page, so that the payload is page-aligned for O_DIRECT and ublk. */
export const SLOT_PREFIX_BYTES = 4096;
/** The payload area of a slot: the largest READ or WRITE that fits a slot. Large enough that a request's fixed cost
 * vanishes (2.8 GB/s measured at this size), small enough for the second-level cache. */
export const SLOT_PAYLOAD_BYTES = 256 * 1024;
/** From one slot to the next. */
export const SLOT_STRIDE_BYTES = SLOT_PREFIX_BYTES + SLOT_PAYLOAD_BYTES;

/** A Worker's memory: fixed in size and place from start to end. */
export interface Arena extends Memory {
  /** The absolute address of offset 0, page-aligned, below 2^47. */
  readonly address: number;
  /** Offset of the first byte that is free for slots, page-aligned. */
  readonly freeFrom: number;
}

/** The slot table of a Worker: which slots there are, and which are reserved. */
export class Slots {
  readonly count: number;
  /** The range of each slot's request, in bytes of the disk: see {@link setRange}. */
  readonly offset: Float64Array;
  readonly length: Float64Array;
  /** The memory that the slots are pieces of. */
  readonly arena: Arena;
  readonly #free: Uint32Array;
  #freeCount: number;

  /** Divides all of the arena from `freeFrom` on into slots. */
  constructor(arena: Arena) {
    this.arena = arena;
    this.count = Math.floor((arena.bytes.length - arena.freeFrom) / SLOT_STRIDE_BYTES);
    if (this.count < 1) throw new RangeError("Cannot make slots: the memory is smaller than one slot");
    this.offset = new Float64Array(this.count);
    this.length = new Float64Array(this.count);
    this.#free = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) this.#free[i] = this.count - 1 - i;
    this.#freeCount = this.count;
  }

  /** How many slots nobody has reserved. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** Arena offset of the slot's payload area; its prefix area ends there. */
  payloadAt(slot: number): number {
    return this.arena.freeFrom + slot * SLOT_STRIDE_BYTES + SLOT_PREFIX_BYTES;
  }

  /** Says which range of the disk the slot's next request is about. Safe integers. */
  setRange(slot: number, offset: number, length: number): void {
    this.offset[slot] = offset;
    this.length[slot] = length;
  }

  /** Absolute address of the slot's payload area. */
  payloadAddress(slot: number): number {
    return this.arena.address + this.payloadAt(slot);
  }

  /** Reserves slots for one owner, or none at all when there are too few: then null. */
  reserve(count: number): Uint32Array | null {
    if (count > this.#freeCount) return null;
    this.#freeCount -= count;
    return this.#free.slice(this.#freeCount, this.#freeCount + count);
  }

  /** Gives reserved slots back. Nothing may be under way in them. */
  release(slots: Uint32Array): void {
    this.#free.set(slots, this.#freeCount);
    this.#freeCount += slots.length;
  }
}
