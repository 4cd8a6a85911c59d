/**
 * The requests of a session from their submission to their end, whatever becomes of its connections: state per slot of the
 * Worker, in parallel arrays made at the start.
 *
 * @module
 */
import { type BlockClient, Operation, RequestFlag } from "../engine/block.ts";

/** What a request is doing. */
export const TransactionState = {
  FREE: 0,
  /** Waits until a mutation that overlaps it has ended, or a lane has been fenced. */
  BLOCKED: 1,
  /** Waits for a slot or credit of the lane, or for a connection. */
  READY: 2,
  /** Has a slot of the lane: it was sent, on this connection or an earlier one. */
  SENT: 3,
} as const;

/** Whether an operation changes the disk. */
export function isMutation(operation: number): boolean {
  return operation === Operation.WRITE || operation === Operation.WRITE_ZEROES || operation === Operation.DISCARD;
}

/** Whether an operation changes the disk, or puts what was changed on stable storage. */
export function isWriter(operation: number): boolean {
  return isMutation(operation) || operation === Operation.FLUSH;
}

/** All requests of one lane that have not ended. Looks at no clock: the present time is an argument. */
export class Transactions {
  /** How many there are. */
  count = 0;
  readonly operation: Uint8Array;
  /** `RequestFlag` sets. */
  readonly flags: Uint8Array;
  /** How much of a READ or WRITE is not done, in bytes. */
  readonly left: Float64Array;
  /** Of a BLOCK_STATUS: its answer. */
  readonly extentBytes: Uint32Array;
  /** Of a FLUSH: what it covers. */
  readonly marks: Int32Array;
  /** On how many connections a request was sent since something came of it: its first part, say. */
  readonly tries: Uint32Array;
  readonly #clients: (BlockClient | null)[];
  readonly #state: Uint8Array;
  readonly #submittedMs: Float64Array;
  /** In which order they were submitted. */
  readonly #order: Float64Array;
  #nextOrder = 0;
  /** READY, in the order in which they are to be sent: a ring. */
  readonly #ready: Uint32Array;
  #readyHead = 0;
  #readyCount = 0;
  /** BLOCKED, in the order in which they were submitted. */
  readonly #blocked: Uint32Array;
  #blockedCount = 0;

  /** @param slots how many slots the Worker has */
  constructor(slots: number) {
    this.operation = new Uint8Array(slots);
    this.flags = new Uint8Array(slots);
    this.left = new Float64Array(slots);
    this.extentBytes = new Uint32Array(slots);
    this.marks = new Int32Array(slots);
    this.tries = new Uint32Array(slots);
    this.#clients = new Array<BlockClient | null>(slots).fill(null);
    this.#state = new Uint8Array(slots);
    this.#submittedMs = new Float64Array(slots);
    this.#order = new Float64Array(slots);
    this.#ready = new Uint32Array(slots);
    this.#blocked = new Uint32Array(slots);
  }

  /** Begins one, which is neither ready nor blocked yet. */
  begin(slot: number, operation: number, flags: number, client: BlockClient, now: number): void {
    if (this.#clients[slot] !== null) throw new Error(`Slot ${slot} has a request already`);
    this.#clients[slot] = client;
    this.operation[slot] = operation;
    this.flags[slot] = flags;
    this.tries[slot] = 0;
    this.#submittedMs[slot] = now;
    this.#order[slot] = this.#nextOrder++;
    this.count++;
  }

  /** Ends one that is neither ready nor blocked; its slot may be used again. Gives whoever is to be told. */
  end(slot: number): BlockClient {
    const client = this.#clients[slot];
    if (client === null) throw new Error(`Slot ${slot} has no request`);
    this.#clients[slot] = null;
    this.#state[slot] = TransactionState.FREE;
    this.count--;
    return client;
  }

  /** A `TransactionState`. */
  stateOf(slot: number): number {
    return this.#state[slot];
  }

  /** It has a slot of the lane from now on. */
  sent(slot: number): void {
    this.#state[slot] = TransactionState.SENT;
  }

  /** It goes after all that are ready. */
  pushReady(slot: number): void {
    this.#state[slot] = TransactionState.READY;
    this.#ready[(this.#readyHead + this.#readyCount++) % this.#ready.length] = slot;
  }

  /** How many are ready. */
  get readyCount(): number {
    return this.#readyCount;
  }

  /** The one that is to be sent next. */
  get firstReady(): number {
    return this.#ready[this.#readyHead];
  }

  /** Takes {@link firstReady} away. */
  shiftReady(): void {
    this.#readyHead = (this.#readyHead + 1) % this.#ready.length;
    this.#readyCount--;
  }

  /** It waits from now on, after all that do. */
  block(slot: number): void {
    this.#state[slot] = TransactionState.BLOCKED;
    this.#blocked[this.#blockedCount++] = slot;
  }

  /** How many are blocked. */
  get blockedCount(): number {
    return this.#blockedCount;
  }

  /** A blocked one, 0 being the one that has waited longest. */
  blockedAt(index: number): number {
    return this.#blocked[index];
  }

  /** Makes the blocked one at the index ready. */
  unblock(index: number): void {
    const slot = this.#blocked[index];
    this.#blockedCount--;
    this.#blocked.copyWithin(index, index + 1, this.#blockedCount + 1);
    this.pushReady(slot);
  }

  // What follows is for when a connection was lost, and makes garbage.

  /** How many have a slot of the lane. */
  get sentCount(): number {
    return this.#slotsIn(TransactionState.SENT).length;
  }

  /** Makes all that have a slot of the lane ready again, before those that are: each where it was submitted. */
  requeue(): void {
    const slots = [...this.#slotsIn(TransactionState.SENT), ...this.#slotsIn(TransactionState.READY)];
    this.#readyCount = 0;
    for (const slot of this.#inOrder(slots)) this.pushReady(slot);
  }

  /**
   * Those that have expired, in the order in which they were submitted.
   *
   * @param lifeMs when there was life last
   * @param limits how long one without life lives; of how many connections nothing may come: then life does not count
   * @param fencingMs since when a fence is due: the life of its own lane does not help what waits for it; Infinity: none is
   * @param holdsSent whether mutations that were sent wait for it, too
   * @param holdsAll whether everything waits, and not for a fence alone
   */
  expired(
    now: number,
    lifeMs: number,
    limits: { readonly windowMs: number; readonly tries: number },
    fencingMs = Infinity,
    holdsSent = false,
    holdsAll = false,
  ): number[] {
    return this.#where((slot) => {
      const state = this.#state[slot];
      const isHeld = state === TransactionState.SENT
        ? holdsSent && (holdsAll || isMutation(this.operation[slot]))
        : holdsAll || state === TransactionState.BLOCKED;
      let fromMs = isHeld ? Math.min(lifeMs, fencingMs) : lifeMs;
      if (this.tries[slot] > limits.tries) fromMs = -Infinity;
      return now - Math.max(this.#submittedMs[slot], fromMs) >= limits.windowMs;
    });
  }

  /** Those of {@link isWriter} that have no slot of the lane, in the order of submission. */
  waitingWriters(): number[] {
    return this.#where((slot) => isWriter(this.operation[slot]) && this.#state[slot] !== TransactionState.SENT);
  }

  /**
   * Whether a WRITE was done in part, and that part is not on stable storage by itself.
   *
   * @param length of each slot's request, in bytes
   */
  hasPartialWrite(length: Float64Array): boolean {
    return this.#where((slot) => {
      const isDurable = (this.flags[slot] & RequestFlag.FUA) !== 0;
      return this.operation[slot] === Operation.WRITE && this.left[slot] < length[slot] && !isDurable;
    }).length > 0;
  }

  /** All of them, in the order in which they were submitted. */
  all(): number[] {
    return this.#where(() => true);
  }

  /** Takes these out of the queues, so that each can be ended. */
  withdraw(slots: readonly number[]): void {
    for (const slot of slots) this.#state[slot] = TransactionState.FREE;
    const ready = Array.from({ length: this.#readyCount }, (_, i) => {
      return this.#ready[(this.#readyHead + i) % this.#ready.length];
    });
    this.#readyCount = 0;
    for (const slot of ready) if (this.#state[slot] === TransactionState.READY) this.pushReady(slot);
    const blocked = this.#blocked.slice(0, this.#blockedCount);
    this.#blockedCount = 0;
    for (const slot of blocked) if (this.#state[slot] === TransactionState.BLOCKED) this.block(slot);
  }

  #slotsIn(state: number): number[] {
    return this.#where((slot) => this.#state[slot] === state);
  }

  #where(condition: (slot: number) => boolean): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < this.#clients.length; slot++) {
      if (this.#clients[slot] !== null && condition(slot)) slots.push(slot);
    }
    return this.#inOrder(slots);
  }

  #inOrder(slots: number[]): number[] {
    return slots.sort((a, b) => this.#order[a] - this.#order[b]);
  }
}
