/**
 * An exporter without sockets, threads and disks: its real doors and lanes, driven turn by turn.
 *
 * @module
 */
import { encodeGrant, type ExportShape, type JoinRequest, type OpenRequest } from "../../protocol/grant.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType } from "../../protocol/wire.ts";
import { BLOCK_BYTES, DEPTH, DISK_BYTES, type Ground, MAX_PAYLOAD } from "./ground.ts";
import { Line } from "./stream.ts";
import { Visitor } from "./visitor.ts";
import { WorldLane } from "./world_lane.ts";

export const EXPORT_NAME = "disk";
/** How long a session stays without a lane: longer than anybody on the way can hold up its client. */
export const LEASE_MS = 60_000;
const LANES = 2;
/** What the disk is like. */
export const SHAPE: ExportShape = {
  size: DISK_BYTES,
  logicalBlock: BLOCK_BYTES,
  physicalBlock: BLOCK_BYTES,
  optimalIo: 4096,
  discardGranularity: BLOCK_BYTES,
};
/** DISCARD, WRITE_ZEROES, FAST_ZERO, BLOCK_STATUS, CACHE, shared: everybody may write. */
export const FEATURES = 2 | 4 | 8 | 16 | 32 | 64;
export const IDENTITIES = { instance: fill16(1), durability: fill16(2), storage: fill16(3), writeEpoch: 7 };

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
export interface Session {
  readonly id: string;
  readonly keyId: string;
  readonly access: number;
  readonly lanes: Map<number, WorldLane>;
  isClosing: boolean;
  isEnded: boolean;
  /** Since when it has had no connection, in ms; Infinity while it has one. */
  alone: number;
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
  /** Clients that have come as far as the handshake. */
  handshakes = 0;
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
    const id = request.session.toHex();
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
    const session = this.sessions.get(request.session.toHex());
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

function fill16(value: number): Uint8Array {
  return new Uint8Array(16).fill(value);
}
