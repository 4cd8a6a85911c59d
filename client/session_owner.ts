/**
 * What a session belongs to: who is told of it, and which lane it is.
 *
 * @module
 */
import type { KeeperPlace } from "./keeper.ts";
import type { MutationLedger } from "./ledger.ts";
import type { Overlaps } from "./overlap.ts";
import type { ReconnectPlan } from "./reconnect.ts";

/** Who is told what becomes of a session. */
export interface SessionOwner {
  /**
   * The session is over, and not by `ClientSession.leave`: every request fails from now on. Called once, after all
   * that were under way have failed.
   *
   * @param reason for people, without a capital or a full stop
   */
  onLost(reason: string): void;
  /** The exporter is ending, or ends this session alone, since its rights are gone: it refuses new requests. */
  onShuttingDown(): void;
  /** The export has another size now, in bytes. */
  onResized(size: number): void;
  /** The connection is lost, and is being made again; requests wait. `reason` as above. */
  onAway?(reason: string): void;
  /** There is a connection again, after so many milliseconds; so many requests that were under way are sent again. */
  onBack?(awayMs: number, resent: number): void;
  /** So many requests have failed, since there was no life for too long. */
  onExpired?(count: number): void;
  /**
   * What the exporter had lost with its memory is written again, and everything goes on: so many mutations of all lanes, so
   * many bytes.
   */
  onReplayed?(count: number, bytes: number, tookMs: number): void;
  /** What was acknowledged is lost for good: writes and flushes fail from now on, reads go on. `reason` as above. */
  onDataLost?(reason: string): void;
  /** The exporter is there, but does not let the lane back in, again and again; it goes on trying. `reason` as above. */
  onKeptOut?(reason: string): void;
}

/** One of a session's lanes. */
export interface LanePlace {
  /** Its number, from 0. The session is closed on lane 0; the others end with it. */
  readonly lane: number;
  /** What of the session may be lost: one for all its lanes. */
  readonly ledger: MutationLedger;
  /** Which mutations are under way, on all lanes; without it on this one. */
  readonly overlaps?: Overlaps;
  /** How it comes back when its connection is lost; without it the session ends then. */
  readonly plan?: ReconnectPlan | null;
  /** Where copies go of what the exporter may lose with its memory; without it that is lost. Only with a plan. */
  readonly replay?: KeeperPlace | null;
  /**
   * The session is another process's that is gone: the lane begins without a connection, on its way back. What that process
   * had sent may still be executing, so the lane owes a fence; the ledger has that counted already.
   */
  readonly isRecovered?: boolean;
}

/** Where a lane is that has no connection. */
export interface Away {
  /** For how long, in milliseconds. */
  readonly forMs: number;
  /** In how many milliseconds the next try is made; 0 while there is one. */
  readonly nextMs: number;
  /** Why there is none, for people. */
  readonly reason: string;
}
