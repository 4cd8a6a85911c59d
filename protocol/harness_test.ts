/**
 * What the tests of the exporter's machines share: a memory, a byte stream that can be fed in any pieces, and frames
 * built and taken apart from SPEC.md alone, without the code under test.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Handoff } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import type { Cryptography } from "./guard.ts";
import { referenceCryptography, tagOf } from "./guard_support_test.ts";

/** A memory of so many bytes, and cryptography over it. */
export interface TestMemory extends Memory {
  readonly cryptography: Cryptography;
}

/** A memory of so many bytes, and cryptography over it by the libraries that the tests compare with. */
export function makeMemory(bytes: number): TestMemory {
  const array = new Uint8Array(bytes);
  const memory = { bytes: array, view: new DataView(array.buffer) };
  return { ...memory, cryptography: referenceCryptography(memory) };
}

/** How a lane's codec goes on, without a key. */
export function handoffOf(digest: number, sent = 0, received = 0): Handoff {
  return { cipher: 0, digest, keys: null, sent, received };
}

/** A random number generator that a seed repeats: mulberry32. */
export function makeRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** The ways to cut a stream of bytes into pieces. */
export type Cut = "whole" | "byte by byte" | "random pieces";
export const CUTS: readonly Cut[] = ["whole", "byte by byte", "random pieces"];
/** For the random pieces: fixed, so that a failure repeats. */
const CUT_SEED = 20_08;

/** Cuts bytes into pieces. */
export function* pieces(bytes: Uint8Array, cut: Cut, seed = CUT_SEED): Generator<Uint8Array> {
  const random = makeRandom(seed);
  for (let at = 0; at < bytes.length;) {
    const step = cut === "whole" ? bytes.length : cut === "byte by byte" ? 1 : 1 + random(100);
    yield bytes.subarray(at, at + step);
    at += step;
  }
}

/** A byte stream over a machine, as the contract of `consumer.ts` has it. */
export class Feeder {
  /** The machine answered CLOSE; what comes after is not looked at. */
  closed = false;
  /** The machine answered WAIT. */
  waiting = false;
  readonly #memory: Memory;
  readonly #stagingAt: number;
  #consumer: StreamConsumer;
  #input: number[] = [];
  #inPayload = false;
  #isPlaced = false;
  #payload: number[] = [];

  constructor(memory: Memory, stagingAt: number, consumer: StreamConsumer) {
    this.#memory = memory;
    this.#stagingAt = stagingAt;
    this.#consumer = consumer;
  }

  /** Bytes that the machine has not taken. */
  get unread(): number {
    return this.#input.length;
  }

  feed(bytes: Uint8Array, cut: Cut = "whole"): void {
    for (const piece of pieces(bytes, cut)) {
      for (const byte of piece) this.#input.push(byte);
      this.#process();
    }
  }

  /** The same call again after WAIT. */
  resume(): void {
    assert.equal(this.waiting, true, "only a waiting stream is resumed");
    this.waiting = false;
    this.#process();
  }

  #process(): void {
    while (!this.closed && !this.waiting && this.#step());
  }

  /** Makes one call of the machine, if there are enough bytes. */
  #step(): boolean {
    const consumer = this.#consumer;
    if (!this.#inPayload) {
      const { headerBytes } = consumer;
      assert.ok(headerBytes >= 1 && headerBytes <= 512);
      if (this.#input.length < headerBytes) return false;
      this.#memory.bytes.set(this.#input.slice(0, headerBytes), this.#stagingAt);
      const verdict = consumer.onHeader(this.#stagingAt);
      // A header is valid during the call only.
      this.#memory.bytes.fill(0xa5, this.#stagingAt, this.#stagingAt + 512);
      this.#take(verdict, headerBytes);
      return true;
    }
    const missing = consumer.payloadBytes - this.#payload.length;
    for (const byte of this.#input.splice(0, missing)) this.#payload.push(byte);
    if (this.#payload.length < consumer.payloadBytes) return false;
    // Once only: between two calls the machine may have opened some of it.
    if (consumer.payloadAt >= 0 && !this.#isPlaced) this.#memory.bytes.set(this.#payload, consumer.payloadAt);
    this.#isPlaced = true;
    const verdict = consumer.onPayload();
    assert.notEqual(verdict, Verdict.PAYLOAD, "a payload is not followed by another");
    if (verdict !== Verdict.WAIT) {
      this.#inPayload = false;
      this.#isPlaced = false;
      this.#payload = [];
    }
    this.#take(verdict, 0);
    return true;
  }

  #take(verdict: Verdict, headerBytes: number): void {
    assert.ok(verdict >= Verdict.NEXT && verdict <= Verdict.CLOSE, "there is such a verdict");
    if (verdict === Verdict.WAIT) {
      this.waiting = true;
      return;
    }
    this.#input.splice(0, headerBytes);
    if (verdict === Verdict.CLOSE) this.closed = true;
    if (verdict !== Verdict.PAYLOAD) return;
    assert.ok(this.#consumer.payloadBytes >= 1, "a payload has bytes");
    assert.ok(this.#consumer.payloadBytes <= 2 ** 20, "a payload has a limit");
    this.#inPayload = true;
  }
}

/** A frame's fields; what is not given is zero. */
export interface Fields {
  magic?: number;
  type: number;
  zero?: number;
  flags?: number;
  slot?: number;
  lane?: number;
  sequence?: number;
  offset?: number | bigint;
  length?: number | bigint;
  payload?: Uint8Array;
  /** If it is to differ from the payload's. */
  payloadBytes?: number;
  status?: number;
}

/** The bytes of frame n (SPEC.md, section 4) under digest 0, 1 or 2. */
export function frame(fields: Fields, n: number | bigint, digest: number): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0);
  const header = new Uint8Array(48);
  const view = new DataView(header.buffer);
  view.setUint32(0, fields.magic ?? 0x31545344, true);
  header[4] = fields.type;
  header[5] = fields.zero ?? 0;
  view.setUint16(6, fields.flags ?? 0, true);
  view.setUint16(8, fields.slot ?? 0, true);
  view.setUint16(10, fields.lane ?? 0, true);
  view.setUint32(12, fields.sequence ?? 0, true);
  view.setBigUint64(16, BigInt(fields.offset ?? 0), true);
  view.setBigUint64(24, BigInt(fields.length ?? 0), true);
  view.setUint32(32, fields.payloadBytes ?? payload.length, true);
  view.setUint32(36, fields.status ?? 0, true);
  view.setBigUint64(40, BigInt(n), true);
  const payloadTag = payload.length > 0 ? tagOf(digest, payload) : new Uint8Array(digest === 0 ? 0 : 8);
  return concat(header, payloadTag, tagOf(digest, concat(header, payloadTag)), payload);
}

/** A frame as it was received. */
export interface Received {
  type: number;
  flags: number;
  slot: number;
  lane: number;
  sequence: number;
  offset: number;
  length: number;
  status: number;
  payload: Uint8Array;
}

/** Takes apart frames n, n + 1, … and checks every rule that all frames have in common. */
export function parseFrames(bytes: Uint8Array, digest: number, n = 0): Received[] {
  const frames: Received[] = [];
  const tagBytes = digest === 0 ? 0 : 8;
  for (let at = 0; at < bytes.length; n++) {
    const header = bytes.slice(at, at + 48);
    assert.equal(header.length, 48, "a frame is whole");
    const view = new DataView(header.buffer);
    const payloadTag = bytes.slice(at + 48, at + 48 + tagBytes);
    const headerTag = bytes.slice(at + 48 + tagBytes, at + 48 + 2 * tagBytes);
    assert.deepEqual(headerTag, tagOf(digest, concat(header, payloadTag)), "the header's tag matches");
    assert.equal(view.getUint32(0, true), 0x31545344);
    assert.equal(header[5], 0);
    assert.equal(view.getBigUint64(40, true), BigInt(n), "the frames are numbered");
    const payloadBytes = view.getUint32(32, true);
    at += 48 + 2 * tagBytes;
    const payload = bytes.slice(at, at + payloadBytes);
    assert.equal(payload.length, payloadBytes, "a payload is whole");
    at += payloadBytes;
    assert.deepEqual(payloadTag, payloadBytes > 0 ? tagOf(digest, payload) : new Uint8Array(tagBytes));
    frames.push({
      type: header[4],
      flags: view.getUint16(6, true),
      slot: view.getUint16(8, true),
      lane: view.getUint16(10, true),
      sequence: view.getUint32(12, true),
      offset: Number(view.getBigUint64(16, true)),
      length: Number(view.getBigUint64(24, true)),
      status: view.getUint32(36, true),
      payload,
    });
  }
  return frames;
}

/** The bytes one after the other. */
export function concat(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** One TLV, with whatever is to be wrong about it. */
export function tlv(type: number, value: Uint8Array | string | number[], flags = 0): Uint8Array {
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : Uint8Array.from(value);
  const whole = new Uint8Array(8 + Math.ceil(bytes.length / 8) * 8);
  const view = new DataView(whole.buffer);
  view.setUint16(0, type, true);
  view.setUint16(2, flags, true);
  view.setUint32(4, bytes.length, true);
  whole.set(bytes, 8);
  return whole;
}

/** u16s as bytes. */
export function uint16s(...values: number[]): number[] {
  return values.flatMap((value) => [value & 255, value >>> 8]);
}

/** u32s as bytes. */
export function uint32s(...values: number[]): number[] {
  return values.flatMap((value) => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24]);
}

/** A u64 as bytes. */
export function uint64(value: number | bigint): number[] {
  return [...new Uint8Array(new BigUint64Array([BigInt(value)]).buffer)];
}
