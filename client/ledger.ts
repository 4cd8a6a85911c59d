/**
 * What of a session is, or may still be lost: mutations that failed, and those that were acknowledged and that no FLUSH
 * has covered.
 *
 * @module
 */

/**
 * Words of the shared memory: how many mutations were acknowledged, how many of them a FLUSH has covered, and whether one
 * has failed.
 */
const Word = { ACKNOWLEDGED: 0, COVERED: 1, FAILED: 2 } as const;

/** Bytes that a ledger needs. */
export const LEDGER_BYTES = 12;

/**
 * Counts mutations over all lanes of a session, which are served by as many threads. The counts go round at 2^32, and
 * only their differences matter, which stay below the number of writes between two flushes.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const ledger = new MutationLedger();
 * ledger.acknowledge();
 * const mark = ledger.mark(); // a FLUSH is sent
 * ledger.acknowledge(); // too late for it
 * ledger.cover(mark); // its reply is there
 * assert.equal(ledger.isCovered, false);
 * ```
 */
export class MutationLedger {
  readonly #words: Int32Array;

  /** @param memory {@link LEDGER_BYTES}, zero at first, the same for all lanes of a session */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(LEDGER_BYTES)) {
    this.#words = new Int32Array(memory);
  }

  /** Whether every mutation that was acknowledged is covered. */
  get isCovered(): boolean {
    return Atomics.load(this.#words, Word.ACKNOWLEDGED) === Atomics.load(this.#words, Word.COVERED);
  }

  /** Whether a mutation has failed, now or earlier. */
  get hasFailed(): boolean {
    return Atomics.load(this.#words, Word.FAILED) !== 0;
  }

  /** A mutation has failed. */
  fail(): void {
    Atomics.store(this.#words, Word.FAILED, 1);
  }

  /** A mutation was acknowledged that is not on stable storage by itself. */
  acknowledge(): void {
    Atomics.add(this.#words, Word.ACKNOWLEDGED, 1);
  }

  /** What a FLUSH covers that is sent now: to be given to {@link cover} when it has succeeded. */
  mark(): number {
    return Atomics.load(this.#words, Word.ACKNOWLEDGED);
  }

  /** The FLUSH of that mark has succeeded. Flushes may end in another order than they were sent. */
  cover(mark: number): void {
    let covered = Atomics.load(this.#words, Word.COVERED);
    while (((mark - covered) | 0) > 0) {
      const found = Atomics.compareExchange(this.#words, Word.COVERED, covered, mark);
      if (found === covered) return;
      covered = found;
    }
  }
}
