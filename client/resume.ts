/**
 * Whether a session can go on with what an exporter grants when a lane comes back (SPEC.md, section 6.2).
 *
 * @module
 */
import { Errno } from "../ffi/errno.ts";
import { Access, Feature, type Grant } from "../protocol/grant.ts";
import { Status } from "../protocol/status.ts";

/** Why a session is over for good. */
export interface Objection {
  /** What every request fails with: a negative errno. */
  readonly errno: number;
  /** For people, without a capital or a full stop. */
  readonly reason: string;
}

/**
 * Another session writes: it was fenced, or has lost its lease to another. Not even reads go on, since what they would
 * show is not what whoever has the disk mounted here expects.
 */
export const TAKEN_OVER: Objection = { errno: -Errno.ESTALE, reason: "another client has taken over the export" };
const ANOTHER_DISK: Objection = {
  errno: -Errno.ESTALE,
  reason: "the exporter has another disk under that name now, not the one that was attached",
};

/** What a refusal of an OPEN with RESUME means: null where it may pass. */
export function objectionToRefusal(status: number): Objection | null {
  if (status === Status.STORAGE_CHANGED) return ANOTHER_DISK;
  return status === Status.EPOCH_CHANGED ? TAKEN_OVER : null;
}

/**
 * Why a session cannot go on with a grant, or null.
 *
 * @param before the one that it has lived with
 * @param now what it is granted
 */
export function objectionToGrant(before: Grant, now: Grant): Objection | null {
  if (!areEqual(before.identities.storage, now.identities.storage)) return ANOTHER_DISK;
  const writes = before.access === Access.READ_WRITE;
  const isShared = (before.features & now.features & Feature.SHARED) !== 0;
  if (writes && !isShared && before.identities.writeEpoch !== now.identities.writeEpoch) return TAKEN_OVER;
  // Whoever uses the disk was told what it is like, and cannot be told again.
  if (now.access !== before.access) return changed("the exporter grants another access now");
  if (now.logicalBlock > before.logicalBlock) {
    return changed(`the export's blocks have ${now.logicalBlock} bytes now, and had ${before.logicalBlock}`);
  }
  const gained = now.features & ~before.features;
  if (writes && (gained & Feature.SHARED) !== 0) {
    return changed("the export is shared now: others may have written to it meanwhile");
  }
  if (writes && (gained & Feature.VOLATILE_CACHE) !== 0) {
    return changed("the export has a volatile cache now, and nobody here knows that it needs to be flushed");
  }
  return null;
}

/** Whether it is another process of the exporter: it knows nothing of what was sent. */
export function isOtherInstance(before: Grant, now: Grant): boolean {
  return !areEqual(before.identities.instance, now.identities.instance);
}

function changed(reason: string): Objection {
  return { errno: -Errno.EIO, reason };
}

function areEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}
