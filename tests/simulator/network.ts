/**
 * The simulated network: TCP connections between machines, which delay, stall, break, go silent and change bytes.
 *
 * @module
 */
import type { Random } from "../../engine/random.ts";
import { Errno } from "../../ffi/errno.ts";
import type { Counters } from "./counters.ts";
import type { Event, Events } from "./clock.ts";

/** What the network is like, for a while. Times in milliseconds. */
export interface NetworkManner {
  /** The least time of a segment on its way, and how much more it may be. */
  delayMs: number;
  jitterMs: number;
  /** Bytes in a millisecond. */
  bytesPerMs: number;
  /** How likely a segment is to have a bit changed. */
  corruption: number;
}

/** Bytes that one direction takes before its sender has to wait. */
const BUFFER_BYTES = 96 * 1024;
/** How long a machine that comes back needs to say that it knows nothing of a connection. */
const RESET_MS = 1;
const NOTHING = new Uint8Array(0);

/** A network end that somebody has: a socket. */
export interface EndOwner {
  /** There is something to receive, or room to send, or the connection has ended. */
  onChange(): void;
}

/** What goes from one end to the other. */
const Segment = { DATA: 0, FIN: 1, RESET: 2 } as const;

/** One end of a connection: what has arrived there, and what is on the way to it. */
export class End implements Event {
  readonly connection: Connection;
  readonly machine: string;
  owner: EndOwner | null = null;
  other!: End;
  /** What has arrived, in pieces; of the first, so much was taken. */
  readonly #inbox: Uint8Array[] = [];
  #taken = 0;
  available = 0;
  /** What is on the way here, the first to arrive first. */
  readonly #flight: { kind: number; bytes: Uint8Array }[] = [];
  #flightBytes = 0;
  #lastArrival = 0;
  /** The other end sends nothing any more. */
  isEnded = false;
  /** The connection is reset: a negative errno. */
  error = 0;
  /** This end sends nothing any more. */
  isFinished = false;
  /** Its descriptor is closed. */
  isClosed = false;

  constructor(connection: Connection, machine: string) {
    this.connection = connection;
    this.machine = machine;
  }

  /** Room for what this end sends. */
  get room(): number {
    return BUFFER_BYTES - this.other.#flightBytes - this.other.available;
  }

  /** Sends bytes, which are the network's from now on. */
  send(bytes: Uint8Array): void {
    this.connection.network.corrupt(bytes);
    this.#post(Segment.DATA, bytes);
  }

  /** Sends the end of the stream. */
  finish(): void {
    if (this.isFinished) return;
    this.isFinished = true;
    if (this.error === 0) this.#post(Segment.FIN, NOTHING);
  }

  /** The descriptor is closed: what arrives from now on is refused. */
  close(): void {
    this.owner = null;
    this.isClosed = true;
    if (this.available > 0 && this.error === 0) this.reset();
    else this.finish();
  }

  /** Ends the connection for both without another word. */
  reset(): void {
    this.isFinished = true;
    this.#post(Segment.RESET, NOTHING);
  }

  /** Its machine has no power any more: nobody hears of it. */
  vanish(): void {
    this.owner = null;
    this.isClosed = true;
    this.isFinished = true;
    this.error = -Errno.ECONNRESET;
    this.connection.lost(this);
  }

  /** Takes bytes that have arrived; there are so many. */
  take(into: Uint8Array, at: number, count: number): void {
    this.available -= count;
    while (count > 0) {
      const first = this.#inbox[0];
      const some = Math.min(count, first.length - this.#taken);
      if (some === first.length) into.set(first, at);
      else into.set(first.subarray(this.#taken, this.#taken + some), at);
      at += some;
      count -= some;
      this.#taken += some;
      if (this.#taken === first.length) {
        this.#inbox.shift();
        this.#taken = 0;
      }
    }
    this.other.owner?.onChange();
  }

  /** The next segment arrives. */
  fire(): void {
    const segment = this.#flight.shift();
    // The flight was cut short meanwhile.
    if (segment === undefined) return;
    this.#flightBytes -= segment.bytes.length;
    if (segment.kind === Segment.RESET) {
      this.error = -Errno.ECONNRESET;
      this.owner?.onChange();
      return;
    }
    if (this.isClosed) {
      // Nobody is there: the sender is told, but for the end of a stream that had ended here, too.
      if (segment.kind === Segment.DATA && this.connection.network.isUp(this.machine)) this.reset();
      return;
    }
    if (this.error !== 0) return;
    if (segment.kind === Segment.FIN) this.isEnded = true;
    else {
      this.#inbox.push(segment.bytes);
      this.available += segment.bytes.length;
    }
    this.owner?.onChange();
  }

  /** Of what is on the way here only some arrives, and then the end or a reset. */
  cutShort(keep: number, isReset: boolean): void {
    let left = keep;
    for (const segment of this.#flight) {
      const some = Math.min(left, segment.bytes.length);
      this.#flightBytes -= segment.bytes.length - some;
      segment.bytes = segment.bytes.subarray(0, some);
      if (segment.kind !== Segment.DATA) segment.kind = Segment.DATA;
      left -= some;
    }
    this.#enqueue(isReset ? Segment.RESET : Segment.FIN, NOTHING);
  }

  /** Bytes on the way here. */
  get flightBytes(): number {
    return this.#flightBytes;
  }

  #post(kind: number, bytes: Uint8Array): void {
    const { connection, other } = this;
    if (connection.isBroken) {
      // Whoever has broken it knows nothing of it any more.
      if (kind === Segment.DATA) this.#enqueue(Segment.RESET, NOTHING);
      return;
    }
    if (connection.isCut) {
      // Sent again and again, and never heard: it keeps its room.
      other.#flightBytes += bytes.length;
      return;
    }
    if (!connection.network.isUp(other.machine) || !connection.network.isUp(this.machine)) {
      other.#flightBytes += bytes.length;
      if (kind === Segment.DATA) connection.repeat(this);
      return;
    }
    other.#enqueue(kind, bytes);
  }

  #enqueue(kind: number, bytes: Uint8Array): void {
    const { network } = this.connection;
    const { events } = network;
    const arrival = network.arrival(this.connection, bytes.length);
    this.#lastArrival = Math.max(this.#lastArrival, arrival, events.time);
    this.#flight.push({ kind, bytes });
    this.#flightBytes += bytes.length;
    events.at(this.#lastArrival, this);
  }
}

/** One connection. */
export class Connection {
  readonly network: Network;
  readonly ends: readonly [End, End];
  /** Nothing passes any more, and neither end is told. */
  isCut = false;
  /** It was broken on the way. */
  isBroken = false;
  /** Until when nothing passes. */
  stalledUntil = 0;

  constructor(network: Network, from: string, to: string) {
    this.network = network;
    this.ends = [new End(this, from), new End(this, to)];
    this.ends[0].other = this.ends[1];
    this.ends[1].other = this.ends[0];
  }

  /** Whether nobody has an end of it any more. */
  get isOver(): boolean {
    return this.ends.every((end) => end.isClosed);
  }

  /** It is broken on the way: each end hears of it, after some of what was on the way to it. */
  break(random: Random, isReset: boolean): void {
    this.isBroken = true;
    for (const end of this.ends) end.cutShort(random.below(end.flightBytes + 1), isReset);
  }

  /** One end's machine has crashed. */
  lost(end: End): void {
    this.repeat(end.other);
  }

  /** What an end has sent reaches nobody, and is sent again until the machine there is up: then it is refused. */
  repeat(end: End): void {
    if (end.isClosed || this.isCut) return;
    const { network } = this;
    network.whenUp(end.other.machine, () => {
      if (!end.isClosed && end.error === 0) {
        network.events.after(RESET_MS, {
          fire: () => {
            end.error = -Errno.ECONNRESET;
            end.owner?.onChange();
          },
        });
      }
    });
  }
}

/** All that connects the machines. */
export class Network {
  readonly events: Events;
  readonly manner: NetworkManner;
  readonly #random: Random;
  readonly #counters: Counters;
  #connections: Connection[] = [];
  readonly #down = new Set<string>();
  #waiting: { readonly machine: string; readonly then: () => void }[] = [];
  /** Until when nothing passes between any machines. */
  partitionedUntil = 0;
  /** Until when there are no new connections. */
  closedUntil = 0;

  constructor(events: Events, random: Random, counters: Counters, manner: NetworkManner) {
    this.events = events;
    this.#random = random;
    this.#counters = counters;
    this.manner = manner;
  }

  /** Connections that somebody still has an end of. */
  get connections(): readonly Connection[] {
    this.#connections = this.#connections.filter((connection) => !connection.isOver);
    return this.#connections;
  }

  connect(from: string, to: string): Connection {
    const connection = new Connection(this, from, to);
    this.#connections.push(connection);
    return connection;
  }

  isUp(machine: string): boolean {
    return !this.#down.has(machine);
  }

  /** A machine loses its power, or has it again. */
  setUp(machine: string, isUp: boolean): void {
    if (!isUp) {
      this.#down.add(machine);
      return;
    }
    this.#down.delete(machine);
    const due = this.#waiting.filter((one) => one.machine === machine);
    this.#waiting = this.#waiting.filter((one) => one.machine !== machine);
    for (const { then } of due) then();
  }

  /** Calls a function when a machine is up, now or later. */
  whenUp(machine: string, then: () => void): void {
    if (this.isUp(machine)) then();
    else this.#waiting.push({ machine, then });
  }

  /** When a segment that is sent now arrives. */
  arrival(connection: Connection, bytes: number): number {
    const { delayMs, jitterMs, bytesPerMs } = this.manner;
    const from = Math.max(this.events.time, connection.stalledUntil, this.partitionedUntil);
    return from + delayMs + this.#random.next() * jitterMs + bytes / bytesPerMs;
  }

  /** How long a packet without a connection needs. */
  get tripMs(): number {
    return this.manner.delayMs + this.#random.next() * this.manner.jitterMs;
  }

  /** Changes a bit now and then. */
  corrupt(bytes: Uint8Array): void {
    const { corruption } = this.manner;
    if (corruption === 0 || this.#random.next() >= corruption) return;
    bytes[this.#random.below(bytes.length)] ^= 1 << this.#random.below(8);
    this.#counters.count("segments corrupted");
  }
}
