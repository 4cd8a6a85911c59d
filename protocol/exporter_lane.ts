/**
 * The exporter's end of a lane: takes requests, has them executed, and answers each once (SPEC.md, sections 5 and 7).
 * It outlives its connections: a lane is made once, and connected as often as its client comes back.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { type FrameCodec, MORE } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import { Field, hasOnly } from "./control_frame.ts";
import { ProtocolError } from "./error.ts";
import { ExporterPing } from "./exporter_ping.ts";
import { CONTROL_FRAMES, FrameSender, type LaneTurns, NO_SLOT } from "./frame_sender.ts";
import {
  GRANT_BYTES_MAX,
  PAYLOAD_BYTES_GRANT_MIN,
  PAYLOAD_BYTES_MAX,
  PEER_DEAD_MS,
  PING_IDLE_MS,
  SIZE_MAX,
} from "./limits.ts";
import { EXTENT_BYTES, Operation, PENDING, RequestFlag } from "./request.ts";
import { checkRequest } from "./request_check.ts";
import { Arrival, SlotState, SlotTable } from "./slot_table.ts";
import { Status, statusOfErrno } from "./status.ts";
import { TurnBudget } from "./turn_budget.ts";
import {
  FLAG_PROBE,
  frameFlags,
  frameLane,
  frameOffset,
  framePayloadBytes,
  frameRange,
  frameSequence,
  frameSlot,
  frameStatus,
  FrameType,
  frameType,
  PREFIX_BYTES_MAX,
  ProbeState,
  REPLY,
  REQUEST_TYPE_MAX,
  writeHeader,
} from "./wire.ts";

/** Bytes kept for the prefix of a frame without a slot. */
const CONTROL_STRIDE_BYTES = Math.ceil(PREFIX_BYTES_MAX / 64) * 64;
/** Where in the control area the TLVs of the answer to OPEN or JOIN lie; their frame's prefix is right before. */
const GRANT_AT = CONTROL_FRAMES * CONTROL_STRIDE_BYTES + CONTROL_STRIDE_BYTES;

/** Bytes of the arena that a lane needs beside its slots. */
export const LANE_CONTROL_BYTES = GRANT_AT + GRANT_BYTES_MAX;

/** What a lane is made with. Sizes in bytes. */
export interface ExporterLaneOptions {
  /** The lane's number. */
  readonly lane: number;
  /** How many slots it has. */
  readonly depth: number;
  /** The longest READ or WRITE, at most the size of a slot's payload area. */
  readonly maxPayload: number;
  /** The payload that READs and WRITEs under way may have together; if not given, what the slots can hold. */
  readonly payloadBytes?: number;
  /** Arena offset of each slot's payload area; PREFIX_BYTES_MAX right before it are the lane's, too. */
  readonly payloadAt: ArrayLike<number>;
  /** Arena offset of {@link LANE_CONTROL_BYTES}, a multiple of 8. */
  readonly controlAt: number;
  readonly size: number;
  readonly logicalBlock: number;
  readonly readOnly: boolean;
  /** After how long without a byte the client is pinged, in ms. */
  readonly pingIdleMs?: number;
  /** After how long without a byte the client is taken for dead, in ms. */
  readonly peerDeadMs?: number;
}

/** What a lane asks of the exporter. */
export interface ExporterLaneHost extends LaneTurns {
  /**
   * Starts a request that suits disk and session. READ and BLOCK_STATUS fill the slot's payload area; a WRITE's data is
   * there.
   *
   * @param range offset and length, in bytes; only to be read during the call
   * @returns 0 or a negative errno, or `PENDING`: then `lane.complete` is called later, never from within this call
   */
  execute(laneSlot: number, operation: number, range: Float64Array, flags: number): number;
  /** How many bytes of extents a successful BLOCK_STATUS has put into the slot's payload area. */
  extentBytes(laneSlot: number): number;
  /** Queues bytes of the arena for sending, first in, first out. */
  transmit(at: number, bytes: number): void;
  /** The client ends its session. The host calls `lane.closed` when nothing of it executes any more. */
  closeSession(): void;
}

/** The exporter's end of one lane. */
export class ExporterLane implements StreamConsumer {
  headerBytes = 1;
  payloadAt = -1;
  payloadBytes = 0;
  /** Why the lane answered CLOSE, or its client is taken for dead: a {@link ProtocolError}, until the next connect. */
  error: number = ProtocolError.NONE;
  readonly #memory: Memory;
  readonly #host: ExporterLaneHost;
  readonly #lane: number;
  readonly #payloadAt: Uint32Array;
  readonly #controlAt: number;
  readonly #payloadCredit: number;
  readonly #ping: ExporterPing;
  readonly #bounds: { size: number; logicalBlock: number; maxPayload: number; readOnly: boolean };
  readonly #table: SlotTable;
  #codec: FrameCodec | null = null;
  #connection = 0;
  #generation = 0;
  #controlFrames = 0;
  #isFenced = false;
  #isShuttingDown = false;
  #isClosing = false;
  #isFinishing = false;
  readonly #sender: FrameSender;
  readonly #budget = new TurnBudget();
  // The request that is arriving; its payload may still be on the way.
  #arrival: number = Arrival.NEW;
  #slot = 0;
  #sequence = 0;
  #type = 0;
  #flags = 0;
  /** Its offset and length, in bytes. */
  readonly #range = new Float64Array(2);
  #status: number = Status.OK;

  constructor(memory: Memory, options: ExporterLaneOptions, host: ExporterLaneHost) {
    const { depth, maxPayload, size, logicalBlock, readOnly } = options;
    assert(maxPayload >= PAYLOAD_BYTES_GRANT_MIN && maxPayload <= PAYLOAD_BYTES_MAX, "the maximum payload is allowed");
    assert(options.payloadAt.length >= depth, "every slot has its memory");
    assert(logicalBlock >= 1 && (logicalBlock & (logicalBlock - 1)) === 0, "a block's size is a power of two");
    assert(options.controlAt + LANE_CONTROL_BYTES <= memory.bytes.length, "the control area lies in the arena");
    this.#memory = memory;
    this.#host = host;
    this.#lane = options.lane;
    this.#payloadAt = Uint32Array.from(options.payloadAt);
    this.#controlAt = options.controlAt;
    this.#payloadCredit = options.payloadBytes ?? depth * maxPayload;
    this.#ping = new ExporterPing(
      options.pingIdleMs ?? PING_IDLE_MS,
      options.peerDeadMs ?? PEER_DEAD_MS,
      (token) => this.#sendControl(FrameType.PING, 0, 0, 0, token, 0),
    );
    this.#bounds = { size, logicalBlock, maxPayload, readOnly };
    this.#table = new SlotTable(depth);
    this.#sender = new FrameSender(memory, depth, host);
    for (let slot = 0; slot < depth; slot++) {
      assert(this.#payloadAt[slot] >= PREFIX_BYTES_MAX, "a prefix fits before every slot");
      assert(this.#payloadAt[slot] + maxPayload <= memory.bytes.length, "every slot lies in the arena");
    }
  }

  /** How many requests execute, whether or not the lane is connected. */
  get executing(): number {
    return this.#table.executing;
  }

  /** Whether the lane has a connection. */
  get isConnected(): boolean {
    return this.#codec !== null;
  }

  /** Whether something waits to be sealed and sent. */
  get isSending(): boolean {
    return this.#sender.isBusy;
  }

  /** The generation of the latest connection; 0 before the first. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Begins the lane phase on a connection: sends the successful answer to its OPEN or JOIN.
   *
   * @param codec goes on where the door's ended; the lane closes it
   * @param answerType the type of what is answered: OPEN or JOIN
   * @param generation above that of the connection before
   * @param grant the answer's TLVs (`encodeGrant`), at most GRANT_BYTES_MAX
   * @param now in ms
   */
  connect(codec: FrameCodec, answerType: number, generation: number, grant: Uint8Array, now: number): void {
    assert(this.#codec === null, "a lane has one connection at a time");
    assert(generation > this.#generation, "a lane's generation grows");
    assert(grant.length <= GRANT_BYTES_MAX, "a grant fits the control area");
    this.#codec = codec;
    this.#connection = (this.#connection + 1) >>> 0;
    this.#generation = generation;
    this.headerBytes = codec.prefixBytes;
    this.error = ProtocolError.NONE;
    this.#isClosing = false;
    this.#isFinishing = false;
    this.#budget.reset();
    this.#ping.reset(now);
    this.#sender.connect(codec, null);
    const grantAt = this.#controlAt + GRANT_AT;
    const at = grantAt - codec.prefixBytes;
    this.#memory.bytes.set(grant, grantAt);
    // It is the last frame of the door phase, so its lane is 0.
    writeHeader(this.#memory, at, answerType | REPLY, 0, 0, 0, 0, 0, 0, grant.length, Status.OK);
    this.#sender.send(NO_SLOT, at, grant.length, false);
    if (this.#isShuttingDown) this.#sendControl(FrameType.SHUTTING_DOWN, 0, 0, 0, 0, 0);
  }

  /** The connection is gone. What executes goes on; its outcome is told when it is asked for again. */
  disconnect(): void {
    this.#sender.disconnect();
    this.#codec?.close();
    this.#codec = null;
  }

  /**
   * Takes nothing more on this connection. The host ends it when nothing {@link isSending} any more.
   */
  finish(): void {
    this.#isFinishing = true;
  }

  /** Goes on with what waits to be sent; in a turn after `host.again`. */
  run(): void {
    if (this.#codec !== null) this.#sender.run();
  }

  onHeader(at: number): Verdict {
    const memory = this.#memory;
    const codec = this.#codec;
    assert(codec !== null, "the lane is connected");
    // All reasons to wait come before the header is opened, which can be done only once.
    if (this.#isFinishing || this.#sender.isCongested) return Verdict.WAIT;
    if (!this.#mayOpen(codec.prefixBytes)) return Verdict.WAIT;
    const error = codec.openPrefix(at);
    if (error !== 0) return this.#fail(error);
    if (frameLane(memory, at) !== this.#lane) return this.#fail(ProtocolError.LANE);
    const type = frameType(memory, at);
    if (type >= FrameType.READ && type <= REQUEST_TYPE_MAX) return this.#onRequest(at, type);
    if (type === FrameType.PING) return this.#onPing(at);
    if (type === (FrameType.PING | REPLY)) return this.#onPong(at);
    if (type === FrameType.CLOSE) return this.#onClose(at);
    if (type < FrameType.LIST || type > FrameType.JOIN) return this.#fail(ProtocolError.TYPE);
    this.#sendControl(type | REPLY, 0, 0, 0, 0, Status.BAD_REQUEST);
    return this.#fail(ProtocolError.PHASE);
  }

  onPayload(): Verdict {
    const codec = this.#codec;
    assert(codec !== null, "the lane is connected");
    if (this.#isFinishing) return Verdict.WAIT;
    if (this.payloadAt >= 0) {
      let error: number = MORE;
      while (error === MORE) {
        if (!this.#mayOpen(codec.openPieceBytes(this.payloadBytes))) return Verdict.WAIT;
        error = codec.openPayload(this.payloadAt, this.payloadBytes);
      }
      if (error !== ProtocolError.NONE) return this.#fail(error);
    }
    this.#onArrived();
    return Verdict.NEXT;
  }

  /** Whether the turn has time to open so many bytes; the stream is resumed in a later one otherwise. */
  #mayOpen(bytes: number): boolean {
    if (this.#budget.spend(this.#host.turn, bytes, this.#codec!.turnBytes)) return true;
    this.#host.again();
    return false;
  }

  /**
   * A request whose execution was PENDING has ended.
   *
   * @param status 0 or a negative errno
   */
  complete(laneSlot: number, status: number): void {
    assert(status <= 0, "a completion is 0 or a negative errno");
    this.#finish(laneSlot, statusOfErrno(status));
  }

  /** Forgets all requests: the client comes back without its memory (FRESH). Nothing executes. */
  clear(): void {
    assert(this.#codec === null, "the lane is not connected");
    this.#table.clear();
  }

  /**
   * The export has another size from now on; the client is told.
   *
   * @param size in bytes
   */
  resized(size: number): void {
    assert(size >= 0 && size <= SIZE_MAX, "a size is a safe integer");
    this.#bounds.size = size;
    if (this.#codec !== null) this.#sendControl(FrameType.RESIZED, 0, 0, 0, size, 0);
  }

  /** The exporter is ending: the client is told, and new requests are answered SHUTTING_DOWN. */
  shutdown(): void {
    if (this.#isShuttingDown) return;
    this.#isShuttingDown = true;
    if (this.#codec !== null) this.#sendControl(FrameType.SHUTTING_DOWN, 0, 0, 0, 0, 0);
  }

  /** Another session took over: the client is told, and nothing more is executed for this one. */
  fenced(): void {
    if (this.#isFenced) return;
    this.#isFenced = true;
    if (this.#codec !== null) this.#sendControl(FrameType.FENCED, 0, 0, 0, 0, 0);
  }

  /** The session is closed: answers the CLOSE, if it came on this lane's present connection. */
  closed(): void {
    if (this.#codec === null || !this.#isClosing) return;
    this.#sendControl(FrameType.CLOSE | REPLY, 0, 0, 0, 0, Status.OK);
  }

  /** Bytes have arrived from the client: it lives. `now` in ms. */
  heard(now: number): void {
    this.#ping.heard(now);
  }

  /**
   * Pings an idle client, and takes one that has long been silent for dead: then {@link error} is set.
   *
   * @param now in ms
   * @returns in how many ms to call again; Infinity: not before the next connect
   */
  tick(now: number): number {
    if (this.#codec === null || this.error !== 0) return Infinity;
    const nextMs = this.#ping.tick(now);
    if (nextMs > 0) return nextMs;
    this.error = ProtocolError.PEER_DEAD;
    return Infinity;
  }

  #onRequest(at: number, type: number): Verdict {
    const memory = this.#memory;
    if (this.#isClosing) return this.#fail(ProtocolError.PHASE);
    const slot = frameSlot(memory, at);
    if (slot >= this.#table.depth) return this.#fail(ProtocolError.SLOT);
    if (frameStatus(memory, at) !== 0) return this.#fail(ProtocolError.FIELD);
    // A client that has the reply would not be told of it yet: it makes a use of the slot that it has no right to.
    if (this.#sender.holds(slot)) return this.#fail(ProtocolError.SLOT_BUSY);
    const sequence = frameSequence(memory, at);
    const flags = frameFlags(memory, at);
    const range = this.#range;
    frameRange(memory, at, range);
    const payloadBytes = framePayloadBytes(memory, at);
    // A type of a later version may have a payload of any length.
    if (type === Operation.WRITE && payloadBytes !== range[1]) return this.#fail(ProtocolError.PAYLOAD_BYTES);
    if (type < Operation.WRITE || (type > Operation.WRITE && type <= Operation.BLOCK_STATUS)) {
      if (payloadBytes !== 0) return this.#fail(ProtocolError.PAYLOAD_BYTES);
    }
    if (payloadBytes > this.#bounds.maxPayload) return this.#fail(ProtocolError.PAYLOAD_TOO_LONG);

    const arrival = this.#table.classify(slot, sequence, type, range);
    if (arrival < 0) return this.#fail(-arrival);
    let status: number = Status.OK;
    if (this.#isFenced) status = Status.EPOCH_CHANGED;
    else if (this.#isShuttingDown) status = Status.SHUTTING_DOWN;
    else status = checkRequest(this.#bounds, type, flags, range);
    const willExecute = status === Status.OK && (arrival === Arrival.NEW || this.#isRepeatable(slot, arrival));
    if (willExecute && (type === Operation.READ || type === Operation.WRITE)) {
      if (this.#table.payloadBytes + range[1] > this.#payloadCredit) return this.#fail(ProtocolError.CREDIT);
    }
    // A reply that is made before the payload is there finds its connection already.
    if (arrival === Arrival.EXECUTING) this.#table.connection[slot] = this.#connection;

    this.#arrival = arrival;
    this.#slot = slot;
    this.#sequence = sequence;
    this.#type = type;
    this.#flags = flags;
    this.#status = status;
    if (payloadBytes === 0) {
      this.#onArrived();
      return Verdict.NEXT;
    }
    this.payloadAt = willExecute ? this.#payloadAt[slot] : -1;
    this.payloadBytes = payloadBytes;
    return Verdict.PAYLOAD;
  }

  /** The request in the `#` fields is there in whole. Only now does it change anything. */
  #onArrived(): void {
    const slot = this.#slot;
    const table = this.#table;
    if (this.#arrival === Arrival.EXECUTING) return;
    table.connection[slot] = this.#connection;
    if (this.#arrival === Arrival.NEW) table.begin(slot, this.#sequence, this.#type, this.#range);
    else if (this.#isRepeatable(slot, this.#arrival)) table.repeat(slot);
    else return this.#reply(slot, table.status[slot], 0);

    // It may have been fenced since the header came.
    if (this.#isFenced) this.#status = Status.EPOCH_CHANGED;
    if (this.#status !== Status.OK) return this.#finish(slot, this.#status);
    const flags = this.#flags & (RequestFlag.FUA | RequestFlag.NO_UNMAP | RequestFlag.FAST_ZERO);
    const status = this.#host.execute(slot, this.#type, this.#range, flags);
    if (status === PENDING) return;
    assert(status <= 0, "a status is 0 or a negative errno");
    this.#finish(slot, statusOfErrno(status));
  }

  /** Whether a resend of what is done is executed again: what changes nothing, and cannot be answered from memory. */
  #isRepeatable(slot: number, arrival: number): boolean {
    if (arrival !== Arrival.DONE || this.#table.status[slot] !== Status.OK) return false;
    const type = this.#table.type[slot];
    return type === Operation.READ || type === Operation.BLOCK_STATUS || type === Operation.FLUSH;
  }

  #finish(slot: number, status: number): void {
    const table = this.#table;
    table.finish(slot, status);
    // Not asked for on the present connection: the client will ask again.
    if (this.#codec === null || table.connection[slot] !== this.#connection) return;
    let payloadBytes = 0;
    if (status === Status.OK && table.type[slot] === Operation.READ) payloadBytes = table.length[slot];
    if (status === Status.OK && table.type[slot] === Operation.BLOCK_STATUS) {
      payloadBytes = this.#host.extentBytes(slot);
      assert(payloadBytes >= EXTENT_BYTES && payloadBytes % EXTENT_BYTES === 0, "there is at least one whole extent");
      assert(payloadBytes <= this.#bounds.maxPayload, "the extents fit the maximum payload");
    }
    this.#reply(slot, status, payloadBytes);
  }

  /** Answers the slot's request; its payload is in place, and the prefix goes right before. */
  #reply(slot: number, status: number, payloadBytes: number): void {
    const codec = this.#codec;
    assert(codec !== null, "the lane is connected");
    const payloadAt = this.#payloadAt[slot];
    const at = payloadAt - codec.prefixBytes;
    const type = this.#table.type[slot] | REPLY;
    writeHeader(
      this.#memory,
      at,
      type,
      0,
      slot,
      this.#lane,
      this.#table.sequence[slot],
      0,
      0,
      payloadBytes,
      status,
    );
    // A READ that is asked for again is executed again, so its payload may become ciphertext in place.
    this.#sender.send(slot, at, payloadBytes, false);
  }

  #onPing(at: number): Verdict {
    const memory = this.#memory;
    const flags = frameFlags(memory, at);
    const isProbe = flags === FLAG_PROBE;
    const fields = Field.FLAGS | Field.OFFSET | (isProbe ? Field.SLOT : 0);
    if ((flags & ~FLAG_PROBE) !== 0 || !hasOnly(memory, at, fields)) return this.#fail(ProtocolError.FIELD);
    const slot = frameSlot(memory, at);
    const sequence = frameSequence(memory, at);
    const status = isProbe ? this.#probe(slot, sequence) : 0;
    this.#sendControl(FrameType.PING | REPLY, flags, slot, sequence, frameOffset(memory, at), status);
    return Verdict.NEXT;
  }

  #probe(slot: number, sequence: number): number {
    const table = this.#table;
    if (slot >= table.depth || table.sequence[slot] !== sequence) return ProbeState.UNKNOWN;
    if (table.state[slot] === SlotState.EMPTY) return ProbeState.UNKNOWN;
    return table.state[slot] === SlotState.EXECUTING ? ProbeState.EXECUTING : ProbeState.DONE;
  }

  #onPong(at: number): Verdict {
    const error = this.#ping.answered(this.#memory, at);
    return error === ProtocolError.NONE ? Verdict.NEXT : this.#fail(error);
  }

  #onClose(at: number): Verdict {
    if (this.#isClosing) return this.#fail(ProtocolError.PHASE);
    if (!hasOnly(this.#memory, at, 0)) return this.#fail(ProtocolError.FIELD);
    this.#isClosing = true;
    this.#host.closeSession();
    return Verdict.NEXT;
  }

  /** Sends a frame that belongs to no slot. */
  #sendControl(type: number, flags: number, slot: number, sequence: number, offset: number, status: number): void {
    assert(this.#codec !== null, "the lane is connected");
    const at = this.#controlAt + (this.#controlFrames++ % CONTROL_FRAMES) * CONTROL_STRIDE_BYTES;
    writeHeader(this.#memory, at, type, flags, slot, this.#lane, sequence, offset, 0, 0, status);
    this.#sender.send(NO_SLOT, at, 0, false);
  }

  #fail(error: number): Verdict {
    this.error = error;
    return Verdict.CLOSE;
  }
}
