/**
 * What a run has met: a simulator that meets nothing proves nothing.
 *
 * @module
 */

/** Counts by name. */
export class Counters {
  readonly #counts = new Map<string, number>();

  /** One more of these. */
  count(what: string, times = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + times);
  }

  /** How many of these there were. */
  of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  /** Adds what another one has counted. */
  add(other: Counters): void {
    for (const [what, times] of other.#counts) this.count(what, times);
  }

  /** All of them. */
  entries(): [string, number][] {
    return [...this.#counts];
  }

  /** A line for each, in alphabetical order. */
  toString(): string {
    return [...this.#counts].sort(([a], [b]) => a < b ? -1 : 1)
      .map(([what, times]) => `  ${String(times).padStart(9)}  ${what}`).join("\n");
  }
}
