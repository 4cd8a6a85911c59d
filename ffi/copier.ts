/**
 * Copying between two memories of which JavaScript knows no common buffer.
 *
 * @module
 */
import { addressOf, args, argWords, c } from "./libc.ts";

/** 2^32: one step of the high half of an address. */
const HIGH = 0x1_0000_0000;

/** memcpy(3) from one memory to another. A typed array's `set` would need a view of what is copied, for each copy. */
export class Copier {
  /** Where they are. */
  readonly #addresses: Float64Array;

  /**
   * Whoever makes it keeps both memories reachable, and neither may grow.
   *
   * @param to what is copied to
   * @param from what is copied from
   */
  constructor(to: Uint8Array<ArrayBufferLike>, from: Uint8Array<ArrayBufferLike>) {
    this.#addresses = Float64Array.of(addressOf(to), addressOf(from));
  }

  /** Copies so many bytes from one offset to the other; all must lie within the memories. Allocates nothing. */
  copy(toAt: number, fromAt: number, bytes: number): void {
    const to = this.#addresses[0] + toAt;
    const from = this.#addresses[1] + fromAt;
    argWords[0] = to;
    argWords[1] = to / HIGH;
    argWords[2] = from;
    argWords[3] = from / HIGH;
    argWords[4] = bytes;
    argWords[5] = 0;
    c.memcpy(args[0], args[1], args[2]);
  }
}
