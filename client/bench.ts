/**
 * Drives an export through the client session and measures.
 *
 * @module
 */
import type { RemoteAddress } from "../engine/control/address.ts";
import type { SessionOptions } from "./attach.ts";

/** What to measure. */
export interface BenchOptions extends RemoteAddress, SessionOptions {
  /** For each mix. */
  readonly seconds: number;
  /** Measure writes too; they destroy what is on the export. */
  readonly write: boolean;
}

/** One measured mix. */
export interface BenchRow {
  /** For example `4k random read`. */
  readonly mix: string;
  readonly depth: number;
  readonly operations: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/**
 * Measures one mix after the other and reports each when it is done.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function bench(_options: BenchOptions, _report: (row: BenchRow) => void): Promise<void> {
  return Promise.reject(new Error("Cannot measure: the client is not in this build"));
}
