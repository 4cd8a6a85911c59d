/**
 * Copies of mutations that were acknowledged and that no FLUSH has covered: what is written again when the exporter loses
 * its memory (SPEC.md, section 7, "Replay").
 *
 * @module
 */
import { Operation, RequestFlag } from "../engine/block.ts";
import type { Slots } from "../engine/slots.ts";
import { Copier } from "../ffi/copier.ts";
import type { MutationLedger } from "./ledger.ts";
import { lock, unlock } from "./spin_lock.ts";

/** Words of a lane, and how many they are: a line of the processor's cache, so that lanes do not get in each other's way. */
const Word = { LOCK: 0, FIRST: 1, COUNT: 2, USED: 3 } as const;
const LANE_WORDS = 16;
/** Bytes of an entry over all columns: two numbers and three words. */
const ENTRY_BYTES = 2 * 8 + 3 * 4;
/** So much payload takes one entry, on the average, before entries are what is short: small writes are 512 bytes or more. */
const BYTES_OF_ENTRY = 1024;
/** Where the flags begin in an entry's word of operation and flags. */
const FLAGS_SHIFT = 8;

/** The least that a lane's copies may take, in bytes: several of the longest writes. */
export const REPLAY_BYTES_OF_LANE_MIN = 1024 * 1024;
/** The most, so that every place in them is a small integer of the JavaScript engine. */
export const REPLAY_BYTES_MAX = 1024 * 1024 * 1024;

/** How much room the copies of a session's lanes have. It can be sent to another thread. */
export interface ReplayRoom {
  readonly memory: SharedArrayBuffer;
  readonly lanes: number;
  /** For payload, of each lane. */
  readonly bytesOfLane: number;
}

/**
 * Makes room.
 *
 * @param bytes for payload, of all lanes together; each gets the same, and at least `leastOfLane`
 * @param leastOfLane room for the longest WRITE at least
 */
export function makeReplayRoom(lanes: number, bytes: number, leastOfLane = REPLAY_BYTES_OF_LANE_MIN): ReplayRoom {
  const share = Math.floor(bytes / lanes / BYTES_OF_ENTRY) * BYTES_OF_ENTRY;
  const bytesOfLane = Math.max(leastOfLane, share);
  const ofLane = LANE_WORDS * 4 + bytesOfLane / BYTES_OF_ENTRY * ENTRY_BYTES + bytesOfLane;
  return { memory: new SharedArrayBuffer(lanes * ofLane), lanes, bytesOfLane };
}

/** What all threads of a session see of the copies: a ring of entries for each lane, and a ring of their payload. */
export class ReplayMemory {
  readonly lanes: number;
  /** Payload that each lane has room for. */
  readonly bytesOfLane: number;
  /** Entries that each lane has room for. */
  readonly entriesOfLane: number;
  /** @ignore by lane, {@link LANE_WORDS} each */
  readonly words: Int32Array;
  // By entry, all of lane 0 first.
  /** @ignore of the disk, in bytes */
  readonly offset: Float64Array;
  /** @ignore of the disk, in bytes */
  readonly length: Float64Array;
  /** @ignore its place in the order of the session, by the ledger's count */
  readonly order: Int32Array;
  /** @ignore where its payload begins in its lane's */
  readonly at: Int32Array;
  /** @ignore operation, and flags from {@link FLAGS_SHIFT} on */
  readonly what: Int32Array;
  /** @ignore of all lanes */
  readonly payload: Uint8Array<SharedArrayBuffer>;

  constructor({ memory, lanes, bytesOfLane }: ReplayRoom) {
    const entriesOfLane = bytesOfLane / BYTES_OF_ENTRY;
    const entries = lanes * entriesOfLane;
    let at = lanes * LANE_WORDS * 4;
    const words = () => {
      const column = new Int32Array(memory, at, entries);
      at += column.byteLength;
      return column;
    };
    this.lanes = lanes;
    this.bytesOfLane = bytesOfLane;
    this.entriesOfLane = entriesOfLane;
    this.words = new Int32Array(memory, 0, lanes * LANE_WORDS);
    this.offset = new Float64Array(memory, at, entries);
    at += this.offset.byteLength;
    this.length = new Float64Array(memory, at, entries);
    at += this.length.byteLength;
    this.order = words();
    this.at = words();
    this.what = words();
    this.payload = new Uint8Array(memory, at, lanes * bytesOfLane);
  }

  /** Payload that is kept, in bytes: over all lanes. */
  get usedBytes(): number {
    let used = 0;
    for (let lane = 0; lane < this.lanes; lane++) used += Atomics.load(this.words, lane * LANE_WORDS + Word.USED);
    return used;
  }

  // What follows is for when copies are needed, and makes garbage.

  /** Waits until no lane is adding or removing an entry. */
  freeze(): void {
    for (let lane = 0; lane < this.lanes; lane++) {
      lock(this.words, lane * LANE_WORDS + Word.LOCK);
      unlock(this.words, lane * LANE_WORDS + Word.LOCK);
    }
  }

  /**
   * The entries of all lanes that are not covered, in the order of the session: what {@link load} and the like are given.
   *
   * @param covered of the ledger's count
   */
  uncovered(covered: number): Uint32Array {
    const places: number[] = [];
    for (let lane = 0; lane < this.lanes; lane++) {
      const first = Atomics.load(this.words, lane * LANE_WORDS + Word.FIRST);
      const count = Atomics.load(this.words, lane * LANE_WORDS + Word.COUNT);
      for (let i = 0; i < count; i++) {
        const place = lane * this.entriesOfLane + (first + i) % this.entriesOfLane;
        if (((this.order[place] - covered) | 0) > 0) places.push(place);
      }
    }
    return this.inOrder(Uint32Array.from(places), covered);
  }

  /** Puts entries in the order of the session, those first that come next after `covered`. */
  inOrder(places: Uint32Array, covered: number): Uint32Array {
    return places.sort((a, b) => ((this.order[a] - covered) | 0) - ((this.order[b] - covered) | 0));
  }

  operationOf(place: number): number {
    return this.what[place] & (1 << FLAGS_SHIFT) - 1;
  }

  flagsOf(place: number): number {
    return this.what[place] >>> FLAGS_SHIFT;
  }

  /** How much payload the entry has, in bytes. */
  bytesOf(place: number): number {
    return this.operationOf(place) === Operation.WRITE ? this.length[place] : 0;
  }

  /** Copies the payload of an entry to an offset of a memory. */
  load(place: number, bytes: Uint8Array, to: number): void {
    const base = Math.floor(place / this.entriesOfLane) * this.bytesOfLane;
    const length = this.bytesOf(place);
    const at = this.at[place];
    const head = Math.min(length, this.bytesOfLane - at);
    bytes.set(this.payload.subarray(base + at, base + at + head), to);
    bytes.set(this.payload.subarray(base, base + length - head), to + head);
  }
}

/**
 * The copies of one lane, as its thread sees them: the only one that adds to them or removes from them. Nothing is allocated
 * by any call.
 *
 * What is to be kept has its room reserved before it is sent, since nothing can be put off once it is acknowledged.
 */
export class ReplayLog {
  /** The durability epoch that the lane lives in, by the ledger's count. What was acknowledged in another one is not taken. */
  epochs = 0;
  readonly #memory: ReplayMemory;
  readonly #ledger: MutationLedger;
  readonly #slots: Slots;
  readonly #copier: Copier;
  /** The lane's first word, first entry, and first byte of payload. */
  readonly #wordsAt: number;
  readonly #entriesAt: number;
  readonly #payloadAt: number;
  /** Where the next payload goes. */
  #head = 0;
  #usedBytes = 0;
  #usedEntries = 0;
  #reservedBytes = 0;
  #reservedEntries = 0;

  constructor(memory: ReplayMemory, lane: number, slots: Slots, ledger: MutationLedger) {
    this.#memory = memory;
    this.#ledger = ledger;
    this.#slots = slots;
    this.#copier = new Copier(memory.payload, slots.arena.bytes);
    this.#wordsAt = lane * LANE_WORDS;
    this.#entriesAt = lane * memory.entriesOfLane;
    this.#payloadAt = lane * memory.bytesOfLane;
  }

  /** Whether so much is kept that it is time for a FLUSH: half of what there is room for. */
  get isHigh(): boolean {
    return 2 * this.#usedBytes >= this.#memory.bytesOfLane || 2 * this.#usedEntries >= this.#memory.entriesOfLane;
  }

  /** Whether nothing is kept. */
  get isEmpty(): boolean {
    return this.#usedEntries === 0;
  }

  /** Sets room aside, if there is that much. */
  reserve(bytes: number, entries: number): boolean {
    if (!this.#hasRoom(bytes, entries)) {
      this.trim();
      if (!this.#hasRoom(bytes, entries)) return false;
    }
    this.#reservedBytes += bytes;
    this.#reservedEntries += entries;
    return true;
  }

  /** Gives room back that was set aside. */
  giveBack(bytes: number, entries: number): void {
    this.#reservedBytes -= bytes;
    this.#reservedEntries -= entries;
  }

  /** Whether a mutation with these flags is kept: each, also one that is on stable storage by itself, for the order's sake. */
  keeps(_flags: number): boolean {
    return true;
  }

  /**
   * The mutation in a slot, or a part of it, was acknowledged. Uses up room that was set aside: one entry, and the payload.
   *
   * @param skip where the part begins, in bytes from the beginning of a WRITE; else 0
   * @param part how long it is, in bytes; of a WRITE alone
   * @returns false, and keeps nothing, when the durability epoch is over in which that was
   */
  append(slot: number, operation: number, flags: number, skip: number, part: number): boolean {
    const memory = this.#memory;
    const { words } = memory;
    const wordsAt = this.#wordsAt;
    lock(words, wordsAt + Word.LOCK);
    if (this.#ledger.epochs !== this.epochs) {
      unlock(words, wordsAt + Word.LOCK);
      return false;
    }
    const isWrite = operation === Operation.WRITE;
    const bytes = isWrite ? part : 0;
    this.giveBack(bytes, 1);
    if (this.keeps(flags)) {
      const count = words[wordsAt + Word.COUNT];
      const place = this.#entriesAt + (words[wordsAt + Word.FIRST] + count) % memory.entriesOfLane;
      memory.order[place] = this.#ledger.acknowledge((flags & RequestFlag.FUA) !== 0);
      memory.offset[place] = this.#slots.offset[slot] + skip;
      memory.length[place] = isWrite ? part : this.#slots.length[slot];
      memory.at[place] = this.#head;
      memory.what[place] = operation | flags << FLAGS_SHIFT;
      if (isWrite) this.#copy(this.#slots.payloadAt(slot) + skip, part);
      words[wordsAt + Word.COUNT] = count + 1;
      this.#usedEntries++;
      this.#usedBytes += bytes;
      words[wordsAt + Word.USED] = this.#usedBytes;
    }
    unlock(words, wordsAt + Word.LOCK);
    return true;
  }

  /**
   * The FLUSH of that mark has succeeded.
   *
   * @returns false, and counts nothing, when the durability epoch is over in which that was
   */
  cover(mark: number): boolean {
    const { words } = this.#memory;
    lock(words, this.#wordsAt + Word.LOCK);
    const counts = this.#ledger.epochs === this.epochs;
    if (counts) this.#ledger.cover(mark);
    unlock(words, this.#wordsAt + Word.LOCK);
    return counts;
  }

  /** Removes what is covered. */
  trim(): void {
    if (this.#usedEntries === 0) return;
    const memory = this.#memory;
    const { words } = memory;
    const wordsAt = this.#wordsAt;
    const covered = this.#ledger.covered;
    lock(words, wordsAt + Word.LOCK);
    // Somebody may be about to read what is kept.
    if (this.#ledger.epochs === this.epochs) {
      let first = words[wordsAt + Word.FIRST];
      while (this.#usedEntries > 0) {
        const place = this.#entriesAt + first;
        if (((covered - memory.order[place]) | 0) < 0) break;
        if ((memory.what[place] & (1 << FLAGS_SHIFT) - 1) === Operation.WRITE) this.#usedBytes -= memory.length[place];
        this.#usedEntries--;
        first = (first + 1) % memory.entriesOfLane;
      }
      words[wordsAt + Word.FIRST] = first;
      words[wordsAt + Word.COUNT] = this.#usedEntries;
      words[wordsAt + Word.USED] = this.#usedBytes;
    }
    unlock(words, wordsAt + Word.LOCK);
  }

  #hasRoom(bytes: number, entries: number): boolean {
    return this.#usedBytes + this.#reservedBytes + bytes <= this.#memory.bytesOfLane &&
      this.#usedEntries + this.#reservedEntries + entries <= this.#memory.entriesOfLane;
  }

  /** Copies payload to where the next one goes, in two pieces where the end of the ring is between. */
  #copy(from: number, bytes: number): void {
    const { bytesOfLane } = this.#memory;
    const left = bytesOfLane - this.#head;
    if (bytes < left) {
      this.#copier.copy(this.#payloadAt + this.#head, from, bytes);
      this.#head += bytes;
    } else {
      this.#copier.copy(this.#payloadAt + this.#head, from, left);
      this.#copier.copy(this.#payloadAt, from + left, bytes - left);
      this.#head = bytes - left;
    }
  }
}
