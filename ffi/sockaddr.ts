/**
 * Addresses of sockets: between `struct sockaddr` (linux/in.h, linux/in6.h, linux/un.h) and what people write.
 *
 * @module
 */
import { Family } from "./constants.ts";

/** An address of a stream socket. A unix path that begins with "@" is in the abstract namespace; "" is unnamed. */
export type SocketAddress =
  | { readonly family: "ipv4"; readonly host: string; readonly port: number }
  | { readonly family: "ipv6"; readonly host: string; readonly port: number; readonly scopeId: number }
  | { readonly family: "unix"; readonly path: string };

/** The largest `struct sockaddr` that is used here: sockaddr_un, 2 + 108 bytes. */
export const SOCKADDR_BYTES_MAX = 110;
/** The longest path of a unix socket in bytes: `sun_path` with its zero (linux/un.h). */
export const UNIX_PATH_BYTES_MAX = 107;

const IPV4_BYTES = 16;
const IPV6_BYTES = 28;

/** The four bytes of an IPv4 address in dotted form, or null where it is not one. */
export function parseIpv4(text: string): Uint8Array<ArrayBuffer> | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(parts[i])) return null;
    const value = Number(parts[i]);
    if (value > 255) return null;
    bytes[i] = value;
  }
  return bytes;
}

/** Parses colon-separated groups; a dotted IPv4 address may be the last. Null where one is malformed. */
function parseGroups(text: string): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (let i = 0; i < parts.length; i++) {
    if (i === parts.length - 1 && parts[i].includes(".")) {
      const ipv4 = parseIpv4(parts[i]);
      if (ipv4 === null) return null;
      groups.push(ipv4[0] << 8 | ipv4[1], ipv4[2] << 8 | ipv4[3]);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(parts[i])) return null;
      groups.push(parseInt(parts[i], 16));
    }
  }
  return groups;
}

/** The sixteen bytes of an IPv6 address (RFC 4291, section 2.2), without a zone, or null where it is not one. */
export function parseIpv6(text: string): Uint8Array<ArrayBuffer> | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  if (halves.length === 2 && halves[0].includes(".")) return null;
  const head = parseGroups(halves[0]);
  const tail = halves.length === 2 ? parseGroups(halves[1]) : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const bytes = new Uint8Array(16);
  groups.forEach((group, i) => {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group;
  });
  return bytes;
}

/** Sixteen bytes as an IPv6 address in the form of RFC 5952: lower case, the longest run of zero groups as "::". */
export function formatIpv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes[2 * i] << 8 | bytes[2 * i + 1]);
  let runStart = -1;
  let runLength = 1;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > runLength) {
      runStart = i;
      runLength = length;
    }
  }
  const hex = groups.map((group) => group.toString(16));
  if (runStart < 0) return hex.join(":");
  return `${hex.slice(0, runStart).join(":")}::${hex.slice(runStart + runLength).join(":")}`;
}

/**
 * An address of an IP host as a socket address.
 *
 * @param host an IPv4 or IPv6 address (the latter may carry a numeric zone, `fe80::1%2`); not a name
 * @param port 0 to 65535
 * @returns null where the host is neither
 */
export function ipAddress(host: string, port: number): SocketAddress | null {
  if (parseIpv4(host) !== null) return { family: "ipv4", host, port };
  const [address, zone, ...rest] = host.split("%");
  const bytes = parseIpv6(address);
  if (bytes === null || rest.length > 0 || (zone !== undefined && !/^[0-9]{1,9}$/.test(zone))) return null;
  return { family: "ipv6", host: formatIpv6(bytes), port, scopeId: Number(zone ?? 0) };
}

/** A socket address as people write it: `127.0.0.1:7700`, `[::1]:7700`, `unix:/run/dst.sock`. */
export function formatSocketAddress(address: SocketAddress): string {
  switch (address.family) {
    case "ipv4":
      return `${address.host}:${address.port}`;
    case "ipv6":
      return `[${address.host}${address.scopeId === 0 ? "" : `%${address.scopeId}`}]:${address.port}`;
    case "unix":
      return `unix:${address.path}`;
  }
}

/** The AF_* number of an address. */
export function familyOf(address: SocketAddress): number {
  return { ipv4: Family.IPV4, ipv6: Family.IPV6, unix: Family.UNIX }[address.family];
}

/**
 * Encodes a `struct sockaddr`; the array is exactly as long as the structure is to be given to the kernel.
 *
 * @throws {TypeError} for a host that is no IP address
 * @throws {RangeError} for a port or path out of range
 */
export function encodeSockaddr(address: SocketAddress): Uint8Array<ArrayBuffer> {
  if (address.family === "unix") return encodeUnix(address.path);
  if (!Number.isInteger(address.port) || address.port < 0 || address.port > 65535) {
    throw new RangeError(`Cannot use port ${address.port}: it is not between 0 and 65535`);
  }
  const bytes = new Uint8Array(address.family === "ipv4" ? IPV4_BYTES : IPV6_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, familyOf(address), true);
  view.setUint16(2, address.port, false);
  const host = address.family === "ipv4" ? parseIpv4(address.host) : parseIpv6(address.host);
  if (host === null) throw new TypeError(`Cannot use ${address.host}: it is not an ${address.family} address`);
  bytes.set(host, address.family === "ipv4" ? 4 : 8);
  if (address.family === "ipv6") view.setUint32(24, address.scopeId, true);
  return bytes;
}

function encodeUnix(path: string): Uint8Array<ArrayBuffer> {
  const abstract = path.startsWith("@");
  const name = new TextEncoder().encode(abstract ? path.slice(1) : path);
  if (name.length === 0 || name.length > UNIX_PATH_BYTES_MAX) {
    throw new RangeError(`Cannot use the socket path ${path}: it must have 1 to ${UNIX_PATH_BYTES_MAX} bytes`);
  }
  if (name.includes(0)) throw new TypeError("Cannot use a socket path that contains a zero character");
  // An abstract name follows a zero byte and has no end mark; a path has a zero at its end.
  const bytes = new Uint8Array(2 + name.length + 1);
  new DataView(bytes.buffer).setUint16(0, Family.UNIX, true);
  bytes.set(name, abstract ? 3 : 2);
  return bytes;
}

/**
 * Decodes a `struct sockaddr` of `length` bytes, as getpeername(2) and others fill it in.
 *
 * @returns null for a family that is unknown here or a structure that is too short
 */
export function decodeSockaddr(bytes: Uint8Array, length: number): SocketAddress | null {
  if (length < 2 || length > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  switch (view.getUint16(0, true)) {
    case Family.IPV4:
      if (length < 8) return null;
      return { family: "ipv4", host: bytes.slice(4, 8).join("."), port: view.getUint16(2, false) };
    case Family.IPV6:
      if (length < IPV6_BYTES) return null;
      return {
        family: "ipv6",
        host: formatIpv6(bytes.slice(8, 24)),
        port: view.getUint16(2, false),
        scopeId: view.getUint32(24, true),
      };
    case Family.UNIX: {
      if (length === 2) return { family: "unix", path: "" };
      const abstract = bytes[2] === 0;
      const name = bytes.slice(abstract ? 3 : 2, length);
      const end = abstract ? -1 : name.indexOf(0);
      return {
        family: "unix",
        path: (abstract ? "@" : "") + new TextDecoder().decode(end < 0 ? name : name.slice(0, end)),
      };
    }
    default:
      return null;
  }
}
