/**
 * A lock between threads, in a word of memory that they share: for work of microseconds.
 *
 * @module
 */

/** How often to look at the lock before the thread sleeps: its holder may be waiting for this processor. */
const SPINS = 2000;
/** How long to sleep at most, in milliseconds; the holder needs microseconds once it runs. */
const SLEEP_MS = 1;

/**
 * Takes the lock, as soon as nobody has it. Allocates nothing.
 *
 * @param words shared, zero at first
 * @param index which of them is the lock
 */
export function lock(words: Int32Array, index: number): void {
  let spins = 0;
  while (Atomics.compareExchange(words, index, 0, 1) !== 0) {
    if (++spins > SPINS) Atomics.wait(words, index, 1, SLEEP_MS);
  }
}

/** Gives it back. What was written before is seen by whoever takes it next. */
export function unlock(words: Int32Array, index: number): void {
  Atomics.store(words, index, 0);
}
