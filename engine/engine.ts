/**
 * One thread's engine: loop, memory, slots, timers and streams, turned until it is stopped.
 *
 * @module
 */
import { monotonicMs } from "../ffi/clock.ts";
import type { Loop } from "../ffi/loop.ts";
import type { Cryptography } from "../protocol/guard.ts";
import type { Core } from "../wasm/core.ts";
import { makeWasmGuard } from "../wasm/guard.ts";
import { noisePrimitives } from "./noise_primitives.ts";
import { SLOT_STRIDE_BYTES, Slots } from "./slots.ts";
import { Streams } from "./stream.ts";
import { type Clock, Timers } from "./timers.ts";

/** Streams of one engine: every connection of every client of one Worker. */
const STREAMS_MAX = 1024;
/** Timers of one engine: a few for each lane and connection, and one for each slot that a delay layer holds. */
const TIMERS_MAX = 32 * 1024;

/** What a Worker runs on. Everything in it belongs to one thread. */
export class Engine {
  readonly loop: Loop;
  /** The Worker's memory, with the kernels that work on it in place. */
  readonly arena: Core;
  /** All cryptography of the thread. By the core alone, unless whoever starts the thread says otherwise. */
  cryptography: Cryptography;
  readonly slots: Slots;
  readonly timers: Timers;
  readonly streams: Streams;
  #stopped = false;
  #mail: (() => Promise<void>) | null = null;

  /**
   * @param arena the Worker's memory; it and the loop belong to the engine from now on
   * @param clock whole milliseconds
   */
  constructor(loop: Loop, arena: Core, clock: Clock = { now: monotonicMs }) {
    this.loop = loop;
    this.arena = arena;
    this.slots = new Slots(arena);
    this.cryptography = {
      ciphers: [],
      noise: noisePrimitives,
      makeGuard: (cipher, digest, keyed, scratchAt) => makeWasmGuard(arena, cipher, digest, keyed, scratchAt),
    };
    loop.base = arena.address;
    this.timers = new Timers(TIMERS_MAX, clock);
    this.streams = new Streams(this, STREAMS_MAX);
  }

  /**
   * The time of the clock in whole milliseconds. It is read at each use: completions run within the turn that waited for
   * them, so that no time remembered from before it would do.
   */
  get now(): number {
    return this.timers.now();
  }

  /**
   * One turn: sends what is queued, waits for the kernel or the next timer, does everything that follows.
   *
   * @param waitMs how long to wait at most; Infinity: as long as nothing happens
   */
  turn(waitMs: number): void {
    this.streams.flush();
    if (this.timers.count > 0) {
      this.loop.turn(Math.min(waitMs, Math.max(0, this.timers.nextDeadline() - this.now)));
    } else this.loop.turn(waitMs);
    this.timers.expire(this.now);
  }

  /** Turns until {@link stop}. Control messages are delivered between two turns. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      this.turn(Infinity);
      if (this.#mail !== null) {
        const deliver = this.#mail;
        this.#mail = null;
        await deliver();
      }
    }
  }

  /** Between this turn and the next the function runs, and the thread's messages with it. */
  deliverMail(deliver: () => Promise<void>): void {
    this.#mail = deliver;
  }

  /** Ends {@link run} after this turn. */
  stop(): void {
    this.#stopped = true;
  }

  /** Gives the loop's descriptors back. The engine is of no use afterwards. */
  close(): void {
    this.loop.close();
  }
}

/** How large a memory must be for this many slots, in bytes, with a mebibyte for the core's own data. */
export function arenaBytes(slots: number): number {
  return slots * SLOT_STRIDE_BYTES + 1024 * 1024;
}
