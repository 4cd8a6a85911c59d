/**
 * Stable storage: the syncs of one disk in one Worker, and the failure that sticks to all of them.
 *
 * @module
 */
import { check, Errno } from "../../ffi/errno.ts";
import type { CompletionHandler, Loop } from "../../ffi/loop.ts";
import { SlotDispatch } from "./dispatch.ts";

/**
 * The failure of a disk: the first failed sync, be it of a FLUSH or of a FUA mutation, after which nothing that promises stable storage may
 * succeed any more. The kernel reports a lost page once and then counts it as clean, so a later success would be a lie.
 * All Workers that serve the disk share the word.
 */
export class StickyFailure {
  readonly #word: Int32Array;
  readonly #onFirst: () => void;

  /**
   * @param word one number over a SharedArrayBuffer, 0 at the start; see {@link makeStickyWord}
   * @param onFirst is called when the failure that is recorded here is the first one, so in one Worker at most
   */
  constructor(word: Int32Array, onFirst: () => void = () => {}) {
    if (word.length < 1) throw new RangeError("Cannot keep a sticky failure in no memory");
    this.#word = word;
    this.#onFirst = onFirst;
  }

  /** 0, or the negative errno of the first failure. */
  get status(): number {
    return Atomics.load(this.#word, 0);
  }

  /** Records a failure, unless there is one. */
  record(status: number): void {
    if (Atomics.compareExchange(this.#word, 0, 0, status) === 0 && status !== 0) this.#onFirst();
  }
}

/** The memory of a {@link StickyFailure}, to be given to each Worker that serves the disk. */
export function makeStickyWord(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(4));
}

/** Who is told that a sync has ended. */
export interface SyncClient {
  /** @param status 0 or a negative errno, which is sticky already */
  onSynced(slot: number, status: number): void;
}

/** End of a list of slots. */
const NONE = -1;

/** How often in a row an interrupted or deferred operation is tried again before its errno is believed. */
export const RETRIES_MAX = 100;

/**
 * Syncs in groups, for FLUSH and for FUA: one fdatasync at a time, and all that ask meanwhile share the next one.
 *
 * The kernel reports a lost page once *to each open description* (errseq_t, Documentation/core-api/errseq.rst in its
 * sources). So with two syncs of one description under way, or two writes with RWF_DSYNC, one could take the error of
 * both and the other succeed. Therefore one at a time, and on a description of the Worker's own, which is only ever
 * synced: an exporter that is killed leaves no write on it that the lock (on the disk's first description) would not
 * see.
 */
export class SyncGroup implements CompletionHandler {
  readonly #loop: Loop;
  readonly #dispatch: SlotDispatch;
  readonly #sticky: StickyFailure;
  readonly #client: SyncClient;
  readonly #fd: number;
  readonly #next: Int32Array;
  #waitingHead = NONE;
  #waitingTail = NONE;
  #runningHead = NONE;
  #running = false;
  #generation = 0;
  #retries = 0;

  /**
   * @param fd the disk
   * @param slotCount how many slots the Worker has
   * @throws {SystemError} the disk cannot be opened once more: to sync the description that others write on or sync,
   *   would be to promise what is not known
   */
  constructor(fd: number, loop: Loop, slotCount: number, sticky: StickyFailure, client: SyncClient) {
    this.#loop = loop;
    this.#dispatch = SlotDispatch.of(loop, slotCount);
    this.#sticky = sticky;
    this.#client = client;
    this.#next = new Int32Array(slotCount).fill(NONE);
    this.#fd = check(loop.calls.reopen(fd), "open the disk once more, for its syncs");
  }

  /** Asks for a sync of everything that is done by now; the client is told later, never from within. */
  request(slot: number): void {
    if (this.#waitingHead === NONE) this.#waitingHead = slot;
    else this.#next[this.#waitingTail] = slot;
    this.#waitingTail = slot;
    if (!this.#running) this.#start();
  }

  complete(_tag: number, generation: number, result: number): void {
    if (generation !== this.#generation) throw new Error("A sync completed twice");
    if ((result === -Errno.EINTR || result === -Errno.EAGAIN) && this.#retries++ < RETRIES_MAX) {
      this.#queue();
      return;
    }
    if (result < 0) this.#sticky.record(result);
    const status = this.#sticky.status;
    let slot = this.#runningHead;
    this.#runningHead = NONE;
    this.#running = false;
    if (this.#waitingHead !== NONE) this.#start();
    while (slot !== NONE) {
      // The slot may be used again from within the call.
      const next = this.#next[slot];
      this.#next[slot] = NONE;
      this.#client.onSynced(slot, status);
      slot = next;
    }
  }

  /** Gives the description back. Nothing is under way. */
  close(): void {
    this.#loop.calls.close(this.#fd);
  }

  #start(): void {
    this.#runningHead = this.#waitingHead;
    this.#waitingHead = NONE;
    this.#waitingTail = NONE;
    this.#running = true;
    this.#retries = 0;
    this.#queue();
  }

  #queue(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    // The first slot of the group stands for all of it.
    const slot = this.#runningHead;
    this.#dispatch.claim(slot, this);
    this.#loop.fdatasync(this.#fd, this.#dispatch.kind, slot, this.#generation);
  }
}
