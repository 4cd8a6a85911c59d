/**
 * An exporter without sockets, threads and disks: its real doors and lanes, driven turn by turn. Everything that it has is
 * in pools of a fixed size, so that what is not given back is found out.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "../../../protocol/codec.ts";
import { HEADER_BYTES_MAX } from "../../../protocol/consumer.ts";
import { DOOR_SCRATCH_BYTES, ExporterDoor, type ExporterDoorHost } from "../../../protocol/exporter_door.ts";
import { ExporterLane, type ExporterLaneHost, LANE_CONTROL_BYTES } from "../../../protocol/exporter_lane.ts";
import { Access, encodeGrant, type ExportShape, type JoinRequest, type OpenRequest } from "../../../protocol/grant.ts";
import type { Cryptography, FrameGuard, NoisePrimitives } from "../../../protocol/guard.ts";
import { FENCING_INTERVAL_MS, HANDSHAKE_TIME_MS } from "../../../protocol/limits.ts";
import { Operation, PENDING } from "../../../protocol/request.ts";
import { Status } from "../../../protocol/status.ts";
import { FrameType } from "../../../protocol/wire.ts";
import type { Core } from "../../../wasm/core.ts";
import { Line, Stream } from "./stream.ts";

/** The disk of all sessions, the block of its requests, and what a lane is granted. */
export const DISK_BYTES = 64 * 1024;
export const BLOCK_BYTES = 512;
export const DEPTH = 4;
export const MAX_PAYLOAD = 4096;
export const EXPORT_NAME = "disk";
const LANES = 2;
/** Connections at the door at once, and lanes. */
const VISITORS = 12;
const LANES_IN_ALL = 12;
/** How long a session stays without a lane: longer than anybody on the way can hold up its client. */
export const LEASE_MS = 60_000;
/** Bytes before a slot's payload for its prefix. */
const SLOT_PREFIX_BYTES = 128;
const SHAPE: ExportShape = {
  size: DISK_BYTES,
  logicalBlock: BLOCK_BYTES,
  physicalBlock: BLOCK_BYTES,
  optimalIo: 4096,
  discardGranularity: BLOCK_BYTES,
};
/** DISCARD, WRITE_ZEROES, FAST_ZERO, BLOCK_STATUS, CACHE, shared: everybody may write. */
const FEATURES = 2 | 4 | 8 | 16 | 32 | 64;
const IDENTITIES = { instance: fill16(1), durability: fill16(2), storage: fill16(3), writeEpoch: 7 };
const ALIGNMENT = 64;

/** Whole numbers from 0 below a limit, from a seed. */
export type Below = (limit: number) => number;

/** What an exporter is to be like. */
export interface WorldOptions {
  readonly ciphers: readonly number[];
  readonly digests: readonly number[];
  /** Secrets by the hexadecimal digits of their ids; empty: whoever comes is served. */
  readonly keys: ReadonlyMap<string, Uint8Array>;
}

/** One session. */
interface Session {
  readonly id: string;
  readonly keyId: string;
  readonly access: number;
  readonly lanes: Map<number, WorldLane>;
  isClosing: boolean;
  isEnded: boolean;
  /** Since when it has had no connection, in ms; Infinity while it has one. */
  alone: number;
}

/** Arena offsets that are lent and given back. */
class Pool {
  readonly #all: readonly number[];
  #free: number[] = [];
  constructor(readonly size: number, first: number, stride: number) {
    this.#all = Array.from({ length: size }, (_, i) => first + i * stride);
    this.reset();
  }
  /** As if nothing had been lent. */
  reset(): void {
    this.#free = [...this.#all];
  }
  get isWhole(): boolean {
    return this.#free.length === this.size;
  }
  take(): number | null {
    return this.#free.pop() ?? null;
  }
  giveBack(at: number): void {
    assert.ok(!this.#free.includes(at), "nothing is given back twice");
    this.#free.push(at);
  }
}

/** What all worlds are made of, one after the other: the memory, its cryptography, and the pools. */
export class Ground {
  readonly core: Core;
  readonly cryptography: Cryptography;
  readonly visitors: Pool;
  readonly lanes: Pool;
  /** Guards that are not closed. */
  guards = 0;

  constructor(core: Core, cryptography: Cryptography, noise: NoisePrimitives = cryptography.noise) {
    this.core = core;
    const makeGuard: Cryptography["makeGuard"] = (...args) => this.#counted(cryptography.makeGuard(...args));
    this.cryptography = { ciphers: cryptography.ciphers, noise, makeGuard };
    const visitor = aligned(DOOR_SCRATCH_BYTES) + HEADER_BYTES_MAX;
    const first = aligned(core.freeFrom);
    this.visitors = new Pool(VISITORS, first, aligned(visitor));
    const lane = CODEC_SCRATCH_BYTES + LANE_CONTROL_BYTES + HEADER_BYTES_MAX +
      DEPTH * (SLOT_PREFIX_BYTES + MAX_PAYLOAD);
    const lanesAt = first + VISITORS * aligned(visitor);
    this.lanes = new Pool(LANES_IN_ALL, lanesAt, aligned(lane));
    assert.ok(lanesAt + LANES_IN_ALL * aligned(lane) <= core.bytes.length, "the memory is large enough");
  }

  /** Whether everything has been given back. */
  get isWhole(): boolean {
    return this.visitors.isWhole && this.lanes.isWhole && this.guards === 0;
  }

  /** After a world that failed: the next one must not fail because of it. */
  reset(): void {
    this.visitors.reset();
    this.lanes.reset();
    this.guards = 0;
  }

  #counted(guard: FrameGuard): FrameGuard {
    this.guards++;
    let isOpen = true;
    const close = guard.close.bind(guard);
    guard.close = () => {
      if (isOpen) this.guards--;
      isOpen = false;
      close();
    };
    return guard;
  }
}

/** One exporter. */
export class World {
  readonly ground: Ground;
  readonly options: WorldOptions;
  readonly below: Below;
  readonly disk = new Uint8Array(DISK_BYTES);
  now = 0;
  turnNumber = 0;
  readonly visitors = new Set<Visitor>();
  readonly sessions = new Map<string, Session>();
  readonly lanes = new Set<WorldLane>();
  /** Why connections were ended: how often by each {@link ProtocolError}, 0 without one. */
  readonly errors = new Map<number, number>();
  /** Requests that have reached the disk. */
  executed = 0;
  /** Lanes that go on in the next turn. */
  #due = new Set<WorldLane>();

  constructor(ground: Ground, options: WorldOptions, below: Below) {
    this.ground = ground;
    this.options = options;
    this.below = below;
  }

  /** A client connects; null: there is no room at the door, and it is sent away. */
  connect(): Line | null {
    const at = this.ground.visitors.take();
    if (at === null) return null;
    const visitor = new Visitor(this, new Line(), at);
    this.visitors.add(visitor);
    return visitor.stream.line;
  }

  /** Whether nobody is there any more. */
  get isEmpty(): boolean {
    return this.visitors.size === 0 && this.sessions.size === 0 && this.lanes.size === 0;
  }

  /** Some of what can happen does, and so much time passes. */
  turn(passMs: number, isLazy = true): void {
    this.now += passMs;
    this.turnNumber++;
    const chance = () => !isLazy || this.below(4) > 0;
    const due = this.#due;
    this.#due = new Set();
    for (const lane of due) lane.goOn();
    for (const visitor of [...this.visitors]) {
      if (chance()) visitor.stream.deliver(1 + this.below(isLazy ? 400 : 100_000));
      if (chance()) visitor.stream.flush();
      visitor.watch();
    }
    for (const lane of [...this.lanes]) {
      if (chance()) lane.stream?.deliver(1 + this.below(isLazy ? 3000 : 100_000));
      while (lane.pending.length > 0 && chance()) lane.complete(this.below(lane.pending.length));
      if (chance()) lane.stream?.flush();
      lane.watch();
    }
    for (const session of [...this.sessions.values()]) this.#watch(session);
  }

  /** A connection has ended, and why. */
  count(error: number): void {
    this.errors.set(error, (this.errors.get(error) ?? 0) + 1);
  }

  /** Has a lane go on in the next turn. */
  again(lane: WorldLane): void {
    this.#due.add(lane);
  }

  open(visitor: Visitor, request: OpenRequest): void {
    const id = hexOf(request.session);
    if (request.export !== EXPORT_NAME) return visitor.refuse(Status.NOT_FOUND);
    if (this.sessions.has(id)) return visitor.refuse(Status.SESSION_EXISTS);
    const keyId = visitor.keyId;
    const session: Session = {
      id,
      keyId,
      access: request.access,
      lanes: new Map(),
      isClosing: false,
      isEnded: false,
      alone: this.now,
    };
    const lane = this.#makeLane(session, 0);
    if (lane === null) return visitor.refuse(Status.NO_RESOURCES);
    this.sessions.set(id, session);
    visitor.promise(lane, FrameType.OPEN, 1);
  }

  join(visitor: Visitor, request: JoinRequest): void {
    const session = this.sessions.get(hexOf(request.session));
    if (session === undefined || session.keyId !== visitor.keyId || session.isEnded || session.isClosing) {
      return visitor.refuse(Status.NO_SESSION);
    }
    if (request.lane >= LANES) return visitor.refuse(Status.BAD_REQUEST);
    const lane = session.lanes.get(request.lane) ?? this.#makeLane(session, request.lane);
    if (lane === null) return visitor.refuse(Status.NO_RESOURCES);
    if (request.generation <= lane.generation) return visitor.refuse(Status.OLD_GENERATION);
    for (const other of this.visitors) if (other.lane === lane) other.refuse(Status.OLD_GENERATION);
    lane.generation = request.generation;
    lane.clears ||= request.fresh;
    lane.stream?.close();
    visitor.promise(lane, FrameType.JOIN, request.generation);
  }

  /** What the TLVs of a grant say. */
  grantOf(session: Session): Uint8Array {
    return encodeGrant({
      ...SHAPE,
      access: session.access,
      features: FEATURES,
      identities: IDENTITIES,
      slots: DEPTH,
      maxPayload: MAX_PAYLOAD,
      payloadBytes: DEPTH * MAX_PAYLOAD,
      leaseMs: LEASE_MS,
      lanes: LANES,
    });
  }

  #makeLane(session: Session, number: number): WorldLane | null {
    const at = this.ground.lanes.take();
    if (at === null) return null;
    const lane = new WorldLane(this, session, number, at);
    session.lanes.set(number, lane);
    this.lanes.add(lane);
    return lane;
  }

  /** Ends a session that was closed or that nobody has come back to, and forgets it when nothing of it executes. */
  #watch(session: Session): void {
    const lanes = [...session.lanes.values()];
    const isAwaited = [...this.visitors].some(({ lane }) => lane !== null && lanes.includes(lane));
    if (isAwaited || lanes.some(({ stream }) => stream !== null)) session.alone = Infinity;
    else if (session.alone === Infinity) session.alone = this.now;
    if (this.now - session.alone > LEASE_MS) session.isEnded = true;
    if (!session.isClosing && !session.isEnded) return;
    if (lanes.some(({ machine }) => machine.executing > 0)) return;
    if (session.isClosing && !session.isEnded) {
      session.isEnded = true;
      for (const { machine } of lanes) machine.closed();
    }
    for (const visitor of this.visitors) {
      if (visitor.lane !== null && lanes.includes(visitor.lane)) visitor.refuse(Status.NO_SESSION);
    }
    for (const lane of lanes) lane.finish();
    if (lanes.some(({ stream }) => stream !== null)) return;
    for (const lane of lanes) {
      this.lanes.delete(lane);
      this.#due.delete(lane);
      this.ground.lanes.giveBack(lane.at);
    }
    this.sessions.delete(session.id);
  }
}

/** A connection at the door. */
class Visitor implements ExporterDoorHost {
  readonly machine: ExporterDoor;
  readonly stream: Stream;
  /** The lane that it waits for. */
  lane: WorldLane | null = null;
  readonly #world: World;
  readonly #at: number;
  #answerType = 0;
  #generation = 0;
  #since: number;

  constructor(world: World, line: Line, at: number) {
    const { ground, options } = world;
    const memory = ground.core;
    this.#world = world;
    this.#at = at;
    this.#since = world.now;
    const config = { ciphers: options.ciphers, digests: options.digests, keyRequired: options.keys.size > 0 };
    this.machine = new ExporterDoor(memory, ground.cryptography, at, config, this);
    this.stream = new Stream(line, memory, at + aligned(DOOR_SCRATCH_BYTES), this.machine, () => this.#left());
  }

  get keyId(): string {
    return this.machine.keyId === null ? "" : hexOf(this.machine.keyId);
  }

  transmit(at: number, bytes: number): void {
    this.stream.transmit(at, bytes);
  }
  keyOf(id: Uint8Array): Uint8Array | null {
    return this.#world.options.keys.get(hexOf(id)) ?? null;
  }
  randomBytes(count: number): Uint8Array {
    return Uint8Array.from(
      { length: count },
      (_, i) => i < 32 ? ephemeral(this.#world.below, i) : this.#world.below(256),
    );
  }
  list() {
    this.#since = this.#world.now;
    const entry = { name: EXPORT_NAME, size: DISK_BYTES, access: Access.READ_WRITE, features: FEATURES };
    return { entries: [entry], more: false };
  }
  describe(name: string) {
    this.#since = this.#world.now;
    if (name !== EXPORT_NAME) return null;
    return { ...SHAPE, access: Access.READ_WRITE, features: FEATURES, identities: IDENTITIES, current: null };
  }
  open(request: OpenRequest): void {
    this.#since = this.#world.now;
    this.#world.open(this, request);
  }
  join(request: JoinRequest): void {
    this.#since = this.#world.now;
    this.#world.join(this, request);
  }

  promise(lane: WorldLane, answerType: number, generation: number): void {
    this.lane = lane;
    this.#answerType = answerType;
    this.#generation = generation;
  }

  refuse(status: number): void {
    this.lane = null;
    if (!this.machine.isPending) return;
    this.machine.refuse(status, "not now");
    this.#since = this.#world.now;
    this.stream.resume();
  }

  /** Becomes a lane as soon as it can; says FENCING until then; is sent away when it takes too long. */
  watch(): void {
    if (this.stream.isClosed) return;
    const waitedMs = this.#world.now - this.#since;
    if (this.lane === null || !this.machine.isPending) {
      if (waitedMs >= HANDSHAKE_TIME_MS) this.stream.close();
      return;
    }
    if (this.lane.isIdle && this.stream.isDrained) return this.#become(this.lane);
    if (waitedMs < FENCING_INTERVAL_MS) return;
    this.#since = this.#world.now;
    this.machine.fencing(this.lane.machine.executing);
  }

  #become(lane: WorldLane): void {
    // It did not wait for the answer.
    if (this.stream.hasMore) return this.stream.close();
    this.#world.visitors.delete(this);
    const handoff = this.machine.handoff();
    lane.connect(this.stream, handoff, this.#answerType, this.#generation);
    this.machine.close();
    this.#world.ground.visitors.giveBack(this.#at);
  }

  #left(): void {
    this.#world.count(this.machine.error);
    this.machine.close();
    this.#world.visitors.delete(this);
    this.#world.ground.visitors.giveBack(this.#at);
  }
}

/** A lane and its disk. */
class WorldLane implements ExporterLaneHost {
  readonly machine: ExporterLane;
  stream: Stream | null = null;
  generation = 0;
  /** Its slots are to be cleared before the next connection. */
  clears = false;
  /** What executes. */
  readonly pending: { slot: number; operation: number; offset: number; length: number }[] = [];
  readonly #world: World;
  readonly #session: Session;
  readonly #payloadAt: number[];
  #arrivals = 0;

  constructor(world: World, session: Session, number: number, readonly at: number) {
    this.#world = world;
    this.#session = session;
    const slotsAt = at + CODEC_SCRATCH_BYTES + LANE_CONTROL_BYTES + HEADER_BYTES_MAX;
    const stride = SLOT_PREFIX_BYTES + MAX_PAYLOAD;
    this.#payloadAt = Array.from({ length: DEPTH }, (_, slot) => slotsAt + slot * stride + SLOT_PREFIX_BYTES);
    this.machine = new ExporterLane(world.ground.core, {
      lane: number,
      depth: DEPTH,
      maxPayload: MAX_PAYLOAD,
      payloadAt: this.#payloadAt,
      controlAt: at + CODEC_SCRATCH_BYTES,
      size: DISK_BYTES,
      logicalBlock: BLOCK_BYTES,
      readOnly: session.access !== Access.READ_WRITE,
    }, this);
  }

  get turn(): number {
    return this.#world.turnNumber;
  }
  get isIdle(): boolean {
    return this.stream === null && this.machine.executing === 0;
  }

  again(): void {
    this.#world.again(this);
  }

  /** In the turn after `again`. */
  goOn(): void {
    this.machine.run();
    this.stream?.resume();
  }

  connect(stream: Stream, handoff: ReturnType<ExporterDoor["handoff"]>, answerType: number, generation: number): void {
    const { ground, now } = this.#world;
    if (this.clears) this.machine.clear();
    this.clears = false;
    this.generation = generation;
    this.stream = stream;
    // The door's own area is another visitor's from now on.
    stream.handOver(this.at + CODEC_SCRATCH_BYTES + LANE_CONTROL_BYTES, this.machine, () => this.#lost());
    const codec = new FrameCodec(ground.core, ground.cryptography, this.at, handoff);
    this.machine.connect(codec, answerType, generation, this.#world.grantOf(this.#session), now);
  }

  transmit(at: number, bytes: number): void {
    this.stream!.transmit(at, bytes);
  }

  execute(slot: number, operation: number, range: Float64Array): number {
    const [offset, length] = range;
    this.#world.executed++;
    assert.ok(offset % BLOCK_BYTES === 0 && length % BLOCK_BYTES === 0 && offset + length <= DISK_BYTES);
    const request = { slot, operation, offset, length };
    if (this.#world.below(2) === 0) return this.#carryOut(request);
    this.pending.push(request);
    return PENDING;
  }

  extentBytes(): number {
    return 16;
  }

  closeSession(): void {
    this.#session.isClosing = true;
  }

  /** Something that executes comes to its end. */
  complete(index: number): void {
    const [request] = this.pending.splice(index, 1);
    this.machine.complete(request.slot, this.#carryOut(request));
  }

  /** Nothing more is taken; ends when all is sent. */
  finish(): void {
    if (this.stream === null) return;
    this.machine.finish();
    if (!this.machine.isSending) this.stream.finish();
  }

  /** Drives its pings. */
  watch(): void {
    if (this.stream === null) return;
    if (this.stream.arrivals !== this.#arrivals) this.machine.heard(this.#world.now);
    this.#arrivals = this.stream.arrivals;
    this.machine.tick(this.#world.now);
    if (this.machine.error !== 0) this.stream.close();
  }

  #lost(): void {
    this.#world.count(this.machine.error);
    this.stream = null;
    this.machine.disconnect();
  }

  #carryOut({ slot, operation, offset, length }: { slot: number; operation: number; offset: number; length: number }) {
    const { disk, ground } = this.#world;
    const { bytes, view } = ground.core;
    const payloadAt = this.#payloadAt[slot];
    if (operation === Operation.READ) bytes.set(disk.subarray(offset, offset + length), payloadAt);
    if (operation === Operation.WRITE) disk.set(bytes.subarray(payloadAt, payloadAt + length), offset);
    if (operation === Operation.WRITE_ZEROES) disk.fill(0, offset, offset + length);
    if (operation === Operation.BLOCK_STATUS) {
      view.setBigUint64(payloadAt, BigInt(length), true);
      view.setBigUint64(payloadAt + 8, 0n, true);
    }
    return 0;
  }
}

/** Byte `at` of one of a few private keys: so that their public keys need not be computed each time. */
function ephemeral(below: Below, at: number): number {
  return at === 0 ? 1 + below(4) : at;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function fill16(value: number): Uint8Array {
  return new Uint8Array(16).fill(value);
}

function hexOf(bytes: Uint8Array): string {
  return bytes.toHex();
}
