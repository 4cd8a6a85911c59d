/**
 * A layer that gives a disk a volatile write cache, which can be lost on purpose.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import type { BlockClient, BlockDevice, Geometry } from "../block.ts";
import { EXTENT_BYTES, Operation, PENDING, RequestFlag } from "../block.ts";
import { Random } from "../random.ts";
import { SLOT_PAYLOAD_BYTES, type Slots } from "../slots.ts";
import { MutationLog } from "./mutation_log.ts";

/** How large the cache is, and what it does not keep. */
export interface VolatileSpec {
  readonly kind: "volatile";
  /** Room for written data, in bytes; rounded up to whole slots. */
  readonly bytes: number;
  /** The share of mutations that are on the disk when they are acknowledged, 0 to 1: a cache writes back when it likes. */
  readonly through: number;
  /** Of the choice which. */
  readonly seed: number;
}

/** How many slots the layer reserves for itself: its room, and one to write back from. */
export function volatileSlots(spec: VolatileSpec): number {
  return Math.max(1, Math.ceil(spec.bytes / SLOT_PAYLOAD_BYTES)) + 1;
}

/** Answer of {@link VolatileLayer} to itself: the request must wait until older mutations have been written back. */
const BLOCKED = 2;
/** End of the list of waiting slots. */
const NONE = -1;

/**
 * Keeps mutations in memory and acknowledges them at once, as a disk with a write cache does. READs see them. FLUSH
 * writes all of them down, in order, and then flushes below; FUA writes the ones that it overlaps down first and then
 * goes through. Without room, the oldest are written back.
 *
 * The cache belongs to one Worker: an export with this layer must be served by one Worker only, or two lanes would see
 * different disks. A mutation that could not be written back is gone; every later FLUSH and FUA reports it.
 */
export class VolatileLayer implements BlockDevice, BlockClient {
  readonly geometry: Geometry;
  readonly #lower: BlockDevice;
  readonly #slots: Slots;
  readonly #reserved: Uint32Array;
  readonly #log: MutationLog;
  /** The slot that write-backs are made from. */
  readonly #workSlot: number;
  readonly #operations: Uint8Array;
  readonly #flags: Uint8Array;
  /** 1: a mutation that is not to be kept. */
  readonly #goesThrough: Uint8Array;
  /** By which share of them. */
  readonly #through: number;
  readonly #random: Random;
  readonly #clients: (BlockClient | null)[];
  /** For a BLOCK_STATUS answered here, its extent bytes; 0 when the disk below has answered. */
  readonly #extentBytes: Uint32Array;
  /** The waiting slots, first come first served. */
  readonly #next: Int32Array;
  #waitingHead = NONE;
  #waitingTail = NONE;
  /** Mutations with a sequence below this are being written back; until then nothing else is started. */
  #drainUntil = 0;
  #writingBack = false;
  /** Requests of clients that the disk below is working on. */
  #inFlight = 0;
  #pumping = false;
  #failure = 0;

  /**
   * @param spec its size
   * @param lower the disk below, which becomes this layer's to close
   * @param slots where its memory is reserved, {@link volatileSlots} of them
   * @throws {RangeError} when there are too few free slots
   */
  constructor(spec: VolatileSpec, lower: BlockDevice, slots: Slots) {
    const reserved = slots.reserve(volatileSlots(spec));
    if (reserved === null) {
      throw new RangeError(`Cannot make a volatile cache of ${spec.bytes} bytes: the Worker has too little memory`);
    }
    this.geometry = { ...lower.geometry, volatileCache: true };
    this.#lower = lower;
    this.#slots = slots;
    this.#reserved = reserved;
    this.#workSlot = reserved[reserved.length - 1];
    this.#log = new MutationLog(slots, reserved.slice(0, -1), Math.max(512, lower.geometry.logicalBlock));
    this.#operations = new Uint8Array(slots.count);
    this.#flags = new Uint8Array(slots.count);
    this.#goesThrough = new Uint8Array(slots.count);
    this.#through = spec.through;
    this.#random = new Random(spec.seed);
    this.#clients = new Array<BlockClient | null>(slots.count).fill(null);
    this.#extentBytes = new Uint32Array(slots.count);
    this.#next = new Int32Array(slots.count).fill(NONE);
  }

  /** How many mutations are cached. */
  get cachedCount(): number {
    return this.#log.end - this.#log.first;
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    this.#operations[slot] = operation;
    this.#flags[slot] = flags;
    this.#clients[slot] = client;
    this.#goesThrough[slot] = this.#random.next() < this.#through ? 1 : 0;
    if (this.#waitingHead === NONE && this.#drainUntil <= this.#log.first) {
      const status = this.#admit(slot);
      if (status !== BLOCKED) return status;
    }
    const alone = this.#waitingHead === NONE;
    if (alone) this.#waitingHead = slot;
    else this.#next[this.#waitingTail] = slot;
    this.#waitingTail = slot;
    // Where others wait, a completion from below is due that will go on; then nobody is called back from here.
    return alone && !this.#pumping ? this.#pump(slot) : PENDING;
  }

  /** The disk below has ended a request, of a client or a write-back. */
  onComplete(slot: number, status: number): void {
    if (slot === this.#workSlot) {
      this.#writingBack = false;
      this.#retire(status);
    } else {
      this.#inFlight--;
      this.#clients[slot]!.onComplete(slot, this.#ended(slot, status));
    }
    if (!this.#pumping) this.#pump(NONE);
  }

  extentBytes(slot: number): number {
    return this.#extentBytes[slot] || this.#lower.extentBytes(slot);
  }

  /**
   * Loses the cache, as a disk does whose power fails.
   *
   * @param seed null: everything is lost. A number: by chance made from it, each mutation is lost, survives, or is torn,
   *   so that only some of its sectors survive; what survives counts as being on the disk from then on
   * @throws {Error} while requests are under way
   */
  lose(seed: number | null): void {
    if (this.#inFlight > 0 || this.#writingBack || this.#waitingHead !== NONE) {
      throw new Error("Cannot lose the volatile cache: requests are under way");
    }
    this.#log.lose(seed);
    this.#drainUntil = 0;
  }

  close(): void {
    this.#slots.release(this.#reserved);
    this.#lower.close();
  }

  /**
   * Works through write-backs and waiting requests as far as the disk below allows.
   *
   * @param submitted a slot that is being submitted: its status is answered rather than reported, or NONE
   */
  #pump(submitted: number): number {
    let answer = PENDING;
    this.#pumping = true;
    for (;;) {
      if (this.#log.first < this.#drainUntil) {
        // Requests below may have begun before the mutation came and would see, or leave, what was there before it.
        if (this.#inFlight > 0 || this.#writingBack) break;
        this.#writeBackOldest();
        continue;
      }
      const slot = this.#waitingHead;
      if (slot === NONE) break;
      const status = this.#admit(slot);
      if (status === BLOCKED) continue;
      this.#waitingHead = this.#next[slot];
      this.#next[slot] = NONE;
      if (status === PENDING) continue;
      if (slot === submitted) answer = status;
      else this.#clients[slot]!.onComplete(slot, status);
    }
    this.#pumping = false;
    return answer;
  }

  #writeBackOldest(): void {
    const log = this.#log;
    const operation = log.loadOldest(this.#slots.payloadAt(this.#workSlot));
    this.#writingBack = true;
    this.#slots.setRange(this.#workSlot, log.offsetOf(log.first), log.lengthOf(log.first));
    const status = this.#lower.submit(this.#workSlot, operation, log.flagsOf(log.first), this);
    if (status === PENDING) return;
    this.#writingBack = false;
    this.#retire(status);
  }

  #retire(status: number): void {
    if (status < 0 && this.#failure === 0) this.#failure = status;
    this.#log.retireOldest();
  }

  /** Starts a request: answers its status, PENDING, or BLOCKED with `#drainUntil` set to what has to go first. */
  #admit(slot: number): number {
    const operation = this.#operations[slot];
    const flags = this.#flags[slot];
    const fua = (flags & RequestFlag.FUA) !== 0;
    switch (operation) {
      case Operation.WRITE:
      case Operation.DISCARD:
      case Operation.WRITE_ZEROES:
        if ((flags & RequestFlag.FAST_ZERO) !== 0 && !this.geometry.fastZero) return -Errno.EOPNOTSUPP;
        if (fua && this.#failure !== 0) return this.#failure;
        return fua || this.#goesThrough[slot] === 1 ? this.#writeThrough(slot) : this.#cache(slot);
      case Operation.FLUSH:
        if (this.#failure !== 0) return this.#failure;
        return this.#drain(this.#log.end) ? BLOCKED : this.#below(slot);
      case Operation.BLOCK_STATUS:
        return this.#blockStatus(slot);
      default:
        return this.#below(slot);
    }
  }

  /** Whether mutations with a sequence below `end` have to be written back first. */
  #drain(end: number): boolean {
    if (end <= this.#log.first) return false;
    this.#drainUntil = end;
    return true;
  }

  #writeThrough(slot: number): number {
    const overlapEnd = this.#log.overlapEnd(this.#slots.offset[slot], this.#slots.length[slot]);
    return this.#drain(overlapEnd) ? BLOCKED : this.#below(slot);
  }

  #cache(slot: number): number {
    if (this.#slots.length[slot] === 0) return 0;
    const operation = this.#operations[slot];
    // It is fast here already; when it is written back it must not fail for being slow.
    const flags = this.#flags[slot] & ~RequestFlag.FAST_ZERO;
    const from = this.#slots.payloadAt(slot);
    if (this.#log.append(operation, this.#slots.offset[slot], this.#slots.length[slot], flags, from)) return 0;
    this.#drain(this.#log.first + 1);
    return BLOCKED;
  }

  #blockStatus(slot: number): number {
    this.#extentBytes[slot] = 0;
    const offset = this.#slots.offset[slot];
    const free = this.#log.freeFrom(offset, this.#slots.length[slot]);
    if (free > 0) {
      // Only what lies before the next cached mutation is for the disk below to tell.
      this.#slots.length[slot] = free;
      return this.#below(slot);
    }
    // Cached data is reported as allocated data, which is always true enough.
    const view = this.#slots.arena.view;
    const at = this.#slots.payloadAt(slot);
    const length = this.#log.coveredFrom(offset, this.#slots.length[slot]);
    view.setUint32(at, length >>> 0, true);
    view.setUint32(at + 4, Math.floor(length / 2 ** 32), true);
    view.setUint32(at + 8, 0, true);
    view.setUint32(at + 12, 0, true);
    this.#extentBytes[slot] = EXTENT_BYTES;
    return 0;
  }

  #below(slot: number): number {
    this.#inFlight++;
    const status = this.#lower.submit(slot, this.#operations[slot], this.#flags[slot], this);
    if (status === PENDING) return PENDING;
    this.#inFlight--;
    return this.#ended(slot, status);
  }

  /** What the client is told of a request that the disk below has ended. */
  #ended(slot: number, status: number): number {
    if (status === 0 && this.#operations[slot] === Operation.READ) {
      this.#log.overlay(this.#slots.offset[slot], this.#slots.length[slot], this.#slots.payloadAt(slot));
    }
    return status;
  }
}
