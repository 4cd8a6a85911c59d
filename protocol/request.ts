/**
 * The words that front-ends, machines and back-ends share about a request. They stand here, where nothing is imported,
 * because the protocol machines use them too; `engine/block.ts` gives them on.
 *
 * @module
 */

/** What a request asks for. The values are those of the wire (`protocol/SPEC.md`, "Requests"). */
export const Operation = {
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  DISCARD: 4,
  WRITE_ZEROES: 5,
  CACHE: 6,
  BLOCK_STATUS: 7,
} as const;
export type Operation = (typeof Operation)[keyof typeof Operation];

/** Flags of a request, a bit set. The values are those of the wire. */
export const RequestFlag = {
  /** The write is on stable storage before its completion. */
  FUA: 1,
  /** WRITE_ZEROES: the range stays allocated. */
  NO_UNMAP: 2,
  /** WRITE_ZEROES: fast, or fail with -EOPNOTSUPP at once. */
  FAST_ZERO: 4,
} as const;

/** Answer to a submitted request: the completion comes later. All other answers are 0 or a negative errno. */
export const PENDING = 1;

/** Bytes of one extent of a BLOCK_STATUS result in a slot: u64 length, u32 {@link ExtentFlag} set, u32 zero. */
export const EXTENT_BYTES = 16;
/** What an extent is, a bit set; the values are those of the wire. */
export const ExtentFlag = { HOLE: 1, ZERO: 2 } as const;
