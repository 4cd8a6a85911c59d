/**
 * Addresses as people write them on the command line and in configuration files.
 *
 * @module
 */

/** The port of DST, where none is given. */
export const PORT_DEFAULT = 7700;
/** The port of NBD that IANA has registered, where none is given. */
export const NBD_PORT_DEFAULT = 10809;
/** As `NAME_BYTES_MAX` of the protocol's specification. */
const NAME_BYTES_MAX = 255;
/** `sun_path` of `struct sockaddr_un` in linux/un.h holds 108 bytes, the last of them zero. */
const UNIX_PATH_BYTES_MAX = 107;
const PORT_MAX = 65535;

/** A machine and a TCP port of it. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** An export on another machine. */
export interface RemoteAddress extends HostPort {
  readonly name: string;
}

/** Where an NBD server listens. */
export type NbdAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** One side of `dst copy`. */
export type Endpoint =
  | { readonly kind: "path"; readonly path: string }
  | { readonly kind: "stdio" }
  | ({ readonly kind: "remote" } & RemoteAddress);

/** What an export is made of: a name, and a file, block device or `mem:SIZE`. */
export interface NamedPath {
  readonly name: string;
  readonly path: string;
}

/**
 * Reads `HOST[:PORT]`. An IPv6 address stands in brackets when a port follows.
 *
 * @param portDefault the port where none is given
 * @throws {RangeError} that says what is wrong with the text
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseHostPort("[::1]:7701"), { host: "::1", port: 7701 });
 * ```
 */
export function parseHostPort(text: string, portDefault = PORT_DEFAULT): HostPort {
  const fail = (reason: string) => new RangeError(`Cannot read the address "${text}": ${reason}`);
  let host = text;
  let port: string | null = null;
  if (text.startsWith("[")) {
    const end = text.indexOf("]");
    if (end < 0) throw fail("the bracket is not closed");
    host = text.slice(1, end);
    if (!isIpv6(host)) throw fail(`"${host}" is not an IPv6 address`);
    const rest = text.slice(end + 1);
    if (rest !== "" && !rest.startsWith(":")) throw fail("only :PORT may follow the bracket");
    if (rest !== "") port = rest.slice(1);
  } else {
    const colon = text.indexOf(":");
    if (colon >= 0 && colon === text.lastIndexOf(":")) {
      host = text.slice(0, colon);
      port = text.slice(colon + 1);
    } else if (colon >= 0 && !isIpv6(text)) {
      throw fail("too many colons (an IPv6 address with a port is written [ADDRESS]:PORT)");
    }
  }
  if (host === "") throw fail("the host is missing");
  if (!isIpv6(host) && !/^[A-Za-z0-9._-]+$/.test(host)) {
    throw fail(`"${host}" is neither a host name nor an IP address`);
  }
  if (port === null) return { host, port: portDefault };
  if (!/^\d{1,5}$/.test(port) || Number(port) > PORT_MAX) {
    throw fail(`"${port}" is not a port (0 to ${PORT_MAX})`);
  }
  return { host, port: Number(port) };
}

/** Writes an address as {@link parseHostPort} reads it. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Reads `HOST[:PORT]/NAME`. The first slash ends the host; the name may contain others.
 *
 * @throws {RangeError} that says what is wrong with the text
 */
export function parseRemote(text: string): RemoteAddress {
  const address = text.startsWith("dst://") ? text.slice("dst://".length) : text;
  const slash = address.indexOf("/");
  if (slash < 0) throw new RangeError(`Cannot read the address "${text}": expected HOST[:PORT]/NAME`);
  const { host, port } = parseHostPort(address.slice(0, slash));
  if (port === 0) throw new RangeError(`Cannot read the address "${text}": port 0 cannot be connected to`);
  return { host, port, name: checkName(address.slice(slash + 1)) };
}

/** Writes an address as {@link parseRemote} reads it. */
export function formatRemote(host: string, port: number, name: string): string {
  return `${formatHostPort(host, port)}/${name}`;
}

/**
 * Reads where an NBD server is to listen: `HOST[:PORT]` or `unix:PATH`.
 *
 * @throws {RangeError} that says what is wrong with the text
 */
export function parseNbdAddress(text: string): NbdAddress {
  if (!text.startsWith("unix:")) return { kind: "tcp", ...parseHostPort(text, NBD_PORT_DEFAULT) };
  const path = text.slice("unix:".length);
  if (path === "") throw new RangeError(`Cannot read the address "${text}": the path is missing`);
  const bytes = new TextEncoder().encode(path).length;
  if (bytes > UNIX_PATH_BYTES_MAX || path.includes("\0")) {
    throw new RangeError(
      `Cannot read the address "${text}": the path of a unix socket has at most ${UNIX_PATH_BYTES_MAX} bytes`,
    );
  }
  return { kind: "unix", path };
}

/** Writes an address as {@link parseNbdAddress} reads it. */
export function formatNbdAddress(address: NbdAddress): string {
  return address.kind === "unix" ? `unix:${address.path}` : formatHostPort(address.host, address.port);
}

/**
 * Reads `[NAME=]PATH`. Text that begins with `/` or `.` is a path as a whole; anything else is split at the first `=`.
 * Without a name it is the file's name, or `mem` for a memory disk.
 *
 * @throws {RangeError} that says what is wrong with the text
 */
export function parseNamedPath(text: string): NamedPath {
  const equals = /^[/.]/.test(text) ? -1 : text.indexOf("=");
  const path = text.slice(equals + 1);
  if (path === "") throw new RangeError(`Cannot read "${text}": the path is missing`);
  if (equals >= 0) return { name: checkName(text.slice(0, equals)), path };
  return { name: checkName(nameOfPath(path)), path };
}

/** The name of an export that was given none. */
export function nameOfPath(path: string): string {
  if (path.startsWith("mem:")) return "mem";
  return path.replace(/\/+$/, "").replace(/^.*\//, "");
}

/**
 * Gives the name back if it can name an export: 1 to 255 bytes of UTF-8 without control characters.
 *
 * @throws {RangeError} when it cannot
 */
export function checkName(name: string): string {
  const bytes = new TextEncoder().encode(name).length;
  if (bytes === 0) throw new RangeError("The name of an export must not be empty");
  if (bytes > NAME_BYTES_MAX) {
    throw new RangeError(`The name of an export has at most ${NAME_BYTES_MAX} bytes, not ${bytes}`);
  }
  // deno-lint-ignore no-control-regex
  if (/[\u0000-\u001f\u007f-\u009f]/.test(name)) {
    throw new RangeError("The name of an export must not contain control characters");
  }
  return name;
}

/**
 * Reads one side of `dst copy`: `-` is standard input or output; what begins with `/` or `.`, or has no slash in it, is
 * a path, as is anything whose folder is there; the rest is `HOST[:PORT]/NAME` (`dst://` before it makes that certain).
 *
 * @param isFolder whether a path is an existing folder
 * @throws {RangeError} that says what is wrong with the text
 */
export function parseEndpoint(text: string, isFolder: (path: string) => boolean): Endpoint {
  if (text === "") throw new RangeError("Cannot copy: the path is empty");
  if (text === "-") return { kind: "stdio" };
  if (text.startsWith("dst://")) return { kind: "remote", ...parseRemote(text) };
  const slash = text.lastIndexOf("/");
  if (/^[/.]/.test(text) || slash < 0 || isFolder(text.slice(0, slash))) return { kind: "path", path: text };
  return { kind: "remote", ...parseRemote(text) };
}

/** Whether the text is an IPv6 address, with or without a zone. */
function isIpv6(text: string): boolean {
  const match = /^([0-9A-Fa-f:.]+)(%[A-Za-z0-9._-]+)?$/.exec(text);
  return match !== null && URL.canParse(`http://[${match[1]}]/`);
}
