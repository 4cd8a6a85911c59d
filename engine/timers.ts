/**
 * Timers of one Worker: a binary heap of fixed capacity, made at start-up.
 *
 * @module
 */

/** Is called when a timer that it scheduled is due. */
export interface TimerHandler {
  /** @param tag the tag given to {@link Timers.schedule} */
  expire(tag: number): void;
}

/** Time for those who must not look at a clock themselves, so that a simulator can give them its own. */
export interface Clock {
  /** Milliseconds from a fixed but arbitrary moment, with fractions; never goes back. */
  now(): number;
}

/**
 * A queue of (deadline, handler, tag). Scheduling and expiring allocate nothing. A timer cannot be cancelled: a handler
 * whose reason has gone ignores the tag. Timers of one deadline expire in the order in which they were scheduled.
 */
export class Timers implements Clock {
  readonly #clock: Clock;
  readonly #deadlines: Float64Array;
  /** The order of scheduling, to keep equal deadlines in order. */
  readonly #orders: Float64Array;
  readonly #tags: Float64Array;
  readonly #handlers: (TimerHandler | null)[];
  #count = 0;
  #nextOrder = 0;
  /** The moment that {@link expire} is working on, else -Infinity. */
  #expiringMs = -Infinity;

  /**
   * @param capacity how many timers may run at once
   * @param clock where {@link now} comes from
   */
  constructor(capacity: number, clock: Clock) {
    if (!Number.isSafeInteger(capacity) || capacity < 1) throw new RangeError(`Cannot make ${capacity} timers`);
    this.#clock = clock;
    this.#deadlines = new Float64Array(capacity);
    this.#orders = new Float64Array(capacity);
    this.#tags = new Float64Array(capacity);
    this.#handlers = new Array<TimerHandler | null>(capacity).fill(null);
  }

  /** How many timers are running. */
  get count(): number {
    return this.#count;
  }

  now(): number {
    return this.#clock.now();
  }

  /**
   * Starts a timer.
   *
   * @param handler is called by {@link expire} when `deadlineMs` has come
   * @param tag any safe integer
   * @param deadlineMs a moment of the clock
   * @throws {RangeError} when all timers are running, which the sum of all owners' timers must exclude
   */
  schedule(handler: TimerHandler, tag: number, deadlineMs: number): void {
    if (this.#count === this.#handlers.length) {
      throw new RangeError(`Cannot start a timer: all ${this.#count} are running`);
    }
    if (Number.isNaN(deadlineMs)) throw new RangeError("Cannot start a timer: its deadline is not a number");
    // Not before what is due already: else a handler that always starts a due timer would keep all others waiting.
    if (deadlineMs < this.#expiringMs) deadlineMs = this.#expiringMs;
    const order = this.#nextOrder++;
    let at = this.#count++;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!this.#before(deadlineMs, order, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#place(at, deadlineMs, order, tag, handler);
  }

  /** The earliest deadline, or Infinity without a timer. */
  nextDeadline(): number {
    return this.#count === 0 ? Infinity : this.#deadlines[0];
  }

  /**
   * Calls the handlers of all timers that are due at `now` and were scheduled before the call. What they schedule
   * meanwhile waits for the next call, so that a handler that always starts a due timer cannot hold the loop.
   *
   * @param now in milliseconds of the clock
   * @returns how many timers expired
   */
  expire(now: number): number {
    const before = this.#nextOrder;
    let expired = 0;
    this.#expiringMs = now;
    while (this.#count > 0 && this.#deadlines[0] <= now && this.#orders[0] < before) {
      const handler = this.#handlers[0]!;
      const tag = this.#tags[0];
      this.#removeFirst();
      expired++;
      handler.expire(tag);
    }
    this.#expiringMs = -Infinity;
    return expired;
  }

  #removeFirst(): void {
    const last = --this.#count;
    const deadline = this.#deadlines[last];
    const order = this.#orders[last];
    const tag = this.#tags[last];
    const handler = this.#handlers[last];
    this.#handlers[last] = null;
    if (last === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= last) break;
      if (child + 1 < last && this.#before(this.#deadlines[child + 1], this.#orders[child + 1], child)) child++;
      if (this.#before(deadline, order, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#place(at, deadline, order, tag, handler);
  }

  /** Whether a timer comes before the one at the index. */
  #before(deadline: number, order: number, index: number): boolean {
    const other = this.#deadlines[index];
    return deadline < other || (deadline === other && order < this.#orders[index]);
  }

  #move(from: number, to: number): void {
    this.#place(to, this.#deadlines[from], this.#orders[from], this.#tags[from], this.#handlers[from]);
  }

  #place(at: number, deadline: number, order: number, tag: number, handler: TimerHandler | null): void {
    this.#deadlines[at] = deadline;
    this.#orders[at] = order;
    this.#tags[at] = tag;
    this.#handlers[at] = handler;
  }
}
