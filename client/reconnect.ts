/**
 * The way back to an exporter: connects a lane again that has lost its connection, as often as it takes.
 *
 * A round goes over all addresses of the exporter's name, first the one that was good last. The lane is joined again with a
 * higher generation. Where the exporter has no such session any more, because it was started again or the lease is over,
 * lane 0 opens it again under its old id and with its identities; the other lanes find it then.
 *
 * @module
 */
import { printable } from "../engine/control/printable.ts";
import type { TimerHandler } from "../engine/timers.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import type { ClientDoor } from "../protocol/client_door.ts";
import { Access, type Grant } from "../protocol/grant.ts";
import { FENCING_INTERVAL_MS } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { Backoff } from "./backoff.ts";
import type { Connector, ConnectTarget, DoorConnection, GrantedLane } from "./connector.ts";
import { leaseMs, type Patience } from "./patience.ts";
import { type Objection, objectionToRefusal } from "./resume.ts";

/** How long the name is looked up before the addresses from the last time must do, in milliseconds. */
const LOOKUP_MS = 500;

/** An exporter that has to finish something first says so in time, but not sooner than this; in milliseconds. */
const ANSWER_MS_MIN = 3 * FENCING_INTERVAL_MS;

/** What a lane needs to come back. */
export interface ReconnectPlan {
  readonly connector: Connector;
  /** Its addresses are those that are known at first. */
  readonly target: ConnectTarget;
  readonly patience: Patience;
  readonly session: Uint8Array;
  readonly lane: number;
  /** Of the export. */
  readonly name: string;
  readonly readOnly: boolean;
  readonly holder: string;
  /** What is wished for, as it was at first. */
  readonly depth: number;
  readonly maxPayload: number;
  readonly lanes: number;
  /** Where the first connection was made to. */
  readonly address: SocketAddress;
  /** A generation that no lane of the session has exceeded yet; 1, that of the first connection, where it is left out. */
  readonly generation?: number;
  /**
   * Looks the exporter's name up, without waiting: `found` is called from a turn of the engine, with null where nothing was
   * found, or never. Null where the exporter was named by its address.
   */
  readonly lookup: ((found: (addresses: readonly SocketAddress[] | null) => void) => void) | null;
  /** The next random number, at least 0 and below 1. */
  random(): number;
}

/** Whose lane it is. */
export interface ReconnectHost {
  /** What was granted last. */
  readonly grant: Grant;
  /** Whether the exporter has to forget all requests of the lane. */
  readonly mustBeFresh: boolean;
  /**
   * The lane is connected again: the answer is who goes on with it, or null to end the connection, after {@link refused} or
   * the like.
   *
   * @param isClean whether the exporter remembers no request of the lane
   * @param isOpened whether the session was opened again for that
   */
  granted(grant: Grant, isClean: boolean, isOpened: boolean): GrantedLane | null;
  /** The exporter finishes what was sent before: it is alive. */
  fencing(): void;
  /** There is no way back. */
  refused(objection: Objection): void;
  /** The exporter is there, and has refused several times for a reason that does not pass by itself. Once for each outage. */
  keptOut(reason: string): void;
}

/**
 * How far generations go ahead at once: where another process may have used some, and where the exporter knows a higher
 * one. Each try uses one, so this is what days without an exporter use up.
 */
export const GENERATION_STEP = 2 ** 16;

/** Refusals that pass by themselves, or with what another lane does. */
const PASSING: readonly number[] = [
  Status.NO_SESSION,
  Status.SESSION_EXISTS,
  Status.OLD_GENERATION,
  Status.NO_RESOURCES,
  Status.TOO_MANY,
  Status.SHUTTING_DOWN,
];
/** After so many refused rounds in a row it is worth a word: a few can be of an exporter that has just started. */
const REFUSALS = 6;

/** Of a timer that came to nothing, by which its tag is told from the present one's. */
const TAGS = 2 ** 30;

/** Connects one lane again and again. */
export class Reconnector implements TimerHandler {
  /** Why the last try came to nothing, for people; null before there was one. */
  reason: string | null = null;
  readonly #plan: ReconnectPlan;
  readonly #host: ReconnectHost;
  readonly #backoff = new Backoff();
  #isRunning = false;
  #generation: number;
  /**
   * Whether the exporter may know other requests of the lane than this side: it had no such session, which lane 0 may have
   * opened anew meanwhile, or nothing came of a connection on which requests were sent again. To send them as new is no harm.
   */
  #isInDoubt = false;
  /** Whether the lane was joined last with what the exporter knew of it. */
  #isResumed = false;
  #known: readonly SocketAddress[];
  /** Where the lane was connected last. */
  #good: SocketAddress;
  /** Of the present round. */
  #addresses: readonly SocketAddress[] = [];
  #next = 0;
  #objections = 0;
  /** Whether somebody there refuses for a reason that stays. */
  #isRefused = false;
  /** For how many rounds in a row that has been so. */
  #refusals = 0;
  /** The next round is to begin at once: the present one may have come too early. */
  #isHurried = false;
  #connection: DoorConnection | null = null;
  /** When the next round begins; -1 while there is one. */
  #dueAt = -1;
  #tag = 0;

  constructor(plan: ReconnectPlan, host: ReconnectHost) {
    this.#plan = plan;
    this.#host = host;
    this.#known = plan.target.addresses;
    this.#good = plan.address;
    this.#generation = plan.generation ?? 1;
  }

  /** In how many milliseconds the next try is made; 0 while there is one. */
  get nextMs(): number {
    return this.#dueAt < 0 ? 0 : Math.max(0, this.#dueAt - this.#plan.connector.engine.now);
  }

  /**
   * Begins; the first try is made at once, unless the connection before was of no use.
   *
   * @param wasOfUse whether something came of the connection that was lost
   */
  start(wasOfUse: boolean): void {
    if (wasOfUse) this.#backoff.reset();
    this.#isInDoubt = !wasOfUse && this.#isResumed;
    this.#isRunning = true;
    this.#isHurried = false;
    this.#isRefused = false;
    this.#refusals = 0;
    this.reason = null;
    this.#await();
  }

  /** Makes the next try now: there is reason to believe that it helps. */
  hurry(): void {
    if (!this.#isRunning) return;
    if (this.#dueAt < 0) {
      this.#isHurried = true;
      return;
    }
    this.#dueAt = this.#plan.connector.engine.now;
    this.#schedule(this.#dueAt);
  }

  /** Gives up. */
  stop(): void {
    this.#isRunning = false;
    this.#tag = (this.#tag + 1) % TAGS;
    this.#connection?.end();
    this.#connection = null;
  }

  expire(tag: number): void {
    if (tag !== this.#tag) return;
    if (this.#dueAt >= 0) this.#beginRound();
    else this.#tryFirst();
  }

  #await(): void {
    const { connector, random } = this.#plan;
    const waitMs = this.#backoff.next(random(), this.#isRefused);
    this.#dueAt = connector.engine.now + (this.#isHurried ? 0 : waitMs);
    this.#isHurried = false;
    this.#schedule(this.#dueAt);
  }

  /** One timer counts at a time. */
  #schedule(deadlineMs: number): void {
    this.#tag = (this.#tag + 1) % TAGS;
    this.#plan.connector.engine.timers.schedule(this, this.#tag, deadlineMs);
  }

  #beginRound(): void {
    const { lookup, connector } = this.#plan;
    this.#dueAt = -1;
    if (lookup === null) {
      this.#tryFirst();
      return;
    }
    this.#schedule(connector.engine.now + LOOKUP_MS);
    const tag = this.#tag;
    lookup((addresses) => {
      if (addresses !== null && addresses.length > 0) this.#known = addresses;
      // When it takes longer, the next round has the use of it.
      if (tag === this.#tag && this.#isRunning) this.#tryFirst();
    });
  }

  #tryFirst(): void {
    this.#tag = (this.#tag + 1) % TAGS;
    const isGood = (address: SocketAddress) => areEqual(address, this.#good);
    this.#addresses = [...this.#known.filter(isGood), ...this.#known.filter((address) => !isGood(address))];
    this.#next = 0;
    this.#objections = 0;
    this.#isRefused = false;
    this.#try();
  }

  /** Tries the next address of the round. */
  #try(): void {
    const { connector, target, patience, lane } = this.#plan;
    const address = this.#addresses[this.#next];
    let door: ClientDoor | null = null;
    let isOpening = false;
    let isFresh = false;
    const { connectMs } = patience;
    const connection = connector.connect(
      { ...target, addresses: [address], connectMs, answerMs: Math.max(connectMs, ANSWER_MS_MIN) },
      {
        ready: (ready) => {
          door = ready;
          isFresh = this.#isInDoubt || this.#host.mustBeFresh;
          this.#join(ready, isFresh);
        },
        granted: (grant) => {
          const isClean = isOpening || isFresh;
          if (!isClean && this.#host.mustBeFresh) {
            // It has become so since the lane was asked for.
            connection.end();
            this.#missed("what was sent before has to be forgotten first");
            return null;
          }
          const granted = this.#host.granted(grant, isClean, isOpening);
          this.#connection = null;
          if (granted === null) return null;
          this.#isRunning = false;
          this.#isResumed = !isClean;
          this.#good = address;
          this.reason = null;
          return granted;
        },
        fencing: () => this.#host.fencing(),
        refused: (status, text) => {
          if (status === Status.NO_SESSION) this.#isInDoubt = true;
          if (status === Status.OLD_GENERATION) this.#generation += GENERATION_STEP;
          if (status === Status.NO_SESSION && lane === 0 && !isOpening) {
            isOpening = true;
            this.#open(door!);
            return;
          }
          connection.end();
          this.#refused(status, `${target.where} refuses: ${printable(text)}`);
        },
        failed: (reason, isRefusal) => {
          if (isRefusal) this.#isRefused = true;
          this.#missed(reason);
        },
      },
    );
    this.#connection = connection;
  }

  #join(door: ClientDoor, fresh: boolean): void {
    const { session, lane, depth, maxPayload } = this.#plan;
    // A higher one for each try: of one whose answer was lost nobody knows here whether it was granted.
    this.#generation++;
    door.join({ session, lane, generation: this.#generation, depth, maxPayload, fresh });
  }

  #open(door: ClientDoor): void {
    const { session, name, readOnly, holder, depth, maxPayload, lanes, patience } = this.#plan;
    const { storage, durability, writeEpoch } = this.#host.grant.identities;
    door.open({
      export: name,
      session,
      access: readOnly ? Access.READ : Access.READ_WRITE,
      holder,
      leaseMs: leaseMs(patience),
      depth,
      maxPayload,
      lanes,
      steal: false,
      resume: { storage, durability, writeEpoch },
    });
  }

  #refused(status: number, reason: string): void {
    const objection = objectionToRefusal(status);
    if (objection === null) {
      if (!PASSING.includes(status)) this.#isRefused = true;
      return this.#missed(reason);
    }
    this.#objections++;
    // A name can stand for several machines. Another one than the one before has a say only if none says otherwise.
    const isHome = areEqual(this.#addresses[this.#next], this.#good);
    if (!isHome && this.#objections < this.#addresses.length) return this.#missed(objection.reason);
    this.stop();
    this.#host.refused(objection);
  }

  /** Nothing came of the present address. */
  #missed(reason: string): void {
    this.#connection = null;
    if (!this.#isRunning) return;
    this.reason = reason;
    this.#next++;
    if (this.#next < this.#addresses.length) return this.#try();
    this.#refusals = this.#isRefused ? this.#refusals + 1 : 0;
    if (this.#refusals === REFUSALS) this.#host.keptOut(reason);
    this.#await();
  }
}

function areEqual(one: SocketAddress, other: SocketAddress): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}
