/**
 * The handshake's curve for tests that shake hands thousands of times.
 *
 * @module
 */
import { x25519 } from "@noble/curves/ed25519.js";
import type { NoisePrimitives } from "../../protocol/guard.ts";
import type { Curve } from "../protocol/channel.ts";

/** Secrets that are remembered at most. */
const REMEMBERED = 10_000;

/** Remembers what a function has given for the same bytes. */
function remembering<T>(compute: (...inputs: Uint8Array[]) => T): (...inputs: Uint8Array[]) => T {
  const known = new Map<string, T>();
  return (...inputs) => {
    const name = inputs.map((input) => input.toHex()).join();
    if (known.has(name)) return known.get(name)!;
    const value = compute(...inputs);
    if (known.size < REMEMBERED) known.set(name, value);
    return value;
  };
}

/**
 * The primitives of the handshake, of which the costly ones remember what they have computed: thousands of handshakes
 * between a few ephemeral keys take no longer than a few.
 */
export function rememberingNoise(noise: NoisePrimitives): NoisePrimitives {
  const publicKey = remembering((privateKey) => noise.publicKey(privateKey));
  const sharedSecret = remembering((privateKey, theirs) => noise.sharedSecret(privateKey, theirs));
  return {
    ...noise,
    // Copies, as they are wiped.
    publicKey: (privateKey) => publicKey(privateKey).slice(),
    sharedSecret: (privateKey, theirs) => sharedSecret(privateKey, theirs)?.slice() ?? null,
  };
}

/** The same for the clients of the tests, which have a curve of their own. */
export const rememberingCurve: Curve = {
  getPublicKey: remembering((privateKey) => x25519.getPublicKey(privateKey)),
  getSharedSecret: remembering((privateKey, theirs) => x25519.getSharedSecret(privateKey, theirs)),
};
