/**
 * Listening sockets for front-ends, made on the control plane.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { errnoMessage } from "../ffi/errno.ts";
import { formatSocketAddress, ipAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import { listenOn, localAddress } from "../ffi/socket.ts";
import { formatHostPort, formatNbdAddress, type HostPort, type NbdAddress } from "./control/address.ts";

/** Connections that wait to be accepted. */
const BACKLOG = 128;

/** A socket that listens. Its descriptor becomes that of whoever accepts from it. */
export interface Listening {
  readonly fd: number;
  /** Where it really listens, as people write it: the port, for example, when 0 was asked for. */
  readonly address: string;
  /** The path to remove at the end, for a unix socket. */
  readonly path: string | null;
}

/**
 * Listens on a TCP port.
 *
 * @throws {Error} that says where and why not
 */
export async function listenTcp({ host, port }: HostPort): Promise<Listening> {
  const where = formatHostPort(host, port);
  let address: SocketAddress | null = ipAddress(host, port);
  if (address === null) {
    try {
      address = ipAddress((await lookup(host)).address, port);
    } catch {
      throw new Error(`Cannot listen on ${where}: the name ${host} is not known`);
    }
  }
  const fd = listenAt(address!, where);
  return { fd, address: formatSocketAddress(localAddress(fd)!), path: null };
}

/**
 * Listens where NBD clients are to connect. A socket file that nobody listens on any more is replaced.
 *
 * @throws {Error} that says where and why not
 */
export async function listenNbd(address: NbdAddress): Promise<Listening> {
  if (address.kind === "tcp") return await listenTcp(address);
  await removeStaleSocket(address.path);
  const where = formatNbdAddress(address);
  return { fd: listenAt({ family: "unix", path: address.path }, where), address: where, path: address.path };
}

/** Removes the file of a unix socket, if it is there. */
export function removeSocketFile(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Removes a socket file whose server died without removing it. What else is there stays, and listening fails. */
async function removeStaleSocket(path: string): Promise<void> {
  try {
    if (!Deno.lstatSync(path).isSocket) return;
    (await Deno.connect({ transport: "unix", path })).close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) removeSocketFile(path);
  }
}

function listenAt(address: SocketAddress, where: string): number {
  const fd = listenOn(address, BACKLOG);
  if (fd < 0) throw new Error(`Cannot listen on ${where}: ${errnoMessage(fd)}`);
  return fd;
}
