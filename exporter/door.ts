/**
 * The exporter's door: accepts connections, has them say hello, decides about sessions, and hands sockets to the
 * data-path Worker. Runs on a thread of its own, so that no stranger ever costs an I/O anything.
 *
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import { Listener } from "../engine/listener.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import { close } from "../ffi/libc.ts";
import { formatSocketAddress } from "../ffi/sockaddr.ts";
import { peerAddress, setNoDelay } from "../ffi/socket.ts";
import { protocolErrorText } from "../protocol/error.ts";
import { ExporterDoor } from "../protocol/exporter_door.ts";
import { Access, encodeGrant, type JoinRequest, type OpenRequest } from "../protocol/grant.ts";
import { DEPTH_MAX, FENCING_INTERVAL_MS, HANDSHAKE_TIME_MS, PAYLOAD_BYTES_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { Cipher, FrameType } from "../protocol/wire.ts";
import { type DoorInit, type DoorStatus, nbdSession, type ToData, type ToDoor } from "./messages.ts";
import { type OpenDecision, type Refusal, type RegisteredExport, Registry, type Session } from "./registry.ts";
import { LANES_GRANTED } from "./registry.ts";
import { type DiskRecord, newRecord, type StateDirectory } from "./state.ts";

/** Connections at the door at once; each holds one slot. */
export const VISITORS_MAX = 64;
/** Entries in one answer to LIST: 200 of the longest names fit its 64 KiB. */
const LIST_ENTRIES = 200;
/** Slots of a lane when the client has no wish. */
const DEPTH_DEFAULT = 128;

/** What the door tells the world about. */
export interface DoorOutput {
  log(level: "info" | "warning", text: string): void;
  say(message: ToData): void;
}

/** The door of one exporter. */
export class Door {
  readonly #engine: Engine;
  readonly #output: DoorOutput;
  readonly #digests: readonly number[];
  readonly #state: StateDirectory;
  readonly #exports: RegisteredExport[];
  readonly #registry: Registry;
  readonly #listener: Listener;
  readonly #visitors = new Map<number, Visitor>();
  /** What waits until a session has ended. */
  readonly #afterEnd = new Map<string, (() => void)[]>();
  #nextToken = 1;

  /** @throws {Error} when a record cannot be read or made */
  constructor(engine: Engine, init: DoorInit, state: StateDirectory, instance: Uint8Array, output: DoorOutput) {
    this.#engine = engine;
    this.#output = output;
    this.#digests = init.digests;
    this.#state = state;
    this.#exports = init.exports.map((one, index) => ({
      index,
      name: one.name,
      shape: one.shape,
      features: one.features,
      durability: Uint8Array.fromHex(one.durability),
      record: one.fingerprint === "" ? newRecord("", Date.now()) : state.load(one.fingerprint, Date.now()),
    }));
    this.#registry = new Registry(instance, this.#exports);
    this.#listener = new Listener(engine, init.listenFd, (fd) => this.#accept(fd));
  }

  /** Who uses the exports. */
  status(): DoorStatus {
    return this.#exports.map((one) =>
      this.#registry.sessionsOf(one).map(({ holder, address, access }) => ({ holder, address, access }))
    );
  }

  /** Accepts nobody any more, and sends away who is at the door. */
  stop(): void {
    this.#listener.close();
    for (const visitor of this.#visitors.values()) visitor.dismiss();
  }

  /** A message from the data-path Worker. */
  hear(message: ToDoor): void {
    switch (message.say) {
      case "prepared":
        return this.#prepared(message.token, message.depth, message.maxPayload);
      case "unprepared":
        return this.#unprepared(message.token, message.status, message.text);
      case "fencing":
        return this.#visitors.get(message.token)?.fencing(message.executing);
      case "lost":
        return this.#lost(message.session, message.lane, message.generation);
      case "ended":
        return this.#ended(message.session);
      case "nbdOpen":
        return this.#nbdOpen(this.#exports[message.export], message.address);
      case "nbdClosed":
        return this.#ended(nbdSession(message.export));
    }
  }

  /** @ignore by {@link Visitor} */
  list(after: string) {
    return this.#registry.list(after, LIST_ENTRIES);
  }

  /** @ignore by {@link Visitor} */
  describe(name: string) {
    return this.#registry.describe(name);
  }

  /** @ignore by {@link Visitor}: it asked for a session. */
  open(visitor: Visitor, request: OpenRequest): void {
    const decision = this.#registry.open(request, visitor.address);
    this.#decided(decision, () => visitor.isWaiting && this.open(visitor, request), (refusal) => {
      visitor.refuse(refusal);
    }, (session) => {
      session.lanes.set(0, { generation: 1, connected: true });
      visitor.begin(session, FrameType.OPEN, 0, 1);
      this.#prepare(visitor, request.depth, request.maxPayload, true);
    });
  }

  /** @ignore by {@link Visitor}: it asked for a lane. */
  join(visitor: Visitor, request: JoinRequest): void {
    const decision = this.#registry.join(request);
    if (decision.kind === "refused") return visitor.refuse(decision);
    decision.session.lanes.set(request.lane, { generation: request.generation, connected: true });
    visitor.begin(decision.session, FrameType.JOIN, request.lane, request.generation);
    this.#prepare(visitor, request.depth, request.maxPayload, request.fresh);
  }

  /** @ignore by {@link Visitor}: it has gone, perhaps with a lane that was being prepared. */
  left(visitor: Visitor): void {
    this.#visitors.delete(visitor.token);
    if (visitor.session !== null) this.#lost(visitor.session.id, visitor.lane, visitor.generation);
  }

  /** @ignore by {@link Visitor}: its socket is free to be handed over. */
  connect(visitor: Visitor, fd: number): void {
    this.#visitors.delete(visitor.token);
    const session = visitor.session!;
    const one = session.export;
    const grant = encodeGrant({
      ...one.shape,
      access: session.access,
      features: one.features,
      identities: this.#registry.identities(one),
      slots: visitor.depth,
      maxPayload: visitor.maxPayload,
      payloadBytes: visitor.depth * visitor.maxPayload,
      leaseMs: session.leaseMs,
      lanes: LANES_GRANTED,
    });
    this.#output.say({
      say: "connect",
      session: session.id,
      lane: visitor.lane,
      generation: visitor.generation,
      fd,
      handoff: visitor.machine.handoff(),
      answerType: visitor.answerType,
      grant,
    });
    const access = session.access === Access.READ_WRITE ? "read-write" : "read-only";
    if (visitor.answerType === FrameType.OPEN) {
      this.#output.log("info", `${session.holder} at ${session.address} attached "${one.name}" ${access}`);
    }
  }

  /** @ignore by {@link Visitor} */
  log(level: "info" | "warning", text: string): void {
    this.#output.log(level, text);
  }

  #accept(fd: number): void {
    const peer = peerAddress(fd);
    const address = peer === null ? "an unknown address" : formatSocketAddress(peer);
    setNoDelay(fd);
    if (this.#visitors.size >= VISITORS_MAX) {
      close(fd);
      this.#output.log("warning", `Refused ${address}: ${VISITORS_MAX} connections are at the door already`);
      return;
    }
    const token = this.#nextToken++;
    const visitor = new Visitor(this, this.#engine, token, address, this.#digests);
    const stream = this.#engine.streams.open(fd, visitor);
    if (stream === null) {
      close(fd);
      return;
    }
    this.#visitors.set(token, visitor);
    visitor.start(stream);
  }

  #prepare(visitor: Visitor, depth: number | null, maxPayload: number | null, fresh: boolean): void {
    const session = visitor.session!;
    this.#output.say({
      say: "prepare",
      token: visitor.token,
      session: session.id,
      export: session.export.index,
      readOnly: session.access !== Access.READ_WRITE,
      lane: visitor.lane,
      fresh,
      depth: Math.min(Math.max(depth ?? DEPTH_DEFAULT, 1), DEPTH_MAX),
      maxPayload: Math.min(maxPayload ?? PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX),
    });
  }

  #prepared(token: number, depth: number, maxPayload: number): void {
    this.#visitors.get(token)?.prepared(depth, maxPayload);
  }

  #unprepared(token: number, status: number, text: string): void {
    const visitor = this.#visitors.get(token);
    if (visitor === undefined) return;
    const { session, lane, generation } = visitor;
    visitor.session = null;
    visitor.refuse({ kind: "refused", status, text, current: null });
    this.#lost(session!.id, lane, generation);
  }

  /** Carries out what the registry decided. */
  #decided(
    decision: OpenDecision,
    again: () => void,
    refuse: (refusal: Refusal) => void,
    begin: (session: Session) => void,
  ): void {
    if (decision.kind === "refused") return refuse(decision);
    if (decision.kind === "end first") return this.#end(decision.session, true, again);
    const { session, record } = decision;
    try {
      // The write epoch is on stable storage before anybody is told of it.
      if (record !== null && record.fingerprint !== "") this.#state.save(record as DiskRecord);
    } catch (error) {
      this.#output.log("warning", (error as Error).message);
      const text = "The exporter cannot record who writes";
      return refuse({ kind: "refused", status: Status.NO_RESOURCES, text, current: null });
    }
    this.#registry.begin(session, record);
    begin(session);
  }

  /** Ends a session; `then` is called when nothing of it is left. */
  #end(session: Session, fenced: boolean, then: () => void): void {
    const waiting = this.#afterEnd.get(session.id) ?? [];
    waiting.push(then);
    this.#afterEnd.set(session.id, waiting);
    if (session.ending) return;
    session.ending = true;
    if (fenced) {
      this.#output.log("warning", `"${session.export.name}" is taken from ${session.holder} at ${session.address}`);
    }
    this.#output.say({ say: "end", session: session.id, fenced });
  }

  #ended(id: string): void {
    const session = this.#registry.find(id);
    if (session !== null) {
      this.#registry.end(session);
      this.#output.log("info", `${session.holder} at ${session.address} left "${session.export.name}"`);
    }
    const waiting = this.#afterEnd.get(id) ?? [];
    this.#afterEnd.delete(id);
    for (const then of waiting) then();
  }

  #lost(id: string, laneNumber: number, generation: number): void {
    const session = this.#registry.find(id);
    const lane = session?.lanes.get(laneNumber);
    if (session === null || lane === undefined || lane.generation !== generation) return;
    lane.connected = false;
    if (session.ending || [...session.lanes.values()].some((other) => other.connected)) return;
    if (session.leaseMs === 0) return this.#end(session, false, () => {});
    this.#output.log(
      "warning",
      `${session.holder} at ${session.address} lost its connection to "${session.export.name}"`,
    );
    const expire = () => {
      const isLost = lane.generation === generation && !lane.connected;
      if (isLost && this.#registry.find(id) === session) this.#end(session, false, () => {});
    };
    this.#engine.timers.schedule({ expire }, 0, this.#engine.now + session.leaseMs);
  }

  #nbdOpen(one: RegisteredExport, address: string): void {
    const decision = this.#registry.openNbd(one, nbdSession(one.index), address);
    const answer = (refusal: string | null) => {
      this.#output.say({ say: "nbdOpened", export: one.index, refusal });
    };
    this.#decided(
      decision,
      () => this.#nbdOpen(one, address),
      (refusal) => answer(refusal.text),
      (session) => {
        this.#output.log("info", `${session.holder} at ${address} attached "${one.name}"`);
        answer(null);
      },
    );
  }
}

/** One connection at the door. */
export class Visitor implements StreamOwner {
  readonly token: number;
  readonly address: string;
  machine!: ExporterDoor;
  /** The session whose lane it is going to be, once that is decided. */
  session: Session | null = null;
  lane = 0;
  generation = 0;
  answerType = 0;
  depth = 0;
  maxPayload = 0;
  readonly #door: Door;
  readonly #engine: Engine;
  readonly #digests: readonly number[];
  #stream: Stream | null = null;
  #isPrepared = false;
  #executing = 0;
  /** Since when it has been waiting for us or we for it. */
  #sinceMs: number;

  constructor(door: Door, engine: Engine, token: number, address: string, digests: readonly number[]) {
    this.#door = door;
    this.#engine = engine;
    this.token = token;
    this.address = address;
    this.#digests = digests;
    this.#sinceMs = engine.now;
  }

  /** Whether it still waits for the answer to its OPEN or JOIN. */
  get isWaiting(): boolean {
    return this.#stream !== null && this.#stream.isOpen && this.machine.isPending;
  }

  /** Begins to listen to it. */
  start(stream: Stream): void {
    this.#stream = stream;
    const config = { ciphers: [Cipher.NONE], digests: [...this.#digests] };
    this.machine = new ExporterDoor(this.#engine.arena, this.#engine.arena, stream.scratchAt, config, {
      transmit: (at, bytes) => stream.transmit(at, bytes),
      list: (after) => this.#door.list(after),
      describe: (name) => this.#door.describe(name),
      open: (request) => {
        this.#door.open(this, request);
        this.#watch();
      },
      join: (request) => {
        this.#door.join(this, request);
        this.#watch();
      },
    });
    this.#engine.timers.schedule({ expire: () => this.#checkTime() }, 0, this.#engine.now + HANDSHAKE_TIME_MS);
    stream.start(this.machine);
  }

  /** A lane is being prepared for it. */
  begin(session: Session, answerType: number, lane: number, generation: number): void {
    this.session = session;
    this.answerType = answerType;
    this.lane = lane;
    this.generation = generation;
  }

  refuse(refusal: Refusal): void {
    if (!this.isWaiting) return;
    this.#door.log("info", `Refused ${this.address}: ${refusal.text}`);
    this.machine.refuse(refusal.status, refusal.text, refusal.current);
    this.#sinceMs = this.#engine.now;
    this.#stream!.resume();
  }

  fencing(executing: number): void {
    this.#executing = executing;
  }

  prepared(depth: number, maxPayload: number): void {
    this.depth = depth;
    this.maxPayload = maxPayload;
    this.#isPrepared = true;
    this.#handOver();
  }

  /** Ends the connection. */
  dismiss(): void {
    this.#stream?.close();
  }

  onHeard(): void {
    this.#sinceMs = this.#engine.now;
  }

  onSent(): void {}

  onDrained(): void {
    if (this.#isPrepared) this.#handOver();
  }

  onClosed(): void {
    const error = this.machine.error;
    if (error !== 0) this.#door.log("warning", `${this.address} was sent away: ${protocolErrorText(error)}`);
    this.#stream = null;
    this.#door.left(this);
  }

  #handOver(): void {
    if (!this.isWaiting) return;
    const fd = this.#stream!.detach();
    // A FENCING frame is still being sent: again when it is.
    if (fd < 0) return;
    this.#stream = null;
    this.#door.connect(this, fd);
  }

  /** Says FENCING every second while it waits. */
  #watch(): void {
    if (!this.isWaiting) return;
    const tell = () => {
      if (!this.isWaiting || this.#isPrepared) return;
      this.machine.fencing(this.#executing);
      this.#watch();
    };
    this.#engine.timers.schedule({ expire: tell }, 0, this.#engine.now + FENCING_INTERVAL_MS);
  }

  #checkTime(): void {
    if (this.#stream === null) return;
    const now = this.#engine.now;
    if (this.isWaiting) this.#sinceMs = now;
    if (now - this.#sinceMs >= HANDSHAKE_TIME_MS) {
      this.#door.log("info", `${this.address} was sent away: it said nothing for ${HANDSHAKE_TIME_MS / 1000} s`);
      this.#stream.close();
      return;
    }
    const deadline = this.#sinceMs + HANDSHAKE_TIME_MS;
    this.#engine.timers.schedule({ expire: () => this.#checkTime() }, 0, Math.max(deadline, now + 1));
  }
}
