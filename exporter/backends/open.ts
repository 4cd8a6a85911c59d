/**
 * Opening what is to be exported.
 *
 * @module
 */
import type { BlockDevice } from "../../engine/block.ts";
import { parseSize } from "../../engine/size.ts";
import { SLOT_PAYLOAD_BYTES, type Slots } from "../../engine/slots.ts";
import { BlockIoctl, FallocateMode, FilesystemType, Lock, Mapping, OpenFlag, Protection } from "../../ffi/constants.ts";
import { check, Errno, errnoMessage, SystemError } from "../../ffi/errno.ts";
import { close, fallocate, flock, ioctlNumber, mmap, munmap, open, pread } from "../../ffi/libc.ts";
import type { Loop } from "../../ffi/loop.ts";
import { type FileStatus, fstat, fstatfs, stat } from "../../ffi/stat.ts";
import { BlockDeviceBackend, examineBlockDevice } from "./block_device.ts";
import { ExportError, type OpenedDisk, powerOfTwoWithin, SECTOR_BYTES } from "./disk.ts";
import { FileBackend } from "./file.ts";
import { createMemoryFile, MemoryBackend } from "./memory.ts";

export { type DiskIdentity, ExportError, type OpenedDisk } from "./disk.ts";
export { makeStickyWord } from "./sync.ts";

/** What is to be opened. */
export interface BackendSpec {
  /** A file, a block device, or `mem:SIZE`. */
  readonly path: string;
  readonly readOnly: boolean;
  /** O_DIRECT: past the page cache. Means nothing for memory. */
  readonly direct: boolean;
}

/** A page of memory on every machine that this runs on is at least this, and O_DIRECT asks for no larger alignment. */
const PAGE_BYTES = 4096;

/**
 * Opens and locks a disk. The lock is on the very description that does the I/O, so it outlives a killed exporter for
 * as long as the kernel still works on its requests. A block device that is to be written is opened exclusively, so
 * that nothing mounted is exported, nor mounted while it is.
 *
 * @returns the disk as plain data, to be given to the Workers and at last to {@link closeBackend}
 * @throws {ExportError} "Cannot export PATH: reason"; with `locked` when another has the lock
 */
export function openBackend(spec: BackendSpec): OpenedDisk {
  if (spec.path.startsWith("mem:")) return openMemory(spec);
  try {
    const kind = kindOf(spec.path, stat(spec.path));
    const fd = openLocked(spec, kind);
    try {
      const status = fstat(fd);
      if (kindOf(spec.path, status) !== kind) throw new ExportError(spec.path, "it was replaced while it was opened");
      return kind === "file" ? examineFile(spec, fd, status) : examineBlock(spec, fd, status);
    } catch (error) {
      close(fd);
      throw error;
    }
  } catch (error) {
    if (error instanceof SystemError) throw new ExportError(spec.path, errnoMessage(error.errno));
    throw error;
  }
}

/**
 * Looks at a disk again, which may have become larger or smaller.
 *
 * @returns the disk as it is now
 * @throws {ExportError} when it has no whole block any more, or cannot be looked at
 */
export function measureBackend(disk: OpenedDisk): OpenedDisk {
  if (disk.kind === "memory") return disk;
  const bytes = disk.kind === "file" ? fstat(disk.fd).size : ioctlNumber(disk.fd, BlockIoctl.SIZE);
  if (bytes < 0) throw new ExportError(disk.path, `it does not tell its size: ${errnoMessage(bytes)}`);
  const size = checkSize(disk.path, bytes, disk.geometry.logicalBlock);
  return {
    ...disk,
    geometry: { ...disk.geometry, size },
    roundedOffBytes: bytes - size,
    identity: { ...disk.identity, size: bytes },
  };
}

/** Closes a disk and so gives its lock back. All Workers must have closed their backends. */
export function closeBackend(disk: OpenedDisk): void {
  close(disk.fd);
}

/**
 * Makes the disk's backend in a Worker.
 *
 * @param disk from {@link openBackend}, perhaps on another thread
 * @param loop the Worker's loop; all its back-ends share one handler
 * @param slots the Worker's slots
 * @param stickyWord from `makeStickyWord()`, one for the disk, shared by all its Workers
 * @param onFailure is called when stable storage has failed for the first time, in one of its Workers
 * @throws {SystemError} the Worker cannot have a description of its own for syncs, or no memory
 */
export function makeBackend(
  disk: OpenedDisk,
  loop: Loop,
  slots: Slots,
  stickyWord: Int32Array,
  onFailure?: () => void,
): BlockDevice {
  switch (disk.kind) {
    case "memory":
      return new MemoryBackend(disk, loop, slots, stickyWord, onFailure);
    case "file":
      return new FileBackend(disk, loop, slots, stickyWord, onFailure);
    case "block":
      return new BlockDeviceBackend(disk, loop, slots, stickyWord, onFailure);
  }
}

function kindOf(path: string, status: FileStatus): "file" | "block" {
  switch (status.kind) {
    case "file":
    case "block":
      return status.kind;
    case "directory":
      throw new ExportError(path, "it is a directory");
    case "character":
      throw new ExportError(path, "it is a character device");
    default:
      throw new ExportError(path, "it is neither a file nor a block device");
  }
}

function openLocked(spec: BackendSpec, kind: "file" | "block"): number {
  let flags: number = spec.readOnly ? OpenFlag.READ_ONLY : OpenFlag.READ_WRITE;
  if (spec.direct) flags |= OpenFlag.DIRECT;
  if (kind === "block" && !spec.readOnly) flags |= OpenFlag.EXCLUSIVE;
  const fd = open(spec.path, flags);
  if (fd < 0) throw new ExportError(spec.path, whyNotOpened(fd, spec, kind));
  const lock = flock(fd, (spec.readOnly ? Lock.SHARED : Lock.EXCLUSIVE) | Lock.NONBLOCK);
  if (lock < 0) {
    close(fd);
    if (lock === -Errno.EAGAIN) throw new ExportError(spec.path, "it is already exported by another process", true);
    throw new ExportError(spec.path, `it cannot be locked: ${errnoMessage(lock)}`);
  }
  return fd;
}

function whyNotOpened(errno: number, spec: BackendSpec, kind: "file" | "block"): string {
  if (errno === -Errno.EBUSY && kind === "block") {
    return "the device is in use: mounted, exported, or part of an array or volume";
  }
  if (errno === -Errno.EINVAL && spec.direct) return "its file system has no O_DIRECT; leave out --direct";
  if (errno === -Errno.EACCES && !spec.readOnly) return "permission denied; reading alone may do: --read-only";
  if (errno === -Errno.EROFS) return "it is on a read-only file system; export it with --read-only";
  return errnoMessage(errno);
}

function openMemory(spec: BackendSpec): OpenedDisk {
  let size: number;
  try {
    size = parseSize(spec.path.slice("mem:".length));
  } catch (error) {
    throw new ExportError(spec.path, (error as Error).message);
  }
  checkSize(spec.path, size, SECTOR_BYTES);
  const fd = createMemoryFile(spec.path, size);
  try {
    return { ...examineFile({ ...spec, direct: false }, fd, fstat(fd)), kind: "memory" };
  } catch (error) {
    close(fd);
    throw error;
  }
}

function examineFile(spec: BackendSpec, fd: number, status: FileStatus): OpenedDisk {
  const filesystem = fstatfs(fd).type;
  const inline = filesystem === FilesystemType.TMPFS || filesystem === FilesystemType.RAMFS;
  const logicalBlock = spec.direct ? directBlock(spec.path, fd, status) : SECTOR_BYTES;
  const physicalBlock = powerOfTwoWithin(status.blockBytes, logicalBlock, Math.max(logicalBlock, PAGE_BYTES));
  const size = checkSize(spec.path, status.size, logicalBlock);
  const punches = !spec.readOnly && canPunch(fd, status);
  return {
    path: spec.path,
    kind: "file",
    fd,
    geometry: {
      size,
      logicalBlock,
      physicalBlock,
      optimalIo: powerOfTwoWithin(status.blockBytes, physicalBlock, SLOT_PAYLOAD_BYTES),
      discardGranularity: punches ? physicalBlock : 0,
      readOnly: spec.readOnly,
      // What is in memory alone is lost whole, with the disk's identity, or not at all.
      volatileCache: !inline,
      fastZero: punches,
    },
    inline,
    forcesWrites: false,
    fastAllocatedZero: !inline,
    roundedOffBytes: status.size - size,
    identity: identityOf(status, status.size),
  };
}

function examineBlock(spec: BackendSpec, fd: number, status: FileStatus): OpenedDisk {
  const { targetMajor, targetMinor } = status;
  const device = examineBlockDevice(spec.path, fd, targetMajor, targetMinor, spec.readOnly, spec.direct);
  const size = checkSize(spec.path, device.size, device.geometry.logicalBlock);
  return {
    path: spec.path,
    kind: "block",
    fd,
    geometry: { size, ...device.geometry },
    inline: false,
    forcesWrites: device.forcesWrites,
    fastAllocatedZero: device.zeroes,
    roundedOffBytes: device.size - size,
    identity: identityOf(status, device.size),
  };
}

/** The size in whole blocks. */
function checkSize(path: string, size: number, block: number): number {
  if (size === 0) throw new ExportError(path, "it is empty");
  if (size < block) throw new ExportError(path, `it is smaller than one block of ${block} bytes`);
  if (!Number.isSafeInteger(size)) throw new ExportError(path, "it is larger than 8 PiB");
  return size - size % block;
}

/** Whether the file system can punch holes: asked beyond the end of the file, where there is nothing to lose. */
function canPunch(fd: number, status: FileStatus): boolean {
  const beyond = Math.ceil(status.size / status.blockBytes) * status.blockBytes;
  return fallocate(fd, FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE, beyond, status.blockBytes) === 0;
}

/** The logical block for O_DIRECT: what the kernel tells (since 6.1, where the file system does), or by trial. */
function directBlock(path: string, fd: number, status: FileStatus): number {
  if (status.directOffsetAlign > 0) return Math.max(SECTOR_BYTES, status.directOffsetAlign);
  const address = check(
    mmap(PAGE_BYTES, Protection.READ | Protection.WRITE, Mapping.PRIVATE | Mapping.ANONYMOUS, -1, 0),
    "map a page",
  );
  try {
    for (let block = SECTOR_BYTES; block <= PAGE_BYTES; block *= 2) {
      if (pread(fd, 0, address, block, 0) !== -Errno.EINVAL) return block;
    }
  } finally {
    munmap(address, PAGE_BYTES);
  }
  throw new ExportError(path, `its file system has no O_DIRECT in blocks of up to ${PAGE_BYTES} bytes`);
}

function identityOf(status: FileStatus, size: number): OpenedDisk["identity"] {
  return {
    deviceMajor: status.deviceMajor,
    deviceMinor: status.deviceMinor,
    inode: status.inode,
    birthTime: status.birthTime,
    targetMajor: status.kind === "block" ? status.targetMajor : 0,
    targetMinor: status.kind === "block" ? status.targetMinor : 0,
    size,
  };
}
