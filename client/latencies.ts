/**
 * How long many requests took: counts in buckets that are made once.
 *
 * @module
 */

/** Buckets for each doubling: a value is known to 1/32, about 3 %. */
const STEPS = 32;
/** Doublings from a microsecond on: up to 2^32 us, more than an hour. */
const DOUBLINGS = 32;

/** A histogram of times from a microsecond to an hour. Adding allocates nothing. */
export class Latencies {
  readonly #counts = new Float64Array(STEPS * DOUBLINGS);
  #total = 0;

  /** @param ms in milliseconds, with fractions */
  add(ms: number): void {
    this.#counts[bucketOf(ms * 1000)]++;
    this.#total++;
  }

  /** Forgets everything. */
  reset(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }

  /**
   * The time that so many of a hundred did not exceed.
   *
   * @returns in microseconds, rounded up to the end of its bucket; 0 when nothing was added
   */
  percentile(percent: number): number {
    let left = Math.ceil(this.#total * percent / 100);
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      left -= this.#counts[bucket];
      if (left <= 0 && this.#total > 0) return endOf(bucket);
    }
    return 0;
  }
}

function bucketOf(us: number): number {
  if (us < 1) return 0;
  // Beyond 32 bits there is no counting of leading zeroes.
  if (us >= 2 ** DOUBLINGS) return STEPS * DOUBLINGS - 1;
  const doubling = 31 - Math.clz32(us);
  const base = 2 ** doubling;
  return doubling * STEPS + Math.floor((us - base) / base * STEPS);
}

/** Where a bucket ends, in whole microseconds. */
function endOf(bucket: number): number {
  const base = 2 ** Math.floor(bucket / STEPS);
  return Math.ceil(base + base * (bucket % STEPS + 1) / STEPS);
}
