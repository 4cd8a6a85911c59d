/**
 * Limits that both loops share.
 *
 * @module
 */

/** Handlers of one loop: a kind is eight bits of an operation's user data, and 255 stays free. */
export const HANDLERS_MAX = 255;

/** The largest tag: 24 bits of an operation's user data. */
export const TAG_MAX = 0xff_ffff;
