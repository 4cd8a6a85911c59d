/**
 * Why a request failed: the one table from the errnos of the disk and the checks of the machine to the error values of
 * the wire, with a text for the person at the other end.
 *
 * @module
 */
import { NBD_PREFIX_BYTES } from "./host.ts";
import { CHUNK_BYTES, CHUNK_ERROR_BYTES, CHUNK_OFFSET_BYTES, NbdError } from "./wire.ts";

/** Reasons, as indices of {@link reasonError} and {@link reasonText}. NONE is success. */
export const Reason = {
  NONE: 0,
  // What the machine itself refuses.
  UNKNOWN_COMMAND: 1,
  UNKNOWN_FLAG: 2,
  PAST_END: 3,
  WRITE_PAST_END: 4,
  UNALIGNED: 5,
  TOO_LONG: 6,
  READ_ONLY: 7,
  NO_TRIM: 8,
  NO_CONTEXT: 9,
  EMPTY_STATUS: 10,
  UNFRAGMENTED_TOO_LONG: 11,
  FLUSH_WITH_RANGE: 12,
  SHUTTING_DOWN: 13,
  // What the disk answered.
  NOT_PERMITTED: 14,
  IO_ERROR: 15,
  NO_MEMORY: 16,
  INVALID: 17,
  NO_SPACE: 18,
  OVERFLOW: 19,
  NOT_FAST: 20,
  NOT_SUPPORTED: 21,
} as const;

const TABLE: readonly (readonly [reason: number, error: number, text: string])[] = [
  [Reason.NONE, 0, ""],
  [Reason.UNKNOWN_COMMAND, NbdError.EINVAL, "unknown command"],
  [Reason.UNKNOWN_FLAG, NbdError.EINVAL, "a flag that this command does not have"],
  [Reason.PAST_END, NbdError.EINVAL, "the range ends past the end of the export"],
  [Reason.WRITE_PAST_END, NbdError.ENOSPC, "the range ends past the end of the export"],
  [Reason.UNALIGNED, NbdError.EINVAL, "offset or length is not a multiple of the minimum block size"],
  [Reason.TOO_LONG, NbdError.EINVAL, "the length exceeds the maximum block size"],
  [Reason.READ_ONLY, NbdError.EPERM, "the export is read-only"],
  [Reason.NO_TRIM, NbdError.EINVAL, "the export does not support trim"],
  [Reason.NO_CONTEXT, NbdError.EINVAL, "no metadata context was selected for this export"],
  [Reason.EMPTY_STATUS, NbdError.EINVAL, "block status of no bytes"],
  [Reason.UNFRAGMENTED_TOO_LONG, NbdError.EOVERFLOW, "too long to be read without fragmentation"],
  [Reason.FLUSH_WITH_RANGE, NbdError.EINVAL, "a flush has no offset and no length"],
  [Reason.SHUTTING_DOWN, NbdError.ESHUTDOWN, "the server is shutting down"],
  [Reason.NOT_PERMITTED, NbdError.EPERM, "the disk does not permit it"],
  [Reason.IO_ERROR, NbdError.EIO, "input/output error of the disk"],
  [Reason.NO_MEMORY, NbdError.ENOMEM, "the server is out of memory"],
  [Reason.INVALID, NbdError.EINVAL, "the disk refused the request as invalid"],
  [Reason.NO_SPACE, NbdError.ENOSPC, "no space left on the disk"],
  [Reason.OVERFLOW, NbdError.EOVERFLOW, "a value is too large for the disk"],
  [Reason.NOT_FAST, NbdError.ENOTSUP, "the disk cannot write these zeroes fast"],
  [Reason.NOT_SUPPORTED, NbdError.EINVAL, "the disk does not support the operation"],
];

const ERRORS = new Uint32Array(TABLE.length);
const TEXTS: Uint8Array[] = [];
const TEXT_BYTES_MAX = NBD_PREFIX_BYTES - CHUNK_BYTES - CHUNK_ERROR_BYTES - CHUNK_OFFSET_BYTES;
for (const [reason, error, text] of TABLE) {
  ERRORS[reason] = error;
  TEXTS[reason] = new TextEncoder().encode(text);
  if (TEXTS[reason].length > TEXT_BYTES_MAX) throw new RangeError(`Cannot use the text of ${reason}: it is too long`);
}

/** Errnos of Linux (`asm-generic/errno-base.h`, `asm-generic/errno.h`) to reasons. All others are IO_ERROR. */
const ERRNO_REASONS = new Uint8Array(256).fill(Reason.IO_ERROR);
ERRNO_REASONS[0] = Reason.NONE;
ERRNO_REASONS[1] = Reason.NOT_PERMITTED; // EPERM
ERRNO_REASONS[12] = Reason.NO_MEMORY; // ENOMEM
ERRNO_REASONS[13] = Reason.NOT_PERMITTED; // EACCES
ERRNO_REASONS[22] = Reason.INVALID; // EINVAL
ERRNO_REASONS[27] = Reason.NO_SPACE; // EFBIG, as the specification asks
ERRNO_REASONS[28] = Reason.NO_SPACE; // ENOSPC
ERRNO_REASONS[30] = Reason.NOT_PERMITTED; // EROFS
ERRNO_REASONS[75] = Reason.OVERFLOW; // EOVERFLOW
ERRNO_REASONS[95] = Reason.NOT_SUPPORTED; // EOPNOTSUPP
ERRNO_REASONS[108] = Reason.SHUTTING_DOWN; // ESHUTDOWN
ERRNO_REASONS[122] = Reason.NO_SPACE; // EDQUOT, as the specification asks

/**
 * The reason that a status of the disk stands for.
 *
 * @param status 0 or a negative errno
 * @param fastZero the request was a WRITE_ZEROES with FAST_ZERO: the only one that may be answered with ENOTSUP
 */
export function reasonOfStatus(status: number, fastZero: boolean): number {
  const errno = -status;
  if (!(errno >= 0 && errno < ERRNO_REASONS.length)) return Reason.IO_ERROR;
  const reason = ERRNO_REASONS[errno];
  return fastZero && reason === Reason.NOT_SUPPORTED ? Reason.NOT_FAST : reason;
}

/** The error value of the wire for a reason: an `NbdError`, or 0 for NONE. */
export function reasonError(reason: number): number {
  return ERRORS[reason];
}

/** A reason's text in UTF-8, empty for NONE. It fits the room before a slot's payload. */
export function reasonText(reason: number): Uint8Array {
  return TEXTS[reason];
}
