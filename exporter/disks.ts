/**
 * The disks of an exporter on the control plane: opened, named, and asked how they are.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import { logger } from "../engine/control/log.ts";
import { parseLayer } from "../engine/layers/mod.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { Feature } from "../protocol/grant.ts";
import {
  type BackendSpec,
  closeBackend,
  ExportError,
  makeStickyWord,
  measureBackend,
  openBackend,
  type OpenedDisk,
} from "./backends/open.ts";
import type { ExportOptions } from "./exporter.ts";
import type { DoorExport, ResizedExport, ServedExport, ServedShape } from "./messages.ts";
import { livesInOneWorker } from "./threads.ts";

const log = logger("exporter");

/** How long a disk may stay locked by another exporter before this one gives up, in milliseconds: the I/O of one that
 * was just killed may still be on its way to the disk. */
const LOCK_PATIENCE_MS = 3000;
const LOCK_RETRY_MS = 100;

/** A disk of the exporter. */
export interface Disk {
  /** Names it to all threads, for as long as the exporter runs. */
  readonly index: number;
  readonly options: ExportOptions;
  /** What a data-path Worker needs of it. */
  readonly served: ServedExport;
}

/**
 * Opens and locks a disk; waits a little for the lock.
 *
 * @param index that no other disk of the exporter has or had
 * @throws {ExportError} when it cannot be opened
 * @throws {RangeError} when a layer's specification makes no sense
 */
export async function openDisk(index: number, options: ExportOptions): Promise<Disk> {
  const layers = options.layers.map(parseLayer);
  const disk = await openWithPatience(options);
  if (disk.roundedOffBytes > 0) {
    log.warning(`"${options.name}": the last ${disk.roundedOffBytes} bytes are not exported, being no whole block`);
  }
  return { index, options, served: { name: options.name, disk, layers, stickyWord: makeStickyWord() } };
}

/**
 * The disk with the size that it has now; the same where that has not changed.
 *
 * @throws {ExportError} when there is nothing of it left to export
 */
export function measureDisk(one: Disk): Disk {
  const disk = measureBackend(one.served.disk);
  return disk.identity.size === one.served.disk.identity.size ? one : { ...one, served: { ...one.served, disk } };
}

/** What the door needs to know of a disk of another size. */
export function resizedExport({ index, served: { disk } }: Disk): ResizedExport {
  return { index, size: disk.geometry.size, fingerprint: fingerprintOf(disk) };
}

/** Closes a disk and so gives its lock back. No thread uses it any more. */
export function closeDisk({ served }: Disk): void {
  closeBackend(served.disk);
}

/** What the door needs of a disk. */
export function doorExport({ index, options, served }: Disk, shape: ServedShape): DoorExport {
  return {
    index,
    name: options.name,
    shape,
    features: shape.features | (options.shared ? Feature.SHARED : 0),
    fingerprint: fingerprintOf(served.disk),
    durability: durabilityOf(served),
    oneWorker: livesInOneWorker(served),
  };
}

async function openWithPatience(spec: BackendSpec): Promise<OpenedDisk> {
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    try {
      return openBackend(spec);
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

/**
 * The durability epoch, 32 hexadecimal digits: that of the kernel, or of this process where it holds what is not yet on
 * the disk.
 */
function durabilityOf({ disk, layers }: ServedExport): string {
  if (disk.kind === "memory" || layers.some(({ kind }) => kind === "volatile")) return randomBytes(16).toString("hex");
  const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id");
  return createHash("sha256").update(bootId).digest("hex").slice(0, 32);
}

/** Why a disk's flushes fail for good, or null. */
export function failureOf(stickyWord: Int32Array): string | null {
  const errno = Atomics.load(stickyWord, 0);
  return errno === 0 ? null : `a flush failed: ${errnoMessage(errno)}; flushes fail until it is exported anew`;
}
