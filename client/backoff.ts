/**
 * How long to wait before each try to connect again.
 *
 * @module
 */

/** Before the second try, in milliseconds; the first is made at once, and each later one after twice the wait. */
const FIRST_MS = 50;
/**
 * No wait is longer: whoever repairs a link does not want to sit and look at it, and all lanes are to be back within 5 s of an
 * exporter's start.
 */
const LONGEST_MS = 2000;
/** Nor than this where the exporter is there and refuses for a reason that stays: each try costs it a line in its log. */
const LONGEST_REFUSED_MS = 15_000;

/**
 * Waits that grow. Each is shortened by a random part of up to a half, so that many clients of an exporter that has
 * started again do not all come at the same moment.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const backoff = new Backoff();
 * assert.deepEqual([0, 0, 0, 0].map((random) => backoff.next(random, false)), [0, 50, 100, 200]);
 * ```
 */
export class Backoff {
  #tries = 0;

  /**
   * How long to wait before the next try, in milliseconds.
   *
   * @param random at least 0 and below 1
   * @param isRefused whether the exporter has refused the last one, for a reason that does not pass by itself
   */
  next(random: number, isRefused: boolean): number {
    const tries = this.#tries++;
    if (tries === 0) return 0;
    return Math.min(isRefused ? LONGEST_REFUSED_MS : LONGEST_MS, FIRST_MS * 2 ** (tries - 1)) * (1 - random / 2);
  }

  /** The next try is the first one again. */
  reset(): void {
    this.#tries = 0;
  }
}
