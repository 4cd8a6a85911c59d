/**
 * A connection between a client's end and a sans-I/O machine of the exporter, without sockets: bytes take as long as they
 * take, in pieces of any length, and what the machine has queued for sending is copied late, as the kernel does it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { PAYLOAD_BYTES_MAX } from "../../protocol/limits.ts";
import { HEADER_BYTES_MAX, type Memory, type StreamConsumer, Verdict } from "../../protocol/consumer.ts";

/** As the engine's stream has it (`UNSENT_MESSAGES_MAX`): with so many messages unsent nothing more is taken. */
const UNSENT_MESSAGES_MAX = 512;

/** Bytes in the order in which they came. */
class Bytes {
  #buffer = new Uint8Array(1024);
  #head = 0;
  #tail = 0;

  get length(): number {
    return this.#tail - this.#head;
  }

  push(bytes: Uint8Array): void {
    if (this.#tail + bytes.length > this.#buffer.length) {
      const kept = this.#buffer.subarray(this.#head, this.#tail);
      const needed = kept.length + bytes.length;
      const buffer = needed * 2 > this.#buffer.length ? new Uint8Array(needed * 2) : this.#buffer;
      buffer.set(kept);
      this.#buffer = buffer;
      this.#tail = kept.length;
      this.#head = 0;
    }
    this.#buffer.set(bytes, this.#tail);
    this.#tail += bytes.length;
  }

  /** The first bytes, without taking them. */
  peek(count: number): Uint8Array {
    return this.#buffer.subarray(this.#head, this.#head + count);
  }

  take(count: number): Uint8Array<ArrayBuffer> {
    const taken = this.#buffer.slice(this.#head, this.#head + count);
    this.#head += taken.length;
    return taken;
  }
}

/** What somebody on the way does to bytes that pass; it may change, drop or repeat them. */
export type Tampering = (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;

/** The client's end of a connection. */
export class Line {
  /** All that the client has sent, in order: what somebody who reads along has. */
  readonly recorded: Uint8Array[] = [];
  /** Set while somebody on the way interferes, and whether somebody ever did. */
  tampersUp: Tampering | null = null;
  tampersDown: Tampering | null = null;
  wasTampered = false;
  /** The client has ended it; what it sent still arrives. */
  isClosed = false;
  readonly up = new Bytes();
  readonly down = new Bytes();
  /** The exporter has ended it. */
  isEnded = false;

  write(bytes: Uint8Array): void {
    if (this.isClosed) return;
    this.recorded.push(bytes.slice());
    this.up.push(this.#pass(bytes, this.tampersUp));
  }

  /** What has arrived. */
  read(): Uint8Array {
    return this.down.take(this.down.length);
  }

  /** Whether the exporter has ended it and all is read. */
  get isOver(): boolean {
    return this.isEnded && this.down.length === 0;
  }

  close(): void {
    this.isClosed = true;
  }

  /** By the exporter's end: bytes on their way to the client. */
  arrive(bytes: Uint8Array): void {
    this.down.push(this.#pass(bytes, this.tampersDown));
  }

  #pass(bytes: Uint8Array, tampers: Tampering | null): Uint8Array {
    if (tampers === null) return bytes;
    this.wasTampered = true;
    return tampers(bytes.slice());
  }
}

/** The exporter's end of it. */
export class Stream {
  /** It takes nothing more; what is queued is still sent. */
  isClosing = false;
  isClosed = false;
  readonly line: Line;
  readonly #memory: Memory;
  #stagingAt: number;
  /** How often bytes have arrived. */
  arrivals = 0;
  readonly #input = new Bytes();
  readonly #queue: { at: number; bytes: number }[] = [];
  #consumer: StreamConsumer;
  #onClosed: () => void;
  #waits = false;
  #inPayload = false;
  #payloadGot = 0;

  /** @param stagingAt arena offset of HEADER_BYTES_MAX of its own */
  constructor(line: Line, memory: Memory, stagingAt: number, consumer: StreamConsumer, onClosed: () => void) {
    this.line = line;
    this.#memory = memory;
    this.#stagingAt = stagingAt;
    this.#consumer = consumer;
    this.#onClosed = onClosed;
  }

  /** Bytes have come that nobody has looked at. */
  get hasMore(): boolean {
    return this.#input.length > 0;
  }

  /** Whether everything that was queued is sent. */
  get isDrained(): boolean {
    return this.#queue.length === 0;
  }

  /** Goes on with another machine, whose first message is the next one. */
  handOver(stagingAt: number, consumer: StreamConsumer, onClosed: () => void): void {
    this.#stagingAt = stagingAt;
    this.#consumer = consumer;
    this.#onClosed = onClosed;
    this.#waits = this.#inPayload = false;
  }

  /** Queues bytes of the arena for sending. */
  transmit(at: number, bytes: number): void {
    assert.ok(bytes > 0 && at >= 0 && at + bytes <= this.#memory.bytes.length);
    if (!this.isClosed) this.#queue.push({ at, bytes });
  }

  /** Takes so many of the bytes that are on their way, and has the machine look at them. */
  deliver(most: number): void {
    const { up } = this.line;
    if (up.length > 0 && this.#takesMore) {
      this.#input.push(up.take(Math.min(most, up.length)));
      this.arrivals++;
    }
    this.process();
    if (this.line.isClosed && up.length === 0 && !this.isClosed) this.#end();
  }

  /** After WAIT: the same call again. */
  resume(): void {
    this.#waits = false;
    this.process();
  }

  /** Sends what is queued. */
  flush(): void {
    const { bytes } = this.#memory;
    for (const piece of this.#queue.splice(0)) this.line.arrive(bytes.subarray(piece.at, piece.at + piece.bytes));
    if (this.isClosing) this.#end();
  }

  /** Ends the connection when everything is sent. */
  finish(): void {
    this.isClosing = true;
    if (this.isDrained) this.#end();
  }

  /** Ends the connection now. */
  close(): void {
    this.#end();
  }

  get #takesMore(): boolean {
    return !this.isClosing && !this.isClosed && !this.#waits && this.#queue.length < UNSENT_MESSAGES_MAX;
  }

  /** Goes on with what has come. */
  process(): void {
    while (this.#takesMore && this.#step());
  }

  /** Makes one call of the machine, if there are enough bytes. */
  #step(): boolean {
    const consumer = this.#consumer;
    const { bytes } = this.#memory;
    if (!this.#inPayload) {
      const { headerBytes } = consumer;
      assert.ok(headerBytes >= 1 && headerBytes <= HEADER_BYTES_MAX);
      if (this.#input.length < headerBytes) return false;
      bytes.set(this.#input.peek(headerBytes), this.#stagingAt);
      const verdict = consumer.onHeader(this.#stagingAt);
      // A header is valid during the call only.
      bytes.fill(0xa5, this.#stagingAt, this.#stagingAt + HEADER_BYTES_MAX);
      return this.#take(verdict, headerBytes);
    }
    const { payloadAt, payloadBytes } = consumer;
    const arrived = this.#input.take(Math.min(payloadBytes - this.#payloadGot, this.#input.length));
    if (payloadAt >= 0) bytes.set(arrived, payloadAt + this.#payloadGot);
    this.#payloadGot += arrived.length;
    if (this.#payloadGot < payloadBytes) return false;
    const verdict = consumer.onPayload();
    assert.notEqual(verdict, Verdict.PAYLOAD, "a payload is not followed by another");
    if (verdict !== Verdict.WAIT) this.#inPayload = false;
    return this.#take(verdict, 0);
  }

  #take(verdict: Verdict, consumed: number): boolean {
    assert.ok(verdict >= Verdict.NEXT && verdict <= Verdict.CLOSE, "there is such a verdict");
    if (verdict === Verdict.WAIT) {
      this.#waits = true;
      return false;
    }
    this.#input.take(consumed);
    if (verdict === Verdict.CLOSE) this.isClosing = true;
    if (verdict !== Verdict.PAYLOAD) return true;
    const { payloadBytes } = this.#consumer;
    assert.ok(payloadBytes >= 1 && payloadBytes <= PAYLOAD_BYTES_MAX, "a payload has bytes, and a limit");
    this.#inPayload = true;
    this.#payloadGot = 0;
    return true;
  }

  #end(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#queue.length = 0;
    this.line.isEnded = true;
    this.#onClosed();
  }
}
