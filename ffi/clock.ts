/**
 * The monotonic clock without garbage: `performance.now()` makes an object of each of its answers.
 *
 * @module
 */
import { addressOf, c } from "./libc.ts";

/** CLOCK_MONOTONIC of linux/time.h. */
const CLOCK_MONOTONIC = 1;

/** A `struct timespec` of 64-bit Linux: s64 seconds, s64 nanoseconds. */
const timespec = new Int32Array(new ArrayBuffer(16));
const timespecAddress = BigInt(addressOf(timespec));

c.clock_gettime(CLOCK_MONOTONIC, timespecAddress);
const startSeconds = timespec[0];

/** Whole milliseconds since this thread was started, rounded down: a small integer for the first 24 days. */
export function monotonicMs(): number {
  c.clock_gettime(CLOCK_MONOTONIC, timespecAddress);
  return (timespec[0] - startSeconds) * 1000 + Math.floor(timespec[2] / 1_000_000);
}
