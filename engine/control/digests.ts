/**
 * The digests that can be negotiated without a key.
 *
 * @module
 */
import { Digest } from "../../protocol/wire.ts";
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

/** The wire's numbers of digests that {@link parseDigests} has read. */
export function digestNumbers(names: readonly string[]): number[] {
  const numbers: Readonly<Record<string, number>> = {
    none: Digest.NONE,
    crc32c: Digest.CRC32C,
    xxh64: Digest.XXH64,
  };
  return names.map((name) => numbers[name]);
}

/** The name of a digest, by the wire's number. */
export function digestName(number: number): string {
  return DIGESTS.find((name) => digestNumbers([name])[0] === number) ?? `digest ${number}`;
}
