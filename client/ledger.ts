/**
 * What the lanes of a session know together: which mutations failed, which were acknowledged and not covered by a FLUSH, so
 * that they may still be lost, and whether a lane owes a fence.
 *
 * @module
 */

import { IDENTITY_BYTES } from "../protocol/grant.ts";

/** Words of the shared memory. */
const Word = {
  /** How many mutations were acknowledged. */
  ACKNOWLEDGED: 0,
  /** How many of them a FLUSH has covered. */
  COVERED: 1,
  /** Not 0: a mutation has failed. */
  FAILED: 2,
  /** How many lanes owe a fence: each has given up a request that was sent. */
  FENCES: 3,
  /** Not 0: what was acknowledged is lost, and nothing can be written any more. */
  LOST: 4,
  /** How many durability epochs there have been. */
  EPOCHS: 5,
  /** How often the session was opened again. */
  OPENINGS: 6,
  /** Not 0: another process may have had something acknowledged that is not covered. */
  INHERITED: 7,
  /** Guards the durability epoch, which is in the words from here on. */
  LOCK: 8,
  DURABILITY: 9,
} as const;

/** Bytes that a ledger needs. */
export const LEDGER_BYTES = Word.DURABILITY * 4 + IDENTITY_BYTES;

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
  readonly #durability: Uint8Array;

  /** @param memory {@link LEDGER_BYTES}, zero at first, the same for all lanes of a session */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(LEDGER_BYTES)) {
    this.#words = new Int32Array(memory);
    this.#durability = new Uint8Array(memory, Word.DURABILITY * 4, IDENTITY_BYTES);
  }

  /** Whether every mutation that was acknowledged is covered. */
  get isCovered(): boolean {
    const acknowledged = Atomics.load(this.#words, Word.ACKNOWLEDGED);
    return acknowledged === Atomics.load(this.#words, Word.COVERED) && !this.hasInherited;
  }

  /** Whether the process before may have had something acknowledged that no FLUSH has covered: there is no copy of it. */
  get hasInherited(): boolean {
    return Atomics.load(this.#words, Word.INHERITED) !== 0;
  }

  /**
   * The session is that of another process, which is gone. Called once, before any lane knows the ledger.
   *
   * @param durability the epoch that the other process has lived with: 16 bytes
   * @param lanes how many lanes that process had: each owes a fence, as what was sent on it may still be executing
   * @param mayLose whether something may have been acknowledged that is not on stable storage
   */
  inherit(durability: Uint8Array, lanes: number, mayLose: boolean): void {
    this.meet(durability);
    if (mayLose) Atomics.store(this.#words, Word.INHERITED, 1);
    Atomics.store(this.#words, Word.FENCES, lanes);
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
    Atomics.store(this.#words, Word.INHERITED, 0);
    let covered = Atomics.load(this.#words, Word.COVERED);
    while (((mark - covered) | 0) > 0) {
      const found = Atomics.compareExchange(this.#words, Word.COVERED, covered, mark);
      if (found === covered) return;
      covered = found;
    }
  }

  /**
   * Whether something that was acknowledged is lost for good: every mutation and FLUSH fails from then on, since whoever
   * has one fail and the next succeed would take all for well.
   */
  get isLost(): boolean {
    return Atomics.load(this.#words, Word.LOST) !== 0;
  }

  /** Something that was acknowledged is lost: see {@link isLost}. */
  lose(): void {
    Atomics.store(this.#words, Word.LOST, 1);
  }

  /** How many durability epochs the exporter has had. What was acknowledged in an earlier one counts no more. */
  get epochs(): number {
    return Atomics.load(this.#words, Word.EPOCHS);
  }

  /**
   * A lane was connected and told the exporter's durability epoch. The first lane that learns of another one finds out
   * whether something is {@link isLost}: before any lane can have something acknowledged or covered in the new epoch.
   *
   * @param durability 16 bytes
   * @returns {@link epochs}
   */
  meet(durability: Uint8Array): number {
    this.#lock();
    const isFirst = this.epochs === 0;
    if (isFirst || durability.some((byte, i) => byte !== this.#durability[i])) {
      // Counted first: a lane that has something acknowledged meanwhile sees either this, or is seen below.
      Atomics.add(this.#words, Word.EPOCHS, 1);
      if (!isFirst && !this.isCovered) this.lose();
      this.#durability.set(durability);
    }
    Atomics.store(this.#words, Word.LOCK, 0);
    return this.epochs;
  }

  /** How often the session was opened again: the exporter then knows nothing any more of what any lane has sent. */
  get openings(): number {
    return Atomics.load(this.#words, Word.OPENINGS);
  }

  /** Lane 0 has opened the session again. */
  opened(): void {
    Atomics.add(this.#words, Word.OPENINGS, 1);
  }

  /** Whether a lane owes a fence: no mutation is to be sent. */
  get isFencing(): boolean {
    return Atomics.load(this.#words, Word.FENCES) !== 0;
  }

  /** A lane has given up a request that was sent. It may still land, until the lane is joined again. */
  oweFence(): void {
    Atomics.add(this.#words, Word.FENCES, 1);
  }

  /** A lane that owed a fence was joined again: nothing of the connection before executes any more. */
  fenced(): void {
    Atomics.sub(this.#words, Word.FENCES, 1);
  }

  #lock(): void {
    // Held for microseconds, and only while a lane is being connected.
    while (Atomics.compareExchange(this.#words, Word.LOCK, 0, 1) !== 0);
  }
}
