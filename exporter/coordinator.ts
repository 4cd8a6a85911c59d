/**
 * The door's sessions: carries out what the registry decides, and brings together what the data-path Workers say of
 * sessions whose lanes are spread over them. A lane lives in one Worker for as long as its session; lane i lives i
 * Workers behind that of lane 0.
 *
 * @module
 */
import { Access, encodeGrant, type JoinRequest, type OpenRequest } from "../protocol/grant.ts";
import { DEPTH_MAX, PAYLOAD_BYTES_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { FrameType } from "../protocol/wire.ts";
import type { Handoff } from "../protocol/codec.ts";
import { type EndManner, nbdSession, type ToData, type ToDoor } from "./messages.ts";
import type { Peer, Refusal, RegisteredExport, Registry, Session } from "./registry.ts";
import type { DiskRecord, DiskRecords } from "./state.ts";

/** Slots of a lane when the client has no wish. */
const DEPTH_DEFAULT = 128;

/** A connection at the door that asks for a session or a lane. */
export interface Caller extends Peer {
  /** Whether it still waits for the answer to its OPEN or JOIN. */
  readonly isWaiting: boolean;
  /** Of its wish for a lane; the coordinator's. */
  token: number;
  /** The session whose lane it is going to be, once that is decided. */
  session: Session | null;
  lane: number;
  generation: number;
  /** OPEN or JOIN. */
  answerType: number;
  refuse(refusal: Refusal): void;
  /** So many requests still execute before it can be answered. */
  fencing(executing: number): void;
  /** Its lane is made: it is to be handed over, now or later, by {@link Coordinator.connect}. */
  prepared(depth: number, maxPayload: number): void;
}

/** What the coordinator tells the world. */
export interface CoordinatorOutput {
  log(level: "info" | "warning", text: string): void;
  /** @param worker index of the data-path Worker */
  say(worker: number, message: ToData, transfer?: Transferable[]): void;
}

/** A session over the Workers. */
interface Spread {
  /** The Worker of lane 0. */
  readonly first: number;
  /** What each Worker that has a part of it executed when it last said so. */
  readonly executing: Map<number, number>;
  /** Its client closes it: Workers whose part still executes. */
  closing: Set<number> | null;
  /** Whoever waits until nothing of it is left, and what is to be done then. */
  readonly afterEnd: { readonly caller: Caller | null; readonly then: () => void }[];
  /** Its client was told that it has it. */
  isAttached: boolean;
}

/** All sessions of one exporter, over all its data-path Workers. */
export class Coordinator {
  readonly #registry: Registry;
  readonly #state: Pick<DiskRecords, "save">;
  readonly #workers: number;
  readonly #now: () => number;
  readonly #output: CoordinatorOutput;
  readonly #spreads = new Map<Session, Spread>();
  /** Who was promised a lane and is not handed over yet, by the token of the wish. */
  readonly #promised = new Map<number, Caller>();
  /** Sessions without a lane, and until when they stay so; in ms. */
  readonly #leases = new Map<Session, number>();
  #nextToken = 1;

  /**
   * @param workers how many data-path Workers there are
   * @param now milliseconds of a clock that never goes back
   */
  constructor(
    registry: Registry,
    state: Pick<DiskRecords, "save">,
    workers: number,
    now: () => number,
    output: CoordinatorOutput,
  ) {
    this.#registry = registry;
    this.#state = state;
    this.#workers = workers;
    this.#now = now;
    this.#output = output;
  }

  /** Whether {@link expire} has to be called now and then. */
  get hasLeases(): boolean {
    return this.#leases.size > 0;
  }

  /** A caller asks for a session. */
  open(caller: Caller, request: OpenRequest): void {
    const decision = this.#registry.open(request, caller);
    if (decision.kind === "refused") return caller.refuse(decision);
    if (decision.kind === "end first") {
      return this.#endFirst(decision.session, caller, () => caller.isWaiting && this.open(caller, request));
    }
    const { session, record } = decision;
    const refusal = this.#enter(session, record, this.#firstWorker(session.export));
    if (refusal !== null) return caller.refuse(refusal);
    this.#promise(caller, session, FrameType.OPEN, 0, 1);
    this.#prepare(caller, request.depth, request.maxPayload, true);
  }

  /** A caller asks for a lane. */
  join(caller: Caller, request: JoinRequest): void {
    const decision = this.#registry.join(request, caller);
    if (decision.kind === "refused") return caller.refuse(decision);
    const { session } = decision;
    // One that still waits for this lane has a lower generation, and would wait for ever.
    const text = "The lane was joined with a higher generation";
    this.#refuseWaiting(session, request.lane, Status.OLD_GENERATION, text);
    this.#leases.delete(session);
    this.#promise(caller, session, FrameType.JOIN, request.lane, request.generation);
    this.#prepare(caller, request.depth, request.maxPayload, request.fresh);
  }

  /** A caller has gone, perhaps with a lane that was being prepared. */
  left(caller: Caller): void {
    this.#promised.delete(caller.token);
    if (caller.session !== null) this.#lost(caller.session, caller.lane, caller.generation);
  }

  /**
   * The socket of a caller whose lane is prepared is free to be handed over.
   *
   * @param fd is its Worker's from now on
   * @param handoff its keys are copied
   */
  connect(caller: Caller, fd: number, handoff: Handoff, depth: number, maxPayload: number): void {
    this.#promised.delete(caller.token);
    const session = caller.session!;
    const one = session.export;
    const grant = encodeGrant({
      ...one.shape,
      access: session.access,
      features: one.features,
      identities: this.#registry.identities(one),
      slots: depth,
      maxPayload,
      payloadBytes: depth * maxPayload,
      leaseMs: session.leaseMs,
      lanes: session.lanesGranted,
    });
    // Given away with the message, which would keep one more copy of them that nobody wipes.
    const { keys: own } = handoff;
    const keys = own === null ? null : { send: own.send.slice(), receive: own.receive.slice() };
    this.#output.say(
      this.#workerOf(session, caller.lane),
      {
        say: "connect",
        session: session.key,
        lane: caller.lane,
        generation: caller.generation,
        fd,
        handoff: { ...handoff, keys },
        answerType: caller.answerType,
        grant,
      },
      keys === null ? [] : [keys.send.buffer, keys.receive.buffer],
    );
    session.suite = { cipher: handoff.cipher, digest: handoff.digest };
    const spread = this.#spreads.get(session)!;
    if (spread.isAttached) return;
    spread.isAttached = true;
    const access = session.access === Access.READ_WRITE ? "read-write" : "read-only";
    const key = session.keyName === null ? "" : ` with the key "${session.keyName}"`;
    this.#output.log("info", `${session.holder} at ${session.address} attached "${one.name}" ${access}${key}`);
  }

  /** A message from a Worker. */
  hear(worker: number, message: Exclude<ToDoor, { say: "failed" }>): void {
    switch (message.say) {
      case "prepared":
        return this.#promised.get(message.token)?.prepared(message.depth, message.maxPayload);
      case "unprepared":
        return this.#unprepared(message.token, message.status, message.text);
      case "fencing":
        return this.#promised.get(message.token)?.fencing(message.executing);
      case "nbdOpen":
        return this.#nbdOpen(worker, this.#registry.exportOf(message.export), message.address);
      case "nbdClosed":
        return this.#partEnded(worker, this.#registry.findKey(nbdSession(message.export)));
    }
    // A Worker's last words about a session that is forgotten already mean nothing.
    const session = this.#registry.findKey(message.session);
    if (session === null) return;
    switch (message.say) {
      case "lost":
        return this.#lost(session, message.lane, message.generation);
      case "ending":
        return this.#ending(worker, session, message.executing);
      case "closing":
        return this.#closing(session);
      case "closed":
        return this.#partClosed(worker, session);
      case "ended":
        return this.#partEnded(worker, session);
    }
  }

  /** Ends the sessions whose lease is over. */
  expire(): void {
    const now = this.#now();
    for (const [session, deadlineMs] of this.#leases) if (now >= deadlineMs) this.end(session, "silent");
  }

  /**
   * Ends a session: nothing that arrives is executed any more, and what executes finishes.
   *
   * @param manner what its client is told
   */
  end(session: Session, manner: EndManner): void {
    if (session.ending) return;
    session.ending = true;
    this.#leases.delete(session);
    const whose = `${session.holder} at ${session.address}`;
    if (manner === "fenced") this.#output.log("warning", `"${session.export.name}" is taken from ${whose}`);
    if (manner === "dismissed") {
      this.#output.log("warning", `"${session.export.name}" is taken from ${whose}, whose rights have changed`);
    }
    for (const worker of this.#spreads.get(session)!.executing.keys()) {
      this.#output.say(worker, { say: "end", session: session.key, manner });
    }
  }

  /** Ends a session, unless it is ending already, for another that waits until nothing of it is left. */
  #endFirst(session: Session, caller: Caller | null, then: () => void): void {
    this.#spreads.get(session)!.afterEnd.push({ caller, then });
    this.end(session, "fenced");
  }

  /** Enters a granted session; or answers why that cannot be. */
  #enter(session: Session, record: DiskRecord | null, first: number): Refusal | null {
    try {
      // The write epoch is on stable storage before anybody is told of it.
      if (record !== null && record.fingerprint !== "") this.#state.save(record);
    } catch (error) {
      this.#output.log("warning", (error as Error).message);
      const text = "The exporter cannot record who writes";
      return { kind: "refused", status: Status.NO_RESOURCES, text, current: null };
    }
    this.#registry.begin(session, record);
    this.#spreads.set(session, { first, executing: new Map(), closing: null, afterEnd: [], isAttached: false });
    return null;
  }

  #promise(caller: Caller, session: Session, answerType: number, lane: number, generation: number): void {
    session.lanes.set(lane, { generation, connected: true, socketAddress: caller.socketAddress });
    caller.session = session;
    caller.answerType = answerType;
    caller.lane = lane;
    caller.generation = generation;
  }

  #prepare(caller: Caller, depth: number | null, maxPayload: number | null, fresh: boolean): void {
    const session = caller.session!;
    const worker = this.#workerOf(session, caller.lane);
    const { executing } = this.#spreads.get(session)!;
    executing.set(worker, executing.get(worker) ?? 0);
    caller.token = this.#nextToken++;
    this.#promised.set(caller.token, caller);
    this.#output.say(worker, {
      say: "prepare",
      token: caller.token,
      session: session.key,
      export: session.export.index,
      readOnly: session.access !== Access.READ_WRITE,
      lane: caller.lane,
      fresh,
      depth: Math.min(Math.max(depth ?? DEPTH_DEFAULT, 1), DEPTH_MAX),
      maxPayload: Math.min(maxPayload ?? PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX),
    });
  }

  #unprepared(token: number, status: number, text: string): void {
    const caller = this.#promised.get(token);
    if (caller === undefined) return;
    const session = caller.session!;
    this.#withdraw(caller, status, text);
    if (session.ending) return;
    // A lane that could not be made is as if it had never been asked for, and so is a session without its first.
    session.lanes.delete(caller.lane);
    if (caller.answerType === FrameType.OPEN) return this.end(session, "silent");
    this.#leaseIfUnconnected(session);
  }

  /** Refuses a caller the lane that it was promised. */
  #withdraw(caller: Caller, status: number, text: string): void {
    this.#promised.delete(caller.token);
    caller.session = null;
    caller.refuse({ kind: "refused", status, text, current: null });
  }

  /** Refuses those that still wait for a lane of the session; -1: for any. */
  #refuseWaiting(session: Session, lane: number, status: number, text: string): void {
    for (const caller of this.#promised.values()) {
      if (caller.session === session && (lane < 0 || caller.lane === lane)) this.#withdraw(caller, status, text);
    }
  }

  /** The Worker with the fewest lanes, those counted that are granted and not yet joined. */
  #firstWorker(one: RegisteredExport): number {
    if (one.oneWorker || this.#workers === 1) return 0;
    const lanes = new Array<number>(this.#workers).fill(0);
    for (const session of this.#spreads.keys()) {
      for (let lane = 0; lane < session.lanesGranted; lane++) lanes[this.#workerOf(session, lane)]++;
    }
    return lanes.indexOf(Math.min(...lanes));
  }

  #workerOf(session: Session, lane: number): number {
    const { first } = this.#spreads.get(session)!;
    return session.export.oneWorker ? first : (first + lane) % this.#workers;
  }

  #lost(session: Session, laneNumber: number, generation: number): void {
    const lane = session.lanes.get(laneNumber);
    if (lane === undefined || lane.generation !== generation) return;
    lane.connected = false;
    this.#leaseIfUnconnected(session);
  }

  /** A session all of whose lanes are gone keeps its export for its lease. */
  #leaseIfUnconnected(session: Session): void {
    if (session.ending || [...session.lanes.values()].some((lane) => lane.connected)) return;
    if (session.leaseMs === 0) return this.end(session, "silent");
    this.#output.log(
      "warning",
      `${session.holder} at ${session.address} lost its connection to "${session.export.name}"`,
    );
    this.#leases.set(session, this.#now() + session.leaseMs);
  }

  #ending(worker: number, session: Session, executing: number): void {
    const spread = this.#spreads.get(session)!;
    if (!spread.executing.has(worker)) return;
    spread.executing.set(worker, executing);
    let sum = 0;
    for (const part of spread.executing.values()) sum += part;
    for (const { caller } of spread.afterEnd) caller?.fencing(sum);
  }

  /** The client closes its session: nothing of it may execute in any Worker before it is told. */
  #closing(session: Session): void {
    // It is being ended already: whoever closes it now has lost it.
    if (session.ending) return;
    session.ending = true;
    this.#leases.delete(session);
    const spread = this.#spreads.get(session)!;
    spread.closing = new Set(spread.executing.keys());
    this.#refuseWaiting(session, -1, Status.NO_SESSION, "The session was closed");
    for (const worker of spread.closing) this.#output.say(worker, { say: "close", session: session.key });
  }

  #partClosed(worker: number, session: Session): void {
    const spread = this.#spreads.get(session)!;
    if (spread.closing === null) return;
    spread.closing.delete(worker);
    if (spread.closing.size > 0) return;
    this.#forget(session);
  }

  #partEnded(worker: number, session: Session | null): void {
    if (session === null) return;
    const spread = this.#spreads.get(session)!;
    spread.executing.delete(worker);
    if (spread.closing !== null) return this.#partClosed(worker, session);
    if (spread.executing.size === 0) this.#forget(session);
  }

  /** Nothing of the session executes any more. */
  #forget(session: Session): void {
    const { afterEnd, executing, isAttached } = this.#spreads.get(session)!;
    this.#registry.end(session);
    this.#spreads.delete(session);
    this.#leases.delete(session);
    this.#refuseWaiting(session, -1, Status.NO_SESSION, "The session has ended");
    // Only now, since the client may come again as soon as it is told.
    for (const worker of executing.keys()) this.#output.say(worker, { say: "release", session: session.key });
    if (isAttached) this.#output.log("info", `${session.holder} at ${session.address} left "${session.export.name}"`);
    for (const { then } of afterEnd) then();
  }

  #nbdOpen(worker: number, one: RegisteredExport, address: string): void {
    const answer = (refusal: string | null) => {
      this.#output.say(worker, { say: "nbdOpened", export: one.index, refusal });
    };
    const decision = this.#registry.openNbd(one, nbdSession(one.index), address);
    if (decision.kind === "refused") return answer(decision.text);
    if (decision.kind === "end first") {
      return this.#endFirst(decision.session, null, () => this.#nbdOpen(worker, one, address));
    }
    const { session, record } = decision;
    const refusal = this.#enter(session, record, worker);
    if (refusal !== null) return answer(refusal.text);
    const spread = this.#spreads.get(session)!;
    spread.executing.set(worker, 0);
    spread.isAttached = true;
    this.#output.log("info", `${session.holder} at ${address} attached "${one.name}"`);
    answer(null);
  }
}
