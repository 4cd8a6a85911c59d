/**
 * The handshake's primitives for tests that shake hands thousands of times.
 *
 * @module
 */
import type { NoisePrimitives } from "../../protocol/guard.ts";

/**
 * The primitives of the handshake, of which the costly ones remember what they have computed: thousands of handshakes
 * between a few ephemeral keys take no longer than a few.
 */
export function rememberingNoise(noise: NoisePrimitives): NoisePrimitives {
  const publicKeys = new Map<string, Uint8Array>();
  const secrets = new Map<string, Uint8Array | null>();
  return {
    ...noise,
    publicKey(privateKey) {
      const name = privateKey.toHex();
      const known = publicKeys.get(name) ?? noise.publicKey(privateKey);
      publicKeys.set(name, known);
      return known.slice();
    },
    sharedSecret(privateKey, publicKey) {
      const name = privateKey.toHex() + publicKey.toHex();
      const known = secrets.has(name) ? secrets.get(name)! : noise.sharedSecret(privateKey, publicKey);
      // What hostile clients make up is met once only.
      if (secrets.size < 1000) secrets.set(name, known);
      return known?.slice() ?? null;
    },
  };
}
