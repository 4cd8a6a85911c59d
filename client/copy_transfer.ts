/**
 * Moves one disk's blocks to another, many at a time and in no order.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import { SparseMap } from "./copy_map.ts";

/** The longest WRITE_ZEROES at once, in bytes: short enough that the progress moves. */
const ZERO_BYTES = 256 * 1024 * 1024;

/** What a slot is doing. */
const State = {
  IDLE: 0,
  READING: 1,
  WRITING: 2,
  ZEROING: 3,
  /** Writing zeroes piece by piece, where the destination has nothing better. */
  WRITING_ZEROES: 4,
} as const;

/** What is to be moved. */
export interface TransferOptions {
  readonly source: BlockDevice;
  readonly destination: BlockDevice;
  /** How much, from the beginning, in bytes: a multiple of the block. */
  readonly bytes: number;
  /** In bytes: a multiple of the logical blocks of both. */
  readonly block: number;
  /** The destination reads as zeroes: holes need nothing. */
  readonly skipZeroes: boolean;
  /** Requests at a time: as many slots are taken. */
  readonly depth: number;
}

/** One copy's bulk. */
export class Transfer implements BlockClient {
  /** Bytes dealt with, holes included. */
  done = 0;
  /** Bytes of data that were moved. */
  moved = 0;
  /** What went wrong, for people: `reading: no space left`, or null. Nothing new is begun then. */
  failure: string | null = null;
  readonly #options: TransferOptions;
  readonly #engine: Engine;
  readonly #map: SparseMap;
  readonly #chunk: number;
  readonly #slots: Uint32Array;
  readonly #indexOf: Uint16Array;
  readonly #state: Uint8Array;
  /** Of a slot that zeroes: where it ends, in bytes of the disk. */
  readonly #zeroEnd: Float64Array;
  readonly #free: Uint16Array;
  #freeCount: number;
  #position = 0;

  constructor(engine: Engine, options: TransferOptions) {
    const { depth } = options;
    const slots = engine.slots.reserve(depth);
    if (slots === null) throw new RangeError(`Cannot copy: there are no ${depth} slots`);
    this.#engine = engine;
    this.#options = options;
    this.#slots = slots;
    this.#chunk = SLOT_PAYLOAD_BYTES - SLOT_PAYLOAD_BYTES % options.block;
    this.#map = new SparseMap(engine, options.source, options.bytes, options.block, () => this.start());
    this.#indexOf = new Uint16Array(engine.slots.count);
    this.#state = new Uint8Array(depth);
    this.#zeroEnd = new Float64Array(depth);
    this.#free = new Uint16Array(depth);
    this.#freeCount = depth;
    for (let i = 0; i < depth; i++) {
      this.#indexOf[slots[i]] = i;
      this.#free[i] = i;
    }
  }

  /** Whether nothing is under way, and nothing is left or something has failed. */
  get isOver(): boolean {
    if (this.#freeCount < this.#slots.length || this.#map.isBusy) return false;
    return this.failure !== null || this.#position >= this.#options.bytes;
  }

  /** Begins as much as there is room for; by itself afterwards. */
  start(): void {
    const { bytes, skipZeroes } = this.#options;
    while (this.#freeCount > 0 && this.failure === null && this.#position < bytes) {
      if (!this.#map.find(this.#position)) return;
      const run = this.#map.runEnd - this.#position;
      if (this.#map.isZero && skipZeroes) {
        this.done += run;
        this.#position += run;
        continue;
      }
      const index = this.#free[--this.#freeCount];
      const length = Math.min(run, this.#map.isZero ? ZERO_BYTES : this.#chunk);
      const position = this.#position;
      this.#position += length;
      this.#begin(index, this.#map.isZero ? State.ZEROING : State.READING, position, length);
    }
  }

  onComplete(slot: number, status: number): void {
    this.#advance(this.#indexOf[slot], status);
    this.start();
  }

  /** Gives the slots back. Nothing is under way. */
  close(): void {
    this.#engine.slots.release(this.#slots);
    this.#map.close();
  }

  #begin(index: number, state: number, offset: number, length: number): void {
    this.#state[index] = state;
    this.#zeroEnd[index] = offset + length;
    this.#engine.slots.setRange(this.#slots[index], offset, length);
    const status = this.#submit(index);
    if (status !== PENDING) this.#advance(index, status);
  }

  #submit(index: number): number {
    const slot = this.#slots[index];
    switch (this.#state[index]) {
      case State.READING:
        return this.#options.source.submit(slot, Operation.READ, 0, this);
      case State.ZEROING:
        return this.#options.destination.submit(slot, Operation.WRITE_ZEROES, 0, this);
      case State.WRITING_ZEROES: {
        // Each time: a write may leave something else in the slot.
        const at = this.#engine.slots.payloadAt(slot);
        this.#engine.arena.bytes.fill(0, at, at + this.#chunk);
        return this.#options.destination.submit(slot, Operation.WRITE, 0, this);
      }
      default:
        return this.#options.destination.submit(slot, Operation.WRITE, 0, this);
    }
  }

  /** A step of a slot has ended: its next ones, as long as they end on the spot. */
  #advance(index: number, ended: number): void {
    const { slots } = this.#engine;
    const slot = this.#slots[index];
    let status = ended;
    while (status !== PENDING) {
      const state = this.#state[index];
      if (status === -Errno.EOPNOTSUPP && state === State.ZEROING) {
        this.#state[index] = State.WRITING_ZEROES;
        slots.setRange(slot, slots.offset[slot], Math.min(slots.length[slot], this.#chunk));
        status = this.#submit(index);
        continue;
      }
      if (status < 0 || this.failure !== null) return this.#end(index, status);
      if (state === State.READING) {
        this.#state[index] = State.WRITING;
        status = this.#submit(index);
        continue;
      }
      this.done += slots.length[slot];
      if (state === State.WRITING) this.moved += slots.length[slot];
      const next = slots.offset[slot] + slots.length[slot];
      if (state !== State.WRITING_ZEROES || next >= this.#zeroEnd[index]) return this.#end(index, 0);
      slots.setRange(slot, next, Math.min(this.#zeroEnd[index] - next, this.#chunk));
      status = this.#submit(index);
    }
  }

  #end(index: number, status: number): void {
    if (status < 0 && this.failure === null) {
      const what = this.#state[index] === State.READING ? "reading" : "writing";
      const offset = this.#engine.slots.offset[this.#slots[index]];
      this.failure = `${what} failed at byte ${offset}: ${errnoMessage(status)}`;
    }
    this.#state[index] = State.IDLE;
    this.#free[this.#freeCount++] = index;
  }
}
