/**
 * What the NBD machine needs from whoever runs it.
 *
 * @module
 */

/** What a client is told about an export. Sizes are in bytes. */
export interface NbdExport {
  /** The canonical name, at most 4096 bytes of UTF-8. */
  readonly name: string;
  /** For people; empty when there is none. */
  readonly description: string;
  /** A safe integer. */
  /** In bytes. It may change: a client knows the one that it was told. */
  size: number;
  /** Offsets and lengths are multiples of this: a power of two, 1 to 65536. */
  readonly minimumBlock: number;
  /** The request size to prefer. */
  readonly preferredBlock: number;
  readonly readOnly: boolean;
  /** TRIM is supported. */
  readonly canTrim: boolean;
  /** WRITE_ZEROES with FAST_ZERO can succeed. */
  readonly fastZero: boolean;
  /** A FLUSH on one connection covers the writes acknowledged on all of them. */
  readonly multiConn: boolean;
}

/** Why an export is not given. */
export interface NbdRefusal {
  /** The answer: an `OptionReply.ERR_*`, such as ERR_UNKNOWN or ERR_POLICY. */
  readonly refused: number;
  /** For the person at the other end. */
  readonly message: string;
}

/** Answer of {@link NbdHost.openExport}: the host gives the outcome to `NbdServer.opened` later. */
export const OPEN_PENDING = "pending";

/**
 * The surroundings of one connection. The first two methods belong to the control phase; the others are called per
 * request and allocate nothing. Slots are those of this connection, 0 to `slots - 1`; each has a payload area with at
 * least {@link NBD_PREFIX_BYTES} bytes of room before it for reply headers.
 *
 * No method calls back into the machine (nor resumes its stream) before it has returned.
 */
export interface NbdHost {
  /** The exports to be listed. */
  listExports(): readonly { readonly name: string; readonly description: string }[];
  /**
   * @param name as the client gave it; empty means the default export
   * @param enter true: transmission follows, the export is to be held for this connection; false: it is only described
   */
  openExport(name: string, enter: boolean): NbdExport | NbdRefusal | typeof OPEN_PENDING;

  /**
   * Queues bytes of the arena for sending, in the order of the calls.
   *
   * @param at arena offset
   * @param bytes how many, at least 1
   * @param slot the slot that holds them: the host takes it back when they are sent. -1: they are the machine's own, and
   *   the host calls `NbdServer.sent` once when they are sent.
   */
  transmit(at: number, bytes: number, slot: number): void;
  /** A free slot, or -1. Whenever a slot comes free while the stream waits, the host resumes the stream. */
  takeSlot(): number;
  /** Gives a slot back whose content nobody needs any more. */
  releaseSlot(slot: number): void;
  /** Arena offset of the slot's payload area. */
  payloadAt(slot: number): number;
  /**
   * Starts a request on the opened export. READ and BLOCK_STATUS fill the slot's payload area, WRITE takes from it.
   *
   * @param operation an `Operation` of `protocol/request.ts`
   * @param flags a `RequestFlag` set; FUA may come with WRITE, DISCARD and WRITE_ZEROES
   * @returns 0 or a negative errno of Linux when it is done; `PENDING` when `NbdServer.complete` will be called later
   */
  execute(slot: number, operation: number, offset: number, length: number, flags: number): number;
  /** After a successful BLOCK_STATUS: how many bytes of extents lie in the slot's payload area. */
  extentBytes(slot: number): number;
  /** The connection is to be cut at once, without sending what is queued: a reply can't be completed. */
  disconnect(): void;
}

/** The room that the machine uses before a slot's payload area, in bytes. The longest header is an error with text. */
export const NBD_PREFIX_BYTES = 256;
