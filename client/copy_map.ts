/**
 * Where a disk has data and where it is known to read as zeroes.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, EXTENT_BYTES, ExtentFlag, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { readUint64 } from "../protocol/wire.ts";

/** The longest range that is asked about at once: what is asked again for a fragmented disk stays small. */
const ASK_BYTES = 64 * 1024 * 1024 * 1024;

/** A disk's runs of data and zeroes, in order, each a multiple of a block. It has a slot of the engine of its own. */
export class SparseMap implements BlockClient {
  /** Where the run that {@link find} has found ends, in bytes. */
  runEnd = 0;
  /** Whether that run reads as zeroes. */
  isZero = false;
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #slots: Uint32Array;
  readonly #end: number;
  readonly #block: number;
  readonly #onKnown: () => void;
  /** The extent that was looked at last. */
  #from = 0;
  #to = 0;
  #zero = false;
  /** Extents not looked at, in the slot. */
  #at = 0;
  #left = 0;
  #isAsking = false;
  /** The disk does not say: all that follows is data. */
  #isUnknown = false;

  /**
   * @param end how far to look, in bytes: a multiple of the block
   * @param block runs begin and end at multiples of it, in bytes; a multiple of the disk's own
   * @param onKnown is called when {@link find} is to be tried again
   */
  constructor(engine: Engine, device: BlockDevice, end: number, block: number, onKnown: () => void) {
    const slots = engine.slots.reserve(1);
    if (slots === null) throw new RangeError("Cannot copy: there is no slot for the map");
    this.#engine = engine;
    this.#device = device;
    this.#slots = slots;
    this.#end = end;
    this.#block = block;
    this.#onKnown = onKnown;
  }

  /**
   * Finds the run that begins at a position: a multiple of the block, at or after the one before.
   *
   * @returns false when the disk has to be asked first: `onKnown` is called
   */
  find(position: number): boolean {
    for (;;) {
      if (this.#isUnknown) {
        this.runEnd = this.#end;
        this.isZero = false;
        return true;
      }
      if (position >= this.#from && position < this.#to) {
        const block = this.#block;
        const zeroEnd = this.#to - this.#to % block;
        this.isZero = this.#zero && zeroEnd > position;
        // A block that is partly data is data.
        this.runEnd = this.isZero ? zeroEnd : Math.min(this.#end, dataEnd(position, this.#to, block, this.#zero));
        return true;
      }
      if (this.#left > 0) {
        this.#next();
        continue;
      }
      if (!this.#ask(position)) return false;
    }
  }

  onComplete(_slot: number, status: number): void {
    this.#isAsking = false;
    this.#answered(status);
    this.#onKnown();
  }

  /** Gives the slot back. Nothing is being asked. */
  close(): void {
    this.#engine.slots.release(this.#slots);
  }

  /** Whether the disk is being asked. */
  get isBusy(): boolean {
    return this.#isAsking;
  }

  #ask(position: number): boolean {
    if (this.#isAsking) return false;
    const slot = this.#slots[0];
    // As the answer's first extent begins here.
    this.#to = position;
    this.#engine.slots.setRange(slot, position, Math.min(this.#end - position, ASK_BYTES));
    const status = this.#device.submit(slot, Operation.BLOCK_STATUS, 0, this);
    if (status === PENDING) {
      this.#isAsking = true;
      return false;
    }
    this.#answered(status);
    return true;
  }

  /** A disk that cannot say is read whole: should it have failed, reading says so. */
  #answered(status: number): void {
    const slot = this.#slots[0];
    if (status < 0 || this.#device.extentBytes(slot) < EXTENT_BYTES) {
      this.#isUnknown = true;
      return;
    }
    this.#at = this.#engine.slots.payloadAt(slot);
    this.#left = this.#device.extentBytes(slot);
  }

  #next(): void {
    const view = this.#engine.arena.view;
    this.#from = this.#to;
    this.#to = this.#from + readUint64(view, this.#at);
    this.#zero = (view.getUint32(this.#at + 8, true) & ExtentFlag.ZERO) !== 0;
    this.#at += EXTENT_BYTES;
    this.#left -= EXTENT_BYTES;
  }
}

/** Where data ends: the block that its last byte, or the first byte that shares a block with what follows, lies in. */
function dataEnd(position: number, to: number, block: number, isZero: boolean): number {
  return isZero ? position + block : Math.ceil(to / block) * block;
}
