/**
 * What of an attachment can be changed while it runs: how patient it is. As it is asked for and told on the control socket.
 *
 * @module
 */
import * as v from "valibot";
import { usageFailure } from "../engine/control/failure.ts";
import { whole } from "../engine/control/schema.ts";
import { objectionToPatience, type Patience, patienceOf, RESENDS_MAX, TIME_MS_MAX } from "./patience.ts";

const TimeMs = v.optional(whole(1, TIME_MS_MAX));

const ChangeSchema = v.strictObject({
  resendIntervalMs: TimeMs,
  resends: v.optional(
    v.union(
      [v.pipe(v.literal("forever"), v.transform(() => Infinity)), whole(1, RESENDS_MAX)],
      `expected a whole number from 1 to ${RESENDS_MAX}, or "forever"`,
    ),
  ),
  connectTimeoutMs: TimeMs,
  pingIntervalMs: TimeMs,
  deadAfterMs: TimeMs,
}, "expected an object");

/** How patient an attachment is, as JSON. */
export interface ShownPatience {
  readonly resendIntervalMs: number;
  readonly resends: number | "forever";
  readonly connectTimeoutMs: number;
  readonly pingIntervalMs: number;
  readonly deadAfterMs: number;
}

/** Patience as JSON, which has no infinity. What is not there is left out. */
export function shownPatience(patience: Patience): ShownPatience;
export function shownPatience(patience: Partial<Patience>): Partial<ShownPatience>;
export function shownPatience(patience: Partial<Patience>): Partial<ShownPatience> {
  const { resendMs, resends, connectMs, pingIdleMs, deadMs } = patience;
  return {
    resendIntervalMs: resendMs,
    resends: resends === Infinity ? "forever" : resends,
    connectTimeoutMs: connectMs,
    pingIntervalMs: pingIdleMs,
    deadAfterMs: deadMs,
  };
}

/**
 * What an attachment's patience becomes by what somebody asks for.
 *
 * @param asked JSON: those of {@link ShownPatience} that are to change
 * @throws {Failure} when it is nothing of the kind, or does not go together with what stays
 */
export function changedPatience(asked: unknown, present: Patience): Patience {
  const result = v.safeParse(ChangeSchema, asked);
  if (!result.success) {
    const issue = result.issues[0];
    const name = issue.path?.map(({ key }) => String(key)).join(".") ?? "";
    throw usageFailure(`Cannot set ${name === "" ? "that" : name}: ${issue.message}`);
  }
  const { resendIntervalMs, resends, connectTimeoutMs, pingIntervalMs, deadAfterMs } = result.output;
  const patience = patienceOf({
    resendMs: resendIntervalMs,
    resends,
    connectMs: connectTimeoutMs,
    pingIdleMs: pingIntervalMs,
    deadMs: deadAfterMs,
  }, present);
  const objection = objectionToPatience(patience);
  if (objection !== null) throw usageFailure(`Nothing is set: ${objection}`);
  return patience;
}
