/**
 * Workers that run an engine: how one is started, talked to and ended.
 *
 * @module
 */
import { arenaBytes, Engine } from "./engine.ts";
import { Mailbox, type MailboxEnd, post } from "./mailbox.ts";
import { eventfd, mlock } from "../ffi/libc.ts";
import { check, errnoMessage } from "../ffi/errno.ts";
import type { Loop } from "../ffi/loop.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";
import { logger } from "./control/log.ts";
import { type CryptoChoice, makeCryptography } from "./cryptography.ts";

const log = logger("memory");

/** Which loop a thread runs. */
export type LoopChoice = "auto" | "uring" | "poll";

/**
 * What of a thread's memory stays in the machine's, so that no I/O has to wait until the kernel finds a page for it: all of
 * it, which takes the room at once; what was used, from when it was used first; or what the kernel thinks best.
 */
export type Residence = "all" | "used" | "any";

/** What every thread is started with. */
interface ThreadStart<Init> {
  readonly loop: LoopChoice;
  readonly slots: number;
  readonly crypto: CryptoChoice;
  readonly residence: Residence;
  readonly wakeFd: number;
  readonly port: MessagePort;
  readonly init: Init;
}

/** The answer to the start. */
interface Started {
  readonly loop: Loop["name"];
  /** Why its memory is not kept as it was asked for, or null. */
  readonly unlocked: string | null;
}

/** What crosses the port between a thread and whoever started it. */
type Envelope =
  | { readonly kind: "ask"; readonly id: number; readonly question: unknown }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "refusal"; readonly id: number; readonly reason: string }
  | { readonly kind: "event"; readonly event: unknown };

/** A Worker with an engine, seen from the main isolate. */
export class Thread<Question, Event> {
  readonly #worker: Worker;
  readonly #end: MailboxEnd;
  readonly #waiting = new Map<number, { resolve: (answer: unknown) => void; reject: (error: Error) => void }>();
  #nextId = 1;
  /** Which loop it runs. */
  loop: Loop["name"] = "uring";
  #failed: (error: Error) => void = () => {};
  #death: Error | null = null;
  /** Resolves, and never rejects, when the thread has died of an error. */
  readonly failed: Promise<Error>;

  private constructor(worker: Worker, end: MailboxEnd, onEvent: (event: Event) => void) {
    this.#worker = worker;
    this.#end = end;
    this.failed = new Promise((resolve) => this.#failed = resolve);
    end.port.onmessage = (message: MessageEvent<Envelope>) => {
      const envelope = message.data;
      if (envelope.kind === "event") onEvent(envelope.event as Event);
      if (envelope.kind === "answer") this.#take(envelope.id)?.resolve(envelope.answer);
      if (envelope.kind === "refusal") this.#take(envelope.id)?.reject(new Error(envelope.reason));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#die(new Error(event.message));
    };
  }

  /**
   * Starts a Worker whose module calls {@link serveThread}; resolves when its engine is made and its set-up is done.
   *
   * @param wakeFd the eventfd that wakes it, from {@link makeWakeFd}
   * @throws {Error} what the set-up threw
   */
  static async start<Init, Question, Event>(
    module: URL,
    options: {
      loop: LoopChoice;
      slots: number;
      /** Who does its cryptography; "auto" if it is left out. */
      crypto?: CryptoChoice;
      /** "any" if it is left out. */
      residence?: Residence;
      wakeFd: number;
      init: Init;
      transfer?: Transferable[];
    },
    onEvent: (event: Event) => void,
  ): Promise<Thread<Question, Event>> {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(module, { type: "module" });
    const thread = new Thread<Question, Event>(worker, { port: port1, wakePeer: options.wakeFd }, onEvent);
    const started = thread.#expect(0);
    const start: ThreadStart<Init> = {
      loop: options.loop,
      slots: options.slots,
      crypto: options.crypto ?? "auto",
      residence: options.residence ?? "any",
      wakeFd: options.wakeFd,
      port: port2,
      init: options.init,
    };
    worker.postMessage(start, [port2, ...options.transfer ?? []]);
    try {
      const { loop, unlocked } = await started as Started;
      thread.loop = loop;
      if (unlocked !== null) sayUnlocked("a thread", unlocked);
    } catch (error) {
      thread.end();
      throw error;
    }
    return thread;
  }

  /** Asks the thread; rejects with its refusal, or when it dies. */
  ask(question: Question, transfer: Transferable[] = []): Promise<unknown> {
    const id = this.#nextId++;
    const answer = this.#expect(id);
    const envelope: Envelope = { kind: "ask", id, question };
    post(this.#end, envelope, transfer);
    return answer;
  }

  /** Ends the Worker at once. What it does must be over. */
  end(): void {
    this.#end.port.close();
    this.#worker.terminate();
  }

  #expect(id: number): Promise<unknown> {
    if (this.#death !== null) return Promise.reject(this.#death);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #take(id: number) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #die(error: Error): void {
    this.#death ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
    this.#failed(error);
  }
}

/** What a thread's set-up gets. */
export interface ThreadContext<Init, Event> {
  readonly engine: Engine;
  readonly mailbox: Mailbox;
  readonly init: Init;
  /** Tells whoever started the thread. */
  tell(event: Event): void;
}

/** Where the answer to a question goes, now or from a later turn of the loop (which promises would not reach). */
export interface Reply {
  answer(result?: unknown): void;
  refuse(reason: string): void;
}

/** Answers questions. What it throws is a refusal. */
export type Answerer<Question> = (question: Question, reply: Reply) => void;

/**
 * Runs an engine in this Worker: waits for the start message, sets up, answers questions between turns.
 *
 * @param setUp makes what the thread does; an error it throws is the answer to the start
 */
export function serveThread<Init, Question, Event>(
  setUp: (context: ThreadContext<Init, Event>) => Answerer<Question>,
): void {
  const scope = self as unknown as { onmessage: ((message: MessageEvent<ThreadStart<Init>>) => void) | null };
  scope.onmessage = async (message) => {
    scope.onmessage = null;
    const { loop, slots, crypto, residence, wakeFd, port, init } = message.data;
    const tell = (envelope: Envelope) => port.postMessage(envelope);
    let engine: Engine;
    let unlocked: string | null;
    try {
      const core = makeArena(arenaBytes(slots));
      core.warmUp();
      unlocked = keepInMemory(core.address, core.size, residence);
      engine = new Engine(makeLoop(loop), core, makeCryptography(core, crypto));
      const mailbox = new Mailbox(engine, wakeFd);
      const answer = setUp({
        engine,
        mailbox,
        init,
        tell: (event) => tell({ kind: "event", event }),
      });
      mailbox.listen(port, (data) => {
        const envelope = data as Envelope;
        if (envelope.kind !== "ask") return;
        const { id, question } = envelope;
        const reply: Reply = {
          answer: (result) => tell({ kind: "answer", id, answer: result }),
          refuse: (reason) => tell({ kind: "refusal", id, reason }),
        };
        try {
          answer(question as Question, reply);
        } catch (error) {
          reply.refuse((error as Error).message);
        }
      });
    } catch (error) {
      tell({ kind: "refusal", id: 0, reason: (error as Error).message });
      return;
    }
    const started: Started = { loop: engine.loop.name, unlocked };
    tell({ kind: "answer", id: 0, answer: started });
    await engine.run();
    engine.close();
    self.close();
  };
}

/**
 * Keeps what requests pass through in the machine's memory, and nothing else: V8 does not survive that its own is locked.
 *
 * @returns why it cannot be kept, or null
 */
export function keepInMemory(address: number, bytes: number, residence: Residence): string | null {
  if (residence === "any") return null;
  const result = mlock(address, bytes, residence === "used");
  return result < 0 ? errnoMessage(result) : null;
}

/** Says that memory is not kept as it was asked for. */
export function sayUnlocked(whose: string, reason: string): void {
  log.debug("{text}", { text: `The memory of ${whose} may be paged out (${reason}): see RLIMIT_MEMLOCK` });
}

/** An eventfd for {@link Thread.start} and for the peers of its thread. */
export function makeWakeFd(): number {
  return check(eventfd(), "make an eventfd");
}
