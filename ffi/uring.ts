/**
 * An io_uring as the kernel hands it out: set-up, mapping, and where its parts lie. What is done with it is in
 * `ring.ts` and `ublk_control.ts`. Numbers are from linux/io_uring.h; the system calls have the same number on every
 * architecture.
 *
 * @module
 */
import { addressOf, c, close, mmap, munmap, orErrno, viewOf } from "./libc.ts";
import { Mapping, Protection } from "./constants.ts";
import { Errno, errnoMessage, SystemError } from "./errno.ts";

const SYS_IO_URING_SETUP = 425n;
const SYS_IO_URING_ENTER = 426n;
const SYS_IO_URING_REGISTER = 427n;

/** IORING_SETUP_*. */
export const SetupFlag = {
  CQSIZE: 1 << 3,
  CLAMP: 1 << 4,
  /** One bad entry does not keep those behind it from being submitted (Linux 5.18). */
  SUBMIT_ALL: 1 << 7,
  /** No interrupt for work that the thread will find when it next enters (Linux 5.19). */
  COOP_TASKRUN: 1 << 8,
  /** Entries are 128 bytes long: room for an 80-byte command (Linux 5.19). */
  SQE128: 1 << 10,
  /** Only the thread that made the ring submits (Linux 6.0). */
  SINGLE_ISSUER: 1 << 12,
  /** Completions are finished when the thread waits for them, in one batch (Linux 6.1). */
  DEFER_TASKRUN: 1 << 13,
} as const;

/** IORING_ENTER_*. */
export const EnterFlag = { GETEVENTS: 1, EXT_ARG: 8 } as const;

/** IORING_FEAT_* that must be there: one mapping, no lost completions, timeout as an argument (Linux 5.11). */
const FEATURE_SINGLE_MMAP = 1 << 0;
const FEATURE_NODROP = 1 << 1;
const FEATURE_EXT_ARG = 1 << 8;
const FEATURES_NEEDED = FEATURE_SINGLE_MMAP | FEATURE_NODROP | FEATURE_EXT_ARG;

/** IORING_OFF_SQES: where the submission entries are mapped. */
const OFFSET_SQES = 0x1000_0000;

/** `struct io_uring_params` in 32-bit words: 120 bytes, `io_sqring_offsets` at 40, `io_cqring_offsets` at 80. */
const PARAMS_WORDS = 30;
const Params = { SQ_ENTRIES: 0, CQ_ENTRIES: 1, FLAGS: 2, FEATURES: 5, SQ_OFFSETS: 10, CQ_OFFSETS: 20 } as const;
/** Words of `struct io_sqring_offsets` (head, tail, ring_mask, ring_entries, flags, dropped, array). */
const SqOffset = { TAIL: 1, ARRAY: 6 } as const;
/** Words of `struct io_cqring_offsets` (head, tail, ring_mask, ring_entries, overflow, cqes). */
const CqOffset = { HEAD: 0, TAIL: 1, CQES: 5 } as const;

/** IORING_REGISTER_SYNC_CANCEL (Linux 6.0), and IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY. */
const REGISTER_SYNC_CANCEL = 24;
const CANCEL_ALL_ANY = 1 | 4;
/** How long to wait for operations to end before the ring goes: a socket's end at once, a disk's cannot be hurried. */
const CANCEL_WAIT_NS = 100_000_000;

/** A mapped ring. The arrays are the kernel's own memory; none may be touched after {@link unmapUring}. */
export interface MappedUring {
  readonly fd: number;
  /** Submission entries, a power of two, and completion entries, a power of two. */
  readonly sqEntries: number;
  readonly cqEntries: number;
  /** Both rings, in words. The indices below count words in it. */
  readonly ring: Uint32Array<ArrayBuffer>;
  readonly sqTailIndex: number;
  readonly cqHeadIndex: number;
  readonly cqTailIndex: number;
  /** Completion entries of four words: user data low, high, result, flags. */
  readonly cqesIndex: number;
  /** Submission entries, in words. Entry i is always submitted from place i. */
  readonly sqes: Uint32Array<ArrayBuffer>;
  readonly ringAddress: number;
  readonly sqesAddress: number;
}

/** io_uring_setup(2); answers a descriptor or a negative errno, and fills in the parameters. */
function setup(entries: number, cqEntries: number, flags: number, params: Uint32Array<ArrayBuffer>): number {
  params.fill(0);
  params[Params.FLAGS] = flags;
  if ((flags & SetupFlag.CQSIZE) !== 0) params[Params.CQ_ENTRIES] = cqEntries;
  return orErrno(c.uringSetup(SYS_IO_URING_SETUP, entries, params));
}

/**
 * Makes and maps a ring.
 *
 * @param entries submission entries, rounded up to a power of two
 * @param cqEntries completion entries, for flags with CQSIZE
 * @param flagChoices sets of {@link SetupFlag}, best first: the first one that the kernel knows is taken
 * @throws {SystemError}
 */
export function mapUring(entries: number, cqEntries: number, flagChoices: readonly number[]): MappedUring {
  const params = new Uint32Array(new ArrayBuffer(PARAMS_WORDS * 4));
  let fd: number = -Errno.EINVAL;
  let flags = 0;
  for (const choice of flagChoices) {
    flags = choice;
    fd = setup(entries, cqEntries, choice, params);
    if (fd !== -Errno.EINVAL) break;
  }
  if (fd < 0) throw new SystemError("make an io_uring", fd);
  if ((params[Params.FEATURES] & FEATURES_NEEDED) !== FEATURES_NEEDED) {
    close(fd);
    throw new SystemError("make an io_uring: this kernel's is older than Linux 5.11", Errno.EOPNOTSUPP);
  }

  const sq = (word: number) => params[Params.SQ_OFFSETS + word];
  const cq = (word: number) => params[Params.CQ_OFFSETS + word];
  const sqEntries = params[Params.SQ_ENTRIES];
  const cqEntriesGiven = params[Params.CQ_ENTRIES];
  const ringBytes = Math.max(sq(SqOffset.ARRAY) + sqEntries * 4, cq(CqOffset.CQES) + cqEntriesGiven * 16);
  const sqesBytes = sqEntries * ((flags & SetupFlag.SQE128) !== 0 ? 128 : 64);
  const protection = Protection.READ | Protection.WRITE;
  const mapping = Mapping.SHARED | Mapping.POPULATE;
  const ringAddress = mmap(ringBytes, protection, mapping, fd, 0);
  const sqesAddress = ringAddress < 0 ? ringAddress : mmap(sqesBytes, protection, mapping, fd, OFFSET_SQES);
  if (sqesAddress < 0) {
    if (ringAddress > 0) munmap(ringAddress, ringBytes);
    close(fd);
    throw new SystemError("map an io_uring", sqesAddress);
  }

  const ring = new Uint32Array(viewOf(ringAddress, ringBytes));
  for (let i = 0; i < sqEntries; i++) ring[sq(SqOffset.ARRAY) / 4 + i] = i;
  return {
    fd,
    sqEntries,
    cqEntries: cqEntriesGiven,
    ring,
    sqTailIndex: sq(SqOffset.TAIL) / 4,
    cqHeadIndex: cq(CqOffset.HEAD) / 4,
    cqTailIndex: cq(CqOffset.TAIL) / 4,
    cqesIndex: cq(CqOffset.CQES) / 4,
    sqes: new Uint32Array(viewOf(sqesAddress, sqesBytes)),
    ringAddress,
    sqesAddress,
  };
}

/** Gives a ring back. Its arrays must not be touched any more: the memory is gone. */
export function unmapUring(uring: MappedUring): void {
  munmap(uring.sqesAddress, uring.sqes.byteLength);
  munmap(uring.ringAddress, uring.ring.byteLength);
  close(uring.fd);
}

/**
 * io_uring_enter(2).
 *
 * @param submit how many entries to submit
 * @param waitFor how many completions to wait for
 * @param flags {@link EnterFlag}s
 * @param argument with EXT_ARG: address of a `struct io_uring_getevents_arg`; else 0n
 * @param argumentBytes with EXT_ARG: its size, 24n; else 0n
 * @returns the number of entries submitted, or a negative errno
 */
export function enterUring(
  fd: number,
  submit: number,
  waitFor: number,
  flags: number,
  argument: bigint,
  argumentBytes: bigint,
): number {
  return orErrno(c.uringEnter(SYS_IO_URING_ENTER, fd, submit, waitFor, flags, argument, argumentBytes));
}

/** Cancels everything under way and waits a moment for it to end. Kernels before 6.0 do it when the ring is closed. */
export function cancelAll(fd: number): void {
  // struct io_uring_sync_cancel_reg: addr u64, fd s32, flags u32, timeout (s64 seconds, s64 ns), 32 bytes of zeroes.
  const request = new Uint32Array(new ArrayBuffer(64));
  request[2] = 0xffff_ffff;
  request[3] = CANCEL_ALL_ANY;
  request[6] = CANCEL_WAIT_NS;
  c.uringRegister(SYS_IO_URING_REGISTER, fd, REGISTER_SYNC_CANCEL, request, 1);
}

/** Where a wait's timeout is handed to the kernel: `struct io_uring_getevents_arg` and `struct __kernel_timespec`. */
export class WaitArgument {
  /** The structure's address, for {@link enterUring}. */
  readonly address: bigint;
  /** The timespec's address, for ppoll(2). */
  readonly timespecAddress: bigint;
  readonly #words: Uint32Array<ArrayBuffer>;

  constructor() {
    // u64 sigmask, u32 sigmask_sz, u32 pad, u64 ts; then s64 seconds, s64 nanoseconds.
    this.#words = new Uint32Array(new ArrayBuffer(40));
    const address = addressOf(this.#words);
    const timespec = address + 24;
    this.#words[4] = timespec;
    this.#words[5] = timespec / 0x1_0000_0000;
    this.address = BigInt(address);
    this.timespecAddress = BigInt(timespec);
  }

  /** Sets the timeout: at least 0, at most 2^32 seconds, fractions of a millisecond count. */
  set(timeoutMs: number): void {
    const seconds = Math.min(Math.floor(timeoutMs / 1000), 0xffff_ffff);
    this.#words[6] = seconds;
    this.#words[8] = Math.min(Math.round((timeoutMs - seconds * 1000) * 1e6), 999_999_999);
  }
}

/**
 * Whether io_uring can be used here.
 *
 * @returns null when it can, else the reason, to follow "Cannot use io_uring: "
 */
export function uringAvailable(): string | null {
  const params = new Uint32Array(new ArrayBuffer(PARAMS_WORDS * 4));
  const fd = setup(1, 0, 0, params);
  if (fd >= 0) {
    close(fd);
    const good = (params[Params.FEATURES] & FEATURES_NEEDED) === FEATURES_NEEDED;
    return good ? null : "this kernel's io_uring is older than Linux 5.11";
  }
  switch (-fd) {
    case Errno.ENOSYS:
      return "io_uring is not in this kernel, or a container's filter hides it";
    case Errno.EPERM:
    case Errno.EACCES:
      return "io_uring is switched off (sysctl kernel.io_uring_disabled, or a container's filter)";
    default:
      return `io_uring cannot be set up: ${errnoMessage(fd)}`;
  }
}
