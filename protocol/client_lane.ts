/**
 * The client's side of a lane: requests go out in slots, replies come back in any order (SPEC.md, sections 5 and 7). A
 * lane outlives its connections: what awaits its reply when one is lost is sent again on the next. Where the exporter has
 * no slot table of it any more (it was joined fresh, or the session opened at another instance) another lane begins.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { ClientPing, type Liveness } from "./client_ping.ts";
import { type FrameCodec, MORE } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import { Field, hasOnly } from "./control_frame.ts";
import { ProtocolError } from "./error.ts";
import { CONTROL_FRAMES, FrameSender, type FrameSenderHost, NO_SLOT, type TransmitRoom } from "./frame_sender.ts";
import { DEPTH_MAX, LANES_MAX, PAYLOAD_BYTES_MAX } from "./limits.ts";
import { EXTENT_BYTES, ExtentFlag, Operation } from "./request.ts";
import { errnoOfStatus, Status } from "./status.ts";
import { TurnBudget } from "./turn_budget.ts";
import {
  frameFlags,
  frameLane,
  frameOffset,
  framePayloadBytes,
  frameSequence,
  frameSlot,
  frameStatus,
  FrameType,
  frameType,
  HEADER_BYTES,
  HeaderAt,
  isZero64,
  PREFIX_BYTES_MAX,
  readUint64,
  REPLY,
  writeHeader,
  writeRange,
} from "./wire.ts";

/** Bytes of the arena for a lane's frames without a slot. */
export const CLIENT_LANE_CONTROL_BYTES = CONTROL_FRAMES * PREFIX_BYTES_MAX;

/** What a lane was granted, and where its memory is. */
export interface ClientLaneOptions extends Liveness {
  /** Its number in the session. */
  readonly lane: number;
  /** How many slots it has. */
  readonly depth: number;
  /** The longest READ or WRITE, in bytes. */
  readonly maxPayload: number;
  /** Arena offset of {@link CLIENT_LANE_CONTROL_BYTES}. */
  readonly controlAt: number;
  /** Bytes of READs and WRITEs that may await their reply; without it as many as all slots can carry. */
  readonly payloadBytes?: number;
  /** In bytes; what BLOCK_STATUS describes is at least one. Without it 1. */
  readonly logicalBlock?: number;
}

/** Whom a {@link ClientLane} tells what came. From within each call the next request may be made. */
export interface ClientLaneHost extends FrameSenderHost {
  /**
   * The request in the slot has ended, and the slot is free.
   *
   * @param status 0 or a negative errno
   * @param payloadBytes what a READ or BLOCK_STATUS put into its place; else 0
   */
  completed(laneSlot: number, status: number, payloadBytes: number): void;
  /** The export has another size now, in bytes. */
  resized(size: number): void;
  /** The exporter is ending: new requests are refused. */
  shuttingDown(): void;
  /** Another session took over. This one is over, and its connection ends. */
  fenced(): void;
  /** CLOSE is answered: the session is gone, and its connection ends. */
  closed(): void;
  /** What became of the slot's request, a `ProbeState`; asked for by `probe`. */
  probed?(laneSlot: number, state: number): void;
}

/** Free; waiting to be sent on the next connection; sent on the present one. */
const SlotState = { FREE: 0, UNSENT: 1, SENT: 2 } as const;

/**
 * One lane of a session.
 *
 * @example
 * ```ts
 * lane.connect(codec, now); // on the connection that OPEN or JOIN was granted on
 * stream.start(lane);
 * lane.request(0, payloadAt, Operation.READ, Float64Array.of(0, 4096), 0); // host.completed(0, 0, 4096) comes later
 * ```
 */
export class ClientLane implements StreamConsumer {
  payloadAt = -1;
  payloadBytes = 0;
  /** A `ProtocolError` once the lane has answered CLOSE because of one, or `tick` has found the peer dead; else 0. */
  error: number = ProtocolError.NONE;
  /** How many requests await their reply. */
  busy = 0;
  /** Bytes that READs and WRITEs may still ask for before one of them is answered. */
  creditBytes: number;
  /** Its number in the session. */
  readonly lane: number;
  /** How many slots it has. */
  readonly depth: number;
  readonly #memory: Memory;
  readonly #host: ClientLaneHost;
  readonly #maxPayload: number;
  readonly #logicalBlock: number;
  readonly #ping: ClientPing;
  readonly #controlAt: number;
  #controlNext = 0;
  #codec: FrameCodec | null = null;
  readonly #sender: FrameSender;
  readonly #budget = new TurnBudget();
  #isClosing = false;

  readonly #state: Uint8Array;
  readonly #sequence: Uint32Array;
  readonly #operation: Uint8Array;
  readonly #flags: Uint8Array;
  readonly #offset: Float64Array;
  readonly #length: Float64Array;
  readonly #payloadAt: Float64Array;
  /** The slot whose payload is being received. */
  #slot = -1;

  constructor(memory: Memory, options: ClientLaneOptions, host: ClientLaneHost) {
    assert(options.depth >= 1 && options.depth <= DEPTH_MAX, "the depth is within the limits");
    assert(options.lane >= 0 && options.lane < LANES_MAX, "the lane is within the limits");
    assert(options.maxPayload >= 1 && options.maxPayload <= PAYLOAD_BYTES_MAX, "the payload is within the limits");
    this.#memory = memory;
    this.#host = host;
    this.lane = options.lane;
    this.depth = options.depth;
    this.creditBytes = options.payloadBytes ?? options.depth * options.maxPayload;
    this.#maxPayload = options.maxPayload;
    this.#logicalBlock = options.logicalBlock ?? 1;
    this.#ping = new ClientPing(
      options.depth,
      options,
      (type, flags, slot, sequence, offset) => this.#control(type, flags, slot, sequence, offset),
    );
    this.#sender = new FrameSender(memory, options.depth, host);
    this.#controlAt = options.controlAt;
    this.#state = new Uint8Array(options.depth);
    this.#sequence = new Uint32Array(options.depth);
    this.#operation = new Uint8Array(options.depth);
    this.#flags = new Uint8Array(options.depth);
    this.#offset = new Float64Array(options.depth);
    this.#length = new Float64Array(options.depth);
    this.#payloadAt = new Float64Array(options.depth);
  }

  /** Bytes of the next header: a frame's prefix. Only while connected. */
  get headerBytes(): number {
    return this.#codec === null ? HEADER_BYTES : this.#codec.prefixBytes;
  }

  /** Whether there is a connection. */
  get isConnected(): boolean {
    return this.#codec !== null;
  }

  /**
   * Begins on a connection that was granted. What is busy from an earlier one waits for `resend`.
   *
   * @param codec goes on where the door ended; the lane closes it
   * @param now milliseconds on any clock that does not jump
   * @param room for what is sealed, where the codec encrypts: a WRITE's plaintext is kept until its reply
   */
  connect(codec: FrameCodec, now: number, room: TransmitRoom | null = null): void {
    assert(this.#codec === null, "the connection before is gone");
    assert(room !== null || !codec.encrypts, "ciphertext has its own room");
    this.#codec = codec;
    this.#sender.connect(codec, room);
    this.#budget.reset();
    this.#ping.reset(now);
    this.#isClosing = false;
    this.error = ProtocolError.NONE;
  }

  /** The connection is gone, and nothing of it is under way in the kernel. What is busy stays so. */
  disconnect(): void {
    this.#sender.disconnect();
    this.#codec?.close();
    this.#codec = null;
    this.#slot = -1;
    for (let i = 0; i < this.depth; i++) if (this.#state[i] === SlotState.SENT) this.#state[i] = SlotState.UNSENT;
  }

  /** Goes on with what waits to be sent; in a turn after `host.again`. */
  run(): void {
    if (this.#codec !== null) this.#sender.run();
  }

  /** What `host.transmit` was told to report is sent. */
  sent(): void {
    this.#sender.sent();
  }

  /** Whether the slot has a request that awaits its reply. */
  isBusy(laneSlot: number): boolean {
    return this.#state[laneSlot] !== SlotState.FREE;
  }

  /** Whether the slot has a request that is not sent on the present connection: `resend` is due. */
  isUnsent(laneSlot: number): boolean {
    return this.#state[laneSlot] === SlotState.UNSENT;
  }

  /**
   * A new request, sent at once, or by `resend` on the next connection when there is none.
   *
   * @param laneSlot a free slot
   * @param payloadAt arena offset of its data, to be left alone until it completes; the frame's prefix (up to 112 bytes)
   * is written right before it
   * @param operation an `Operation`
   * @param range offset and length in bytes, multiples of the logical block; of a FLUSH both 0. A READ's or WRITE's length
   * is within the maximum payload and {@link creditBytes}. Only read during the call
   * @param flags `RequestFlag` set
   */
  request(laneSlot: number, payloadAt: number, operation: number, range: Float64Array, flags: number): void {
    assert(this.#state[laneSlot] === SlotState.FREE, "the slot exists and is free");
    assert(operation >= Operation.READ && operation <= Operation.BLOCK_STATUS, "there is such an operation");
    if (operation === Operation.READ || operation === Operation.WRITE) {
      const length = range[1];
      assert(length >= 1 && length <= this.#maxPayload, "a READ or WRITE is within the maximum payload");
      assert(length <= this.creditBytes, "the request is within the credit");
      this.creditBytes -= length;
    }
    this.#sequence[laneSlot]++;
    this.#operation[laneSlot] = operation;
    this.#flags[laneSlot] = flags;
    this.#offset[laneSlot] = range[0];
    this.#length[laneSlot] = range[1];
    this.#payloadAt[laneSlot] = payloadAt;
    this.#state[laneSlot] = SlotState.UNSENT;
    this.busy++;
    if (this.#codec !== null && !this.#isClosing) this.resend(laneSlot);
  }

  /** Sends a busy slot's request, with its sequence as it is; once on each connection. */
  resend(laneSlot: number): void {
    const codec = this.#codec;
    assert(codec !== null && !this.#isClosing, "there is a connection that takes requests");
    assert(this.#state[laneSlot] === SlotState.UNSENT, "the request is not sent on this connection yet");
    const operation = this.#operation[laneSlot];
    const payloadBytes = operation === Operation.WRITE ? this.#length[laneSlot] : 0;
    const at = this.#payloadAt[laneSlot] - codec.prefixBytes;
    const sequence = this.#sequence[laneSlot];
    const flags = this.#flags[laneSlot];
    writeHeader(this.#memory, at, operation, flags, laneSlot, this.lane, sequence, 0, 0, payloadBytes, 0);
    writeRange(this.#memory, at, this.#offset, this.#length, laneSlot);
    this.#state[laneSlot] = SlotState.SENT;
    this.#sender.send(laneSlot, at, payloadBytes, true);
  }

  /** Asks what became of a request that was sent on this connection; the answer is `host.probed`. */
  probe(laneSlot: number): void {
    assert(this.#codec !== null, "there is a connection");
    assert(this.#state[laneSlot] === SlotState.SENT, "the request was sent on this connection");
    this.#ping.probe(laneSlot, this.#sequence);
  }

  /** Ends the session. No request may follow; the answer, after all that executes, is `host.closed`. */
  close(): void {
    assert(this.#codec !== null && !this.#isClosing, "CLOSE is sent once, on a connection");
    this.#isClosing = true;
    this.#control(FrameType.CLOSE, 0, 0, 0, 0);
  }

  /** Bytes have arrived, or the kernel has taken bytes to send: the peer is alive. */
  heard(now: number): void {
    this.#ping.heard(now);
  }

  /**
   * Pings an exporter that has been silent, and finds a dead one: then {@link error} is set and the connection is to be
   * closed.
   *
   * @returns in how many milliseconds it is to be called again, at the latest; Infinity: not on this connection
   */
  tick(now: number): number {
    if (this.#codec === null || this.error !== ProtocolError.NONE) return Infinity;
    const nextMs = this.#ping.tick(now, this.#sequence);
    if (nextMs > 0) return nextMs;
    this.error = ProtocolError.PEER_DEAD;
    return Infinity;
  }

  onHeader(at: number): Verdict {
    const codec = this.#codec;
    assert(codec !== null, "there is a connection");
    // All reasons to wait come before the header is opened, which can be done only once.
    if (this.#sender.isCongested || !this.#mayOpen(codec.prefixBytes)) return Verdict.WAIT;
    const error = codec.openPrefix(at);
    if (error !== ProtocolError.NONE) return this.#fail(error);
    if (frameLane(this.#memory, at) !== this.lane) return this.#fail(ProtocolError.LANE);
    const type = frameType(this.#memory, at);
    const operation = type - REPLY;
    if (operation >= Operation.READ && operation <= Operation.BLOCK_STATUS) return this.#onReply(at, operation);
    return this.#onControl(at, type);
  }

  onPayload(): Verdict {
    const codec = this.#codec;
    const slot = this.#slot;
    assert(codec !== null && slot >= 0, "a payload is due");
    let error: number = MORE;
    while (error === MORE) {
      if (!this.#mayOpen(codec.openPieceBytes(this.payloadBytes))) return Verdict.WAIT;
      error = codec.openPayload(this.payloadAt, this.payloadBytes);
    }
    this.#slot = -1;
    if (error !== ProtocolError.NONE) return this.#fail(error);
    if (this.#operation[slot] === Operation.BLOCK_STATUS && !this.#areExtents(slot)) {
      return this.#fail(ProtocolError.EXTENTS);
    }
    this.#complete(slot, 0, this.payloadBytes);
    return Verdict.NEXT;
  }

  /** Whether the turn has time to open so many bytes; the stream is resumed in a later one otherwise. */
  #mayOpen(bytes: number): boolean {
    if (this.#budget.spend(this.#host.turn, bytes, this.#codec!.turnBytes)) return true;
    this.#host.again();
    return false;
  }

  #onReply(at: number, operation: number): Verdict {
    const memory = this.#memory;
    const slot = frameSlot(memory, at);
    if (slot >= this.depth) return this.#fail(ProtocolError.SLOT);
    // What waits to be sealed cannot have been answered.
    const isAsked = this.#state[slot] === SlotState.SENT && !this.#sender.holds(slot);
    if (!isAsked || this.#operation[slot] !== operation) {
      return this.#fail(ProtocolError.UNEXPECTED_REPLY);
    }
    if (frameSequence(memory, at) !== this.#sequence[slot]) return this.#fail(ProtocolError.SEQUENCE);
    if (
      frameFlags(memory, at) !== 0 || !isZero64(memory.view, at + HeaderAt.OFFSET) ||
      !isZero64(memory.view, at + HeaderAt.LENGTH)
    ) return this.#fail(ProtocolError.FIELD);
    const status = frameStatus(memory, at);
    const payloadBytes = framePayloadBytes(memory, at);
    if (!this.#isPayloadOf(slot, status, payloadBytes)) return this.#fail(ProtocolError.PAYLOAD_BYTES);
    if (payloadBytes > 0) {
      this.#slot = slot;
      this.payloadAt = this.#payloadAt[slot];
      this.payloadBytes = payloadBytes;
      return Verdict.PAYLOAD;
    }
    this.#complete(slot, status, 0);
    return Verdict.NEXT;
  }

  /** Whether a reply with this status may have so much payload. */
  #isPayloadOf(slot: number, status: number, payloadBytes: number): boolean {
    if (status === Status.OK) {
      if (this.#operation[slot] === Operation.READ) return payloadBytes === this.#length[slot];
      if (this.#operation[slot] === Operation.BLOCK_STATUS) {
        return payloadBytes >= EXTENT_BYTES && payloadBytes % EXTENT_BYTES === 0 && payloadBytes <= this.#maxPayload;
      }
    }
    return payloadBytes === 0;
  }

  /** Whether the payload that has arrived describes the range that the slot's BLOCK_STATUS asked about. */
  #areExtents(slot: number): boolean {
    const view = this.#memory.view;
    const end = this.payloadAt + this.payloadBytes;
    let sum = 0;
    for (let at = this.payloadAt; at < end; at += EXTENT_BYTES) {
      const bytes = readUint64(view, at);
      // Below 2^53 each, and cut off at the request's length, so that the sum stays exact.
      if (bytes < 1 || bytes > this.#length[slot] - sum) return false;
      if ((view.getUint32(at + 8, true) & ~(ExtentFlag.HOLE | ExtentFlag.ZERO)) !== 0) return false;
      if (view.getUint32(at + 12, true) !== 0) return false;
      sum += bytes;
    }
    return sum >= this.#logicalBlock;
  }

  #complete(slot: number, status: number, payloadBytes: number): void {
    const operation = this.#operation[slot];
    const isMutation = operation === Operation.WRITE || operation === Operation.DISCARD ||
      operation === Operation.WRITE_ZEROES;
    if (operation === Operation.READ || operation === Operation.WRITE) this.creditBytes += this.#length[slot];
    this.#state[slot] = SlotState.FREE;
    this.busy--;
    // Last, since the host may use the slot again at once.
    this.#host.completed(slot, errnoOfStatus(status, isMutation), payloadBytes);
  }

  #onControl(at: number, type: number): Verdict {
    switch (type) {
      case FrameType.PING:
        if (!hasOnly(this.#memory, at, Field.OFFSET)) return this.#fail(ProtocolError.FIELD);
        this.#control(FrameType.PING | REPLY, 0, 0, 0, frameOffset(this.#memory, at));
        return Verdict.NEXT;
      case FrameType.PING | REPLY:
        return this.#onPong(at);
      case FrameType.RESIZED:
        if (!hasOnly(this.#memory, at, Field.OFFSET)) return this.#fail(ProtocolError.FIELD);
        this.#host.resized(frameOffset(this.#memory, at));
        return Verdict.NEXT;
      case FrameType.SHUTTING_DOWN:
        if (!hasOnly(this.#memory, at, 0)) return this.#fail(ProtocolError.FIELD);
        this.#host.shuttingDown();
        return Verdict.NEXT;
      case FrameType.FENCED:
        if (!hasOnly(this.#memory, at, 0)) return this.#fail(ProtocolError.FIELD);
        this.#host.fenced();
        return Verdict.CLOSE;
      case FrameType.CLOSE | REPLY:
        if (!this.#isClosing) return this.#fail(ProtocolError.UNEXPECTED_REPLY);
        if (!hasOnly(this.#memory, at, 0)) return this.#fail(ProtocolError.FIELD);
        this.#host.closed();
        return Verdict.CLOSE;
      case FrameType.FENCING:
      case FrameType.LIST | REPLY:
      case FrameType.DESCRIBE | REPLY:
      case FrameType.OPEN | REPLY:
      case FrameType.JOIN | REPLY:
        return this.#fail(ProtocolError.PHASE);
      default:
        return this.#fail(ProtocolError.TYPE);
    }
  }

  #onPong(at: number): Verdict {
    const ping = this.#ping;
    const error = ping.answered(this.#memory, at);
    if (error !== ProtocolError.NONE) return this.#fail(error);
    const slot = ping.answeredSlot;
    if (ping.isProbeWanted) ping.next(this.#sequence);
    // The reply may have come meanwhile: then there is nothing more to tell.
    if (slot >= 0 && this.#state[slot] === SlotState.SENT && this.#sequence[slot] === ping.answeredSequence) {
      this.#host.probed?.(slot, ping.probeState);
    }
    return Verdict.NEXT;
  }

  /** Sends a frame without payload from the control ring. */
  #control(type: number, flags: number, slot: number, sequence: number, offset: number): void {
    assert(this.#codec !== null, "there is a connection");
    const at = this.#controlAt + this.#controlNext * PREFIX_BYTES_MAX;
    this.#controlNext = (this.#controlNext + 1) % CONTROL_FRAMES;
    writeHeader(this.#memory, at, type, flags, slot, this.lane, sequence, offset, 0, 0, 0);
    this.#sender.send(NO_SLOT, at, 0, false);
  }

  #fail(error: number): Verdict {
    this.error = error;
    return Verdict.CLOSE;
  }
}
