/**
 * Constants of the kernel's interface that more than one module uses. All are the same on x86-64 and aarch64, except
 * {@link OpenFlag.DIRECT} and {@link OpenFlag.DIRECTORY}, which differ between the two.
 *
 * @module
 */

const onArm = Deno.build.arch === "aarch64";

/** Flags of open(2): asm-generic/fcntl.h, and asm/fcntl.h of arm64 for the two that differ. */
export const OpenFlag = {
  READ_ONLY: 0,
  WRITE_ONLY: 1,
  READ_WRITE: 2,
  CREATE: 0o100,
  EXCLUSIVE: 0o200,
  TRUNCATE: 0o1000,
  NONBLOCK: 0o4000,
  DIRECT: onArm ? 0o200000 : 0o40000,
  DIRECTORY: onArm ? 0o40000 : 0o200000,
  CLOEXEC: 0o2000000,
} as const;

/** Operations of flock(2): asm-generic/fcntl.h. */
export const Lock = { SHARED: 1, EXCLUSIVE: 2, NONBLOCK: 4, UNLOCK: 8 } as const;

/** `whence` of lseek(2): linux/fs.h. */
export const Seek = { SET: 0, CURRENT: 1, END: 2, DATA: 3, HOLE: 4 } as const;

/** RWF_* of preadv2(2) and pwritev2(2): linux/fs.h. */
export const ReadWriteFlag = { HIPRI: 1, DSYNC: 2, SYNC: 4, NOWAIT: 8, APPEND: 16 } as const;

/** FALLOC_FL_* of fallocate(2): linux/falloc.h. */
export const FallocateMode = {
  KEEP_SIZE: 1,
  PUNCH_HOLE: 2,
  NO_HIDE_STALE: 4,
  COLLAPSE_RANGE: 8,
  ZERO_RANGE: 16,
  INSERT_RANGE: 32,
} as const;

/** POSIX_FADV_*: linux/fadvise.h. */
export const Advice = { NORMAL: 0, RANDOM: 1, SEQUENTIAL: 2, WILLNEED: 3, DONTNEED: 4, NOREUSE: 5 } as const;

/** Requests of ioctl(2) for block devices: linux/fs.h. */
export const BlockIoctl = {
  /** BLKROGET: int, 1 for read-only. */
  READ_ONLY: 0x125e,
  /** BLKFLSBUF: drops the cache. */
  FLUSH_BUFFERS: 0x1261,
  /** BLKSSZGET: int, logical block in bytes. */
  LOGICAL_BLOCK: 0x1268,
  /** BLKIOMIN: unsigned, bytes. */
  MINIMUM_IO: 0x1278,
  /** BLKIOOPT: unsigned, bytes, 0 when unknown. */
  OPTIMAL_IO: 0x1279,
  /** BLKPBSZGET: unsigned, physical block in bytes. */
  PHYSICAL_BLOCK: 0x127b,
  /** BLKDISCARDZEROES: unsigned; always 0 since Linux 4.12. */
  DISCARD_ZEROES: 0x127c,
  /** BLKROTATIONAL: unsigned short. */
  ROTATIONAL: 0x127e,
  /** BLKDISCARD: two u64, offset and length. Blocks. */
  DISCARD: 0x1277,
  /** BLKZEROOUT: two u64, offset and length. Blocks. */
  ZERO_OUT: 0x127f,
  /** BLKGETSIZE64: _IOR(0x12, 114, size_t), bytes. */
  SIZE: 0x80081272,
} as const;

/** `f_type` of file systems in memory: linux/magic.h. */
export const FilesystemType = { TMPFS: 0x01021994, RAMFS: 0x858458f6 } as const;

/** PROT_* and MAP_* of mmap(2): asm-generic/mman-common.h. */
export const Protection = { NONE: 0, READ: 1, WRITE: 2 } as const;
/** See {@link Protection}. */
export const Mapping = { SHARED: 1, PRIVATE: 2, ANONYMOUS: 0x20, POPULATE: 0x8000 } as const;

/** Address families, types and flags of socket(2): linux/socket.h, linux/net.h. */
export const Family = { UNIX: 1, IPV4: 2, IPV6: 10 } as const;
/** See {@link Family}. */
export const SocketType = { STREAM: 1, DATAGRAM: 2, NONBLOCK: 0o4000, CLOEXEC: 0o2000000 } as const;

/** Levels and names of setsockopt(2): asm-generic/socket.h, linux/tcp.h, linux/in6.h. */
export const SocketLevel = { SOCKET: 1, TCP: 6, IPV6: 41 } as const;
/** See {@link SocketLevel}. */
export const SocketOption = {
  REUSE_ADDRESS: 2,
  TYPE: 3,
  ERROR: 4,
  SEND_BUFFER: 7,
  RECEIVE_BUFFER: 8,
  KEEP_ALIVE: 9,
  LINGER: 13,
  REUSE_PORT: 15,
  PEER_CREDENTIALS: 17,
  SEND_BUFFER_FORCE: 32,
  DOMAIN: 39,
  TCP_NODELAY: 1,
  TCP_CORK: 3,
  TCP_KEEP_IDLE: 4,
  TCP_KEEP_INTERVAL: 5,
  TCP_KEEP_COUNT: 6,
  TCP_QUICKACK: 12,
  TCP_USER_TIMEOUT: 18,
  IPV6_ONLY: 26,
} as const;

/** MSG_* of recv(2) and sendmsg(2): linux/socket.h. */
export const MessageFlag = {
  PEEK: 2,
  DONTWAIT: 0x40,
  WAITALL: 0x100,
  NOSIGNAL: 0x4000,
  MORE: 0x8000,
} as const;

/** `how` of shutdown(2). */
export const Shutdown = { READ: 0, WRITE: 1, BOTH: 2 } as const;

/** Events of poll(2): asm-generic/poll.h. */
export const PollEvent = { IN: 1, OUT: 4, ERROR: 8, HANGUP: 16, INVALID: 32 } as const;

/** Options of prctl(2): linux/prctl.h. */
export const ProcessControl = {
  SET_PARENT_DEATH_SIGNAL: 1,
  SET_NAME: 15,
  /** Marks the thread as one whose memory allocations must not wait for I/O that it serves itself. */
  SET_IO_FLUSHER: 57,
  GET_IO_FLUSHER: 58,
} as const;
