/**
 * Error numbers of Linux: names, messages and the one exception class for failed system calls. x86-64 and aarch64 share
 * the numbers of asm-generic/errno-base.h and asm-generic/errno.h.
 *
 * @module
 */

/** Error numbers by name, as positive numbers. System calls and completions answer them negated. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  EDOM: 33,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  ETIME: 62,
  ENOLINK: 67,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EUSERS: 87,
  ENOTSOCK: 88,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENETRESET: 102,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTDOWN: 112,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ESTALE: 116,
  EREMOTEIO: 121,
  EDQUOT: 122,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  ECANCELED: 125,
  EKEYEXPIRED: 127,
  EKEYREJECTED: 129,
  EOWNERDEAD: 130,
} as const;

/** A name of {@link Errno}. */
export type ErrnoName = keyof typeof Errno;

const NAMES = new Map<number, ErrnoName>(
  (Object.keys(Errno) as ErrnoName[]).map((name) => [Errno[name], name]),
);

/** What a person needs to read about the numbers that this program meets; others are told by name alone. */
const MESSAGES: Partial<Record<ErrnoName, string>> = {
  EPERM: "operation not permitted",
  ENOENT: "no such file or directory",
  EINTR: "interrupted",
  EIO: "input/output error",
  ENXIO: "no such device or address",
  EBADF: "bad file descriptor",
  EAGAIN: "temporarily unavailable",
  ENOMEM: "out of memory",
  EACCES: "permission denied",
  EFAULT: "bad address",
  ENOTBLK: "not a block device",
  EBUSY: "device or resource busy",
  EEXIST: "exists already",
  EXDEV: "link across devices",
  ENODEV: "no such device",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  EINVAL: "invalid argument",
  ENFILE: "too many open files in the system",
  EMFILE: "too many open files",
  ENOTTY: "not supported by this device",
  ETXTBSY: "file is being executed",
  EFBIG: "file too large",
  ENOSPC: "no space left on device",
  ESPIPE: "cannot seek",
  EROFS: "read-only file system",
  EPIPE: "broken pipe",
  ERANGE: "out of range",
  ENAMETOOLONG: "name too long",
  ENOLCK: "no locks available",
  ENOSYS: "not in this kernel",
  ELOOP: "too many symbolic links",
  ETIME: "timer expired",
  EPROTO: "protocol error",
  EBADMSG: "bad message",
  EOVERFLOW: "value too large",
  ENOTSOCK: "not a socket",
  EMSGSIZE: "message too long",
  EOPNOTSUPP: "operation not supported",
  EAFNOSUPPORT: "address family not supported",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "address not available on this machine",
  ENETDOWN: "network is down",
  ENETUNREACH: "network unreachable",
  ECONNABORTED: "connection aborted",
  ECONNRESET: "connection reset by peer",
  ENOBUFS: "no buffer space",
  EISCONN: "connected already",
  ENOTCONN: "not connected",
  ESHUTDOWN: "shut down",
  ETIMEDOUT: "timed out",
  ECONNREFUSED: "connection refused",
  EHOSTDOWN: "host is down",
  EHOSTUNREACH: "no route to host",
  EALREADY: "under way already",
  EINPROGRESS: "in progress",
  ESTALE: "stale file handle",
  EREMOTEIO: "remote input/output error",
  EDQUOT: "disk quota exceeded",
  ENOMEDIUM: "no medium",
  ECANCELED: "cancelled",
};

/**
 * The name of an error number, for example `ENOENT`; `errno 999` for an unknown one.
 *
 * @param errno positive, or negative as system calls answer it
 */
export function errnoName(errno: number): string {
  const positive = Math.abs(errno);
  return NAMES.get(positive) ?? `errno ${positive}`;
}

/**
 * What an error number means, in a few lower-case words, for example `no such file or directory`.
 *
 * @param errno positive, or negative as system calls answer it
 */
export function errnoMessage(errno: number): string {
  const name = NAMES.get(Math.abs(errno));
  return (name === undefined ? undefined : MESSAGES[name]) ?? errnoName(errno);
}

/** A system call failed, on the control plane. The message is "Cannot WHAT: meaning (ENAME)". */
export class SystemError extends Error {
  override readonly name = "SystemError";
  /** The error number, positive. */
  readonly errno: number;
  /** The error's name, for example `ENOENT`. */
  readonly code: string;

  /**
   * @param what what could not be done, to follow "Cannot": `open /dev/sda`
   * @param errno positive or negative
   */
  constructor(what: string, errno: number) {
    super(`Cannot ${what}: ${errnoMessage(errno)} (${errnoName(errno)})`);
    this.errno = Math.abs(errno);
    this.code = errnoName(errno);
  }
}

/**
 * Hands a system call's result through, unless it is an error.
 *
 * @param result a count or descriptor, or a negative errno
 * @param what what was to be done, to follow "Cannot"
 * @throws {SystemError} for a negative result
 */
export function check(result: number, what: string): number {
  if (result < 0) throw new SystemError(what, result);
  return result;
}
