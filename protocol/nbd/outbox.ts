/**
 * Keeps replies whole: while a reply goes out in several pieces, all others are held back.
 *
 * @module
 */
import type { NbdHost } from "./host.ts";
import { NONE } from "./requests.ts";

/** The way out of one connection. What is held stays in its slot; a slot has one reply at a time. */
export class Outbox {
  /** The request whose reply is going out in pieces, or NONE. */
  speaker = NONE;

  readonly #host: NbdHost;
  readonly #at: Uint32Array;
  readonly #bytes: Uint32Array;
  /** The slots whose replies are held, oldest first. */
  readonly #next: Int32Array;
  #first = NONE;
  #last = NONE;

  /** @param slots how many slots the connection has */
  constructor(host: NbdHost, slots: number) {
    this.#host = host;
    this.#at = new Uint32Array(slots);
    this.#bytes = new Uint32Array(slots);
    this.#next = new Int32Array(slots);
  }

  /** Sends a whole reply, now or when the speaker has ended. */
  send(at: number, bytes: number, slot: number): void {
    if (this.speaker === NONE) {
      this.#host.transmit(at, bytes, slot);
      return;
    }
    this.#at[slot] = at;
    this.#bytes[slot] = bytes;
    this.#next[slot] = NONE;
    if (this.#first === NONE) this.#first = slot;
    else this.#next[this.#last] = slot;
    this.#last = slot;
  }

  /** Sends a piece of the speaker's reply. */
  sendPiece(speaker: number, at: number, bytes: number, slot: number): void {
    this.speaker = speaker;
    this.#host.transmit(at, bytes, slot);
  }

  /** The speaker's reply is whole: what was held is sent. */
  endSpeech(): void {
    this.speaker = NONE;
    for (; this.#first !== NONE; this.#first = this.#next[this.#first]) {
      this.#host.transmit(this.#at[this.#first], this.#bytes[this.#first], this.#first);
    }
  }

  /** The connection is gone: the slots of what is held are given back. */
  abandon(): void {
    this.speaker = NONE;
    for (; this.#first !== NONE; this.#first = this.#next[this.#first]) this.#host.releaseSlot(this.#first);
  }
}
