/**
 * The threads of an attachment, one for each lane of its session, seen from the main isolate as one.
 *
 * @module
 */
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import type { CryptoChoice } from "../engine/cryptography.ts";
import { type LoopChoice, makeWakeFd, Thread } from "../engine/thread.ts";
import { IDENTITY_BYTES } from "../protocol/grant.ts";
import { attachmentSlots } from "./attachment.ts";
import { unlessInterrupted } from "./interrupt.ts";
import { LEDGER_BYTES, MutationLedger } from "./ledger.ts";
import type { AttachEvent, AttachInit, AttachQuestion, OpenedShape, SessionState } from "./messages.ts";
import type { OpenOptions } from "./open.ts";
import { sleep } from "./ublk_device.ts";

const log = logger("client");

/** How long a forced detach waits for each step before it gives up what is under way, in milliseconds. */
const FORCE_PATIENCE_MS = 5000;

/** What is opened, and what it is served by. */
export interface LaneOptions {
  readonly open: Omit<OpenOptions, "session" | "lanes" | "ledger">;
  /** How many lanes are wished for. */
  readonly lanes: number;
  readonly frontend: "nbd" | "ublk";
  readonly loop: LoopChoice;
  readonly crypto: CryptoChoice;
}

type LaneThread = Thread<AttachQuestion, AttachEvent>;

/** All lanes of one session. When one of them is lost, all of them are. */
export class LaneThreads {
  /** What the exporter has granted. */
  readonly shape: OpenedShape;
  /** Resolves, and never rejects, when a thread has died of an error. */
  readonly failed: Promise<Error>;
  readonly #crew: Crew;

  private constructor(crew: Crew, shape: OpenedShape) {
    this.#crew = crew;
    this.shape = shape;
    this.failed = Promise.race(crew.threads.map((thread) => thread.failed));
  }

  /**
   * Opens the session on a first thread and joins its other lanes, each on a thread of its own.
   *
   * @param interrupted ends the waiting at once
   * @throws {Error} why not, without what for; nothing is left then
   */
  static async open(options: LaneOptions, interrupted: AbortSignal): Promise<LaneThreads> {
    const crew = new Crew(options);
    try {
      await crew.start(0, interrupted);
      const shape = await unlessInterrupted(crew.ask(0, { ask: "open", at: null }), interrupted) as OpenedShape;
      if (shape.lanes < options.lanes) {
        log.warning("{text}", { text: `The exporter grants ${shape.lanes} of the ${options.lanes} lanes` });
      }
      const others = Array.from({ length: Math.min(shape.lanes, options.lanes) - 1 }, (_, i) => i + 1);
      // A thread that is being started cannot be ended: all of them are waited for, whatever becomes of one.
      const started = await Promise.allSettled(others.map((lane) => crew.start(lane, interrupted)));
      for (const result of started) if (result.status === "rejected") throw result.reason;
      await unlessInterrupted(Promise.all(others.map((lane) => crew.join(lane, shape))), interrupted);
      return new LaneThreads(crew, shape);
    } catch (error) {
      // What a thread that has died has to say is the error already.
      await crew.leave().catch(() => {});
      throw error;
    }
  }

  /** How many lanes there are. */
  get count(): number {
    return this.#crew.threads.length;
  }

  /** Which loop they run. */
  get loop(): "uring" | "poll" {
    return this.#crew.threads[0].loop;
  }

  /** Why every request fails for good, or null. */
  get failure(): string | null {
    return this.#crew.failure;
  }

  /** Whether no FLUSH has covered something that was acknowledged. */
  get hasUncovered(): boolean {
    return !this.#crew.ledger.isCovered;
  }

  /** Whether something that was to be written has failed. */
  get hasFailed(): boolean {
    return this.#crew.ledger.hasFailed;
  }

  /** Asks the thread of one lane. */
  ask(lane: number, question: AttachQuestion): Promise<unknown> {
    return this.#crew.ask(lane, question);
  }

  /** Asks the threads of the first so many lanes; rejects with the first refusal. */
  async askAll(question: (lane: number) => AttachQuestion, count = this.count): Promise<void> {
    await Promise.all(Array.from({ length: count }, (_, lane) => this.#crew.ask(lane, question(lane))));
  }

  /** How all of them are together. */
  async status(): Promise<SessionState> {
    const asked = this.#crew.threads.map((thread) => thread.ask({ ask: "status" }));
    const states = await Promise.all(asked) as SessionState[];
    return {
      connected: states.every(({ connected }) => connected),
      inFlight: states.reduce((sum, { inFlight }) => sum + inFlight, 0),
      clients: states.reduce((sum, { clients }) => sum + clients, 0),
    };
  }

  /** Waits; when forced, only so long, and then drops the session, so that nothing waits for the exporter any more. */
  async orAbort<Result>(work: Promise<Result>, force: boolean): Promise<Result> {
    if (!force) return await work;
    const done = work.then(() => true, () => true);
    if (!await Promise.race([done, sleep(FORCE_PATIENCE_MS).then(() => false)])) {
      log.warning("The exporter does not answer: its connection is dropped, and what was under way is lost");
      this.abort("it was given up");
    }
    return await work;
  }

  /** Drops the session: what is under way fails. */
  abort(reason: string): void {
    this.#crew.abort(reason);
  }

  /** Ends the session and its threads. No request is under way. */
  leave(): Promise<void> {
    return this.#crew.leave();
  }

  /** Ends the threads at once, after one of them has died. */
  end(): void {
    this.#crew.end();
  }
}

/** The threads, those included that have no lane yet. */
class Crew {
  /** By lane. */
  readonly threads: LaneThread[] = [];
  readonly ledger: MutationLedger;
  failure: string | null = null;
  readonly #options: LaneOptions;
  readonly #open: AttachInit["open"];
  #isLeaving = false;
  #isShuttingDown = false;
  #size = -1;

  constructor(options: LaneOptions) {
    const ledger = new SharedArrayBuffer(LEDGER_BYTES);
    const session = crypto.getRandomValues(new Uint8Array(IDENTITY_BYTES));
    this.#options = options;
    this.#open = { ...options.open, session, lanes: options.lanes, ledger };
    this.ledger = new MutationLedger(ledger);
  }

  async start(lane: number, interrupted: AbortSignal): Promise<void> {
    const { frontend, loop, crypto } = this.#options;
    const { open, transfer } = withItsOwnKey(this.#open);
    this.threads[lane] = await Thread.start<AttachInit, AttachQuestion, AttachEvent>(
      new URL("./attach_worker.ts", import.meta.url),
      {
        loop: frontend === "ublk" ? "uring" : loop,
        slots: attachmentSlots(frontend, this.#open.depth),
        crypto,
        wakeFd: makeWakeFd(),
        init: { open, lane },
        transfer,
      },
      (event) => this.#hear(lane, event),
    );
    interrupted.throwIfAborted();
  }

  ask(lane: number, question: AttachQuestion): Promise<unknown> {
    return this.threads[lane].ask(question);
  }

  async join(lane: number, { address: at }: OpenedShape): Promise<void> {
    try {
      await this.ask(lane, { ask: "open", at });
    } catch (error) {
      throw new Error(`lane ${lane} could not be joined: ${messageOf(error)}`);
    }
  }

  abort(reason: string): void {
    // A thread that has died, or is leaving, has no connection to drop.
    for (const thread of this.#present()) thread.ask({ ask: "abort", reason }).catch(() => {});
  }

  async leave(): Promise<void> {
    this.#isLeaving = true;
    const threads = this.#present();
    const left = await Promise.allSettled(threads.map((thread) => {
      return Promise.race([thread.ask({ ask: "leave" }), thread.failed]);
    }));
    this.end();
    for (const result of left) if (result.status === "rejected") throw result.reason;
  }

  end(): void {
    for (const thread of this.#present()) thread.end();
  }

  /** Without the places of those that could not be started. */
  #present(): LaneThread[] {
    return this.threads.filter((thread) => thread !== undefined);
  }

  /** What several lanes report is said once. */
  #hear(lane: number, event: AttachEvent): void {
    switch (event.event) {
      case "log":
        return log[event.level]("{text}", { text: event.text });
      case "lost":
        return this.#lost(lane, event.reason);
      case "shuttingDown":
        if (!this.#isShuttingDown) log.warning("The exporter is being stopped");
        this.#isShuttingDown = true;
        return;
      case "resized":
        if (event.size === this.#size) return;
        this.#size = event.size;
        log.warning("{text}", {
          text: `The export has ${event.size} bytes now; the attachment keeps its size until it is made anew`,
        });
    }
  }

  #lost(lane: number, reason: string): void {
    if (this.#isLeaving || this.failure !== null) return;
    const which = this.threads.length > 1 ? ` on lane ${lane}` : "";
    this.failure = reason;
    log.error("{text}", {
      text: `The disk is lost: ${reason}${which}; every request fails from now on: detach it`,
    });
    this.abort(reason);
  }
}

/** A thread's own copy of the key is given away with the message, which would keep one more copy that nobody wipes. */
function withItsOwnKey(open: AttachInit["open"]): { open: AttachInit["open"]; transfer: Transferable[] } {
  const { key } = open.target;
  if (key === undefined || key === null) return { open, transfer: [] };
  const secret = key.secret.slice();
  return { open: { ...open, target: { ...open.target, key: { ...key, secret } } }, transfer: [secret.buffer] };
}
