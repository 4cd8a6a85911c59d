/**
 * When a client pings, what it asks, and when it takes its exporter for dead (SPEC.md, section 5.2). One ping is under
 * way at a time; one that asks about a request (PROBE) goes before one that only asks for life.
 *
 * @module
 */
import type { Memory } from "./consumer.ts";
import { Field, hasOnly } from "./control_frame.ts";
import { ProtocolError } from "./error.ts";
import { PEER_DEAD_MS, PING_IDLE_MS } from "./limits.ts";
import {
  FLAG_PROBE,
  frameFlags,
  frameOffset,
  frameSequence,
  frameSlot,
  frameStatus,
  FrameType,
  ProbeState,
} from "./wire.ts";

/** When an exporter's silence is something to do with. */
export interface Liveness {
  /** After this long without a byte from the exporter it is pinged; PING_IDLE_MS where it is left out. */
  readonly pingIdleMs?: number;
  /** After this long without a byte from the exporter it counts as dead; PEER_DEAD_MS where it is left out. */
  readonly deadMs?: number;
}

/** The pings of one lane of a client. */
export class ClientPing {
  /** The slot that the ping answered last asked about, or -1; what became of its request is {@link probeState}. */
  answeredSlot = -1;
  /** The sequence that the ping answered last asked about. */
  answeredSequence = 0;
  /** A `ProbeState`. */
  probeState: number = ProbeState.UNKNOWN;
  readonly #liveness: Liveness;
  readonly #isWanted: Uint8Array;
  #wanted = 0;
  #heardAt = 0;
  #isUnderWay = false;
  #token = 0;
  #slot = -1;
  #sequence = 0;
  readonly #send: (type: number, flags: number, slot: number, sequence: number, offset: number) => void;

  /**
   * @param depth slots of the lane
   * @param liveness is looked at each time, and may change
   * @param send sends a frame without payload
   */
  constructor(
    depth: number,
    liveness: Liveness,
    send: (type: number, flags: number, slot: number, sequence: number, offset: number) => void,
  ) {
    this.#isWanted = new Uint8Array(depth);
    this.#liveness = liveness;
    this.#send = send;
  }

  /** Begins on a connection, or forgets one that is gone. */
  reset(now: number): void {
    this.#heardAt = now;
    this.#isUnderWay = false;
    this.#isWanted.fill(0);
    this.#wanted = 0;
  }

  /** The exporter is alive. */
  heard(now: number): void {
    this.#heardAt = now;
  }

  /** Asks about the slot's request as soon as no other ping is under way. */
  probe(slot: number, sequences: Uint32Array): void {
    if (this.#isWanted[slot] !== 0) return;
    this.#isWanted[slot] = 1;
    this.#wanted++;
    if (!this.#isUnderWay) this.next(sequences);
  }

  /**
   * Pings an exporter that is silent.
   *
   * @returns in how many milliseconds to look again; 0: it is dead
   */
  tick(now: number, sequences: Uint32Array): number {
    const silentMs = now - this.#heardAt;
    const { pingIdleMs = PING_IDLE_MS, deadMs = PEER_DEAD_MS } = this.#liveness;
    if (silentMs >= deadMs) return 0;
    if (!this.#isUnderWay) {
      if (silentMs < pingIdleMs) return Math.min(pingIdleMs, deadMs) - silentMs;
      this.next(sequences);
    }
    return deadMs - silentMs;
  }

  /**
   * The reply to a ping; {@link answeredSlot} says what it was about.
   *
   * @param at arena offset of its header
   * @returns 0 or a `ProtocolError`
   */
  answered(memory: Memory, at: number): number {
    if (!this.#isUnderWay || frameOffset(memory, at) !== this.#token) return ProtocolError.UNEXPECTED_REPLY;
    const fields = Field.OFFSET | (this.#slot < 0 ? 0 : Field.FLAGS | Field.SLOT | Field.STATUS);
    if (!hasOnly(memory, at, fields)) return ProtocolError.FIELD;
    const state = frameStatus(memory, at);
    if (this.#slot >= 0) {
      if (frameFlags(memory, at) !== FLAG_PROBE || state > ProbeState.DONE) return ProtocolError.FIELD;
      if (frameSlot(memory, at) !== this.#slot || frameSequence(memory, at) !== this.#sequence) {
        return ProtocolError.UNEXPECTED_REPLY;
      }
    }
    this.#isUnderWay = false;
    this.answeredSlot = this.#slot;
    this.answeredSequence = this.#sequence;
    this.probeState = state;
    return ProtocolError.NONE;
  }

  /** Whether a probe waits for its turn. */
  get isProbeWanted(): boolean {
    return this.#wanted > 0;
  }

  /** Sends the one ping that may be under way. */
  next(sequences: Uint32Array): void {
    this.#isUnderWay = true;
    this.#token++;
    this.#slot = -1;
    if (this.#wanted === 0) {
      this.#send(FrameType.PING, 0, 0, 0, this.#token);
      return;
    }
    this.#slot = this.#isWanted.indexOf(1);
    this.#isWanted[this.#slot] = 0;
    this.#wanted--;
    this.#sequence = sequences[this.#slot];
    this.#send(FrameType.PING, FLAG_PROBE, this.#slot, this.#sequence, this.#token);
  }
}
