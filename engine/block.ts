/**
 * The block interface: every back-end, layer and remote disk is a {@link BlockDevice}, and every front-end drives one.
 *
 * @module
 */

export { EXTENT_BYTES, ExtentFlag, Operation, PENDING, RequestFlag } from "../protocol/request.ts";

/** What a disk is like. All in bytes. */
export interface Geometry {
  /** Whoever has the disk changes it when the disk has become larger or smaller: it is to be looked at each time. */
  size: number;
  /** Requests are multiples of this, and so are their offsets. A power of two, at least 1. */
  readonly logicalBlock: number;
  readonly physicalBlock: number;
  /** The preferred request size and alignment. */
  readonly optimalIo: number;
  /** Discards smaller than or unaligned to this may do nothing. 0: DISCARD is not supported. */
  readonly discardGranularity: number;
  readonly readOnly: boolean;
  /** An acknowledged write may be lost until a FLUSH after it has succeeded. */
  readonly volatileCache: boolean;
  /** WRITE_ZEROES with FAST_ZERO can succeed. */
  readonly fastZero: boolean;
}

/** Who asked. */
export interface BlockClient {
  /**
   * The request in the slot has ended.
   *
   * @param slot the slot given to submit
   * @param status 0 or a negative errno
   */
  onComplete(slot: number, status: number): void;
}

/**
 * A disk. The slot (see `slots.ts`) carries the data: READ and BLOCK_STATUS fill its payload area, WRITE takes from it.
 * A slot carries one request at a time. Ranges were checked against the geometry by the front-end: they lie within the
 * disk, are multiples of the logical block, and READ and WRITE fit the slot.
 */
export interface BlockDevice {
  readonly geometry: Geometry;
  /**
   * Starts a request for the range that `Slots.setRange` gave the slot. Answers its status if it is already done, or
   * {@link PENDING}: then `client.onComplete` is called exactly once, later, never from within submit. The range may
   * exceed the slot for DISCARD, WRITE_ZEROES, CACHE and BLOCK_STATUS; for FLUSH it means nothing. It stays as it is
   * until the completion, but that a layer may shorten the range of a BLOCK_STATUS.
   *
   * (The range is not an argument, because a large number that is passed to a function becomes an object in
   * JavaScript, and a request must not leave garbage.)
   *
   * @param slot index in the Worker's slot table
   * @param operation an {@link Operation}
   * @param flags {@link RequestFlag} set
   */
  submit(slot: number, operation: number, flags: number, client: BlockClient): number;
  /**
   * After a successful BLOCK_STATUS: how many bytes of extents (16 each, see `EXTENT_BYTES`; at least one extent)
   * lie in the slot's payload area. Only meaningful until the slot's next request.
   */
  extentBytes(slot: number): number;
  /** Ends the disk: what it holds is given back. No request is under way. */
  close(): void;
}
