/**
 * A ublk device from the control plane: made, checked for users, and taken away. Its queues are served elsewhere.
 *
 * @module
 */
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import { OpenFlag } from "../ffi/constants.ts";
import { Errno, SystemError } from "../ffi/errno.ts";
import { close, flushBuffers, open } from "../ffi/libc.ts";
import { openQueueDevice, type UblkControl } from "../ffi/ublk_control.ts";
import { SECTOR_BYTES, type UblkDeviceInfo, UblkFeature, type UblkParameters } from "../ffi/ublk_wire.ts";
import { type DeviceUse, findDeviceUse } from "./device_use.ts";
import type { OpenedShape } from "./messages.ts";

const log = logger("client");

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
/** The device outlives its server, and the next one gets what was under way. */
const RECOVERY = UblkFeature.USER_RECOVERY | UblkFeature.USER_RECOVERY_REISSUE;
/**
 * After so long the kernel asks the driver after a request, in milliseconds. While its server lives the driver just starts the
 * time anew (`ublk_timeout` in drivers/block/ublk_drv.c), however often; once the server is dead, it collects the requests by
 * that. So it has to be short, where the kernel's own is 30 s: requests that hold all tags of a queue are found in no other way.
 */
const IO_TIMEOUT_MS = 1000;
/** How long the driver may take to collect what a dead server had under way: more than the kernel's own I/O timeout. */
const COLLECT_MS = 60_000;
const COLLECT_POLL_MS = 20;
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

/** What of a grant makes a block device. */
type DiskShape = Pick<OpenedShape, "geometry" | "writesZeroes" | "partBytes">;

/**
 * What the block device is to be like.
 *
 * @throws {RangeError} for an export that cannot be a block device of this machine
 */
export function ublkParameters({ geometry, writesZeroes, partBytes }: DiskShape): UblkParameters {
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
  /** /dev/ublkcN, for the queues' servers; -1: it has none. */
  readonly charFd: number;
  /** Whether it outlives its server, so that another one can take it over. */
  readonly isRecoverable: boolean;
  readonly #control: UblkControl;
  /** The block device is there. */
  #isThere = false;

  private constructor(control: UblkControl, info: UblkDeviceInfo, charFd: number) {
    this.#control = control;
    this.id = info.id;
    this.queues = info.queues;
    this.depth = info.queueDepth;
    this.charFd = charFd;
    this.isRecoverable = (info.features & RECOVERY) === RECOVERY;
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
   * @param recoverable whether it is to outlive its server, where the driver knows how
   */
  static async make(
    control: UblkControl,
    parameters: UblkParameters,
    queues: number,
    depth: number,
    recoverable: boolean,
  ): Promise<UblkDevice> {
    const { maximumIoBytes } = parameters;
    const features = recoverable ? await recoveryFeatures(control) : 0;
    const info = await control.addDevice({ queues, queueDepth: depth, maximumIoBytes, features });
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

  /** A device whose server is gone, to be taken away by {@link stop} and {@link delete}. */
  static abandoned(control: UblkControl, info: UblkDeviceInfo): UblkDevice {
    return new UblkDevice(control, info, -1);
  }

  /** A device that somebody was about to take over, and whose queues are still to be served. */
  static async begun(control: UblkControl, info: UblkDeviceInfo): Promise<UblkDevice> {
    return new UblkDevice(control, info, await openQueueDevice(info.id));
  }

  /** Those of the queues that have no server, not even a dead one. */
  async unserved(): Promise<number[]> {
    const found: number[] = [];
    for (let queue = 0; queue < this.queues; queue++) {
      if (!await this.#control.hasServer(this.charFd, queue)) found.push(queue);
    }
    return found;
  }

  /** Gives the queues' device back; the device itself waits on. */
  letGo(): void {
    close(this.charFd);
  }

  /**
   * Takes over a device whose server, a process that is gone, has left it. From then on its queues are to be served, and
   * {@link resume} follows; until then its requests wait.
   *
   * @throws {Error} when the driver does not let go; the device waits as before
   */
  static async takeOver(control: UblkControl, info: UblkDeviceInfo): Promise<UblkDevice> {
    const { id } = info;
    const deadline = performance.now() + COLLECT_MS;
    for (;;) {
      const result = await control.startRecovery(id).then(() => 0, errnoOf);
      // Refused so as well when it was begun by somebody who served no queue yet.
      if (result === 0 || result === Errno.EINVAL) break;
      if (result !== Errno.EBUSY || performance.now() > deadline) {
        throw new SystemError(`take over ublk device ${id}`, result);
      }
      await sleep(COLLECT_POLL_MS);
    }
    return new UblkDevice(control, info, await openQueueDevice(id));
  }

  /** Has the requests of a device that was taken over go on. All its queues must be served by now. */
  async resume(): Promise<void> {
    await this.#control.endRecovery(this.id, Deno.pid);
    this.#isThere = true;
    this.#shortenTimeout();
  }

  /** Makes the block device appear. All its queues must be served by now. */
  async start(): Promise<void> {
    await this.#control.startDevice(this.id, Deno.pid);
    this.#isThere = true;
    this.#shortenTimeout();
    const deadline = performance.now() + NODE_WAIT_MS;
    while (!exists(this.path)) {
      if (performance.now() > deadline) {
        throw new Error(`${this.path} did not appear within ${NODE_WAIT_MS / 1000} s: is /dev a devtmpfs?`);
      }
      await sleep(NODE_POLL_MS);
    }
  }

  /**
   * Gives the block device another size, where the driver knows how (since Linux 6.16), as long as it is there.
   *
   * @param sizeBytes whole blocks of the device's
   * @returns whether it has it now
   */
  async resize(sizeBytes: number): Promise<boolean> {
    const features = await this.#control.features().catch(() => 0);
    // The driver may not survive it at another time (`ublk_ctrl_set_size` before Linux 7.0).
    if ((features & UblkFeature.UPDATE_SIZE) === 0 || !this.#isThere) return false;
    await this.#control.updateSize(this.id, sizeBytes);
    return true;
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

  /** How large the kernel takes it to be. */
  sizeBytes(): number {
    return Number(Deno.readTextFileSync(`/sys/block/${this.#name}/size`)) * SECTOR_BYTES;
  }

  /** Who uses it, for people; null: nobody. */
  users(): string | null {
    const use = findDeviceUse(this.#name);
    return use.kernel.length + use.processes.length === 0 ? null : phraseOf(use);
  }

  /**
   * Writes back what is in the device's page cache. The thread does not wait, the promise does.
   *
   * @param isMounted what a filesystem on it or on a partition has not yet written is written, too: STOP_DEV does not wait for
   * that where the device is {@link isRecoverable}
   */
  async sync(isMounted: boolean): Promise<void> {
    if (isMounted) await Promise.all(this.#partPaths().map((path) => flush(path)));
    using file = await Deno.open(this.path, { read: true });
    await file.sync();
  }

  /** The device's nodes, those of its partitions included. */
  #partPaths(): string[] {
    const folder = `/sys/block/${this.#name}`;
    const parts = exists(folder) ? [...Deno.readDirSync(folder)].map(({ name }) => name) : [];
    return [this.#name, ...parts.filter((part) => part.startsWith(`${this.#name}p`))].map((part) => `/dev/${part}`);
  }

  #shortenTimeout(): void {
    if (!this.isRecoverable) return;
    try {
      Deno.writeTextFileSync(`/sys/block/${this.#name}/queue/io_timeout`, `${IO_TIMEOUT_MS}`, { create: false });
    } catch (error) {
      log.warning("{text}", {
        text: `Should this process be killed, taking over ${this.path} may take half a minute: ${messageOf(error)}`,
      });
    }
  }

  /** Takes the block device away; its queues end. */
  async stop(): Promise<void> {
    this.#isThere = false;
    await this.#control.stopDevice(this.id);
  }

  /** Forgets a stopped device whose queues have ended. */
  async delete(): Promise<void> {
    if (this.charFd >= 0) close(this.charFd);
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

/** How a device is to be made that outlives its server; 0: this driver has no such thing. */
async function recoveryFeatures(control: UblkControl): Promise<number> {
  // A driver that cannot be asked is older than Linux 6.5.
  const features = await control.features().catch(() => 0);
  return (features & RECOVERY) === RECOVERY ? RECOVERY : 0;
}

function errnoOf(error: unknown): number {
  if (error instanceof SystemError) return error.errno;
  throw error;
}

/** Writes back one block device and its filesystem. */
async function flush(path: string): Promise<void> {
  const fd = open(path, OpenFlag.READ_ONLY);
  if (fd < 0) return;
  try {
    await flushBuffers(fd);
  } finally {
    close(fd);
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
