/**
 * An exporter: serves disks to clients, by DST and, where asked to, by NBD.
 *
 * @module
 */
import type { HostPort, NbdAddress } from "../engine/control/address.ts";
import { cipherName, cipherNumbers, digestName, digestNumbers } from "../engine/control/algorithms.ts";
import type { AddressRange } from "../engine/control/cidr.ts";
import { logger } from "../engine/control/log.ts";
import type { CryptoChoice } from "../engine/cryptography.ts";
import { type LayerSpec, parseLayer } from "../engine/layers/mod.ts";
import { type Listening, listenNbd, listenTcp, removeSocketFile } from "../engine/listen.ts";
import { close } from "../ffi/libc.ts";
import { Access, Feature } from "../protocol/grant.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import type { Access as DoorAccess } from "./admission.ts";
import { closeBackend, makeStickyWord, type OpenedDisk } from "./backends/open.ts";
import { accessRules, type KeyEntry, type Limits } from "./config_security.ts";
import { durabilityOf, failureOf, fingerprintOf, openWithPatience } from "./disks.ts";
import { checkExposure } from "./exposure.ts";
import type { ServedShape } from "./messages.ts";
import type { ExportRule } from "./permissions.ts";
import { livesInOneWorker, Threads } from "./threads.ts";
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
   * Goes on with other keys, permissions, addresses, limits, ciphers and digests. Sessions whose rights are gone end.
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
  const disks: OpenedDisk[] = [];
  const sockets: Listening[] = [];
  const giveBack = () => {
    for (const { path } of sockets) if (path !== null) removeSocketFile(path);
    for (const disk of disks) closeBackend(disk);
  };
  await checkExposure(options);
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
    {
      loop: options.loop,
      crypto: options.crypto,
      workers: options.workers,
      exports,
      nbdFd: sockets[1]?.fd ?? -1,
      rules: accessRules(options),
    },
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
      access: accessOf(options),
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
    reload: async (changed) => {
      try {
        checkReload(options, changed);
        await checkExposure(changed);
        return await threads.reload(accessOf(changed));
      } finally {
        // Those that were given away have no bytes here any more.
        for (const { key } of changed.keys) if (key.secret.length > 0) key.secret.fill(0);
      }
    },
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
          sessions: sessions[i].map(({ access, suite, ...session }) => ({
            ...session,
            access: access === Access.READ_WRITE ? "read-write" : "read-only",
            cipher: suite === null ? null : cipherName(suite.cipher),
            digest: suite === null ? null : digestName(suite.digest),
          })),
          failure: failureOf(stickyWords[i]),
        })),
      };
    },
    stop: () => threads.stop().finally(giveBack),
  };
}

/** What the door decides by. */
function accessOf(options: ExporterOptions): DoorAccess {
  return {
    rules: accessRules(options),
    secrets: options.keys.map(({ key }) => ({ id: key.id.toHex(), secret: key.secret })),
    ciphers: cipherNumbers(options.ciphers),
    digests: digestNumbers(options.digests),
    limits: options.limits,
  };
}

/**
 * Checks that nothing is to be changed that cannot be while the exporter runs.
 *
 * @throws {Error} that names it
 */
function checkReload(running: ExporterOptions, changed: ExporterOptions): void {
  const refuse = (what: string) => new Error(`${what} cannot be changed by a reload: restart`);
  const pairs: [string, unknown, unknown][] = [
    ["listen", running.listen, changed.listen],
    ["nbd", running.nbd, changed.nbd],
    ["loop", running.loop, changed.loop],
    ["state_dir", running.stateDir, changed.stateDir],
    ["crypto", running.crypto, changed.crypto],
    ["workers", running.workers, changed.workers],
  ];
  for (const [what, before, after] of pairs) if (!isSame(before, after)) throw refuse(what);
  const exports = new Map(running.exports.map((one) => [one.name, one]));
  for (const one of changed.exports) {
    const before = exports.get(one.name);
    exports.delete(one.name);
    if (before === undefined) throw new Error(`"${one.name}": exports cannot be added by a reload: restart`);
    if (!isSame(withoutRules(before), withoutRules(one))) {
      throw refuse(`"${one.name}": path, read_only, shared, direct and layers`);
    }
  }
  for (const name of exports.keys()) throw new Error(`"${name}": exports cannot be removed by a reload: restart`);
}

/** The part of an export that is its disk. */
function withoutRules({ name, path, readOnly, shared, direct, layers }: ExportOptions) {
  return { name, path, readOnly, shared, direct, layers };
}

/** Whether plain data are the same, given that their fields are in the same order. */
function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
