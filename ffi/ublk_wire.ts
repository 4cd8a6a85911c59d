/**
 * Structures and numbers of the ublk driver: linux/ublk_cmd.h. Little-endian, as every machine is that this runs on.
 *
 * @module
 */

/** Features of a device and of the driver, UBLK_F_*, a bit set. */
export const UblkFeature = {
  SUPPORT_ZERO_COPY: 1 << 0,
  NEED_GET_DATA: 1 << 2,
  /** The device outlives its server, and a new one can take it over; what was under way fails. */
  USER_RECOVERY: 1 << 3,
  /** With USER_RECOVERY: what was under way is given to the new server. */
  USER_RECOVERY_REISSUE: 1 << 4,
  UNPRIVILEGED_DEVICE: 1 << 5,
  /** Commands are numbered as ioctls are; the only way used here (Linux 6.4). */
  IOCTL_ENCODE: 1 << 6,
  USER_COPY: 1 << 7,
  ZONED: 1 << 8,
  /** With USER_RECOVERY: I/O without a server fails instead of waiting (Linux 6.13). */
  USER_RECOVERY_FAIL_IO: 1 << 9,
  /** A live device can be resized (Linux 6.16). */
  UPDATE_SIZE: 1 << 10,
  AUTO_BUFFER_REGISTER: 1 << 11,
  QUIESCE: 1 << 12,
  PER_IO_DAEMON: 1 << 13,
  /** TRY_STOP_DEV stops a device only if nobody has it open. */
  SAFE_STOP: 1 << 17,
} as const;

/** Control commands: `_IOR` or `_IOWR` ('u', number, struct ublksrv_ctrl_cmd of 32 bytes). */
export const UblkCommand = {
  GET_DEVICE_INFO: 0x8020_7502,
  ADD_DEVICE: 0xc020_7504,
  DELETE_DEVICE: 0xc020_7505,
  START_DEVICE: 0xc020_7506,
  STOP_DEVICE: 0xc020_7507,
  SET_PARAMETERS: 0xc020_7508,
  START_RECOVERY: 0xc020_7510,
  END_RECOVERY: 0xc020_7511,
  GET_FEATURES: 0x8020_7513,
  UPDATE_SIZE: 0xc020_7515,
  TRY_STOP_DEVICE: 0xc020_7517,
} as const;

/** Queue commands: `_IOWR('u', number, struct ublksrv_io_cmd)` of 16 bytes. */
export const UblkQueueCommand = {
  FETCH: 0xc010_7520,
  COMMIT_AND_FETCH: 0xc010_7521,
  /** Of another kind ('x'): refused with EOPNOTSUPP, if nothing was wrong before that is looked at. */
  UNKNOWN: 0xc010_7820,
} as const;

/** What a request asks for: UBLK_IO_OP_*. */
export const UblkOperation = { READ: 0, WRITE: 1, FLUSH: 2, DISCARD: 3, WRITE_SAME: 4, WRITE_ZEROES: 5 } as const;

/** Flags of a request: UBLK_IO_F_*, bits of the whole `op_flags` word. */
export const UblkFlag = { FUA: 1 << 13, NO_UNMAP: 1 << 15, SWAP: 1 << 16 } as const;

/** Most requests of one queue: UBLK_MAX_QUEUE_DEPTH. */
export const UBLK_DEPTH_MAX = 4096;
/** Most queues of one device: UBLK_MAX_NR_QUEUES. */
export const UBLK_QUEUES_MAX = 4096;
/** Size of a `struct ublksrv_io_desc`. */
export const UBLK_DESCRIPTOR_BYTES = 24;
/** A sector, the unit of the driver, in bytes. */
export const SECTOR_BYTES = 512;

/** Sizes of `struct ublksrv_ctrl_dev_info`, and of `struct ublk_params` up to its discard part, rounded to 8. */
const DEVICE_INFO_BYTES = 64;
const PARAMETERS_BYTES = 64;

/** UBLK_PARAM_TYPE_*. */
const PARAMETER_BASIC = 1 << 0;
const PARAMETER_DISCARD = 1 << 1;

/** UBLK_ATTR_*. */
const ATTRIBUTE_READ_ONLY = 1 << 0;
const ATTRIBUTE_ROTATIONAL = 1 << 1;
const ATTRIBUTE_VOLATILE_CACHE = 1 << 2;
const ATTRIBUTE_FUA = 1 << 3;

/** States of a device: UBLK_S_DEV_*. */
const STATES = ["dead", "live", "quiesced", "fail-io"] as const;
/** Whether a device is served: "quiesced" waits for a new server. */
export type UblkState = (typeof STATES)[number] | "unknown";

/** What the driver knows about a device. */
export interface UblkDeviceInfo {
  /** N of /dev/ublkbN and /dev/ublkcN; 0xffffffff lets the driver choose. */
  readonly id: number;
  readonly queues: number;
  /** Requests of one queue. */
  readonly queueDepth: number;
  /** The largest request in bytes, and so the size of a tag's buffer. */
  readonly maximumIoBytes: number;
  /** {@link UblkFeature}s. */
  readonly features: number;
  readonly state: UblkState;
  /** The server's process, 0 or -1 when there is none. */
  readonly serverPid: number;
}

/** Encodes a `struct ublksrv_ctrl_dev_info` for ADD_DEV. */
export function encodeDeviceInfo(info: Omit<UblkDeviceInfo, "state">): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(DEVICE_INFO_BYTES));
  view.setUint16(0, info.queues, true);
  view.setUint16(2, info.queueDepth, true);
  view.setUint32(8, info.maximumIoBytes, true);
  view.setUint32(12, info.id, true);
  view.setInt32(16, info.serverPid, true);
  view.setBigUint64(24, BigInt(info.features), true);
  return new Uint8Array(view.buffer);
}

/** Decodes a `struct ublksrv_ctrl_dev_info`. */
export function decodeDeviceInfo(bytes: Uint8Array): UblkDeviceInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, DEVICE_INFO_BYTES);
  return {
    queues: view.getUint16(0, true),
    queueDepth: view.getUint16(2, true),
    state: STATES[view.getUint16(4, true)] ?? "unknown",
    maximumIoBytes: view.getUint32(8, true),
    id: view.getUint32(12, true),
    serverPid: view.getInt32(16, true),
    features: Number(view.getBigUint64(24, true)),
  };
}

/** What the block device is to be like. All in bytes. */
export interface UblkParameters {
  /** A multiple of the logical block. */
  readonly sizeBytes: number;
  /** A power of two from 512 to the page size. */
  readonly logicalBlock: number;
  /** A power of two, at least the logical block. */
  readonly physicalBlock: number;
  /** Preferred I/O size; rounded down to a power of two. */
  readonly optimalIo: number;
  /** The largest request, at most the device's buffers. */
  readonly maximumIoBytes: number;
  readonly readOnly: boolean;
  readonly rotational: boolean;
  /** There is a cache that FLUSH writes back. */
  readonly volatileCache: boolean;
  /** FUA is understood; without it the kernel sends a FLUSH after the write. */
  readonly fua: boolean;
  /** A power of two, at least the logical block; needed for discards and for writing zeroes. */
  readonly discardGranularity: number;
  /** The largest discard; 0 switches them off. */
  readonly maximumDiscardBytes: number;
  /** The largest write of zeroes; 0 switches them off. */
  readonly maximumWriteZeroesBytes: number;
}

/** The exponent of a power of two; a number between two powers counts as the lower. */
function shiftOf(bytes: number): number {
  return Math.floor(Math.log2(bytes));
}

function powerOfTwo(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= 1 && 2 ** shiftOf(bytes) === bytes;
}

/** Sectors of a limit that the driver keeps in 32 bits. */
function limitSectors(bytes: number): number {
  return Math.min(Math.floor(bytes / SECTOR_BYTES), 0xffff_ffff);
}

/**
 * Encodes the basic and discard parts of a `struct ublk_params` for SET_PARAMS.
 *
 * @throws {RangeError} for what the driver would refuse
 */
export function encodeParameters(parameters: UblkParameters): Uint8Array<ArrayBuffer> {
  const { logicalBlock, physicalBlock, sizeBytes } = parameters;
  if (!powerOfTwo(logicalBlock) || logicalBlock < SECTOR_BYTES) {
    throw new RangeError(`Cannot make a ublk device: logical block of ${logicalBlock} bytes`);
  }
  if (!powerOfTwo(physicalBlock) || physicalBlock < logicalBlock) {
    throw new RangeError(`Cannot make a ublk device: physical block of ${physicalBlock} bytes`);
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % logicalBlock !== 0) {
    throw new RangeError(
      `Cannot make a ublk device: ${sizeBytes} bytes are no multiple of the block of ${logicalBlock}`,
    );
  }
  const attributes = (parameters.readOnly ? ATTRIBUTE_READ_ONLY : 0) |
    (parameters.rotational ? ATTRIBUTE_ROTATIONAL : 0) |
    (parameters.volatileCache ? ATTRIBUTE_VOLATILE_CACHE : 0) |
    // The block layer takes FUA without a cache to flush for a mistake.
    (parameters.fua && parameters.volatileCache ? ATTRIBUTE_FUA : 0);
  const discards = parameters.maximumDiscardBytes > 0 || parameters.maximumWriteZeroesBytes > 0;

  const view = new DataView(new ArrayBuffer(PARAMETERS_BYTES));
  view.setUint32(0, PARAMETERS_BYTES, true);
  view.setUint32(4, PARAMETER_BASIC | (discards ? PARAMETER_DISCARD : 0), true);
  // struct ublk_param_basic
  view.setUint32(8, attributes, true);
  view.setUint8(12, shiftOf(logicalBlock));
  view.setUint8(13, shiftOf(physicalBlock));
  view.setUint8(14, shiftOf(Math.max(parameters.optimalIo, physicalBlock)));
  view.setUint8(15, shiftOf(physicalBlock));
  view.setUint32(16, limitSectors(parameters.maximumIoBytes), true);
  view.setBigUint64(24, BigInt(sizeBytes / SECTOR_BYTES), true);
  if (discards) {
    // struct ublk_param_discard: alignment, granularity, largest discard, largest write of zeroes, segments (always 1).
    view.setUint32(44, Math.max(parameters.discardGranularity, logicalBlock), true);
    view.setUint32(48, limitSectors(parameters.maximumDiscardBytes), true);
    view.setUint32(52, limitSectors(parameters.maximumWriteZeroesBytes), true);
    view.setUint16(56, 1, true);
  }
  return new Uint8Array(view.buffer);
}

/**
 * Encodes a `struct ublksrv_ctrl_cmd`, the command part of a submission entry, into it.
 *
 * @param view where, 32 bytes
 * @param address of the command's buffer, or 0
 * @param bytes its length
 * @param data the inline argument: a process id or a size, a safe integer
 */
export function encodeControlCommand(
  view: DataView,
  deviceId: number,
  address: number,
  bytes: number,
  data: number,
): void {
  view.setUint32(0, deviceId, true);
  // No command that is used here is for one queue.
  view.setUint16(4, 0xffff, true);
  view.setUint16(6, bytes, true);
  view.setBigUint64(8, BigInt(address), true);
  view.setBigUint64(16, BigInt(data), true);
  view.setBigUint64(24, 0n, true);
}

/**
 * Where a queue's descriptors are mapped: each queue has room for the largest depth, in whole pages.
 *
 * @param pageBytes the size of a page
 */
export function descriptorsOffset(queueId: number, pageBytes: number): number {
  return queueId * roundUp(UBLK_DEPTH_MAX * UBLK_DESCRIPTOR_BYTES, pageBytes);
}

/** How many bytes of descriptors a queue has; the driver insists on this length. */
export function descriptorsBytes(depth: number, pageBytes: number): number {
  return roundUp(depth * UBLK_DESCRIPTOR_BYTES, pageBytes);
}

function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}
