/**
 * Keeps copies of what one lane has written, so that it can be written again when the exporter loses its memory: sees that
 * there is room for them, has the exporter flush when there is little, and takes its part in the replay.
 *
 * @module
 */
import { Operation } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import type { Grant } from "../protocol/grant.ts";
import { PAYLOAD_BYTES_GRANT_MIN } from "../protocol/limits.ts";
import type { LaneIo } from "./lane_io.ts";
import type { Copies, MutationLedger } from "./ledger.ts";
import { REPLAY_SLOTS, Replayer, type ReplayHost } from "./replay.ts";
import { ReplayLog, ReplayMemory, type ReplayRoom } from "./replay_log.ts";
import type { Transactions } from "./transactions.ts";

/** Slots that it needs: those of the replay, and one for a FLUSH of its own. */
export const KEEPER_SLOTS = REPLAY_SLOTS + 1;
/** What is said to people where something is lost, and perhaps why. */
export const DATA_LOST = "what was written last and not flushed is lost, as the exporter has lost its memory";
/** No slot. */
const NONE = -1;
/** What becomes of its FLUSH. */
const Flush = { NONE: 0, WANTED: 1, SENT: 2 } as const;

/** Where the copies of a lane go. */
export interface KeeperPlace {
  readonly room: ReplayRoom;
  /** {@link KEEPER_SLOTS} of the Worker's, for good. */
  readonly slots: Uint32Array;
}

/** What it belongs to. */
export interface KeeperOptions extends KeeperPlace {
  readonly lane: number;
  readonly ledger: MutationLedger;
  readonly transactions: Transactions;
  readonly io: LaneIo;
}

/** Whose requests are kept. */
export interface KeeperHost {
  /** Whether there is a connection that takes requests. */
  readonly isOpen: boolean;
  /** What waits may go on: there is room, or the replay is over. */
  goOn(): void;
  /** Calls {@link Keeper.run} in a while. */
  poll(): void;
  /** All that the exporter had lost is written again: so many mutations, with so many bytes. {@link goOn} follows. */
  onReplayed(count: number, bytes: number, tookMs: number): void;
  /** What was acknowledged is lost for good, and the ledger knows. The reason is for people. */
  onDataLost(reason: string): void;
}

/** The copies of one lane. */
export class Keeper implements Copies, ReplayHost {
  readonly lane: number;
  readonly #ledger: MutationLedger;
  readonly #transactions: Transactions;
  readonly #io: LaneIo;
  readonly #engine: Engine;
  readonly #host: KeeperHost;
  readonly #memory: ReplayMemory;
  readonly #log: ReplayLog;
  readonly #replayer: Replayer;
  readonly #flushSlot: number;
  readonly #replaySlots: Uint32Array;
  /** By the Worker's slot, whether it is one of the keeper's. */
  readonly #owns: Uint8Array;
  // By the Worker's slot: the room that is set aside for its mutation.
  readonly #bytes: Uint32Array;
  readonly #entries: Uint16Array;
  /** The mutation that is next to get room, or {@link NONE}: none may overtake it. */
  #waiting = NONE;
  #flush: number = Flush.NONE;
  /** Why what is lost cannot be written again. */
  #objection = "";
  #beats = 0;
  #lifeMs = 0;
  /** Whether the connection has lasted since {@link lifeMs} was asked for last. */
  #lasts = false;

  constructor(engine: Engine, options: KeeperOptions, host: KeeperHost) {
    const { lane, ledger, transactions, io, slots, room } = options;
    if (slots.length !== KEEPER_SLOTS) throw new Error("The keeper has another number of slots");
    const { count } = engine.slots;
    this.lane = lane;
    this.#engine = engine;
    this.#ledger = ledger;
    this.#transactions = transactions;
    this.#io = io;
    this.#host = host;
    this.#memory = new ReplayMemory(room);
    this.#log = new ReplayLog(this.#memory, lane, engine.slots, ledger);
    this.#flushSlot = slots[REPLAY_SLOTS];
    this.#replaySlots = slots.slice(0, REPLAY_SLOTS);
    this.#replayer = new Replayer(engine, {
      memory: this.#memory,
      ledger,
      transactions,
      io,
      slots: this.#replaySlots,
    }, this);
    this.#owns = new Uint8Array(count);
    for (const slot of slots) this.#owns[slot] = 1;
    this.#bytes = new Uint32Array(count);
    this.#entries = new Uint16Array(count);
  }

  /** In which durability epoch the lane lives, by the ledger's count. */
  get epochs(): number {
    return this.#log.epochs;
  }

  /** Whether everything waits for the replay, on whichever lane it is. */
  get isHeld(): boolean {
    return this.#ledger.isReplaying;
  }

  /** Whether there is a connection that takes requests. */
  get isOpen(): boolean {
    return this.#host.isOpen;
  }

  /** Whether the request in a Worker's slot is the keeper's own. */
  owns(slot: number): boolean {
    return this.#owns[slot] !== 0;
  }

  /**
   * Sets room aside for a slot's mutation, which may not be sent before. Again for one that has it is no harm.
   *
   * @returns false when there is none, or another waits for it: to be asked for again at {@link KeeperHost.goOn}
   */
  reserve(slot: number): boolean {
    if (this.#entries[slot] > 0) return true;
    if (this.#waiting !== NONE && this.#waiting !== slot) return false;
    const isWrite = this.#transactions.operation[slot] === Operation.WRITE;
    const bytes = isWrite ? this.#transactions.left[slot] : 0;
    // As many as there may be parts, should the exporter come back and take no more at once than it has to.
    const entries = isWrite ? Math.ceil(bytes / PAYLOAD_BYTES_GRANT_MIN) : 1;
    if (!this.#log.reserve(bytes, entries)) {
      this.#waiting = slot;
      if (!this.#log.isEmpty) this.#wantFlush();
      return false;
    }
    if (this.#waiting === slot) this.#waiting = NONE;
    this.#bytes[slot] = bytes;
    this.#entries[slot] = entries;
    return true;
  }

  /** A slot's mutation has ended: gives back what is left of its room. */
  release(slot: number): void {
    if (this.#waiting === slot) this.#waiting = NONE;
    this.#log.giveBack(this.#bytes[slot], this.#entries[slot]);
    this.#bytes[slot] = 0;
    this.#entries[slot] = 0;
  }

  /**
   * A slot's mutation was acknowledged: all of it, or the next part of a WRITE, which still counts as left.
   *
   * @param part its length, in bytes
   * @returns false when that was in a durability epoch that is over, and does not count
   */
  keep(slot: number, part: number): boolean {
    const { operation, flags, left } = this.#transactions;
    const isWrite = operation[slot] === Operation.WRITE;
    const skip = isWrite ? this.#engine.slots.length[slot] - left[slot] : 0;
    if (!this.#log.append(slot, operation[slot], flags[slot], skip, part)) return false;
    if (isWrite) this.#bytes[slot] -= part;
    this.#entries[slot]--;
    if (this.#log.isHigh) this.#relieve();
    return true;
  }

  /**
   * A FLUSH has succeeded.
   *
   * @returns as {@link keep}
   */
  cover(mark: number): boolean {
    return this.#log.cover(mark);
  }

  /**
   * The exporter has granted the lane, as the session's first or again; the connection follows.
   *
   * @param isOther whether it is another process than before
   */
  meet(grant: Grant, isOther: boolean): void {
    const ledger = this.#ledger;
    this.#objection = "";
    const epochs = ledger.meet(grant.identities.durability, this, isOther);
    if (epochs === this.#log.epochs) return;
    this.#log.epochs = epochs;
    if (ledger.isReplayer(this.lane)) {
      this.#replayer.begin(epochs);
    } else if (ledger.isLost && this.#objection !== "") {
      this.#host.onDataLost(this.#objection);
    }
  }

  /** What of the other lanes' is added now, or has been added before, is seen: see {@link Copies}. */
  freeze(): boolean {
    const ledger = this.#ledger;
    this.#memory.freeze();
    const kept = this.#memory.uncovered(ledger.covered).length;
    const isWhole = !ledger.hasInherited && kept === ((ledger.mark() - ledger.covered) | 0);
    if (!isWhole) this.#objection = `${DATA_LOST}, and there are no copies of all of it`;
    return isWhole;
  }

  /** The exporter remembers no request of the lane any more. */
  requeue(): void {
    if (this.#flush === Flush.SENT) this.#flush = Flush.WANTED;
    this.#replayer.requeue();
  }

  /** There is a connection. */
  resume(): void {
    this.#lasts = false;
    this.run();
  }

  /** Sends what is the keeper's own, as far as it may. */
  run(): void {
    if (!this.#host.isOpen) return;
    this.#replayer.run();
    if (this.#flush !== Flush.WANTED || this.isHeld || this.#ledger.isLost) return;
    this.#engine.slots.setRange(this.#flushSlot, 0, 0);
    this.#transactions.operation[this.#flushSlot] = Operation.FLUSH;
    this.#transactions.flags[this.#flushSlot] = 0;
    if (this.#io.start(this.#flushSlot)) this.#flush = Flush.SENT;
  }

  /**
   * The keeper's own request in a slot of the lane has ended.
   *
   * @returns false when the connection is out of date: it is to be dropped
   */
  completed(laneSlot: number, slot: number, status: number): boolean {
    if (slot !== this.#flushSlot) return this.#replayer.completed(laneSlot, slot, status);
    this.#io.finish(laneSlot);
    this.#flush = Flush.NONE;
    if (this.#ledger.epochs !== this.#log.epochs) {
      this.#flush = Flush.WANTED;
      return false;
    }
    if (status === 0) return this.#flushed();
    // An exporter that ends has not done it; and one that knows the session no more says so in another way, too.
    if (status === -Errno.ESHUTDOWN) this.#flush = Flush.WANTED;
    else if (status !== -Errno.ESTALE) {
      this.#lose(`what was written last may be lost, as the exporter could not flush it: ${errnoMessage(status)}`);
    }
    return true;
  }

  /**
   * When there was life last in what everything waits for, in the engine's milliseconds. To be asked for at each look after
   * the lane.
   */
  lifeMs(now: number): number {
    const ledger = this.#ledger;
    if (!this.isHeld) {
      this.#lifeMs = now;
      return now;
    }
    // A connection that is lost again and again, before anything comes of it, is no life.
    if (this.#replayer.isActive && this.#host.isOpen && this.#lasts && !ledger.isFencing) ledger.beat();
    this.#lasts = this.#host.isOpen;
    const { beats } = ledger;
    if (beats !== this.#beats) this.#lifeMs = now;
    this.#beats = beats;
    return this.#lifeMs;
  }

  /** Looks after the copies: another lane's FLUSH may have made room. */
  tick(): void {
    this.#log.trim();
    this.run();
  }

  // The replay's host.

  poll(): void {
    this.#host.poll();
  }

  onReplayed(count: number, bytes: number, tookMs: number): void {
    this.#log.trim();
    this.#host.onReplayed(count, bytes, tookMs);
    this.#host.goOn();
  }

  onReplayFailed(reason: string): void {
    this.#replayer.stop();
    this.#lose(`${DATA_LOST}, and ${reason}`);
    this.#ledger.endReplay();
    this.#host.goOn();
  }

  /** Half of the room is used: unless others have seen to it, the exporter is to flush. */
  #relieve(): void {
    this.#log.trim();
    if (this.#log.isHigh) this.#wantFlush();
  }

  #wantFlush(): void {
    if (this.#flush !== Flush.NONE) return;
    this.#flush = Flush.WANTED;
    this.run();
  }

  #flushed(): boolean {
    if (!this.cover(this.#transactions.marks[this.#flushSlot])) {
      this.#flush = Flush.WANTED;
      return false;
    }
    this.#relieve();
    this.#host.goOn();
    return true;
  }

  #lose(reason: string): void {
    if (this.#ledger.isLost) return;
    this.#ledger.lose();
    this.#host.onDataLost(reason);
  }
}
