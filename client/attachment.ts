/**
 * An attachment's part in one of its threads: a lane of the session, and the front-end that serves it.
 *
 * @module
 */
import { type BlockClient, Operation, PENDING } from "../engine/block.ts";
import { NBD_SLOTS, type NbdArbiter, NbdFrontend } from "../engine/nbd_frontend.ts";
import type { Reply, ThreadContext } from "../engine/thread.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import { transmitSlots } from "../engine/transmit_area.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { Feature } from "../protocol/grant.ts";
import { Connector } from "./connector.ts";
import { KEEPER_SLOTS } from "./keeper.ts";
import type { AttachEvent, AttachInit, AttachQuestion, OpenedShape, SessionState } from "./messages.ts";
import { joinLane, type OpenedSession, type Opening, openSession, recoverLane, type Surroundings } from "./open.ts";
import type { Patience } from "./patience.ts";
import type { ClientSession, SessionOwner } from "./session.ts";
import { UblkFrontend } from "./ublk_frontend.ts";

/**
 * Slots beside those of the front-end: the session's own, its connection's and that of one that is just ending, a flush's,
 * and an address's for each of the two.
 */
const SLOTS_OF_SESSION = 6;
/** NBD clients that may be connected at once; each takes a slot for its connection too. */
const NBD_CLIENTS_MAX = 32;

/** How many slots the thread needs. */
export function attachmentSlots(frontend: "nbd" | "ublk", depth: number): number {
  const ofFrontend = frontend === "ublk" ? depth : NBD_CLIENTS_MAX * (NBD_SLOTS + 1);
  return SLOTS_OF_SESSION + KEEPER_SLOTS + transmitSlots(depth) + ofFrontend;
}

/** All that the thread does. */
export class Attachment implements SessionOwner, NbdArbiter, BlockClient {
  readonly #context: ThreadContext<AttachInit, AttachEvent>;
  readonly #connector: Connector;
  #opening: Opening | null = null;
  #session: ClientSession | null = null;
  #nbd: NbdFrontend | null = null;
  #ublk: UblkFrontend | null = null;
  #stoppingNbd: Reply | null = null;
  #awaitingQueue: Reply | null = null;
  #flushing: Reply | null = null;
  #leaving: Reply | null = null;
  #foundAddresses: ((addresses: readonly SocketAddress[] | null) => void) | null = null;

  constructor(context: ThreadContext<AttachInit, AttachEvent>) {
    this.#context = context;
    this.#connector = new Connector(context.engine);
  }

  /** Answers the main isolate. */
  answer(question: AttachQuestion, reply: Reply): void {
    switch (question.ask) {
      case "open":
        return this.#open(question.at, reply);
      case "serveNbd":
        this.#nbd = new NbdFrontend(
          this.#context.engine,
          [{ name: question.name, device: this.#opened() }],
          this,
          (text) => this.#log("warning", text),
        );
        this.#nbd.listen(question.fd);
        return reply.answer();
      case "serveUblk":
        this.#ublk = new UblkFrontend(
          this.#context.engine,
          this.#opened(),
          question.fd,
          question.queue,
          question.depth,
          (error) => this.#queueEnded(error),
        );
        return reply.answer();
      case "status":
        return reply.answer(this.#state());
      case "stopNbd":
        this.#stoppingNbd = reply;
        this.#nbd?.stop();
        return this.#settleNbd();
      case "queueEnd":
        if (this.#ublk === null || this.#ublk.isEnded) reply.answer();
        else this.#awaitingQueue = reply;
        return;
      case "flush":
        return this.#flush(reply);
      case "setPatience":
        return this.#setPatience(question.patience, reply);
      case "hurry":
        this.#session?.hurry();
        return reply.answer();
      case "addresses":
        this.#foundAddresses?.(question.addresses);
        this.#foundAddresses = null;
        return reply.answer();
      case "abort":
        this.#session?.abort(question.reason);
        return reply.answer();
      case "leave":
        return this.#leave(reply);
    }
  }

  // The session's owner.

  onLost(reason: string): void {
    this.#forgetKey();
    this.#context.tell({ event: "lost", reason });
  }

  onShuttingDown(): void {
    this.#context.tell({ event: "shuttingDown" });
  }

  onResized(size: number): void {
    this.#nbd?.resized(0);
    this.#context.tell({ event: "resized", size });
  }

  onAway(reason: string): void {
    this.#context.tell({ event: "away", reason });
  }

  onBack(awayMs: number, resent: number): void {
    this.#context.tell({ event: "back", awayMs, resent, grant: this.#opened().grant });
  }

  onReplayed(count: number, bytes: number, tookMs: number): void {
    this.#context.tell({ event: "replayed", count, bytes, tookMs });
  }

  onDataLost(reason: string): void {
    this.#context.tell({ event: "dataLost", reason });
  }

  onExpired(count: number): void {
    this.#context.tell({ event: "expired", count });
  }

  onKeptOut(reason: string): void {
    this.#context.tell({ event: "keptOut", reason });
  }

  // The NBD front-end's arbiter: the session is held already, whoever comes.

  wantExport(index: number): void {
    this.#nbd!.opened(index, null);
  }

  leaveExport(): void {
    this.#settleNbd();
  }

  // The client of a flush.

  onComplete(slot: number, status: number): void {
    this.#context.engine.slots.release(Uint32Array.of(slot));
    const reply = this.#flushing!;
    this.#flushing = null;
    if (status < 0) reply.refuse(errnoMessage(status));
    else reply.answer();
  }

  /** @param at where the session was opened: a name can stand for several machines */
  #open(at: SocketAddress | null, reply: Reply): void {
    const { open, lane, isNamed, recovered } = this.#context.init;
    const target = at === null ? open.target : { ...open.target, addresses: [at] };
    const { cryptography } = this.#context.engine;
    const opened = ({ session, cipher, digest, address }: OpenedSession) => {
      this.#opening = null;
      this.#session = session;
      const shape: OpenedShape = {
        geometry: session.geometry,
        writesZeroes: (session.grant.features & Feature.WRITE_ZEROES) !== 0 && !session.geometry.readOnly,
        depth: session.grant.slots,
        lanes: session.grant.lanes,
        partBytes: session.partBytes,
        cipher,
        digest,
        provider: cryptography.providerOf(cipher, digest),
        address,
        grant: session.grant,
      };
      reply.answer(shape);
    };
    const failed = (reason: string) => {
      this.#opening = null;
      this.#forgetKey();
      reply.refuse(reason);
    };
    const around: Surroundings = {
      // The main isolate looks names up: promises of this thread would wait for the next message.
      lookup: isNamed ? (found) => this.#lookUp(found) : null,
      random: Math.random,
    };
    if (recovered !== null) {
      const session = recoverLane(this.#connector, open, lane, recovered, this, around);
      opened({ ...recovered, session });
      return;
    }
    this.#opening = lane === 0
      ? openSession(this.#connector, open, this, opened, failed, around)
      : joinLane(this.#connector, { ...open, target }, lane, this, opened, failed, around);
  }

  #lookUp(found: (addresses: readonly SocketAddress[] | null) => void): void {
    this.#foundAddresses = found;
    this.#context.tell({ event: "lookUp" });
  }

  /** The lane is not going to be connected again. */
  #forgetKey(): void {
    this.#context.init.open.target.key?.secret.fill(0);
  }

  #opened(): ClientSession {
    if (this.#session === null) throw new Error("no export is open");
    return this.#session;
  }

  #state(): SessionState {
    return {
      connected: this.#session?.isConnected ?? false,
      inFlight: this.#session?.inFlight ?? 0,
      clients: this.#nbd?.clients ?? 0,
      away: this.#session?.away ?? null,
    };
  }

  #settleNbd(): void {
    if (this.#stoppingNbd === null || this.#nbd !== null && !this.#nbd.isIdle) return;
    this.#stoppingNbd.answer();
    this.#stoppingNbd = null;
  }

  #queueEnded(error: number): void {
    if (error !== 0) this.#log("error", `The ublk driver ended the device: ${errnoMessage(error)}`);
    this.#awaitingQueue?.answer();
    this.#awaitingQueue = null;
  }

  #setPatience(patience: Patience, reply: Reply): void {
    const present = this.#context.init.open.patience;
    if (present === undefined) return reply.refuse("the session ends with its connection");
    // The very object that everything in this thread looks at.
    Object.assign(present, patience);
    this.#session?.patienceChanged();
    reply.answer();
  }

  #flush(reply: Reply): void {
    const session = this.#opened();
    if (session.geometry.readOnly) return reply.answer();
    const slots = this.#context.engine.slots.reserve(1);
    if (slots === null || this.#flushing !== null) {
      if (slots !== null) this.#context.engine.slots.release(slots);
      return reply.refuse("a flush is under way");
    }
    this.#flushing = reply;
    this.#context.engine.slots.setRange(slots[0], 0, 0);
    const status = session.submit(slots[0], Operation.FLUSH, 0, this);
    if (status !== PENDING) this.onComplete(slots[0], status);
  }

  #leave(reply: Reply): void {
    this.#leaving = reply;
    this.#opening?.cancel();
    this.#opening = null;
    if (this.#session === null) this.#left(false);
    else this.#session.leave((clean) => this.#left(clean));
  }

  #left(clean: boolean): void {
    this.#session?.close();
    this.#forgetKey();
    this.#leaving!.answer(clean);
    this.#context.engine.stop();
  }

  #log(level: "debug" | "error" | "warning", text: string): void {
    this.#context.tell({ event: "log", level, text });
  }
}
