/**
 * The keys of one direction after the handshake (SPEC.md, 4.3). Control plane: it happens once every `REKEY_FRAMES`.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { KEY_BYTES, type NoisePrimitives } from "./guard.ts";
import { hkdf } from "./noise.ts";

const REKEY = new TextEncoder().encode("DST1 rekey");
const MAC = new TextEncoder().encode("DST1 mac");

/** The keys of a keyed digest. */
export interface MacKeys {
  readonly header: Uint8Array;
  readonly payload: Uint8Array;
}

/**
 * The direction's next key: K₍ᵢ₊₁₎ of Kᵢ.
 *
 * @param key of {@link KEY_BYTES}; the caller wipes it when it has no more frames
 */
export function nextKey(noise: NoisePrimitives, key: Uint8Array): Uint8Array {
  const [next, unused] = derive(noise, key, REKEY);
  unused.fill(0);
  return next;
}

/** The keys with which the headers and the payloads of frames under the key Kᵢ are tagged, where there is no cipher. */
export function macKeys(noise: NoisePrimitives, key: Uint8Array): MacKeys {
  const [header, payload] = derive(noise, key, MAC);
  return { header, payload };
}

function derive(noise: NoisePrimitives, key: Uint8Array, label: Uint8Array): Uint8Array[] {
  assert(key.length === KEY_BYTES, "a direction's key has 32 bytes");
  return hkdf(noise, key, label, 2);
}
