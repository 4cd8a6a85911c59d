/**
 * Ranges of IP addresses as people write them (RFC 4632, section 3.1; RFC 4291, section 2.3).
 *
 * @module
 */
import { formatIpv6, parseIpv4, parseIpv6, type SocketAddress } from "../../ffi/sockaddr.ts";

/** All addresses that begin with the same bits. It can be sent to another thread. */
export interface AddressRange {
  /** The first address of the range: 4 bytes of IPv4 or 16 of IPv6. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many bits from the left are the same in all of them. */
  readonly prefixBits: number;
}

/** Bytes of ::ffff:0:0/96, the IPv4-mapped addresses (RFC 4291, section 2.5.5.2), before the IPv4 address in them. */
const MAPPED_PREFIX_BYTES = 12;

/**
 * Reads `ADDRESS` or `ADDRESS/BITS`. A range of IPv4-mapped IPv6 addresses is the one of IPv4 addresses that it means.
 *
 * @throws {RangeError} that says what is wrong with the text
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatRange(parseRange("10.0.0.0/8")), "10.0.0.0/8");
 * ```
 */
export function parseRange(text: string): AddressRange {
  const fail = (reason: string) => new RangeError(`Cannot read the address range "${text}": ${reason}`);
  const [host, bitsText, ...rest] = text.split("/");
  const given = parseIpv4(host) ?? parseIpv6(host);
  if (rest.length > 0) throw fail("only one / may be in it");
  if (given === null) {
    if (host.includes("%")) throw fail("it cannot have a zone: the address alone counts");
    throw fail(`"${host}" is not an IP address (expected for example 10.0.0.0/8, 192.168.1.5 or 2001:db8::/32)`);
  }
  const bitsMax = given.length * 8;
  if (bitsText !== undefined && !(/^(0|[1-9]\d{0,2})$/.test(bitsText) && Number(bitsText) <= bitsMax)) {
    throw fail(`"${bitsText}" is not a number of bits from 0 to ${bitsMax}`);
  }
  const givenBits = bitsText === undefined ? bitsMax : Number(bitsText);
  const first = masked(given, givenBits);
  if (!first.every((byte, i) => byte === given[i])) {
    throw fail(
      `${host} is within the range and does not begin it: write ${
        formatRange({ bytes: first, prefixBits: givenBits })
      }` +
        ` for all of it, or ${host} for that address alone`,
    );
  }
  const isIpv4 = givenBits >= MAPPED_PREFIX_BYTES * 8 && isMapped(given);
  return isIpv4
    ? { bytes: given.slice(MAPPED_PREFIX_BYTES), prefixBits: givenBits - MAPPED_PREFIX_BYTES * 8 }
    : { bytes: given, prefixBits: givenBits };
}

/** Writes a range as {@link parseRange} reads it, always in the same way. */
export function formatRange({ bytes, prefixBits }: AddressRange): string {
  const host = bytes.length === 4 ? bytes.join(".") : formatIpv6(bytes);
  return prefixBits === bytes.length * 8 ? host : `${host}/${prefixBits}`;
}

/**
 * Whether the address is in the range. A peer whose IPv4 address came as an IPv4-mapped one is in the ranges of its IPv4
 * address and in no other. What has no IP address is in none; the zone of a link-local address does not matter.
 */
export function isInRange(range: AddressRange, address: SocketAddress): boolean {
  const bytes = ipBytes(address);
  if (bytes === null || bytes.length !== range.bytes.length) return false;
  const first = masked(bytes, range.prefixBits);
  return first.every((byte, i) => byte === range.bytes[i]);
}

/** The address in 4 bytes of IPv4, also where it is an IPv4-mapped one, or 16 of IPv6; null where it is no IP address. */
export function ipBytes(address: SocketAddress): Uint8Array<ArrayBuffer> | null {
  if (address.family === "ipv4") return parseIpv4(address.host);
  if (address.family === "unix") return null;
  const bytes = parseIpv6(address.host);
  return bytes !== null && isMapped(bytes) ? bytes.slice(MAPPED_PREFIX_BYTES) : bytes;
}

function isMapped(bytes: Uint8Array): boolean {
  if (bytes.length !== 16 || bytes[10] !== 0xff || bytes[11] !== 0xff) return false;
  return bytes.subarray(0, 10).every((byte) => byte === 0);
}

/** The bytes with all bits after the first `bits` cleared. */
function masked(bytes: Uint8Array, bits: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bytes);
  for (let i = 0; i < result.length; i++) {
    const kept = Math.min(Math.max(bits - 8 * i, 0), 8);
    result[i] &= 0xff00 >> kept;
  }
  return result;
}
