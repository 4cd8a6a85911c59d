/**
 * Keys and their files as `protocol/SPEC.md`, 4.4 has them, apart from the product's own code.
 *
 * @module
 */
import { blake2b256, concat, hex, text } from "../vectors/primitives.ts";
import type { PresharedKey } from "./channel.ts";

/** Whoever may read a key file: its owner. */
const KEY_FILE_MODE = 0o600;

/** A key that nobody else has. */
export function makeKey(): PresharedKey {
  return keyOf(crypto.getRandomValues(new Uint8Array(32)));
}

/** The key with this secret. */
export function keyOf(secret: Uint8Array): PresharedKey {
  return { id: blake2b256(concat(text("DST1 key id"), secret)).slice(0, 16), secret };
}

/** Writes a key's file. */
export function writeKeyFile(path: string, name: string, { id, secret }: PresharedKey): void {
  const content = `DST-KEY 1\nname: ${name}\nid: ${hex(id)}\nkey: ${hex(secret)}\n`;
  Deno.writeTextFileSync(path, content, { createNew: true, mode: KEY_FILE_MODE });
}
