/**
 * What a file is: statx(2) and fstatfs(2).
 *
 * @module
 */
import { c, cString, orErrno } from "./libc.ts";
import { check } from "./errno.ts";

/** What a file is, as far as a disk made of it is concerned. */
export interface FileStatus {
  readonly kind: "file" | "directory" | "block" | "character" | "other";
  /** Permission bits, the low twelve of `st_mode`. */
  readonly permissions: number;
  readonly uid: number;
  readonly gid: number;
  /** Size in bytes; 0 for a block device, which BLKGETSIZE64 tells. */
  readonly size: number;
  /** Bytes that are allocated for it. */
  readonly allocated: number;
  /** Preferred I/O size in bytes. */
  readonly blockBytes: number;
  readonly inode: number;
  /** The device that the file lies on. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** The device that the file is, for a block or character device. */
  readonly targetMajor: number;
  readonly targetMinor: number;
  /** When it was made, in ns since 1970 as a decimal; empty where the file system does not say. */
  readonly birthTime: string;
  /** Alignment of memory and of offsets for O_DIRECT in bytes; 0 where kernel (before 6.1) or file system is silent. */
  readonly directMemoryAlign: number;
  readonly directOffsetAlign: number;
}

/** linux/stat.h: AT_FDCWD, AT_EMPTY_PATH; STATX_BASIC_STATS | STATX_BTIME | STATX_DIOALIGN. */
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BTIME = 0x800;
const STATX_DIOALIGN = 0x2000;
const MASK = 0x7ff | STATX_BTIME | STATX_DIOALIGN;

/** `S_IFMT` values: linux/stat.h. */
const KINDS: Record<number, FileStatus["kind"]> = {
  0o040000: "directory",
  0o020000: "character",
  0o060000: "block",
  0o100000: "file",
};

/**
 * Decodes a `struct statx` (256 bytes, the same on every architecture; linux/stat.h).
 *
 * @param view the structure
 */
export function decodeStatx(view: DataView): FileStatus {
  const mask = view.getUint32(0, true);
  const mode = view.getUint16(28, true);
  const born = (mask & STATX_BTIME) !== 0;
  return {
    kind: KINDS[mode & 0o170000] ?? "other",
    permissions: mode & 0o7777,
    uid: view.getUint32(20, true),
    gid: view.getUint32(24, true),
    size: Number(view.getBigUint64(40, true)),
    allocated: Number(view.getBigUint64(48, true)) * 512,
    blockBytes: view.getUint32(4, true),
    inode: Number(view.getBigUint64(32, true)),
    deviceMajor: view.getUint32(136, true),
    deviceMinor: view.getUint32(140, true),
    targetMajor: view.getUint32(128, true),
    targetMinor: view.getUint32(132, true),
    birthTime: born ? String(view.getBigInt64(80, true) * 1_000_000_000n + BigInt(view.getUint32(88, true))) : "",
    directMemoryAlign: (mask & STATX_DIOALIGN) !== 0 ? view.getUint32(152, true) : 0,
    directOffsetAlign: (mask & STATX_DIOALIGN) !== 0 ? view.getUint32(156, true) : 0,
  };
}

function statx(fd: number, path: string, flags: number, what: string): FileStatus {
  const bytes = new Uint8Array(new ArrayBuffer(256));
  check(orErrno(c.statx(fd, cString(path), flags, MASK, bytes)), what);
  return decodeStatx(new DataView(bytes.buffer));
}

/**
 * What an open file is.
 *
 * @throws {SystemError}
 */
export function fstat(fd: number): FileStatus {
  return statx(fd, "", AT_EMPTY_PATH, `examine descriptor ${fd}`);
}

/**
 * What the file at a path is; symbolic links are followed.
 *
 * @throws {SystemError}
 */
export function stat(path: string): FileStatus {
  return statx(AT_FDCWD, path, 0, `examine ${path}`);
}

/** What a file system is like. */
export interface FilesystemStatus {
  /** `f_type`, see {@link FilesystemType}. */
  readonly type: number;
  readonly blockBytes: number;
  /** Bytes that an unprivileged user may still fill. */
  readonly available: number;
}

/**
 * The file system that an open file lies on.
 *
 * @throws {SystemError}
 */
export function fstatfs(fd: number): FilesystemStatus {
  // `struct statfs` of asm-generic/statfs.h: 120 bytes where a long has 64 bits: type, bsize, blocks, bfree, bavail.
  const bytes = new Uint8Array(new ArrayBuffer(120));
  check(orErrno(c.fstatfs(fd, bytes)), `examine the file system of descriptor ${fd}`);
  const view = new DataView(bytes.buffer);
  const blockBytes = Number(view.getBigUint64(8, true));
  return {
    type: view.getUint32(0, true),
    blockBytes,
    available: Number(view.getBigUint64(32, true)) * blockBytes,
  };
}
