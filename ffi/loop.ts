/**
 * What the two loops, io_uring (`ring.ts`) and the poll loop (`poll.ts`), have in common.
 *
 * An operation is queued by a method, submitted by the next {@link Loop.turn}, and answered by one call of
 * {@link CompletionHandler.complete} with the tag and generation that were given with it. Nothing is allocated per
 * operation. Addresses are relative to {@link Loop.base} and below 2^47, offsets and lengths are safe integers; results
 * are those of the system call: a count or descriptor, or a negative errno.
 *
 * @module
 */
import type { Calls } from "./calls.ts";

/** Receives the completions of one kind of operation. A handler never throws for an error of the system. */
export interface CompletionHandler {
  /**
   * @param tag the tag (24 bits) given with the operation
   * @param generation the generation (32 bits) given with the operation
   * @param result the system call's result, or a negative errno
   */
  complete(tag: number, generation: number, result: number): void;
}

/** One thread's event loop over the kernel's interface. Must be made and used on the same thread. */
export interface Loop {
  /** Which of the two loops this is. */
  readonly name: "uring" | "poll";

  /** What is done with its descriptors beside its operations. */
  readonly calls: Calls;

  /**
   * Is added to every address that an operation is given: 0 at first, so that addresses are absolute. An engine sets it
   * to where its memory begins. Then addresses are offsets in that memory: small integers, which the JavaScript engine
   * passes on without making an object of each.
   */
  base: number;

  /** Registers a handler, at most 255 a loop; the returned kind names it in every operation below. */
  register(handler: CompletionHandler): number;

  /** recv(2) with `flags` (MSG_*); result 0 is the end of the stream. */
  recv(
    fd: number,
    address: number,
    bytes: number,
    flags: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** sendmsg(2) of the `struct msghdr` at the address, with `flags` (MSG_*; MSG_NOSIGNAL is always added). */
  sendmsg(fd: number, msghdrAddress: number, flags: number, kind: number, tag: number, generation: number): void;

  /** accept4(2) with SOCK_CLOEXEC | SOCK_NONBLOCK; the result is the new descriptor. */
  accept(fd: number, kind: number, tag: number, generation: number): void;

  /** connect(2); the `struct sockaddr` must stay in place until the completion. */
  connect(
    fd: number,
    sockaddrAddress: number,
    sockaddrBytes: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** pread(2) without the file's position. A short result is possible and is the caller's to handle. */
  read(
    fd: number,
    address: number,
    bytes: number,
    offset: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** pwritev2(2) with `rwFlags` (RWF_*). A short result is possible and is the caller's to handle. */
  write(
    fd: number,
    address: number,
    bytes: number,
    offset: number,
    rwFlags: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** pread(2) at once, blocking: for files in memory, where the ring would be slower. Answers as the call does. */
  readNow(fd: number, address: number, bytes: number, offset: number): number;

  /** pwrite(2) at once, blocking: for files in memory. */
  writeNow(fd: number, address: number, bytes: number, offset: number): number;

  /** fdatasync(2). */
  fdatasync(fd: number, kind: number, tag: number, generation: number): void;

  /** fallocate(2) with `mode` (FALLOC_FL_*). */
  fallocate(
    fd: number,
    mode: number,
    offset: number,
    bytes: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** posix_fadvise(2) over the range with `advice` (POSIX_FADV_*). */
  fadvise(
    fd: number,
    offset: number,
    bytes: number,
    advice: number,
    kind: number,
    tag: number,
    generation: number,
  ): void;

  /** Waits until the descriptor is readable (POLLIN); for eventfds. The result is the events that were seen. */
  pollIn(fd: number, kind: number, tag: number, generation: number): void;

  /**
   * Submits everything queued, waits for at least one completion or the timeout, and hands every completion that is
   * there to its handler. Operations that handlers queue meanwhile are submitted by the next turn.
   *
   * @param timeoutMs how long to wait: 0 not at all, Infinity without end
   * @returns the number of completions handed out
   */
  turn(timeoutMs: number): number;

  /** How many operations are queued or under way. */
  readonly pending: number;

  /**
   * Gives the loop's memory and descriptors back. Operations still under way are cancelled by the kernel; memory that
   * they name must outlive the call. Their completions are not handed out.
   */
  close(): void;
}
