/**
 * The exporter's door: accepts connections, has them say hello and prove who they are, and hands sockets to the data-path
 * Workers. Runs on a thread of its own, so that no stranger ever costs an I/O anything.
 *
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import { Listener } from "../engine/listener.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { close } from "../ffi/libc.ts";
import { formatSocketAddress } from "../ffi/sockaddr.ts";
import { peerAddress, setNoDelay } from "../ffi/socket.ts";
import { type Access, Admission, SURPLUS_MAX } from "./admission.ts";
import { CONNECTIONS_MAX } from "./config_security.ts";
import { Coordinator, type CoordinatorOutput } from "./coordinator.ts";
import type { DoorInit, DoorStatus, ToDoor } from "./messages.ts";
import { Registry } from "./registry.ts";
import { newRecord, type StateDirectory } from "./state.ts";
import { Visitor } from "./visitor.ts";

/** Connections at the door that have proved who they are: as many as of those who have not. */
const KNOWN_MAX = CONNECTIONS_MAX - SURPLUS_MAX;
/** Slots of the door's thread: one for each connection, of which an engine has so many at most. */
export const DOOR_SLOTS = CONNECTIONS_MAX + SURPLUS_MAX + KNOWN_MAX;
/** Entries in one answer to LIST: 200 of the longest names fit its 64 KiB. */
const LIST_ENTRIES = 200;

/** How often the door looks at the clock: a time ends at most so much late. One timer serves all, because a timer for
 * each connection would let strangers use them up. */
const WATCH_MS = 200;

/** The door of one exporter. */
export class Door implements TimerHandler {
  readonly #engine: Engine;
  readonly #registry: Registry;
  readonly #admission: Admission;
  /** @ignore by {@link Visitor}: what it asks for. */
  readonly coordinator: Coordinator;
  readonly #listener: Listener;
  readonly #visitors = new Set<Visitor>();
  #isWatching = false;

  /** @throws {Error} when a record cannot be read or made */
  constructor(engine: Engine, init: DoorInit, state: StateDirectory, instance: Uint8Array, output: CoordinatorOutput) {
    this.#engine = engine;
    const exports = init.exports.map((one, index) => ({
      index,
      name: one.name,
      shape: one.shape,
      features: one.features,
      durability: Uint8Array.fromHex(one.durability),
      oneWorker: one.oneWorker,
      record: one.fingerprint === "" ? newRecord("", Date.now()) : state.load(one.fingerprint, Date.now()),
    }));
    this.#admission = new Admission(init.access, (text) => output.log("warning", text));
    this.#registry = new Registry(instance, exports, this.#admission.permissions, init.access.limits);
    this.coordinator = new Coordinator(this.#registry, state, init.data.length, () => engine.now, output);
    this.#listener = new Listener(engine, init.listenFd, (fd) => this.#accept(fd));
  }

  /** Who uses the exports. */
  status(): DoorStatus {
    return this.#registry.exports.map((one) =>
      this.#registry.sessionsOf(one).map(({ holder, address, access, lanes, keyName, suite }) => ({
        holder,
        address,
        access,
        lanes: [...lanes.values()].filter(({ connected }) => connected).length,
        key: keyName,
        suite,
      }))
    );
  }

  /**
   * Decides everything by other rules from now on. Sessions whose rights are gone end, the others do not notice.
   *
   * @returns how many end
   */
  reload(access: Access): number {
    this.#admission.replace(access);
    const ended = this.#registry.replace(this.#admission.permissions, access.limits);
    for (const session of ended) this.coordinator.end(session, "dismissed");
    for (const visitor of this.#visitors) visitor.review();
    return ended.length;
  }

  /** Accepts nobody any more, and sends away who is at the door. */
  stop(): void {
    this.#listener.close();
    for (const visitor of this.#visitors) visitor.dismiss();
    this.#admission.flush();
  }

  /** A message from a data-path Worker. */
  hear(worker: number, message: ToDoor): void {
    this.coordinator.hear(worker, message);
    // A session may have lost its last lane.
    this.#watch();
  }

  /** @ignore by {@link Visitor}: whom to let in. */
  get admission(): Admission {
    return this.#admission;
  }

  /** @ignore by {@link Visitor} */
  list(after: string, visitor: Visitor) {
    return this.#registry.list(after, LIST_ENTRIES, visitor);
  }

  /** @ignore by {@link Visitor} */
  describe(name: string, visitor: Visitor) {
    return this.#registry.describe(name, visitor);
  }

  /** @ignore by {@link Visitor}: it has gone, perhaps with a lane that was being prepared. */
  left(visitor: Visitor): void {
    this.#visitors.delete(visitor);
    this.coordinator.left(visitor);
    // Its session may have a lease now.
    this.#watch();
  }

  /** @ignore by {@link Visitor}: its socket is free to be handed over. */
  connect(visitor: Visitor, fd: number): void {
    this.#visitors.delete(visitor);
    this.coordinator.connect(visitor, fd, visitor.machine.handoff(), visitor.depth, visitor.maxPayload);
  }

  #accept(fd: number): void {
    const socketAddress = peerAddress(fd);
    const address = socketAddress === null ? "an unknown address" : formatSocketAddress(socketAddress);
    const reception = this.#admission.receive(socketAddress, this.#engine.now);
    if (reception.kind !== "stranger") {
      this.#admission.log(`Refused ${address}: ${reception.reason}`, this.#engine.now);
      this.#watch();
    }
    if (reception.kind === "closed") {
      close(fd);
      return;
    }
    setNoDelay(fd);
    const visitor = new Visitor(this, this.#engine, socketAddress, address, reception.kind);
    const stream = this.#engine.streams.open(fd, visitor);
    if (stream === null) {
      close(fd);
      this.#admission.gone(reception.kind, socketAddress);
      this.#admission.log(`Refused ${address}: the door has no room for one more connection`, this.#engine.now);
      return;
    }
    this.#visitors.add(visitor);
    visitor.start(stream);
    this.#watch();
  }

  /** Looks after visitors, leases and lines for the log, as long as there are any. */
  #watch(): void {
    const isNeeded = this.#visitors.size > 0 || this.coordinator.hasLeases || this.#admission.isHolding;
    if (this.#isWatching || !isNeeded) return;
    this.#isWatching = true;
    this.#engine.timers.schedule(this, 0, this.#engine.now + WATCH_MS);
  }

  /** @ignore by the timer of the watch */
  expire(): void {
    this.#isWatching = false;
    for (const visitor of this.#visitors) visitor.watch();
    this.coordinator.expire();
    this.#admission.tick(this.#engine.now);
    this.#watch();
  }
}
