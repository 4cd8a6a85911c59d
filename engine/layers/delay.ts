/**
 * A layer that makes a disk slow.
 *
 * @module
 */
import type { BlockClient, BlockDevice, Geometry } from "../block.ts";
import { PENDING } from "../block.ts";
import type { TimerHandler, Timers } from "../timers.ts";

/** How long each operation waits. */
export interface DelaySpec {
  readonly kind: "delay";
  /** Milliseconds, indexed by operation. */
  readonly delaysMs: readonly number[];
}

/**
 * Hands every request to the disk below only after its operation's delay. So it completes no earlier than that, and
 * until then nothing of it has happened, just as with a slow disk: a peer that gave it up will see it land late.
 */
export class DelayLayer implements BlockDevice, TimerHandler {
  readonly geometry: Geometry;
  readonly #lower: BlockDevice;
  readonly #timers: Timers;
  readonly #delaysMs: Float64Array;
  readonly #operations: Uint8Array;
  readonly #flags: Uint8Array;
  readonly #clients: (BlockClient | null)[];

  /**
   * @param spec the delays
   * @param lower the disk below, which becomes this layer's to close
   * @param slotCount how many slots the Worker has
   * @param timers must have room for one timer a slot
   */
  constructor(spec: DelaySpec, lower: BlockDevice, slotCount: number, timers: Timers) {
    this.geometry = lower.geometry;
    this.#lower = lower;
    this.#timers = timers;
    this.#delaysMs = Float64Array.from(spec.delaysMs);
    this.#operations = new Uint8Array(slotCount);
    this.#flags = new Uint8Array(slotCount);
    this.#clients = new Array<BlockClient | null>(slotCount).fill(null);
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    const delayMs = this.#delaysMs[operation];
    if (!(delayMs > 0)) return this.#lower.submit(slot, operation, flags, client);
    this.#operations[slot] = operation;
    this.#flags[slot] = flags;
    this.#clients[slot] = client;
    this.#timers.schedule(this, slot, this.#timers.now() + delayMs);
    return PENDING;
  }

  /** The slot's delay is over. */
  expire(slot: number): void {
    const client = this.#clients[slot]!;
    this.#clients[slot] = null;
    const status = this.#lower.submit(slot, this.#operations[slot], this.#flags[slot], client);
    if (status !== PENDING) client.onComplete(slot, status);
  }

  extentBytes(slot: number): number {
    return this.#lower.extentBytes(slot);
  }

  close(): void {
    this.#lower.close();
  }
}
