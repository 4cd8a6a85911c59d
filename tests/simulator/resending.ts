/**
 * A session that survives its connections, over the protocol's own machines: it joins its lanes again with higher
 * generations, resends what is unacknowledged, and opens itself again where the exporter does not know it any more. It is
 * as small as the exporter's side of all this needs to be exercised.
 *
 * @module
 */
import {
  type BlockClient,
  type BlockDevice,
  type Geometry,
  Operation,
  PENDING,
  RequestFlag,
} from "../../engine/block.ts";
import type { Random } from "../../engine/random.ts";
import { Task } from "../../engine/engine.ts";
import type { Stream } from "../../engine/stream.ts";
import type { DoorConnection, GrantedLane } from "../../client/connector.ts";
import { geometryOf } from "../../client/geometry.ts";
import { MutationLedger } from "../../client/ledger.ts";
import { isMutation } from "../../client/transactions.ts";
import { Errno } from "../../ffi/errno.ts";
import { CLIENT_LANE_CONTROL_BYTES, ClientLane, type ClientLaneHost } from "../../protocol/client_lane.ts";
import type { ClientDoor } from "../../protocol/client_door.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "../../protocol/codec.ts";
import { Access, type Grant, type Identities } from "../../protocol/grant.ts";
import { Status, statusName } from "../../protocol/status.ts";
import {
  type Attachment,
  type AttachmentHost,
  type AttachmentOwner,
  type AttachmentWish,
  targetOf,
} from "./attachment.ts";
import { EXPORT_NAME } from "./exporter_machine.ts";

/** How long to wait before the next try, in ms: at first at most so long, and in the end. */
const RETRY_MS = 20;
const RETRY_MAX_MS = 3000;
/** The longest request of the application. */
const MAX_PAYLOAD = 16 * 1024;
if (CODEC_SCRATCH_BYTES + CLIENT_LANE_CONTROL_BYTES > 256 * 1024) throw new Error("A lane's own messages do not fit");

/** What the exporter knows of the session: nothing yet, nothing any more, that it is there. */
const Known = { NEVER: 0, GONE: 1, THERE: 2 } as const;

/** The session. */
export class ResendingAttachment implements Attachment {
  readonly takesOverlaps = false;
  readonly keepsCopies = false;
  readonly hasLost = false;
  readonly host: AttachmentHost;
  readonly wish: AttachmentWish;
  readonly #owner: AttachmentOwner;
  readonly #leaseMs: number;
  #lanes: ResendingLane[];
  #known: number = Known.NEVER;
  /** An OPEN was asked for whose answer is not known. */
  #mayBeOpen = false;
  identities: Identities | null = null;
  readonly ledger = new MutationLedger();
  /** How often the exporter has begun the session. */
  incarnation = 0;
  /** Why it is over. */
  end: string | null = null;
  #isAttached = false;
  #isLeaving = false;
  #isTold = false;

  constructor(host: AttachmentHost, wish: AttachmentWish, owner: AttachmentOwner) {
    this.host = host;
    this.wish = wish;
    this.#owner = owner;
    this.#leaseMs = 5000 + host.world.random.below(60_000);
    this.#lanes = [new ResendingLane(this, 0)];
    this.#lanes[0].reach(0);
  }

  isLost(): boolean {
    return this.end !== null;
  }

  disturb(random: Random): void {
    this.#lanes[random.below(this.#lanes.length)].disturb();
  }

  leave(): void {
    if (this.end !== null) return;
    this.#isLeaving = true;
    if (!this.#lanes[0].sayClose()) this.die("left without a word");
  }

  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Whether a lane may ask for its connection; lane 0 begins the session where there is none. */
  mayAsk(lane: number): boolean {
    return lane === 0 || this.#known === Known.THERE;
  }

  /** Asks at the door for what the lane needs. */
  ask(door: ClientDoor, lane: ResendingLane): void {
    const { wish } = this;
    const { world } = this.host;
    const { session, depth } = wish;
    if (this.#known === Known.THERE || this.#mayBeOpen) {
      // Where the session may have been begun anew, its slots are as empty as this side's.
      const fresh = lane.incarnation !== this.incarnation || this.#mayBeOpen;
      lane.generation++;
      world.counters.count("lanes joined");
      door.join({ session, lane: lane.number, generation: lane.generation, depth, maxPayload: MAX_PAYLOAD, fresh });
      return;
    }
    this.#mayBeOpen = true;
    const resume = this.#known === Known.NEVER ? null : this.identities;
    world.counters.count(resume === null ? "sessions asked for" : "sessions asked for again");
    lane.generation = Math.max(lane.generation, 1);
    door.open({
      export: EXPORT_NAME,
      session,
      access: wish.readOnly ? Access.READ : Access.READ_WRITE,
      holder: wish.holder,
      leaseMs: this.#leaseMs,
      depth,
      maxPayload: MAX_PAYLOAD,
      lanes: wish.lanes,
      steal: resume === null && wish.steal,
      resume,
    });
  }

  /** The lane's request at the door was granted: whether it may go on. */
  granted(grant: Grant, lane: ResendingLane): boolean {
    const { world } = this.host;
    if (this.end !== null || !this.mayAsk(lane.number)) return false;
    if (this.#known !== Known.THERE) {
      this.#known = Known.THERE;
      this.#mayBeOpen = false;
      this.incarnation++;
      // What is still on its way from before does not count any more.
      for (const other of this.#lanes) if (other !== lane) other.disturb();
      if (this.incarnation > 1) world.counters.count("sessions resumed");
    }
    this.identities = grant.identities;
    this.ledger.meet(grant.identities.durability);
    if (this.ledger.isLost) {
      world.counters.count("sessions that lost what was acknowledged");
      this.die("what was acknowledged is lost");
      return false;
    }
    const lanes = Math.min(this.wish.lanes, grant.lanes);
    for (let number = this.#lanes.length; number < lanes; number++) {
      const other = new ResendingLane(this, number);
      this.#lanes.push(other);
    }
    for (const other of this.#lanes) if (other !== lane) other.nudge();
    return true;
  }

  /** A lane goes on. */
  connected(): void {
    if (this.#isAttached || !this.#lanes.every((lane) => lane.hasMachine)) return;
    this.#isAttached = true;
    this.#owner.attached(this.#lanes);
  }

  /** The lane's request at the door was refused. */
  refused(status: number, text: string, incarnation: number): void {
    const { counters } = this.host.world;
    counters.count(`refused: ${statusName(status)}`);
    switch (status) {
      case Status.NO_SESSION:
        if (incarnation !== this.incarnation) return;
        this.#mayBeOpen = false;
        if (this.#known === Known.THERE) this.#known = Known.GONE;
        for (const lane of this.#lanes) lane.drop();
        return;
      case Status.SESSION_EXISTS:
        this.#mayBeOpen = true;
        return;
      case Status.OLD_GENERATION:
        return;
      case Status.EPOCH_CHANGED:
      case Status.STORAGE_CHANGED:
      case Status.DENIED:
      case Status.NOT_FOUND:
        return this.die(text);
      case Status.BUSY:
        // Whoever was never let in may give up; nobody else is to find the export taken.
        if (this.#known !== Known.NEVER) throw new Error("A session that is resumed finds the export busy");
        return this.die(text);
      default:
        this.#mayBeOpen = false;
    }
  }

  /** It is over: what is under way fails. */
  die(reason: string): void {
    if (this.end !== null) return;
    this.end = reason;
    for (const lane of this.#lanes) lane.fail();
    this.settle();
  }

  /** Tells the owner once nothing is left. */
  settle(): void {
    if (this.end === null || this.#isTold || !this.#lanes.every((lane) => lane.isGone)) return;
    this.#isTold = true;
    for (const lane of this.#lanes) lane.release();
    this.#owner.lost(this.end);
  }
}

/** One lane. */
class ResendingLane implements BlockDevice, ClientLaneHost, GrantedLane {
  geometry!: Geometry;
  readonly number: number;
  readonly #session: ResendingAttachment;
  readonly #task: Task;
  #machine: ClientLane | null = null;
  #grant: Grant | null = null;
  #controlSlots: Uint32Array | null = null;
  #codecAt = 0;
  #connection: DoorConnection | null = null;
  #stream: Stream | null = null;
  generation = 0;
  /** The session's when the lane was last joined. */
  incarnation = 0;
  #failures = 0;
  #isRetrying = false;
  #isTicking = false;
  /** By the lane's slot: the Worker's, or -1. */
  #slotOf = new Int32Array(0);
  #operations = new Uint8Array(0);
  #flags = new Uint8Array(0);
  #marks = new Int32Array(0);
  #clients: (BlockClient | null)[] = [];
  readonly #range = new Float64Array(2);
  #extentBytes = new Uint32Array(0);

  constructor(session: ResendingAttachment, number: number) {
    this.#session = session;
    this.number = number;
    this.#task = new Task(() => this.#goOn());
  }

  get hasMachine(): boolean {
    return this.#machine !== null;
  }

  /** Whether nothing of it is left. */
  get isGone(): boolean {
    return this.#stream === null;
  }

  /** Gives its memory back. */
  release(): void {
    if (this.#controlSlots !== null) this.#engine.slots.release(this.#controlSlots);
  }

  /** Tries to connect after so long, in ms. */
  reach(delayMs: number): void {
    if (this.#isRetrying || this.#session.end !== null) return;
    this.#isRetrying = true;
    const { engine } = this.#session.host.thread;
    engine.timers.schedule({ expire: () => this.#try() }, 0, engine.now + delayMs);
  }

  /** Tries to connect where it is not, after the others may have changed something. */
  nudge(): void {
    if (this.#stream === null && this.#connection === null) this.reach(0);
  }

  /** Loses its connection, by its own will. */
  disturb(): void {
    this.#stream?.close();
  }

  /** The session has to be begun anew: gives up whatever connection there is. */
  drop(): void {
    this.#connection?.end();
    this.#connection = null;
    this.#stream?.close();
    this.#later();
  }

  /** Ends the session; false: there is no connection to say so on. */
  sayClose(): boolean {
    if (this.#machine === null || !this.#machine.isConnected || this.#stream?.isOpen !== true) return false;
    this.#machine.close();
    return true;
  }

  /** Fails what is under way. */
  fail(): void {
    this.#connection?.end();
    this.#connection = null;
    this.#stream?.close();
    for (let laneSlot = 0; laneSlot < this.#slotOf.length; laneSlot++) {
      const slot = this.#slotOf[laneSlot];
      if (slot < 0) continue;
      this.#slotOf[laneSlot] = -1;
      this.#finish(slot, -Errno.ESTALE);
    }
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    if (this.#session.end !== null) return -Errno.ESTALE;
    const laneSlot = this.#slotOf.indexOf(-1);
    if (laneSlot < 0) throw new Error("The application has more requests under way than the lane has slots");
    this.#slotOf[laneSlot] = slot;
    this.#operations[laneSlot] = operation;
    this.#flags[laneSlot] = flags;
    this.#marks[laneSlot] = this.#session.ledger.mark();
    this.#clients[slot] = client;
    this.#request(laneSlot);
    return PENDING;
  }

  extentBytes(slot: number): number {
    return this.#extentBytes[slot];
  }

  close(): void {}

  // Who goes on with a connection that was granted.

  onHeard(): void {
    this.#machine?.heard(this.#engine.now);
  }

  onSent(): void {
    this.#machine?.heard(this.#engine.now);
  }

  onClosed(): void {
    this.#stream = null;
    this.#machine!.disconnect();
    const { end, isLeaving } = this.#session;
    if (end === null && isLeaving) this.#session.die("left without an answer");
    if (this.#session.end === null) this.#later();
    else this.#session.settle();
  }

  connect(stream: Stream, handoff: Handoff): void {
    const { arena, cryptography } = this.#engine;
    const { counters, random } = this.#session.host.world;
    this.#stream = stream;
    this.#connection = null;
    this.#failures = 0;
    if (this.incarnation !== this.#session.incarnation) {
      this.#begin();
      this.incarnation = this.#session.incarnation;
    }
    const machine = this.#machine!;
    machine.connect(new FrameCodec(arena, cryptography, this.#codecAt, handoff), this.#engine.now);
    stream.start(machine);
    if (this.#stream === null) return;
    const first = random.below(machine.depth);
    for (let i = 0; i < machine.depth; i++) {
      const laneSlot = (first + i) % machine.depth;
      if (!machine.isUnsent(laneSlot)) continue;
      counters.count("requests resent");
      machine.resend(laneSlot);
    }
    this.#tick();
    this.#session.connected();
  }

  // The machine's host.

  get turn(): number {
    return this.#engine.turnNumber;
  }

  again(): void {
    this.#engine.again(this.#task);
  }

  transmit(at: number, bytes: number): void {
    this.#stream!.transmit(at, bytes, 0);
  }

  completed(laneSlot: number, status: number, payloadBytes: number): void {
    const slot = this.#slotOf[laneSlot];
    // It was not executed: the next exporter will.
    if (status === -Errno.ESHUTDOWN) return;
    const { ledger } = this.#session;
    if (status === 0) {
      if (this.#operations[laneSlot] === Operation.FLUSH) ledger.cover(this.#marks[laneSlot]);
      else if (isMutation(this.#operations[laneSlot]) && (this.#flags[laneSlot] & RequestFlag.FUA) === 0) {
        ledger.acknowledge();
      }
    }
    this.#slotOf[laneSlot] = -1;
    this.#extentBytes[slot] = payloadBytes;
    this.#finish(slot, status);
  }

  resized(): void {}

  shuttingDown(): void {}

  fenced(): void {
    this.#session.host.world.counters.count("sessions fenced");
    this.#session.die("another client has taken over the export");
  }

  closed(): void {
    this.#session.host.world.counters.count("sessions closed");
    this.#session.die("left");
  }

  expire(): void {
    this.#isTicking = false;
    this.#tick();
  }

  get #engine() {
    return this.#session.host.thread.engine;
  }

  #try(): void {
    this.#isRetrying = false;
    const session = this.#session;
    if (session.end !== null || this.#stream !== null || this.#connection !== null) return;
    // Lane 0 nudges the others when there is a session.
    if (!session.mayAsk(this.number)) return;
    const { incarnation } = session;
    const connection = session.host.connector.connect(targetOf(session.host.world), {
      ready: (door) => session.ask(door, this),
      granted: (grant) => {
        if (session.granted(grant, this) && this.#prepare(grant)) return this;
        this.#connection = null;
        this.#later();
        return null;
      },
      refused: (status, text) => {
        connection.end();
        this.#connection = null;
        session.refused(status, text, incarnation);
        this.#later();
      },
      failed: () => {
        this.#connection = null;
        this.#later();
      },
    });
    this.#connection = connection;
  }

  /** Tries again in a while. */
  #later(): void {
    const most = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** this.#failures++);
    this.reach(this.#session.host.world.random.next() * most);
  }

  /** Makes the lane's memory when it is granted for the first time. */
  #prepare(grant: Grant): boolean {
    const { slots } = this.#engine;
    if (this.#grant !== null) {
      if (grant.slots !== this.#grant.slots) throw new Error("The exporter grants another depth than before");
      return true;
    }
    this.#controlSlots = slots.reserve(1);
    if (this.#controlSlots === null) return false;
    this.#grant = grant;
    this.#codecAt = slots.payloadAt(this.#controlSlots[0]);
    this.geometry = geometryOf(grant);
    this.#slotOf = new Int32Array(grant.slots).fill(-1);
    this.#operations = new Uint8Array(grant.slots);
    this.#flags = new Uint8Array(grant.slots);
    this.#marks = new Int32Array(grant.slots);
    this.#clients = new Array<BlockClient | null>(slots.count).fill(null);
    this.#extentBytes = new Uint32Array(slots.count);
    return true;
  }

  /** The exporter remembers nothing of the lane: what is under way is asked for as if for the first time. */
  #begin(): void {
    const grant = this.#grant!;
    this.#machine = new ClientLane(this.#engine.arena, {
      lane: this.number,
      depth: grant.slots,
      maxPayload: grant.maxPayload,
      controlAt: this.#codecAt + CODEC_SCRATCH_BYTES,
      payloadBytes: grant.payloadBytes,
      logicalBlock: grant.logicalBlock,
    }, this);
    for (let laneSlot = 0; laneSlot < grant.slots; laneSlot++) if (this.#slotOf[laneSlot] >= 0) this.#request(laneSlot);
  }

  /** Asks for what a slot of the lane holds; sent by `resend` where there is no connection. */
  #request(laneSlot: number): void {
    const { slots } = this.#engine;
    const slot = this.#slotOf[laneSlot];
    this.#range[0] = slots.offset[slot];
    this.#range[1] = slots.length[slot];
    const operation = this.#operations[laneSlot];
    this.#machine!.request(laneSlot, slots.payloadAt(slot), operation, this.#range, this.#flags[laneSlot]);
  }

  #tick(): void {
    if (this.#stream === null || this.#isTicking) return;
    const { engine } = this.#session.host.thread;
    const waitMs = this.#machine!.tick(engine.now);
    if (this.#machine!.error !== 0) {
      this.#stream.close();
      return;
    }
    if (waitMs === Infinity) return;
    this.#isTicking = true;
    engine.timers.schedule(this, 0, engine.now + waitMs);
  }

  #goOn(): void {
    if (this.#stream === null) return;
    this.#machine!.run();
    this.#stream?.resume();
  }

  #finish(slot: number, status: number): void {
    const client = this.#clients[slot]!;
    this.#clients[slot] = null;
    client.onComplete(slot, status);
  }
}
