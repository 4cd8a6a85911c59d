/**
 * The memory of the volatile layer: mutations in the order in which they were acknowledged.
 *
 * @module
 */
import { Operation } from "../block.ts";
import { Random } from "../random.ts";
import { SLOT_PAYLOAD_BYTES, type Slots } from "../slots.ts";

/** The smallest piece of a disk that is either written or not when power fails, in bytes. */
const SECTOR_BYTES = 512;

/**
 * A ring of mutations, numbered by a sequence that only grows, with their data in a ring of slots. Appending, retiring
 * and reading allocate nothing; {@link MutationLog.lose} does.
 */
export class MutationLog {
  readonly #slots: Slots;
  /** The slots that hold the data, filled one after the other. */
  readonly #dataSlots: Uint32Array;
  /** How many mutations have data in each of them. */
  readonly #live: Uint32Array;
  /** The one that is being filled, as an index of `#dataSlots`, and how far. */
  #filling = 0;
  #filledBytes = 0;
  readonly #tearBytes: number;
  /** How many mutations are taken; the arrays have twice the room, because tearing makes several of one. */
  readonly #limit: number;
  readonly #operations: Uint8Array;
  readonly #flags: Uint8Array;
  /** 1: survived a loss and cannot be lost again. */
  readonly #survived: Uint8Array;
  readonly #offsets: Float64Array;
  readonly #lengths: Float64Array;
  /** Index of `#dataSlots` and offset in its payload. */
  readonly #dataIn: Uint32Array;
  readonly #dataAt: Uint32Array;
  /** The sequence of the oldest mutation. */
  first = 0;
  /** The sequence that the next mutation will have. */
  end = 0;

  /**
   * @param slots the Worker's slots
   * @param dataSlots those that hold the data, at least one
   * @param tearBytes a mutation is torn at multiples of this only: the sector, or the disk's larger logical block
   */
  constructor(slots: Slots, dataSlots: Uint32Array, tearBytes: number) {
    this.#slots = slots;
    this.#dataSlots = dataSlots;
    this.#live = new Uint32Array(dataSlots.length);
    this.#tearBytes = tearBytes;
    this.#limit = dataSlots.length * (SLOT_PAYLOAD_BYTES / SECTOR_BYTES);
    const room = 2 * this.#limit;
    this.#operations = new Uint8Array(room);
    this.#flags = new Uint8Array(room);
    this.#survived = new Uint8Array(room);
    this.#offsets = new Float64Array(room);
    this.#lengths = new Float64Array(room);
    this.#dataIn = new Uint32Array(room);
    this.#dataAt = new Uint32Array(room);
  }

  /** Offset on the disk of the mutation with that sequence, in bytes. */
  offsetOf(sequence: number): number {
    return this.#offsets[this.#index(sequence)];
  }

  /** Length of the mutation with that sequence, in bytes. */
  lengthOf(sequence: number): number {
    return this.#lengths[this.#index(sequence)];
  }

  /** Flags of the mutation with that sequence. */
  flagsOf(sequence: number): number {
    return this.#flags[this.#index(sequence)];
  }

  /**
   * Takes a mutation.
   *
   * @param from where in the arena the data of a WRITE lies
   * @returns false: there is no room, retire the oldest first
   */
  append(operation: number, offset: number, length: number, flags: number, from: number): boolean {
    if (this.end - this.first >= this.#limit) return false;
    const index = this.#index(this.end);
    if (operation === Operation.WRITE) {
      if (!this.#makeRoom(length)) return false;
      this.#dataIn[index] = this.#filling;
      this.#dataAt[index] = this.#filledBytes;
      this.#live[this.#filling]++;
      this.#slots.arena.bytes.copyWithin(this.#dataPosition(index), from, from + length);
      this.#filledBytes += length;
    }
    this.#operations[index] = operation;
    this.#flags[index] = flags;
    this.#survived[index] = 0;
    this.#offsets[index] = offset;
    this.#lengths[index] = length;
    this.end++;
    return true;
  }

  /** Copies the oldest mutation's data to the arena offset, and answers its operation. */
  loadOldest(to: number): number {
    const index = this.#index(this.first);
    if (this.#operations[index] === Operation.WRITE) {
      const from = this.#dataPosition(index);
      this.#slots.arena.bytes.copyWithin(to, from, from + this.#lengths[index]);
    }
    return this.#operations[index];
  }

  /** Forgets the oldest mutation. */
  retireOldest(): void {
    const index = this.#index(this.first);
    if (this.#operations[index] === Operation.WRITE) this.#live[this.#dataIn[index]]--;
    this.first++;
  }

  /** The sequence after the newest mutation that overlaps the range; `first` or less when none does. */
  overlapEnd(offset: number, length: number): number {
    for (let sequence = this.end - 1; sequence >= this.first; sequence--) {
      if (this.#overlaps(this.#index(sequence), offset, length)) return sequence + 1;
    }
    return this.first;
  }

  /** How many bytes from `offset` on, at most `length`, no mutation touches. */
  freeFrom(offset: number, length: number): number {
    let free = length;
    for (let sequence = this.first; sequence < this.end; sequence++) {
      const index = this.#index(sequence);
      if (this.#overlaps(index, offset, free)) free = Math.max(0, this.#offsets[index] - offset);
    }
    return free;
  }

  /** How many bytes from `offset` on, at most `length`, one mutation covers. */
  coveredFrom(offset: number, length: number): number {
    let covered = 0;
    for (let sequence = this.first; sequence < this.end; sequence++) {
      const index = this.#index(sequence);
      if (this.#offsets[index] > offset) continue;
      covered = Math.max(covered, this.#offsets[index] + this.#lengths[index] - offset);
    }
    return Math.min(covered, length);
  }

  /** Puts what is cached of the range over what was read from the disk to arena offset `to`. */
  overlay(offset: number, length: number, to: number): void {
    const bytes = this.#slots.arena.bytes;
    for (let sequence = this.first; sequence < this.end; sequence++) {
      const index = this.#index(sequence);
      if (!this.#overlaps(index, offset, length)) continue;
      const start = Math.max(offset, this.#offsets[index]);
      const end = Math.min(offset + length, this.#offsets[index] + this.#lengths[index]);
      const target = to + start - offset;
      if (this.#operations[index] === Operation.WRITE) {
        const from = this.#dataPosition(index) + start - this.#offsets[index];
        bytes.copyWithin(target, from, from + end - start);
      } else if (this.#operations[index] === Operation.WRITE_ZEROES) {
        bytes.fill(0, target, target + end - start);
      } // What a discarded range reads as is anybody's until it is written again: here, what it was.
    }
  }

  /**
   * Loses all (seed null), or a repeatable choice of what has not survived an earlier loss: of three mutations one is
   * lost, one survives whole and one is torn at sectors. Zeroed and discarded ranges are torn once, at their end.
   */
  lose(seed: number | null): void {
    const random = seed === null ? null : new Random(seed);
    const kept: { index: number; from: number; length: number }[] = [];
    for (let sequence = this.first; sequence < this.end; sequence++) {
      const index = this.#index(sequence);
      const length = this.#lengths[index];
      if (this.#survived[index] === 1) kept.push({ index, from: 0, length });
      else if (random !== null) this.#tear(index, random, kept);
    }
    this.#rebuild(kept);
  }

  #tear(index: number, random: Random, kept: { index: number; from: number; length: number }[]): void {
    const length = this.#lengths[index];
    const fate = random.below(3);
    if (fate === 0) return;
    if (fate === 1) {
      kept.push({ index, from: 0, length });
      return;
    }
    if (this.#operations[index] !== Operation.WRITE) {
      const survivors = random.below(Math.floor(length / this.#tearBytes) + 1) * this.#tearBytes;
      if (survivors > 0) kept.push({ index, from: 0, length: survivors });
      return;
    }
    let runFrom = -1;
    for (let at = 0; at < length; at += this.#tearBytes) {
      const survives = random.below(2) === 1;
      if (survives && runFrom < 0) runFrom = at;
      if (!survives && runFrom >= 0) {
        kept.push({ index, from: runFrom, length: at - runFrom });
        runFrom = -1;
      }
    }
    if (runFrom >= 0) kept.push({ index, from: runFrom, length: length - runFrom });
  }

  /** Makes the log consist of pieces of its mutations, all of them survivors. The data stay where they are. */
  #rebuild(kept: { index: number; from: number; length: number }[]): void {
    const operations = this.#operations.slice();
    const flags = this.#flags.slice();
    const offsets = this.#offsets.slice();
    const dataIn = this.#dataIn.slice();
    const dataAt = this.#dataAt.slice();
    this.#live.fill(0);
    this.first = this.end;
    for (const { index, from, length } of kept) {
      const target = this.#index(this.end++);
      this.#operations[target] = operations[index];
      this.#flags[target] = flags[index];
      this.#survived[target] = 1;
      this.#offsets[target] = offsets[index] + from;
      this.#lengths[target] = length;
      this.#dataIn[target] = dataIn[index];
      this.#dataAt[target] = dataAt[index] + from;
      if (operations[index] === Operation.WRITE) this.#live[dataIn[index]]++;
    }
  }

  /** Finds `length` free bytes for data; they begin at `#filledBytes` of `#filling`. */
  #makeRoom(length: number): boolean {
    if (this.#live[this.#filling] === 0) this.#filledBytes = 0;
    if (this.#filledBytes + length <= SLOT_PAYLOAD_BYTES) return true;
    const next = (this.#filling + 1) % this.#dataSlots.length;
    if (this.#live[next] !== 0) return false;
    this.#filling = next;
    this.#filledBytes = 0;
    return true;
  }

  #overlaps(index: number, offset: number, length: number): boolean {
    return this.#offsets[index] < offset + length && offset < this.#offsets[index] + this.#lengths[index];
  }

  #dataPosition(index: number): number {
    return this.#slots.payloadAt(this.#dataSlots[this.#dataIn[index]]) + this.#dataAt[index];
  }

  #index(sequence: number): number {
    return sequence % this.#operations.length;
  }
}
