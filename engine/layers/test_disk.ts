/**
 * What the tests of layers stand on: a disk in an array, which can hold its completions back.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { type BlockClient, type BlockDevice, EXTENT_BYTES, type Geometry, Operation, PENDING } from "../block.ts";
import { type Arena, SLOT_STRIDE_BYTES, Slots } from "../slots.ts";

/** Slots over an ordinary array; nothing here gives their addresses to the kernel. */
export function makeSlots(count: number): Slots {
  const bytes = new Uint8Array(count * SLOT_STRIDE_BYTES);
  const arena: Arena = { bytes, view: new DataView(bytes.buffer), address: 4096, freeFrom: 0 };
  return new Slots(arena);
}

/** A disk in an array that remembers what it was asked, as `WRITE 0+512 FUA=1`-like words. */
export class TestDisk implements BlockDevice {
  readonly geometry: Geometry;
  readonly content: Uint8Array;
  readonly asked: string[] = [];
  /** Answer PENDING, and complete only in {@link release}. */
  deferred = false;
  /** The status of every mutation and FLUSH from now on. */
  failure = 0;
  readonly #slots: Slots;
  readonly #held: (() => void)[] = [];
  closed = false;

  constructor(slots: Slots, size: number, geometry: Partial<Geometry> = {}) {
    this.#slots = slots;
    this.content = new Uint8Array(size);
    this.geometry = {
      size,
      logicalBlock: 512,
      physicalBlock: 4096,
      optimalIo: 4096,
      discardGranularity: 512,
      readOnly: false,
      volatileCache: false,
      fastZero: true,
      ...geometry,
    };
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    const offset = this.#slots.offset[slot];
    const length = this.#slots.length[slot];
    this.asked.push(`${names[operation]} ${offset}+${length} ${flags}`);
    if (!this.deferred) return this.#run(slot, operation, offset, length);
    this.#held.push(() => client.onComplete(slot, this.#run(slot, operation, offset, length)));
    return PENDING;
  }

  /** Completes what is held back, and what that brings, oldest first; at most so many. */
  release(most = Infinity): void {
    for (let i = 0; i < most && this.#held.length > 0; i++) this.#held.shift()!();
  }

  get heldCount(): number {
    return this.#held.length;
  }

  extentBytes(): number {
    return EXTENT_BYTES;
  }

  close(): void {
    this.closed = true;
  }

  #run(slot: number, operation: number, offset: number, length: number): number {
    const payload = this.#slots.payloadAt(slot);
    const memory = this.#slots.arena.bytes;
    if (this.failure !== 0 && operation !== Operation.READ) return this.failure;
    switch (operation) {
      case Operation.READ:
        memory.set(this.content.subarray(offset, offset + length), payload);
        return 0;
      case Operation.WRITE:
        this.content.set(memory.subarray(payload, payload + length), offset);
        return 0;
      case Operation.DISCARD:
      case Operation.WRITE_ZEROES:
        this.content.fill(0, offset, offset + length);
        return 0;
      case Operation.BLOCK_STATUS:
        this.#slots.arena.view.setBigUint64(payload, BigInt(length), true);
        this.#slots.arena.view.setBigUint64(payload + 8, 3n, true);
        return 0;
      case Operation.FLUSH:
      case Operation.CACHE:
        return 0;
      default:
        return -Errno.EINVAL;
    }
  }
}

const names: Record<number, string> = Object.fromEntries(
  Object.entries(Operation).map(([name, value]) => [value, name]),
);

/** A client that remembers what it was told. */
export class Told implements BlockClient {
  readonly statuses = new Map<number, number>();
  readonly order: number[] = [];

  onComplete(slot: number, status: number): void {
    this.statuses.set(slot, status);
    this.order.push(slot);
  }
}

/** Submits a request for a range. */
export function ask(
  device: BlockDevice,
  slots: Slots,
  slot: number,
  operation: number,
  offset: number,
  length: number,
  flags: number,
  client: BlockClient,
): number {
  slots.setRange(slot, offset, length);
  return device.submit(slot, operation, flags, client);
}
