/**
 * The threads of an attachment, one for each lane of its session, seen from the main isolate as one.
 *
 * @module
 */
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import type { CryptoChoice } from "../engine/cryptography.ts";
import { formatDuration } from "../engine/duration.ts";
import { formatSize } from "../engine/size.ts";
import { addressOf } from "../ffi/libc.ts";
import { SPARE_SLOTS, threadBytes } from "../engine/limits.ts";
import { keepInMemory, type LoopChoice, makeWakeFd, type Residence, sayUnlocked, Thread } from "../engine/thread.ts";
import { Feature, type Grant, IDENTITY_BYTES } from "../protocol/grant.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import { attachmentSlots } from "./attachment.ts";
import { geometryOf } from "./geometry.ts";
import { unlessInterrupted } from "./interrupt.ts";
import { LEDGER_BYTES, MutationLedger } from "./ledger.ts";
import type { AttachEvent, AttachInit, AttachQuestion, OpenedShape, SessionState } from "./messages.ts";
import type { OpenOptions, RecoveredSession } from "./open.ts";
import { Outage } from "./outage.ts";
import { overlapBytes } from "./overlap.ts";
import type { Patience } from "./patience.ts";
import { makeReplayRoom, ReplayMemory } from "./replay_log.ts";
import { sleep } from "./ublk_device.ts";

const log = logger("client");

/** How long a forced detach waits for each step before it gives up what is under way, in milliseconds. */
const FORCE_PATIENCE_MS = 5000;

/**
 * How much memory an attachment takes from the start on, in bytes: 26 lanes of the usual depth, or 3 of the deepest. Of more,
 * and where NBD clients may come that never do, it takes what is used.
 */
const RESIDENT_BYTES_MAX = 2 ** 30;

/** What is opened, and what it is served by. */
export interface LaneOptions {
  readonly open: Omit<OpenOptions, "session" | "lanes" | "ledger" | "overlaps" | "replay">;
  /** Looks the exporter's name up, and never rejects; null where it was named by its address. */
  readonly lookUp: (() => Promise<SocketAddress[]>) | null;
  /** How many lanes are wished for. */
  readonly lanes: number;
  /** Room for copies of what the exporter may lose with its memory, in bytes; null: that is lost. */
  readonly replayBytes?: number | null;
  readonly frontend: "nbd" | "ublk";
  readonly loop: LoopChoice;
  readonly crypto: CryptoChoice;
  /** The session of a process that is gone, which is to be gone on with; without it a new one is opened. */
  readonly recovered?: (RecoveredSession & { readonly session: Uint8Array; readonly failure: string | null }) | null;
}

type LaneThread = Thread<AttachQuestion, AttachEvent>;

/** How all lanes of a session are together. */
export interface LanesState extends Omit<SessionState, "away"> {
  /** Where some of them are that have no connection and are coming back; else null. */
  readonly reconnecting: Reconnecting | null;
  /** Whether lane 0 is one of them, without which the session cannot be ended. */
  readonly isFirstAway: boolean;
}

/** The copies of what the exporter may lose with its memory. */
export interface ReplayState {
  /** How much there is, and for how much there is room, in bytes. */
  readonly bytes: number;
  readonly capacity: number;
  /** Whether it is being written again: nothing else is done meanwhile. */
  readonly replaying: boolean;
}

/** The lanes that have no connection and are coming back. */
export interface Reconnecting {
  /** How many they are. */
  readonly lanes: number;
  /** For how long the first of them has had none, in milliseconds. */
  readonly forMs: number;
  /** How many requests wait for them. */
  readonly waiting: number;
  /** In how many milliseconds the next try is made; 0 while there is one. */
  readonly nextMs: number;
  /** Why the last try came to nothing, or there is no connection; for people. */
  readonly reason: string;
}

/** All lanes of one session. Each comes back by itself when its connection is lost; when one is lost for good, all are. */
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
      crew.grant ??= shape.grant;
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
      // A session that is to be recovered waits for the next one who tries.
      if (options.recovered) crew.end();
      // What a thread that has died has to say is the error already.
      else await crew.leave().catch(() => {});
      throw error;
    }
  }

  /** The session's id. */
  get session(): Uint8Array {
    return this.#crew.session;
  }

  /** What the exporter has granted last. Null while what was acknowledged under the grant before is still at stake. */
  get grant(): Grant | null {
    return this.#crew.grant;
  }

  /** Whether something that was acknowledged is lost, so that writes fail for good. */
  get isLost(): boolean {
    return this.#crew.ledger.isLost;
  }

  /** How patient they are. Not where the session ends with its connection. */
  get patience(): Patience {
    if (this.#crew.patience === null) throw new Error("The session has no patience");
    return this.#crew.patience;
  }

  /** Makes all of them so patient, at once; what waits already is judged by it. */
  async setPatience(patience: Patience): Promise<void> {
    // Before they are asked: whoever changes something else of it meanwhile changes this.
    this.#crew.patience = patience;
    this.#crew.changed();
    await this.askAll(() => ({ ask: "setPatience", patience }));
  }

  /** Has a function called when {@link grant}, {@link failure} or {@link patience} may have changed. */
  onChange(changed: () => void): void {
    this.#crew.changed = changed;
    changed();
  }

  /** Has a function called with the export's size in bytes when it has another one, or had before the call. */
  onResized(resized: (size: number) => void): void {
    this.#crew.resized = resized;
    if (this.#crew.size >= 0) resized(this.#crew.size);
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

  /** The copies of what the exporter may lose; null where it loses nothing, or nothing is kept. */
  get replay(): ReplayState | null {
    const { memory, ledger } = this.#crew;
    const { geometry, grant } = this.shape;
    if (memory === null || !geometry.volatileCache || (grant.features & Feature.SHARED) !== 0) return null;
    const capacity = memory.lanes * memory.bytesOfLane;
    return { bytes: memory.usedBytes, capacity, replaying: ledger.isReplaying };
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
  async status(): Promise<LanesState> {
    const asked = this.#crew.threads.map((thread) => thread.ask({ ask: "status" }));
    const states = await Promise.all(asked) as SessionState[];
    return {
      connected: states.every(({ connected }) => connected),
      inFlight: states.reduce((sum, { inFlight }) => sum + inFlight, 0),
      clients: states.reduce((sum, { clients }) => sum + clients, 0),
      reconnecting: reconnectingOf(states),
      isFirstAway: states[0].away !== null,
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

function reconnectingOf(states: readonly SessionState[]): Reconnecting | null {
  const away = states.flatMap(({ away, inFlight }) => away === null ? [] : [{ ...away, inFlight }]);
  if (away.length === 0) return null;
  const first = away.reduce((one, other) => other.forMs > one.forMs ? other : one);
  return {
    lanes: away.length,
    forMs: Math.round(first.forMs),
    waiting: away.reduce((sum, { inFlight }) => sum + inFlight, 0),
    nextMs: Math.round(Math.min(...away.map(({ nextMs }) => nextMs))),
    reason: first.reason,
  };
}

/** The threads, those included that have no lane yet. */
class Crew {
  /** By lane. */
  readonly threads: LaneThread[] = [];
  readonly ledger: MutationLedger;
  readonly memory: ReplayMemory | null;
  readonly session: Uint8Array;
  failure: string | null = null;
  grant: Grant | null = null;
  patience: Patience | null;
  changed: () => void = () => {};
  resized: (size: number) => void = () => {};
  readonly #outage = new Outage();
  readonly #options: LaneOptions;
  readonly #open: AttachInit["open"];
  /** The grant of a lane that came back last. */
  #grantOfBack: Grant | null = null;
  #isLeaving = false;
  /** The session is over: every request fails. */
  #isOver = false;
  #looking: Promise<SocketAddress[]> | null = null;
  #isShuttingDown = false;
  /** Of the export, as a lane has told it last; -1: as it was granted. */
  size = -1;

  constructor(options: LaneOptions) {
    const { open, lanes, frontend, replayBytes = null, recovered = null } = options;
    const ledger = new SharedArrayBuffer(LEDGER_BYTES);
    const session = recovered?.session ?? crypto.getRandomValues(new Uint8Array(IDENTITY_BYTES));
    // An engine makes a few slots of what it does not need for itself.
    const slotsOfLane = attachmentSlots(frontend, open.depth) + SPARE_SLOTS;
    const overlaps = { memory: new SharedArrayBuffer(overlapBytes(lanes * slotsOfLane)), slotsOfLane };
    this.#options = options;
    const replay = replayBytes === null || open.readOnly ? undefined : makeReplayRoom(lanes, replayBytes);
    this.#open = { ...open, session, lanes, ledger, overlaps, replay };
    this.memory = replay === undefined ? null : new ReplayMemory(replay);
    if (replay !== undefined) keepCopies(replay.memory);
    this.session = session;
    this.patience = open.patience ?? null;
    this.ledger = new MutationLedger(ledger);
    if (recovered !== null) this.#inherit(recovered.grant, recovered.failure);
  }

  async start(lane: number, interrupted: AbortSignal): Promise<void> {
    const { frontend, loop, crypto, lookUp } = this.#options;
    const { open, transfer } = withItsOwnKey(this.#open);
    this.threads[lane] = await Thread.start<AttachInit, AttachQuestion, AttachEvent>(
      new URL("./attach_worker.ts", import.meta.url),
      {
        loop: frontend === "ublk" ? "uring" : loop,
        slots: attachmentSlots(frontend, this.#open.depth),
        residence: residenceOf(this.#options),
        crypto,
        wakeFd: makeWakeFd(),
        init: { open, lane, isNamed: lookUp !== null, recovered: this.#options.recovered ?? null },
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
    // What the lanes have to say of it is no news.
    this.#isOver = true;
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
      case "away":
        // Lane 0 ends the session, and with it the connections of lanes that are only about to leave.
        if (!this.#isLeaving) this.#outage.began(lane, event.reason);
        return;
      case "back":
        this.#isShuttingDown = false;
        this.#outage.ended(lane, event.awayMs, event.resent);
        for (const other of this.#outage.lanes) this.threads[other]?.ask({ ask: "hurry" }).catch(() => {});
        this.#grantOfBack = event.grant;
        return this.#adopt();
      case "replayed":
        this.#replayed(event.count, event.bytes, event.tookMs);
        return this.#adopt();
      case "dataLost":
        return this.#dataLost(event.reason);
      case "expired":
        return this.#outage.expired(event.count);
      case "keptOut":
        return this.#outage.keptOut(event.reason);
      case "lookUp":
        return void this.#lookUp(lane);
      case "shuttingDown":
        if (!this.#isShuttingDown) log.warning("The exporter is being stopped, or this client's rights have changed");
        this.#isShuttingDown = true;
        return;
      case "resized":
        if (event.size === this.size) return;
        this.size = event.size;
        this.resized(event.size);
    }
  }

  /** The session is that of a process that is gone. */
  #inherit(grant: Grant, failure: string | null): void {
    const { lanes } = this.#options;
    const { readOnly, volatileCache } = geometryOf(grant);
    this.ledger.inherit(grant.identities.durability, lanes, volatileCache && !readOnly);
    this.failure = failure;
    if (failure !== null) this.ledger.lose();
    for (let lane = 0; lane < lanes; lane++) this.#outage.began(lane, "the process that served the device is gone");
  }

  async #lookUp(lane: number): Promise<void> {
    this.#looking ??= this.#options.lookUp!().finally(() => this.#looking = null);
    const addresses = await this.#looking;
    // A thread that is leaving needs them no more.
    if (!this.#isLeaving) this.threads[lane].ask({ ask: "addresses", addresses }).catch(() => {});
  }

  /** An epoch of the exporter's counts once nothing of the one before is at stake. */
  #adopt(): void {
    if (this.#grantOfBack === null || this.ledger.isReplaying) return;
    this.grant = this.#grantOfBack;
    this.changed();
  }

  #replayed(count: number, bytes: number, tookMs: number): void {
    const many = count === 1 ? "1 write" : `${count} writes`;
    const took = tookMs < 1000 ? `${Math.ceil(tookMs)} ms` : formatDuration(tookMs);
    log.info("{text}", {
      text: `The exporter had lost what was not flushed: replayed ${many} (${formatSize(bytes)}) in ${took}`,
    });
  }

  #dataLost(reason: string): void {
    if (this.failure !== null) return;
    this.failure = reason;
    log.error("{text}", {
      text: `${reason[0].toUpperCase()}${reason.slice(1)}: every write fails from now on, reads go on: detach it`,
    });
    this.changed();
  }

  #lost(lane: number, reason: string): void {
    if (this.#isLeaving || this.#isOver) return;
    this.#isOver = true;
    const which = this.threads.length > 1 ? ` on lane ${lane}` : "";
    this.failure = reason;
    log.error("{text}", {
      text: `The disk is lost: ${reason}${which}; every request fails from now on: detach it`,
    });
    this.abort(reason);
  }
}

/** What is written goes to the copies, too. */
function keepCopies(memory: SharedArrayBuffer): void {
  const unlocked = keepInMemory(addressOf(new Uint8Array(memory)), memory.byteLength, "used");
  if (unlocked !== null) sayUnlocked("the copies", unlocked);
}

/** A block device must not wait for memory that its own dirty pages take: what it works in is there from the start. */
export function residenceOf({ frontend, lanes, open }: Pick<LaneOptions, "frontend" | "lanes" | "open">): Residence {
  const bytes = lanes * threadBytes(attachmentSlots(frontend, open.depth));
  return frontend === "ublk" && bytes <= RESIDENT_BYTES_MAX ? "all" : "used";
}

/** A thread's own copy of the key is given away with the message, which would keep one more copy that nobody wipes. */
function withItsOwnKey(open: AttachInit["open"]): { open: AttachInit["open"]; transfer: Transferable[] } {
  const { key } = open.target;
  if (key === undefined || key === null) return { open, transfer: [] };
  const secret = key.secret.slice();
  return { open: { ...open, target: { ...open.target, key: { ...key, secret } } }, transfer: [secret.buffer] };
}
