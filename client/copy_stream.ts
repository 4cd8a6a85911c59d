/**
 * A disk's bytes in order: read ahead, many requests at a time.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { SparseMap } from "./copy_map.ts";
import { turnUntil } from "./local_engine.ts";
import { sleep } from "./ublk_device.ts";

/** How long the engine is left alone while something outside of it is waited for, in milliseconds. */
const OUTSIDE_TURN_MS = 10;

/** Takes bytes in order. They are only valid until the promise resolves. */
export type Sink = (bytes: Uint8Array) => void | Promise<void>;

/** A piece of zeroes, to stand for holes. */
const zeroes = new Uint8Array(SLOT_PAYLOAD_BYTES);

/**
 * Waits for something outside of the engine, which goes on turning meanwhile: else its peers would take it for dead.
 */
export async function turnDuring<Result>(engine: Engine, outside: Promise<Result>): Promise<Result> {
  const settled = outside.then(() => true, () => true);
  while (!await Promise.race([settled, sleep(OUTSIDE_TURN_MS).then(() => false)])) engine.turn(0);
  engine.turn(0);
  return await outside;
}

/**
 * Reads a disk from its beginning and hands it to a sink, in order.
 *
 * @param bytes how much: a multiple of the disk's logical block
 * @param depth pieces read ahead: as many slots are taken, and one
 * @param sink gets holes as zeroes
 * @param name of the disk, for messages
 * @throws {Error} why it could not be read; the sink's error; the signal's reason
 */
export async function readInOrder(
  engine: Engine,
  device: BlockDevice,
  name: string,
  bytes: number,
  depth: number,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const reader = new OrderedReader(engine, device, name, bytes, depth);
  try {
    reader.start();
    while (!reader.isOver) {
      await turnUntil(engine, () => reader.isReady, signal);
      for (let left = reader.length; left > 0;) {
        const piece = reader.isZero ? zeroes.subarray(0, Math.min(left, zeroes.length)) : reader.bytes();
        const taken = sink(piece);
        if (taken !== undefined) await turnDuring(engine, taken);
        left -= piece.length;
      }
      reader.release();
    }
  } finally {
    await turnUntil(engine, () => reader.isIdle);
    reader.close();
  }
}

/** The pieces of a disk in order: a ring of slots that are read ahead, and runs of zeroes that take none. */
class OrderedReader implements BlockClient {
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #name: string;
  readonly #map: SparseMap;
  readonly #end: number;
  readonly #chunk: number;
  readonly #slots: Uint32Array;
  readonly #indexOf: Uint16Array;
  /** Whole slots as views, so that none is made for each piece. */
  readonly #views: Uint8Array[];
  // The ring, from the piece to be handed out next.
  readonly #lengths: Float64Array;
  readonly #isZero: Uint8Array;
  readonly #isRead: Uint8Array;
  #head = 0;
  #count = 0;
  #reading = 0;
  #position = 0;
  #failure = 0;

  constructor(engine: Engine, device: BlockDevice, name: string, end: number, depth: number) {
    const slots = engine.slots.reserve(depth);
    if (slots === null) throw new RangeError(`Cannot read: there are no ${depth} slots`);
    const block = device.geometry.logicalBlock;
    this.#engine = engine;
    this.#device = device;
    this.#name = name;
    this.#map = new SparseMap(engine, device, end, block, () => this.start());
    this.#end = end;
    this.#chunk = SLOT_PAYLOAD_BYTES - SLOT_PAYLOAD_BYTES % block;
    this.#slots = slots;
    this.#indexOf = new Uint16Array(engine.slots.count);
    this.#views = [...slots].map((slot, i) => {
      this.#indexOf[slot] = i;
      const at = engine.slots.payloadAt(slot);
      return engine.arena.bytes.subarray(at, at + this.#chunk);
    });
    this.#lengths = new Float64Array(depth);
    this.#isZero = new Uint8Array(depth);
    this.#isRead = new Uint8Array(depth);
  }

  /** Whether everything was handed out. */
  get isOver(): boolean {
    return this.#count === 0 && this.#position >= this.#end;
  }

  /** Whether the next piece is there. */
  get isReady(): boolean {
    if (this.#failure < 0) throw new Error(`Cannot read ${this.#name}: ${errnoMessage(this.#failure)}`);
    return this.#count > 0 && this.#isRead[this.#head] === 1;
  }

  /** Whether nothing is under way. */
  get isIdle(): boolean {
    return this.#reading === 0 && !this.#map.isBusy;
  }

  /** The piece's length in bytes. */
  get length(): number {
    return this.#lengths[this.#head];
  }

  /** Whether the piece is zeroes, of any length. */
  get isZero(): boolean {
    return this.#isZero[this.#head] === 1;
  }

  /** The piece's bytes. */
  bytes(): Uint8Array {
    const view = this.#views[this.#head];
    return this.length === this.#chunk ? view : view.subarray(0, this.length);
  }

  /** The piece is done with. */
  release(): void {
    this.#head = (this.#head + 1) % this.#slots.length;
    this.#count--;
    this.start();
  }

  /** Reads ahead as far as there is room for. */
  start(): void {
    while (this.#count < this.#slots.length && this.#position < this.#end && this.#failure === 0) {
      if (!this.#map.find(this.#position)) return;
      const index = (this.#head + this.#count) % this.#slots.length;
      const run = this.#map.runEnd - this.#position;
      const length = this.#map.isZero ? run : Math.min(run, this.#chunk);
      this.#lengths[index] = length;
      this.#isZero[index] = this.#map.isZero ? 1 : 0;
      this.#isRead[index] = this.#isZero[index];
      this.#count++;
      if (!this.#map.isZero) this.#read(index, this.#position, length);
      this.#position += length;
    }
  }

  onComplete(slot: number, status: number): void {
    this.#reading--;
    this.#wasRead(this.#indexOf[slot], status);
  }

  close(): void {
    this.#engine.slots.release(this.#slots);
    this.#map.close();
  }

  #read(index: number, offset: number, length: number): void {
    const slot = this.#slots[index];
    this.#engine.slots.setRange(slot, offset, length);
    const status = this.#device.submit(slot, Operation.READ, 0, this);
    if (status === PENDING) this.#reading++;
    else this.#wasRead(index, status);
  }

  #wasRead(index: number, status: number): void {
    this.#isRead[index] = 1;
    if (status < 0 && this.#failure === 0) this.#failure = status;
  }
}
