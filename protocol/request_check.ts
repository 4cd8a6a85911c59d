/**
 * Which requests an exporter takes, and with which status it answers the others (SPEC.md, 5.1).
 *
 * @module
 */
import { Operation, RequestFlag } from "./request.ts";
import { Status } from "./status.ts";
import { FLAG_DF } from "./wire.ts";

/** The flags that each type of request may have. */
const FLAGS_ALLOWED = new Uint16Array(8);
FLAGS_ALLOWED[Operation.READ] = FLAG_DF;
FLAGS_ALLOWED[Operation.WRITE] = RequestFlag.FUA;
FLAGS_ALLOWED[Operation.DISCARD] = RequestFlag.FUA;
FLAGS_ALLOWED[Operation.WRITE_ZEROES] = RequestFlag.FUA | RequestFlag.NO_UNMAP | RequestFlag.FAST_ZERO;

/** The disk and the session that a request has to suit. Sizes in bytes. */
export interface RequestBounds {
  readonly size: number;
  /** A power of two. */
  readonly logicalBlock: number;
  readonly maxPayload: number;
  readonly readOnly: boolean;
}

/** Whether requests of the type change the disk. */
export function isMutation(type: number): boolean {
  return type === Operation.WRITE || type === Operation.DISCARD || type === Operation.WRITE_ZEROES;
}

/**
 * Whether the request suits disk and session.
 *
 * @param range offset and length in bytes, or -1 for one above 2^53 - 1
 * @returns OK, or the status of the first rule that it breaks, in the order of SPEC.md
 */
export function checkRequest(
  bounds: RequestBounds,
  type: number,
  flags: number,
  range: Float64Array,
): number {
  const offset = range[0];
  const length = range[1];
  if (type > Operation.BLOCK_STATUS) return Status.NOT_SUPPORTED;
  if ((flags & ~FLAGS_ALLOWED[type]) !== 0) return Status.INVALID;
  if (type === Operation.FLUSH) return offset === 0 && length === 0 ? Status.OK : Status.INVALID;
  if (bounds.readOnly && isMutation(type)) return Status.READ_ONLY;
  if (length < 1) return Status.INVALID;
  if ((type === Operation.READ || type === Operation.WRITE) && length > bounds.maxPayload) return Status.INVALID;
  // Compared so that nothing can round: the sum of two safe integers need not be one.
  if (offset < 0 || length > bounds.size || offset > bounds.size - length) return Status.OUT_OF_RANGE;
  // The operators take both modulo 2^32, which keeps the bits below a block of up to 2^31.
  if (((offset | length) & (bounds.logicalBlock - 1)) !== 0) return Status.INVALID;
  return Status.OK;
}
