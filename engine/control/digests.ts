/**
 * The digests that can be negotiated without a key.
 *
 * @module
 */
import { suggestion } from "./suggest.ts";

/** Their names, the best first. */
export const DIGESTS = ["xxh64", "crc32c", "none"] as const;

/**
 * Reads a list such as `xxh64,crc32c`, the best first.
 *
 * @throws {RangeError} when a name is not known, or given twice
 */
export function parseDigests(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  for (const [i, name] of names.entries()) {
    if (!(DIGESTS as readonly string[]).includes(name)) {
      throw new RangeError(`"${name}" is not one of ${DIGESTS.join(", ")}${suggestion(name, DIGESTS)}`);
    }
    if (names.indexOf(name) !== i) throw new RangeError(`"${name}" is given twice`);
  }
  return names;
}
