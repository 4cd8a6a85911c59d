/**
 * How long an attachment waits for what, and what follows of that.
 *
 * @module
 */
import { formatDuration } from "../engine/duration.ts";
import { LEASE_MS_MAX } from "../protocol/limits.ts";

/** The longest time that any of it may be, in milliseconds: a day, as the longest lease. */
export const TIME_MS_MAX = 86_400_000;
/** More would be "forever" by another name. */
export const RESENDS_MAX = 1_000_000;

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

/**
 * How patient an attachment is unless told otherwise. Three pings and their answers can get lost or held up before a
 * connection counts as dead, and an exporter's machine has time to start again before a request fails.
 */
export const PATIENCE: Patience = { resendMs: 5000, resends: 20, connectMs: 5000, pingIdleMs: 1000, deadMs: 15_000 };

/** How patient an attachment is by what somebody asks for, and otherwise. */
export function patienceOf(asked: Partial<Patience>, otherwise: Patience = PATIENCE): Patience {
  return {
    resendMs: asked.resendMs ?? otherwise.resendMs,
    resends: asked.resends ?? otherwise.resends,
    connectMs: asked.connectMs ?? otherwise.connectMs,
    pingIdleMs: asked.pingIdleMs ?? otherwise.pingIdleMs,
    deadMs: asked.deadMs ?? otherwise.deadMs,
  };
}

/** What of it does not go together, for people, without a capital or a full stop; null where all does. */
export function objectionToPatience({ pingIdleMs, deadMs }: Patience): string | null {
  if (deadMs > pingIdleMs) return null;
  return `a connection that is given up after ${formatDuration(deadMs)} of silence has to be pinged before, and not ` +
    `after ${formatDuration(pingIdleMs)}: silence alone does not say that the exporter is dead`;
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
