/**
 * The frames of the vectors and how they are sealed, built from `protocol/SPEC.md` alone.
 *
 * @module
 */
import {
  AEAD,
  blake2b256,
  type Bytes,
  concat,
  crc32c,
  hkdf2,
  hmacSha256,
  le,
  pattern,
  text,
  xxh64,
} from "./primitives.ts";
import { door, GRANT, Status, u32s } from "./messages.ts";

/** A frame before it is numbered and tagged. What is not named is zero. */
export interface Frame {
  name: string;
  from: "client" | "exporter";
  type: number;
  flags?: number;
  slot?: number;
  lane?: number;
  sequence?: number;
  offset?: number;
  length?: number;
  status?: number;
  payload?: Uint8Array;
}

const extents = concat(
  le(65_536, 8),
  u32s(0, 0),
  le(2 ** 32, 8),
  u32s(3, 0),
  le(512, 8),
  u32s(2, 0),
);

/** Every type in both directions, with and without payload, at the edges of its fields. */
export const FRAMES: readonly Frame[] = [
  { name: "LIST", from: "client", type: 0x20 },
  { name: "LIST after a name", from: "client", type: 0x20, payload: door("after") },
  { name: "LIST answer, empty", from: "exporter", type: 0xa0 },
  { name: "LIST answer with more", from: "exporter", type: 0xa0, payload: door("entry", "otherEntry", "more") },
  { name: "DESCRIBE", from: "client", type: 0x21, payload: door("export") },
  {
    name: "DESCRIBE answer",
    from: "exporter",
    type: 0xa1,
    payload: door("size", "blocks", "access", "features", "identities", "current"),
  },
  { name: "DESCRIBE refused", from: "exporter", type: 0xa1, status: Status.NOT_FOUND, payload: door("text") },
  { name: "OPEN, least", from: "client", type: 0x22, payload: door("export", "session", "readAccess", "holder") },
  {
    name: "OPEN, all",
    from: "client",
    type: 0x22,
    payload: door("export", "session", "access", "holder", "lease", "depth", "payload", "lanes", "steal", "resume"),
  },
  { name: "OPEN answer", from: "exporter", type: 0xa2, payload: door(...GRANT) },
  { name: "OPEN refused", from: "exporter", type: 0xa2, status: Status.BUSY, payload: door("text", "current") },
  { name: "OPEN refused without words", from: "exporter", type: 0xa2, status: Status.BAD_REQUEST },
  { name: "JOIN, least", from: "client", type: 0x23, payload: door("session", "lane", "generation") },
  {
    name: "JOIN, all",
    from: "client",
    type: 0x23,
    payload: door("session", "lane", "generation", "depth", "payload", "fresh"),
  },
  { name: "JOIN answer with an unknown TLV", from: "exporter", type: 0xa3, payload: door("unknown", ...GRANT) },
  { name: "JOIN refused", from: "exporter", type: 0xa3, status: Status.OLD_GENERATION },
  { name: "FENCING", from: "exporter", type: 0x33, length: 17 },
  { name: "READ", from: "client", type: 0x01, slot: 7, lane: 3, sequence: 1, offset: 4096, length: 512 },
  {
    name: "READ with DF across 4 GiB",
    from: "client",
    type: 0x01,
    flags: 8,
    slot: 1023,
    lane: 63,
    sequence: 0xffffffff,
    offset: 2 ** 32 - 512,
    length: 1024,
  },
  { name: "READ reply", from: "exporter", type: 0x81, slot: 7, lane: 3, sequence: 1, payload: pattern(512, 6) },
  { name: "READ reply, odd length", from: "exporter", type: 0x81, slot: 7, sequence: 2, payload: pattern(1021, 7) },
  { name: "READ reply, error", from: "exporter", type: 0x81, slot: 7, lane: 3, sequence: 2, status: Status.IO },
  {
    name: "WRITE",
    from: "client",
    type: 0x02,
    slot: 0,
    lane: 0,
    sequence: 9,
    offset: 0,
    length: 512,
    payload: pattern(512, 8),
  },
  {
    name: "WRITE with FUA near the largest offset",
    from: "client",
    type: 0x02,
    flags: 1,
    slot: 2,
    lane: 1,
    sequence: 10,
    offset: 2 ** 53 - 4096,
    length: 2048,
    payload: pattern(2048, 9),
  },
  { name: "WRITE reply", from: "exporter", type: 0x82, slot: 0, lane: 0, sequence: 9 },
  { name: "WRITE reply, error", from: "exporter", type: 0x82, slot: 0, sequence: 9, status: Status.SHUTTING_DOWN },
  { name: "FLUSH", from: "client", type: 0x03, slot: 5, lane: 3, sequence: 2 },
  { name: "FLUSH reply", from: "exporter", type: 0x83, slot: 5, lane: 3, sequence: 2 },
  {
    name: "DISCARD with FUA",
    from: "client",
    type: 0x04,
    flags: 1,
    slot: 6,
    sequence: 3,
    offset: 512,
    length: 2 ** 40,
  },
  { name: "DISCARD reply", from: "exporter", type: 0x84, slot: 6, sequence: 3 },
  {
    name: "WRITE_ZEROES with all flags",
    from: "client",
    type: 0x05,
    flags: 7,
    slot: 6,
    sequence: 4,
    offset: 0,
    length: 2 ** 53 - 512,
  },
  { name: "WRITE_ZEROES reply", from: "exporter", type: 0x85, slot: 6, sequence: 4, status: Status.INVALID },
  { name: "CACHE", from: "client", type: 0x06, slot: 8, sequence: 1, offset: 1024, length: 65536 },
  { name: "CACHE reply", from: "exporter", type: 0x86, slot: 8, sequence: 1 },
  { name: "BLOCK_STATUS", from: "client", type: 0x07, slot: 9, sequence: 1, offset: 0, length: 2 ** 33 },
  { name: "BLOCK_STATUS reply", from: "exporter", type: 0x87, slot: 9, sequence: 1, payload: extents },
  { name: "PING from the client", from: "client", type: 0x10, lane: 3, offset: 0x1122334455667 },
  { name: "PING reply of the exporter", from: "exporter", type: 0x90, lane: 3, offset: 0x1122334455667 },
  {
    name: "PING with PROBE",
    from: "client",
    type: 0x10,
    flags: 1,
    slot: 7,
    lane: 3,
    sequence: 2,
    offset: 8,
  },
  {
    name: "PING reply, executing",
    from: "exporter",
    type: 0x90,
    flags: 1,
    slot: 7,
    lane: 3,
    sequence: 2,
    offset: 8,
    status: 1,
  },
  { name: "PING from the exporter", from: "exporter", type: 0x10, lane: 3, offset: 1 },
  { name: "PING reply of the client", from: "client", type: 0x90, lane: 3, offset: 1 },
  { name: "CLOSE", from: "client", type: 0x24, lane: 3 },
  { name: "CLOSE reply", from: "exporter", type: 0xa4, lane: 3 },
  { name: "RESIZED", from: "exporter", type: 0x30, lane: 3, offset: 2 ** 41 },
  { name: "SHUTTING_DOWN", from: "exporter", type: 0x31, lane: 3 },
  { name: "FENCED", from: "exporter", type: 0x32, lane: 3 },
];

/** The kinds of tags: how a connection's frames are sealed. */
export const SUITES = [
  { name: "none", cipher: 0, digest: 0, tagBytes: 0, keyed: false },
  { name: "crc32c", cipher: 0, digest: 1, tagBytes: 8, keyed: false },
  { name: "xxh64", cipher: 0, digest: 2, tagBytes: 8, keyed: false },
  { name: "blake2b-256", cipher: 0, digest: 3, tagBytes: 32, keyed: false },
  { name: "blake2b-256-keyed", cipher: 0, digest: 3, tagBytes: 32, keyed: true },
  { name: "hmac-sha256", cipher: 0, digest: 4, tagBytes: 32, keyed: true },
  { name: "chacha20-poly1305", cipher: 1, digest: 0, tagBytes: 16, keyed: true },
  { name: "aes-256-gcm", cipher: 2, digest: 0, tagBytes: 16, keyed: true },
] as const;
export type Suite = (typeof SUITES)[number];

/** REKEY_FRAMES of SPEC.md: how many frames one key serves. */
export const REKEY_FRAMES = 2 ** 20;

/** Kᵢ from K₀ (SPEC.md section 4.3). */
export function rekeyed(key: Uint8Array, times: number): Uint8Array {
  for (let i = 0; i < times; i++) key = hkdf2(key, text("DST1 rekey"))[0];
  return key;
}

/** (Kh, Kp) of Kᵢ. */
export function macKeys(key: Uint8Array): [Uint8Array, Uint8Array] {
  return hkdf2(key, text("DST1 mac"));
}

/** The 48 bytes of a header in the clear. */
export function headerOf(frame: Frame, n: number): Bytes {
  return concat(
    le(0x31545344, 4),
    le(frame.type, 1),
    le(0, 1),
    le(frame.flags ?? 0, 2),
    le(frame.slot ?? 0, 2),
    le(frame.lane ?? 0, 2),
    le(frame.sequence ?? 0, 4),
    le(frame.offset ?? 0, 8),
    le(frame.length ?? 0, 8),
    le(frame.payload?.length ?? 0, 4),
    le(frame.status ?? 0, 4),
    le(n, 8),
  );
}

/** A frame on the wire: header, payload tag, header tag, payload, each as it is sent. */
export interface SealedFrame {
  header: Uint8Array;
  payloadTag: Uint8Array;
  headerTag: Uint8Array;
  payload: Uint8Array;
}

/** Seals frame n of a direction whose handshake key is `key` (not used by suites without one). */
export function seal(suite: Suite, key: Uint8Array, frame: Frame, n: number): SealedFrame {
  const header = headerOf(frame, n);
  const payload = frame.payload ?? new Uint8Array(0);
  const present = suite.keyed ? rekeyed(key, Math.floor(n / REKEY_FRAMES)) : key;
  if (suite.cipher !== 0) {
    const { nonce, seal } = AEAD[suite.name as keyof typeof AEAD];
    const cut = (sealed: Uint8Array) => [sealed.slice(0, -16), sealed.slice(-16)];
    const [sealedPayload, payloadTag] = payload.length === 0
      ? [payload, new Uint8Array(16)]
      : cut(seal(present, nonce(2n * BigInt(n) + 1n), new Uint8Array(0), payload));
    const [sealedHeader, headerTag] = cut(seal(present, nonce(2n * BigInt(n)), payloadTag, header));
    return { header: sealedHeader, payloadTag, headerTag, payload: sealedPayload };
  }
  const [headerKey, payloadKey] = suite.keyed ? macKeys(present) : [undefined, undefined];
  const payloadTag = payload.length === 0 ? new Uint8Array(suite.tagBytes) : digest(suite.digest, payload, payloadKey);
  return { header, payloadTag, headerTag: digest(suite.digest, concat(header, payloadTag), headerKey), payload };
}

/** A digest (SPEC.md section 4.1) or a MAC (4.3), by its number. */
export function digest(number: number, bytes: Uint8Array, key?: Uint8Array): Uint8Array {
  switch (number) {
    case 0:
      return new Uint8Array(0);
    case 1:
      return concat(le(crc32c(bytes), 4), new Uint8Array(4));
    case 2:
      return le(xxh64(bytes), 8);
    case 3:
      return blake2b256(bytes, key);
    default:
      return hmacSha256(key!, bytes);
  }
}
