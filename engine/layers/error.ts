/**
 * A layer that makes a disk fail.
 *
 * @module
 */
import type { BlockClient, BlockDevice, Geometry } from "../block.ts";
import { Operation } from "../block.ts";
import { Random } from "../random.ts";
import type { Slots } from "../slots.ts";

/** Which requests fail, and how. */
export interface ErrorSpec {
  readonly kind: "error";
  /** The operations that can fail; none named means all. */
  readonly operations: readonly number[];
  /** Requests that overlap these bytes can fail. FLUSH concerns the whole disk and always can. */
  readonly offset: number;
  readonly length: number;
  /** The status of a failed request, negative. */
  readonly errno: number;
  /** So many requests that could fail are let through first. */
  readonly after: number;
  /** Of the rest, one in so many fails: the last of each such group. */
  readonly every: number;
  /** Of those, a share fails, by chance: 0 to 1. */
  readonly probability: number;
  /** What the chance is made from. */
  readonly seed: number;
  /** After so many failures nothing fails any more. */
  readonly count: number;
}

/** Fails the requests that its specification matches, without handing them to the disk below. */
export class ErrorLayer implements BlockDevice {
  readonly geometry: Geometry;
  readonly #spec: ErrorSpec;
  readonly #lower: BlockDevice;
  readonly #slots: Slots;
  readonly #random: Random;
  /** Bit n: operation n can fail. */
  readonly #operationSet: number;
  #matched = 0;
  #failed = 0;

  /**
   * @param spec what fails
   * @param lower the disk below, which becomes this layer's to close
   * @param slots the Worker's slots
   */
  constructor(spec: ErrorSpec, lower: BlockDevice, slots: Slots) {
    this.#slots = slots;
    this.geometry = lower.geometry;
    this.#spec = spec;
    this.#lower = lower;
    this.#random = new Random(spec.seed);
    this.#operationSet = spec.operations.length === 0 ? -1 : spec.operations.reduce((set, one) => set | 1 << one, 0);
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    if (this.#fails(operation, this.#slots.offset[slot], this.#slots.length[slot])) return this.#spec.errno;
    return this.#lower.submit(slot, operation, flags, client);
  }

  extentBytes(slot: number): number {
    return this.#lower.extentBytes(slot);
  }

  close(): void {
    this.#lower.close();
  }

  #fails(operation: number, offset: number, length: number): boolean {
    const spec = this.#spec;
    if ((this.#operationSet & 1 << operation) === 0) return false;
    if (operation !== Operation.FLUSH && (offset >= spec.offset + spec.length || offset + length <= spec.offset)) {
      return false;
    }
    const nth = ++this.#matched - spec.after;
    if (nth <= 0 || nth % spec.every !== 0 || this.#failed >= spec.count) return false;
    if (spec.probability < 1 && this.#random.next() >= spec.probability) return false;
    this.#failed++;
    return true;
  }
}
