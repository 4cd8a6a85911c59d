/**
 * An exporter: serves disks to clients, by DST and, where asked to, by NBD.
 *
 * @module
 */
import type { HostPort, NbdAddress } from "../engine/control/address.ts";
import type { AddressRange } from "../engine/control/cidr.ts";
import { checkExposure } from "../engine/control/exposure.ts";
import { logger } from "../engine/control/log.ts";
import type { CryptoChoice } from "../engine/cryptography.ts";
import { type Listening, listenNbd, listenTcp, removeSocketFile } from "../engine/listen.ts";
import { close } from "../ffi/libc.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import type { KeyEntry, Limits } from "./config_security.ts";
import { closeDisk, type Disk, openDisk } from "./disks.ts";
import type { ExportRule } from "./permissions.ts";
import { Exporter } from "./running.ts";
export type { NbdAddress } from "../engine/control/address.ts";

const log = logger("exporter");

/** Data-path Workers: as many as a session may have lanes, so that each lane of one client can have its own. */
export const WORKERS_MAX = LANES_MAX;

/** One disk to serve, and who may use it. */
export interface ExportOptions extends ExportRule {
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
  /** Who may come in: with keys, only who has one of them. Their secrets become the exporter's. */
  readonly keys: readonly KeyEntry[];
  /** From where anybody may come; null: from everywhere. */
  readonly allow: readonly AddressRange[] | null;
  readonly limits: Limits;
  /** Serve machines of which nobody knows who they are. */
  readonly insecure: boolean;
  /** Names of the ciphers and digests that are accepted, the best first, which this machine has. */
  readonly ciphers: readonly string[];
  readonly digests: readonly string[];
  readonly crypto: CryptoChoice;
  /** Threads that serve the lanes, 1 to {@link WORKERS_MAX}. */
  readonly workers: number;
}

/** One session, as `dst status` shows it. */
export interface SessionStatus {
  readonly holder: string;
  readonly address: string;
  readonly access: "read-only" | "read-write";
  /** Connections that it has at the moment. */
  readonly lanes: number;
  /** The name of its key, or null without one. */
  readonly key: string | null;
  /** What its connections agreed on, by name; null for NBD clients. With a cipher the digest is "none". */
  readonly cipher: string | null;
  readonly digest: string | null;
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
  /** Data-path threads. */
  readonly workers: number;
  readonly exports: readonly ExportStatus[];
}

/** An exporter that serves. */
export interface RunningExporter {
  readonly listening: readonly { readonly protocol: "dst" | "nbd"; readonly address: string }[];
  /**
   * Goes on with other keys, permissions, addresses, limits, ciphers and digests, and with exports more or less. Sessions
   * whose rights or disks are gone end, the disks are let go of after that.
   *
   * @returns how many sessions end
   * @throws {Error} one line that says what cannot be changed while it runs: nothing has changed then
   */
  reload(options: ExporterOptions): Promise<number>;
  status(): Promise<ExporterStatus>;
  /** Lets what executes finish, tells the clients, and gives everything back. */
  stop(): Promise<void>;
  /** Resolves, and never rejects, when the exporter ended by itself. */
  readonly failed: Promise<Error>;
}

/**
 * Opens the disks, then listens.
 *
 * @throws {Failure} of usage, when it would serve machines of which nobody knows who they are
 * @throws {Error} one line that says what could not be done and why
 */
export async function startExporter(options: ExporterOptions): Promise<RunningExporter> {
  const insisted = await checkExposure(options);
  const disks: Disk[] = [];
  const sockets: Listening[] = [];
  try {
    for (const [index, one] of options.exports.entries()) disks.push(await openDisk(index, one));
    sockets.push(await listenTcp(options.listen));
    if (options.nbd !== null) sockets.push(await listenNbd(options.nbd));
    const exporter = await Exporter.start(options, disks, sockets);
    for (const text of insisted) log.warning("{text}", { text });
    return exporter;
  } catch (error) {
    // Once they serve, the sockets are the threads'.
    for (const { fd, path } of sockets) {
      close(fd);
      if (path !== null) removeSocketFile(path);
    }
    for (const disk of disks) closeDisk(disk);
    throw error;
  }
}
