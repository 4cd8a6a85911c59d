/**
 * A ublk device from the control plane: made, checked for users, and taken away. Its queues are served elsewhere.
 *
 * @module
 */
import { OpenFlag } from "../ffi/constants.ts";
import { Errno } from "../ffi/errno.ts";
import { close, open } from "../ffi/libc.ts";
import { openQueueDevice, type UblkControl } from "../ffi/ublk_control.ts";
import { SECTOR_BYTES, type UblkDeviceInfo, type UblkParameters } from "../ffi/ublk_wire.ts";
import { type DeviceUse, findDeviceUse } from "./device_use.ts";
import type { OpenedShape } from "./messages.ts";

/** The largest logical block of a block device: a page (`ublk_validate_params` in drivers/block/ublk_drv.c). */
const LOGICAL_BLOCK_MAX = 4096;
/** Requests are cut to whole pages. */
const PAGE_BYTES = 4096;
/** How long devtmpfs may take to make the node, in milliseconds. */
const NODE_WAIT_MS = 5000;
const NODE_POLL_MS = 5;
/** How long to wait until the driver has forgotten a device, in milliseconds. Who still has the dead disk open or mounted
 * keeps its number taken, and nothing else. */
const FORGET_MS = 2000;
/** How long a user may be a passing one, in milliseconds: udev looks into every device that has changed. */
const PASSING_MS = 2000;
const PASSING_POLL_MS = 100;
/** The processors that the machine can have at most, such as `0-7`. */
const PROCESSORS_PATH = "/sys/devices/system/cpu/possible";

/** How many queues a device can have: the driver makes no more than the kernel has processors (`ublk_ctrl_add_dev`). */
export function ublkQueuesMax(): number {
  return queuesMaxOf(Deno.readTextFileSync(PROCESSORS_PATH));
}

/** The number after the last of a list such as `0-3,8-11`: the kernel's `nr_cpu_ids`. */
export function queuesMaxOf(processors: string): number {
  return Number(/\d+\s*$/.exec(processors)![0]) + 1;
}

/**
 * What the block device is to be like.
 *
 * @throws {RangeError} for an export that cannot be a block device of this machine
 */
export function ublkParameters({ geometry, writesZeroes, partBytes }: OpenedShape): UblkParameters {
  const { readOnly } = geometry;
  if (geometry.logicalBlock > LOGICAL_BLOCK_MAX) {
    throw new RangeError(
      `its logical block of ${geometry.logicalBlock} bytes is larger than the ${LOGICAL_BLOCK_MAX} of a block device: ` +
        "use --nbd",
    );
  }
  const logicalBlock = Math.max(geometry.logicalBlock, SECTOR_BYTES);
  const sizeBytes = geometry.size - geometry.size % logicalBlock;
  if (sizeBytes === 0) throw new RangeError("it is empty: a block device has at least one block");
  return {
    sizeBytes,
    logicalBlock,
    physicalBlock: Math.max(geometry.physicalBlock, logicalBlock),
    optimalIo: Math.max(geometry.optimalIo, logicalBlock),
    maximumIoBytes: partBytes - partBytes % PAGE_BYTES,
    readOnly,
    rotational: false,
    volatileCache: geometry.volatileCache,
    fua: geometry.volatileCache,
    discardGranularity: geometry.discardGranularity,
    maximumDiscardBytes: readOnly || geometry.discardGranularity === 0 ? 0 : sizeBytes,
    maximumWriteZeroesBytes: readOnly || !writesZeroes ? 0 : sizeBytes,
  };
}

/** A device from ADD_DEV to DEL_DEV. */
export class UblkDevice {
  readonly id: number;
  /** How many queues it has, each with a server of its own. */
  readonly queues: number;
  /** The depth of each queue: the requests that its server must have room for. */
  readonly depth: number;
  /** /dev/ublkcN, for the queues' servers. */
  readonly charFd: number;
  readonly #control: UblkControl;

  private constructor(control: UblkControl, info: UblkDeviceInfo, charFd: number) {
    this.#control = control;
    this.id = info.id;
    this.queues = info.queues;
    this.depth = info.queueDepth;
    this.charFd = charFd;
  }

  /** The path of the block device. */
  get path(): string {
    return `/dev/${this.#name}`;
  }

  get #name(): string {
    return `ublkb${this.id}`;
  }

  /**
   * Makes a device. It does not work before {@link start}. The control device is closed with it.
   *
   * @param queues how many it is to have; the driver may give it fewer
   * @param depth of each
   */
  static async make(
    control: UblkControl,
    parameters: UblkParameters,
    queues: number,
    depth: number,
  ): Promise<UblkDevice> {
    const { maximumIoBytes } = parameters;
    const info = await control.addDevice({ queues, queueDepth: depth, maximumIoBytes, features: 0 });
    try {
      await control.setParameters(info.id, {
        ...parameters,
        maximumIoBytes: Math.min(maximumIoBytes, info.maximumIoBytes),
      });
      return new UblkDevice(control, info, await openQueueDevice(info.id));
    } catch (error) {
      await control.deleteDevice(info.id);
      throw error;
    }
  }

  /** Makes the block device appear. All its queues must be served by now. */
  async start(): Promise<void> {
    await this.#control.startDevice(this.id, Deno.pid);
    const deadline = performance.now() + NODE_WAIT_MS;
    while (!exists(this.path)) {
      if (performance.now() > deadline) {
        throw new Error(`${this.path} did not appear within ${NODE_WAIT_MS / 1000} s: is /dev a devtmpfs?`);
      }
      await sleep(NODE_POLL_MS);
    }
  }

  /**
   * Claims the block device, so that nobody can mount it from now on.
   *
   * @returns the descriptor that holds it; -1 where the device is of no use any more
   * @throws {Error} that names who uses it
   */
  async claim(): Promise<number> {
    const deadline = performance.now() + PASSING_MS;
    for (;;) {
      const fd = open(this.path, OpenFlag.READ_ONLY | OpenFlag.EXCLUSIVE);
      const use = findDeviceUse(this.#name);
      const isUsed = fd === -Errno.EBUSY || use.kernel.length > 0 || use.processes.length > 0;
      if (!isUsed) return Math.max(fd, -1);
      if (fd >= 0) close(fd);
      if (use.kernel.length > 0 || performance.now() > deadline) throw new Error(useText(this.path, use));
      await sleep(PASSING_POLL_MS);
    }
  }

  /** Who uses it, for people; null: nobody. */
  users(): string | null {
    const use = findDeviceUse(this.#name);
    return use.kernel.length + use.processes.length === 0 ? null : phraseOf(use);
  }

  /** Writes back what is in the device's page cache. The thread does not wait, the promise does. */
  async sync(): Promise<void> {
    using file = await Deno.open(this.path, { read: true });
    await file.sync();
  }

  /** Takes the block device away; its queues end. */
  async stop(): Promise<void> {
    await this.#control.stopDevice(this.id);
  }

  /** Forgets a stopped device whose queues have ended. */
  async delete(): Promise<void> {
    close(this.charFd);
    // The driver removes the device first, and then only waits: closing the control device cuts that short.
    const deleted = this.#control.deleteDevice(this.id);
    deleted.catch(() => {});
    try {
      await Promise.race([deleted, sleep(FORGET_MS)]);
    } finally {
      this.#control.close();
    }
  }
}

/** Why a device cannot be detached, and what to do. */
export function useText(path: string, use: DeviceUse): string {
  return `${path} is in use: ${
    phraseOf(use)
  }. Unmount or close it first, or use --force: what was not yet written is ` +
    "then lost";
}

function phraseOf({ kernel, processes }: DeviceUse): string {
  const parts = [...kernel];
  if (processes.length > 0) parts.push(`open in ${processes.join(", ")}`);
  return parts.length > 0 ? parts.join("; ") : "the kernel holds it (mounted out of sight, or part of an array)";
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Waits, on the control plane. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
