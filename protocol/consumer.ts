/**
 * The contract between a byte stream and a sans-I/O protocol machine.
 *
 * The stream collects a header of {@link StreamConsumer.headerBytes} contiguous bytes and calls `onHeader` with where
 * in the arena it lies. The machine answers with a {@link Verdict}. For PAYLOAD it has set `payloadAt` and
 * `payloadBytes`: the stream puts exactly that many bytes there (received straight into place where that pays) and
 * calls `onPayload`. So payload never passes through the machine, and nothing is allocated per message.
 *
 * @module
 */

/** What the stream is to do after a header or a payload. */
export const Verdict = {
  /** The message is consumed; collect the next header (`headerBytes` may have changed). */
  NEXT: 0,
  /** The header is consumed; receive `payloadBytes` (at least 1) bytes to `payloadAt`, then call `onPayload`. */
  PAYLOAD: 1,
  /**
   * Nothing is consumed: no room now. The stream stops receiving, and when the machine's host calls `resume()` on it,
   * the same call is made again with the same bytes.
   */
  WAIT: 2,
  /** The stream is to be closed after what has been queued for sending is sent; nothing more is received. */
  CLOSE: 3,
} as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** A protocol machine on one end of a byte stream. */
export interface StreamConsumer {
  /** The length of the next header in bytes, 1 to {@link HEADER_BYTES_MAX}. */
  readonly headerBytes: number;
  /** Where in the arena the payload goes, or -1 to receive and drop it; meaningful after PAYLOAD only. */
  readonly payloadAt: number;
  /** The payload's length in bytes, at least 1; meaningful after PAYLOAD only. */
  readonly payloadBytes: number;
  /** A whole header lies at the arena offset. It is only valid during the call. */
  onHeader(at: number): Verdict;
  /** The payload asked for has arrived. Never answers PAYLOAD. */
  onPayload(): Verdict;
}

/** The longest header that a machine may ask for, in bytes. Streams reserve room for it. */
export const HEADER_BYTES_MAX = 512;

/** The bytes that a machine reads and writes: a window over the one memory of its Worker. */
export interface Memory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}
