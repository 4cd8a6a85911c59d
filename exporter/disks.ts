/**
 * The disks of an exporter on the control plane: opened, named, and asked how they are.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import type { LayerSpec } from "../engine/layers/mod.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { type BackendSpec, ExportError, openBackend, type OpenedDisk } from "./backends/open.ts";

/** How long a disk may stay locked by another exporter before this one gives up, in milliseconds: the I/O of one that
 * was just killed may still be on its way to the disk. */
const LOCK_PATIENCE_MS = 3000;
const LOCK_RETRY_MS = 100;

/**
 * Opens and locks a disk; waits a little for the lock.
 *
 * @throws {ExportError}
 */
export async function openWithPatience(spec: BackendSpec): Promise<OpenedDisk> {
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
export function fingerprintOf({ kind, identity }: OpenedDisk): string {
  if (kind === "memory") return "";
  const { deviceMajor, deviceMinor, inode, birthTime, targetMajor, targetMinor } = identity;
  if (kind === "block") return `block ${targetMajor}:${targetMinor} ${identity.size}`;
  return `file ${deviceMajor}:${deviceMinor} ${inode} ${birthTime}`;
}

/**
 * The durability epoch, 32 hexadecimal digits: that of the kernel, or of this process where it holds what is not yet on
 * the disk.
 */
export function durabilityOf(disk: OpenedDisk, layers: readonly LayerSpec[]): string {
  if (disk.kind === "memory" || layers.some(({ kind }) => kind === "volatile")) return randomBytes(16).toString("hex");
  const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id");
  return createHash("sha256").update(bootId).digest("hex").slice(0, 32);
}

/** Why a disk's flushes fail for good, or null. */
export function failureOf(stickyWord: Int32Array): string | null {
  const errno = Atomics.load(stickyWord, 0);
  return errno === 0 ? null : `a flush failed: ${errnoMessage(errno)}; flushes fail until it is exported anew`;
}
