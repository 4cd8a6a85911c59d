/**
 * The exporter's door: accepts connections, has them say hello, decides about sessions, and hands sockets to the
 * data-path Worker. Runs on a thread of its own, so that no stranger ever costs an I/O anything.
 *
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import { Listener } from "../engine/listener.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { close } from "../ffi/libc.ts";
import { formatSocketAddress } from "../ffi/sockaddr.ts";
import { peerAddress, setNoDelay } from "../ffi/socket.ts";
import { Access, encodeGrant, type JoinRequest, type OpenRequest } from "../protocol/grant.ts";
import { DEPTH_MAX, PAYLOAD_BYTES_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { FrameType } from "../protocol/wire.ts";
import { type DoorInit, type DoorStatus, nbdSession, type ToData, type ToDoor } from "./messages.ts";
import { type OpenDecision, type Refusal, type RegisteredExport, Registry, type Session } from "./registry.ts";
import { LANES_GRANTED } from "./registry.ts";
import { type DiskRecord, newRecord, type StateDirectory } from "./state.ts";
import { Visitor } from "./visitor.ts";

/** Connections at the door at once; each holds one slot. */
export const VISITORS_MAX = 64;
/** Entries in one answer to LIST: 200 of the longest names fit its 64 KiB. */
const LIST_ENTRIES = 200;
/** Slots of a lane when the client has no wish. */
const DEPTH_DEFAULT = 128;

/** How often the door looks at the clock: a time ends at most so much late. One timer serves all, because a timer for
 * each connection would let strangers use them up. */
const WATCH_MS = 200;

/** What the door tells the world about. */
export interface DoorOutput {
  log(level: "info" | "warning", text: string): void;
  say(message: ToData): void;
}

/** The door of one exporter. */
export class Door implements TimerHandler {
  readonly #engine: Engine;
  readonly #output: DoorOutput;
  readonly #digests: readonly number[];
  readonly #state: StateDirectory;
  readonly #exports: RegisteredExport[];
  readonly #registry: Registry;
  readonly #listener: Listener;
  readonly #visitors = new Set<Visitor>();
  /** Those that wait for a lane, by the token of their wish. */
  readonly #preparing = new Map<number, Visitor>();
  /** Sessions without a lane, and until when they stay so; in ms. */
  readonly #leases = new Map<Session, number>();
  #isWatching = false;
  /** What waits until a session has ended, by its key. */
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
    for (const visitor of this.#visitors) visitor.dismiss();
  }

  /** A message from the data-path Worker. */
  hear(message: ToDoor): void {
    switch (message.say) {
      case "prepared":
        return this.#prepared(message.token, message.depth, message.maxPayload);
      case "unprepared":
        return this.#unprepared(message.token, message.status, message.text);
      case "fencing":
        return this.#preparing.get(message.token)?.fencing(message.executing);
      case "lost":
        return this.#lost(message.session, message.lane, message.generation);
      case "ending":
        return this.#ending(message.session, message.executing);
      case "closed":
        this.#ended(message.session);
        return this.#output.say({ say: "release", session: message.session });
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
    if (decision.kind === "end first") visitor.waitsFor = decision.session;
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
    // One that still waits for this lane has a lower generation, and would wait for ever.
    const text = "The lane was joined with a higher generation";
    this.#refuseWaiting(decision.session, request.lane, Status.OLD_GENERATION, text);
    decision.session.lanes.set(request.lane, { generation: request.generation, connected: true });
    this.#leases.delete(decision.session);
    visitor.begin(decision.session, FrameType.JOIN, request.lane, request.generation);
    this.#prepare(visitor, request.depth, request.maxPayload, request.fresh);
  }

  /** @ignore by {@link Visitor}: it has gone, perhaps with a lane that was being prepared. */
  left(visitor: Visitor): void {
    this.#visitors.delete(visitor);
    this.#preparing.delete(visitor.token);
    if (visitor.session !== null) this.#lost(visitor.session.key, visitor.lane, visitor.generation);
  }

  /** @ignore by {@link Visitor}: its socket is free to be handed over. */
  connect(visitor: Visitor, fd: number): void {
    this.#visitors.delete(visitor);
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
      session: session.key,
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
    const visitor = new Visitor(this, this.#engine, address, this.#digests);
    const stream = this.#engine.streams.open(fd, visitor);
    if (stream === null) {
      close(fd);
      return;
    }
    this.#visitors.add(visitor);
    this.#watch();
    visitor.start(stream);
  }

  #prepare(visitor: Visitor, depth: number | null, maxPayload: number | null, fresh: boolean): void {
    const session = visitor.session!;
    visitor.token = this.#nextToken++;
    this.#preparing.set(visitor.token, visitor);
    this.#output.say({
      say: "prepare",
      token: visitor.token,
      session: session.key,
      export: session.export.index,
      readOnly: session.access !== Access.READ_WRITE,
      lane: visitor.lane,
      fresh,
      depth: Math.min(Math.max(depth ?? DEPTH_DEFAULT, 1), DEPTH_MAX),
      maxPayload: Math.min(maxPayload ?? PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX),
    });
  }

  #prepared(token: number, depth: number, maxPayload: number): void {
    const visitor = this.#preparing.get(token);
    this.#preparing.delete(token);
    visitor?.prepared(depth, maxPayload);
  }

  #unprepared(token: number, status: number, text: string): void {
    const visitor = this.#preparing.get(token);
    if (visitor === undefined) return;
    const { session, lane, generation } = visitor;
    this.#withdraw(visitor, status, text);
    this.#lost(session!.key, lane, generation);
  }

  /** Refuses a visitor the lane that it was promised. */
  #withdraw(visitor: Visitor, status: number, text: string): void {
    this.#preparing.delete(visitor.token);
    visitor.session = null;
    visitor.refuse({ kind: "refused", status, text, current: null });
  }

  /** Refuses those that still wait for a lane of the session; -1: for any. */
  #refuseWaiting(session: Session, lane: number, status: number, text: string): void {
    for (const visitor of this.#visitors) {
      if (visitor.session === session && (lane < 0 || visitor.lane === lane)) this.#withdraw(visitor, status, text);
    }
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
    const waiting = this.#afterEnd.get(session.key) ?? [];
    waiting.push(then);
    this.#afterEnd.set(session.key, waiting);
    if (session.ending) return;
    session.ending = true;
    this.#leases.delete(session);
    if (fenced) {
      this.#output.log("warning", `"${session.export.name}" is taken from ${session.holder} at ${session.address}`);
    }
    this.#output.say({ say: "end", session: session.key, fenced });
  }

  #ending(key: string, executing: number): void {
    for (const visitor of this.#visitors) if (visitor.waitsFor?.key === key) visitor.fencing(executing);
  }

  #ended(key: string): void {
    const session = this.#registry.findKey(key);
    if (session !== null) {
      this.#registry.end(session);
      this.#leases.delete(session);
      this.#refuseWaiting(session, -1, Status.NO_SESSION, "The session has ended");
      this.#output.log("info", `${session.holder} at ${session.address} left "${session.export.name}"`);
    }
    const waiting = this.#afterEnd.get(key) ?? [];
    this.#afterEnd.delete(key);
    for (const then of waiting) then();
  }

  #lost(key: string, laneNumber: number, generation: number): void {
    const session = this.#registry.findKey(key);
    const lane = session?.lanes.get(laneNumber);
    if (session === null || lane === undefined || lane.generation !== generation) return;
    lane.connected = false;
    if (session.ending || [...session.lanes.values()].some((other) => other.connected)) return;
    if (session.leaseMs === 0) return this.#end(session, false, () => {});
    this.#output.log(
      "warning",
      `${session.holder} at ${session.address} lost its connection to "${session.export.name}"`,
    );
    this.#leases.set(session, this.#engine.now + session.leaseMs);
    this.#watch();
  }

  /** Looks after visitors and leases, as long as there are any. */
  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    this.#engine.timers.schedule(this, 0, this.#engine.now + WATCH_MS);
  }

  /** @ignore by the timer of the watch */
  expire(): void {
    this.#isWatching = false;
    for (const visitor of this.#visitors) visitor.watch();
    for (const [session, deadlineMs] of this.#leases) {
      if (this.#engine.now < deadlineMs) continue;
      this.#leases.delete(session);
      this.#end(session, false, () => {});
    }
    if (this.#visitors.size > 0 || this.#leases.size > 0) this.#watch();
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
