/**
 * The requests and parts under way on one NBD connection, in parallel typed arrays: nothing is allocated per request.
 *
 * A *request* is what the client sent; a *part* is a slot's worth of it. Most requests have one part. The parts of a
 * request that must be answered in order are linked in a list.
 *
 * @module
 */
import { assert } from "../assert.ts";
import { Reason } from "./reason.ts";

/** No request, no slot. */
export const NONE = -1;

/** All state per request (index: request) and per part (index: slot). */
export class Requests {
  /** The command flags and the `Command`, as on the wire. */
  readonly flags: Uint16Array;
  readonly command: Uint16Array;
  /** The cookie's two halves, as on the wire. */
  readonly cookieHigh: Uint32Array;
  readonly cookieLow: Uint32Array;
  /** In bytes. */
  readonly offset: Float64Array;
  readonly length: Uint32Array;
  /** Parts that were started and have not ended. */
  readonly partsLeft: Uint32Array;
  /** 1: no more parts will be started. */
  readonly issued: Uint8Array;
  /** The first failure, a `Reason`. */
  readonly reason: Uint8Array;
  /** The list of parts to be answered in order: slots, or NONE. */
  readonly first: Int32Array;
  readonly last: Int32Array;

  /** The request that the slot's part belongs to, or NONE. */
  readonly partRequest: Int32Array;
  readonly partOffset: Float64Array;
  readonly partLength: Uint32Array;
  readonly partStatus: Int32Array;
  /** 1: the part has ended and waits for the ones before it. */
  readonly partDone: Uint8Array;
  readonly partNext: Int32Array;

  readonly #free: Uint16Array;
  #freeCount: number;

  /** @param slots how many slots the connection has, at least 1 */
  constructor(slots: number) {
    // A request has at least one part under way, except the one whose parts are just being started.
    const count = slots + 1;
    this.flags = new Uint16Array(count);
    this.command = new Uint16Array(count);
    this.cookieHigh = new Uint32Array(count);
    this.cookieLow = new Uint32Array(count);
    this.offset = new Float64Array(count);
    this.length = new Uint32Array(count);
    this.partsLeft = new Uint32Array(count);
    this.issued = new Uint8Array(count);
    this.reason = new Uint8Array(count);
    this.first = new Int32Array(count);
    this.last = new Int32Array(count);
    this.partRequest = new Int32Array(slots).fill(NONE);
    this.partOffset = new Float64Array(slots);
    this.partLength = new Uint32Array(slots);
    this.partStatus = new Int32Array(slots);
    this.partDone = new Uint8Array(slots);
    this.partNext = new Int32Array(slots);
    this.#free = Uint16Array.from({ length: count }, (_, index) => index);
    this.#freeCount = count;
  }

  /** How many requests there are. */
  get live(): number {
    return this.#free.length - this.#freeCount;
  }

  /** A new request, with its own fields still to be filled in. */
  add(): number {
    assert(this.#freeCount > 0, "there are never more requests than slots and one");
    const request = this.#free[--this.#freeCount];
    this.partsLeft[request] = 0;
    this.issued[request] = 0;
    this.reason[request] = Reason.NONE;
    this.first[request] = NONE;
    this.last[request] = NONE;
    return request;
  }

  /** The request is over. */
  remove(request: number): void {
    assert(this.partsLeft[request] === 0, "a request that is over has no parts");
    this.#free[this.#freeCount++] = request;
  }

  /** A part is started. */
  addPart(request: number, slot: number, offset: number, length: number): void {
    assert(this.partRequest[slot] === NONE, "a slot carries one part at a time");
    this.partRequest[slot] = request;
    this.partOffset[slot] = offset;
    this.partLength[slot] = length;
    this.partDone[slot] = 0;
    this.partNext[slot] = NONE;
    this.partsLeft[request]++;
  }

  /** Puts a part at the end of its request's list. */
  append(request: number, slot: number): void {
    if (this.first[request] === NONE) this.first[request] = slot;
    else this.partNext[this.last[request]] = slot;
    this.last[request] = slot;
  }

  /** Takes the first part from its request's list. */
  shift(request: number): number {
    const slot = this.first[request];
    this.first[request] = this.partNext[slot];
    return slot;
  }
}
