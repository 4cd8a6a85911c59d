/**
 * The control side of ublk: devices are made, started, stopped and taken over here. Control plane only.
 *
 * The commands go through a ring of their own, because they need entries of 128 bytes. Some of them last (START_DEV
 * until a partition scan is served, DEL_DEV until the device is closed), so none is waited for with the thread: the
 * completions are looked for by a timer.
 *
 * @module
 */
import { addressOf, close, open } from "./libc.ts";
import { OpenFlag } from "./constants.ts";
import { Errno, SystemError } from "./errno.ts";
import {
  decodeDeviceInfo,
  encodeControlCommand,
  encodeDeviceInfo,
  encodeParameters,
  SECTOR_BYTES,
  UBLK_DEPTH_MAX,
  UBLK_QUEUES_MAX,
  UblkCommand,
  type UblkDeviceInfo,
  UblkFeature,
  type UblkParameters,
  UblkQueueCommand,
} from "./ublk_wire.ts";
import { EnterFlag, enterUring, type MappedUring, mapUring, SetupFlag, unmapUring, uringAvailable } from "./uring.ts";

const CONTROL_PATH = "/dev/ublk-control";

/** IORING_OP_URING_CMD. */
const OPCODE_URING_CMD = 46;
/** A 128-byte submission entry, and where the command's 80 bytes begin in it. */
const SQE_BYTES = 128;
const COMMAND_AT = 48;
/** Commands under way at a time: several devices may be starting. */
const COMMANDS_MAX = 64;
/** For commands that name no device. */
const NO_DEVICE = 0xffff_ffff;

/** How often completions are looked for: often while a command is young, most are answered in a millisecond. */
const POLL_YOUNG_MS = 1;
const POLL_OLD_MS = 10;
const POLLS_YOUNG = 50;

/** How long a device node may take to appear after ADD_DEV: the kernel makes it at once, but udev may replace it. */
const NODE_WAIT_MS = 5000;
const NODE_POLL_MS = 10;

/** A command under way. Its buffer is named by the kernel until it ends. */
interface Command {
  readonly what: string;
  readonly buffer: Uint8Array<ArrayBuffer> | null;
  readonly resolve: (result: number) => void;
  readonly reject: (error: Error) => void;
}

/** A device to be made. */
export interface UblkDeviceOptions {
  /** Hardware queues, each served by one thread. */
  readonly queues: number;
  /** Requests of one queue, 1 to 4096: its tags. */
  readonly queueDepth: number;
  /** The largest request in bytes, a multiple of the page size: every tag needs a buffer of this size. */
  readonly maximumIoBytes: number;
  /** {@link UblkFeature}s beside IOCTL_ENCODE, which is always on. */
  readonly features: number;
  /** N of /dev/ublkbN; the driver chooses when it is left out. */
  readonly id?: number;
}

/**
 * The driver's control device.
 *
 * @example A device's life
 * ```ts ignore
 * const control = UblkControl.open();
 * const device = await control.addDevice({ queues: 1, queueDepth: 64, maximumIoBytes: 262144, features: 0 });
 * await control.setParameters(device.id, parameters);
 * const fd = await openQueueDevice(device.id);
 * // ... a Worker makes a UblkQueue over fd and turns its loop ...
 * await control.startDevice(device.id, Deno.pid);
 * // ... /dev/ublkbN works ...
 * await control.stopDevice(device.id);
 * // ... the queue has ended, fd is closed ...
 * await control.deleteDevice(device.id);
 * control.close();
 * ```
 */
export class UblkControl {
  readonly #fd: number;
  readonly #uring: MappedUring;
  readonly #commands = new Map<number, Command>();
  #sqTail = 0;
  #cqHead = 0;
  #nextKey = 1;
  #polls = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
    this.#uring = mapUring(COMMANDS_MAX, 0, [SetupFlag.SQE128]);
  }

  /**
   * Opens the control device.
   *
   * @throws {Error} where there is no ublk, with what to do about it
   * @throws {SystemError} where it cannot be opened
   */
  static open(): UblkControl {
    const fd = open(CONTROL_PATH, OpenFlag.READ_WRITE);
    if (fd === -Errno.ENOENT || fd === -Errno.ENXIO || fd === -Errno.ENODEV) {
      throw new Error("ublk is not in this kernel: load `ublk_drv`, or use --nbd");
    }
    if (fd === -Errno.EACCES || fd === -Errno.EPERM) {
      throw new Error(`Cannot open ${CONTROL_PATH}: permission denied; run as root, or use --nbd`);
    }
    if (fd < 0) throw new SystemError(`open ${CONTROL_PATH}`, fd);
    try {
      const reason = uringAvailable();
      if (reason !== null) throw new Error(`Cannot use ublk, which needs io_uring: ${reason}; use --nbd`);
      return new UblkControl(fd);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /**
   * What the driver can do: {@link UblkFeature}s.
   *
   * @throws {Error} where the driver is too old to be asked (before Linux 6.5)
   */
  async features(): Promise<number> {
    const buffer = new Uint8Array(new ArrayBuffer(8));
    const result = await this.#run(UblkCommand.GET_FEATURES, NO_DEVICE, buffer, 0, "ask ublk for its features");
    if (result < 0) throw new Error("Cannot use ublk: this kernel's is older than Linux 6.5; use --nbd");
    return Number(new DataView(buffer.buffer).getBigUint64(0, true));
  }

  /**
   * Makes a device. It does not work before {@link startDevice}.
   *
   * @returns the device as the driver made it: it may have fewer queues and smaller buffers
   */
  async addDevice(options: UblkDeviceOptions): Promise<UblkDeviceInfo> {
    const { queues, queueDepth } = options;
    if (!(queues >= 1 && queues <= UBLK_QUEUES_MAX)) throw new RangeError(`Cannot make ${queues} ublk queues`);
    if (!(queueDepth >= 1 && queueDepth <= UBLK_DEPTH_MAX)) {
      throw new RangeError(`Cannot make a ublk queue of depth ${queueDepth}: 1 to ${UBLK_DEPTH_MAX} are possible`);
    }
    const id = options.id ?? NO_DEVICE;
    const buffer = encodeDeviceInfo({
      ...options,
      id,
      features: options.features | UblkFeature.IOCTL_ENCODE,
      serverPid: Deno.pid,
    });
    await this.#succeed(UblkCommand.ADD_DEVICE, id, buffer, 0, "make a ublk device");
    return decodeDeviceInfo(buffer);
  }

  /** Says what the block device is to be like. Before {@link startDevice} only. */
  async setParameters(id: number, parameters: UblkParameters): Promise<void> {
    const buffer = encodeParameters(parameters);
    await this.#succeed(UblkCommand.SET_PARAMETERS, id, buffer, 0, `describe ublk device ${id}`);
  }

  /**
   * Makes the block device appear. Resolves once every queue has fetched all its tags, and after the partition scan,
   * which is I/O on the device: another thread must serve the queues meanwhile.
   *
   * @param pid the process that serves the queues
   */
  async startDevice(id: number, pid: number): Promise<void> {
    await this.#succeed(UblkCommand.START_DEVICE, id, null, pid, `start ublk device ${id}`);
  }

  /**
   * Takes the block device away. Whatever is under way on it fails, and what only its page cache holds is *lost* where
   * recovery is on: make sure that nobody uses it, and sync it, before.
   */
  async stopDevice(id: number): Promise<void> {
    await this.#succeed(UblkCommand.STOP_DEVICE, id, null, 0, `stop ublk device ${id}`);
  }

  /** Stops the device if nobody has it open, else fails with EBUSY. Only with {@link UblkFeature.SAFE_STOP}. */
  async tryStopDevice(id: number): Promise<void> {
    await this.#succeed(UblkCommand.TRY_STOP_DEVICE, id, null, 0, `stop ublk device ${id}`);
  }

  /** Forgets a stopped device. Resolves when its /dev/ublkcN has been closed by everybody. */
  async deleteDevice(id: number): Promise<void> {
    await this.#succeed(UblkCommand.DELETE_DEVICE, id, null, 0, `remove ublk device ${id}`);
  }

  /** What the driver knows about a device, or null where there is none of that number. */
  async deviceInfo(id: number): Promise<UblkDeviceInfo | null> {
    const buffer = new Uint8Array(new ArrayBuffer(64));
    const what = `ask about ublk device ${id}`;
    const result = await this.#run(UblkCommand.GET_DEVICE_INFO, id, buffer, 0, what);
    if (result === -Errno.ENODEV) return null;
    if (result < 0) throw new SystemError(what, result);
    return decodeDeviceInfo(buffer);
  }

  /**
   * Begins to take over a device whose server is gone. Fails with EBUSY while the old server's last requests are being
   * collected, or somebody holds /dev/ublkcN: try again. Afterwards the queues are fetched anew.
   */
  async startRecovery(id: number): Promise<void> {
    await this.#succeed(UblkCommand.START_RECOVERY, id, null, 0, `take over ublk device ${id}`);
  }

  /**
   * Whether a queue has its server, alive or dead. Asked by a command that no queue has: the driver looks whose the queue is
   * before it looks at the command (`__ublk_ch_uring_cmd` in drivers/block/ublk_drv.c until Linux 6.15; later ones answer
   * "no" always, and forget dead servers by themselves).
   *
   * @param charFd /dev/ublkcN
   */
  async hasServer(charFd: number, queue: number): Promise<boolean> {
    const what = "ask about a ublk queue";
    // Where a control command has its device, a queue command has its queue (16 bits) and tag.
    const result = await this.#run(UblkQueueCommand.UNKNOWN, queue, null, 0, what, charFd);
    return result !== -Errno.EOPNOTSUPP;
  }

  /** Ends taking over: resolves once every queue has fetched all its tags. See {@link startDevice}. */
  async endRecovery(id: number, pid: number): Promise<void> {
    await this.#succeed(UblkCommand.END_RECOVERY, id, null, pid, `finish taking over ublk device ${id}`);
  }

  /** Changes the size of a live device. Only with {@link UblkFeature.UPDATE_SIZE}. */
  async updateSize(id: number, sizeBytes: number): Promise<void> {
    await this.#succeed(UblkCommand.UPDATE_SIZE, id, null, sizeBytes / SECTOR_BYTES, `resize ublk device ${id}`);
  }

  /** Gives the control device back. Commands under way are cancelled, and their promises rejected. Devices stay. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    unmapUring(this.#uring);
    close(this.#fd);
    for (const { what, reject } of this.#commands.values()) reject(new SystemError(what, Errno.ECANCELED));
    this.#commands.clear();
  }

  async #succeed(
    command: number,
    deviceId: number,
    buffer: Uint8Array<ArrayBuffer> | null,
    data: number,
    what: string,
  ): Promise<void> {
    const result = await this.#run(command, deviceId, buffer, data, what);
    if (result < 0) throw new SystemError(what, result);
  }

  /** Submits a command; resolves to its result, which may be a negative errno. */
  #run(
    command: number,
    deviceId: number,
    buffer: Uint8Array<ArrayBuffer> | null,
    data: number,
    what: string,
    fd = this.#fd,
  ): Promise<number> {
    if (this.#closed) throw new Error(`Cannot ${what}: the control device is closed`);
    if (this.#commands.size >= COMMANDS_MAX) throw new Error(`Cannot ${what}: too many commands are under way`);
    const key = this.#nextKey++;
    const { sqes, sqEntries } = this.#uring;
    const at = (this.#sqTail & (sqEntries - 1)) * SQE_BYTES;
    sqes.fill(0, at / 4, (at + SQE_BYTES) / 4);
    const view = new DataView(sqes.buffer, at, SQE_BYTES);
    view.setUint8(0, OPCODE_URING_CMD);
    view.setInt32(4, fd, true);
    view.setUint32(8, command, true);
    view.setUint32(32, key, true);
    const address = buffer === null ? 0 : addressOf(buffer);
    encodeControlCommand(
      new DataView(sqes.buffer, at + COMMAND_AT, 32),
      deviceId,
      address,
      buffer === null ? 0 : buffer.length,
      data,
    );
    this.#sqTail = (this.#sqTail + 1) >>> 0;
    Atomics.store(this.#uring.ring, this.#uring.sqTailIndex, this.#sqTail);
    return new Promise((resolve, reject) => {
      this.#commands.set(key, { what, buffer, resolve, reject });
      this.#polls = 0;
      this.#poll(1);
    });
  }

  /** Submits, takes the completions that are there, and comes back by a timer while a command is under way. */
  #poll(submit: number): void {
    const { fd, ring, cqHeadIndex, cqTailIndex, cqesIndex, cqEntries } = this.#uring;
    let result: number;
    do result = enterUring(fd, submit, 0, EnterFlag.GETEVENTS, 0n, 0n); while (result === -Errno.EINTR);
    const tail = Atomics.load(ring, cqTailIndex);
    while (this.#cqHead !== tail) {
      const at = cqesIndex + (this.#cqHead & (cqEntries - 1)) * 4;
      const key = ring[at];
      const command = this.#commands.get(key);
      this.#commands.delete(key);
      command?.resolve(ring[at + 2] | 0);
      this.#cqHead = (this.#cqHead + 1) >>> 0;
    }
    Atomics.store(ring, cqHeadIndex, this.#cqHead);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#commands.size === 0) return;
    const delayMs = this.#polls++ < POLLS_YOUNG ? POLL_YOUNG_MS : POLL_OLD_MS;
    // An entry that was not taken stays in the ring: it is submitted with the next look.
    const left = submit - Math.max(result, 0);
    this.#timer = setTimeout(() => this.#poll(left), delayMs);
  }
}

/**
 * Opens /dev/ublkcN, the device of the queues, close-on-exec: the driver waits until everybody has closed it.
 *
 * @returns the descriptor, for all queues and threads of the process
 * @throws {SystemError} with EBUSY while another server has it open
 */
export async function openQueueDevice(id: number): Promise<number> {
  const path = `/dev/ublkc${id}`;
  for (let waitedMs = 0;; waitedMs += NODE_POLL_MS) {
    const fd = open(path, OpenFlag.READ_WRITE);
    if (fd >= 0) return fd;
    const missing = fd === -Errno.ENOENT || fd === -Errno.ENXIO || fd === -Errno.ENODEV;
    if (!missing || waitedMs >= NODE_WAIT_MS) throw new SystemError(`open ${path}`, fd);
    await new Promise((resolve) => setTimeout(resolve, NODE_POLL_MS));
  }
}
