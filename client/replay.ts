/**
 * Writes again what an exporter has lost with its memory: all that was acknowledged on any lane and not covered, in one
 * order, by one lane, before anything else is sent.
 *
 * @module
 */
import { Operation, RequestFlag } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import type { LaneIo } from "./lane_io.ts";
import type { MutationLedger } from "./ledger.ts";
import type { ReplayMemory } from "./replay_log.ts";
import type { Transactions } from "./transactions.ts";

/** How many mutations are under way at once: enough for a disk to have something to do, over a fast network. */
export const REPLAY_SLOTS = 8;

/** What a slot of the replay's does. */
const State = {
  FREE: 0,
  /** Has what is to be sent. */
  LOADED: 1,
  /** Was sent, on this connection or an earlier one. */
  SENT: 2,
} as const;

/** What it belongs to. */
export interface ReplayOptions {
  readonly memory: ReplayMemory;
  readonly ledger: MutationLedger;
  readonly transactions: Transactions;
  readonly io: LaneIo;
  /** {@link REPLAY_SLOTS} of the Worker's, for good. */
  readonly slots: Uint32Array;
}

/** Who is told what becomes of it. */
export interface ReplayHost {
  /** Whether there is a connection that takes requests. */
  readonly isOpen: boolean;
  /** Calls {@link Replayer.run} in a while: another lane holds it up. */
  poll(): void;
  /** All is written again, and everything may go on. So many mutations, with so many bytes. */
  onReplayed(count: number, bytes: number, tookMs: number): void;
  /** It cannot be. The reason is for people. */
  onReplayFailed(reason: string): void;
}

/**
 * One lane's part in it: does nothing unless the lane was chosen. Its slots are known to no `Transactions` list, so that they
 * neither expire nor count; they take the lane's slots beside those of other requests, which are not sent meanwhile.
 */
export class Replayer {
  isActive = false;
  readonly #engine: Engine;
  readonly #options: ReplayOptions;
  readonly #host: ReplayHost;
  readonly #state = new Uint8Array(REPLAY_SLOTS);
  /** In which durability epoch it is done. */
  #epochs = 0;
  /** What is to be written, in order. */
  #places: Uint32Array = new Uint32Array(0);
  /** The first of it that no slot has had. */
  #next = 0;
  #bytes = 0;
  /** A FLUSH was made that covers all of it. */
  #isFlushing = false;
  #startedMs = 0;

  constructor(engine: Engine, options: ReplayOptions, host: ReplayHost) {
    if (options.slots.length !== REPLAY_SLOTS) throw new Error("The replay has another number of slots");
    this.#engine = engine;
    this.#options = options;
    this.#host = host;
  }

  /**
   * The lane is the one to do it. Again when there is another durability epoch already: what was written again in the one
   * before is lost, too. What was sent then and not answered is of no harm, since all that may overlap it follows anew.
   *
   * @param epochs the epoch, by the ledger's count
   */
  begin(epochs: number): void {
    const { memory, ledger } = this.#options;
    if (!this.isActive) this.#startedMs = this.#engine.now;
    this.isActive = true;
    this.#epochs = epochs;
    this.#places = memory.uncovered(ledger.covered);
    this.#next = 0;
    this.#isFlushing = false;
    this.#bytes = 0;
    for (const place of this.#places) this.#bytes += memory.bytesOf(place);
  }

  /** The exporter remembers no request of the lane any more: all are sent as new. */
  requeue(): void {
    const { transactions, slots } = this.#options;
    for (let i = 0; i < REPLAY_SLOTS; i++) {
      if (this.#state[i] !== State.SENT) continue;
      const isStale = transactions.operation[slots[i]] === Operation.FLUSH && !this.#isFlushing;
      this.#state[i] = this.isActive && !isStale ? State.LOADED : State.FREE;
    }
  }

  /** Sends as much as it may. */
  run(): void {
    if (!this.isActive || !this.#host.isOpen) return;
    if (this.#options.ledger.isFencing) {
      this.#host.poll();
      return;
    }
    for (let i = 0; i < REPLAY_SLOTS; i++) if (this.#state[i] === State.LOADED && !this.#send(i)) return;
    while (this.#next < this.#places.length) {
      const free = this.#state.indexOf(State.FREE);
      const place = this.#places[this.#next];
      // In order: what overlaps waits, and all behind it.
      if (free < 0 || this.#overlaps(place)) return;
      this.#next++;
      this.#load(free, place);
      if (!this.#send(free)) return;
    }
    if (!this.#isFlushing && this.#state.every((state) => state === State.FREE)) this.#flush();
  }

  /**
   * The request in a slot of the lane has ended, which is the replay's.
   *
   * @returns false when the connection is out of date: it is to be dropped
   */
  completed(laneSlot: number, slot: number, status: number): boolean {
    const { ledger, transactions, io, slots } = this.#options;
    const index = slots.indexOf(slot);
    const operation = transactions.operation[slot];
    if (this.isActive) {
      const isOver = ledger.epochs !== this.#epochs;
      // What another epoch has answered is of no use, and neither is what an exporter that ends has not executed, or one
      // that knows the session no more.
      if (isOver || status === -Errno.ESHUTDOWN || status === -Errno.ESTALE) {
        this.#takeBack(laneSlot, index);
        return !isOver;
      }
      if (operation === Operation.WRITE && status === 0) {
        transactions.left[slot] -= io.partOf(slot);
        if (transactions.left[slot] > 0) {
          if (this.#host.isOpen) io.send(laneSlot);
          else this.#takeBack(laneSlot, index);
          return true;
        }
      }
    }
    io.finish(laneSlot);
    this.#state[index] = State.FREE;
    if (!this.isActive) return true;
    // To discard is advice, which may not be taken any more.
    if (status < 0 && !(operation === Operation.DISCARD && status === -Errno.EOPNOTSUPP)) {
      this.stop();
      this.#host.onReplayFailed(`the exporter could not ${verbOf(operation)} again: ${errnoMessage(status)}`);
      return true;
    }
    if (operation === Operation.FLUSH && this.#isFlushing) return this.#finish();
    this.run();
    return true;
  }

  /** There is nothing to be done any more. What was sent is awaited. */
  stop(): void {
    this.isActive = false;
    for (let i = 0; i < REPLAY_SLOTS; i++) if (this.#state[i] === State.LOADED) this.#state[i] = State.FREE;
  }

  #finish(): boolean {
    this.#isFlushing = false;
    if (!this.#options.ledger.replayed(this.#epochs)) return false;
    this.isActive = false;
    this.#host.onReplayed(this.#places.length, this.#bytes, this.#engine.now - this.#startedMs);
    return true;
  }

  /** What has a slot of the lane gives it back, and is sent again later. */
  #takeBack(laneSlot: number, index: number): void {
    this.#options.io.finish(laneSlot);
    this.#state[index] = State.LOADED;
  }

  /** Whether what is to be written overlaps what is under way. */
  #overlaps(place: number): boolean {
    const { memory, slots } = this.#options;
    const { offset, length } = this.#engine.slots;
    const start = memory.offset[place];
    const end = start + memory.length[place];
    return slots.some((slot, i) => {
      return this.#state[i] !== State.FREE && offset[slot] < end && offset[slot] + length[slot] > start;
    });
  }

  #load(index: number, place: number): void {
    const { memory, transactions } = this.#options;
    const slot = this.#options.slots[index];
    const { slots, arena } = this.#engine;
    memory.load(place, arena.bytes, slots.payloadAt(slot));
    slots.setRange(slot, memory.offset[place], memory.length[place]);
    transactions.operation[slot] = memory.operationOf(place);
    // A FLUSH follows; and what was fast before may take its time now.
    transactions.flags[slot] = memory.flagsOf(place) & ~(RequestFlag.FUA | RequestFlag.FAST_ZERO);
    transactions.left[slot] = slots.length[slot];
    this.#state[index] = State.LOADED;
  }

  #flush(): void {
    const { transactions, slots } = this.#options;
    this.#engine.slots.setRange(slots[0], 0, 0);
    transactions.operation[slots[0]] = Operation.FLUSH;
    transactions.flags[slots[0]] = 0;
    this.#state[0] = State.LOADED;
    this.#isFlushing = true;
    this.#send(0);
  }

  #send(index: number): boolean {
    if (!this.#options.io.start(this.#options.slots[index])) return false;
    this.#state[index] = State.SENT;
    return true;
  }
}

function verbOf(operation: number): string {
  switch (operation) {
    case Operation.FLUSH:
      return "flush it";
    case Operation.DISCARD:
      return "discard it";
    default:
      return "write it";
  }
}
