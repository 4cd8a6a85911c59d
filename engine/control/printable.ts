/**
 * Text that others have made, shown on this machine's terminal.
 *
 * @module
 */

/**
 * Makes text from elsewhere safe to print: control characters, which could drive a terminal, become question marks.
 */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
}
