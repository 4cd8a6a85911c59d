/**
 * The one binding of the C library: thin wrappers that answer a number, or a negative errno. Sockets are in
 * `socket.ts`, which shares the binding.
 *
 * Addresses, offsets and lengths are JS numbers, safe integers. A 64-bit parameter is handed over by storing the
 * number's halves in {@link argWords} and loading the parameter from {@link args}: the optimizing compiler turns that
 * load into a register, so that the call stays on V8's fast path (a number given for a `u64` leaves it: 57 ns more) and
 * nothing is allocated (a `BigInt(n)` would be).
 *
 * @module
 */
import { Errno } from "./errno.ts";
import { BlockIoctl, Seek } from "./constants.ts";

/**
 * The bound functions, for the wrappers here and in the modules beside. Results are 32 bits wide wherever they cannot
 * exceed that (the kernel moves at most 0x7ffff000 bytes a call), because a 64-bit result would be a BigInt.
 */
export const c = Deno.dlopen("libc.so.6", {
  __errno_location: { parameters: [], result: "pointer" },
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  pread: { parameters: ["i32", "u64", "u64", "i64"], result: "i32" },
  pwrite: { parameters: ["i32", "u64", "u64", "i64"], result: "i32" },
  preadv2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  pwritev2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  read: { parameters: ["i32", "u64", "u64"], result: "i32" },
  write: { parameters: ["i32", "u64", "u64"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  flushBuffers: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32", nonblocking: true },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  ppoll: { parameters: ["u64", "u64", "u64", "u64"], result: "i32" },

  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "u64" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  mlock2: { parameters: ["u64", "u64", "u32"], result: "i32" },
  memcpy: { parameters: ["u64", "u64", "u64"], result: "void" },

  clock_gettime: { parameters: ["i32", "u64"], result: "i32" },
  getpid: { parameters: [], result: "i32" },
  geteuid: { parameters: [], result: "u32" },
  setsid: { parameters: [], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  execve: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  getpagesize: { parameters: [], result: "i32" },
  sched_getcpu: { parameters: [], result: "i32" },
  sched_setaffinity: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  sched_getaffinity: { parameters: ["i32", "u64", "buffer"], result: "i32" },

  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "u64", "u32"], result: "i32" },
  accept4: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  recv: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },

  uringSetup: { name: "syscall", parameters: ["i64", "u32", "buffer"], result: "i32" },
  uringEnter: { name: "syscall", parameters: ["i64", "i32", "u32", "u32", "u32", "u64", "u64"], result: "i32" },
  uringRegister: { name: "syscall", parameters: ["i64", "i32", "u32", "buffer", "u32"], result: "i32" },
}).symbols;

/** This thread's errno. A module is loaded once a thread, so there is one such array a thread. */
const errnoOfThread = new Int32Array(viewOf(pointerNumber(c.__errno_location()), 4));

/** 64-bit parameters on their way to a call, see the module's comment. Used up by the call that follows. */
export const args: BigUint64Array<ArrayBuffer> = new BigUint64Array(new ArrayBuffer(128));
/** {@link args} as signed numbers. */
export const signedArgs: BigInt64Array<ArrayBuffer> = new BigInt64Array(args.buffer);
/** {@link args} as 32-bit halves: parameter i is words 2i (low) and 2i + 1 (high). */
export const argWords: Uint32Array<ArrayBuffer> = new Uint32Array(args.buffer);

/** 2^32: one step of the high half. */
const HIGH = 0x1_0000_0000;

/** A `struct iovec` for preadv2 and pwritev2: u64 base, u64 length. */
const iovec = new Uint32Array(new ArrayBuffer(16));
const iovecAddress = BigInt(addressOf(iovec));

/** Eight bytes to be read or written by a call: an eventfd's counter, an ioctl's answer. */
const counter = new Uint32Array(new ArrayBuffer(8));
const counterBytes = new Uint8Array(counter.buffer);
const counterAddress = BigInt(addressOf(counter));

function pointerNumber(pointer: Deno.PointerValue): number {
  return Number(Deno.UnsafePointer.value(pointer));
}

/** The address of a view's first byte, which stays put while its buffer lives. The view must not be empty. */
export function addressOf(view: ArrayBufferView<ArrayBufferLike>): number {
  if (view.byteLength === 0) throw new RangeError("Cannot take the address of an empty view");
  // V8 keeps small arrays on its own heap, where they move, until their `buffer` is read.
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength) as Uint8Array<ArrayBuffer>;
  return pointerNumber(Deno.UnsafePointer.of(bytes));
}

/** The memory at an address, live in both directions. The caller keeps it mapped while the buffer is in use. */
export function viewOf(address: number, bytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  if (pointer === null) throw new RangeError("Cannot view the memory at address 0");
  return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes);
}

/** A call's result, or the negative errno where it answered -1. */
export function orErrno(result: number): number {
  return result === -1 ? -errnoOfThread[0] : result;
}

/** A string for C: UTF-8 with a zero at its end. Throws for one that contains a zero. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) throw new TypeError("Cannot use a name that contains a zero character");
  return new TextEncoder().encode(text + "\0");
}

/** open(2) with {@link OpenFlag}s; `mode` is for O_CREAT. O_CLOEXEC is always added. */
export function open(path: string, flags: number, mode = 0o666): number {
  return orErrno(c.open(cString(path), flags | 0o2000000, mode));
}

/** close(2). */
export function close(fd: number): number {
  return orErrno(c.close(fd));
}

/** unlink(2). */
export function unlink(path: string): number {
  return orErrno(c.unlink(cString(path)));
}

/** fcntl(2) with an integer argument. */
export function fcntl(fd: number, command: number, argument: number): number {
  return orErrno(c.fcntl(fd, command, argument));
}

/** A second descriptor of the same open file, close-on-exec: F_DUPFD_CLOEXEC of linux/fcntl.h. */
export function duplicate(fd: number): number {
  return fcntl(fd, 1030, 0);
}

/** flock(2) with {@link Lock} bits. */
export function flock(fd: number, operation: number): number {
  return orErrno(c.flock(fd, operation));
}

/** lseek(2) with a {@link Seek} value; -ENXIO where SEEK_DATA or SEEK_HOLE finds nothing. */
export function lseek(fd: number, offset: number, whence: number): number {
  argWords[0] = offset;
  argWords[1] = Math.floor(offset / HIGH);
  const result = Number(c.lseek(fd, signedArgs[0], whence));
  return result === -1 ? -errnoOfThread[0] : result;
}

/** The size of a file or block device in bytes, by seeking to its end. */
export function seekEnd(fd: number): number {
  return lseek(fd, 0, Seek.END);
}

/** Writes a number to parameter `index` of {@link args}. For numbers from 0 to 2^53. */
export function setArg(index: number, value: number): void {
  argWords[2 * index] = value;
  argWords[2 * index + 1] = value / HIGH;
}

/**
 * pread(2) to the address `base + at`, two numbers so that `at` can be a small integer. A short result is the caller's to
 * handle. Allocates nothing.
 */
export function pread(fd: number, base: number, at: number, bytes: number, offset: number): number {
  const address = base + at;
  argWords[0] = address;
  argWords[1] = address / HIGH;
  argWords[2] = bytes;
  argWords[3] = bytes / HIGH;
  argWords[4] = offset;
  argWords[5] = offset / HIGH;
  return orErrno(c.pread(fd, args[0], args[1], signedArgs[2]));
}

/** pwrite(2) from the address `base + at`, as {@link pread}. */
export function pwrite(fd: number, base: number, at: number, bytes: number, offset: number): number {
  const address = base + at;
  argWords[0] = address;
  argWords[1] = address / HIGH;
  argWords[2] = bytes;
  argWords[3] = bytes / HIGH;
  argWords[4] = offset;
  argWords[5] = offset / HIGH;
  return orErrno(c.pwrite(fd, args[0], args[1], signedArgs[2]));
}

function setIovec(address: number, bytes: number, offset: number): void {
  iovec[0] = address;
  iovec[1] = address / HIGH;
  iovec[2] = bytes;
  iovec[3] = bytes / HIGH;
  argWords[0] = offset;
  argWords[1] = offset / HIGH;
}

/** preadv2(2) to one address, with {@link ReadWriteFlag}s: -EAGAIN where NOWAIT would wait. Allocates nothing. */
export function preadv2(fd: number, address: number, bytes: number, offset: number, flags: number): number {
  setIovec(address, bytes, offset);
  return orErrno(c.preadv2(fd, iovecAddress, 1, signedArgs[0], flags));
}

/** pwritev2(2) from one address, with {@link ReadWriteFlag}s. Allocates nothing. */
export function pwritev2(fd: number, address: number, bytes: number, offset: number, flags: number): number {
  setIovec(address, bytes, offset);
  return orErrno(c.pwritev2(fd, iovecAddress, 1, signedArgs[0], flags));
}

/** fdatasync(2). */
export function fdatasync(fd: number): number {
  return orErrno(c.fdatasync(fd));
}

/** fsync(2). */
export function fsync(fd: number): number {
  return orErrno(c.fsync(fd));
}

/** fallocate(2) with {@link FallocateMode}s. */
export function fallocate(fd: number, mode: number, offset: number, bytes: number): number {
  setArg(0, offset);
  setArg(1, bytes);
  return orErrno(c.fallocate(fd, mode, signedArgs[0], signedArgs[1]));
}

/** ftruncate(2). */
export function ftruncate(fd: number, bytes: number): number {
  setArg(0, bytes);
  return orErrno(c.ftruncate(fd, signedArgs[0]));
}

/** posix_fadvise(2) with an {@link Advice}; 0 bytes reach to the end. */
export function fadvise(fd: number, offset: number, bytes: number, advice: number): number {
  setArg(0, offset);
  setArg(1, bytes);
  return -c.posix_fadvise(fd, signedArgs[0], signedArgs[1], advice) | 0;
}

/** ioctl(2) with a buffer, which must be as large as the request's argument. */
export function ioctl(fd: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
  setArg(0, request);
  return orErrno(c.ioctl(fd, args[0], argument));
}

/** ioctl(2) that answers an unsigned number of up to 64 bits, for example {@link BlockIoctl}.SIZE. */
export function ioctlNumber(fd: number, request: number): number {
  counter.fill(0);
  const result = ioctl(fd, request, counterBytes);
  return result < 0 ? result : counter[0] + counter[1] * HIGH;
}

/**
 * BLKFLSBUF: a block device's dirty pages are written, and since Linux 6.6 those of the filesystem that is mounted on it too
 * (`blkdev_flushbuf` in block/ioctl.c). It tells of no failure. The thread does not wait, the promise does.
 */
export async function flushBuffers(fd: number): Promise<void> {
  await c.flushBuffers(fd, BigInt(BlockIoctl.FLUSH_BUFFERS), 0n);
}

/** memfd_create(2), close-on-exec: a file in memory. The name is for /proc only. */
export function memfdCreate(name: string): number {
  return orErrno(c.memfd_create(cString(name), 1));
}

/** eventfd(2), non-blocking and close-on-exec, counting from 0. */
export function eventfd(): number {
  return orErrno(c.eventfd(0, 0o4000 | 0o2000000));
}

/** Adds to an eventfd's counter (1 to 2^32 - 1), which wakes whoever polls it. Allocates nothing. */
export function eventfdWrite(fd: number, add: number): number {
  counter[0] = add;
  counter[1] = 0;
  const result = c.write(fd, counterAddress, 8n);
  return result === -1 ? -errnoOfThread[0] : 0;
}

/** Takes an eventfd's counter and sets it to 0; 0 when it was. */
export function eventfdRead(fd: number): number {
  if (c.read(fd, counterAddress, 8n) === -1) {
    const errno = errnoOfThread[0];
    return errno === Errno.EAGAIN ? 0 : -errno;
  }
  return counter[0] + counter[1] * HIGH;
}

/**
 * mmap(2) at an address of the kernel's choice.
 *
 * @param bytes the length
 * @param protection {@link Protection} bits
 * @param mapping {@link Mapping} bits
 * @param fd -1 for anonymous memory
 * @returns the address, or a negative errno
 */
export function mmap(bytes: number, protection: number, mapping: number, fd: number, offset: number): number {
  setArg(0, bytes);
  setArg(1, offset);
  const address = c.mmap(0n, args[0], protection, mapping, fd, signedArgs[1]);
  return address === 0xffff_ffff_ffff_ffffn ? -errnoOfThread[0] : Number(address);
}

/** munmap(2). No view of the range may be touched afterwards. */
export function munmap(address: number, bytes: number): number {
  setArg(0, address);
  setArg(1, bytes);
  return orErrno(c.munmap(args[0], args[1]));
}

/**
 * mlock2(2): keeps the range in memory. -ENOMEM or -EPERM beyond RLIMIT_MEMLOCK.
 *
 * @param onFault only those of its pages that are used, from when they are used first; otherwise all of them, from now on
 */
export function mlock(address: number, bytes: number, onFault = false): number {
  setArg(0, address);
  setArg(1, bytes);
  // MLOCK_ONFAULT of asm-generic/mman-common.h.
  return orErrno(c.mlock2(args[0], args[1], onFault ? 1 : 0));
}

/** getpid(2). */
export function getpid(): number {
  return c.getpid();
}

/** geteuid(2): 0 for root. */
export function geteuid(): number {
  return c.geteuid();
}

/** setsid(2): the new session's id. */
export function setsid(): number {
  return orErrno(c.setsid());
}

/** kill(2); signal 0 only asks whether the process exists. */
export function kill(pid: number, signal: number): number {
  return orErrno(c.kill(pid, signal));
}

/**
 * execve(2): another program in this process, with its threads gone and its descriptors closed that are close-on-exec.
 *
 * @param args the first is the program's name
 * @returns why not, a negative errno; otherwise never
 */
export function execute(path: string, args: readonly string[], environment: Readonly<Record<string, string>>): number {
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const texts = [args.map(cString), variables.map(cString)];
  const [argv, envp] = texts.map((list) => new BigUint64Array([...list.map((text) => BigInt(addressOf(text))), 0n]));
  const result = orErrno(c.execve(cString(path), new Uint8Array(argv.buffer), new Uint8Array(envp.buffer)));
  // Not given up before the call.
  texts.length = 0;
  return result;
}

/** prctl(2) with one argument, see {@link ProcessControl}. It applies to the calling thread where it says so. */
export function prctl(option: number, argument: number): number {
  setArg(0, argument);
  return orErrno(c.prctl(option, args[0], 0n, 0n, 0n));
}

/** The size of a page in bytes. */
export function pageBytes(): number {
  return c.getpagesize();
}

/** The processor that the thread runs on now. */
export function currentCpu(): number {
  return orErrno(c.sched_getcpu());
}

/** The processors that the calling thread may run on; at most 1024 are known. */
export function cpuAffinity(): number[] {
  const mask = new Uint8Array(new ArrayBuffer(128));
  const cpus: number[] = [];
  if (c.sched_getaffinity(0, 128n, mask) < 0) return cpus;
  for (let cpu = 0; cpu < 1024; cpu++) {
    if (mask[cpu >> 3] & (1 << (cpu & 7))) cpus.push(cpu);
  }
  return cpus;
}

/** Binds the calling thread to the processors. */
export function setCpuAffinity(cpus: readonly number[]): number {
  const mask = new Uint8Array(new ArrayBuffer(128));
  for (const cpu of cpus) mask[cpu >> 3] |= 1 << (cpu & 7);
  return orErrno(c.sched_setaffinity(0, 128n, mask));
}
