/**
 * What an application has of the exporter's disk: block devices, one a lane, over whatever session is under test.
 *
 * @module
 */
import type { BlockDevice } from "../../engine/block.ts";
import type { Random } from "../../engine/random.ts";
import type { SocketAddress } from "../../ffi/sockaddr.ts";
import type { Connector } from "../../client/connector.ts";
import { LEDGER_BYTES } from "../../client/ledger.ts";
import { joinLane, type OpenedSession, type Opening, type OpenOptions, openSession } from "../../client/open.ts";
import { overlapBytes } from "../../client/overlap.ts";
import type { Patience } from "../../client/patience.ts";
import { makeReplayRoom } from "../../client/replay_log.ts";
import type { ClientSession, SessionOwner } from "../../client/session.ts";
import { Violation } from "./checker.ts";
import { EXPORT_NAME, EXPORTER_HOST, EXPORTER_PORT } from "./exporter_machine.ts";
import type { SimThread } from "./kernel.ts";
import type { World } from "./world.ts";

/** Where an attachment lives. */
export interface AttachmentHost {
  readonly world: World;
  readonly thread: SimThread;
  readonly connector: Connector;
}

/** What is to be attached, and how. */
export interface AttachmentWish {
  /** Names the session to the checker. */
  readonly writer: number;
  /** Its id: 16 bytes. */
  readonly session: Uint8Array;
  readonly readOnly: boolean;
  readonly steal: boolean;
  /** Of each lane. */
  readonly depth: number;
  readonly lanes: number;
  /** The client's name. */
  readonly holder: string;
}

/** Whoever wanted it. */
export interface AttachmentOwner {
  /** Requests can be submitted from now on. Called once, if at all. */
  attached(lanes: readonly BlockDevice[]): void;
  /** It is over, and all requests have ended before. Called once. */
  lost(reason: string): void;
}

/** A session, seen from the application. */
export interface Attachment {
  /**
   * Whether a request of this lane that fails now may still land, because the session is over and nobody knows what became
   * of its requests.
   */
  isLost(lane: number): boolean;
  /** Whether mutations that overlap may be submitted at the same time. */
  readonly takesOverlaps: boolean;
  /** Whether it writes again what the exporter loses, and has not failed in that: its reads see nothing of a crash. */
  readonly keepsCopies: boolean;
  /** What was acknowledged is lost, so that mutations and flushes fail from now on. */
  readonly hasLost: boolean;
  /** Has something happen that a client may do: loses a connection and comes back, for example. */
  disturb(random: Random): void;
  /** Ends it, cleanly if possible. No request is under way. {@link AttachmentOwner.lost} follows. */
  leave(): void;
}

/** Makes an attachment of one kind. */
export type AttachmentMaker = (host: AttachmentHost, wish: AttachmentWish, owner: AttachmentOwner) => Attachment;

/** The least room that the copies of a lane get, in bytes: a few of the application's longest writes. */
export const COPIES_OF_LANE_MIN = 16 * 1024;

const ADDRESS: SocketAddress = { family: "ipv4", host: EXPORTER_HOST, port: EXPORTER_PORT };

/** Where the exporter is. */
export function targetOf(world: World) {
  return {
    where: `${EXPORTER_HOST}:${EXPORTER_PORT}`,
    addresses: [ADDRESS],
    digests: [world.scenario.digest],
  };
}

/** The client's own session. Without patience it ends with its first lost connection. */
export class SessionAttachment implements Attachment, SessionOwner {
  readonly takesOverlaps = true;
  hasLost = false;
  readonly #host: AttachmentHost;
  readonly #wish: AttachmentWish;
  readonly #owner: AttachmentOwner;
  readonly #options: OpenOptions & { readonly session: Uint8Array };
  readonly #sessions: ClientSession[] = [];
  readonly #openings = new Set<Opening>();
  #left = 0;
  #isOver = false;

  /** @param copiesBytes room for copies of what the exporter may lose, of all lanes together; 0: what it loses is lost */
  constructor(
    host: AttachmentHost,
    wish: AttachmentWish,
    owner: AttachmentOwner,
    patience?: Patience,
    copiesBytes = 0,
  ) {
    const { slots } = host.thread.engine;
    const keeps = copiesBytes > 0 && !wish.readOnly;
    this.#host = host;
    this.#wish = wish;
    this.#owner = owner;
    this.#options = {
      target: targetOf(host.world),
      name: EXPORT_NAME,
      readOnly: wish.readOnly,
      steal: wish.steal,
      depth: wish.depth,
      holder: wish.holder,
      lanes: wish.lanes,
      session: wish.session,
      ledger: new SharedArrayBuffer(LEDGER_BYTES),
      overlaps: { memory: new SharedArrayBuffer(overlapBytes(wish.lanes * slots.count)), slotsOfLane: slots.count },
      patience,
      replay: keeps ? makeReplayRoom(wish.lanes, copiesBytes, COPIES_OF_LANE_MIN) : undefined,
    };
    if (this.keepsCopies) host.world.checker.keepsCopies(wish.writer);
    this.#enter(0);
  }

  get keepsCopies(): boolean {
    // Where others write, too, nothing may be written again.
    return this.#options.replay !== undefined && !this.hasLost && !this.#host.world.scenario.shared;
  }

  isLost(lane: number): boolean {
    return this.#isOver || this.#sessions[lane].failure !== null;
  }

  disturb(random: Random): void {
    if (this.#options.patience === undefined) this.#sessions[random.below(this.#sessions.length)]?.abort();
  }

  leave(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#left = this.#sessions.length;
    for (const session of this.#sessions) {
      session.leave(() => {
        session.close();
        if (--this.#left === 0) this.#owner.lost("left");
      });
    }
  }

  onLost(reason: string): void {
    this.#end(reason);
  }

  onShuttingDown(): void {}

  onBack(_awayMs: number, resent: number): void {
    const { counters } = this.#host.world;
    counters.count("sessions that came back");
    counters.count("requests resent by sessions", resent);
  }

  onExpired(count: number): void {
    this.#host.world.counters.count("requests that expired", count);
  }

  onResized(): void {}

  onReplayed(count: number): void {
    const { world } = this.#host;
    world.trace(() => `${this.#wish.holder}: replayed ${count}`);
    world.counters.count("replays");
    world.counters.count("mutations written again", count);
    world.checker.replayed(this.#wish.writer);
  }

  onDataLost(reason: string): void {
    const { world } = this.#host;
    world.trace(() => `${this.#wish.holder}: ${reason}`);
    const { keepsCopies } = this;
    if (!this.hasLost) world.counters.count(keepsCopies ? "keepers that gave up" : "attachments that lost data");
    this.hasLost = true;
    if (keepsCopies && !world.diskHasFailed) {
      throw new Violation(`copies are given up although no disk failed: ${reason}`);
    }
  }

  #enter(lane: number): void {
    const { connector } = this.#host;
    const opened = (result: OpenedSession) => {
      this.#openings.delete(opening);
      this.#opened(lane, result.session);
    };
    const failed = (reason: string) => {
      this.#openings.delete(opening);
      this.#end(reason);
    };
    const around = { lookup: null, random: () => this.#host.world.random.next() };
    const opening: Opening = lane === 0
      ? openSession(connector, this.#options, this, opened, failed, around)
      : joinLane(connector, this.#options, lane, this, opened, failed, around);
    this.#openings.add(opening);
  }

  #opened(lane: number, session: ClientSession): void {
    this.#sessions[lane] = session;
    if (this.#isOver) {
      session.close();
      return;
    }
    if (session.failure !== null) return;
    const lanes = Math.min(this.#wish.lanes, this.#sessions[0].grant.lanes);
    if (lane + 1 < lanes) this.#enter(lane + 1);
    else this.#owner.attached(this.#sessions);
  }

  /** One lane is lost: so are the others. */
  #end(reason: string): void {
    if (this.#isOver) {
      this.#settle(reason);
      return;
    }
    this.#isOver = true;
    for (const opening of this.#openings) opening.cancel();
    for (const session of this.#sessions) if (session.failure === null) session.abort();
    this.#settle(reason);
  }

  #settle(reason: string): void {
    if (this.#left > 0 || this.#sessions.some((session) => session.failure === null)) return;
    this.#left = Infinity;
    for (const session of this.#sessions) session.close();
    this.#owner.lost(reason);
  }
}
