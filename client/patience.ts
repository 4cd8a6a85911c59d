/**
 * How long an attachment waits for what, and what follows of that.
 *
 * @module
 */
import { LEASE_MS_MAX } from "../protocol/limits.ts";

/** How much longer than its own patience a client wishes the exporter's to be, in milliseconds. */
const LEASE_MARGIN_MS = 30_000;
/** How often a silent exporter is pinged at least before its connection is given up, so that one may be late. */
const PINGS = 3;

/** How patient an attachment is. It can be sent to another thread. */
export interface Patience {
  /** After so long without its reply a request is asked after, in milliseconds. */
  readonly resendMs: number;
  /** How often that may come to nothing, without life, before the request fails; Infinity: for ever. */
  readonly resends: number;
  /** How long each address may take to be reached, and to answer, in milliseconds. */
  readonly connectMs: number;
  /** After so long without a byte the exporter is pinged, in milliseconds. */
  readonly pingIdleMs: number;
  /** After so long without a byte the connection is given up, in milliseconds. */
  readonly deadMs: number;
}

/** How long a request lives without life, in milliseconds; may be Infinity. */
export function windowMs({ resendMs, resends }: Patience): number {
  return resendMs * resends;
}

/** After how long without a byte a connection is given up, in milliseconds: no request may outlive its connection. */
export function lastsMs(patience: Patience): number {
  return Math.min(patience.deadMs, windowMs(patience));
}

/**
 * After how long without a byte the exporter is pinged, in milliseconds: several times before {@link lastsMs}, also where
 * requests fail so soon that there would be no ping until then.
 */
export function pingMs(patience: Patience): number {
  const lasts = lastsMs(patience);
  return lasts < patience.deadMs ? Math.min(patience.pingIdleMs, lasts / PINGS) : patience.pingIdleMs;
}

/** How long the exporter is to keep the export for a client without a connection, in milliseconds. */
export function leaseMs(patience: Patience): number {
  return Math.min(LEASE_MS_MAX, windowMs(patience) + patience.deadMs + LEASE_MARGIN_MS);
}
