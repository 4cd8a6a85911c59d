/**
 * Questions to an exporter that need no session.
 *
 * @module
 */
import type { SessionOptions } from "./attach.ts";

/** How a question is asked. */
export type QueryOptions = Pick<SessionOptions, "loop" | "digests">;

/** An export as a list shows it. */
export interface ListedExport {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** What this client may do at most. */
  readonly access: "read-only" | "read-write";
  /** Names of what it can do: `volatile-cache`, `discard`, `write-zeroes`, `fast-zero`, `block-status`, `cache`, ... */
  readonly features: readonly string[];
}

/** All that an exporter says of an export to somebody who does not hold it. */
export interface Description extends ListedExport {
  /** Block sizes and granularity, in bytes. */
  readonly logicalBlock: number;
  readonly physicalBlock: number;
  readonly optimalIo: number;
  readonly discardGranularity: number;
  /** 32 hexadecimal digits each; the write epoch is a decimal number. */
  readonly identities: {
    readonly instance: string;
    readonly durabilityEpoch: string;
    readonly storage: string;
    readonly writeEpoch: string;
  };
  /** Who holds it read-write (`NAME at ADDRESS`), or null. */
  readonly holder: string | null;
}

/**
 * All exports that this client may use, sorted by name.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function listExports(_host: string, _port: number, _options: QueryOptions): Promise<ListedExport[]> {
  return Promise.reject(new Error("Cannot list: the client is not in this build"));
}

/**
 * Describes one export.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function describeExport(
  _host: string,
  _port: number,
  _name: string,
  _options: QueryOptions,
): Promise<Description> {
  return Promise.reject(new Error("Cannot describe the export: the client is not in this build"));
}
