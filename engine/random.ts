/**
 * Repeatable randomness, for faults and tests; never for anything secret.
 *
 * @module
 */

/** The generator "mulberry32" (public domain, Tommy Ettinger): 32 bits of state, and the same numbers for one seed. */
export class Random {
  #state: number;

  /** @param seed its lowest 32 bits count */
  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** The next number, 0 or more and less than 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, 0 or more and less than `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
}
