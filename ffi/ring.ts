/**
 * The loop on io_uring.
 *
 * @module
 */
import { kernelCalls } from "./calls.ts";
import { monotonicMs } from "./clock.ts";
import { c, pread, pwrite } from "./libc.ts";
import { MessageFlag, PollEvent, SocketType } from "./constants.ts";
import { Errno, SystemError } from "./errno.ts";
import type { CompletionHandler, Loop } from "./loop.ts";
import { HANDLERS_MAX, TAG_MAX } from "./limits.ts";
import {
  cancelAll,
  EnterFlag,
  enterUring,
  type MappedUring,
  mapUring,
  SetupFlag,
  unmapUring,
  WaitArgument,
} from "./uring.ts";

/** IORING_OP_*: linux/io_uring.h. */
const Opcode = {
  FSYNC: 3,
  POLL_ADD: 6,
  SENDMSG: 9,
  ACCEPT: 13,
  CONNECT: 16,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
  FADVISE: 24,
  RECV: 27,
  URING_CMD: 46,
} as const;

/** IORING_FSYNC_DATASYNC. */
const FSYNC_DATASYNC = 1;

/** Set-up flags, best first, see {@link SetupFlag} for the kernels that know them. */
const FLAG_CHOICES = (() => {
  const oldest = SetupFlag.CQSIZE | SetupFlag.CLAMP;
  const from518 = oldest | SetupFlag.SUBMIT_ALL;
  const from519 = from518 | SetupFlag.COOP_TASKRUN;
  return [from519 | SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN, from519, from518, oldest];
})();

/** Words of a submission entry (64 bytes), and of a completion entry (16 bytes). */
const SQE_WORDS = 16;
const CQE_WORDS = 4;
/** Words of a completion that waits in the spill: user data low, high, result. */
const SPILL_WORDS = 3;

const HIGH = 0x1_0000_0000;

/** Size of a `struct io_uring_getevents_arg`. */
const WAIT_ARGUMENT_BYTES = 24n;

/** How long to nap, and how often, when the kernel takes no submission: after ten seconds something is broken. */
const NAP_MS = 1;
const NAPS_MAX = 10_000;

/** Sizes of a {@link Ring}. */
export interface RingOptions {
  /** Submission entries: more operations than this between two turns cost a system call more. Default 512. */
  readonly entries?: number;
  /** Completion entries: more completions at a time than this make the kernel keep a list. Default 4096. */
  readonly completionEntries?: number;
  /** Operations queued or under way. Default 16384. */
  readonly pendingMax?: number;
}

/** The loop on io_uring. The kernel must have it, see `uringAvailable`. */
export class Ring implements Loop {
  readonly name = "uring";
  readonly calls = kernelCalls;
  base = 0;
  readonly #uring: MappedUring;
  readonly #ring: Uint32Array<ArrayBuffer>;
  readonly #sqes: Uint32Array<ArrayBuffer>;
  readonly #sqEntries: number;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #handlers: CompletionHandler[] = [];
  readonly #wait = new WaitArgument();
  readonly #pendingMax: number;

  /** Entries written so far; those not yet submitted are the last {@link #unsubmitted} of them. */
  #sqTail = 0;
  #unsubmitted = 0;
  #cqHead = 0;
  #pending = 0;

  /**
   * Completions that had to be taken off the ring before it was their turn, because the kernel took no submission
   * without room for more; a circle of as many entries as operations may be pending.
   */
  readonly #spill: Uint32Array;
  #spillHead = 0;
  #spillCount = 0;

  #inTurn = false;
  #closed = false;

  /** @throws {SystemError} where the kernel gives no ring */
  constructor(options: RingOptions = {}) {
    this.#pendingMax = options.pendingMax ?? 16384;
    this.#uring = mapUring(options.entries ?? 512, options.completionEntries ?? 4096, FLAG_CHOICES);
    this.#ring = this.#uring.ring;
    this.#sqes = this.#uring.sqes;
    this.#sqEntries = this.#uring.sqEntries;
    this.#sqMask = this.#uring.sqEntries - 1;
    this.#cqMask = this.#uring.cqEntries - 1;
    this.#spill = new Uint32Array(this.#pendingMax * SPILL_WORDS);
  }

  get pending(): number {
    return this.#pending;
  }

  register(handler: CompletionHandler): number {
    if (this.#handlers.length >= HANDLERS_MAX) {
      throw new RangeError(`Cannot register more than ${HANDLERS_MAX} handlers`);
    }
    return this.#handlers.push(handler) - 1;
  }

  recv(fd: number, address: number, bytes: number, flags: number, kind: number, tag: number, generation: number): void {
    const at = this.#queue(Opcode.RECV, fd, bytes, flags | MessageFlag.NOSIGNAL, kind, tag, generation);
    this.#setAddress(at, address);
  }

  sendmsg(fd: number, msghdrAddress: number, flags: number, kind: number, tag: number, generation: number): void {
    // io_uring gives MSG_WAITALL a meaning that sendmsg(2) does not.
    const messageFlags = (flags | MessageFlag.NOSIGNAL) & ~MessageFlag.WAITALL;
    const at = this.#queue(Opcode.SENDMSG, fd, 1, messageFlags, kind, tag, generation);
    this.#setAddress(at, msghdrAddress);
  }

  accept(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.ACCEPT, fd, 0, SocketType.CLOEXEC | SocketType.NONBLOCK, kind, tag, generation);
  }

  connect(
    fd: number,
    sockaddrAddress: number,
    sockaddrBytes: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    const at = this.#queue(Opcode.CONNECT, fd, 0, 0, kind, tag, generation);
    this.#setAddress(at, sockaddrAddress);
    this.#sqes[at + 2] = sockaddrBytes;
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
    const at = this.#queue(Opcode.READ, fd, bytes, 0, kind, tag, generation);
    this.#setAddress(at, address);
    this.#setOffset(at, offset);
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
    const at = this.#queue(Opcode.WRITE, fd, bytes, rwFlags, kind, tag, generation);
    this.#setAddress(at, address);
    this.#setOffset(at, offset);
  }

  readNow(fd: number, address: number, bytes: number, offset: number): number {
    return pread(fd, this.base, address, bytes, offset);
  }

  writeNow(fd: number, address: number, bytes: number, offset: number): number {
    return pwrite(fd, this.base, address, bytes, offset);
  }

  fdatasync(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.FSYNC, fd, 0, FSYNC_DATASYNC, kind, tag, generation);
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
    const at = this.#queue(Opcode.FALLOCATE, fd, mode, 0, kind, tag, generation);
    this.#setOffset(at, offset);
    // The length has the place of the address.
    this.#sqes[at + 4] = bytes;
    this.#sqes[at + 5] = bytes / HIGH;
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
    // Kernels before 6.5 take 32 bits of length only; advice for the first 4 GiB of a longer range is good advice.
    const at = this.#queue(Opcode.FADVISE, fd, Math.min(bytes, 0xffff_f000), advice, kind, tag, generation);
    this.#setOffset(at, offset);
  }

  pollIn(fd: number, kind: number, tag: number, generation: number): void {
    this.#queue(Opcode.POLL_ADD, fd, 0, PollEvent.IN, kind, tag, generation);
  }

  /**
   * A command to a driver (IORING_OP_URING_CMD) with up to 16 bytes of arguments, as ublk's queues take it.
   *
   * @param fd the driver's character device
   * @param command its number (`cmd_op`)
   * @param word0 first of the four 32-bit words of arguments, little-endian
   */
  uringCmd(
    fd: number,
    command: number,
    word0: number,
    word1: number,
    word2: number,
    word3: number,
    kind: number,
    tag: number,
    generation: number,
  ): void {
    const at = this.#queue(Opcode.URING_CMD, fd, 0, 0, kind, tag, generation);
    const sqes = this.#sqes;
    sqes[at + 2] = command;
    sqes[at + 12] = word0;
    sqes[at + 13] = word1;
    sqes[at + 14] = word2;
    sqes[at + 15] = word3;
  }

  turn(timeoutMs: number): number {
    if (this.#closed || this.#inTurn) throw new Error("Cannot turn a loop that is closed, or from within its turn");
    this.#inTurn = true;
    try {
      const ready = this.#spillCount > 0 || this.#completionsReady();
      if (!ready || this.#unsubmitted > 0) this.#submitAndWait(ready ? 0 : timeoutMs);
      return this.#spillCount > 0 ? this.#handOutSpill() + this.#handOut() : this.#handOut();
    } finally {
      this.#inTurn = false;
      if (this.#closed) this.#release();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // A handler may close the loop whose turn calls it: that turn still reads the mapped memory.
    if (!this.#inTurn) this.#release();
  }

  #release(): void {
    if (this.#pending > 0) cancelAll(this.#uring.fd);
    unmapUring(this.#uring);
  }

  /** Writes a submission entry. Answers the entry's first word's index. */
  #queue(
    opcode: number,
    fd: number,
    bytes: number,
    operationFlags: number,
    kind: number,
    tag: number,
    generation: number,
  ): number {
    if (this.#closed) throw new Error("Cannot queue an operation: the loop is closed");
    if (tag < 0 || tag > TAG_MAX || kind >= this.#handlers.length) {
      throw new RangeError(`Cannot queue an operation: tag ${tag} or kind ${kind} is out of range`);
    }
    if (this.#pending >= this.#pendingMax) {
      throw new RangeError(`Cannot queue an operation: ${this.#pendingMax} are pending already`);
    }
    if (this.#unsubmitted === this.#sqEntries) this.#submitEarly();
    const at = (this.#sqTail & this.#sqMask) * SQE_WORDS;
    const sqes = this.#sqes;
    sqes[at] = opcode;
    sqes[at + 1] = fd;
    sqes[at + 2] = 0;
    sqes[at + 3] = 0;
    sqes[at + 4] = 0;
    sqes[at + 5] = 0;
    sqes[at + 6] = bytes;
    sqes[at + 7] = operationFlags;
    sqes[at + 8] = kind | tag << 8;
    sqes[at + 9] = generation;
    sqes[at + 10] = 0;
    sqes[at + 11] = 0;
    sqes[at + 12] = 0;
    sqes[at + 13] = 0;
    sqes[at + 14] = 0;
    sqes[at + 15] = 0;
    this.#sqTail = (this.#sqTail + 1) >>> 0;
    this.#unsubmitted++;
    this.#pending++;
    return at;
  }

  #setAddress(at: number, address: number): void {
    const absolute = this.base + address;
    this.#sqes[at + 4] = absolute;
    this.#sqes[at + 5] = absolute / HIGH;
  }

  #setOffset(at: number, offset: number): void {
    this.#sqes[at + 2] = offset;
    this.#sqes[at + 3] = offset / HIGH;
  }

  #completionsReady(): boolean {
    return Atomics.load(this.#ring, this.#uring.cqTailIndex) !== this.#cqHead;
  }

  /** Submits and, where waiting is asked for, waits. Answers what io_uring_enter(2) answered, 0 for harmless errors. */
  #enter(waitFor: number, flags: number, argument: bigint, argumentBytes: bigint): number {
    Atomics.store(this.#ring, this.#uring.sqTailIndex, this.#sqTail);
    const result = enterUring(this.#uring.fd, this.#unsubmitted, waitFor, flags, argument, argumentBytes);
    if (result >= 0) {
      this.#unsubmitted -= result;
      return result;
    }
    if (result === -Errno.EINTR || result === -Errno.ETIME) return result;
    if (result === -Errno.EAGAIN || result === -Errno.EBUSY) return result;
    throw new SystemError("enter the io_uring", result);
  }

  /** Submits everything queued and waits until a completion is there or the time is over. */
  #submitAndWait(timeoutMs: number): void {
    let wait = timeoutMs > 0;
    const finite = timeoutMs !== Infinity;
    if (wait && !finite && this.#pending === 0) {
      throw new Error("Cannot wait without end: no operation is pending");
    }
    let remainingMs = timeoutMs;
    const deadlineMs = wait && finite ? monotonicMs() + timeoutMs : 0;
    for (;;) {
      let result: number;
      if (wait && finite) {
        this.#wait.set(remainingMs);
        result = this.#enter(1, EnterFlag.GETEVENTS | EnterFlag.EXT_ARG, this.#wait.address, WAIT_ARGUMENT_BYTES);
      } else {
        result = this.#enter(wait ? 1 : 0, EnterFlag.GETEVENTS, 0n, 0n);
      }
      const ready = this.#completionsReady();
      if (ready) wait = false;
      // A short submission returns without waiting; the rest goes next.
      if (this.#unsubmitted > 0 && result > 0) continue;
      if (!wait || result === -Errno.ETIME) return;
      // The kernel is short of memory for requests, and no completion is there to be taken off.
      if (result === -Errno.EAGAIN || result === -Errno.EBUSY) this.#nap();
      if (finite) {
        remainingMs = deadlineMs - monotonicMs();
        if (remainingMs <= 0) return;
      }
    }
  }

  /** Makes room for at least one more entry, before it is the turn to submit. */
  #submitEarly(): void {
    for (let naps = 0; naps < NAPS_MAX;) {
      const result = this.#enter(0, 0, 0n, 0n);
      if (this.#unsubmitted < this.#sqEntries) return;
      if (result === -Errno.EINTR) continue;
      // Older kernels take no submission while completions overflow: take them off the ring, hand them out in turn.
      this.#spillCompletions();
      enterUring(this.#uring.fd, 0, 0, EnterFlag.GETEVENTS, 0n, 0n);
      this.#spillCompletions();
      this.#nap();
      naps++;
    }
    throw new SystemError("submit to the io_uring", Errno.EBUSY);
  }

  #nap(): void {
    this.#wait.set(NAP_MS);
    c.ppoll(0n, 0n, this.#wait.timespecAddress, 0n);
  }

  /** Moves all completions from the ring to the spill. */
  #spillCompletions(): void {
    const ring = this.#ring;
    const tail = Atomics.load(ring, this.#uring.cqTailIndex);
    while (this.#cqHead !== tail) {
      const from = this.#uring.cqesIndex + (this.#cqHead & this.#cqMask) * CQE_WORDS;
      const to = ((this.#spillHead + this.#spillCount) % this.#pendingMax) * SPILL_WORDS;
      this.#spill[to] = ring[from];
      this.#spill[to + 1] = ring[from + 1];
      this.#spill[to + 2] = ring[from + 2];
      this.#spillCount++;
      this.#cqHead = (this.#cqHead + 1) >>> 0;
    }
    Atomics.store(ring, this.#uring.cqHeadIndex, this.#cqHead);
  }

  /** Hands out the spilled completions that are there now. */
  #handOutSpill(): number {
    const count = this.#spillCount;
    for (let done = 0; done < count; done++) {
      const at = this.#spillHead * SPILL_WORDS;
      const low = this.#spill[at];
      const generation = this.#spill[at + 1];
      const result = this.#spill[at + 2] | 0;
      this.#spillHead = (this.#spillHead + 1) % this.#pendingMax;
      this.#spillCount--;
      this.#pending--;
      this.#handlers[low & 0xff].complete(low >>> 8, generation, result);
      if (this.#closed) return done + 1;
    }
    return count;
  }

  /** Hands out the completions that are on the ring now. */
  #handOut(): number {
    if (this.#closed) return 0;
    const ring = this.#ring;
    const tail = Atomics.load(ring, this.#uring.cqTailIndex);
    let count = 0;
    try {
      // A handler that queues much may spill what is left here, which moves the head: then it is handed out next turn.
      while (((tail - this.#cqHead) | 0) > 0) {
        const at = this.#uring.cqesIndex + (this.#cqHead & this.#cqMask) * CQE_WORDS;
        const low = ring[at];
        const generation = ring[at + 1];
        const result = ring[at + 2] | 0;
        this.#cqHead = (this.#cqHead + 1) >>> 0;
        this.#pending--;
        count++;
        this.#handlers[low & 0xff].complete(low >>> 8, generation, result);
        if (this.#closed) break;
      }
    } finally {
      Atomics.store(ring, this.#uring.cqHeadIndex, this.#cqHead);
    }
    return count;
  }
}
