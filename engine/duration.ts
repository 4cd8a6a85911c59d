/**
 * Durations as people write them: `5`, `500ms`, `1.5s`, `2m`, `1h`.
 *
 * @module
 */

/** Milliseconds of each unit. */
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Reads a duration. Without a unit it is in seconds.
 *
 * @param text for example `500ms`
 * @returns whole milliseconds, 1 to `mostMs`
 * @throws {RangeError} when the text is not such a duration, or beyond the bounds
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseDuration("1.5s", 10_000), 1500);
 * ```
 */
export function parseDuration(text: string, mostMs: number): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/.exec(text);
  if (match === null) {
    throw new RangeError(`Cannot read the duration "${text}": expected a number of seconds, or one with ms, s, m or h`);
  }
  const ms = Number(match[1]) * UNIT_MS[match[2] ?? "s"];
  if (Math.round(ms) < 1) throw new RangeError(`Cannot take the duration "${text}": at least 1 ms is needed`);
  if (ms > mostMs) throw new RangeError(`Cannot take the duration "${text}": at most ${formatDuration(mostMs)} can be`);
  return Math.round(ms);
}

/**
 * Writes a duration for people.
 *
 * @param ms 0 or more
 * @returns for example `0.4 s`, `17 s`, `2 min`, `1.5 h`
 */
export function formatDuration(ms: number): string {
  // What would be rounded to 10.0 s is 10 s.
  if (ms < 9950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 360_000) / 10} h`;
}

/**
 * Writes a duration exactly, as {@link parseDuration} reads it.
 *
 * @param ms a whole number, 1 or more
 * @returns for example `250ms`, `5s`, `2m`
 */
export function writeDuration(ms: number): string {
  const unit = ["h", "m", "s"].find((name) => ms % UNIT_MS[name] === 0) ?? "ms";
  return `${ms / UNIT_MS[unit]}${unit}`;
}
