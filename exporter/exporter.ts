/**
 * An exporter: serves disks to clients, by DST and, where asked to, by NBD.
 *
 * @module
 */
import type { HostPort, NbdAddress } from "../engine/control/address.ts";
export type { NbdAddress } from "../engine/control/address.ts";

/** One disk to serve. */
export interface ExportOptions {
  /** 1 to 255 bytes of UTF-8, unique in the exporter. */
  readonly name: string;
  /** A file, a block device, or `mem:SIZE`. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Several clients may write at once. */
  readonly shared: boolean;
  /** Past the page cache (O_DIRECT). */
  readonly direct: boolean;
  /** Specifications of layers over the disk, the lowest first; see `engine/layers/`. */
  readonly layers: readonly string[];
}

/** What {@link startExporter} needs to know. */
export interface ExporterOptions {
  readonly exports: readonly ExportOptions[];
  /** Port 0 takes any free one. */
  readonly listen: HostPort;
  /** Where to serve the same disks by NBD, or null. */
  readonly nbd: NbdAddress | null;
  readonly loop: "auto" | "uring" | "poll";
  /** Where the records live that must survive a restart; made when it is missing. */
  readonly stateDir: string;
  /** Names of the digests that are offered, the best first. */
  readonly digests: readonly string[];
}

/** One session, as `dst status` shows it. */
export interface SessionStatus {
  readonly holder: string;
  readonly address: string;
  readonly access: "read-only" | "read-write";
}

/** One export, as `dst status` shows it. */
export interface ExportStatus {
  readonly name: string;
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly access: "read-only" | "read-write";
  readonly sessions: readonly SessionStatus[];
  /** Why its flushes fail for good, or null. */
  readonly failure: string | null;
}

/** What an exporter says about itself. It is sent as JSON. */
export interface ExporterStatus {
  readonly loop: "uring" | "poll";
  readonly exports: readonly ExportStatus[];
}

/** An exporter that serves. */
export interface RunningExporter {
  readonly listening: readonly { readonly protocol: "dst" | "nbd"; readonly address: string }[];
  status(): Promise<ExporterStatus>;
  /** Lets what executes finish, tells the clients, and gives everything back. */
  stop(): Promise<void>;
  /** Resolves, and never rejects, when the exporter ended by itself. */
  readonly failed: Promise<Error>;
}

/**
 * Opens the disks, then listens.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function startExporter(_options: ExporterOptions): Promise<RunningExporter> {
  return Promise.reject(new Error("Cannot export: the exporter is not in this build"));
}
