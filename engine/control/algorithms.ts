/**
 * The ciphers and digests as people name them, and which of them make a suite (SPEC.md, section 2).
 *
 * @module
 */
import { Cipher, Digest } from "../../protocol/wire.ts";
import { suggestion } from "./suggest.ts";

/** Names of the ciphers, the best first. */
export const CIPHERS = ["chacha20-poly1305", "aes-256-gcm", "none"] as const;
/** Names of the digests, the strongest first. */
export const DIGESTS = ["blake2b-256", "hmac-sha256", "xxh64", "crc32c", "none"] as const;

const CIPHER_NUMBERS: Readonly<Record<string, number>> = {
  "chacha20-poly1305": Cipher.CHACHA20_POLY1305,
  "aes-256-gcm": Cipher.AES_256_GCM,
  "none": Cipher.NONE,
} satisfies Record<(typeof CIPHERS)[number], number>;
const DIGEST_NUMBERS: Readonly<Record<string, number>> = {
  "blake2b-256": Digest.BLAKE2B_256,
  "hmac-sha256": Digest.HMAC_SHA_256,
  "xxh64": Digest.XXH64,
  "crc32c": Digest.CRC32C,
  "none": Digest.NONE,
} satisfies Record<(typeof DIGESTS)[number], number>;

/** Digests that suit a key, with cipher `none`. */
const KEYED_DIGESTS: readonly string[] = ["blake2b-256", "hmac-sha256"];
/** Digests that suit the absence of a key: HMAC is nothing without one. */
const UNKEYED_DIGESTS: readonly string[] = DIGESTS.filter((name) => name !== "hmac-sha256");

/** What one side accepts, by name, the most wanted first. */
export interface Suites {
  readonly ciphers: readonly string[];
  readonly digests: readonly string[];
}

/**
 * Reads a list of ciphers such as `aes-256-gcm,chacha20-poly1305`, the most wanted first.
 *
 * @throws {RangeError} when a name is not known, or given twice
 */
export function parseCiphers(text: string): string[] {
  return parseNames(text, CIPHERS);
}

/**
 * Reads a list of digests such as `xxh64,crc32c`, the most wanted first.
 *
 * @throws {RangeError} when a name is not known, or given twice
 */
export function parseDigests(text: string): string[] {
  return parseNames(text, DIGESTS);
}

/** The wire's numbers of ciphers that {@link parseCiphers} has read. */
export function cipherNumbers(names: readonly string[]): number[] {
  return names.map((name) => CIPHER_NUMBERS[name]);
}

/** The wire's numbers of digests that {@link parseDigests} has read. */
export function digestNumbers(names: readonly string[]): number[] {
  return names.map((name) => DIGEST_NUMBERS[name]);
}

/** The name of a cipher, by the wire's number. */
export function cipherName(number: number): string {
  return CIPHERS.find((name) => CIPHER_NUMBERS[name] === number) ?? `cipher ${number}`;
}

/** The name of a digest, by the wire's number. */
export function digestName(number: number): string {
  return DIGESTS.find((name) => DIGEST_NUMBERS[name] === number) ?? `digest ${number}`;
}

/**
 * What a side accepts where nothing else was asked for. With a key everything is encrypted, ChaCha20-Poly1305 first
 * because it is there on every machine; the digests stand ready for whoever takes the cipher off. Without one, the
 * checksums that cost nearly nothing come first.
 *
 * @param hasKey whether the side has a key
 */
export function suiteDefaults(hasKey: boolean): Suites {
  return hasKey
    ? { ciphers: ["chacha20-poly1305", "aes-256-gcm"], digests: KEYED_DIGESTS }
    : { ciphers: ["none"], digests: ["xxh64", "crc32c", "blake2b-256", "none"] };
}

/**
 * What a side accepts: what was asked for, and {@link suiteDefaults} for the rest, as far as the machine has it.
 *
 * @param ciphers names; undefined where none were asked for
 * @param digests names; undefined where none were asked for
 * @param hasKey whether the side has a key
 * @param available the wire's numbers of the ciphers that the machine has; `none` is always there
 * @throws {RangeError} where no connection could ever come of it, with what to do
 */
export function suitesOf(
  ciphers: readonly string[] | undefined,
  digests: readonly string[] | undefined,
  hasKey: boolean,
  available: readonly number[] = cipherNumbers(CIPHERS),
): Suites {
  const defaults = suiteDefaults(hasKey);
  const asked = ciphers ?? defaults.ciphers;
  const suites = {
    ciphers: asked.filter((name) => name === "none" || available.includes(CIPHER_NUMBERS[name])),
    digests: digests ?? defaults.digests,
  };
  if (suites.ciphers.length === 0) {
    throw new RangeError(
      `This machine has no ${asked.join(", ")}: that needs OpenSSL's libcrypto, and --crypto to use it`,
    );
  }
  if (!hasKey && !suites.ciphers.includes("none")) {
    throw new RangeError(`The cipher ${suites.ciphers.join(", ")} needs a key: give one (see dst keygen), or "none"`);
  }
  // A cipher brings its own tags: the digests matter only when there may be none.
  if (hasKey && suites.ciphers.some((name) => name !== "none")) return suites;
  const suiting = hasKey ? KEYED_DIGESTS : UNKEYED_DIGESTS;
  if (!suites.digests.some((name) => suiting.includes(name))) {
    const why = hasKey ? "proves nothing to a peer with a key" : "needs a key";
    throw new RangeError(`The digest ${suites.digests.join(", ")} ${why}: take one of ${suiting.join(", ")}`);
  }
  return suites;
}

function parseNames(text: string, known: readonly string[]): string[] {
  const names = text.split(",").map((name) => name.trim());
  for (const [i, name] of names.entries()) {
    if (!known.includes(name)) {
      throw new RangeError(`"${name}" is not one of ${known.join(", ")}${suggestion(name, known)}`);
    }
    if (names.indexOf(name) !== i) throw new RangeError(`"${name}" is given twice`);
  }
  return names;
}
