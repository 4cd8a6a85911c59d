/**
 * A session at the client: a disk of another machine as a block device, over one of its lanes.
 *
 * @module
 */
import {
  type BlockClient,
  type BlockDevice,
  EXTENT_BYTES,
  type Geometry,
  Operation,
  PENDING,
  RequestFlag,
} from "../engine/block.ts";
import { type Engine, Task } from "../engine/engine.ts";
import { SLOT_PAYLOAD_BYTES, type Slots } from "../engine/slots.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { TransmitArea, transmitSlots } from "../engine/transmit_area.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import { CLIENT_LANE_CONTROL_BYTES, ClientLane, type ClientLaneHost } from "../protocol/client_lane.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "../protocol/codec.ts";
import { protocolErrorText } from "../protocol/error.ts";
import type { Grant } from "../protocol/grant.ts";
import { Cipher, writeUint64 } from "../protocol/wire.ts";
import { canDo, geometryOf } from "./geometry.ts";
import { MutationLedger } from "./ledger.ts";

/** How long the answer to CLOSE may take, in milliseconds: nothing executes any more, so it is a round trip. */
const CLOSE_MS = 5000;

if (CODEC_SCRATCH_BYTES + CLIENT_LANE_CONTROL_BYTES > SLOT_PAYLOAD_BYTES) {
  throw new Error("A lane's own messages do not fit a slot");
}

/** No slot. */
const NONE = -1;
/** Of a message sent from the transmit area, and of the others. */
const Token = { OTHER: 0, AREA: 1 } as const;
/** What a timer is for. */
const Timer = { TICK: 0, CLOSE: 1 } as const;

/** Who is told what becomes of a session. */
export interface SessionOwner {
  /**
   * The session is over, and not by {@link ClientSession.leave}: every request fails from now on. Called once, after all
   * that were under way have failed.
   *
   * @param reason for people, without a capital or a full stop
   */
  onLost(reason: string): void;
  /** The exporter is ending: it refuses new requests. */
  onShuttingDown(): void;
  /** The export has another size now, in bytes. */
  onResized(size: number): void;
}

/** One of a session's lanes. */
export interface LanePlace {
  /** Its number, from 0. The session is closed on lane 0; the others end with it. */
  readonly lane: number;
  /** What of the session may be lost: one for all its lanes. */
  readonly ledger: MutationLedger;
}

/**
 * A session over one lane. A request of a Worker's slot is sent from that slot and received straight into it; when every
 * slot of the lane is taken, or its payload credit is used up, the Worker's slot waits its turn.
 */
export class ClientSession implements BlockDevice, StreamOwner, ClientLaneHost, TimerHandler {
  readonly geometry: Geometry;
  /** As the exporter has granted it. */
  readonly grant: Grant;
  /** The longest READ or WRITE that is one request on the wire, in bytes; longer ones are sent in parts. */
  readonly partBytes: number;
  readonly #engine: Engine;
  /** The engine's, with each request's range. */
  readonly #slots: Slots;
  readonly #owner: SessionOwner;
  readonly #lane: ClientLane;
  readonly #laneNumber: number;
  readonly #ledger: MutationLedger;
  /** The Worker's slot with the memory of the lane's own messages. */
  readonly #controlSlots: Uint32Array;
  readonly #codecAt: number;
  readonly #task = new Task(() => this.#goOn());
  /** A request's or part's offset and length, on its way to the lane. */
  readonly #range = new Float64Array(2);
  /** Where payloads are encrypted to, with a cipher. */
  #area: TransmitArea | null = null;
  #stream: Stream | null = null;
  #ticking = false;
  #isFenced = false;
  #isEnding = false;
  /** Why this side has dropped the connection, or null. */
  #dropped: string | null = null;
  /** The errno of every request once the session is over, else 0. */
  #failure = 0;
  #failureText: string | null = null;
  #onLeft: ((clean: boolean) => void) | null = null;
  #leftCleanly = false;
  #closed = false;

  // By the Worker's slot.
  readonly #clients: (BlockClient | null)[];
  readonly #operation: Uint8Array;
  readonly #flags: Uint8Array;
  /** How much of a READ or WRITE is not done, in bytes. */
  readonly #left: Float64Array;
  readonly #extentBytes: Uint32Array;
  /** Of a FLUSH: what it covers. */
  readonly #marks: Int32Array;

  // By the lane's slot.
  /** The Worker's slot that it serves, or {@link NONE}. */
  readonly #slotOf: Int32Array;
  readonly #free: Uint16Array;
  #freeCount: number;

  /** The Worker's slots that wait for a slot or credit of the lane: a ring, in order. */
  readonly #waiting: Uint32Array;
  #waitingHead = 0;
  #waitingCount = 0;

  /**
   * @param controlSlots one slot of the Worker, which is the session's until {@link close}
   * @param owner is told of the session's end
   * @param place which lane it is; without it the only one
   */
  constructor(
    engine: Engine,
    controlSlots: Uint32Array,
    grant: Grant,
    owner: SessionOwner,
    place: LanePlace = { lane: 0, ledger: new MutationLedger() },
  ) {
    this.#engine = engine;
    this.#slots = engine.slots;
    this.#owner = owner;
    this.#controlSlots = controlSlots;
    this.#codecAt = engine.slots.payloadAt(controlSlots[0]);
    this.#laneNumber = place.lane;
    this.#ledger = place.ledger;
    this.grant = grant;
    this.geometry = geometryOf(grant);
    const most = Math.min(grant.maxPayload, SLOT_PAYLOAD_BYTES);
    this.partBytes = most - most % grant.logicalBlock;
    this.#lane = new ClientLane(engine.arena, {
      lane: place.lane,
      depth: grant.slots,
      // What a slot has no room for is refused as a protocol error, should an exporter send more than was wished for.
      maxPayload: most,
      controlAt: this.#codecAt + CODEC_SCRATCH_BYTES,
      payloadBytes: grant.payloadBytes,
      logicalBlock: grant.logicalBlock,
    }, this);
    const count = engine.slots.count;
    this.#clients = new Array<BlockClient | null>(count).fill(null);
    this.#operation = new Uint8Array(count);
    this.#flags = new Uint8Array(count);
    this.#left = new Float64Array(count);
    this.#extentBytes = new Uint32Array(count);
    this.#marks = new Int32Array(count);
    this.#waiting = new Uint32Array(count);
    this.#slotOf = new Int32Array(grant.slots).fill(NONE);
    this.#free = new Uint16Array(grant.slots);
    for (let i = 0; i < grant.slots; i++) this.#free[i] = grant.slots - 1 - i;
    this.#freeCount = grant.slots;
  }

  /** Requests that await their reply, those included that wait to be sent. */
  get inFlight(): number {
    return this.grant.slots - this.#freeCount + this.#waitingCount;
  }

  /** Whether requests can succeed. */
  get isConnected(): boolean {
    return this.#stream !== null && this.#failure === 0;
  }

  /** Why every request fails, or null. */
  get failure(): string | null {
    return this.#failureText;
  }

  /**
   * Begins on the connection that the session was granted on. From now on the stream's events are to be given to the
   * session. To be called from within the machine's `granted`. With a cipher it takes `transmitSlots` of the Worker's
   * slots; without them it is lost.
   */
  connect(stream: Stream, handoff: Handoff): void {
    const { arena, cryptography, timers } = this.#engine;
    this.#stream = stream;
    if (handoff.cipher !== Cipher.NONE) {
      const reserved = this.#slots.reserve(transmitSlots(this.grant.slots));
      if (reserved === null) {
        this.abort("there is no memory to encrypt in");
        return;
      }
      this.#area = new TransmitArea(this.#slots, reserved);
    }
    const codec = new FrameCodec(arena, cryptography, this.#codecAt, handoff);
    this.#lane.connect(codec, timers.now(), this.#area);
    stream.start(this.#lane);
    this.#tick();
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    if (this.#clients[slot] !== null) throw new Error(`Slot ${slot} has a request already`);
    if (this.#failure !== 0) {
      this.#noteFailure(operation, this.#failure);
      return this.#failure;
    }
    // The wire has no empty range; it is done already.
    if (this.#slots.length[slot] === 0 && operation !== Operation.FLUSH) return 0;
    if (!canDo(this.grant.features, operation)) return this.#answerWithout(slot, operation);
    this.#clients[slot] = client;
    this.#operation[slot] = operation;
    this.#flags[slot] = flags;
    this.#left[slot] = this.#slots.length[slot];
    // Whoever has waited longer goes first.
    if (this.#waitingCount > 0 || !this.#start(slot)) {
      this.#waiting[(this.#waitingHead + this.#waitingCount) % this.#waiting.length] = slot;
      this.#waitingCount++;
    }
    return PENDING;
  }

  extentBytes(slot: number): number {
    return this.#extentBytes[slot];
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
    if (this.#stream === null) {
      onLeft(false);
      return;
    }
    this.#onLeft = onLeft;
    this.#failure = -Errno.EIO;
    if (this.#stream.isOpen && this.#laneNumber === 0) this.#lane.close();
    this.#engine.timers.schedule(this, Timer.CLOSE, this.#engine.now + CLOSE_MS);
  }

  /**
   * Drops the connection: what is under way fails, and `onLost` follows.
   *
   * @param reason for people, without a capital or a full stop
   */
  abort(reason = "this side has dropped the connection"): void {
    this.#dropped ??= reason;
    this.#stream?.close();
  }

  /** Gives back what the session holds; after {@link leave}, or when it is lost. A connection that is left is dropped. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#stream !== null) this.#stream.close();
    else this.#release();
  }

  // The lane's host.

  transmit(at: number, bytes: number, takesRoom: boolean): void {
    this.#stream!.transmit(at, bytes, takesRoom ? Token.AREA : Token.OTHER);
  }

  get turn(): number {
    return this.#engine.turnNumber;
  }

  again(): void {
    this.#engine.again(this.#task);
  }

  completed(laneSlot: number, status: number, payloadBytes: number): void {
    const slot = this.#slotOf[laneSlot];
    const operation = this.#operation[slot];
    if (operation === Operation.READ || operation === Operation.WRITE) {
      this.#left[slot] -= this.#partOf(slot);
      // The next part is no longer than this one was: its credit is there.
      if (status === 0 && this.#left[slot] > 0 && this.#failure === 0) {
        this.#send(laneSlot, slot);
        return;
      }
    } else {
      this.#extentBytes[slot] = payloadBytes;
    }
    if (status === 0) this.#note(slot, operation);
    this.#slotOf[laneSlot] = NONE;
    this.#free[this.#freeCount++] = laneSlot;
    this.#startWaiting();
    this.#complete(slot, status);
  }

  resized(size: number): void {
    this.#owner.onResized(size);
  }

  shuttingDown(): void {
    this.#isEnding = true;
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
    this.#lane.heard(this.#engine.now);
  }

  /** The kernel has taken bytes: on a slow link that is all the life there is for a while. */
  onSent(_stream: Stream, token: number): void {
    this.#lane.heard(this.#engine.now);
    if (token === Token.AREA) this.#lane.sent();
  }

  onDrained(): void {}

  onClosed(_stream: Stream, errno: number): void {
    const reason = this.#reasonOf(errno);
    this.#stream = null;
    this.#lane.disconnect();
    if (this.#closed) this.#release();
    const onLeft = this.#onLeft;
    if (onLeft !== null) {
      this.#onLeft = null;
      onLeft(this.#leftCleanly);
      return;
    }
    this.#failure = this.#isFenced ? -Errno.ESTALE : -Errno.EIO;
    this.#failureText = reason;
    this.#failAll();
    this.#owner.onLost(reason);
  }

  expire(tag: number): void {
    if (tag === Timer.TICK) {
      this.#ticking = false;
      this.#tick();
    } else if (this.#onLeft !== null) {
      this.#stream?.close();
    }
  }

  /** What the lane has not done in the turn before. */
  #goOn(): void {
    if (this.#stream === null) return;
    this.#lane.run();
    this.#stream.resume();
  }

  #release(): void {
    this.#slots.release(this.#controlSlots);
    if (this.#area !== null) this.#slots.release(this.#area.slots);
  }

  #tick(): void {
    if (this.#stream === null || this.#ticking) return;
    const waitMs = this.#lane.tick(this.#engine.now);
    if (this.#lane.error !== 0) {
      this.#stream.close();
      return;
    }
    if (waitMs === Infinity) return;
    this.#ticking = true;
    this.#engine.timers.schedule(this, Timer.TICK, this.#engine.now + waitMs);
  }

  /** Sends the request of a Worker's slot, if the lane has a slot and credit for it. */
  #start(slot: number): boolean {
    if (this.#freeCount === 0) return false;
    const operation = this.#operation[slot];
    const takesCredit = operation === Operation.READ || operation === Operation.WRITE;
    if (takesCredit && this.#partOf(slot) > this.#lane.creditBytes) return false;
    const laneSlot = this.#free[--this.#freeCount];
    this.#slotOf[laneSlot] = slot;
    this.#send(laneSlot, slot);
    return true;
  }

  #startWaiting(): void {
    while (this.#waitingCount > 0 && this.#failure === 0) {
      if (!this.#start(this.#waiting[this.#waitingHead])) return;
      this.#waitingHead = (this.#waitingHead + 1) % this.#waiting.length;
      this.#waitingCount--;
    }
  }

  /** The length of a READ's or WRITE's present part, in bytes. */
  #partOf(slot: number): number {
    const left = this.#left[slot];
    return left < this.partBytes ? left : this.partBytes;
  }

  /**
   * Sends a request or its present part. The lane writes a part's prefix right before its payload, over what the slot
   * has there: so a WRITE goes from the first part to the last, and a READ from the last to the first.
   */
  #send(laneSlot: number, slot: number): void {
    const slots = this.#slots;
    const operation = this.#operation[slot];
    const flags = this.#flags[slot];
    const range = this.#range;
    range[0] = slots.offset[slot];
    range[1] = slots.length[slot];
    let skip = 0;
    if (operation === Operation.FLUSH) {
      this.#marks[slot] = this.#ledger.mark();
      range.fill(0);
    } else if (operation === Operation.READ || operation === Operation.WRITE) {
      const part = this.#partOf(slot);
      const left = this.#left[slot];
      skip = operation === Operation.WRITE ? slots.length[slot] - left : left - part;
      range[0] += skip;
      range[1] = part;
    }
    this.#lane.request(laneSlot, slots.payloadAt(slot) + skip, operation, range, flags);
  }

  /** Keeps account of a request that has succeeded. */
  #note(slot: number, operation: number): void {
    if (operation === Operation.FLUSH) this.#ledger.cover(this.#marks[slot]);
    else if (this.#mayLose(slot, operation)) this.#ledger.acknowledge();
  }

  /** Whether what was acknowledged is on stable storage only after a FLUSH. */
  #mayLose(slot: number, operation: number): boolean {
    return this.geometry.volatileCache && isMutation(operation) && (this.#flags[slot] & RequestFlag.FUA) === 0;
  }

  /** Keeps account of a request that has failed, unless whoever asked does the same in another way. */
  #noteFailure(operation: number, status: number): void {
    if (isMutation(operation) && status !== -Errno.EOPNOTSUPP) this.#ledger.fail();
  }

  #complete(slot: number, status: number): void {
    const client = this.#clients[slot]!;
    if (status < 0) this.#noteFailure(this.#operation[slot], status);
    // Before the call, from within which the slot may be used again.
    this.#clients[slot] = null;
    client.onComplete(slot, status);
  }

  /** Fails what is under way, then what waits. Each is forgotten before its client hears of it. */
  #failAll(): void {
    for (let laneSlot = 0; laneSlot < this.#slotOf.length; laneSlot++) {
      const slot = this.#slotOf[laneSlot];
      if (slot === NONE) continue;
      this.#slotOf[laneSlot] = NONE;
      this.#free[this.#freeCount++] = laneSlot;
      this.#complete(slot, this.#failure);
    }
    while (this.#waitingCount > 0) {
      const slot = this.#waiting[this.#waitingHead];
      this.#waitingHead = (this.#waitingHead + 1) % this.#waiting.length;
      this.#waitingCount--;
      this.#complete(slot, this.#failure);
    }
  }

  /** The answer to what the export cannot do: advice is not taken, and where nothing is known of a range, it is data. */
  #answerWithout(slot: number, operation: number): number {
    if (operation === Operation.CACHE) return 0;
    if (operation !== Operation.BLOCK_STATUS) return -Errno.EOPNOTSUPP;
    const at = this.#slots.payloadAt(slot);
    this.#engine.arena.bytes.fill(0, at, at + EXTENT_BYTES);
    writeUint64(this.#engine.arena.view, at, this.#slots.length[slot]);
    this.#extentBytes[slot] = EXTENT_BYTES;
    return 0;
  }

  #reasonOf(errno: number): string {
    if (this.#isFenced) return "another client has taken over the export";
    if (this.#lane.error !== 0) return `the connection was dropped: ${protocolErrorText(this.#lane.error)}`;
    if (this.#dropped !== null) return this.#dropped;
    if (this.#isEnding) return "the exporter was stopped";
    if (errno !== 0) return `the connection was lost: ${errnoMessage(errno)}`;
    return "the exporter closed the connection";
  }
}

function isMutation(operation: number): boolean {
  return operation === Operation.WRITE || operation === Operation.WRITE_ZEROES || operation === Operation.DISCARD;
}
