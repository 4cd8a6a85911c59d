/**
 * Where a client seals payloads to, since it keeps their plaintext until the reply: a few slots of the Worker, used in
 * turn.
 *
 * @module
 */
import type { TransmitRoom } from "../protocol/frame_sender.ts";
import { SLOT_PREFIX_BYTES, SLOT_STRIDE_BYTES, type Slots } from "./slots.ts";

/** Payloads lie at multiples of this, with the prefix at the end of the page before. */
const PAGE_BYTES = SLOT_PREFIX_BYTES;
/** A slot has room for one payload of its own size. */
const SLOT_PAGES = SLOT_STRIDE_BYTES / PAGE_BYTES;
/** The least that a payload takes: the page of its prefix, and one of its own. */
const PIECE_PAGES_MIN = 2;
/**
 * Slots of the area of a deep lane: 2 MiB, which the kernel takes in about a millisecond. Bytes are here from the sealing
 * until the kernel has them, not until the reply.
 */
const SLOTS_MAX = 8;

/** How many slots the area of a lane should have. */
export function transmitSlots(depth: number): number {
  // One is filled while another is sent.
  return Math.min(SLOTS_MAX, Math.max(2, depth));
}

/** Room for payloads in slots of the Worker: given in order, and given back in the same order. */
export class TransmitArea implements TransmitRoom {
  /** The slots that it lies in. They are whoever's who reserved them. */
  readonly slots: Uint32Array;
  readonly #slotAt: Float64Array;
  readonly #pages: number;
  /** Pages of each payload that is there, with those that were left out before it: a ring. */
  readonly #taken: Uint16Array;
  #first = 0;
  #count = 0;
  /** The page that is given next, and how many are taken. */
  #next = 0;
  #used = 0;

  /** @param reserved slots that nobody else uses */
  constructor(slots: Slots, reserved: Uint32Array) {
    this.slots = reserved;
    this.#slotAt = Float64Array.from(reserved, (slot) => slots.payloadAt(slot) - SLOT_PREFIX_BYTES);
    this.#pages = reserved.length * SLOT_PAGES;
    this.#taken = new Uint16Array(Math.floor(this.#pages / PIECE_PAGES_MIN));
  }

  /** Room for the payload of a slot at most; see `TransmitRoom`. */
  take(payloadBytes: number): number {
    const pages = 1 + Math.ceil(payloadBytes / PAGE_BYTES);
    if (pages > SLOT_PAGES) throw new RangeError(`Cannot make room for ${payloadBytes} bytes: a slot is smaller`);
    // From the beginning, whose bytes the processor still has at hand.
    if (this.#used === 0) this.#next = 0;
    const inSlot = this.#next % SLOT_PAGES;
    const skipped = inSlot + pages > SLOT_PAGES ? SLOT_PAGES - inSlot : 0;
    if (this.#used + skipped + pages > this.#pages) return -1;
    const page = (this.#next + skipped) % this.#pages;
    this.#next = (page + pages) % this.#pages;
    this.#used += skipped + pages;
    this.#taken[(this.#first + this.#count) % this.#taken.length] = skipped + pages;
    this.#count++;
    return this.#slotAt[Math.floor(page / SLOT_PAGES)] + (page % SLOT_PAGES + 1) * PAGE_BYTES;
  }

  giveBack(): void {
    if (this.#count === 0) throw new Error("Cannot give room back: none is taken");
    this.#used -= this.#taken[this.#first];
    this.#first = (this.#first + 1) % this.#taken.length;
    this.#count--;
  }

  clear(): void {
    this.#count = 0;
    this.#used = 0;
  }
}
