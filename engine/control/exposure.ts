/**
 * Who could reach what asks nobody who he is: an exporter without a key, and NBD at either end.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { formatHostPort, formatNbdAddress, type HostPort, type NbdAddress } from "./address.ts";
import { ipBytes } from "./cidr.ts";
import { usageFailure } from "./failure.ts";
import { ipAddress, type SocketAddress } from "../../ffi/sockaddr.ts";

/** IPv4's addresses of the machine itself are 127.0.0.0/8 (RFC 1122, section 3.2.1.3). */
const LOOPBACK_IPV4 = 127;

/** What decides it. */
export interface Exposure {
  /** Where DST is served; null: it is not. */
  readonly listen: HostPort | null;
  readonly nbd: NbdAddress | null;
  /** With any, nobody comes in by DST who has none of them. */
  readonly keys: readonly unknown[];
  /** The user knows. */
  readonly insecure: boolean;
}

/**
 * Checks that whoever can come in from another machine has a key, or that the user wants it otherwise.
 *
 * @returns what the user has insisted on, a sentence each, for the log
 * @throws {Failure} of usage, that says what to do
 */
export async function checkExposure({ listen, nbd, keys, insecure }: Exposure): Promise<string[]> {
  const insisted: string[] = [];
  if (listen !== null && keys.length === 0 && !await isLoopback(listen.host)) {
    const where = formatHostPort(listen.host, listen.port);
    if (!insecure) {
      throw usageFailure(
        `Refused to serve on ${where} without a key: any machine that reaches it could read and write; give --key FILE ` +
          "(see dst keygen), or --insecure where you trust all of them",
      );
    }
    insisted.push(`Serving on ${where} without a key: any machine that reaches it can read and write`);
  }
  if (nbd?.kind === "tcp" && !await isLoopback(nbd.host)) {
    const where = formatNbdAddress(nbd);
    if (!insecure) {
      throw usageFailure(
        `Refused to serve NBD on ${where}: NBD has no keys, so that any machine that reaches it could read and write; ` +
          "take 127.0.0.1 or unix:PATH, or give --insecure where you trust all of them",
      );
    }
    insisted.push(`Serving NBD on ${where}, which has no keys: any machine that reaches it can read and write`);
  }
  return insisted;
}

/** Whether only this machine can connect to the address or name. A name that is not known is another error's. */
async function isLoopback(host: string): Promise<boolean> {
  const address = ipAddress(host, 0);
  if (address !== null) return isOwn(address);
  try {
    const found = await lookup(host, { all: true });
    return found.every((one) => {
      const resolved = ipAddress(one.address, 0);
      return resolved !== null && isOwn(resolved);
    });
  } catch {
    return true;
  }
}

function isOwn(address: SocketAddress): boolean {
  const bytes = ipBytes(address);
  if (bytes === null) return false;
  if (bytes.length === 4) return bytes[0] === LOOPBACK_IPV4;
  return bytes.every((byte, i) => byte === (i === bytes.length - 1 ? 1 : 0));
}
