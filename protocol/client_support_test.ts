/**
 * What the tests of the client's machines share: the core's memory, frames of an exporter made by the independent
 * script, and a stream that feeds them in pieces.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Frame, seal, type Suite, SUITES } from "../tests/vectors/frames.ts";
import { concat } from "../tests/vectors/primitives.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { CLIENT_DOOR_SCRATCH_BYTES } from "./client_door.ts";
import { CLIENT_LANE_CONTROL_BYTES } from "./client_lane.ts";
import { CODEC_SCRATCH_BYTES } from "./codec.ts";
import { type StreamConsumer, Verdict } from "./consumer.ts";
import type { TransmitRoom } from "./frame_sender.ts";
import type { Cryptography } from "./guard.ts";
import { coreCryptography } from "./guard_support_test.ts";

/** The suites that are implemented: none, crc32c, xxh64. */
export const PLAIN_SUITES: readonly Suite[] = SUITES.filter((suite) => suite.cipher === 0 && suite.digest <= 2);
/** The suite of the default digest. */
export const XXH64: Suite = SUITES[2];

/** Bytes of the staging area of a {@link Feed}. */
const STAGING_BYTES = 1024;
/** From one payload area of {@link Arena} to the next: a page of prefix and the largest payload of the tests. */
const SLOT_BYTES = 4096 + 256 * 1024;

/** The core's memory, divided for one machine under test. */
export class Arena {
  readonly core: Core;
  readonly cryptography: Cryptography;
  readonly stagingAt: number;
  readonly codecAt: number;
  readonly scratchAt: number;
  readonly #slotsAt: number;

  /** @param roomSlots further ones, for a {@link Room} */
  constructor(readonly slots = 8, roomSlots = 0) {
    const scratchBytes = Math.max(CLIENT_DOOR_SCRATCH_BYTES, CLIENT_LANE_CONTROL_BYTES);
    this.core = makeArena(2 ** 21 + scratchBytes + (slots + roomSlots) * SLOT_BYTES);
    this.cryptography = coreCryptography(this.core);
    this.stagingAt = this.core.freeFrom;
    this.codecAt = this.stagingAt + STAGING_BYTES;
    this.scratchAt = this.codecAt + CODEC_SCRATCH_BYTES;
    this.#slotsAt = Math.ceil((this.scratchAt + scratchBytes) / 4096) * 4096;
  }

  /** Where the payload of a slot lies. */
  payloadAt(slot: number): number {
    return this.#slotsAt + slot * SLOT_BYTES + 4096;
  }
}

/** Room for sealed payloads beyond an arena's slots: of one size each, given in order, and given back in order. */
export class Room implements TransmitRoom {
  /** How many payloads have been given room so far, and how many had to wait. */
  given = 0;
  refused = 0;
  #taken = 0;

  /** @param count how many payloads there is room for */
  constructor(readonly arena: Arena, readonly count: number) {}

  take(): number {
    if (this.#taken === this.count) {
      this.refused++;
      return -1;
    }
    this.#taken++;
    return this.arena.payloadAt(this.arena.slots + this.given++ % this.count);
  }

  giveBack(): void {
    assert.ok(this.#taken > 0, "what is given back was taken");
    this.#taken--;
  }

  clear(): void {
    this.#taken = 0;
  }
}

/** Frames of one direction, numbered and sealed by the independent script. */
export class Script {
  n = 0;

  /** @param key of the exporter's direction, with a keyed suite */
  constructor(readonly suite: Suite, readonly key: Uint8Array = new Uint8Array(32)) {}

  /** The bytes of the next frame. */
  next(frame: Omit<Frame, "name" | "from">): Uint8Array {
    const sealed = seal(this.suite, this.key, { name: "", from: "exporter", ...frame }, this.n++);
    return concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload);
  }
}

/** A stream as the engine's is, but fed by hand. */
export class Feed {
  isClosed = false;
  /** The machine answered WAIT, and nobody has resumed the stream since. */
  isWaiting = false;
  /** Calls of the machine so far. */
  calls = 0;
  consumer: StreamConsumer;
  readonly #place: { readonly core: Core; readonly stagingAt: number };
  #pending: Uint8Array = new Uint8Array(0);
  #inPayload = false;
  #isPayloadThere = false;

  constructor(place: { readonly core: Core; readonly stagingAt: number }, consumer: StreamConsumer) {
    this.#place = place;
    this.consumer = consumer;
  }

  /** How many bytes wait for more, or for the machine. */
  get pendingBytes(): number {
    return this.#pending.length;
  }

  /** Bytes arrive. */
  push(bytes: Uint8Array): void {
    this.#pending = concat(this.#pending, bytes);
    this.#process();
  }

  /** Bytes arrive in pieces of these lengths, the last one again and again. */
  pushInPieces(bytes: Uint8Array, pieces: readonly number[]): void {
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const piece = pieces[Math.min(i, pieces.length - 1)];
      this.push(bytes.subarray(at, at + piece));
      at += piece;
    }
  }

  /** After WAIT: the same call again. */
  resume(): void {
    assert.ok(this.isWaiting, "only a stream that waits is resumed");
    this.isWaiting = false;
    this.#process();
  }

  /** Another machine goes on after the message that the present one has waited with. */
  takeOver(consumer: StreamConsumer): void {
    assert.ok(this.isWaiting && this.#inPayload, "the present machine waits with a payload");
    this.consumer = consumer;
    this.isWaiting = false;
    this.#inPayload = false;
    this.#process();
  }

  #process(): void {
    while (!this.isClosed && !this.isWaiting && this.#step());
  }

  #step(): boolean {
    return this.#inPayload ? this.#stepPayload() : this.#stepHeader();
  }

  #stepHeader(): boolean {
    const { core, stagingAt } = this.#place;
    const { headerBytes } = this.consumer;
    assert.ok(headerBytes >= 1 && headerBytes <= 512, `${headerBytes} bytes of header asked for`);
    if (this.#pending.length < headerBytes) return false;
    core.bytes.set(this.#pending.subarray(0, headerBytes), stagingAt);
    this.calls++;
    const verdict = this.consumer.onHeader(stagingAt);
    // A header is only valid during the call.
    core.bytes.fill(0xdd, stagingAt, stagingAt + headerBytes);
    this.isWaiting = verdict === Verdict.WAIT;
    if (this.isWaiting) return false;
    this.#pending = this.#pending.slice(headerBytes);
    this.#inPayload = verdict === Verdict.PAYLOAD;
    this.#isPayloadThere = false;
    this.isClosed = verdict === Verdict.CLOSE;
    return true;
  }

  #stepPayload(): boolean {
    const { payloadAt, payloadBytes } = this.consumer;
    if (!this.#isPayloadThere) {
      assert.ok(payloadBytes >= 1, `${payloadBytes} bytes of payload asked for`);
      if (this.#pending.length < payloadBytes) return false;
      if (payloadAt >= 0) this.#place.core.bytes.set(this.#pending.subarray(0, payloadBytes), payloadAt);
      this.#pending = this.#pending.slice(payloadBytes);
      this.#isPayloadThere = true;
    }
    this.calls++;
    const verdict = this.consumer.onPayload();
    assert.notEqual(verdict, Verdict.PAYLOAD);
    this.isWaiting = verdict === Verdict.WAIT;
    if (this.isWaiting) return false;
    this.#inPayload = false;
    this.isClosed = verdict === Verdict.CLOSE;
    return true;
  }
}

/** Repeatable pseudo-random numbers (xorshift32); a failing test prints the seed. */
export class Random {
  #state: number;

  constructor(readonly seed: number) {
    this.#state = seed | 1;
  }

  /** An integer from 0 to below the limit. */
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.below(256));
  }
}

/** The ways in which every exchange is fed: whole, byte by byte, in random pieces. */
export function feedings(seed: number): { name: string; pieces: number[] }[] {
  const random = new Random(seed);
  return [
    { name: "whole", pieces: [2 ** 30] },
    { name: "byte by byte", pieces: [1] },
    { name: `random pieces of seed ${seed}`, pieces: Array.from({ length: 4096 }, () => 1 + random.below(90)) },
  ];
}
