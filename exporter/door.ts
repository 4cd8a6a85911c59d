/**
 * The exporter's door: accepts connections, has them say hello, and hands sockets to the data-path Workers. Runs on a
 * thread of its own, so that no stranger ever costs an I/O anything.
 *
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import { Listener } from "../engine/listener.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { close } from "../ffi/libc.ts";
import { formatSocketAddress } from "../ffi/sockaddr.ts";
import { peerAddress, setNoDelay } from "../ffi/socket.ts";
import { Coordinator, type CoordinatorOutput } from "./coordinator.ts";
import type { DoorInit, DoorStatus, ToDoor } from "./messages.ts";
import { Registry } from "./registry.ts";
import { newRecord, type StateDirectory } from "./state.ts";
import { Visitor } from "./visitor.ts";

/** Connections at the door at once; each holds one slot. */
export const VISITORS_MAX = 64;
/** Entries in one answer to LIST: 200 of the longest names fit its 64 KiB. */
const LIST_ENTRIES = 200;
/** How often the door looks at the clock: a time ends at most so much late. One timer serves all, because a timer for
 * each connection would let strangers use them up. */
const WATCH_MS = 200;

/** The door of one exporter. */
export class Door implements TimerHandler {
  readonly #engine: Engine;
  readonly #output: CoordinatorOutput;
  readonly #digests: readonly number[];
  readonly #registry: Registry;
  /** @ignore by {@link Visitor}: what it asks for. */
  readonly coordinator: Coordinator;
  readonly #listener: Listener;
  readonly #visitors = new Set<Visitor>();
  #isWatching = false;

  /** @throws {Error} when a record cannot be read or made */
  constructor(engine: Engine, init: DoorInit, state: StateDirectory, instance: Uint8Array, output: CoordinatorOutput) {
    this.#engine = engine;
    this.#output = output;
    this.#digests = init.digests;
    const exports = init.exports.map((one, index) => ({
      index,
      name: one.name,
      shape: one.shape,
      features: one.features,
      durability: Uint8Array.fromHex(one.durability),
      oneWorker: one.oneWorker,
      record: one.fingerprint === "" ? newRecord("", Date.now()) : state.load(one.fingerprint, Date.now()),
    }));
    this.#registry = new Registry(instance, exports);
    this.coordinator = new Coordinator(this.#registry, state, init.data.length, () => engine.now, output);
    this.#listener = new Listener(engine, init.listenFd, (fd) => this.#accept(fd));
  }

  /** Who uses the exports. */
  status(): DoorStatus {
    return this.#registry.exports.map((one) =>
      this.#registry.sessionsOf(one).map(({ holder, address, access, lanes }) => ({
        holder,
        address,
        access,
        lanes: [...lanes.values()].filter(({ connected }) => connected).length,
      }))
    );
  }

  /** Accepts nobody any more, and sends away who is at the door. */
  stop(): void {
    this.#listener.close();
    for (const visitor of this.#visitors) visitor.dismiss();
  }

  /** A message from a data-path Worker. */
  hear(worker: number, message: ToDoor): void {
    this.coordinator.hear(worker, message);
    // A session may have lost its last lane.
    this.#watch();
  }

  /** @ignore by {@link Visitor} */
  list(after: string) {
    return this.#registry.list(after, LIST_ENTRIES);
  }

  /** @ignore by {@link Visitor} */
  describe(name: string) {
    return this.#registry.describe(name);
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

  /** Looks after visitors and leases, as long as there are any. */
  #watch(): void {
    if (this.#isWatching || (this.#visitors.size === 0 && !this.coordinator.hasLeases)) return;
    this.#isWatching = true;
    this.#engine.timers.schedule(this, 0, this.#engine.now + WATCH_MS);
  }

  /** @ignore by the timer of the watch */
  expire(): void {
    this.#isWatching = false;
    for (const visitor of this.#visitors) visitor.watch();
    this.coordinator.expire();
    this.#watch();
  }
}
