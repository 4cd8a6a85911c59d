/**
 * Protocol errors: what makes a machine end its connection. They are numbers, so that nothing is allocated for them;
 * {@link protocolErrorText} gives the sentence for the log.
 *
 * @module
 */

/** Why a machine ended its connection. */
export const ProtocolError = {
  NONE: 0,
  /** The first bytes of a hello or a frame are not the magic. */
  MAGIC: 1,
  /** The header's tag does not match. */
  HEADER_TAG: 2,
  /** The payload's tag does not match, or there is one without a payload. */
  PAYLOAD_TAG: 3,
  /** The frame's number is not the next one. */
  FRAME_NUMBER: 4,
  /** A field that has to be zero is not, or a flag is set that the type does not have. */
  FIELD: 5,
  /** The frame names another lane. */
  LANE: 6,
  /** There is no such type, or not in this direction. */
  TYPE: 7,
  /** The type belongs to the other phase, or comes after CLOSE. */
  PHASE: 8,
  /** The slot is at or beyond the lane's depth. */
  SLOT: 9,
  /** The sequence is neither the slot's present one nor the next. */
  SEQUENCE: 10,
  /** A resend asks for something else than the request that it repeats. */
  RESEND_DIFFERS: 11,
  /** A new request for a slot whose request is still executing. */
  SLOT_BUSY: 12,
  /** The payload has not the length that the frame's fields call for. */
  PAYLOAD_BYTES: 13,
  /** The payload is longer than the connection's maximum. */
  PAYLOAD_TOO_LONG: 14,
  /** More bytes are asked for than the lane was granted. */
  CREDIT: 15,
  /** A hello that is malformed: its versions, its body's length, its TLVs. */
  HELLO: 16,
  /** The hello was well-formed and refused; the answer said why. */
  REFUSED: 17,
  /** More door requests than a connection may make. */
  DOOR_REQUESTS: 18,
  /** The TLVs of an answer are malformed or incomplete. */
  TLV: 19,
  /** The exporter chose an algorithm or version that the client did not offer. */
  ALGORITHM: 20,
  /** A reply to a request that was not made. */
  UNEXPECTED_REPLY: 21,
  /** Extents that do not describe the range that was asked for. */
  EXTENTS: 22,
  /** Nothing was heard from the peer for too long. */
  PEER_DEAD: 23,
  /** A message of the handshake does not authenticate: another key, or something of it or of a hello was changed. */
  AUTHENTICATION: 24,
} as const;
export type ProtocolError = (typeof ProtocolError)[keyof typeof ProtocolError];

const TEXTS: readonly string[] = [
  "no error",
  "the bytes are not of this protocol (wrong magic)",
  "a header was corrupted on the way (its tag does not match)",
  "a payload was corrupted on the way (its tag does not match)",
  "a frame is missing, repeated or out of order",
  "a field that has to be zero is not",
  "a frame names another lane than its connection's",
  "a frame has a type that does not exist in this direction",
  "a frame has a type that does not belong to this phase",
  "a frame names a slot beyond the lane's depth",
  "a request is out of sequence for its slot",
  "a resend differs from the request that it repeats",
  "a slot was used again while its request is executing",
  "a payload has not the length that its frame calls for",
  "a payload is longer than the agreed maximum",
  "the peer exceeded its credit",
  "the hello is malformed",
  "the hello was refused",
  "too many requests before OPEN or JOIN",
  "an answer is malformed",
  "the exporter chose what was not offered",
  "a reply came to no request",
  "a reply describes another range than was asked for",
  "the peer has been silent for too long",
  "the peer does not prove that it has the same key",
];

/** The sentence for a {@link ProtocolError}, without a capital or a full stop. */
export function protocolErrorText(code: number): string {
  return TEXTS[code] ?? `unknown error ${code}`;
}
