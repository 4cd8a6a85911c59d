/**
 * Sizes as people write them: `512`, `64K`, `1.5G`, `10GiB`.
 *
 * @module
 */

/** The letters of binary prefixes, in rising powers of 1024. */
const PREFIXES = "KMGTP";

/**
 * Reads a size. A number of bytes, or a number with a binary prefix K, M, G, T or P, in either case, with or without
 * `iB` after it; the number may have decimals if the result is a whole number of bytes.
 *
 * @param text for example `1G`
 * @returns bytes, a safe integer, 0 or more
 * @throws {RangeError} when the text is not such a size, or is more than 2^53 - 1
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseSize("1.5K"), 1536);
 * ```
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMGTP])(?:iB)?|B)?$/i.exec(text);
  if (match === null) {
    throw new RangeError(`Cannot read the size "${text}": expected a number of bytes, or one with K, M, G, T or P`);
  }
  const exponent = match[2] === undefined ? 0 : PREFIXES.indexOf(match[2].toUpperCase()) + 1;
  const bytes = Number(match[1]) * 1024 ** exponent;
  if (!Number.isInteger(bytes)) {
    throw new RangeError(`Cannot read the size "${text}": it is not a whole number of bytes`);
  }
  if (!Number.isSafeInteger(bytes)) throw new RangeError(`Cannot read the size "${text}": it is too large`);
  return bytes;
}

/**
 * Writes a size for people, with the largest prefix that leaves at least 1, to at most two decimals.
 *
 * @param bytes a safe integer, 0 or more
 * @returns for example `1.5 KiB` or `17 bytes`
 */
export function formatSize(bytes: number): string {
  if (bytes < 1024) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  let exponent = 1;
  // A size that would be rounded to 1024 of a prefix is 1 of the next.
  while (exponent < PREFIXES.length && Math.round(bytes / 1024 ** exponent * 100) >= 1024 * 100) exponent++;
  return `${Math.round(bytes / 1024 ** exponent * 100) / 100} ${PREFIXES[exponent - 1]}iB`;
}
