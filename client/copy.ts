/**
 * Copies a disk: between files, block devices, standard input and output, and exports.
 *
 * @module
 */
import type { Endpoint } from "../engine/control/address.ts";
import type { SessionOptions } from "./attach.ts";

/** How far a copy is. All in bytes. */
export interface CopyProgress {
  /** How much of the disk is dealt with, holes included. */
  readonly done: number;
  /** The size of the disk, or null when it is not known (standard input). */
  readonly total: number | null;
  /** How much data was moved. */
  readonly moved: number;
}

/** How to copy. */
export interface CopyOptions extends SessionOptions {
  /** Read the destination again and compare its digest with that of what was read from the source. */
  readonly verify: boolean;
  /** Called now and then; null when nobody looks. */
  readonly onProgress: ((progress: CopyProgress) => void) | null;
  /** Ends the copy early. */
  readonly signal: AbortSignal;
}

/** What a copy did. */
export interface CopyResult {
  /** Bytes of the source, holes included. */
  readonly size: number;
  /** Bytes of data that were moved. */
  readonly moved: number;
  readonly elapsedMs: number;
  /** The digest that source and destination share, as `xxh64:` and hexadecimal digits; null without `verify`. */
  readonly digest: string | null;
}

/**
 * Copies everything from the source to the destination, and syncs it there. A file is made when it is missing.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function copy(_source: Endpoint, _destination: Endpoint, _options: CopyOptions): Promise<CopyResult> {
  return Promise.reject(new Error("Cannot copy: the client is not in this build"));
}
