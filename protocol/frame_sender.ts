/**
 * Sends the frames of a lane, in order. A frame is sealed at once where the turn has time for it, and else in later
 * turns, piece by piece (see `turn_budget.ts`).
 *
 * @module
 */
import { assert } from "./assert.ts";
import type { FrameCodec } from "./codec.ts";
import type { Memory } from "./consumer.ts";
import { TurnBudget } from "./turn_budget.ts";
import { HEADER_BYTES } from "./wire.ts";

/** The slot of a frame that has none. */
export const NO_SLOT = -1;
/**
 * With this many frames without a slot waiting to be sealed nothing more is taken from the peer: most of them answer its
 * PINGs, and whoever floods gets no faster service.
 */
const CONTROL_FRAMES_CONGESTED = 16;
/** Frames without a slot that may wait beside those: the end's own, of which there are a few at most. */
const CONTROL_FRAMES_OWN = 16;
/**
 * Places for frames without a slot that a lane has to keep. A stream gives its machine nothing more while 512 messages
 * wait in it (`UNSENT_MESSAGES_MAX` of the engine); so by the time that a place is used again, what was there is sent.
 */
export const CONTROL_FRAMES = 512 + CONTROL_FRAMES_CONGESTED + CONTROL_FRAMES_OWN;

/** What both lanes ask of whoever drives them. */
export interface LaneTurns {
  /** The number of the present turn: another one in each. */
  readonly turn: number;
  /** Wants `run` of the lane to be called in the next turn, and what waits for the lane to be resumed after it. */
  again(): void;
}

/** Where payloads are sealed to whose plaintext is kept: room given in order, and given back in the same order. */
export interface TransmitRoom {
  /**
   * Room for a payload of so many bytes and, right before it, a frame's prefix.
   *
   * @returns the payload's arena offset; -1: there is none before something is given back
   */
  take(payloadBytes: number): number;
  /** Gives back what was taken longest ago. */
  giveBack(): void;
  /** Gives back everything. */
  clear(): void;
}

/** What a sender asks of its lane's host. */
export interface FrameSenderHost extends LaneTurns {
  /**
   * Queues bytes of the arena for sending, first in, first out.
   *
   * @param takesRoom `FrameSender.sent` is to be called when they are sent
   */
  transmit(at: number, bytes: number, takesRoom: boolean): void;
}

/** The frames of one lane on their way out. State is in arrays by the place in a ring. */
export class FrameSender {
  readonly #memory: Memory;
  readonly #host: FrameSenderHost;
  readonly #capacity: number;
  readonly #at: Uint32Array;
  readonly #payloadBytes: Uint32Array;
  readonly #slot: Int16Array;
  readonly #keepsPlaintext: Uint8Array;
  /** By slot: whether its frame waits. */
  readonly #isWaiting: Uint8Array;
  readonly #budget = new TurnBudget();
  #codec: FrameCodec | null = null;
  #room: TransmitRoom | null = null;
  #head = 0;
  #count = 0;
  #controlCount = 0;
  /** Of the first frame: its place in the room, or -1. */
  #roomAt = -1;
  #waitsForRoom = false;

  /** @param depth slots of the lane; each has one frame at a time */
  constructor(memory: Memory, depth: number, host: FrameSenderHost) {
    this.#memory = memory;
    this.#host = host;
    this.#capacity = depth + CONTROL_FRAMES_CONGESTED + CONTROL_FRAMES_OWN;
    this.#at = new Uint32Array(this.#capacity);
    this.#payloadBytes = new Uint32Array(this.#capacity);
    this.#slot = new Int16Array(this.#capacity);
    this.#keepsPlaintext = new Uint8Array(this.#capacity);
    this.#isWaiting = new Uint8Array(depth);
  }

  /**
   * Begins on a connection.
   *
   * @param room needed where the codec encrypts payloads whose plaintext is kept
   */
  connect(codec: FrameCodec, room: TransmitRoom | null): void {
    this.#codec = codec;
    this.#room = room;
  }

  /** The connection is gone, and nothing of it is under way in the kernel: forgets all frames. */
  disconnect(): void {
    this.#codec = null;
    this.#room?.clear();
    this.#room = null;
    this.#count = 0;
    this.#controlCount = 0;
    this.#roomAt = -1;
    this.#waitsForRoom = false;
    this.#isWaiting.fill(0);
    this.#budget.reset();
  }

  /** Whether frames wait to be sealed. */
  get isBusy(): boolean {
    return this.#count > 0;
  }

  /** Whether so many frames without a slot wait that the peer is to be heard no more. */
  get isCongested(): boolean {
    return this.#controlCount >= CONTROL_FRAMES_CONGESTED;
  }

  /** Whether the slot's frame waits: the peer cannot know of it yet, and its bytes must stay as they are. */
  holds(slot: number): boolean {
    return this.#isWaiting[slot] !== 0;
  }

  /**
   * Sends a frame: seals it and has it transmitted, now or in a later turn. Only while connected.
   *
   * @param slot whose frame it is, or {@link NO_SLOT}
   * @param at arena offset of its prefix, with the header written; the payload lies right behind
   * @param payloadBytes as the header says; 0 none
   * @param keepsPlaintext whether the payload's bytes are needed any more
   */
  send(slot: number, at: number, payloadBytes: number, keepsPlaintext: boolean): void {
    assert(this.#count < this.#capacity, "a slot has one frame at a time, and the others are few");
    const last = (this.#head + this.#count) % this.#capacity;
    this.#at[last] = at;
    this.#payloadBytes[last] = payloadBytes;
    this.#slot[last] = slot;
    this.#keepsPlaintext[last] = keepsPlaintext ? 1 : 0;
    this.#count++;
    if (slot < 0) this.#controlCount++;
    else this.#isWaiting[slot] = 1;
    // What waits already goes first, and has been promised its turn.
    if (this.#count === 1) this.run();
  }

  /** Goes on with what waits; in a turn of its own. */
  run(): void {
    if (this.#waitsForRoom) return;
    while (this.#count > 0) {
      if (!this.#sealPiece()) return;
    }
  }

  /** A frame that took room is sent: its room is free. */
  sent(): void {
    // What is heard of a connection that is gone.
    if (this.#room === null) return;
    this.#room.giveBack();
    if (!this.#waitsForRoom) return;
    this.#waitsForRoom = false;
    this.#host.again();
  }

  /** Seals a piece of the first frame, and has it transmitted if it was the last; false when it has to wait. */
  #sealPiece(): boolean {
    const codec = this.#codec;
    assert(codec !== null, "frames are sent on a connection");
    const first = this.#head;
    const payloadBytes = this.#payloadBytes[first];
    const pieceBytes = codec.sealPieceBytes(payloadBytes);
    const at = this.#at[first];
    const movesTo = payloadBytes > 0 && codec.encrypts && this.#keepsPlaintext[first] !== 0;
    if (movesTo && this.#roomAt < 0 && !this.#takeRoom(at, payloadBytes)) return false;
    if (!this.#budget.spend(this.#host.turn, codec.prefixBytes + pieceBytes, codec.turnBytes)) {
      this.#host.again();
      return false;
    }
    const payloadAt = at + codec.prefixBytes;
    const toAt = movesTo ? this.#roomAt : payloadAt;
    const prefixAt = toAt - codec.prefixBytes;
    if (!codec.seal(prefixAt, payloadAt, payloadBytes, toAt)) return true;
    this.#roomAt = -1;
    this.#head = (first + 1) % this.#capacity;
    this.#count--;
    const slot = this.#slot[first];
    if (slot < 0) this.#controlCount--;
    else this.#isWaiting[slot] = 0;
    this.#host.transmit(prefixAt, codec.prefixBytes + payloadBytes, movesTo);
    return true;
  }

  /** Takes room for the first frame, and copies its header there. */
  #takeRoom(at: number, payloadBytes: number): boolean {
    const codec = this.#codec!;
    assert(this.#room !== null, "there is room for payloads whose plaintext is kept");
    const roomAt = this.#room.take(payloadBytes);
    if (roomAt < 0) {
      this.#waitsForRoom = true;
      return false;
    }
    const view = this.#memory.view;
    const prefixAt = roomAt - codec.prefixBytes;
    for (let i = 0; i < HEADER_BYTES; i += 4) view.setUint32(prefixAt + i, view.getUint32(at + i, true), true);
    this.#roomAt = roomAt;
    return true;
  }
}
