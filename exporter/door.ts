/**
 * The exporter's door: accepts connections, has them say hello and prove who they are, and hands sockets to the data-path
 * Workers. Runs on a thread of its own, so that no stranger ever costs an I/O anything.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Engine } from "../engine/engine.ts";
import { Listener } from "../engine/listener.ts";
import type { TimerHandler } from "../engine/timers.ts";
import { formatSocketAddress } from "../ffi/sockaddr.ts";
import { type Access, Admission, SURPLUS_MAX } from "./admission.ts";
import { CONNECTIONS_MAX } from "./config_security.ts";
import { Coordinator, type CoordinatorOutput } from "./coordinator.ts";
import type { DoorExport, DoorInit, DoorStatus, ResizedExport, ToDoor } from "./messages.ts";
import { type RegisteredExport, Registry } from "./registry.ts";
import { type DiskRecords, newRecord } from "./state.ts";
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
  readonly #state: DiskRecords;
  readonly #registry: Registry;
  readonly #admission: Admission;
  /** @ignore by {@link Visitor}: what it asks for. */
  readonly coordinator: Coordinator;
  readonly #listener: Listener;
  readonly #log: CoordinatorOutput["log"];
  readonly #say: CoordinatorOutput["say"];
  readonly #workers: number;
  readonly #visitors = new Set<Visitor>();
  #isWatching = false;
  /** Whoever waits until an export has no sessions any more. */
  #waiting: { readonly index: number; readonly then: () => void }[] = [];

  /** @throws {Error} when a record cannot be read or made */
  constructor(engine: Engine, init: DoorInit, state: DiskRecords, instance: Uint8Array, output: CoordinatorOutput) {
    this.#engine = engine;
    this.#state = state;
    this.#log = output.log;
    this.#say = output.say;
    this.#workers = init.data.length;
    const exports = init.exports.map((one) => this.#registered(one));
    this.#admission = new Admission(init.access, (text) => output.log("warning", text));
    this.#registry = new Registry(instance, exports, this.#admission.permissions, init.access.limits);
    this.coordinator = new Coordinator(this.#registry, state, init.data.length, () => engine.now, output);
    this.#listener = new Listener(engine, init.listenFd, (fd) => this.#accept(fd));
  }

  /** Who uses the exports. */
  status(): DoorStatus {
    return new Map(this.#registry.exports.map((one) => [
      one.index,
      this.#registry.sessionsOf(one).map(({ holder, address, access, lanes, keyName, suite }) => ({
        holder,
        address,
        access,
        lanes: [...lanes.values()].filter(({ connected }) => connected).length,
        key: keyName,
        suite,
      })),
    ]));
  }

  /**
   * Decides everything by other rules from now on. Sessions whose rights are gone end, the others do not notice.
   *
   * @param added exports, with indexes that were never used
   * @param removed indexes of exports, whose sessions end too
   * @param resized exports that have become larger or smaller, whose clients are told
   * @returns how many end
   * @throws {Error} when a record cannot be read or made: then nothing has changed
   */
  reload(
    access: Access,
    added: readonly DoorExport[],
    removed: readonly number[],
    resized: readonly ResizedExport[],
  ): number {
    const registered = added.map((one) => this.#registered(one));
    for (const one of resized) this.#resize(one);
    this.#admission.replace(access);
    const ended = new Set(removed.flatMap((index) => this.#registry.remove(index)));
    for (const one of registered) this.#registry.add(one);
    for (const one of this.#registry.replace(this.#admission.permissions, access.limits)) ended.add(one);
    for (const session of ended) this.coordinator.end(session, "dismissed");
    for (const visitor of this.#visitors) visitor.review();
    return ended.size;
  }

  /** Calls a function as soon as an export that was removed has no sessions any more. */
  whenGone(index: number, then: () => void): void {
    this.#waiting.push({ index, then });
    this.#settleGone();
  }

  /** Accepts nobody any more, and sends away who is at the door. */
  stop(): void {
    this.#listener.close();
    for (const visitor of this.#visitors) visitor.dismiss();
    this.#admission.close();
  }

  /** A message from a data-path Worker. */
  hear(worker: number, message: ToDoor): void {
    if (message.say === "failed") return this.#failed(this.#registry.exportOf(message.export));
    this.coordinator.hear(worker, message);
    // A session may have lost its last lane.
    this.#watch();
    this.#settleGone();
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

  /** @ignore by {@link Visitor}: for the log */
  whyNotFound(name: string, visitor: Visitor): string {
    return this.#registry.whyNotFound(name, visitor);
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

  /**
   * Stable storage of an export has failed. As long as it is exported its flushes fail; but the kernel tells of lost pages
   * once, and whoever exports the disk next finds nothing wrong. So the durability epoch is another one from then on.
   */
  #failed(one: RegisteredExport): void {
    one.record = { ...one.record, failures: one.record.failures + 1 };
    if (one.record.fingerprint === "") return;
    try {
      this.#state.save(one.record);
    } catch (error) {
      this.#log("warning", (error as Error).message);
    }
  }

  /** What is recorded of a disk goes with it when it is named in another way. */
  #resize({ index, size, fingerprint }: ResizedExport): void {
    const one = this.#registry.exportOf(index);
    if (one.record.fingerprint !== fingerprint) {
      const record = { ...one.record, fingerprint };
      this.#state.save(record);
      one.record = record;
    }
    one.shape = { ...one.shape, size };
    for (let worker = 0; worker < this.#workers; worker++) this.#say(worker, { say: "resized", export: index, size });
  }

  #registered(one: DoorExport): RegisteredExport {
    const { fingerprint } = one;
    const record = fingerprint === "" ? newRecord("", Date.now()) : this.#state.load(fingerprint, Date.now());
    return {
      index: one.index,
      name: one.name,
      shape: one.shape,
      features: one.features,
      durability: durabilityAfter(one.durability, record.failures),
      oneWorker: one.oneWorker,
      record,
    };
  }

  #settleGone(): void {
    if (this.#waiting.length === 0) return;
    const isGone = (index: number) => this.#registry.sessionsOf(this.#registry.exportOf(index)).length === 0;
    const gone = this.#waiting.filter(({ index }) => isGone(index));
    this.#waiting = this.#waiting.filter((one) => !gone.includes(one));
    for (const { then } of gone) then();
  }

  #accept(fd: number): void {
    const { calls } = this.#engine.loop;
    const socketAddress = calls.peerAddress(fd);
    const address = socketAddress === null ? "an unknown address" : formatSocketAddress(socketAddress);
    const reception = this.#admission.receive(socketAddress, this.#engine.now);
    if (reception.kind !== "stranger") {
      this.#admission.log(`Refused ${address}: ${reception.reason}`, this.#engine.now);
      this.#watch();
    }
    if (reception.kind === "closed") {
      calls.close(fd);
      return;
    }
    calls.setNoDelay(fd);
    const visitor = new Visitor(this, this.#engine, socketAddress, address, reception.kind);
    const stream = this.#engine.streams.open(fd, visitor);
    if (stream === null) {
      calls.close(fd);
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

/** The durability epoch of a disk whose stable storage has failed so often. */
function durabilityAfter(durability: string, failures: number): Uint8Array {
  const epoch = Uint8Array.fromHex(durability);
  if (failures === 0) return epoch;
  return new Uint8Array(createHash("sha256").update(epoch).update(String(failures)).digest().subarray(0, epoch.length));
}
