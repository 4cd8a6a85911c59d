/**
 * Status codes of the protocol and how they map to Linux errno numbers (SPEC.md, section 8).
 *
 * @module
 */

/** What became of a request. */
export const Status = {
  OK: 0,
  /** The disk failed. */
  IO: 1,
  /** No space left behind the disk, or quota. */
  NO_SPACE: 2,
  /** Flags, block size or range not acceptable. */
  INVALID: 3,
  /** A mutation on a read-only session. */
  READ_ONLY: 4,
  NOT_SUPPORTED: 5,
  NO_MEMORY: 6,
  TIMED_OUT: 7,
  /** Beyond the end. */
  OUT_OF_RANGE: 8,
  SHUTTING_DOWN: 9,
  /** Unrecoverable data. */
  MEDIUM: 10,
  /** An integrity check below the exporter failed. */
  PROTECTION: 11,
  /** No such export. */
  NOT_FOUND: 32,
  /** No permission for that access. */
  DENIED: 33,
  /** Another session holds the export. */
  BUSY: 34,
  NO_SESSION: 35,
  /** Another writer has taken over. */
  EPOCH_CHANGED: 36,
  /** Not the same disk. */
  STORAGE_CHANGED: 37,
  /** The exporter cannot reserve what a lane needs. */
  NO_RESOURCES: 38,
  OLD_GENERATION: 39,
  SESSION_EXISTS: 40,
  /** Malformed TLVs, a missing one, or wrong phase. */
  BAD_REQUEST: 41,
  /** A required TLV is not known. */
  UNKNOWN_REQUIRED: 42,
  /** No version in common. */
  VERSION: 43,
  NO_COMMON_ALGORITHM: 44,
  KEY_REQUIRED: 45,
  /** Too many connections or sessions. */
  TOO_MANY: 46,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

/** The Linux errno numbers that occur in the tables: `asm-generic/errno-base.h` and `asm-generic/errno.h`. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENODATA: 61,
  EPROTO: 71,
  EILSEQ: 84,
  /** The same number as ENOTSUP. */
  EOPNOTSUPP: 95,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ESTALE: 116,
  EDQUOT: 122,
} as const;

/** Status → errno. OUT_OF_RANGE stands for reads here; mutations get ENOSPC. */
const ERRNO_OF_STATUS: readonly (readonly [number, number])[] = [
  [Status.IO, Errno.EIO],
  [Status.NO_SPACE, Errno.ENOSPC],
  [Status.INVALID, Errno.EINVAL],
  [Status.READ_ONLY, Errno.EROFS],
  [Status.NOT_SUPPORTED, Errno.EOPNOTSUPP],
  [Status.NO_MEMORY, Errno.ENOMEM],
  [Status.TIMED_OUT, Errno.ETIMEDOUT],
  [Status.OUT_OF_RANGE, Errno.EINVAL],
  [Status.SHUTTING_DOWN, Errno.ESHUTDOWN],
  [Status.MEDIUM, Errno.ENODATA],
  [Status.PROTECTION, Errno.EILSEQ],
  [Status.NOT_FOUND, Errno.ENOENT],
  [Status.DENIED, Errno.EACCES],
  [Status.BUSY, Errno.EBUSY],
  [Status.NO_SESSION, Errno.ENOTCONN],
  [Status.EPOCH_CHANGED, Errno.ESTALE],
  [Status.STORAGE_CHANGED, Errno.ESTALE],
  [Status.NO_RESOURCES, Errno.ENOMEM],
  [Status.OLD_GENERATION, Errno.ESTALE],
  [Status.SESSION_EXISTS, Errno.EEXIST],
  [Status.BAD_REQUEST, Errno.EPROTO],
  [Status.UNKNOWN_REQUIRED, Errno.EPROTO],
  [Status.VERSION, Errno.EPROTO],
  [Status.NO_COMMON_ALGORITHM, Errno.EPROTO],
  [Status.KEY_REQUIRED, Errno.EACCES],
  [Status.TOO_MANY, Errno.EMFILE],
];

/** Errno → status, for what an exporter's disk can answer. Everything else is IO. */
const STATUS_OF_ERRNO: readonly (readonly [number, number])[] = [
  [Errno.ENOSPC, Status.NO_SPACE],
  [Errno.EDQUOT, Status.NO_SPACE],
  [Errno.EFBIG, Status.NO_SPACE],
  [Errno.EINVAL, Status.INVALID],
  [Errno.EROFS, Status.READ_ONLY],
  [Errno.EPERM, Status.READ_ONLY],
  [Errno.EOPNOTSUPP, Status.NOT_SUPPORTED],
  [Errno.ENOMEM, Status.NO_MEMORY],
  [Errno.ETIMEDOUT, Status.TIMED_OUT],
  [Errno.ESHUTDOWN, Status.SHUTTING_DOWN],
  [Errno.ENODATA, Status.MEDIUM],
  [Errno.EILSEQ, Status.PROTECTION],
];

// Tables by number, so that neither direction searches on the data path.
const errnoByStatus = new Uint8Array(64).fill(Errno.EIO);
errnoByStatus[Status.OK] = 0;
for (const [status, errno] of ERRNO_OF_STATUS) errnoByStatus[status] = errno;
const statusByErrno = new Uint8Array(256).fill(Status.IO);
statusByErrno[0] = Status.OK;
for (const [errno, status] of STATUS_OF_ERRNO) statusByErrno[errno] = status;

const NAMES = new Map<number, string>(Object.entries(Status).map(([name, number]) => [number, name]));

/**
 * The status for what a disk answered.
 *
 * @param negativeErrno 0 or a negative errno
 */
export function statusOfErrno(negativeErrno: number): number {
  // Not a plain minus: that makes -0 of 0, which is no small integer to V8, and undoes its optimized code every time.
  const errno = 0 - negativeErrno;
  return errno >= 0 && errno < statusByErrno.length ? statusByErrno[errno] : Status.IO;
}

/**
 * The errno that a status stands for at the client.
 *
 * @param status a number from the wire; unknown ones count as IO
 * @param isMutation whether the request was a WRITE, DISCARD or WRITE_ZEROES
 * @returns 0 or a negative errno
 */
export function errnoOfStatus(status: number, isMutation: boolean): number {
  if (status === Status.OK) return 0;
  if (status === Status.OUT_OF_RANGE && isMutation) return -Errno.ENOSPC;
  return status < errnoByStatus.length ? -errnoByStatus[status] : -Errno.EIO;
}

/** The status's name as SPEC.md has it, or its number. */
export function statusName(status: number): string {
  return NAMES.get(status) ?? `status ${status}`;
}
