/**
 * The loop on ppoll(2), for where io_uring is switched off. Sockets are tried with MSG_DONTWAIT and polled; operations
 * on files block the thread while they last, so a stalled disk stalls the Worker: that is what io_uring is for.
 *
 * @module
 */
import { kernelCalls } from "./calls.ts";
import { monotonicMs } from "./clock.ts";
import { addressOf, args, c, fadvise, fallocate, fdatasync, orErrno, pread, pwrite, pwritev2, setArg } from "./libc.ts";
import { MessageFlag, PollEvent } from "./constants.ts";
import { Errno, SystemError } from "./errno.ts";
import { HANDLERS_MAX, TAG_MAX } from "./limits.ts";
import type { CompletionHandler, Loop } from "./loop.ts";
import { accept, connectAt, recv, sendmsg, setNonBlocking, takeSocketError } from "./socket.ts";
import { WaitArgument } from "./uring.ts";

/** What an operation is. Those up to CONNECT are for descriptors that ppoll can wait for. */
const Opcode = {
  RECV: 0,
  SENDMSG: 1,
  ACCEPT: 2,
  POLL_IN: 3,
  CONNECT: 4,
  READ: 5,
  WRITE: 6,
  FDATASYNC: 7,
  FALLOCATE: 8,
  FADVISE: 9,
} as const;

/** Not a result: the operation has to wait. Lies outside of what system calls answer. */
const NOT_YET = -0x7fff_ffff;

/** So many file operations a turn, then sockets are looked at again: a batch of disk I/O must not silence a ping. */
const FILE_OPERATIONS_PER_TURN = 64;

/** A first-in, first-out queue of operations' places, as large as there are operations. */
class PlaceQueue {
  readonly #places: Uint32Array;
  #head = 0;
  count = 0;

  constructor(capacity: number) {
    this.#places = new Uint32Array(capacity);
  }

  push(place: number): void {
    this.#places[(this.#head + this.count) % this.#places.length] = place;
    this.count++;
  }

  /** Takes the oldest; there must be one. */
  shift(): number {
    const place = this.#places[this.#head];
    this.#head = (this.#head + 1) % this.#places.length;
    this.count--;
    return place;
  }
}

/** Sizes of a {@link PollLoop}. */
export interface PollLoopOptions {
  /** Operations queued or under way. Default 16384. At most RLIMIT_NOFILE of them may wait for sockets. */
  readonly pendingMax?: number;
}

/** The loop on ppoll(2). */
export class PollLoop implements Loop {
  readonly name = "poll";
  readonly calls = kernelCalls;
  base = 0;
  readonly #handlers: CompletionHandler[] = [];
  readonly #wait = new WaitArgument();
  readonly #pendingMax: number;

  /** The operations: one place each, its parts in parallel arrays. */
  readonly #opcode: Uint8Array;
  readonly #fd: Int32Array;
  readonly #address: Float64Array;
  readonly #bytes: Float64Array;
  readonly #offset: Float64Array;
  readonly #flags: Int32Array;
  readonly #user: Uint32Array;
  readonly #generation: Uint32Array;
  readonly #result: Int32Array;
  /** RECV with MSG_WAITALL: bytes received so far. */
  readonly #received: Float64Array;

  /** Places that hold no operation, a stack. */
  readonly #free: Uint32Array;
  #freeCount: number;
  /** Operations on sockets that were not tried yet, on files, and those that have their result. */
  readonly #fresh: PlaceQueue;
  readonly #files: PlaceQueue;
  readonly #done: PlaceQueue;
  /** Operations that wait for a descriptor, oldest first, and their `struct pollfd`s (fd; events, revents). */
  readonly #waiting: Uint32Array;
  readonly #pollfds: Int32Array<ArrayBuffer>;
  readonly #pollfdsAddress: bigint;
  #waitingCount = 0;

  #inTurn = false;
  #closed = false;

  constructor(options: PollLoopOptions = {}) {
    const max = options.pendingMax ?? 16384;
    this.#pendingMax = max;
    this.#opcode = new Uint8Array(max);
    this.#fd = new Int32Array(max);
    this.#address = new Float64Array(max);
    this.#bytes = new Float64Array(max);
    this.#offset = new Float64Array(max);
    this.#flags = new Int32Array(max);
    this.#user = new Uint32Array(max);
    this.#generation = new Uint32Array(max);
    this.#result = new Int32Array(max);
    this.#received = new Float64Array(max);
    this.#free = Uint32Array.from({ length: max }, (_, i) => max - 1 - i);
    this.#freeCount = max;
    this.#fresh = new PlaceQueue(max);
    this.#files = new PlaceQueue(max);
    this.#done = new PlaceQueue(max);
    this.#waiting = new Uint32Array(max);
    this.#pollfds = new Int32Array(new ArrayBuffer(max * 8));
    this.#pollfdsAddress = BigInt(addressOf(this.#pollfds));
  }

  get pending(): number {
    return this.#pendingMax - this.#freeCount;
  }

  register(handler: CompletionHandler): number {
    if (this.#handlers.length >= HANDLERS_MAX) {
      throw new RangeError(`Cannot register more than ${HANDLERS_MAX} handlers`);
    }
    return this.#handlers.push(handler) - 1;
  }

  recv(fd: number, address: number, bytes: number, flags: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.RECV, fd, address, bytes, 0, flags, kind, tag, generation);
  }

  sendmsg(fd: number, msghdrAddress: number, flags: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.SENDMSG, fd, msghdrAddress, 0, 0, flags, kind, tag, generation);
  }

  /** The listening socket is switched to O_NONBLOCK: it could otherwise block where another thread was faster. */
  accept(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.ACCEPT, fd, 0, 0, 0, 0, kind, tag, generation);
  }

  connect(
    fd: number,
    sockaddrAddress: number,
    sockaddrBytes: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.#queue(Opcode.CONNECT, fd, sockaddrAddress, sockaddrBytes, 0, 0, kind, tag, generation);
  }

  read(
    fd: number,
    address: number,
    bytes: number,
    offset: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.#queue(Opcode.READ, fd, address, bytes, offset, 0, kind, tag, generation);
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
    this.#queue(Opcode.WRITE, fd, address, bytes, offset, rwFlags, kind, tag, generation);
  }

  readNow(fd: number, address: number, bytes: number, offset: number): number {
    return pread(fd, this.base, address, bytes, offset);
  }

  writeNow(fd: number, address: number, bytes: number, offset: number): number {
    return pwrite(fd, this.base, address, bytes, offset);
  }

  fdatasync(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.FDATASYNC, fd, 0, 0, 0, 0, kind, tag, generation);
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
    this.#queue(Opcode.FALLOCATE, fd, 0, bytes, offset, mode, kind, tag, generation);
  }

  fadvise(
    fd: number,
    offset: number,
    bytes: number,
    advice: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    this.#queue(Opcode.FADVISE, fd, 0, bytes, offset, advice, kind, tag, generation);
  }

  pollIn(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.POLL_IN, fd, 0, 0, 0, 0, kind, tag, generation);
  }

  turn(timeoutMs: number): number {
    if (this.#closed || this.#inTurn) throw new Error("Cannot turn a loop that is closed, or from within its turn");
    this.#inTurn = true;
    try {
      this.#startFresh();
      this.#runFiles();
      this.#waitForDescriptors(this.#done.count > 0 ? 0 : timeoutMs);
      return this.#handOut();
    } finally {
      this.#inTurn = false;
    }
  }

  close(): void {
    this.#closed = true;
  }

  #queue(
    opcode: number,
    fd: number,
    address: number,
    bytes: number,
    offset: number,
    flags: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    if (this.#closed) throw new Error("Cannot queue an operation: the loop is closed");
    if (tag < 0 || tag > TAG_MAX || kind >= this.#handlers.length) {
      throw new RangeError(`Cannot queue an operation: tag ${tag} or kind ${kind} is out of range`);
    }
    if (this.#freeCount === 0) {
      throw new RangeError(`Cannot queue an operation: ${this.#pendingMax} are pending already`);
    }
    const place = this.#free[--this.#freeCount];
    this.#opcode[place] = opcode;
    this.#fd[place] = fd;
    this.#address[place] = this.base + address;
    this.#bytes[place] = bytes;
    this.#offset[place] = offset;
    this.#flags[place] = flags;
    this.#user[place] = kind | tag << 8;
    this.#generation[place] = generation;
    this.#received[place] = 0;
    if (opcode <= Opcode.CONNECT) this.#fresh.push(place);
    else this.#files.push(place);
  }

  #finish(place: number, result: number): void {
    this.#result[place] = result;
    this.#done.push(place);
  }

  /** Tries what was queued on sockets since the last turn: often the data is there already. */
  #startFresh(): void {
    for (let count = this.#fresh.count; count > 0; count--) {
      const place = this.#fresh.shift();
      const opcode = this.#opcode[place];
      const result = opcode === Opcode.CONNECT
        ? this.#startConnect(place)
        : opcode === Opcode.POLL_IN
        ? NOT_YET
        : this.#attempt(place, opcode);
      if (result !== NOT_YET) {
        this.#finish(place, result);
        continue;
      }
      const events = opcode === Opcode.SENDMSG || opcode === Opcode.CONNECT ? PollEvent.OUT : PollEvent.IN;
      this.#waiting[this.#waitingCount] = place;
      this.#pollfds[2 * this.#waitingCount] = this.#fd[place];
      this.#pollfds[2 * this.#waitingCount + 1] = events;
      this.#waitingCount++;
    }
  }

  /** connect(2) has no flag against waiting, so the descriptor is made non-blocking for the call. */
  #startConnect(place: number): number {
    const fd = this.#fd[place];
    const before = setNonBlocking(fd, true);
    if (before < 0) return before;
    const result = connectAt(fd, this.#address[place], this.#bytes[place]);
    if (before === 0) setNonBlocking(fd, false);
    return result === -Errno.EINPROGRESS || result === -Errno.EINTR ? NOT_YET : result;
  }

  /** One attempt at a socket operation. */
  #attempt(place: number, opcode: number): number {
    const fd = this.#fd[place];
    for (;;) {
      let result: number;
      if (opcode === Opcode.RECV) {
        result = this.#attemptRecv(place);
      } else if (opcode === Opcode.SENDMSG) {
        result = sendmsg(fd, this.#address[place], this.#flags[place] | MessageFlag.DONTWAIT);
      } else {
        result = setNonBlocking(fd, true);
        if (result >= 0) result = accept(fd);
      }
      if (result === -Errno.EAGAIN) return NOT_YET;
      if (result !== -Errno.EINTR) return result;
    }
  }

  #attemptRecv(place: number): number {
    const received = this.#received[place];
    const bytes = this.#bytes[place];
    const flags = this.#flags[place];
    const result = recv(
      this.#fd[place],
      this.#address[place] + received,
      bytes - received,
      flags | MessageFlag.DONTWAIT,
    );
    if ((flags & MessageFlag.WAITALL) === 0 || result === -Errno.EAGAIN || result === -Errno.EINTR) return result;
    if (result <= 0) return received > 0 ? received : result;
    this.#received[place] = received + result;
    return received + result === bytes ? bytes : NOT_YET;
  }

  /** Does the oldest file operations, in the order in which they were queued. */
  #runFiles(): void {
    for (let count = Math.min(this.#files.count, FILE_OPERATIONS_PER_TURN); count > 0; count--) {
      const place = this.#files.shift();
      let result: number;
      do result = this.#runFile(place); while (result === -Errno.EINTR);
      this.#finish(place, result);
    }
  }

  #runFile(place: number): number {
    const fd = this.#fd[place];
    const bytes = this.#bytes[place];
    const offset = this.#offset[place];
    const flags = this.#flags[place];
    switch (this.#opcode[place]) {
      case Opcode.READ:
        return pread(fd, 0, this.#address[place], bytes, offset);
      case Opcode.WRITE:
        return flags === 0
          ? pwrite(fd, 0, this.#address[place], bytes, offset)
          : pwritev2(fd, this.#address[place], bytes, offset, flags);
      case Opcode.FDATASYNC:
        return fdatasync(fd);
      case Opcode.FALLOCATE:
        return fallocate(fd, flags, offset, bytes);
      default:
        return fadvise(fd, offset, bytes, flags);
    }
  }

  /** Waits until a descriptor is ready or the time is over, and does what became possible. */
  #waitForDescriptors(timeoutMs: number): void {
    const wait = timeoutMs > 0 && this.#files.count === 0;
    if (!wait && this.#waitingCount === 0) return;
    const finite = timeoutMs !== Infinity;
    if (wait && !finite && this.#waitingCount === 0) {
      throw new Error("Cannot wait without end: no operation is pending");
    }
    let remainingMs = wait ? timeoutMs : 0;
    const deadlineMs = wait && finite ? monotonicMs() + timeoutMs : 0;
    for (;;) {
      if (remainingMs !== Infinity) this.#wait.set(remainingMs);
      setArg(0, this.#waitingCount);
      const timespec = remainingMs === Infinity ? 0n : this.#wait.timespecAddress;
      const result = orErrno(c.ppoll(this.#pollfdsAddress, args[0], timespec, 0n));
      if (result < 0 && result !== -Errno.EINTR && result !== -Errno.EAGAIN) {
        throw new SystemError("poll descriptors", result);
      }
      if (result > 0) this.#continueReady();
      if (!wait || this.#done.count > 0) return;
      if (finite) {
        remainingMs = deadlineMs - monotonicMs();
        if (remainingMs <= 0) return;
      }
    }
  }

  /** Attempts every operation whose descriptor is ready; the others stay, in their order. */
  #continueReady(): void {
    const pollfds = this.#pollfds;
    let kept = 0;
    for (let i = 0; i < this.#waitingCount; i++) {
      const place = this.#waiting[i];
      const events = pollfds[2 * i + 1];
      const result = (events >>> 16) === 0 ? NOT_YET : this.#continueOne(place, events >>> 16);
      if (result !== NOT_YET) {
        this.#finish(place, result);
        continue;
      }
      this.#waiting[kept] = place;
      pollfds[2 * kept] = pollfds[2 * i];
      // ppoll writes all revents anew.
      pollfds[2 * kept + 1] = events & 0xffff;
      kept++;
    }
    this.#waitingCount = kept;
  }

  #continueOne(place: number, revents: number): number {
    if ((revents & PollEvent.INVALID) !== 0) return -Errno.EBADF;
    const opcode = this.#opcode[place];
    if (opcode === Opcode.POLL_IN) return revents;
    if (opcode === Opcode.CONNECT) return takeSocketError(this.#fd[place]);
    return this.#attempt(place, opcode);
  }

  /** Hands out the completions that are there now. */
  #handOut(): number {
    const count = this.#done.count;
    for (let done = 0; done < count; done++) {
      const place = this.#done.shift();
      const user = this.#user[place];
      const generation = this.#generation[place];
      const result = this.#result[place];
      this.#free[this.#freeCount++] = place;
      this.#handlers[user & 0xff].complete(user >>> 8, generation, result);
      if (this.#closed) return done + 1;
    }
    return count;
  }
}
