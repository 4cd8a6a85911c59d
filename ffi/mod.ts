/**
 * Which loop to run.
 *
 * @module
 */
import type { Loop } from "./loop.ts";
import { PollLoop } from "./poll.ts";
import { Ring } from "./ring.ts";
import { uringAvailable } from "./uring.ts";

/** What a user may ask for: "auto" is io_uring where there is one, else the poll loop. */
export type LoopKind = "auto" | "uring" | "poll";

/**
 * Makes a loop for the calling thread.
 *
 * @param kind which one
 * @param pendingMax operations that may be queued or under way at a time
 * @throws {Error} for "uring" where it cannot be had; the message says why
 * @throws {SystemError} where the kernel has no memory for it
 */
export function makeLoop(kind: LoopKind, pendingMax?: number): Loop {
  if (kind === "poll") return new PollLoop({ pendingMax });
  const reason = uringAvailable();
  if (reason === null) return new Ring({ pendingMax });
  if (kind === "uring") throw new Error(`Cannot use io_uring: ${reason}; use --loop poll`);
  return new PollLoop({ pendingMax });
}
