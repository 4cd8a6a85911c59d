/**
 * What the rows of both halves of the conformance suite have in common.
 *
 * @module
 */
import { availableCiphers } from "../../engine/cryptography.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";

/** How frames may be sealed. */
export const SUITES = {
  "xxh64": { cipher: Cipher.NONE, digest: Digest.XXH64, keyed: false },
  "chacha20-poly1305": { cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE, keyed: true },
  "aes-256-gcm": { cipher: Cipher.AES_256_GCM, digest: Digest.NONE, keyed: true },
  "crc32c": { cipher: Cipher.NONE, digest: Digest.CRC32C, keyed: false },
  "none": { cipher: Cipher.NONE, digest: Digest.NONE, keyed: false },
  "blake2b-256": { cipher: Cipher.NONE, digest: Digest.BLAKE2B_256, keyed: false },
  "keyed blake2b-256": { cipher: Cipher.NONE, digest: Digest.BLAKE2B_256, keyed: true },
  "hmac-sha256": { cipher: Cipher.NONE, digest: Digest.HMAC_SHA_256, keyed: true },
} as const;
export type SuiteName = keyof typeof SUITES;

/** What OpenSSL can do for us; of this AES is nobody else's. */
const OPENSSL_HAS: readonly SuiteName[] = ["chacha20-poly1305", "aes-256-gcm", "hmac-sha256"];

/** Whether it is worth a row. */
export function canDo({ suite, crypto }: { suite: SuiteName; crypto: "wasm" | "openssl" }): boolean {
  return crypto === "openssl" ? OPENSSL_HAS.includes(suite) : suite !== "aes-256-gcm";
}

/** Whether this machine has OpenSSL. */
export const hasOpenssl = availableCiphers("auto").includes(Cipher.AES_256_GCM);
export const NO_OPENSSL = "there is no libcrypto.so.3";

/** Names a row that this machine cannot do. Where everything is to be checked, it is a failure. */
export function leaveOut(name: string, lacking: string): void {
  Deno.test(`${name} (left out: ${lacking})`, { ignore: Deno.env.get("CI") !== "true" }, () => {
    throw new Error(`Cannot run the suite: ${lacking}`);
  });
}
