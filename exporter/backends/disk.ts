/**
 * An opened disk as plain data: made once on the control plane, sent to every Worker that serves it.
 *
 * @module
 */
import type { Geometry } from "../../engine/block.ts";

/** What tells one disk from another, also after a restart. */
export interface DiskIdentity {
  /** The file system's device. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly inode: number;
  /** When the file was made, ns since 1970 in decimal; empty where the file system does not say. */
  readonly birthTime: string;
  /** The device itself, for a block device; else 0. */
  readonly targetMajor: number;
  readonly targetMinor: number;
  /** Bytes, before rounding. */
  readonly size: number;
}

/** A disk that is open and locked. The descriptor is the process's, so it is the same number in every Worker. */
export interface OpenedDisk {
  readonly path: string;
  readonly kind: "memory" | "file" | "block";
  /** Closing it, after all Workers have closed their backends, gives the lock back. */
  readonly fd: number;
  readonly geometry: Geometry;
  /** READ and WRITE are done on the spot with blocking calls: the data are in memory. */
  readonly inline: boolean;
  /**
   * A FUA write is done with RWF_DSYNC, not followed by a sync: it passes the page cache by, and the device sees to it
   * by itself (REQ_FUA).
   */
  readonly forcesWrites: boolean;
  /** WRITE_ZEROES with NO_UNMAP and FAST_ZERO can succeed. */
  readonly fastAllocatedZero: boolean;
  /** How many bytes at the end are not exported, because they are no whole logical block. */
  readonly roundedOffBytes: number;
  readonly identity: DiskIdentity;
}

/** A disk cannot be exported; the message is "Cannot export PATH: reason". */
export class ExportError extends Error {
  override readonly name = "ExportError";
  /** Someone else has locked the disk: trying again later can help. */
  readonly locked: boolean;

  /**
   * @param path as the user gave it
   * @param reason to follow the colon
   * @param locked see the field
   */
  constructor(path: string, reason: string, locked = false) {
    super(`Cannot export ${path}: ${reason}`);
    this.locked = locked;
  }
}

/** The smallest logical block of any disk, in bytes: what the kernel's block layer counts in. */
export const SECTOR_BYTES = 512;

/** The largest power of two that is not above the value, kept between two powers of two. */
export function powerOfTwoWithin(value: number, least: number, most: number): number {
  let power = least;
  while (power * 2 <= Math.min(value, most)) power *= 2;
  return power;
}
