/**
 * Work that somebody may no longer want to wait for.
 *
 * @module
 */

/**
 * Waits for the work, unless it is interrupted: then it goes on alone.
 *
 * @throws the signal's reason, or what the work throws
 */
export function unlessInterrupted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  const interrupt = () => reject(signal.reason);
  if (signal.aborted) interrupt();
  signal.addEventListener("abort", interrupt, { once: true });
  work.then(resolve, reject).finally(() => signal.removeEventListener("abort", interrupt));
  return promise;
}
