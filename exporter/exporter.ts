/**
 * An exporter: serves disks to clients, by DST and, where asked to, by NBD.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import type { HostPort, NbdAddress } from "../engine/control/address.ts";
import { digestNumbers } from "../engine/control/algorithms.ts";
import { logger } from "../engine/control/log.ts";
import { type LayerSpec, parseLayer } from "../engine/layers/mod.ts";
import { type Listening, listenNbd, listenTcp, removeSocketFile } from "../engine/listen.ts";
import { makeWakeFd, Thread } from "../engine/thread.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { close } from "../ffi/libc.ts";
import { Access, Feature } from "../protocol/grant.ts";
import { closeBackend, ExportError, makeStickyWord, openBackend, type OpenedDisk } from "./backends/open.ts";
import { DATA_SLOTS } from "./data.ts";
import { VISITORS_MAX } from "./door.ts";
import type {
  DataInit,
  DataQuestion,
  DoorInit,
  DoorQuestion,
  DoorStatus,
  ServedShape,
  ThreadEvent,
} from "./messages.ts";
export type { NbdAddress } from "../engine/control/address.ts";

const log = logger("exporter");

/** How long a disk may stay locked by another exporter before this one gives up, in milliseconds: the I/O of one that
 * was just killed may still be on its way to the disk. */
const LOCK_PATIENCE_MS = 3000;
const LOCK_RETRY_MS = 100;
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
  const { port1: doorPort, port2: dataPort } = new MessageChannel();
  const doorWake = makeWakeFd();
  const dataWake = makeWakeFd();
  const report = ({ level, text }: ThreadEvent) => log[level](text);
  const dataInit: DataInit = {
    exports: disks.map((disk, i) => ({
      name: options.exports[i].name,
      disk,
      layers: layers[i],
      stickyWord: stickyWords[i],
    })),
    door: { port: dataPort, wakePeer: doorWake },
    nbdFd: sockets[1]?.fd ?? -1,
  };
  const data = await Thread.start<DataInit, DataQuestion, ThreadEvent>(
    new URL("./data_worker.ts", import.meta.url),
    { loop: options.loop, slots: DATA_SLOTS, wakeFd: dataWake, init: dataInit, transfer: [dataPort] },
    report,
  );
  try {
    const shapes = await data.ask({ ask: "shapes" }) as ServedShape[];
    const doorInit: DoorInit = {
      exports: disks.map((disk, i) => ({
        name: options.exports[i].name,
        shape: shapes[i],
        features: shapes[i].features | (options.exports[i].shared ? Feature.SHARED : 0),
        fingerprint: fingerprintOf(disk),
        durability: durabilityOf(disk, layers[i]),
      })),
      digests: digestNumbers(options.digests),
      stateDir: options.stateDir,
      listenFd: sockets[0].fd,
      data: { port: doorPort, wakePeer: dataWake },
    };
    const door = await Thread.start<DoorInit, DoorQuestion, ThreadEvent>(
      new URL("./door_worker.ts", import.meta.url),
      { loop: options.loop, slots: VISITORS_MAX, wakeFd: doorWake, init: doorInit, transfer: [doorPort] },
      report,
    );
    return running(options, disks, stickyWords, shapes, data, door, sockets, giveBack);
  } catch (error) {
    data.end();
    throw error;
  }
}

function running(
  options: ExporterOptions,
  disks: readonly OpenedDisk[],
  stickyWords: readonly Int32Array[],
  shapes: readonly ServedShape[],
  data: Thread<DataQuestion, ThreadEvent>,
  door: Thread<DoorQuestion, ThreadEvent>,
  sockets: readonly Listening[],
  giveBack: () => void,
): RunningExporter {
  for (const [i, disk] of disks.entries()) {
    if (disk.roundedOffBytes > 0) {
      log.warning(
        `"${options.exports[i].name}": the last ${disk.roundedOffBytes} bytes are not exported, being no whole block`,
      );
    }
  }
  const listening = sockets.map(({ address }, i) => ({ protocol: i === 0 ? "dst" as const : "nbd" as const, address }));
  return {
    listening,
    failed: Promise.race([data.failed, door.failed]),
    status: async () => {
      const sessions = await door.ask({ ask: "status" }) as DoorStatus;
      return {
        loop: data.loop,
        exports: options.exports.map((one, i) => ({
          name: one.name,
          path: one.path,
          size: shapes[i].size,
          access: (shapes[i].features & Feature.READ_ONLY) !== 0 ? "read-only" : "read-write",
          sessions: sessions[i].map(({ holder, address, access }) => ({
            holder,
            address,
            access: access === Access.READ_WRITE ? "read-write" : "read-only",
          })),
          failure: failureOf(stickyWords[i]),
        })),
      };
    },
    stop: async () => {
      await door.ask({ ask: "stop" });
      try {
        await data.ask({ ask: "stop" });
      } finally {
        door.end();
        data.end();
        giveBack();
      }
    },
  };
}

/** Opens and locks a disk; waits a little for the lock. */
async function openWithPatience(one: ExportOptions): Promise<OpenedDisk> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    try {
      return openBackend(one);
    } catch (error) {
      if (!(error instanceof ExportError && error.locked) || performance.now() >= deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
  }
}

/** Names a disk across restarts; empty for memory, which does not outlive the process. */
function fingerprintOf({ kind, identity }: OpenedDisk): string {
  if (kind === "memory") return "";
  const { deviceMajor, deviceMinor, inode, birthTime, targetMajor, targetMinor } = identity;
  if (kind === "block") return `block ${targetMajor}:${targetMinor} ${identity.size}`;
  return `file ${deviceMajor}:${deviceMinor} ${inode} ${birthTime}`;
}

/** The durability epoch: that of the kernel, or of this process where it holds what is not yet on the disk. */
function durabilityOf(disk: OpenedDisk, layers: readonly LayerSpec[]): string {
  if (disk.kind === "memory" || layers.some(({ kind }) => kind === "volatile")) return randomBytes(16).toString("hex");
  const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id");
  return createHash("sha256").update(bootId).digest("hex").slice(0, 32);
}

function failureOf(stickyWord: Int32Array): string | null {
  const errno = Atomics.load(stickyWord, 0);
  return errno === 0 ? null : `a flush failed: ${errnoMessage(errno)}; flushes fail until it is exported anew`;
}
