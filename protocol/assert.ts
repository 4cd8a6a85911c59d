/**
 * Assertions: for what only a programmer's error can make false, never for bytes from the wire. They stay on.
 *
 * @module
 */

/**
 * Throws when the condition is false.
 *
 * @param condition what must hold here
 * @param text what went wrong, as a sentence for the programmer
 */
export function assert(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(`Assertion failed: ${text}`);
}
