/**
 * System calls that are made beside a loop's operations, because they end at once: on the way from one connection to the
 * next and from one disk to the next, never for an I/O. A loop carries them, so that whoever stands in for the kernel's
 * loop stands in for these, too.
 *
 * @module
 */
import { OpenFlag } from "./constants.ts";
import { close, lseek, open } from "./libc.ts";
import type { SocketAddress } from "./sockaddr.ts";
import { peerAddress, setNoDelay, setOption, setSendBuffer, shutdown, streamSocket } from "./socket.ts";

/** Results are those of the system calls: a number or descriptor, or a negative errno. */
export interface Calls {
  /** close(2). */
  close(fd: number): number;
  /** shutdown(2), `how` of `Shutdown`. */
  shutdown(fd: number, how: number): number;
  /** A stream socket of the address family of `address`, close-on-exec; with `flags` of `SocketType`. */
  streamSocket(address: SocketAddress, flags?: number): number;
  /** setsockopt(2) of an int. */
  setOption(fd: number, level: number, option: number, value: number): number;
  /** Switches TCP's delaying of small segments off. */
  setNoDelay(fd: number): void;
  /** Makes room for so much unread data in a unix socket, as far as that is permitted. */
  setSendBuffer(fd: number, bytes: number): void;
  /** The peer's address, or null where it is not connected. */
  peerAddress(fd: number): SocketAddress | null;
  /** A second open file description of an open file, for reading; it fails without /proc. */
  reopen(fd: number): number;
  /** lseek(2), `whence` of `Seek`. */
  lseek(fd: number, offset: number, whence: number): number;
}

/** The kernel's. */
export const kernelCalls: Calls = {
  close,
  shutdown,
  streamSocket,
  setOption,
  setNoDelay,
  setSendBuffer,
  peerAddress,
  reopen: (fd) => open(`/proc/self/fd/${fd}`, OpenFlag.READ_ONLY),
  lseek,
};
