/**
 * Virtual time: what happens next, and when. Nothing in a simulated world waits for anything else.
 *
 * @module
 */
import type { Clock } from "../../engine/timers.ts";

/** Something that happens at a moment. */
export interface Event {
  /** @param argument as it was given with the event */
  fire(argument: number): void;
}

/** Events in the order of their times; those of one time in the order in which they were scheduled. */
export class Events implements Clock {
  /** Milliseconds since the world's beginning, with fractions. */
  time = 0;
  #times = new Float64Array(1024);
  #orders = new Float64Array(1024);
  #arguments = new Float64Array(1024);
  readonly #events: (Event | null)[] = [];
  #count = 0;
  #nextOrder = 0;

  /** How many events are to come. */
  get count(): number {
    return this.#count;
  }

  now(): number {
    return this.time;
  }

  /** Has an event happen so many milliseconds from now. */
  after(delayMs: number, event: Event, argument = 0): void {
    this.at(this.time + delayMs, event, argument);
  }

  /** Has an event happen at a moment, which is now at the earliest. */
  at(time: number, event: Event, argument = 0): void {
    if (!(time >= this.time)) throw new RangeError(`Cannot go back to ${time} from ${this.time}`);
    if (this.#count === this.#times.length) this.#grow();
    const order = this.#nextOrder++;
    let place = this.#count++;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      if (this.#times[parent] <= time) break;
      this.#move(parent, place);
      place = parent;
    }
    this.#put(place, time, order, event, argument);
  }

  /** Has the next event happen; false: there is none. */
  step(): boolean {
    if (this.#count === 0) return false;
    const event = this.#events[0]!;
    const argument = this.#arguments[0];
    this.time = this.#times[0];
    this.#removeFirst();
    event.fire(argument);
    return true;
  }

  #removeFirst(): void {
    const last = --this.#count;
    const time = this.#times[last];
    const order = this.#orders[last];
    const argument = this.#arguments[last];
    const event = this.#events[last]!;
    this.#events[last] = null;
    if (last === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= last) break;
      if (child + 1 < last && this.#isBefore(this.#times[child + 1], this.#orders[child + 1], child)) child++;
      if (this.#isBefore(time, order, child)) break;
      this.#move(child, place);
      place = child;
    }
    this.#put(place, time, order, event, argument);
  }

  #isBefore(time: number, order: number, place: number): boolean {
    return time < this.#times[place] || (time === this.#times[place] && order < this.#orders[place]);
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#times[from], this.#orders[from], this.#events[from]!, this.#arguments[from]);
  }

  #put(place: number, time: number, order: number, event: Event, argument: number): void {
    this.#times[place] = time;
    this.#orders[place] = order;
    this.#arguments[place] = argument;
    this.#events[place] = event;
  }

  #grow(): void {
    const grown = (array: Float64Array<ArrayBuffer>) => {
      const larger = new Float64Array(2 * array.length);
      larger.set(array);
      return larger;
    };
    this.#times = grown(this.#times);
    this.#orders = grown(this.#orders);
    this.#arguments = grown(this.#arguments);
  }
}
