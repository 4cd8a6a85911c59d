/**
 * A byte stream (TCP or unix socket) on the engine's loop, feeding a sans-I/O machine and sending what it queues.
 *
 * Small messages are received many at a time into the stream's own slot and copied from there; large payloads are
 * received straight into their place. Everything that was queued during one turn of the loop goes out in one sendmsg.
 *
 * @module
 */
import { HEADER_BYTES_MAX, type StreamConsumer, Verdict } from "../protocol/consumer.ts";
import { SLOT_PAYLOAD_BYTES, SLOT_PREFIX_BYTES } from "./slots.ts";
import type { Engine } from "./engine.ts";
import type { CompletionHandler } from "../ffi/loop.ts";

/** Bytes of a stream's slot in which it receives; the rest of the payload area is {@link Stream.scratchAt}. */
export const STAGING_BYTES = 128 * 1024;
/** Bytes that a stream lends to its consumer, for answers that have no slot. */
export const STREAM_SCRATCH_BYTES = SLOT_PAYLOAD_BYTES - STAGING_BYTES;
/** With this many messages unsent nothing more is taken from the peer: whoever does not read gets no service, and the
 * room for answers without a slot is bounded. */
export const UNSENT_MESSAGES_MAX = 512;
/** Entries of the transmit queue: {@link UNSENT_MESSAGES_MAX} and one reply of every slot of the deepest lane. */
const QUEUE_ENTRIES = 2048;
/** Bytes of `struct msghdr` on 64-bit Linux, rounded up (linux/socket.h, struct user_msghdr). */
const MSGHDR_BYTES = 64;
/** Bytes of `struct iovec` on 64-bit Linux. */
const IOVEC_BYTES = 16;
/** Messages in one sendmsg: what fits the prefix page of the stream's slot. */
const IOVECS = Math.floor((SLOT_PREFIX_BYTES - MSGHDR_BYTES) / IOVEC_BYTES);
/** A payload with at least this much still to come is received straight into its place: below, a copy is cheaper than
 * one more system call. */
const DIRECT_BYTES_MIN = 16 * 1024;
/** How much is received ahead of a message that is expected to be large, so that little of it must be copied. */
const AHEAD_OF_LARGE_BYTES = HEADER_BYTES_MAX;
/** How long a stream that is to be closed may take to send its last words, in milliseconds. */
const LAST_WORDS_MS = 5000;

/** Whoever made the stream. */
export interface StreamOwner {
  /** Bytes have arrived (before the consumer gets them). */
  onHeard(stream: Stream): void;
  /** A message that was queued with a token is sent: its bytes may change. */
  onSent(stream: Stream, token: number): void;
  /** All that was queued is sent. */
  onDrained(stream: Stream): void;
  /**
   * The stream is closed; its descriptor and slot are given back and nothing of it is under way in the kernel.
   *
   * @param errno 0 when the peer or this side ended it, or the negative errno that did
   */
  onClosed(stream: Stream, errno: number): void;
}

/** Open, sending its last words, waiting for the kernel to let go, closed or handed over. */
const State = { OPEN: 0, LINGERING: 1, CLOSING: 2, CLOSED: 3 } as const;

/** One connection. Made by {@link Streams.open}. */
export class Stream {
  readonly #engine: Engine;
  readonly #streams: Streams;
  readonly #index: number;
  readonly #generation: number;
  #fd: number;
  readonly #slots: Uint32Array;
  readonly #owner: StreamOwner;
  #consumer: StreamConsumer | null = null;
  #state: number = State.OPEN;
  #errno = 0;
  /** When a lingering stream is to end at the latest. */
  #lastWordsUntil = 0;

  readonly #stagingAt: number;
  #head = 0;
  #tail = 0;
  #receiving = false;
  #waiting = false;
  #throttled = false;
  #inProcess = false;
  #inPayload = false;
  #payloadGot = 0;
  #direct = false;
  #expectLarge = false;

  readonly #queueAt = new Uint32Array(QUEUE_ENTRIES);
  readonly #queueBytes = new Uint32Array(QUEUE_ENTRIES);
  readonly #queueTokens = new Int32Array(QUEUE_ENTRIES);
  #queueHead = 0;
  #queueCount = 0;
  /** Bytes of the first queued message that are sent already. */
  #sentOfFirst = 0;
  #sending = false;
  #dirty = false;

  /** Arena offset of {@link STREAM_SCRATCH_BYTES} bytes lent to the consumer for answers without a slot. */
  readonly scratchAt: number;

  /** @ignore made by {@link Streams.open} */
  constructor(
    engine: Engine,
    streams: Streams,
    index: number,
    generation: number,
    fd: number,
    slots: Uint32Array,
    owner: StreamOwner,
  ) {
    this.#engine = engine;
    this.#streams = streams;
    this.#index = index;
    this.#generation = generation;
    this.#fd = fd;
    this.#slots = slots;
    this.#owner = owner;
    this.#stagingAt = engine.slots.payloadAt(slots[0]);
    this.scratchAt = this.#stagingAt + STAGING_BYTES;
    const view = engine.arena.view;
    const msghdrAt = this.#stagingAt - SLOT_PREFIX_BYTES;
    engine.arena.bytes.fill(0, msghdrAt, msghdrAt + MSGHDR_BYTES);
    // struct user_msghdr: name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48.
    writeU64(view, msghdrAt + 16, engine.arena.address + msghdrAt + MSGHDR_BYTES);
  }

  /** Whether the stream still takes and sends bytes. */
  get isOpen(): boolean {
    return this.#state === State.OPEN;
  }

  /** Whether what is queued now will be sent: also while the last words are. */
  get canTransmit(): boolean {
    return this.#state <= State.LINGERING;
  }

  /** Whether bytes have arrived that the consumer has not taken. While it waits for something, none are received. */
  get hasMore(): boolean {
    return this.#head !== this.#tail;
  }

  /** Begins to receive for the machine, or goes on with another one. */
  start(consumer: StreamConsumer): void {
    this.#consumer = consumer;
    this.#waiting = false;
    this.#process();
  }

  /** After {@link Verdict.WAIT}: makes the same call again. */
  resume(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    // From within the consumer the loop that called it goes on by itself.
    if (!this.#inProcess) this.#process();
  }

  /**
   * Queues bytes of the arena; they must stay as they are until they are sent. Sent at the end of the turn.
   *
   * @param token given to `onSent` when they are; -1: nobody wants to know
   */
  transmit(at: number, bytes: number, token = -1): void {
    if (this.#state > State.LINGERING) return;
    if (this.#queueCount === QUEUE_ENTRIES) throw new RangeError("Cannot queue for sending: the queue is full");
    const index = (this.#queueHead + this.#queueCount) % QUEUE_ENTRIES;
    this.#queueAt[index] = at;
    this.#queueBytes[index] = bytes;
    this.#queueTokens[index] = token;
    this.#queueCount++;
    if (!this.#dirty && !this.#sending) {
      this.#dirty = true;
      this.#streams.markDirty(this);
    }
  }

  /** Ends the stream after what is queued has been sent, or `LAST_WORDS_MS` have gone by. */
  finish(): void {
    if (this.#state !== State.OPEN) return;
    if (this.#queueCount === 0) {
      this.#shut();
      return;
    }
    this.#state = State.LINGERING;
    this.#lastWordsUntil = this.#engine.now + LAST_WORDS_MS;
    this.#streams.linger(this.#lastWordsUntil);
  }

  /** Ends the stream now; `onClosed` comes when the kernel has let go of its memory, never from within this call. */
  close(errno = 0): void {
    if (this.#state > State.LINGERING) return;
    if (errno !== 0) this.#errno = errno;
    this.#shut();
  }

  /**
   * Gives the descriptor away, for another thread to go on with: nothing was received beyond what the consumer took.
   * The stream is gone afterwards; `onClosed` is not called.
   *
   * @returns the descriptor, or -1 while something is still under way or received: the stream stays as it is
   */
  detach(): number {
    if (this.#state !== State.OPEN || this.#receiving || this.#sending || this.#queueCount > 0) return -1;
    if (this.#head !== this.#tail) return -1;
    const fd = this.#fd;
    this.#fd = -1;
    this.#release();
    return fd;
  }

  /** @ignore by {@link Streams} */
  received(result: number): void {
    this.#receiving = false;
    if (this.#state >= State.CLOSING) {
      this.settle();
      return;
    }
    if (result <= 0) {
      if (result < 0) this.#errno = result;
      this.#shut();
      return;
    }
    this.#owner.onHeard(this);
    if (this.#direct) this.#payloadGot += result;
    else this.#tail += result;
    if (this.#state === State.OPEN) this.#process();
  }

  /** @ignore by {@link Streams} */
  sent(result: number): void {
    this.#sending = false;
    if (this.#state >= State.CLOSING) {
      this.settle();
      return;
    }
    if (result < 0) {
      this.#errno = result;
      this.#shut();
      return;
    }
    let left = result + this.#sentOfFirst;
    while (this.#queueCount > 0 && left >= this.#queueBytes[this.#queueHead]) {
      left -= this.#queueBytes[this.#queueHead];
      const token = this.#queueTokens[this.#queueHead];
      this.#queueHead = (this.#queueHead + 1) % QUEUE_ENTRIES;
      this.#queueCount--;
      if (token >= 0) this.#owner.onSent(this, token);
    }
    this.#sentOfFirst = left;
    if (this.#queueCount > 0) {
      this.#dirty = true;
      this.#streams.markDirty(this);
    } else {
      if (this.#state === State.LINGERING) {
        this.#shut();
        return;
      }
      this.#owner.onDrained(this);
    }
    if (this.#throttled && this.#queueCount < UNSENT_MESSAGES_MAX && this.#state === State.OPEN) {
      this.#throttled = false;
      this.#process();
    }
  }

  /** @ignore by {@link Streams}: one sendmsg for all that is queued, at the end of a turn. */
  flush(): void {
    this.#dirty = false;
    if (this.#state > State.LINGERING || this.#sending || this.#queueCount === 0) return;
    const view = this.#engine.arena.view;
    const base = this.#engine.arena.address;
    const msghdrAt = this.#stagingAt - SLOT_PREFIX_BYTES;
    let iovecAt = msghdrAt + MSGHDR_BYTES;
    let iovecs = 0;
    let skip = this.#sentOfFirst;
    for (let i = 0; i < this.#queueCount && iovecs < IOVECS; i++) {
      const index = (this.#queueHead + i) % QUEUE_ENTRIES;
      writeU64(view, iovecAt, base + this.#queueAt[index] + skip);
      writeU64(view, iovecAt + 8, this.#queueBytes[index] - skip);
      skip = 0;
      iovecAt += IOVEC_BYTES;
      iovecs++;
    }
    view.setUint32(msghdrAt + 24, iovecs, true);
    this.#sending = true;
    this.#engine.loop.sendmsg(this.#fd, msghdrAt, 0, this.#streams.sendKind, this.#index, this.#generation);
  }

  /** @ignore by {@link Streams}: ends the stream if its time for last words is over. Until when it has time otherwise. */
  lingering(now: number): number {
    if (this.#state !== State.LINGERING) return Infinity;
    if (this.#lastWordsUntil > now) return this.#lastWordsUntil;
    this.#shut();
    return Infinity;
  }

  /** Whether a completion with this generation is meant for this stream. */
  isGeneration(generation: number): boolean {
    return this.#generation === generation;
  }

  #process(): void {
    if (this.#inProcess) return;
    this.#inProcess = true;
    while (this.#state === State.OPEN && !this.#waiting && this.#step());
    this.#inProcess = false;
    if (this.#state === State.OPEN && !this.#waiting && !this.#throttled && !this.#receiving) this.#receive();
  }

  /** One header or payload; false when more bytes (or room) are needed first. */
  #step(): boolean {
    const consumer = this.#consumer!;
    let verdict: Verdict;
    if (this.#inPayload) {
      if (!this.#fillPayload(consumer)) return false;
      // The machine may answer WAIT, and asked again later find the payload still there.
      verdict = this.#call(consumer, -1);
      if (verdict === Verdict.WAIT) return false;
      this.#inPayload = false;
    } else {
      if (this.#queueCount >= UNSENT_MESSAGES_MAX) {
        this.#throttled = true;
        return false;
      }
      const headerBytes = consumer.headerBytes;
      if (this.#tail - this.#head < headerBytes) return false;
      verdict = this.#call(consumer, this.#stagingAt + this.#head);
      if (verdict === Verdict.WAIT) return false;
      this.#head += headerBytes;
      if (verdict === Verdict.PAYLOAD) {
        this.#inPayload = true;
        this.#payloadGot = 0;
        this.#expectLarge = consumer.payloadBytes >= DIRECT_BYTES_MIN;
        return true;
      }
      this.#expectLarge = false;
    }
    if (verdict === Verdict.CLOSE) {
      this.finish();
      return false;
    }
    return true;
  }

  /** Calls the machine; `waiting` is set first, so that a resume() from within the call is not lost. */
  #call(consumer: StreamConsumer, headerAt: number): Verdict {
    this.#waiting = true;
    const verdict = headerAt < 0 ? consumer.onPayload() : consumer.onHeader(headerAt);
    if (verdict !== Verdict.WAIT) this.#waiting = false;
    else if (!this.#waiting) return this.#call(consumer, headerAt);
    return verdict;
  }

  /** Moves what is there of the payload into its place; true when it is whole. */
  #fillPayload(consumer: StreamConsumer): boolean {
    const bytes = Math.min(this.#tail - this.#head, consumer.payloadBytes - this.#payloadGot);
    if (bytes > 0) {
      if (consumer.payloadAt >= 0) {
        const from = this.#stagingAt + this.#head;
        this.#engine.arena.bytes.copyWithin(consumer.payloadAt + this.#payloadGot, from, from + bytes);
      }
      this.#head += bytes;
      this.#payloadGot += bytes;
    }
    return this.#payloadGot === consumer.payloadBytes;
  }

  #receive(): void {
    let at: number;
    let bytes: number;
    this.#direct = false;
    if (this.#head > 0) {
      const from = this.#stagingAt + this.#head;
      this.#engine.arena.bytes.copyWithin(this.#stagingAt, from, this.#stagingAt + this.#tail);
      this.#tail -= this.#head;
      this.#head = 0;
    }
    at = this.#stagingAt + this.#tail;
    bytes = this.#expectLarge && !this.#inPayload ? AHEAD_OF_LARGE_BYTES : STAGING_BYTES - this.#tail;
    if (this.#inPayload) {
      const consumer = this.#consumer!;
      const missing = consumer.payloadBytes - this.#payloadGot;
      if (missing >= DIRECT_BYTES_MIN && consumer.payloadAt >= 0) {
        this.#direct = true;
        at = consumer.payloadAt + this.#payloadGot;
        bytes = missing;
      }
    }
    this.#receiving = true;
    this.#engine.loop.recv(this.#fd, at, bytes, 0, this.#streams.receiveKind, this.#index, this.#generation);
  }

  /** Makes the kernel let go: every operation under way completes. */
  #shut(): void {
    this.#state = State.CLOSING;
    this.#engine.loop.calls.shutdown(this.#fd, 2);
    // Even with nothing under way the owner hears of it only at the end of the turn.
    if (!this.#receiving && !this.#sending) this.#streams.markDirty(this);
  }

  /** @ignore by {@link Streams}, at the end of a turn: closes once nothing is under way. */
  settle(): void {
    if (this.#state !== State.CLOSING || this.#receiving || this.#sending) return;
    this.#engine.loop.calls.close(this.#fd);
    this.#release();
    this.#owner.onClosed(this, this.#errno);
  }

  #release(): void {
    this.#state = State.CLOSED;
    this.#engine.slots.release(this.#slots);
    this.#streams.forget(this.#index);
  }
}

/** All streams of one engine. */
export class Streams {
  /** Completion kinds of the loop. */
  readonly receiveKind: number;
  readonly sendKind: number;
  readonly #engine: Engine;
  readonly #streams: (Stream | null)[];
  readonly #dirty: Stream[] = [];
  #dirtyCount = 0;
  #generation = 0;
  /** The one timer that looks after all last words is running: one for each would add up with clients that come and go. */
  #lingerWatched = false;
  readonly #lingerHandler = { expire: (): void => this.#endLingering() };

  /** @param capacity how many streams there may be at once */
  constructor(engine: Engine, capacity: number) {
    this.#engine = engine;
    this.#streams = new Array<Stream | null>(capacity).fill(null);
    const receive: CompletionHandler = {
      complete: (tag, generation, result) => this.#find(tag, generation).received(result),
    };
    const send: CompletionHandler = {
      complete: (tag, generation, result) => this.#find(tag, generation).sent(result),
    };
    this.receiveKind = engine.loop.register(receive);
    this.sendKind = engine.loop.register(send);
  }

  /**
   * Takes over a connected socket. Call `start` on the stream to begin.
   *
   * @returns null when there are too many streams or no free slot: the socket is still the caller's
   */
  open(fd: number, owner: StreamOwner): Stream | null {
    const index = this.#streams.indexOf(null);
    if (index < 0) return null;
    const slots = this.#engine.slots.reserve(1);
    if (slots === null) return null;
    this.#generation = (this.#generation + 1) >>> 0;
    const stream = new Stream(this.#engine, this, index, this.#generation, fd, slots, owner);
    this.#streams[index] = stream;
    return stream;
  }

  /** @ignore by {@link Stream} */
  markDirty(stream: Stream): void {
    this.#dirty[this.#dirtyCount++] = stream;
  }

  /** @ignore by {@link Stream} */
  linger(deadlineMs: number): void {
    if (this.#lingerWatched) return;
    this.#lingerWatched = true;
    this.#engine.timers.schedule(this.#lingerHandler, 0, deadlineMs);
  }

  /** @ignore by {@link Stream} */
  forget(index: number): void {
    this.#streams[index] = null;
  }

  /** Queues one send for every stream with something to send. The engine calls it at the end of each turn. */
  flush(): void {
    // Owners that hear of a closed stream may send on others: those join the end of the list.
    for (let i = 0; i < this.#dirtyCount; i++) {
      this.#dirty[i].flush();
      this.#dirty[i].settle();
    }
    this.#dirtyCount = 0;
  }

  /** All streams have equally long, so whoever began later ends later. */
  #endLingering(): void {
    this.#lingerWatched = false;
    let next = Infinity;
    for (const stream of this.#streams) {
      if (stream !== null) next = Math.min(next, stream.lingering(this.#engine.now));
    }
    if (next < Infinity) this.linger(next);
  }

  #find(index: number, generation: number): Stream {
    const stream = this.#streams[index];
    if (stream === null || !stream.isGeneration(generation)) {
      throw new Error("A completion arrived for a stream that is gone");
    }
    return stream;
  }
}

/** Writes a safe integer as two little-endian words. */
function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 4294967296), true);
}
