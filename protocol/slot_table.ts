/**
 * The exporter's memory of a lane's requests: which is each slot's latest, and what became of it (SPEC.md, section 7).
 * It outlives the lane's connections, and it is what makes a request happen once.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { ProtocolError } from "./error.ts";
import { DEPTH_MAX } from "./limits.ts";
import { Operation } from "./request.ts";

/** What a slot's latest request is doing. EMPTY: there has been none. */
export const SlotState = { EMPTY: 0, EXECUTING: 1, DONE: 2 } as const;

/** What an arriving request is to its slot. */
export const Arrival = {
  /** The next request. */
  NEW: 0,
  /** The present request again, which executes. */
  EXECUTING: 1,
  /** The present request again, which is done. */
  DONE: 2,
} as const;

/** The slots of one lane, as parallel arrays by slot. */
export class SlotTable {
  readonly depth: number;
  readonly sequence: Uint32Array;
  readonly type: Uint8Array;
  /** In bytes; -1 for one above 2^53 - 1, which is never executed. */
  readonly offset: Float64Array;
  /** In bytes; -1 for one above 2^53 - 1, which is never executed. */
  readonly length: Float64Array;
  /** A {@link SlotState}. */
  readonly state: Uint8Array;
  /** Of a done request: its `Status`. */
  readonly status: Uint8Array;
  /** The connection, by its number, on which the request was asked for last: there its reply goes. */
  readonly connection: Uint32Array;
  /** How many slots are executing. */
  executing = 0;
  /** The sum of the lengths of executing READs and WRITEs, in bytes. */
  payloadBytes = 0;

  /** @param depth 1 to DEPTH_MAX */
  constructor(depth: number) {
    assert(Number.isInteger(depth) && depth >= 1 && depth <= DEPTH_MAX, "a lane's depth is within its limits");
    this.depth = depth;
    this.sequence = new Uint32Array(depth);
    this.type = new Uint8Array(depth);
    this.offset = new Float64Array(depth);
    this.length = new Float64Array(depth);
    this.state = new Uint8Array(depth);
    this.status = new Uint8Array(depth);
    this.connection = new Uint32Array(depth);
  }

  /**
   * Says what a request is to its slot. Changes nothing.
   *
   * @param slot below the depth
   * @param range its offset and length
   * @returns an {@link Arrival}, or a negative {@link ProtocolError}
   */
  classify(slot: number, sequence: number, type: number, range: Float64Array): number {
    const present = this.sequence[slot];
    const state = this.state[slot];
    if (sequence === (present + 1) >>> 0) {
      return state === SlotState.EXECUTING ? -ProtocolError.SLOT_BUSY : Arrival.NEW;
    }
    if (sequence !== present || state === SlotState.EMPTY) return -ProtocolError.SEQUENCE;
    if (type !== this.type[slot] || range[0] !== this.offset[slot] || range[1] !== this.length[slot]) {
      return -ProtocolError.RESEND_DIFFERS;
    }
    return state === SlotState.EXECUTING ? Arrival.EXECUTING : Arrival.DONE;
  }

  /** Takes a new request in: the slot executes it. */
  begin(slot: number, sequence: number, type: number, range: Float64Array): void {
    assert(this.state[slot] !== SlotState.EXECUTING, "a slot carries one request at a time");
    this.sequence[slot] = sequence;
    this.type[slot] = type;
    this.offset[slot] = range[0];
    this.length[slot] = range[1];
    this.#execute(slot);
  }

  /** Takes a done request up again: the slot executes it once more. */
  repeat(slot: number): void {
    assert(this.state[slot] === SlotState.DONE, "only what is done is repeated");
    this.#execute(slot);
  }

  /**
   * The slot's request has ended.
   *
   * @param status its `Status`, remembered until the slot's next request
   */
  finish(slot: number, status: number): void {
    assert(this.state[slot] === SlotState.EXECUTING, "only what executes ends");
    this.state[slot] = SlotState.DONE;
    this.status[slot] = status;
    this.executing--;
    this.payloadBytes -= this.#payloadOf(slot);
  }

  /** Forgets everything, as if no request had ever come. Nothing may be executing. */
  clear(): void {
    assert(this.executing === 0, "nothing executes");
    this.sequence.fill(0);
    this.state.fill(SlotState.EMPTY);
  }

  #execute(slot: number): void {
    this.state[slot] = SlotState.EXECUTING;
    this.executing++;
    this.payloadBytes += this.#payloadOf(slot);
  }

  /** What the slot's request takes of the lane's payload credit. */
  #payloadOf(slot: number): number {
    const type = this.type[slot];
    // A length that is too large to be a number was refused, and takes nothing.
    return type === Operation.READ || type === Operation.WRITE ? Math.max(this.length[slot], 0) : 0;
  }
}
