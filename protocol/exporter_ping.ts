/**
 * When an exporter pings, and when it takes its client for dead (SPEC.md, section 5.2). One ping is under way at a time.
 *
 * @module
 */
import type { Memory } from "./consumer.ts";
import { Field, hasOnly } from "./control_frame.ts";
import { ProtocolError } from "./error.ts";
import { frameOffset } from "./wire.ts";

/** The pings of one lane of an exporter. */
export class ExporterPing {
  readonly #idleMs: number;
  readonly #deadMs: number;
  readonly #send: (token: number) => void;
  #heardMs = 0;
  #pings = 0;
  #awaitsPong = false;

  /**
   * @param idleMs a client silent for this long is pinged
   * @param deadMs a client silent for this long is dead
   * @param send sends a PING with the token
   */
  constructor(idleMs: number, deadMs: number, send: (token: number) => void) {
    this.#idleMs = idleMs;
    this.#deadMs = deadMs;
    this.#send = send;
  }

  /** Begins on a connection. `now` in ms. */
  reset(now: number): void {
    this.#awaitsPong = false;
    this.#heardMs = now;
  }

  /** The client lives. `now` in ms. */
  heard(now: number): void {
    this.#heardMs = now;
  }

  /**
   * Pings a client that is silent.
   *
   * @param now in ms
   * @returns in how many ms to look again; 0: it is dead
   */
  tick(now: number): number {
    const silentMs = now - this.#heardMs;
    if (silentMs >= this.#deadMs) return 0;
    if (!this.#awaitsPong) {
      if (silentMs < this.#idleMs) return Math.min(this.#idleMs, this.#deadMs) - silentMs;
      this.#awaitsPong = true;
      this.#pings = (this.#pings + 1) >>> 0;
      this.#send(this.#pings);
    }
    return this.#deadMs - silentMs;
  }

  /**
   * The reply to a ping.
   *
   * @param at arena offset of its header
   * @returns 0 or a {@link ProtocolError}
   */
  answered(memory: Memory, at: number): number {
    if (!this.#awaitsPong || frameOffset(memory, at) !== this.#pings) return ProtocolError.UNEXPECTED_REPLY;
    if (!hasOnly(memory, at, Field.OFFSET)) return ProtocolError.FIELD;
    this.#awaitsPong = false;
    return ProtocolError.NONE;
  }
}
