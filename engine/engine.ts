/**
 * One thread's engine: loop, memory, slots, timers and streams, turned until it is stopped.
 *
 * @module
 */
import { monotonicMs } from "../ffi/clock.ts";
import type { Loop } from "../ffi/loop.ts";
import type { Core } from "../wasm/core.ts";
import { makeCryptography, type ThreadCryptography } from "./cryptography.ts";
import { threadBytes } from "./limits.ts";
import { Slots } from "./slots.ts";
import { Streams } from "./stream.ts";
import { type Clock, Timers } from "./timers.ts";

/** Streams of one engine: every connection of every client of one Worker. */
const STREAMS_MAX = 1024;
/** Timers of one engine: a few for each lane and connection, and one for each slot that a delay layer holds. */
const TIMERS_MAX = 32 * 1024;

/** Work that takes several turns, with others' between them; see {@link Engine.again}. Made once, not for each use. */
export class Task {
  /** @ignore by the engine */
  isQueued = false;
  readonly run: () => void;

  /** @param run does some of it, and asks for another turn if there is more */
  constructor(run: () => void) {
    this.run = run;
  }
}

/** What a Worker runs on. Everything in it belongs to one thread. */
export class Engine {
  readonly loop: Loop;
  /** The Worker's memory, with the kernels that work on it in place. */
  readonly arena: Core;
  /** All cryptography of the thread, working on that memory. */
  readonly cryptography: ThreadCryptography;
  readonly slots: Slots;
  readonly timers: Timers;
  readonly streams: Streams;
  #turnNumber = 0;
  /** What goes on in the next turn, and what does in this one: two lists that change places. */
  #tasks: Task[] = [];
  #taskCount = 0;
  #dueTasks: Task[] = [];
  #stopped = false;
  #mail: (() => Promise<void>) | null = null;

  /**
   * @param arena the Worker's memory; it and the loop belong to the engine from now on
   * @param cryptography over that memory; the core's own if it is left out
   * @param clock whole milliseconds
   */
  constructor(
    loop: Loop,
    arena: Core,
    cryptography: ThreadCryptography = makeCryptography(arena, "wasm"),
    clock: Clock = { now: monotonicMs },
  ) {
    this.loop = loop;
    this.arena = arena;
    this.slots = new Slots(arena);
    this.cryptography = cryptography;
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

  /** The number of the present turn. It comes again after 2^30 turns. */
  get turnNumber(): number {
    return this.#turnNumber;
  }

  /**
   * Has a task go on in the next turn, after what has come from the kernel until then. That turn does not wait. A task
   * that was asked for already runs once.
   */
  again(task: Task): void {
    if (task.isQueued) return;
    task.isQueued = true;
    this.#tasks[this.#taskCount++] = task;
  }

  /**
   * One turn: sends what is queued, waits for the kernel or the next timer, does everything that follows.
   *
   * @param waitMs how long to wait at most; Infinity: as long as nothing happens
   */
  turn(waitMs: number): void {
    this.#turnNumber = (this.#turnNumber + 1) & 0x3fff_ffff;
    const tasks = this.#tasks;
    const count = this.#taskCount;
    this.#tasks = this.#dueTasks;
    this.#dueTasks = tasks;
    this.#taskCount = 0;
    this.streams.flush();
    if (count > 0) this.loop.turn(0);
    else if (this.timers.count > 0) {
      this.loop.turn(Math.min(waitMs, Math.max(0, this.timers.nextDeadline() - this.now)));
    } else this.loop.turn(waitMs);
    this.timers.expire(this.now);
    for (let i = 0; i < count; i++) {
      tasks[i].isQueued = false;
      tasks[i].run();
    }
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

  /** Gives the loop's descriptors back, and wipes the keys that are left. The engine is of no use afterwards. */
  close(): void {
    this.cryptography.close();
    this.loop.close();
  }
}

/** How large a memory must be for this many slots, in bytes: see `limits.ts`. */
export function arenaBytes(slots: number): number {
  return threadBytes(slots);
}
