/**
 * What the tests of streams work with: a stream over one end of a pair of sockets, and its peer at the other.
 *
 * @module
 */
import assert from "node:assert/strict";
import { monotonicMs } from "../ffi/clock.ts";
import { MessageFlag } from "../ffi/constants.ts";
import { Errno } from "../ffi/errno.ts";
import { close } from "../ffi/libc.ts";
import { makeLoop } from "../ffi/mod.ts";
import { recv, sendmsg, shutdown, socketPair } from "../ffi/socket.ts";
import { type StreamConsumer, Verdict } from "../protocol/consumer.ts";
import { Buffer, Message } from "../tests/ffi/loop_fixture.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine } from "./engine.ts";
import type { Stream, StreamOwner } from "./stream.ts";

/** Bytes of a test message's header: u32 length of its payload, u32 what to do about it. */
const HEADER = 8;
/** What the second word of a header asks for. */
export const Ask = {
  NOTHING: 0,
  WAIT: 1,
  WAIT_IN_PAYLOAD: 2,
  CLOSE: 3,
  CLOSE_WITH_WORDS: 4,
  DROP: 5,
  RESUME_WITHIN: 6,
} as const;
export const WORDS = new TextEncoder().encode("these were my last words");

/** A machine that remembers what it was given. */
export class Recorder implements StreamConsumer {
  readonly headerBytes = HEADER;
  payloadAt = -1;
  payloadBytes = 0;
  readonly headers: [number, number][] = [];
  readonly payloads: Uint8Array[] = [];
  /** How often it was asked, WAITs included. */
  calls = 0;
  ready = false;
  #ask = 0;

  constructor(readonly engine: Engine, readonly intoAt: number, readonly stream: () => Stream) {}

  onHeader(at: number): Verdict {
    this.calls++;
    const { view } = this.engine.arena;
    const length = view.getUint32(at, true);
    this.#ask = view.getUint32(at + 4, true);
    if (this.#ask === Ask.RESUME_WITHIN && !this.ready) {
      this.ready = true;
      this.stream().resume();
      return Verdict.WAIT;
    }
    if (this.#ask === Ask.WAIT && !this.ready) return Verdict.WAIT;
    this.headers.push([length, this.#ask]);
    if (this.#ask === Ask.CLOSE_WITH_WORDS) {
      this.engine.arena.bytes.set(WORDS, this.stream().scratchAt);
      this.stream().transmit(this.stream().scratchAt, WORDS.length);
    }
    if (this.#ask === Ask.CLOSE || this.#ask === Ask.CLOSE_WITH_WORDS) return Verdict.CLOSE;
    if (length === 0) return Verdict.NEXT;
    this.payloadAt = this.#ask === Ask.DROP ? -1 : this.intoAt;
    this.payloadBytes = length;
    return Verdict.PAYLOAD;
  }

  onPayload(): Verdict {
    this.calls++;
    if (this.#ask === Ask.WAIT_IN_PAYLOAD && !this.ready) return Verdict.WAIT;
    if (this.payloadAt >= 0) {
      this.payloads.push(this.engine.arena.bytes.slice(this.payloadAt, this.payloadAt + this.payloadBytes));
    }
    return Verdict.NEXT;
  }
}

/** A stream over one end of a pair of sockets, and its peer at the other. */
export class Bench implements StreamOwner {
  /** By how much the engine's clock is ahead, see {@link later}. */
  #skippedMs = 0;
  readonly engine: Engine;
  readonly stream: Stream;
  readonly machine: Recorder;
  readonly sentTokens: number[] = [];
  readonly closedWith: number[] = [];
  drained = 0;
  heard = 0;
  readonly slotsBefore: number;
  readonly #peer: number;
  #peerOpen = true;
  readonly #buffer = new Buffer(1 << 20);

  constructor(loop: "uring" | "poll") {
    const clock = { now: () => monotonicMs() + this.#skippedMs };
    this.engine = new Engine(makeLoop(loop), makeArena(arenaBytes(8)), undefined, clock);
    const pair = socketPair();
    assert.ok(typeof pair !== "number");
    this.#peer = pair[1];
    this.slotsBefore = this.engine.slots.freeCount;
    this.stream = this.engine.streams.open(pair[0], this)!;
    const into = this.engine.slots.reserve(2)!;
    this.machine = new Recorder(this.engine, this.engine.slots.payloadAt(into[0]), () => this.stream);
    this.engine.slots.release(into);
    this.stream.start(this.machine);
  }

  onHeard(): void {
    this.heard++;
  }
  onSent(_stream: Stream, token: number): void {
    this.sentTokens.push(token);
  }
  onDrained(): void {
    this.drained++;
  }
  onClosed(_stream: Stream, errno: number): void {
    this.closedWith.push(errno);
  }

  /** Turns until the condition holds. */
  until(condition: () => boolean): void {
    for (let turns = 0; !condition(); turns++) {
      assert.ok(turns < 2000, "what is waited for does not happen");
      this.engine.turn(5);
    }
  }

  /** Lets so many milliseconds go by. */
  later(milliseconds: number): void {
    this.#skippedMs += milliseconds;
    this.engine.timers.expire(this.engine.now);
  }

  /** Turns a few times: nothing more is to happen. */
  idle(): void {
    for (let i = 0; i < 5; i++) this.engine.turn(1);
  }

  /** Sends bytes as the peer, as many as the socket takes at once. */
  send(bytes: Uint8Array): number {
    this.#buffer.bytes.set(bytes);
    const message = new Message({ address: this.#buffer.address, bytes: bytes.length });
    return sendmsg(this.#peer, message.address, MessageFlag.DONTWAIT);
  }

  /** Sends all of the bytes, turning in between. */
  sendAll(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const sent = this.send(bytes.subarray(at, at + (1 << 20)));
      if (sent > 0) at += sent;
      else assert.equal(sent, -Errno.EAGAIN);
      this.engine.turn(1);
    }
  }

  /** What has arrived at the peer; null at the end of the stream. */
  receive(): Uint8Array | null {
    const count = recv(this.#peer, this.#buffer.address, this.#buffer.bytes.length, MessageFlag.DONTWAIT);
    if (count === 0 || count === -Errno.ECONNRESET) return null;
    return this.#buffer.bytes.slice(0, Math.max(count, 0));
  }

  /** All that arrives at the peer until there are so many bytes. */
  receiveAll(bytes: number): Uint8Array {
    const all: number[] = [];
    this.until(() => {
      const piece = this.receive();
      assert.ok(piece !== null, `the stream ended after ${all.length} bytes`);
      for (const byte of piece) all.push(byte);
      return all.length >= bytes;
    });
    assert.equal(all.length, bytes);
    return Uint8Array.from(all);
  }

  /** The peer goes away, in one direction or in both. */
  leave(how: "close" | "half"): void {
    if (how === "half") {
      shutdown(this.#peer, 1);
      return;
    }
    close(this.#peer);
    this.#peerOpen = false;
  }

  /** Waits for the end of the stream, which must be told once, and everything given back. */
  ends(errno = 0): void {
    this.until(() => this.closedWith.length > 0);
    this.idle();
    assert.deepEqual(this.closedWith, [errno]);
    assert.equal(this.engine.slots.freeCount, this.slotsBefore);
    assert.equal(this.engine.loop.pending, 0);
    assert.ok(!this.stream.isOpen && !this.stream.canTransmit);
  }

  [Symbol.dispose](): void {
    this.engine.close();
    if (this.#peerOpen) close(this.#peer);
  }
}

/** A message of the tests' protocol. */
export function message(payload: Uint8Array | number, ask: number = Ask.NOTHING): Uint8Array {
  const body = typeof payload === "number" ? new Uint8Array(payload) : payload;
  const bytes = new Uint8Array(HEADER + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length, true);
  view.setUint32(4, ask, true);
  bytes.set(body, HEADER);
  return bytes;
}

/** Bytes that differ from their neighbours and from those a page away. */
export function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
}

/** Pieces one after the other. */
export function concat(...pieces: Uint8Array[]): Uint8Array {
  return Uint8Array.from(pieces.flatMap((piece) => [...piece]));
}
