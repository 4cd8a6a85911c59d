/**
 * An exporter: serves disks to clients, by DST and, where asked to, by NBD.
 *
 * @module
 */
import type { HostPort, NbdAddress } from "../engine/control/address.ts";
import { digestNumbers } from "../engine/control/algorithms.ts";
import { logger } from "../engine/control/log.ts";
import { type LayerSpec, parseLayer } from "../engine/layers/mod.ts";
import { type Listening, listenNbd, listenTcp, removeSocketFile } from "../engine/listen.ts";
import { close } from "../ffi/libc.ts";
import { Access, Feature } from "../protocol/grant.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import { closeBackend, makeStickyWord, type OpenedDisk } from "./backends/open.ts";
import { durabilityOf, failureOf, fingerprintOf, openWithPatience } from "./disks.ts";
import type { ServedShape } from "./messages.ts";
import { livesInOneWorker, Threads } from "./threads.ts";
export type { NbdAddress } from "../engine/control/address.ts";

const log = logger("exporter");

/** Data-path Workers: as many as a session may have lanes, so that each lane of one client can have its own. */
export const WORKERS_MAX = LANES_MAX;

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
export async function startExporter(options: ExporterOptions): Promise<RunningExporter> {
  const disks: OpenedDisk[] = [];
  const sockets: Listening[] = [];
  const giveBack = () => {
    for (const { path } of sockets) if (path !== null) removeSocketFile(path);
    for (const disk of disks) closeBackend(disk);
  };
  try {
    const layers = options.exports.map((one) => one.layers.map(parseLayer));
    for (const one of options.exports) disks.push(await openWithPatience(one));
    sockets.push(await listenTcp(options.listen));
    if (options.nbd !== null) sockets.push(await listenNbd(options.nbd));
    return await serve(options, disks, layers, sockets, giveBack);
  } catch (error) {
    // Once they serve, the sockets are the threads'.
    for (const { fd } of sockets) close(fd);
    giveBack();
    throw error;
  }
}

async function serve(
  options: ExporterOptions,
  disks: readonly OpenedDisk[],
  layers: readonly LayerSpec[][],
  sockets: readonly Listening[],
  giveBack: () => void,
): Promise<RunningExporter> {
  const stickyWords = disks.map(() => makeStickyWord());
  const exports = disks.map((disk, i) => ({
    name: options.exports[i].name,
    disk,
    layers: layers[i],
    stickyWord: stickyWords[i],
  }));
  const threads = await Threads.start(
    { loop: options.loop, workers: options.workers, exports, nbdFd: sockets[1]?.fd ?? -1 },
    ({ level, text }) => log[level](text),
  );
  let shapes: ServedShape[];
  try {
    shapes = await threads.shapes();
    await threads.openDoor({
      exports: exports.map((one, i) => ({
        name: one.name,
        shape: shapes[i],
        features: shapes[i].features | (options.exports[i].shared ? Feature.SHARED : 0),
        fingerprint: fingerprintOf(one.disk),
        durability: durabilityOf(one.disk, one.layers),
        oneWorker: livesInOneWorker(one),
      })),
      digests: digestNumbers(options.digests),
      stateDir: options.stateDir,
      listenFd: sockets[0].fd,
    });
  } catch (error) {
    threads.end();
    throw error;
  }
  for (const [i, disk] of disks.entries()) {
    if (disk.roundedOffBytes > 0) {
      log.warning(
        `"${options.exports[i].name}": the last ${disk.roundedOffBytes} bytes are not exported, being no whole block`,
      );
    }
  }
  return {
    listening: sockets.map(({ address }, i) => ({ protocol: i === 0 ? "dst" as const : "nbd" as const, address })),
    failed: threads.failed,
    status: async () => {
      const sessions = await threads.status();
      return {
        loop: threads.loop,
        workers: options.workers,
        exports: options.exports.map((one, i) => ({
          name: one.name,
          path: one.path,
          size: shapes[i].size,
          access: (shapes[i].features & Feature.READ_ONLY) !== 0 ? "read-only" : "read-write",
          sessions: sessions[i].map(({ access, ...session }) => ({
            ...session,
            access: access === Access.READ_WRITE ? "read-write" : "read-only",
          })),
          failure: failureOf(stickyWords[i]),
        })),
      };
    },
    stop: () => threads.stop().finally(giveBack),
  };
}
