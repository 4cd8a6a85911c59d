/**
 * What the lanes of a session know together: which mutations failed, which were acknowledged and not covered by a FLUSH, so
 * that they may still be lost, and whether a lane owes a fence.
 *
 * @module
 */
import { Operation, RequestFlag } from "../engine/block.ts";
import { Errno } from "../ffi/errno.ts";
import { IDENTITY_BYTES } from "../protocol/grant.ts";
import { lock, unlock } from "./spin_lock.ts";
import { isMutation } from "./transactions.ts";

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
  /** The last of the mutations that were acknowledged and were not on stable storage by themselves. */
  LOSABLE: 8,
  /** The lane that writes again what is lost, counted from 1; 0: none does. */
  REPLAYER: 9,
  /** Goes on as long as that lane has a chance. */
  BEATS: 10,
  /** Not 0: the exporter could not put on stable storage what was acknowledged up to DOUBT. */
  DOUBTED: 11,
  DOUBT: 12,
  /** Guards the durability epoch, which is in the words from here on. */
  LOCK: 13,
  DURABILITY: 14,
} as const;

/** The copies of what may be lost, as far as the ledger has to do with them. */
export interface Copies {
  /** Whose they are. */
  readonly lane: number;
  /**
   * Another durability epoch has begun: no lane takes, or covers, anything any more that was acknowledged before.
   *
   * @returns whether all that is uncovered can be written again
   */
  freeze(): boolean;
}

/** Bytes that a ledger needs. */
export const LEDGER_BYTES = Word.DURABILITY * 4 + IDENTITY_BYTES;

/** What a FLUSH, or a mutation with FUA, may fail with before anything was tried. */
const HARMLESS: readonly number[] = [Errno.ESHUTDOWN, Errno.ESTALE, Errno.EOPNOTSUPP, Errno.EINVAL, Errno.EROFS];

/**
 * Whether a failure says that the exporter may have lost something that it has acknowledged: see
 * {@link MutationLedger.doubt}.
 *
 * @param flags a `RequestFlag` set
 * @param status a negative errno
 */
export function isDoubt(operation: number, flags: number, status: number): boolean {
  const isSync = operation === Operation.FLUSH || (isMutation(operation) && (flags & RequestFlag.FUA) !== 0);
  return isSync && !HARMLESS.includes(-status);
}

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

  /** Whether every mutation that was acknowledged is on stable storage. */
  get isCovered(): boolean {
    const losable = Atomics.load(this.#words, Word.LOSABLE);
    return ((this.covered - losable) | 0) >= 0 && !this.hasInherited;
  }

  /** How many of those that were acknowledged a FLUSH has covered: all up to this one. */
  get covered(): number {
    return Atomics.load(this.#words, Word.COVERED);
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

  /**
   * A mutation was acknowledged.
   *
   * @param isDurable it is on stable storage by itself, and counts for its place among the others alone
   * @returns its place in the order of all
   */
  acknowledge(isDurable = false): number {
    const order = (Atomics.add(this.#words, Word.ACKNOWLEDGED, 1) + 1) | 0;
    if (!isDurable) this.#raise(Word.LOSABLE, order);
    return order;
  }

  /** What a FLUSH covers that is sent now: to be given to {@link cover} when it has succeeded. */
  mark(): number {
    return Atomics.load(this.#words, Word.ACKNOWLEDGED);
  }

  /** The FLUSH of that mark has succeeded. Flushes may end in another order than they were sent. */
  cover(mark: number): void {
    Atomics.store(this.#words, Word.INHERITED, 0);
    this.#raise(Word.COVERED, mark);
  }

  /**
   * The exporter has failed to put something on stable storage: what was acknowledged and is not covered may be lost with its
   * process already, though it may not be able to say so when it starts again.
   */
  doubt(): void {
    Atomics.store(this.#words, Word.DOUBT, this.mark());
    Atomics.store(this.#words, Word.DOUBTED, 1);
  }

  /** Whether there is a {@link doubt} that no FLUSH has dispelled since. */
  get #isDoubtful(): boolean {
    if (Atomics.load(this.#words, Word.DOUBTED) === 0) return false;
    return ((this.covered - Atomics.load(this.#words, Word.DOUBT)) | 0) < 0;
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

  /** Whether a lane writes again what is lost: until that is done nothing else is sent on any lane. */
  get isReplaying(): boolean {
    return Atomics.load(this.#words, Word.REPLAYER) !== 0;
  }

  /** Whether it is this lane that does so. */
  isReplayer(lane: number): boolean {
    return Atomics.load(this.#words, Word.REPLAYER) === lane + 1;
  }

  /** Grows, or has gone round, from time to time while {@link isReplaying} and that lane has a chance. */
  get beats(): number {
    return Atomics.load(this.#words, Word.BEATS);
  }

  /** The lane that writes again what is lost has a chance. */
  beat(): void {
    Atomics.add(this.#words, Word.BEATS, 1);
  }

  /**
   * All that was lost is written again and on stable storage.
   *
   * @param epochs in which durability epoch
   * @returns false when there is another one already, so that all is lost again
   */
  replayed(epochs: number): boolean {
    lock(this.#words, Word.LOCK);
    const isDone = this.epochs === epochs;
    if (isDone) {
      this.cover(this.mark());
      this.endReplay();
    }
    unlock(this.#words, Word.LOCK);
    return isDone;
  }

  /** Nothing is written again any more. */
  endReplay(): void {
    Atomics.store(this.#words, Word.REPLAYER, 0);
  }

  /** How many durability epochs the exporter has had. What was acknowledged in an earlier one counts no more. */
  get epochs(): number {
    return Atomics.load(this.#words, Word.EPOCHS);
  }

  /**
   * A lane was connected and told the exporter's durability epoch. The first lane that learns of another one finds out
   * whether something is lost: before any lane can have something acknowledged or covered in the new epoch. Then it is the
   * lane that writes it again, if there are copies; else it {@link isLost}.
   *
   * @param durability 16 bytes
   * @param isOther whether it is another process of the exporter than the one before: after a {@link doubt} its epoch counts
   * as another one
   * @returns {@link epochs}
   */
  meet(durability: Uint8Array, copies: Copies | null = null, isOther = false): number {
    lock(this.#words, Word.LOCK);
    const isFirst = this.epochs === 0;
    const isChanged = durability.some((byte, i) => byte !== this.#durability[i]);
    if (isFirst || isChanged || (isOther && this.#isDoubtful)) {
      Atomics.store(this.#words, Word.DOUBTED, 0);
      // A lane that has begun already begins again when it learns of this.
      const isAtStake = !isFirst && !this.isReplaying && !this.isLost;
      // Before the count: whoever knows of the new epoch knows of this.
      if (isAtStake && copies !== null) Atomics.store(this.#words, Word.REPLAYER, copies.lane + 1);
      // Counted first: a lane that has something acknowledged meanwhile sees either this, or is seen below.
      Atomics.add(this.#words, Word.EPOCHS, 1);
      this.#durability.set(durability);
      if (isAtStake) this.#judge(copies);
    }
    unlock(this.#words, Word.LOCK);
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

  #judge(copies: Copies | null): void {
    const isWhole = copies !== null && copies.freeze();
    if (!this.isCovered) {
      if (isWhole) return;
      this.lose();
    }
    if (copies !== null) this.endReplay();
  }

  /** Makes a count at least that. */
  #raise(word: number, count: number): void {
    let found = Atomics.load(this.#words, word);
    while (((count - found) | 0) > 0) {
      const before = Atomics.compareExchange(this.#words, word, found, count);
      if (before === found) return;
      found = before;
    }
  }
}
