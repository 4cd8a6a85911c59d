/**
 * Sockets: thin wrappers that answer a number, or a negative errno. All descriptors are close-on-exec.
 *
 * @module
 */
import { args, argWords, c, fcntl, orErrno, setArg } from "./libc.ts";
import { Family, MessageFlag, SocketLevel, SocketOption, SocketType } from "./constants.ts";
import { decodeSockaddr, encodeSockaddr, familyOf, SOCKADDR_BYTES_MAX, type SocketAddress } from "./sockaddr.ts";

/** Where the kernel writes a `struct sockaddr`, and its length. */
const peer = new Uint8Array(new ArrayBuffer(SOCKADDR_BYTES_MAX));
const peerLength = new Uint32Array(new ArrayBuffer(4));

/** An option's value. */
const optionValue = new Int32Array(new ArrayBuffer(8));

const HIGH = 0x1_0000_0000;
const F_GETFL = 3;
const F_SETFL = 4;

/** A stream socket of the address family of `address`; with `flags` of {@link SocketType}. */
export function streamSocket(address: SocketAddress, flags = 0): number {
  return orErrno(c.socket(familyOf(address), SocketType.STREAM | SocketType.CLOEXEC | flags, 0));
}

/** A pair of connected unix stream sockets, or a negative errno. */
export function socketPair(flags = 0): [number, number] | number {
  const result = orErrno(
    c.socketpair(Family.UNIX, SocketType.STREAM | SocketType.CLOEXEC | flags, 0, optionValue),
  );
  return result < 0 ? result : [optionValue[0], optionValue[1]];
}

/** bind(2). */
export function bind(fd: number, address: SocketAddress): number {
  const bytes = encodeSockaddr(address);
  return orErrno(c.bind(fd, bytes, bytes.length));
}

/** listen(2). */
export function listen(fd: number, backlog: number): number {
  return orErrno(c.listen(fd, backlog));
}

/**
 * connect(2) to the `struct sockaddr` at an address. Blocks on a blocking socket; -EINPROGRESS on another.
 */
export function connectAt(fd: number, sockaddrAddress: number, sockaddrBytes: number): number {
  setArg(0, sockaddrAddress);
  return orErrno(c.connect(fd, args[0], sockaddrBytes));
}

/** accept4(2), close-on-exec and non-blocking. */
export function accept(fd: number): number {
  return orErrno(c.accept4(fd, 0n, 0n, SocketType.CLOEXEC | SocketType.NONBLOCK));
}

/** shutdown(2), `how` of {@link Shutdown}. */
export function shutdown(fd: number, how: number): number {
  return orErrno(c.shutdown(fd, how));
}

/** recv(2) to an address, with {@link MessageFlag}s. Allocates nothing. */
export function recv(fd: number, address: number, bytes: number, flags: number): number {
  argWords[0] = address;
  argWords[1] = address / HIGH;
  argWords[2] = bytes;
  argWords[3] = bytes / HIGH;
  return orErrno(c.recv(fd, args[0], args[1], flags));
}

/** sendmsg(2) of the `struct msghdr` at an address; MSG_NOSIGNAL is always added. Allocates nothing. */
export function sendmsg(fd: number, msghdrAddress: number, flags: number): number {
  argWords[0] = msghdrAddress;
  argWords[1] = msghdrAddress / HIGH;
  return orErrno(c.sendmsg(fd, args[0], flags | MessageFlag.NOSIGNAL));
}

/** The socket's own address, or null where it has none that is known here, or is no socket. */
export function localAddress(fd: number): SocketAddress | null {
  peerLength[0] = peer.length;
  return c.getsockname(fd, peer, peerLength) < 0 ? null : decodeSockaddr(peer, peerLength[0]);
}

/** The peer's address, or null where it is not connected. */
export function peerAddress(fd: number): SocketAddress | null {
  peerLength[0] = peer.length;
  return c.getpeername(fd, peer, peerLength) < 0 ? null : decodeSockaddr(peer, peerLength[0]);
}

/** setsockopt(2) of an int. */
export function setOption(fd: number, level: number, option: number, value: number): number {
  optionValue[0] = value;
  return orErrno(c.setsockopt(fd, level, option, optionValue, 4));
}

/** getsockopt(2) of an int, which must not be negative. */
export function getOption(fd: number, level: number, option: number): number {
  optionValue[0] = 0;
  peerLength[0] = 4;
  const result = orErrno(c.getsockopt(fd, level, option, optionValue, peerLength));
  return result < 0 ? result : optionValue[0];
}

/** What has gone wrong on the socket since it was last asked: 0, or a negative errno. Asking clears it. */
export function takeSocketError(fd: number): number {
  const error = getOption(fd, SocketLevel.SOCKET, SocketOption.ERROR);
  return error > 0 ? -error : error;
}

/** Switches TCP's delaying of small segments off; does nothing on other sockets. */
export function setNoDelay(fd: number): void {
  setOption(fd, SocketLevel.TCP, SocketOption.TCP_NODELAY, 1);
}

/**
 * Switches O_NONBLOCK.
 *
 * @returns 1 when it was on before, 0 when it was off, or a negative errno
 */
export function setNonBlocking(fd: number, on: boolean): number {
  const flags = fcntl(fd, F_GETFL, 0);
  if (flags < 0) return flags;
  const before = (flags & SocketType.NONBLOCK) !== 0;
  if (before !== on) {
    const result = fcntl(fd, F_SETFL, on ? flags | SocketType.NONBLOCK : flags & ~SocketType.NONBLOCK);
    if (result < 0) return result;
  }
  return before ? 1 : 0;
}

/**
 * Makes room for so much unread data in a unix socket, whose buffer does not grow by itself as TCP's does; without the
 * privilege (CAP_NET_ADMIN) up to what net.core.wmem_max allows. Best effort.
 */
export function setSendBuffer(fd: number, bytes: number): void {
  const result = setOption(fd, SocketLevel.SOCKET, SocketOption.SEND_BUFFER_FORCE, bytes);
  if (result < 0) setOption(fd, SocketLevel.SOCKET, SocketOption.SEND_BUFFER, bytes);
}

/**
 * A listening stream socket.
 *
 * @param address where to listen; port 0 lets the kernel choose, {@link localAddress} tells
 * @param backlog connections that wait to be accepted
 * @returns the descriptor, or a negative errno
 */
export function listenOn(address: SocketAddress, backlog: number): number {
  const fd = streamSocket(address, SocketType.NONBLOCK);
  if (fd < 0) return fd;
  if (address.family !== "unix") {
    // Without it, the port of a server that was just stopped is taken for a minute (TIME_WAIT).
    setOption(fd, SocketLevel.SOCKET, SocketOption.REUSE_ADDRESS, 1);
  }
  let result = bind(fd, address);
  if (result === 0) result = listen(fd, backlog);
  if (result === 0) return fd;
  c.close(fd);
  return result;
}
