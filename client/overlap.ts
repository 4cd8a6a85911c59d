/**
 * Which mutations of a session are under way, on any of its lanes, so that none is sent while one that overlaps it is
 * unacknowledged (SPEC.md, section 7). Apart from a few counters the only state that the lanes' threads share.
 *
 * @module
 */
import { lock, unlock } from "./spin_lock.ts";

/** Words at the beginning of the memory: the lock, and how many entries there are. */
const Word = { LOCK: 0, COUNT: 1 } as const;
/** Bytes before the columns: the two words, and the order that the next entry gets. */
const HEAD_BYTES = 16;
/** Bytes of an entry over all columns: three numbers and two words. */
const ENTRY_BYTES = 3 * 8 + 2 * 4;

/** How many bytes a table needs for so many entries. */
export function overlapBytes(entries: number): number {
  return HEAD_BYTES + entries * ENTRY_BYTES;
}

/** What a session asks of the table. A test may put something else in its place. */
export interface Overlaps {
  /**
   * Enters the mutation of a slot, after all that are in the table.
   *
   * @param offset by slot, in bytes
   * @param length by slot, in bytes
   * @returns whether none that is in the table overlaps it: it may be sent
   */
  enter(slot: number, offset: Float64Array, length: Float64Array): boolean;
  /** Whether the slot's mutation may be sent: none that overlaps it was entered before and is there still. */
  isClear(slot: number): boolean;
  /** The slot's mutation is acknowledged, or was given up. */
  leave(slot: number): void;
}

/**
 * One thread's view of the table. Entries are in no order, but each knows its place in the order in which they came: an
 * entry waits for those before it that it overlaps, so that all of them are sent in the order in which they were asked
 * for. Nothing is allocated by any call.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const table = new OverlapTable(new SharedArrayBuffer(overlapBytes(2)), 0);
 * const [offset, length] = [Float64Array.of(0, 4096), Float64Array.of(8192, 512)];
 * assert.equal(table.enter(0, offset, length), true);
 * assert.equal(table.enter(1, offset, length), false);
 * table.leave(0);
 * assert.equal(table.isClear(1), true);
 * ```
 */
export class OverlapTable implements Overlaps {
  readonly #words: Int32Array;
  readonly #nextOrder: Float64Array;
  readonly #start: Float64Array;
  readonly #end: Float64Array;
  readonly #order: Float64Array;
  /** Whose entry it is: a slot, counted over all lanes. */
  readonly #owner: Int32Array;
  /** By owner: where its entry is, counted from 1; 0: it has none. */
  readonly #place: Int32Array;
  readonly #base: number;

  /**
   * @param memory {@link overlapBytes} for the slots of all lanes, zero at first
   * @param base how many of them belong to the lanes before this one
   */
  constructor(memory: SharedArrayBuffer, base: number) {
    const entries = Math.floor((memory.byteLength - HEAD_BYTES) / ENTRY_BYTES);
    let at = HEAD_BYTES;
    const numbers = () => {
      const column = new Float64Array(memory, at, entries);
      at += column.byteLength;
      return column;
    };
    const words = () => {
      const column = new Int32Array(memory, at, entries);
      at += column.byteLength;
      return column;
    };
    this.#words = new Int32Array(memory, 0, 2);
    this.#nextOrder = new Float64Array(memory, 8, 1);
    this.#start = numbers();
    this.#end = numbers();
    this.#order = numbers();
    this.#owner = words();
    this.#place = words();
    this.#base = base;
  }

  enter(slot: number, offset: Float64Array, length: Float64Array): boolean {
    const owner = this.#base + slot;
    if (this.#place[owner] !== 0) throw new Error(`Slot ${slot} has a mutation under way already`);
    lock(this.#words, Word.LOCK);
    const index = this.#words[Word.COUNT]++;
    this.#start[index] = offset[slot];
    this.#end[index] = offset[slot] + length[slot];
    this.#order[index] = this.#nextOrder[0]++;
    this.#owner[index] = owner;
    this.#place[owner] = index + 1;
    const isClear = this.#isFirst(index);
    unlock(this.#words, Word.LOCK);
    return isClear;
  }

  isClear(slot: number): boolean {
    lock(this.#words, Word.LOCK);
    const isClear = this.#isFirst(this.#place[this.#base + slot] - 1);
    unlock(this.#words, Word.LOCK);
    return isClear;
  }

  leave(slot: number): void {
    const owner = this.#base + slot;
    if (this.#place[owner] === 0) throw new Error(`Slot ${slot} has no mutation under way`);
    lock(this.#words, Word.LOCK);
    const index = this.#place[owner] - 1;
    const last = --this.#words[Word.COUNT];
    this.#start[index] = this.#start[last];
    this.#end[index] = this.#end[last];
    this.#order[index] = this.#order[last];
    this.#owner[index] = this.#owner[last];
    this.#place[this.#owner[index]] = index + 1;
    this.#place[owner] = 0;
    unlock(this.#words, Word.LOCK);
  }

  /** Whether no entry before this one overlaps it. */
  #isFirst(index: number): boolean {
    const count = this.#words[Word.COUNT];
    const start = this.#start[index];
    const end = this.#end[index];
    const order = this.#order[index];
    for (let i = 0; i < count; i++) {
      if (this.#start[i] < end && this.#end[i] > start && this.#order[i] < order) return false;
    }
    return true;
  }
}
