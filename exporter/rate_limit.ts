/**
 * What keeps strangers from costing the exporter much: how often an address may try, and how many lines they may cause
 * in the log. Pure: the time is an argument.
 *
 * @module
 */
import { ipBytes } from "../engine/control/cidr.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";

const MINUTE_MS = 60_000;
/** A network of one subscriber has at least this many leading bytes in common (RFC 6177: /64 or shorter), so that whoever
 * has one IPv6 address has 2^64 of them. */
const IPV6_NETWORK_BYTES = 8;

/** How often one address may try. */
export interface AttemptLimits {
  /** Attempts at once, from an address that has been quiet; at least 1. */
  readonly burst: number;
  /** Attempts that an address gets back in a minute; above 0. */
  readonly perMinute: number;
  /** Addresses that are remembered; at least 1. Beyond it the one that has been quiet for longest is forgotten. */
  readonly remembered: number;
}

interface Bucket {
  /** Attempts that are left; a fraction is the part of the next one. */
  tokens: number;
  /** When that was so, in ms. */
  atMs: number;
}

/**
 * Attempts by address: a token bucket for each IPv4 address and each /64 of IPv6. Those without an IP address (unix
 * sockets) are never limited.
 */
export class RateLimiter {
  readonly #limits: AttemptLimits;
  /** By network; whoever tried last comes last. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(limits: AttemptLimits) {
    this.#limits = limits;
  }

  /** Addresses that are remembered now. */
  get size(): number {
    return this.#buckets.size;
  }

  /** Whether an attempt would be within the limit now. */
  allows(address: SocketAddress, nowMs: number): boolean {
    const network = networkOf(address);
    return network === null || this.#refilled(network, nowMs).tokens >= 1;
  }

  /**
   * Counts an attempt.
   *
   * @param nowMs of a clock that does not go back
   * @returns whether it is within the limit; one that is not costs nothing
   */
  take(address: SocketAddress, nowMs: number): boolean {
    const network = networkOf(address);
    if (network === null) return true;
    const bucket = this.#refilled(network, nowMs);
    this.#buckets.delete(network);
    if (this.#buckets.size >= this.#limits.remembered) {
      // Whoever has been quiet for longest has the fullest bucket: forgetting it changes the least.
      for (const quietest of this.#buckets.keys()) {
        this.#buckets.delete(quietest);
        break;
      }
    }
    this.#buckets.set(network, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** The network's bucket as it is now: full where it is not remembered. */
  #refilled(network: string, nowMs: number): Bucket {
    const { burst, perMinute } = this.#limits;
    const bucket = this.#buckets.get(network);
    if (bucket === undefined) return { tokens: burst, atMs: nowMs };
    const regained = Math.max(nowMs - bucket.atMs, 0) * perMinute / MINUTE_MS;
    return { tokens: Math.min(bucket.tokens + regained, burst), atMs: Math.max(nowMs, bucket.atMs) };
  }
}

/** What is counted together: an IPv4 address, or the /64 of an IPv6 address. Null for what has no IP address. */
export function networkOf(address: SocketAddress): string | null {
  const bytes = ipBytes(address);
  return bytes === null ? null : bytes.subarray(0, IPV6_NETWORK_BYTES).toHex();
}

/**
 * A log that strangers cause: so many lines in a minute, and for the rest of the minute one line that says how many there
 * would have been.
 */
export class LogLimiter {
  readonly #linesPerMinute: number;
  readonly #write: (text: string) => void;
  readonly #summary: (omitted: number) => string;
  /** Of the minute that began with a line. */
  #startMs = -Infinity;
  #written = 0;
  #omitted = 0;

  /**
   * @param linesPerMinute at least 1
   * @param write writes a line
   * @param summary the line that stands for so many others, at least 1
   */
  constructor(linesPerMinute: number, write: (text: string) => void, summary: (omitted: number) => string) {
    this.#linesPerMinute = linesPerMinute;
    this.#write = write;
    this.#summary = summary;
  }

  /** Whether a summary is still to come: then {@link tick} must be called again. */
  get isHolding(): boolean {
    return this.#omitted > 0;
  }

  /** Writes the line, or counts it. */
  line(text: string, nowMs: number): void {
    this.tick(nowMs);
    if (nowMs >= this.#startMs + MINUTE_MS) {
      this.#startMs = nowMs;
      this.#written = 0;
    }
    if (this.#written < this.#linesPerMinute) {
      this.#written++;
      this.#write(text);
    } else {
      this.#omitted++;
    }
  }

  /** Writes the summary when its minute is over. */
  tick(nowMs: number): void {
    if (nowMs >= this.#startMs + MINUTE_MS) this.flush();
  }

  /** Writes the summary now, if there is one: at the end. */
  flush(): void {
    if (this.#omitted === 0) return;
    const omitted = this.#omitted;
    this.#omitted = 0;
    this.#write(this.#summary(omitted));
  }
}
