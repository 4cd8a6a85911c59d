/**
 * Requests of a lane on the wire: each in a slot of the lane, READs and WRITEs in parts where they are longer than the
 * exporter takes.
 *
 * @module
 */
import { Operation } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { SLOT_PAYLOAD_BYTES, type Slots } from "../engine/slots.ts";
import type { Stream } from "../engine/stream.ts";
import { TransmitArea, transmitSlots } from "../engine/transmit_area.ts";
import { CLIENT_LANE_CONTROL_BYTES, ClientLane, type ClientLaneHost } from "../protocol/client_lane.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "../protocol/codec.ts";
import type { Grant } from "../protocol/grant.ts";
import { Cipher, ProbeState } from "../protocol/wire.ts";
import type { MutationLedger } from "./ledger.ts";
import { lastsMs, type Patience, pingMs } from "./patience.ts";
import { isMutation, type Transactions } from "./transactions.ts";

if (CODEC_SCRATCH_BYTES + CLIENT_LANE_CONTROL_BYTES > SLOT_PAYLOAD_BYTES) {
  throw new Error("A lane's own messages do not fit a slot");
}

/** No slot. */
const NONE = -1;
/**
 * How often in a row the exporter may say that it is done with a request whose reply is not there: the reply can be on its
 * way the first time.
 */
const DONE_MAX = 3;

/** What it belongs to. */
export interface LaneIoOptions {
  readonly lane: number;
  /** The Worker's slot with the memory of the lane's own messages. */
  readonly controlSlot: number;
  readonly ledger: MutationLedger;
  readonly transactions: Transactions;
  readonly patience: Patience | null;
}

/** What a lane has under way, over all its connections. */
export class LaneIo {
  /** The longest READ or WRITE that is one request on the wire, in bytes. */
  partBytes = 0;
  readonly #engine: Engine;
  readonly #slots: Slots;
  readonly #options: LaneIoOptions;
  readonly #host: ClientLaneHost;
  readonly #codecAt: number;
  #lane!: ClientLane;
  /** Where payloads are encrypted to, with a cipher. */
  #area: TransmitArea | null = null;
  /** A request's or part's offset and length, on its way to the lane. */
  readonly #range = new Float64Array(2);

  // By the lane's slot.
  /** The Worker's slot that it serves, or {@link NONE}. */
  #slotOf!: Int32Array;
  #free!: Uint16Array;
  #freeCount = 0;
  /** When its request was sent, or asked after, on the present connection; in milliseconds. */
  #askedMs!: Float64Array;
  /** How often in a row its request was said to be done. */
  #done!: Uint8Array;

  constructor(engine: Engine, options: LaneIoOptions, grant: Grant, host: ClientLaneHost) {
    this.#engine = engine;
    this.#slots = engine.slots;
    this.#options = options;
    this.#host = host;
    this.#codecAt = engine.slots.payloadAt(options.controlSlot);
    this.begin(grant);
  }

  /** Why the lane ended its connection, a `ProtocolError`; 0: it did not. */
  get error(): number {
    return this.#lane.error;
  }

  /**
   * Begins anew without requests, every slot at sequence 0: the exporter remembers none either. Between two connections.
   * Whoever has requests under way sends them again.
   */
  begin(grant: Grant): void {
    const most = Math.min(grant.maxPayload, SLOT_PAYLOAD_BYTES);
    const { patience } = this.#options;
    this.partBytes = most - most % grant.logicalBlock;
    this.#lane = new ClientLane(this.#engine.arena, {
      lane: this.#options.lane,
      depth: grant.slots,
      // What a slot has no room for is refused as a protocol error, should an exporter send more than was wished for.
      maxPayload: most,
      controlAt: this.#codecAt + CODEC_SCRATCH_BYTES,
      payloadBytes: grant.payloadBytes,
      logicalBlock: grant.logicalBlock,
      // Looked at each time, as they change while the lane lives.
      get pingIdleMs() {
        return patience === null ? undefined : pingMs(patience);
      },
      get deadMs() {
        return patience === null ? undefined : lastsMs(patience);
      },
    }, this.#host);
    this.#slotOf = new Int32Array(grant.slots).fill(NONE);
    this.#askedMs = new Float64Array(grant.slots);
    this.#done = new Uint8Array(grant.slots);
    this.#free = new Uint16Array(grant.slots);
    for (let i = 0; i < grant.slots; i++) this.#free[i] = grant.slots - 1 - i;
    this.#freeCount = grant.slots;
  }

  /**
   * Begins on a connection; what was sent on an earlier one waits for {@link resend}, and what arrives for {@link listen}.
   *
   * @returns false where a cipher needs memory that is not there
   */
  connect(handoff: Handoff): boolean {
    const { arena, cryptography, timers } = this.#engine;
    const encrypts = handoff.cipher !== Cipher.NONE;
    if (encrypts && this.#area === null) {
      const reserved = this.#slots.reserve(transmitSlots(this.#lane.depth));
      if (reserved === null) return false;
      this.#area = new TransmitArea(this.#slots, reserved);
    }
    const codec = new FrameCodec(arena, cryptography, this.#codecAt, handoff);
    this.#lane.connect(codec, timers.now(), encrypts ? this.#area : null);
    return true;
  }

  /** Takes what arrives from now on. */
  listen(stream: Stream): void {
    stream.start(this.#lane);
  }

  /** The connection is gone. */
  disconnect(): void {
    this.#lane.disconnect();
  }

  /** Gives its memory back. */
  release(): void {
    if (this.#area !== null) this.#slots.release(this.#area.slots);
    this.#area = null;
  }

  /** The Worker's slot that one of the lane's serves. */
  slotOf(laneSlot: number): number {
    return this.#slotOf[laneSlot];
  }

  /** Sends the request of a Worker's slot, if the lane has a slot and credit for it. */
  start(slot: number): boolean {
    if (this.#freeCount === 0) return false;
    const operation = this.#options.transactions.operation[slot];
    const takesCredit = operation === Operation.READ || operation === Operation.WRITE;
    if (takesCredit && this.partOf(slot) > this.#lane.creditBytes) return false;
    const laneSlot = this.#free[--this.#freeCount];
    this.#slotOf[laneSlot] = slot;
    this.#options.transactions.sent(slot);
    this.send(laneSlot);
    return true;
  }

  /** The lane's slot serves nobody any more, its request being answered. */
  finish(laneSlot: number): void {
    this.#slotOf[laneSlot] = NONE;
    this.#free[this.#freeCount++] = laneSlot;
  }

  /** The length of a READ's or WRITE's present part, in bytes. */
  partOf(slot: number): number {
    const left = this.#options.transactions.left[slot];
    return left < this.partBytes ? left : this.partBytes;
  }

  /**
   * Sends a request or its present part. The lane writes a part's prefix right before its payload, over what the slot
   * has there: so a WRITE goes from the first part to the last, and a READ from the last to the first.
   */
  send(laneSlot: number): void {
    const slot = this.#slotOf[laneSlot];
    const { transactions, ledger, patience } = this.#options;
    const operation = transactions.operation[slot];
    const range = this.#range;
    range[0] = this.#slots.offset[slot];
    range[1] = this.#slots.length[slot];
    let skip = 0;
    if (operation === Operation.FLUSH) {
      transactions.marks[slot] = ledger.mark();
      range.fill(0);
    } else if (operation === Operation.READ || operation === Operation.WRITE) {
      const part = this.partOf(slot);
      const left = transactions.left[slot];
      skip = operation === Operation.WRITE ? this.#slots.length[slot] - left : left - part;
      range[0] += skip;
      range[1] = part;
    }
    this.#done[laneSlot] = 0;
    transactions.tries[slot]++;
    if (patience !== null) this.#askedMs[laneSlot] = this.#engine.now;
    this.#lane.request(laneSlot, this.#slots.payloadAt(slot) + skip, operation, range, transactions.flags[slot]);
  }

  /**
   * Sends what was sent on an earlier connection again, with its sequence.
   *
   * @param mutations whether mutations too, which must wait where a lane owes a fence
   * @param only of which of the Worker's slots; null: of all
   * @returns whether any has to wait
   */
  resend(mutations: boolean, only: ((slot: number) => boolean) | null): boolean {
    let waits = false;
    for (let laneSlot = 0; laneSlot < this.#lane.depth; laneSlot++) {
      if (!this.#lane.isUnsent(laneSlot)) continue;
      const slot = this.#slotOf[laneSlot];
      const isForbidden = !mutations && isMutation(this.#options.transactions.operation[slot]);
      if (isForbidden || (only !== null && !only(slot))) {
        waits = true;
        continue;
      }
      this.#done[laneSlot] = 0;
      this.#options.transactions.tries[this.#slotOf[laneSlot]]++;
      this.#askedMs[laneSlot] = this.#engine.now;
      this.#lane.resend(laneSlot);
    }
    return waits;
  }

  /** Goes on with what was not done in the turn before. */
  run(): void {
    this.#lane.run();
  }

  /** What took room is sent. */
  sent(): void {
    this.#lane.sent();
  }

  /** There is life. */
  heard(now: number): void {
    this.#lane.heard(now);
  }

  /** Ends the session. */
  close(): void {
    this.#lane.close();
  }

  /** Pings, and finds a dead exporter: then {@link error} says so. In how many milliseconds to look again. */
  tick(now: number): number {
    return this.#lane.tick(now);
  }

  /** Asks after every request that is overdue, and has life prove itself by that. */
  askAfter(now: number, overdueMs: number): void {
    for (let laneSlot = 0; laneSlot < this.#slotOf.length; laneSlot++) {
      if (this.#slotOf[laneSlot] === NONE || now - this.#askedMs[laneSlot] < overdueMs) continue;
      if (!this.#lane.isBusy(laneSlot) || this.#lane.isUnsent(laneSlot)) continue;
      this.#askedMs[laneSlot] = now;
      this.#lane.probe(laneSlot);
    }
  }

  /**
   * What became of a request that was asked after.
   *
   * @param state a `ProbeState`
   * @returns whether that can be; otherwise its reply will never come on this connection
   */
  probed(laneSlot: number, state: number): boolean {
    if (state === ProbeState.EXECUTING) {
      this.#done[laneSlot] = 0;
      return true;
    }
    return state === ProbeState.DONE && ++this.#done[laneSlot] < DONE_MAX;
  }
}
