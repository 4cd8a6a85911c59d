/**
 * A session at the client: a disk of another machine as a block device, over one of its lanes. Where it is patient, it
 * outlives its connections: requests wait until there is one again.
 *
 * @module
 */
import type { BlockClient, BlockDevice, Geometry } from "../engine/block.ts";
import { type Engine, Task } from "../engine/engine.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import type { ClientLaneHost } from "../protocol/client_lane.ts";
import type { Handoff } from "../protocol/codec.ts";
import { protocolErrorText } from "../protocol/error.ts";
import type { Grant } from "../protocol/grant.ts";
import type { GrantedLane } from "./connector.ts";
import type { LaneIo } from "./lane_io.ts";
import { MutationLedger } from "./ledger.ts";
import type { Patience } from "./patience.ts";
import { type ReconnectHost, Reconnector } from "./reconnect.ts";
import { Requests } from "./requests.ts";
import { isOtherInstance, type Objection, objectionToGrant, TAKEN_OVER } from "./resume.ts";
import type { Away, LanePlace, SessionOwner } from "./session_owner.ts";

export type { Away, LanePlace, SessionOwner };

/** How long the answer to CLOSE may take, in milliseconds: nothing executes any more, so it is a round trip. */
const CLOSE_MS = 5000;
/** How often the lane is looked after at least, in milliseconds. */
const TICK_MS = 1000;
/** And how often in the time after which a request is overdue. */
const TICKS = 4;
/** A connection that lives for so long was of use, in milliseconds, even if nobody asked for anything. */
const PROVEN_MS = 1000;
/**
 * Where the kernel takes this long to accept bytes it has waited for the peer to take others: on a slow link that is all
 * the life there is for a while. Bytes that it accepts at once tell nothing of the peer.
 */
const STALLED_MS = 200;

/** A timer that comes so much too late is of a process or a machine that has stood still meanwhile; in milliseconds. */
const LATE_MS = 1000;

/** Of a message sent from the transmit area, and of the others. */
const Token = { OTHER: 0, AREA: 1 } as const;
/** What a timer is for; all tags from TICK on are for looking after the lane, and one of them counts. */
const Timer = { CLOSE: 0, TICK: 1 } as const;

/**
 * A session over one lane. A request of a Worker's slot is sent from that slot and received straight into it; when every
 * slot of the lane is taken, or its payload credit is used up, or there is no connection, it waits its turn. So it does
 * while another mutation is under way that it overlaps.
 */
export class ClientSession
  implements BlockDevice, StreamOwner, ClientLaneHost, TimerHandler, ReconnectHost, GrantedLane {
  readonly geometry: Geometry;
  readonly #engine: Engine;
  readonly #owner: SessionOwner;
  readonly #laneNumber: number;
  readonly #patience: Patience | null;
  readonly #reconnector: Reconnector | null;
  /** The Worker's slot with the memory of the lane's own messages. */
  readonly #controlSlots: Uint32Array;
  readonly #requests: Requests;
  readonly #io: LaneIo;
  readonly #task = new Task(() => this.#goOn());
  #stream: Stream | null = null;
  #isTicking = false;
  #tickTag: number = Timer.TICK;
  /** When the lane is to be looked after next. */
  #tickAtMs = 0;
  #isFenced = false;
  #isEnding = false;
  /** Why this side has dropped the connection, or null. */
  #dropped: string | null = null;
  /** It was dropped for good. */
  #isAborted = false;
  #failureText: string | null = null;
  #onLeft: ((clean: boolean) => void) | null = null;
  #leftCleanly = false;
  #closed = false;

  /** When something was heard of the exporter last; in the engine's milliseconds, as all moments. */
  #lifeMs: number;
  #connectedMs = 0;
  /** When the connection was lost; -1 while there is one, and before the first. */
  #awayMs = -1;
  #awayReason = "";
  /** How many requests are to be sent again. */
  #resent = 0;
  /** Frames that the kernel has not taken, and since when it is about the first of them. */
  #unsent = 0;
  #unsentMs = 0;

  /**
   * @param controlSlots one slot of the Worker, which is the session's until {@link close}
   * @param owner is told of the session's end
   * @param place which lane it is; without it the only one, which ends with its connection
   */
  constructor(
    engine: Engine,
    controlSlots: Uint32Array,
    grant: Grant,
    owner: SessionOwner,
    place: LanePlace = { lane: 0, ledger: new MutationLedger() },
  ) {
    const { plan = null } = place;
    const patience = plan === null ? null : plan.patience;
    this.#engine = engine;
    this.#owner = owner;
    this.#controlSlots = controlSlots;
    this.#laneNumber = place.lane;
    this.#patience = patience;
    this.#reconnector = plan === null ? null : new Reconnector(plan, this);
    const of = { ...place, patience, news: owner, controlSlot: controlSlots[0] };
    this.#requests = new Requests(engine, of, grant, this);
    this.#io = this.#requests.io;
    this.geometry = this.#requests.geometry;
    this.#lifeMs = engine.now;
    if (place.isRecovered === true) this.#comeBack("the process that served it is gone", true);
  }

  /** As the exporter has granted it last. */
  get grant(): Grant {
    return this.#requests.grant;
  }

  /** The longest READ or WRITE that is one request on the wire, in bytes; longer ones are sent in parts. */
  get partBytes(): number {
    return this.#io.partBytes;
  }

  /** Requests that have not ended, those included that wait to be sent. */
  get inFlight(): number {
    return this.#requests.count;
  }

  /** Whether requests can succeed at once. */
  get isConnected(): boolean {
    return this.#stream !== null && this.#requests.failure === 0;
  }

  /** Where the lane is, if it has no connection and is coming back; else null. */
  get away(): Away | null {
    if (this.#awayMs < 0 || this.#requests.failure !== 0) return null;
    const { nextMs, reason } = this.#reconnector!;
    return { forMs: this.#engine.now - this.#awayMs, nextMs, reason: reason ?? this.#awayReason };
  }

  /** Why every request fails, or null. */
  get failure(): string | null {
    return this.#failureText;
  }

  /**
   * Begins on the connection that the session was granted on, or granted again. From now on the stream's events are to be
   * given to the session. To be called from within the machine's `granted`. With a cipher it takes `transmitSlots` of the
   * Worker's slots; without them it is lost.
   */
  connect(stream: Stream, handoff: Handoff): void {
    const { now } = this.#engine;
    const awayMs = this.#awayMs < 0 ? -1 : now - this.#awayMs;
    this.#stream = stream;
    this.#awayMs = -1;
    this.#connectedMs = now;
    this.#lifeMs = now;
    this.#isEnding = false;
    this.#dropped = null;
    this.#unsent = 0;
    if (!this.#io.connect(handoff)) {
      this.abort("there is no memory to encrypt in");
      return;
    }
    this.#requests.resume();
    this.#io.listen(stream);
    if (awayMs >= 0) this.#owner.onBack?.(awayMs, this.#resent);
    this.#tick();
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    return this.#requests.submit(slot, operation, flags, client);
  }

  extentBytes(slot: number): number {
    return this.#requests.extentBytes(slot);
  }

  /**
   * Ends the session at the exporter; on a lane other than 0, awaits that lane 0 ends it. No request is under way, and
   * what is to survive was flushed.
   *
   * @param onLeft is told, now or later, when nothing is left of the connection; `clean`: the exporter has confirmed it,
   * which it does on lane 0 alone
   */
  leave(onLeft: (clean: boolean) => void): void {
    if (this.inFlight > 0) throw new Error("Cannot leave: requests are under way");
    this.#requests.failure = -Errno.EIO;
    this.#reconnector?.stop();
    if (this.#stream === null) {
      onLeft(false);
      return;
    }
    this.#onLeft = onLeft;
    if (this.#stream.isOpen && this.#laneNumber === 0) this.#io.close();
    this.#engine.timers.schedule(this, Timer.CLOSE, this.#engine.now + CLOSE_MS);
  }

  /**
   * Drops the connection for good: what is under way fails, and `onLost` follows.
   *
   * @param reason for people, without a capital or a full stop
   */
  abort(reason = "this side has dropped the connection"): void {
    this.#isAborted = true;
    if (this.#stream !== null) this.#drop(reason);
    else if (this.#awayMs >= 0) this.#end({ errno: -Errno.EIO, reason });
  }

  /** The patience of its plan is another one now: what waits is judged by it at once. */
  patienceChanged(): void {
    // The timer that runs may be set for long after what is due now.
    this.#tickTag++;
    this.#isTicking = false;
    this.#tick();
  }

  /** Makes the next try to connect now, if the lane is away: another lane has found its way. */
  hurry(): void {
    this.#reconnector?.hurry();
  }

  /** Gives back what the session holds; after {@link leave}, or when it is lost. A connection that is left is dropped. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reconnector?.stop();
    if (this.#stream !== null) this.#stream.close();
    else this.#release();
  }

  // The way back.

  get mustBeFresh(): boolean {
    return this.#requests.mustBeFresh;
  }

  granted(grant: Grant, isClean: boolean, isOpened: boolean): GrantedLane | null {
    const before = this.grant;
    const objection = objectionToGrant(before, grant);
    if (objection !== null) {
      this.#end(objection);
      return null;
    }
    this.#resent = this.#requests.sentCount;
    this.#requests.granted(grant, isClean || isOtherInstance(before, grant), isOpened);
    if (grant.size !== this.geometry.size) this.resized(grant.size);
    return this;
  }

  /** The exporter is alive, and finishes what was sent on the connection before. */
  fencing(): void {
    this.#lifeMs = this.#engine.now;
  }

  refused(objection: Objection): void {
    this.#end(objection);
  }

  keptOut(reason: string): void {
    this.#owner.onKeptOut?.(reason);
  }

  // The lane's host.

  transmit(at: number, bytes: number, takesRoom: boolean): void {
    if (this.#unsent++ === 0) this.#unsentMs = this.#engine.now;
    this.#stream!.transmit(at, bytes, takesRoom ? Token.AREA : Token.OTHER);
  }

  get turn(): number {
    return this.#engine.turnNumber;
  }

  again(): void {
    this.#engine.again(this.#task);
  }

  completed(laneSlot: number, status: number, payloadBytes: number): void {
    if (!this.#requests.completed(laneSlot, status, payloadBytes)) this.#drop("the exporter has lost what it had");
  }

  probed(laneSlot: number, state: number): void {
    if (!this.#io.probed(laneSlot, state)) {
      this.#drop("the exporter does not answer a request, and does not execute it");
    }
  }

  resized(size: number): void {
    this.geometry.size = size;
    this.#owner.onResized(size);
  }

  shuttingDown(): void {
    this.#isEnding = true;
    // What waits has a chance with the next one.
    if (this.#reconnector !== null) this.#requests.pause();
    this.#owner.onShuttingDown();
  }

  fenced(): void {
    this.#isFenced = true;
  }

  closed(): void {
    this.#leftCleanly = true;
  }

  // The stream's owner.

  onHeard(): void {
    this.#live(this.#engine.now);
  }

  onSent(_stream: Stream, token: number): void {
    const { now } = this.#engine;
    this.#unsent--;
    if (now - this.#unsentMs >= STALLED_MS) this.#live(now);
    this.#unsentMs = now;
    if (token === Token.AREA) this.#io.sent();
  }

  onDrained(): void {}

  onClosed(_stream: Stream, errno: number): void {
    const { now } = this.#engine;
    const reason = this.#reasonOf(errno);
    this.#stream = null;
    this.#requests.pause();
    this.#io.disconnect();
    if (this.#closed) this.#release();
    const onLeft = this.#onLeft;
    if (onLeft !== null) {
      this.#onLeft = null;
      onLeft(this.#leftCleanly);
      return;
    }
    if (this.#isFenced) return this.#end(TAKEN_OVER);
    if (this.#closed || this.#isAborted || this.#reconnector === null) return this.#end({ errno: -Errno.EIO, reason });
    this.#comeBack(reason, this.#requests.hasReplies || now - this.#connectedMs >= PROVEN_MS);
    this.#owner.onAway?.(reason);
    // Of what has outlived too many connections: there may be a next one at once.
    this.#expireOld(now);
  }

  expire(tag: number): void {
    if (tag === Timer.CLOSE) {
      if (this.#onLeft !== null) this.#stream?.close();
    } else if (tag === this.#tickTag) {
      this.#isTicking = false;
      const { now } = this.#engine;
      const lateMs = now - this.#tickAtMs;
      // What could not be heard in that time is no sign of anything, and nothing could be tried.
      if (lateMs > LATE_MS) this.#lifeMs = Math.min(now, this.#lifeMs + lateMs);
      this.#tick();
    }
  }

  /** There is no connection: another one is to be made. */
  #comeBack(reason: string, wasOfUse: boolean): void {
    this.#awayMs = this.#engine.now;
    this.#awayReason = reason;
    this.#reconnector!.start(wasOfUse);
    this.#tick();
  }

  /** What the lane has not done in the turn before. */
  #goOn(): void {
    if (this.#stream === null) return;
    this.#io.run();
    this.#stream.resume();
  }

  #live(now: number): void {
    this.#lifeMs = now;
    this.#io.heard(now);
  }

  #drop(reason: string): void {
    this.#dropped ??= reason;
    this.#requests.pause();
    this.#stream?.close();
  }

  #release(): void {
    this.#engine.slots.release(this.#controlSlots);
    this.#io.release();
  }

  /** Looks after the lane: whether there is life, what is overdue, and what has expired. */
  #tick(): void {
    if (this.#isTicking || this.#requests.failure !== 0) return;
    const { now, timers } = this.#engine;
    let waitMs = TICK_MS;
    if (this.#patience !== null) waitMs = Math.max(1, Math.min(TICK_MS, this.#patience.resendMs / TICKS));
    if (this.#stream !== null) {
      // First, since what asks after a request asks for life, too.
      if (this.#patience !== null) this.#io.askAfter(now, this.#patience.resendMs);
      waitMs = Math.min(waitMs, this.#io.tick(now));
      if (this.#io.error !== 0) {
        this.#drop(protocolErrorText(this.#io.error));
        return;
      }
    }
    this.#expireOld(this.#stream === null ? this.#lifeMs : now);
    this.#isTicking = true;
    this.#tickAtMs = now + waitMs;
    timers.schedule(this, this.#tickTag, this.#tickAtMs);
  }

  /** @param lifeMs see `Requests.expireOld` */
  #expireOld(lifeMs: number): void {
    const expired = this.#requests.expireOld(lifeMs);
    if (expired === 0) return;
    this.#owner.onExpired?.(expired);
    if (this.#stream !== null && this.#requests.mustBeFresh) {
      this.#drop("the exporter has to forget requests that were given up");
    }
  }

  /** The session is over. */
  #end({ errno, reason }: Objection): void {
    if (this.#requests.failure !== 0) return;
    this.#reconnector?.stop();
    this.#awayMs = -1;
    this.#failureText = reason;
    this.#requests.failAll(errno);
    this.#owner.onLost(reason);
  }

  #reasonOf(errno: number): string {
    if (this.#io.error !== 0) return `the connection was dropped: ${protocolErrorText(this.#io.error)}`;
    if (this.#dropped !== null) return this.#dropped;
    if (this.#isEnding) return "the exporter was stopped, or this client's rights have changed";
    if (errno !== 0) return `the connection was lost: ${errnoMessage(errno)}`;
    return "the exporter closed the connection";
  }
}
