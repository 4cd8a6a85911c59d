/**
 * The exporter's data path in one Worker: its back-ends of the disks, the lanes that live here, and the NBD front-end.
 *
 * A session's lanes may be spread over several Workers. Each knows its own part of the session only; the door, which
 * knows all, has every part end.
 *
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import { type NbdArbiter, NbdFrontend } from "../engine/nbd_frontend.ts";
import { exporterLaneSlots } from "../engine/limits.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import type { Reply } from "../engine/thread.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import { FENCING_INTERVAL_MS, PAYLOAD_BYTES_GRANT_MIN } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { Devices } from "./devices.ts";
import { Lane, LANE_EXTRA_BYTES, type LaneOwner } from "./lane.ts";
import {
  type DataInit,
  type EndManner,
  nbdExport,
  type ServedExport,
  type ServedShape,
  type ToData,
  type ToDoor,
} from "./messages.ts";
import { type AccessRules, Permissions } from "./permissions.ts";

/** Slots of a data-path Worker: 31 lanes of the default depth with their connections, or 63 NBD clients; 1 GiB of addresses,
 * of which only what was used is memory. See `engine/limits.ts`. */
export const DATA_SLOTS = 4096;

if (LANE_EXTRA_BYTES > SLOT_PAYLOAD_BYTES) throw new Error("A lane's own messages do not fit a slot");

/** A session's part in this Worker. */
interface DataSession {
  readonly id: string;
  readonly lanes: Map<number, Lane>;
  /** It is over as soon as all lanes are idle. */
  ending: boolean;
  /** Each lane's connection ends as soon as nothing of the lane executes. */
  draining: boolean;
  /** Its client's rights are gone: a CLOSE that comes is not answered any more. */
  dismissed: boolean;
  /** The lane on which CLOSE arrived: its answer waits for what executes, and then for the door. */
  closing: Lane | null;
  /** The door waits to hear that nothing executes any more, because the client closes the session. */
  mustSayClosed: boolean;
}

/** A door's visitor waiting for its lane to become idle. */
interface Fence {
  readonly token: number;
  readonly fresh: boolean;
}

/** All that the data-path Worker does. */
export class DataPath implements LaneOwner, NbdArbiter {
  readonly #engine: Engine;
  readonly #devices: Devices;
  readonly #sessions = new Map<string, DataSession>();
  readonly #fences = new Map<Lane, Fence>();
  #permissions: Permissions;
  /** In the one Worker that has all exports. */
  readonly #nbd: NbdFrontend | null;
  readonly #say: (message: ToDoor) => void;
  readonly #log: (text: string) => void;
  #stopping: Reply | null = null;
  #isClosing = false;

  constructor(engine: Engine, init: DataInit, say: (message: ToDoor) => void, log: (text: string) => void) {
    this.#engine = engine;
    this.#say = say;
    this.#log = log;
    this.#devices = new Devices(engine, init.exports, (index) => this.#say({ say: "failed", export: index }));
    this.#permissions = new Permissions(init.rules);
    this.#nbd = init.nbdFd < 0 ? null : new NbdFrontend(
      engine,
      init.exports.map((one, index) => ({ name: one!.name, device: this.#devices.get(index) })),
      this,
      log,
    );
    this.#nbd?.listen(init.nbdFd);
  }

  /** What an export is like, as its layers leave it. It lives here. */
  shape(index: number): ServedShape {
    return this.#devices.shape(index);
  }

  /**
   * Serves one more, with an index that was never used.
   *
   * @throws {Error} when it cannot be made
   */
  add(index: number, one: ServedExport): void {
    this.#devices.add(index, one);
    this.#nbd?.add(index, { name: one.name, device: this.#devices.get(index) });
  }

  /** Lets go of one that nobody uses any more, if it lives here: syncs and closes it, then answers. */
  remove(index: number, reply: Reply): void {
    this.#nbd?.remove(index);
    this.#devices.remove(index, (failure) => {
      if (failure === null) reply.answer();
      else reply.refuse(`Cannot sync at the end: ${failure}; what no flush covered may be lost`);
    });
  }

  /** A message from the door. */
  hear(message: ToData): void {
    switch (message.say) {
      case "prepare":
        return this.#prepare(message);
      case "connect":
        return this.#connect(message);
      case "end":
        return this.#end(message.session, message.manner);
      case "close":
        return this.#close(message.session);
      case "release":
        return this.#release(message.session);
      case "resized":
        return this.#resize(message.export, message.size);
      case "nbdOpened":
        return this.#nbd!.opened(message.export, message.refusal);
    }
  }

  /** Decides about NBD clients by other rules from now on. */
  reload(rules: AccessRules): void {
    this.#permissions = new Permissions(rules);
    this.#nbd?.review();
  }

  /** Finishes what executes, tells the clients, syncs the disks, closes them; then answers and ends the engine. */
  stop(reply: Reply): void {
    this.#stopping = reply;
    this.#nbd?.stop();
    for (const session of this.#sessions.values()) {
      for (const lane of session.lanes.values()) lane.machine.shutdown();
      this.#drain(session);
      this.#settle(session);
    }
    this.#settleStop();
  }

  // The lanes' owner.

  onLaneLost(lane: Lane, generation: number): void {
    this.#say({ say: "lost", session: lane.session, lane: lane.number, generation });
  }

  onLaneIdle(lane: Lane): void {
    const session = this.#sessions.get(lane.session);
    const fence = this.#fences.get(lane);
    this.#fences.delete(lane);
    // Whoever waits for a lane of a session that ends hears of that from the door.
    if (fence !== undefined && session?.ending === false) this.#answerPrepared(lane, fence);
    if (session !== undefined) this.#settle(session);
  }

  onLaneFinished(lane: Lane): void {
    const session = this.#sessions.get(lane.session);
    if (session === undefined) return;
    // The lane on which CLOSE arrived has still to be answered.
    if (session.draining && lane !== session.closing) lane.finish();
    this.#settleClose(session);
  }

  onClose(lane: Lane): void {
    const session = this.#sessions.get(lane.session)!;
    if (session.dismissed) return;
    session.closing = lane;
    this.#say({ say: "closing", session: session.id });
  }

  log(text: string): void {
    this.#log(text);
  }

  // The NBD front-end's arbiter.

  wantExport(index: number, address: string): void {
    this.#say({ say: "nbdOpen", export: index, address });
  }

  leaveExport(index: number): void {
    this.#say({ say: "nbdClosed", export: index });
    this.#settleStop();
  }

  admits(address: SocketAddress | null, exportName: string | null): boolean {
    return exportName === null
      ? this.#permissions.admitsAddress(address)
      : this.#permissions.admitsTo(exportName, address);
  }

  #prepare(message: Extract<ToData, { say: "prepare" }>): void {
    const { token, session: id, lane: number, fresh } = message;
    if (this.#sessions.get(id)?.ending === true) {
      this.#say({ say: "unprepared", token, status: Status.NO_SESSION, text: "The session is ending" });
      return;
    }
    const present = this.#sessions.get(id)?.lanes.get(number);
    if (present !== undefined) {
      const fence = { token, fresh };
      this.#fences.set(present, fence);
      if (present.isIdle) return this.onLaneIdle(present);
      present.disconnect();
      this.#sayFencing(present, fence);
      return;
    }
    const slots = this.#stopping === null ? this.#engine.slots.reserve(exporterLaneSlots(message.depth)) : null;
    if (slots === null) {
      const text = `The exporter has no memory for a lane of depth ${message.depth}: a smaller one may do`;
      this.#say({ say: "unprepared", token, status: Status.NO_RESOURCES, text });
      return;
    }
    const lane = new Lane(this.#engine, this.#devices.get(message.export), this, {
      session: id,
      lane: number,
      depth: message.depth,
      maxPayload: Math.max(PAYLOAD_BYTES_GRANT_MIN, Math.min(message.maxPayload, SLOT_PAYLOAD_BYTES)),
      readOnly: message.readOnly,
      slots,
    });
    const session = this.#sessions.get(id) ??
      {
        id,
        lanes: new Map(),
        ending: false,
        draining: false,
        dismissed: false,
        closing: null,
        mustSayClosed: false,
      };
    session.lanes.set(number, lane);
    this.#sessions.set(id, session);
    this.#answerPrepared(lane, { token, fresh: false });
  }

  #answerPrepared(lane: Lane, fence: Fence): void {
    if (fence.fresh) lane.machine.clear();
    this.#say({ say: "prepared", token: fence.token, depth: lane.depth, maxPayload: lane.maxPayload });
  }

  /** Tells the door every second how many requests a fence still waits for. */
  #sayFencing(lane: Lane, fence: Fence): void {
    if (this.#fences.get(lane) !== fence) return;
    this.#say({ say: "fencing", token: fence.token, executing: lane.machine.executing });
    const expire = () => this.#sayFencing(lane, fence);
    this.#engine.timers.schedule({ expire }, 0, this.#engine.now + FENCING_INTERVAL_MS);
  }

  #connect(message: Extract<ToData, { say: "connect" }>): void {
    const { session: id, lane: number, generation, fd } = message;
    const session = this.#sessions.get(id);
    const lane = session?.lanes.get(number);
    const isWanted = session !== undefined && lane !== undefined && !session.ending;
    if (isWanted && lane.connect(fd, message.handoff, message.answerType, generation, message.grant)) return;
    message.handoff.keys?.send.fill(0);
    message.handoff.keys?.receive.fill(0);
    this.#engine.loop.calls.close(fd);
    this.#say({ say: "lost", session: id, lane: number, generation });
  }

  #end(id: string, manner: EndManner): void {
    const session = this.#sessions.get(id);
    if (session === undefined) {
      // The NBD clients of an export are its connections; they end with them.
      const index = nbdExport(id);
      if (index < 0 || this.#nbd?.disconnect(index) !== true) this.#say({ say: "ended", session: id });
      return;
    }
    if (manner === "dismissed") {
      for (const lane of session.lanes.values()) lane.machine.shutdown();
      session.dismissed = true;
      session.closing = null;
      this.#drain(session);
    } else {
      session.ending = true;
      for (const lane of session.lanes.values()) {
        if (manner === "fenced" && lane.isConnected) {
          lane.machine.fenced();
          lane.finish();
        } else {
          lane.disconnect();
        }
      }
    }
    this.#settle(session);
    this.#sayEnding(session);
  }

  /** Tells the door every second how many requests the end of a session still waits for. */
  #sayEnding(session: DataSession): void {
    if (this.#sessions.get(session.id) !== session) return;
    let executing = 0;
    for (const lane of session.lanes.values()) executing += lane.machine.executing;
    this.#say({ say: "ending", session: session.id, executing });
    const expire = () => this.#sayEnding(session);
    this.#engine.timers.schedule({ expire }, 0, this.#engine.now + FENCING_INTERVAL_MS);
  }

  /** The client closes the session on one of its lanes, here or in another Worker. */
  #close(id: string): void {
    const session = this.#sessions.get(id);
    if (session === undefined) {
      this.#say({ say: "ended", session: id });
      return;
    }
    session.mustSayClosed = true;
    this.#drain(session);
    this.#settleClose(session);
    this.#settle(session);
    this.#sayEnding(session);
  }

  /**
   * Ends the connection of each lane as soon as nothing of the lane executes: nothing new will then. On the one where
   * CLOSE arrived nothing new will anyway, and its answer is still to come.
   */
  #drain(session: DataSession): void {
    session.ending = true;
    session.draining = true;
    for (const lane of session.lanes.values()) {
      if (lane !== session.closing && lane.machine.executing === 0) lane.finish();
    }
  }

  /** Tells the door of a closing session once nothing of its part here executes. */
  #settleClose(session: DataSession): void {
    if (!session.mustSayClosed) return;
    for (const lane of session.lanes.values()) if (lane.machine.executing > 0) return;
    session.mustSayClosed = false;
    this.#say({ say: "closed", session: session.id });
  }

  /** The answer to CLOSE. The door has forgotten the session before: the client may come again at once. */
  #release(id: string): void {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    if (session.closing?.isConnected === true) session.closing.machine.closed();
    for (const one of session.lanes.values()) one.finish();
  }

  /** A disk has become larger or smaller: its clients are told. */
  #resize(index: number, size: number): void {
    if (!this.#devices.has(index)) return;
    this.#devices.resize(index, size);
    const device = this.#devices.get(index);
    for (const { lanes } of this.#sessions.values()) {
      for (const lane of lanes.values()) if (lane.isOf(device)) lane.machine.resized(size);
    }
    this.#nbd?.resized(index);
  }

  /** Forgets a session that is over. */
  #settle(session: DataSession): void {
    if (!session.ending || [...session.lanes.values()].some((lane) => !lane.isIdle)) return;
    for (const lane of session.lanes.values()) {
      this.#fences.delete(lane);
      this.#engine.slots.release(lane.slots);
    }
    this.#sessions.delete(session.id);
    this.#say({ say: "ended", session: session.id });
    this.#settleStop();
  }

  /** When everybody has gone: the last sync of each disk, and its end. */
  #settleStop(): void {
    if (this.#stopping === null || this.#sessions.size > 0 || this.#nbd?.isIdle === false || this.#isClosing) return;
    this.#isClosing = true;
    const reply = this.#stopping;
    this.#devices.removeAll((failures) => {
      if (failures.length === 0) reply.answer();
      else reply.refuse(`Cannot sync at the end: ${failures.join(", ")}; what no flush covered may be lost`);
      this.#engine.stop();
    });
  }
}
