/**
 * The simulated kernel, as a thread's event loop sees it: sockets over the simulated network, files over the simulated
 * disk. The real engines run on it.
 *
 * @module
 */
import type { Engine } from "../../engine/engine.ts";
import { PollEvent, SocketOption } from "../../ffi/constants.ts";
import type { Calls } from "../../ffi/calls.ts";
import { Errno } from "../../ffi/errno.ts";
import type { CompletionHandler, Loop } from "../../ffi/loop.ts";
import { decodeSockaddr, type SocketAddress } from "../../ffi/sockaddr.ts";
import type { Random } from "../../engine/random.ts";
import type { Event, Events } from "./clock.ts";
import { type Description, type Disk, type DiskCaller, DiskOperation, DiskRequest } from "./disk.ts";
import type { End, EndOwner, Network } from "./network.ts";

/** What the machines have in common. */
export interface Universe {
  readonly events: Events;
  readonly random: Random;
  readonly network: Network;
  /** Who listens, by `HOST:PORT`. */
  readonly listeners: Map<string, Listening>;
  /** Likelihood that a receive or send does only a part. */
  readonly shortTransfers: number;
}

/** A turn that does not end: so many without waiting are a program that spins. */
const TURNS_MAX = 20_000;

/** What is done at once: the first free number of {@link Process.descriptors} is taken. */
type Descriptor = Socket | Listening | OpenFile;

/** An open file of a process. */
export class OpenFile {
  constructor(readonly disk: Disk, readonly description: Description) {}
}

interface Waiting {
  readonly loop: SimLoop;
  readonly at: number;
  readonly bytes: number;
  readonly kind: number;
  readonly tag: number;
  readonly generation: number;
}

/** A socket that listens. */
export class Listening {
  readonly #queue: End[] = [];
  #waiting: Waiting | null = null;
  isShut = false;

  /** A connection has come. */
  arrive(end: End): void {
    if (this.isShut) {
      end.reset();
      return;
    }
    this.#queue.push(end);
    this.settle();
  }

  accept(waiting: Waiting): void {
    this.#waiting = waiting;
    this.settle();
  }

  shut(): void {
    this.isShut = true;
    for (const end of this.#queue.splice(0)) end.reset();
    this.settle();
  }

  /** Nobody has it any more. */
  drop(isSilent: boolean): void {
    this.isShut = true;
    this.#waiting = null;
    for (const end of this.#queue.splice(0)) {
      if (isSilent) end.vanish();
      else end.reset();
    }
  }

  settle(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    if (this.isShut) {
      this.#waiting = null;
      waiting.loop.complete(waiting.kind, waiting.tag, waiting.generation, -Errno.EINVAL);
      return;
    }
    const end = this.#queue.shift();
    if (end === undefined) return;
    this.#waiting = null;
    const socket = new Socket(waiting.loop.process);
    socket.attach(end);
    waiting.loop.complete(waiting.kind, waiting.tag, waiting.generation, waiting.loop.process.open(socket));
  }
}

/** A stream socket. */
export class Socket implements EndOwner {
  readonly process: Process;
  end: End | null = null;
  /** TCP_USER_TIMEOUT, ms. */
  timeoutMs = 0;
  #receiving: Waiting | null = null;
  #sending: Waiting | null = null;
  #isShut = false;

  constructor(process: Process) {
    this.process = process;
  }

  attach(end: End): void {
    this.end = end;
    end.owner = this;
  }

  receive(waiting: Waiting): void {
    if (this.#receiving !== null) throw new Error("Two receives of one socket are under way");
    this.#receiving = waiting;
    this.#tryReceive();
  }

  send(waiting: Waiting): void {
    if (this.#sending !== null) throw new Error("Two sends of one socket are under way");
    this.#sending = waiting;
    this.#trySend();
  }

  onChange(): void {
    this.#tryReceive();
    this.#trySend();
  }

  shutdown(): number {
    if (this.end === null) return -Errno.ENOTCONN;
    this.#isShut = true;
    this.end.finish();
    this.onChange();
    return 0;
  }

  close(): void {
    if (this.#receiving !== null || this.#sending !== null) {
      throw new Error("A socket is closed while something of it is under way");
    }
    this.end?.close();
  }

  /** Its process is gone. */
  drop(isSilent: boolean): void {
    this.#receiving = null;
    this.#sending = null;
    if (isSilent) this.end?.vanish();
    else this.end?.close();
  }

  #tryReceive(): void {
    const waiting = this.#receiving;
    const { end } = this;
    if (waiting === null || end === null) return;
    let result: number;
    if (this.#isShut) result = 0;
    else if (end.available > 0) {
      const { loop } = waiting;
      const { random, shortTransfers } = loop.process.universe;
      result = Math.min(end.available, waiting.bytes);
      if (shortTransfers > 0 && random.next() < shortTransfers) result = 1 + random.below(result);
      // Taking makes room, of which the other end is told: this one is done by then.
      this.#receiving = null;
      end.take(loop.engine.arena.bytes, waiting.at, result);
    } else if (end.error !== 0) result = end.error;
    else if (end.isEnded) result = 0;
    else return;
    this.#receiving = null;
    waiting.loop.complete(waiting.kind, waiting.tag, waiting.generation, result);
  }

  #trySend(): void {
    const waiting = this.#sending;
    const { end } = this;
    if (waiting === null || end === null) return;
    let result: number;
    if (this.#isShut) result = -Errno.EPIPE;
    else if (end.error !== 0) result = end.error;
    else if (end.room <= 0) return;
    else {
      const bytes = waiting.loop.gather(waiting.at, end.room);
      result = bytes.length;
      end.send(bytes);
    }
    this.#sending = null;
    waiting.loop.complete(waiting.kind, waiting.tag, waiting.generation, result);
  }
}

/** A process: threads with descriptors in common. */
export class Process {
  readonly universe: Universe;
  /** Its machine's address. */
  readonly host: string;
  readonly threads: SimThread[] = [];
  isAlive = true;
  readonly startedAt: number;
  readonly #descriptors: (Descriptor | null)[] = [];

  constructor(universe: Universe, host: string) {
    this.universe = universe;
    this.host = host;
    this.startedAt = universe.events.time;
  }

  /** The descriptor of something that was opened. */
  open(descriptor: Descriptor): number {
    let fd = this.#descriptors.indexOf(null);
    if (fd < 0) fd = this.#descriptors.length;
    this.#descriptors[fd] = descriptor;
    return fd;
  }

  /** What a descriptor stands for. */
  get(fd: number): Descriptor | null {
    return this.#descriptors[fd] ?? null;
  }

  socket(fd: number): Socket {
    const found = this.#descriptors[fd];
    if (found instanceof Socket) return found;
    throw new Error(`Descriptor ${fd} is no socket`);
  }

  file(fd: number): OpenFile {
    const found = this.#descriptors[fd];
    if (found instanceof OpenFile) return found;
    throw new Error(`Descriptor ${fd} is no file`);
  }

  close(fd: number): number {
    const found = this.#descriptors[fd] ?? null;
    if (found === null) throw new Error(`Descriptor ${fd} is closed twice`);
    this.#descriptors[fd] = null;
    if (found instanceof Socket) found.close();
    else if (found instanceof Listening) this.#unlisten(found, false);
    return 0;
  }

  /** Listens on a port of the machine. */
  listen(port: number): number {
    const listening = new Listening();
    this.universe.listeners.set(`${this.host}:${port}`, listening);
    return this.open(listening);
  }

  /**
   * Ends at once, as with kill -9 or a power failure.
   *
   * @param isSilent nobody is told, because the machine is gone, too
   */
  die(isSilent: boolean): void {
    this.isAlive = false;
    for (const descriptor of this.#descriptors) {
      if (descriptor instanceof Socket) descriptor.drop(isSilent);
      else if (descriptor instanceof Listening) this.#unlisten(descriptor, isSilent);
    }
    this.#descriptors.length = 0;
  }

  #unlisten(listening: Listening, isSilent: boolean): void {
    listening.drop(isSilent);
    for (const [where, one] of this.universe.listeners) {
      if (one === listening) this.universe.listeners.delete(where);
    }
  }
}

/** A thread: an engine that runs whenever there is something for it. */
export class SimThread implements Event {
  readonly process: Process;
  readonly loop: SimLoop;
  engine!: Engine;
  #isScheduled = false;
  /** When the engine's next timer wakes it. */
  #timerAt = Infinity;
  readonly #timer: Event = { fire: (at) => this.#timerFired(at) };

  constructor(process: Process) {
    this.process = process;
    this.loop = new SimLoop(this);
    process.threads.push(this);
  }

  /** Milliseconds of the thread's clock, which begins when its process does. */
  now(): number {
    return Math.floor(this.process.universe.events.time - this.process.startedAt);
  }

  /** There is something to do. */
  wake(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    const { events, random } = this.process.universe;
    // Now and then somebody else has the processor.
    const latencyMs = random.below(64) === 0 ? random.next() * 5 : 0.002;
    events.after(latencyMs, this);
  }

  fire(): void {
    this.#isScheduled = false;
    if (!this.process.isAlive) return;
    const { engine, loop } = this;
    let turns = 0;
    do {
      if (++turns > TURNS_MAX) throw new Error("A thread spins: it never waits");
      loop.isWaiting = false;
      engine.turn(Infinity);
    } while (!loop.isWaiting && this.process.isAlive);
    const { events } = this.process.universe;
    const at = events.time + loop.waitsMs;
    if (at < this.#timerAt) {
      this.#timerAt = at;
      events.at(at, this.#timer, at);
    }
  }

  #timerFired(at: number): void {
    if (at !== this.#timerAt) return;
    this.#timerAt = Infinity;
    this.wake();
  }
}

/** A thread's loop. */
export class SimLoop implements Loop, DiskCaller {
  readonly name = "uring";
  base = 0;
  readonly calls: Calls;
  readonly process: Process;
  /** The thread waits: nothing is to be done before something comes, or {@link waitsMs} have gone by. */
  isWaiting = false;
  waitsMs = Infinity;
  pending = 0;
  readonly #thread: SimThread;
  readonly #handlers: CompletionHandler[] = [];
  /** Completions to be handed out, four numbers each. */
  #ready: number[] = [];
  #handing: number[] = [];

  constructor(thread: SimThread) {
    this.#thread = thread;
    this.process = thread.process;
    const { process } = this;
    this.calls = {
      close: (fd) => process.close(fd),
      shutdown: (fd) => {
        const found = process.get(fd);
        if (found instanceof Listening) found.shut();
        else if (found instanceof Socket) return found.shutdown();
        return 0;
      },
      streamSocket: () => process.open(new Socket(process)),
      setOption: (fd, _level, option, value) => {
        if (option === SocketOption.TCP_USER_TIMEOUT) process.socket(fd).timeoutMs = value;
        return 0;
      },
      setNoDelay: () => {},
      setSendBuffer: () => {},
      peerAddress: (fd) => addressOf(process.socket(fd).end!.other.machine),
      reopen: (fd) => {
        const { disk } = process.file(fd);
        return process.open(new OpenFile(disk, disk.open()));
      },
      lseek: (fd, offset, whence) => process.file(fd).disk.seek(offset, whence),
    };
  }

  get engine(): Engine {
    return this.#thread.engine;
  }

  /** The memory that addresses are offsets in. */
  get bytes(): Uint8Array {
    return this.#thread.engine.arena.bytes;
  }

  register(handler: CompletionHandler): number {
    return this.#handlers.push(handler) - 1;
  }

  /** An operation has ended: handed out in the next turn. */
  complete(kind: number, tag: number, generation: number, result: number): void {
    if (!this.process.isAlive) return;
    this.#ready.push(kind, tag, generation, result);
    this.#thread.wake();
  }

  turn(timeoutMs: number): number {
    if (this.#ready.length === 0) {
      this.isWaiting = timeoutMs > 0;
      this.waitsMs = timeoutMs;
      return 0;
    }
    const handing = this.#ready;
    this.#ready = this.#handing;
    this.#handing = handing;
    for (let i = 0; i < handing.length; i += 4) {
      this.pending--;
      this.#handlers[handing[i]].complete(handing[i + 1], handing[i + 2], handing[i + 3]);
      if (!this.process.isAlive) break;
    }
    const count = handing.length / 4;
    handing.length = 0;
    return count;
  }

  recv(fd: number, at: number, bytes: number, _flags: number, kind: number, tag: number, generation: number): void {
    this.pending++;
    this.process.socket(fd).receive({ loop: this, at, bytes, kind, tag, generation });
  }

  sendmsg(fd: number, at: number, _flags: number, kind: number, tag: number, generation: number): void {
    this.pending++;
    this.process.socket(fd).send({ loop: this, at, bytes: 0, kind, tag, generation });
  }

  /** The bytes that the `struct msghdr` at an offset names, as many as there is room for. */
  gather(msghdrAt: number, room: number): Uint8Array {
    const { view, bytes, address } = this.engine.arena;
    const { random, shortTransfers } = this.process.universe;
    const iovecs = view.getUint32(msghdrAt + 24, true);
    const iovecAt = readUint64(view, msghdrAt + 16) - address;
    let total = 0;
    for (let i = 0; i < iovecs; i++) total += view.getUint32(iovecAt + 16 * i + 8, true);
    total = Math.min(total, room);
    if (shortTransfers > 0 && random.next() < shortTransfers) total = 1 + random.below(total);
    const gathered = new Uint8Array(total);
    let done = 0;
    for (let i = 0; done < total; i++) {
      const from = readUint64(view, iovecAt + 16 * i) - address;
      const some = Math.min(view.getUint32(iovecAt + 16 * i + 8, true), total - done);
      gathered.set(bytes.subarray(from, from + some), done);
      done += some;
    }
    return gathered;
  }

  accept(fd: number, kind: number, tag: number, generation: number): void {
    this.pending++;
    const found = this.process.get(fd);
    if (!(found instanceof Listening)) throw new Error(`Descriptor ${fd} does not listen`);
    found.accept({ loop: this, at: 0, bytes: 0, kind, tag, generation });
  }

  connect(fd: number, at: number, bytes: number, kind: number, tag: number, generation: number): void {
    this.pending++;
    const address = decodeSockaddr(this.bytes.slice(at, at + bytes), bytes)!;
    if (address.family !== "ipv4") throw new Error("Only IPv4 is simulated");
    const socket = this.process.socket(fd);
    const { universe } = this.process;
    const { events, network, listeners } = universe;
    const answer = (result: number) => this.complete(kind, tag, generation, result);
    const deadline = events.time + (socket.timeoutMs === 0 ? 130_000 : socket.timeoutMs);
    const tryOnce = (): void => {
      if (!this.process.isAlive) return;
      const isReachable = network.isUp(address.host) &&
        events.time >= Math.max(network.partitionedUntil, network.closedUntil);
      if (!isReachable) {
        if (events.time >= deadline) return answer(-Errno.ETIMEDOUT);
        // As TCP does: again after a while.
        events.at(Math.min(deadline, events.time + 1000), { fire: tryOnce });
        return;
      }
      const listening = listeners.get(`${address.host}:${address.port}`);
      if (listening === undefined) return answer(-Errno.ECONNREFUSED);
      const connection = network.connect(this.process.host, address.host);
      socket.attach(connection.ends[0]);
      listening.arrive(connection.ends[1]);
      events.after(network.tripMs, { fire: () => answer(0) });
    };
    events.after(network.tripMs, { fire: tryOnce });
  }

  read(fd: number, at: number, bytes: number, offset: number, kind: number, tag: number, generation: number): void {
    this.#disk(fd, DiskOperation.READ, at, bytes, offset, 0, kind, tag, generation);
  }

  write(
    fd: number,
    address: number,
    bytes: number,
    offset: number,
    rwFlags: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    // What is not in the engine's memory is the area of zeroes.
    const at = address >= 0 && address < this.engine.arena.bytes.length ? address : -1;
    this.#disk(fd, DiskOperation.WRITE, at, bytes, offset, rwFlags, kind, tag, generation);
  }

  readNow(): number {
    throw new Error("No file of the simulation is in memory");
  }

  writeNow(): number {
    throw new Error("No file of the simulation is in memory");
  }

  fdatasync(fd: number, kind: number, tag: number, generation: number): void {
    this.#disk(fd, DiskOperation.SYNC, 0, 0, 0, 0, kind, tag, generation);
  }

  fallocate(
    fd: number,
    mode: number,
    offset: number,
    bytes: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.#disk(fd, DiskOperation.FALLOCATE, 0, bytes, offset, mode, kind, tag, generation);
  }

  fadvise(
    fd: number,
    offset: number,
    bytes: number,
    _advice: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.#disk(fd, DiskOperation.ADVISE, 0, bytes, offset, 0, kind, tag, generation);
  }

  /** Nobody of the simulation is woken through a descriptor. */
  pollIn(_fd: number, kind: number, tag: number, generation: number): void {
    this.complete(kind, tag, generation, PollEvent.IN);
  }

  close(): void {}

  #disk(
    fd: number,
    operation: number,
    at: number,
    bytes: number,
    offset: number,
    flags: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.pending++;
    const { disk, description } = this.process.file(fd);
    disk.submit(
      new DiskRequest(disk, this, description, operation, at, bytes, offset, flags, kind, tag, generation),
    );
  }
}

function readUint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

/** The port of a client says nothing here. */
function addressOf(host: string): SocketAddress {
  return { family: "ipv4", host, port: 40_000 };
}
