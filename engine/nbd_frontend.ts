/**
 * The NBD front-end: serves block devices to NBD clients, each connection by the sans-I/O machine of `protocol/nbd/`.
 *
 * All connections to one export are one holder of it: an arbiter is asked when the first comes, and told when the last
 * has gone.
 *
 * @module
 */
import { formatSocketAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import { HANDSHAKE_TIME_MS } from "../protocol/limits.ts";
import {
  NBD_SCRATCH_BYTES,
  type NbdExport,
  type NbdHost,
  type NbdRefusal,
  NbdServer,
  OPEN_PENDING,
  OptionReply,
} from "../protocol/nbd/mod.ts";
import type { BlockClient, BlockDevice } from "./block.ts";
import type { Engine } from "./engine.ts";
import { Listener } from "./listener.ts";
import { SLOT_PAYLOAD_BYTES } from "./slots.ts";
import { type Stream, STREAM_SCRATCH_BYTES, type StreamOwner } from "./stream.ts";
import type { TimerHandler } from "./timers.ts";

/** Slots of a connection: requests that can execute at once, as deep as the deepest usual client queue. */
export const NBD_SLOTS = 64;
/** Connections that may be in the handshake at once, as many as at the exporter's door: a stranger costs one slot. */
export const NBD_HANDSHAKES_MAX = 64;
/** Room in a unix socket: four of the largest replies, so that one is sent while the next is read. A fifth faster for
 * large reads than the kernel's default, measured. */
const SEND_BUFFER_BYTES = 4 * SLOT_PAYLOAD_BYTES;
/** Token of bytes that are the machine's own. Above every slot's. */
const MACHINE_TOKEN = NBD_SLOTS;

if (NBD_SCRATCH_BYTES > STREAM_SCRATCH_BYTES) throw new Error("The NBD machine's scratch does not fit its stream's");

/** A disk to be served. */
export interface NbdDisk {
  readonly name: string;
  readonly device: BlockDevice;
}

/** Decides who may use an export. */
export interface NbdArbiter {
  /** The first client has come; {@link NbdFrontend.opened} is to be called, now or later. */
  wantExport(index: number, address: string): void;
  /** The last client has gone and nothing of it executes, or the wish has become void. */
  leaveExport(index: number): void;
  /**
   * Whether a client may connect from there; and use an export, where one is named, or learn of it. Without this every
   * client may everything.
   *
   * @param address null where it could not be found out
   */
  admits?(address: SocketAddress | null, exportName: string | null): boolean;
}

/** What clients may cost before they are in transmission. */
export interface NbdFrontendLimits {
  /** Whoever is silent for so long in the handshake is sent away, in milliseconds. */
  readonly handshakeTimeMs: number;
  /** How many may be in the handshake at once. */
  readonly handshakesMax: number;
}

const LIMITS: NbdFrontendLimits = { handshakeTimeMs: HANDSHAKE_TIME_MS, handshakesMax: NBD_HANDSHAKES_MAX };

/** An export's clients. */
interface Use {
  state: "closed" | "asking" | "open";
  readonly connections: Set<NbdConnection>;
  /** Those that wait for the arbiter. */
  readonly waiting: Set<NbdConnection>;
}

/** All NBD connections of one engine. */
export class NbdFrontend implements TimerHandler {
  readonly #engine: Engine;
  /** By their index; null for one that was removed. */
  readonly #disks: (NbdDisk | null)[];
  readonly #arbiter: NbdArbiter;
  readonly #log: (text: string) => void;
  readonly #limits: NbdFrontendLimits;
  readonly #uses: Use[];
  readonly #connections = new Set<NbdConnection>();
  #listener: Listener | null = null;
  /** The one timer that looks after all handshakes is running. */
  #watching = false;

  /**
   * @param log gets a line for people
   * @param limits other than the usual, for tests
   */
  constructor(
    engine: Engine,
    disks: readonly NbdDisk[],
    arbiter: NbdArbiter,
    log: (text: string) => void,
    limits: NbdFrontendLimits = LIMITS,
  ) {
    this.#engine = engine;
    this.#disks = [...disks];
    this.#arbiter = arbiter;
    this.#log = log;
    this.#limits = limits;
    this.#uses = disks.map(() => ({ state: "closed", connections: new Set(), waiting: new Set() }));
  }

  /** Serves one more, with an index that was never used. */
  add(index: number, disk: NbdDisk): void {
    while (this.#disks.length <= index) {
      this.#disks.push(null);
      this.#uses.push({ state: "closed", connections: new Set(), waiting: new Set() });
    }
    this.#disks[index] = disk;
  }

  /** Serves one no more, which no client uses; the arbiter refuses those that still wait for it. */
  remove(index: number): void {
    if (index >= this.#disks.length) return;
    if (this.#uses[index].connections.size > 0) throw new Error("Cannot remove an export that is in use");
    this.#disks[index] = null;
  }

  /**
   * The disk has another size now. Clients that connect from now on are told. The protocol has no word for those that are
   * there: what is beyond a smaller one's end is refused.
   */
  resized(index: number): void {
    const size = this.#disks[index]?.device.geometry.size;
    if (size === undefined) return;
    for (const connection of this.#uses[index].connections) connection.resized(size);
  }

  /** Whether no client is left. */
  get isIdle(): boolean {
    return this.#connections.size === 0;
  }

  /** Clients that are connected. */
  get clients(): number {
    return this.#connections.size;
  }

  /** Accepts clients from a listening socket, which is the front-end's from now on. */
  listen(fd: number): void {
    this.#listener = new Listener(this.#engine, fd, (accepted) => this.#accept(accepted));
  }

  /** The arbiter's answer: null is yes. */
  opened(index: number, refusal: string | null): void {
    const use = this.#uses[index];
    const waiting = [...use.waiting];
    use.waiting.clear();
    use.state = refusal === null ? "open" : "closed";
    for (const connection of waiting) connection.opened(refusal);
    if (refusal === null) this.#leaveIfUnused(index);
  }

  /**
   * Cuts off all clients of an export; the arbiter hears when the last has gone.
   *
   * @returns false when there are none
   */
  disconnect(index: number): boolean {
    const use = this.#uses[index];
    if (use.state !== "open") return false;
    for (const connection of use.connections) connection.cut();
    return true;
  }

  /** The arbiter thinks otherwise of some addresses now: ends the connections of those that it admits no more. */
  review(): void {
    for (const connection of this.#connections) if (!connection.isAdmitted) connection.stop();
  }

  /** Accepts nobody any more; answers what executes and lets the clients go. */
  stop(): void {
    this.#listener?.close();
    for (const connection of this.#connections) connection.stop();
  }

  /** @ignore by connections: whether the arbiter lets that address in, and to the export where one is named */
  admits(address: SocketAddress | null, exportName: string | null): boolean {
    return this.#arbiter.admits?.(address, exportName) ?? true;
  }

  /** @ignore by connections */
  list(address: SocketAddress | null): { name: string; description: string }[] {
    const seen = this.#disks.filter((disk) => disk !== null && this.admits(address, disk.name));
    return seen.map((disk) => ({ name: disk!.name, description: "" }));
  }

  /** @ignore by connections: the index of an export; the default is the only one there is. -1: there is none. */
  find(name: string): number {
    const present = this.#disks.filter((disk) => disk !== null);
    if (name === "" && present.length === 1) return this.#disks.indexOf(present[0]);
    return this.#disks.findIndex((disk) => disk?.name === name);
  }

  /** @ignore by connections: one that they use, so that it is there */
  disk(index: number): NbdDisk {
    return this.#disks[index]!;
  }

  /** @ignore by connections: `opened` of the connection is called with the answer, now or later. */
  enter(index: number, connection: NbdConnection): void {
    const use = this.#uses[index];
    if (use.state === "open") return connection.opened(null);
    use.waiting.add(connection);
    if (use.state === "closed") {
      use.state = "asking";
      this.#arbiter.wantExport(index, connection.address);
    }
  }

  /** @ignore by connections that were let in */
  entered(index: number, connection: NbdConnection): void {
    this.#uses[index].connections.add(connection);
  }

  /** @ignore by connections of which nothing is left */
  gone(connection: NbdConnection, index: number): void {
    this.#connections.delete(connection);
    if (index < 0) return;
    const use = this.#uses[index];
    use.waiting.delete(connection);
    use.connections.delete(connection);
    this.#leaveIfUnused(index);
  }

  /** @ignore by connections */
  log(text: string): void {
    this.#log(text);
  }

  #leaveIfUnused(index: number): void {
    const use = this.#uses[index];
    if (use.state !== "open" || use.connections.size > 0) return;
    use.state = "closed";
    this.#arbiter.leaveExport(index);
  }

  #accept(fd: number): void {
    const { calls } = this.#engine.loop;
    const peer = calls.peerAddress(fd);
    const address = peer === null || peer.family === "unix" ? "this machine" : formatSocketAddress(peer);
    if (!this.admits(peer, null)) {
      calls.close(fd);
      this.#log(`Refused ${address}: nobody may connect from there`);
      return;
    }
    if (peer?.family === "unix") calls.setSendBuffer(fd, SEND_BUFFER_BYTES);
    else calls.setNoDelay(fd);
    let handshakes = 0;
    for (const connection of this.#connections) if (connection.isShakingHands) handshakes++;
    if (handshakes >= this.#limits.handshakesMax) {
      calls.close(fd);
      this.#log(`Refused ${address}: ${handshakes} NBD clients are in the handshake already`);
      return;
    }
    const connection = new NbdConnection(this, this.#engine, address, peer);
    const stream = this.#engine.streams.open(fd, connection);
    if (stream === null) {
      calls.close(fd);
      this.#log(`Refused ${address}: there is no memory for one more NBD connection`);
      return;
    }
    this.#connections.add(connection);
    connection.start(stream);
    if (!this.#watching) this.#watch(this.#engine.now + this.#limits.handshakeTimeMs);
  }

  #watch(deadlineMs: number): void {
    this.#watching = true;
    this.#engine.timers.schedule(this, 0, deadlineMs);
  }

  /** @ignore by the engine's timers: sends away who has been silent in the handshake for too long. */
  expire(): void {
    this.#watching = false;
    const { handshakeTimeMs } = this.#limits;
    const now = this.#engine.now;
    let next = Infinity;
    for (const connection of this.#connections) {
      if (!connection.isShakingHands) continue;
      const deadline = connection.heardMs + handshakeTimeMs;
      if (deadline > now) {
        next = Math.min(next, deadline);
      } else {
        this.#log(`${connection.address} was sent away: it said nothing for ${handshakeTimeMs / 1000} s`);
        connection.cut();
      }
    }
    if (next < Infinity) this.#watch(next);
  }
}

/** What a connection has in the handshake. */
const NO_SLOTS = new Uint32Array(0);

/** One NBD client. */
class NbdConnection implements NbdHost, StreamOwner, BlockClient {
  readonly address: string;
  readonly #socketAddress: SocketAddress | null;
  readonly #frontend: NbdFrontend;
  readonly #engine: Engine;
  /** Reserved when the client wants to enter transmission: in the handshake none is needed. */
  #slots: Uint32Array = NO_SLOTS;
  /** This connection's index of each of the Worker's slots. */
  readonly #indexOf: Uint8Array;
  readonly #free = new Uint8Array(NBD_SLOTS);
  #freeCount = 0;
  #heardMs = 0;
  #server!: NbdServer;
  #stream: Stream | null = null;
  #export = -1;
  #device!: BlockDevice;
  #stopping = false;
  /** The arbiter has not answered yet. */
  #opening = false;
  /** The arbiter is being asked. An answer that it gives right then is the machine's as the outcome of its call. */
  #asking = false;
  #outcome: NbdExport | NbdRefusal | null = null;

  constructor(frontend: NbdFrontend, engine: Engine, address: string, socketAddress: SocketAddress | null) {
    this.#socketAddress = socketAddress;
    this.#frontend = frontend;
    this.#engine = engine;
    this.address = address;
    this.#indexOf = new Uint8Array(engine.slots.count);
    this.#heardMs = engine.now;
  }

  /** Whether the arbiter would let it come now, and use what it uses. */
  get isAdmitted(): boolean {
    // While it waits for the arbiter, that decides.
    const name = this.#export < 0 || this.#opening ? null : this.#frontend.disk(this.#export).name;
    return this.#frontend.admits(this.#socketAddress, name);
  }

  /** Whether it is connected and not in transmission. */
  get isShakingHands(): boolean {
    return this.#stream !== null && this.#stream.isOpen && this.#server.exported === null;
  }

  /** When the client was last heard from, or last waited for the arbiter, in the engine's milliseconds. */
  get heardMs(): number {
    return this.#opening ? this.#engine.now : this.#heardMs;
  }

  /** Greets the client. */
  start(stream: Stream): void {
    this.#stream = stream;
    this.#server = new NbdServer({
      memory: this.#engine.arena,
      host: this,
      slots: NBD_SLOTS,
      slotBytes: SLOT_PAYLOAD_BYTES,
      scratchAt: stream.scratchAt,
    });
    this.#server.start();
    stream.start(this.#server);
  }

  /** The arbiter's answer to this connection's wish. */
  opened(refusal: string | null): void {
    this.#opening = false;
    this.#heardMs = this.#engine.now;
    let outcome: NbdExport | NbdRefusal;
    if (refusal === null) {
      this.#frontend.entered(this.#export, this);
      outcome = this.#describe();
    } else {
      this.#export = -1;
      this.#releaseSlots();
      outcome = { refused: OptionReply.ERR_POLICY, message: refusal };
    }
    if (this.#asking) {
      this.#outcome = outcome;
    } else {
      this.#server.opened(outcome);
      this.#stream?.resume();
    }
  }

  /** Ends the connection at once. */
  cut(): void {
    this.#stream?.close();
  }

  /** Ends the connection when what executes is answered. */
  stop(): void {
    this.#stopping = true;
    this.#server.shutDown();
    if (this.#server.executing === 0) this.#stream?.finish();
  }

  // The machine's host.

  listExports() {
    return this.#frontend.list(this.#socketAddress);
  }

  openExport(name: string, enter: boolean): NbdExport | NbdRefusal | typeof OPEN_PENDING {
    const index = this.#frontend.find(name);
    const isThere = index >= 0 && this.#frontend.admits(this.#socketAddress, this.#frontend.disk(index).name);
    if (!isThere) return { refused: OptionReply.ERR_UNKNOWN, message: `there is no export "${name}"` };
    this.#device = this.#frontend.disk(index).device;
    if (!enter) return this.#describe(index);
    if (!this.#reserveSlots()) {
      this.#frontend.log(`Refused ${this.address}: there is no memory for one more NBD connection`);
      return { refused: OptionReply.ERR_POLICY, message: "the server has no memory for one more connection" };
    }
    this.#export = index;
    this.#opening = true;
    this.#asking = true;
    this.#frontend.enter(index, this);
    this.#asking = false;
    return this.#opening ? OPEN_PENDING : this.#outcome!;
  }

  transmit(at: number, bytes: number, slot: number): void {
    const token = slot < 0 ? MACHINE_TOKEN : slot;
    if (this.#stream !== null && this.#stream.canTransmit) this.#stream.transmit(at, bytes, token);
    else if (slot >= 0) this.releaseSlot(slot);
  }

  takeSlot(): number {
    return this.#freeCount === 0 ? -1 : this.#free[--this.#freeCount];
  }

  releaseSlot(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }

  payloadAt(slot: number): number {
    return this.#engine.slots.payloadAt(this.#slots[slot]);
  }

  execute(slot: number, operation: number, offset: number, length: number, flags: number): number {
    const own = this.#slots[slot];
    this.#engine.slots.setRange(own, offset, length);
    return this.#device.submit(own, operation, flags, this);
  }

  extentBytes(slot: number): number {
    return this.#device.extentBytes(this.#slots[slot]);
  }

  disconnect(): void {
    this.#stream?.close();
  }

  // The disk's client.

  onComplete(slot: number, status: number): void {
    this.#server.complete(this.#indexOf[slot], status);
    // A DISC may have waited for this request, and so may the end.
    this.#stream?.resume();
    if (this.#server.executing > 0) return;
    if (this.#stream === null) this.#end();
    else if (this.#stopping) this.#stream.finish();
  }

  // The stream's owner.

  onHeard(): void {
    this.#heardMs = this.#engine.now;
  }

  onSent(_stream: Stream, token: number): void {
    if (token === MACHINE_TOKEN) this.#server.sent();
    else this.releaseSlot(token);
    this.#stream!.resume();
  }

  onDrained(): void {}

  onClosed(): void {
    this.#stream = null;
    this.#server.abandon();
    if (this.#server.executing === 0) this.#end();
  }

  #end(): void {
    this.#releaseSlots();
    this.#frontend.gone(this, this.#export);
  }

  /** @ignore by the front-end: its disk has so many bytes now. */
  resized(size: number): void {
    if (this.#server.exported !== null) this.#server.exported.size = size;
  }

  #reserveSlots(): boolean {
    const slots = this.#engine.slots.reserve(NBD_SLOTS);
    if (slots === null) return false;
    this.#slots = slots;
    this.#freeCount = NBD_SLOTS;
    for (let i = 0; i < NBD_SLOTS; i++) {
      this.#indexOf[slots[i]] = i;
      this.#free[i] = NBD_SLOTS - 1 - i;
    }
    return true;
  }

  #releaseSlots(): void {
    this.#engine.slots.release(this.#slots);
    this.#slots = NO_SLOTS;
    this.#freeCount = 0;
  }

  #describe(index = this.#export): NbdExport {
    const { name, device } = this.#frontend.disk(index);
    const { geometry } = device;
    return {
      name,
      description: "",
      size: geometry.size,
      minimumBlock: geometry.logicalBlock,
      preferredBlock: Math.max(geometry.logicalBlock, geometry.optimalIo, 4096),
      readOnly: geometry.readOnly,
      canTrim: geometry.discardGranularity > 0,
      fastZero: geometry.fastZero,
      multiConn: true,
    };
  }
}
