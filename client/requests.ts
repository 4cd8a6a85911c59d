/**
 * The requests of a session: which are sent when, and what becomes of each. Knows lanes and not connections: it is told
 * when there is one.
 *
 * @module
 */
import { type BlockClient, EXTENT_BYTES, type Geometry, Operation, PENDING, RequestFlag } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import type { Slots } from "../engine/slots.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { Errno } from "../ffi/errno.ts";
import type { ClientLaneHost } from "../protocol/client_lane.ts";
import { Feature, type Grant } from "../protocol/grant.ts";
import { writeUint64 } from "../protocol/wire.ts";
import { canDo, geometryOf } from "./geometry.ts";
import { DATA_LOST, Keeper, type KeeperHost, type KeeperPlace } from "./keeper.ts";
import { LaneIo } from "./lane_io.ts";
import { isDoubt, type MutationLedger } from "./ledger.ts";
import { overlapBytes, type Overlaps, OverlapTable } from "./overlap.ts";
import { type Patience, windowMs } from "./patience.ts";
import { isOtherInstance } from "./resume.ts";
import type { SessionOwner } from "./session_owner.ts";
import { isMutation, isWriter, Transactions, TransactionState } from "./transactions.ts";

/** How often what other lanes hold up is looked at, in milliseconds: they tell nobody when they are done. */
const POLL_MS_MIN = 1;
const POLL_MS_MAX = 16;

/** What requests belong to. */
export interface RequestsOptions {
  /** Of the session. */
  readonly lane: number;
  readonly ledger: MutationLedger;
  /** Which mutations are under way, on all lanes; without it on this one. */
  readonly overlaps?: Overlaps;
  /** Null: a request lives as long as its connection. */
  readonly patience: Patience | null;
  /** Where copies go of what the exporter may lose with its memory; null, or left out: what it loses is lost. */
  readonly replay?: KeeperPlace | null;
  /** Who is told of what was written again, and of what is lost. */
  readonly news?: Pick<SessionOwner, "onReplayed" | "onDataLost">;
  /** Whether the lane owes a fence from the beginning, which the ledger has counted: see `LanePlace`. */
  readonly isRecovered?: boolean;
  /** The Worker's slot with the memory of the lane's own messages. */
  readonly controlSlot: number;
}

/** All requests of one lane. */
export class Requests implements TimerHandler, KeeperHost {
  readonly geometry: Geometry;
  readonly io: LaneIo;
  /** As the exporter has granted it last. */
  grant: Grant;
  /** The errno of every request once the session is over, else 0. */
  failure = 0;
  /** Whether there is a connection that takes new requests. */
  isOpen = false;
  /** Whether a reply has come on the present connection. */
  hasReplies = false;
  readonly #engine: Engine;
  /** The engine's, with each request's range. */
  readonly #slots: Slots;
  readonly #ledger: MutationLedger;
  readonly #overlaps: Overlaps;
  /** How long a request lives without life, and how many connections of which nothing comes; null: for ever. */
  readonly #patience: Patience | null;
  readonly #transactions: Transactions;
  readonly #keeper: Keeper | null;
  readonly #news: RequestsOptions["news"];
  #isPolling = false;
  #pollMs = POLL_MS_MIN;
  /** What of the ledger's this lane has come to know. */
  #epochs: number;
  #openings: number;
  /** A request that was sent is given up: the lane has to be joined again, and clean, before anything is changed. */
  #owesFence = false;
  /** Mutations that were sent on an earlier connection wait until no lane owes a fence. */
  #holdsResends = false;
  /** Since when a lane owes a fence, as far as this one has noticed; Infinity: none does. */
  #fencingMs = Infinity;

  /** @param host is told by the lane; `completed` it has to pass on */
  constructor(engine: Engine, options: RequestsOptions, grant: Grant, host: ClientLaneHost) {
    const { ledger, patience } = options;
    const count = engine.slots.count;
    this.#engine = engine;
    this.#slots = engine.slots;
    this.#ledger = ledger;
    this.#overlaps = options.overlaps ?? new OverlapTable(new SharedArrayBuffer(overlapBytes(count)), 0);
    this.#patience = patience;
    this.grant = grant;
    this.geometry = geometryOf(grant);
    this.#transactions = new Transactions(count);
    this.io = new LaneIo(engine, { ...options, transactions: this.#transactions }, grant, host);
    this.#news = options.news;
    this.#keeper = this.#keeperOf(options, grant);
    this.#epochs = ledger.epochs;
    this.#meet(grant, false);
    this.#openings = ledger.openings;
    this.#owesFence = options.isRecovered === true;
  }

  /** How many have not ended. */
  get count(): number {
    return this.#transactions.count;
  }

  /** How many were sent, and are to be sent again after a connection is lost. */
  get sentCount(): number {
    return this.#transactions.sentCount;
  }

  /** Whether the exporter has to forget all requests of the lane before the lane can be used. */
  get mustBeFresh(): boolean {
    return this.#owesFence || this.#ledger.openings !== this.#openings;
  }

  /** As that of a block device. */
  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    if (this.failure !== 0) return this.#refuse(operation, this.failure);
    const changes = isMutation(operation);
    if ((changes || operation === Operation.FLUSH) && this.#ledger.isLost) return this.#refuse(operation, -Errno.EIO);
    // The wire has no empty range; it is done already.
    if (this.#slots.length[slot] === 0 && operation !== Operation.FLUSH) return 0;
    if (!canDo(this.grant.features, operation)) return this.#answerWithout(slot, operation);
    const transactions = this.#transactions;
    transactions.begin(slot, operation, flags, client, this.#engine.now);
    transactions.left[slot] = this.#slots.length[slot];
    if (changes && !this.#enter(slot)) {
      transactions.block(slot);
      this.poll();
    } else if (transactions.readyCount > 0 || !this.isOpen || this.#isHeld || !this.io.start(slot)) {
      // Whoever has waited longer goes first.
      transactions.pushReady(slot);
      if (this.#isHeld) this.poll();
    }
    return PENDING;
  }

  /** As that of a block device. */
  extentBytes(slot: number): number {
    return this.#transactions.extentBytes[slot];
  }

  /**
   * The request in a slot of the lane has ended; see `ClientLaneHost`.
   *
   * @returns false when the connection is out of date: it is to be dropped
   */
  completed(laneSlot: number, status: number, payloadBytes: number): boolean {
    const { io } = this;
    const transactions = this.#transactions;
    const slot = io.slotOf(laneSlot);
    const operation = transactions.operation[slot];
    const keeper = this.#keeper;
    this.hasReplies = true;
    if (keeper !== null && keeper.owns(slot)) {
      if (!keeper.completed(laneSlot, slot, status)) return false;
      this.#startReady();
      return true;
    }
    // Only until the exporter has ended: it was not executed.
    if (status === -Errno.ESHUTDOWN && !this.isOpen) {
      this.#putBack(laneSlot, slot);
      return true;
    }
    let part = 0;
    if (operation === Operation.READ || operation === Operation.WRITE) {
      part = io.partOf(slot);
      if (keeper !== null && status === 0 && operation === Operation.WRITE && !keeper.keep(slot, part)) {
        this.#putBack(laneSlot, slot);
        return false;
      }
      transactions.left[slot] -= part;
      transactions.tries[slot] = 0;
      if (status === 0 && transactions.left[slot] > 0 && this.failure === 0) {
        // The next part is no longer than this one was: its credit is there.
        const waits = this.#isHeld || (operation === Operation.WRITE && this.#ledger.isFencing);
        if (this.isOpen && !waits) io.send(laneSlot);
        else this.#putBack(laneSlot, slot);
        return true;
      }
    } else {
      transactions.extentBytes[slot] = payloadBytes;
    }
    if (status < 0 && isDoubt(operation, transactions.flags[slot], status)) this.#doubt();
    // Whoever has one fail and the next succeed would take all for well.
    if (status === 0 && isWriter(operation) && this.#ledger.isLost) status = -Errno.EIO;
    if (status === 0 && !this.#note(slot, operation)) {
      transactions.left[slot] += part;
      this.#putBack(laneSlot, slot);
      return false;
    }
    io.finish(laneSlot);
    if (isMutation(operation)) this.#leave(slot);
    if (transactions.blockedCount > 0) this.#unblock();
    this.#startReady();
    this.#end(slot, status);
    return true;
  }

  /**
   * The lane is granted again; the connection follows.
   *
   * @param isClean whether the exporter remembers no request of the lane: all are sent as new
   * @param isOpened whether the session was opened again
   */
  granted(grant: Grant, isClean: boolean, isOpened: boolean): void {
    const ledger = this.#ledger;
    const isOther = isOtherInstance(this.grant, grant);
    this.grant = grant;
    if (isOpened) ledger.opened();
    this.#openings = ledger.openings;
    this.#meet(grant, isOther);
    if (isClean) {
      this.io.begin(grant);
      this.#transactions.requeue();
      this.#keeper?.requeue();
    }
    if (this.#owesFence) {
      this.#owesFence = false;
      ledger.fenced();
    }
  }

  /** There is a connection, and the lane's machine knows it: sends again what was sent, and then what waits. */
  resume(): void {
    this.isOpen = true;
    this.hasReplies = false;
    // Whether somebody else has found out that something is lost, or this lane. What was sent before fails at its end.
    if (this.#ledger.isLost) this.#fail(this.#transactions.waitingWriters(), -Errno.EIO);
    this.#resend();
    this.#keeper?.resume();
    this.#unblock();
    this.#startReady();
  }

  /** The connection is lost, or takes no new requests. */
  pause(): void {
    this.isOpen = false;
  }

  /**
   * Fails what has expired: it has waited for too long without life.
   *
   * @param lifeMs when there was life last, in the engine's milliseconds: the present moment as long as there is a
   * connection, since its memory is still in use
   * @returns how many
   */
  expireOld(lifeMs: number): number {
    const transactions = this.#transactions;
    const { now } = this.#engine;
    const { isFencing } = this.#ledger;
    if (!isFencing) this.#fencingMs = Infinity;
    else if (this.#fencingMs === Infinity) this.#fencingMs = now;
    const isHeld = this.#isHeld;
    const heldMs = this.#lookAfterCopies(now);
    if (transactions.count === 0 || (this.isOpen && !isFencing && !isHeld)) return 0;
    const holdsSent = (isFencing || isHeld) && this.#holdsResends;
    const sinceMs = isHeld ? Math.min(heldMs, this.#fencingMs) : this.#fencingMs;
    const slots = transactions.expired(now, lifeMs, this.#limits(), sinceMs, holdsSent, isHeld);
    if (slots.length === 0) return 0;
    if (!this.#owesFence && slots.some((slot) => transactions.stateOf(slot) === TransactionState.SENT)) {
      // Before what overlaps them may be sent, on whichever lane.
      this.#owesFence = true;
      this.#ledger.oweFence();
    }
    this.#fail(slots, -Errno.ETIMEDOUT);
    this.#unblock();
    this.#startReady();
    return slots.length;
  }

  /** How long one lives, and of how many connections nothing may come; as the patience is at the moment. */
  #limits(): { windowMs: number; tries: number } {
    const patience = this.#patience;
    if (patience === null) return { windowMs: Infinity, tries: Infinity };
    return { windowMs: windowMs(patience), tries: patience.resends };
  }

  /** Fails all of them, now and from now on. Each is forgotten before its client hears of it. */
  failAll(failure: number): void {
    this.failure = failure;
    this.isOpen = false;
    this.#fail(this.#transactions.all(), failure);
  }

  expire(): void {
    this.#isPolling = false;
    this.goOn();
  }

  // Whom the copies are kept for.

  goOn(): void {
    if (this.failure !== 0) return;
    if (this.#keeper !== null && this.#ledger.isLost) this.#fail(this.#transactions.waitingWriters(), -Errno.EIO);
    if (this.#holdsResends && this.isOpen) this.#resend();
    this.#unblock();
    this.#startReady();
  }

  /** Looks again in a while. */
  poll(): void {
    if (this.#isPolling) return;
    this.#isPolling = true;
    this.#engine.timers.schedule(this, 0, this.#engine.now + this.#pollMs);
    this.#pollMs = Math.min(POLL_MS_MAX, 2 * this.#pollMs);
  }

  onReplayed(count: number, bytes: number, tookMs: number): void {
    this.#news?.onReplayed?.(count, bytes, tookMs);
  }

  onDataLost(reason: string): void {
    this.#news?.onDataLost?.(reason);
  }

  /** Whether everything waits until a lane has written again what is lost. */
  get #isHeld(): boolean {
    return this.#keeper !== null && this.#keeper.isHeld;
  }

  /** Enters a mutation; whether it may be sent. */
  #enter(slot: number): boolean {
    const isClear = this.#overlaps.enter(slot, this.#slots.offset, this.#slots.length);
    // In this order: what has expired owes its fence before it leaves the table.
    return isClear && !this.#ledger.isFencing && this.#hasRoom(slot);
  }

  /** Whether there is room for a copy of a mutation, which may be sent otherwise. */
  #hasRoom(slot: number): boolean {
    return this.#keeper === null || this.#keeper.reserve(slot);
  }

  /** A mutation is over: what waits for it may go on. */
  #leave(slot: number): void {
    this.#overlaps.leave(slot);
    this.#keeper?.release(slot);
  }

  /** Looks again at what waits for others. */
  #unblock(): void {
    const transactions = this.#transactions;
    let moved = false;
    for (let index = 0; index < transactions.blockedCount;) {
      const slot = transactions.blockedAt(index);
      if (this.#overlaps.isClear(slot) && !this.#ledger.isFencing && this.#hasRoom(slot)) {
        transactions.unblock(index);
        moved = true;
      } else {
        index++;
      }
    }
    if (moved) this.#pollMs = POLL_MS_MIN;
    if (transactions.blockedCount > 0) this.poll();
  }

  #startReady(): void {
    const transactions = this.#transactions;
    this.#keeper?.run();
    while (transactions.readyCount > 0 && this.isOpen) {
      if (this.#isHeld) {
        this.poll();
        return;
      }
      const slot = transactions.firstReady;
      if (isMutation(transactions.operation[slot]) && this.#ledger.isFencing) {
        transactions.shiftReady();
        transactions.block(slot);
        this.poll();
        continue;
      }
      if (!this.io.start(slot)) return;
      transactions.shiftReady();
    }
  }

  #resend(): void {
    const keeper = this.#keeper;
    const only = keeper !== null && keeper.isHeld ? (slot: number) => keeper.owns(slot) : null;
    this.#holdsResends = this.io.resend(!this.#ledger.isFencing, only);
    if (this.#holdsResends) this.poll();
  }

  /** What has a slot of the lane gives it back, and is sent again later. */
  #putBack(laneSlot: number, slot: number): void {
    this.io.finish(laneSlot);
    this.#transactions.pushReady(slot);
  }

  /** Takes note of the exporter's durability epoch, and of what is lost with the one before. */
  #meet(grant: Grant, isOther: boolean): void {
    if (this.#keeper !== null) return this.#keeper.meet(grant, isOther);
    const epochs = this.#ledger.meet(grant.identities.durability, null, isOther);
    if (epochs === this.#epochs) return;
    this.#epochs = epochs;
    // What was acknowledged of a WRITE in parts is nowhere else any more.
    if (this.geometry.volatileCache && this.#transactions.hasPartialWrite(this.#slots.length)) this.#ledger.lose();
    if (this.#ledger.isLost) this.onDataLost(DATA_LOST);
  }

  /** Where an exporter can lose what it has acknowledged, and nobody else can have written meanwhile. */
  #keeperOf({ lane, ledger, patience, replay }: RequestsOptions, grant: Grant): Keeper | null {
    const isShared = (grant.features & Feature.SHARED) !== 0;
    if (replay === undefined || replay === null || patience === null) return null;
    if (isShared || !this.geometry.volatileCache) return null;
    return new Keeper(this.#engine, { lane, ledger, transactions: this.#transactions, io: this.io, ...replay }, this);
  }

  /** When there was life last in what everything waits for; to be asked for regularly. */
  #lookAfterCopies(now: number): number {
    if (this.#keeper === null) return now;
    this.#keeper.tick();
    return this.#keeper.lifeMs(now);
  }

  /** Keeps account of a request that has succeeded; false when it was in an epoch that is over, and does not count. */
  #note(slot: number, operation: number): boolean {
    const ledger = this.#ledger;
    const keeper = this.#keeper;
    if (keeper !== null) {
      if (operation === Operation.FLUSH) return keeper.cover(this.#transactions.marks[slot]);
      // A WRITE was kept part by part.
      return operation === Operation.WRITE || !isMutation(operation) || keeper.keep(slot, 0);
    }
    if (operation === Operation.FLUSH) {
      if (ledger.epochs !== this.#epochs) return false;
      ledger.cover(this.#transactions.marks[slot]);
    } else if (this.#mayLose(slot, operation)) {
      // Counted first, so that whoever begins another epoch has either seen it, or is seen here.
      ledger.acknowledge();
      return ledger.epochs === this.#epochs;
    }
    return true;
  }

  /** The exporter may have lost what it has acknowledged; in an epoch that is over that is known already. */
  #doubt(): void {
    const epochs = this.#keeper === null ? this.#epochs : this.#keeper.epochs;
    if (this.#ledger.epochs === epochs) this.#ledger.doubt();
  }

  /** Whether what was acknowledged is on stable storage only after a FLUSH. */
  #mayLose(slot: number, operation: number): boolean {
    if (!this.geometry.volatileCache || !isMutation(operation)) return false;
    return (this.#transactions.flags[slot] & RequestFlag.FUA) === 0;
  }

  #refuse(operation: number, status: number): number {
    this.#noteFailure(operation, status);
    return status;
  }

  /** Keeps account of a request that has failed, unless whoever asked does the same in another way. */
  #noteFailure(operation: number, status: number): void {
    if (isMutation(operation) && status !== -Errno.EOPNOTSUPP) this.#ledger.fail();
  }

  #fail(slots: readonly number[], status: number): void {
    const transactions = this.#transactions;
    transactions.withdraw(slots);
    for (const slot of slots) if (isMutation(transactions.operation[slot])) this.#leave(slot);
    for (const slot of slots) this.#end(slot, status);
  }

  #end(slot: number, status: number): void {
    const transactions = this.#transactions;
    if (status < 0) this.#noteFailure(transactions.operation[slot], status);
    // Before the call, from within which the slot may be used again.
    transactions.end(slot).onComplete(slot, status);
  }

  /** The answer to what the export cannot do: advice is not taken, and where nothing is known of a range, it is data. */
  #answerWithout(slot: number, operation: number): number {
    if (operation === Operation.CACHE) return 0;
    if (operation !== Operation.BLOCK_STATUS) return -Errno.EOPNOTSUPP;
    const at = this.#slots.payloadAt(slot);
    this.#engine.arena.bytes.fill(0, at, at + EXTENT_BYTES);
    writeUint64(this.#engine.arena.view, at, this.#slots.length[slot]);
    this.#transactions.extentBytes[slot] = EXTENT_BYTES;
    return 0;
  }
}
