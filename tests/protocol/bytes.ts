/**
 * Frames, hellos and TLVs written and read by hand from `protocol/SPEC.md`, apart from the product's own code: only
 * numbers are shared. How frames are sealed stands in `channel.ts`.
 *
 * @module
 */

/** Bytes of a frame's header (SPEC.md, section 4). */
export const HEADER = 48;

/** The fields of a frame; what is not given is zero. */
export interface FrameFields {
  readonly type: number;
  readonly zero?: number;
  readonly flags?: number;
  readonly slot?: number;
  readonly lane?: number;
  readonly sequence?: number;
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  readonly status?: number;
  readonly payload?: Uint8Array;
  /** What the header says of the payload's length; by default the truth. */
  readonly payloadBytes?: number;
  readonly magic?: number;
  /** What the header says of its number; by default that of the frame. */
  readonly number?: number | bigint;
}

/** A frame that was received; its tags, magic, number and zero byte were right. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly slot: number;
  readonly lane: number;
  readonly sequence: number;
  readonly offset: number;
  readonly length: number;
  readonly status: number;
  readonly payload: Uint8Array;
}

/** The 48 bytes of a header in clear. */
export function headerOf(number: number, fields: FrameFields): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, fields.magic ?? 0x31545344, true);
  bytes[4] = fields.type;
  bytes[5] = fields.zero ?? 0;
  view.setUint16(6, fields.flags ?? 0, true);
  view.setUint16(8, fields.slot ?? 0, true);
  view.setUint16(10, fields.lane ?? 0, true);
  view.setUint32(12, fields.sequence ?? 0, true);
  view.setBigUint64(16, BigInt(fields.offset ?? 0), true);
  view.setBigUint64(24, BigInt(fields.length ?? 0), true);
  view.setUint32(32, fields.payloadBytes ?? fields.payload?.length ?? 0, true);
  view.setUint32(36, fields.status ?? 0, true);
  view.setBigUint64(40, BigInt(fields.number ?? number), true);
  return bytes;
}

/** One TLV: u16 type, u16 flags, u32 length, the value, zeroes up to a multiple of 8. */
export function tlv(type: number, value: Uint8Array | readonly number[] = [], flags = 0): Uint8Array {
  const bytes = new Uint8Array(8 + Math.ceil(value.length / 8) * 8);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, type, true);
  view.setUint16(2, flags, true);
  view.setUint32(4, value.length, true);
  bytes.set(value, 8);
  return bytes;
}

/** A TLV of u16s. */
export function tlv16(type: number, values: readonly number[], flags = 0): Uint8Array {
  return tlv(type, new Uint8Array(Uint16Array.from(values).buffer), flags);
}

/** A TLV of u32s. */
export function tlv32(type: number, values: readonly number[], flags = 0): Uint8Array {
  return tlv(type, new Uint8Array(Uint32Array.from(values).buffer), flags);
}

/** A TLV of text. */
export function tlvText(type: number, text: string, flags = 0): Uint8Array {
  return tlv(type, new TextEncoder().encode(text), flags);
}

/** Pieces one after the other. */
export function join(...pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** The TLVs of a message: the values of each type, in their order. Throws on anything that SPEC.md does not allow. */
export function readTlvs(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const values = new Map<number, Uint8Array[]>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  while (at < bytes.length) {
    const type = view.getUint16(at, true);
    const length = view.getUint32(at + 4, true);
    const end = at + 8 + Math.ceil(length / 8) * 8;
    if (end > bytes.length) throw new Error(`A TLV of ${length} bytes runs over its message`);
    if (bytes.subarray(at + 8 + length, end).some((byte) => byte !== 0)) throw new Error("Padding is not zero");
    values.set(type, [...values.get(type) ?? [], bytes.slice(at + 8, at + 8 + length)]);
    at = end;
  }
  return values;
}

/** A client's hello: `DSTHELLO`, versions, and its body. */
export function hello(body: Uint8Array, low = 1, high = 1, magic = "DSTHELLO", bodyBytes = body.length): Uint8Array {
  const bytes = new Uint8Array(16 + body.length);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(magic));
  view.setUint16(8, low, true);
  view.setUint16(10, high, true);
  view.setUint32(12, bodyBytes, true);
  bytes.set(body, 16);
  return bytes;
}

/** Reads a header whose tags are checked elsewhere. */
export function readHeader(bytes: Uint8Array, number: number): Omit<Frame, "payload"> & { payloadBytes: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const expect = (what: string, value: unknown, wanted: unknown) => {
    if (value !== wanted) throw new Error(`A frame's ${what} is ${value} instead of ${wanted}`);
  };
  expect("magic", view.getUint32(0, true), 0x31545344);
  expect("number", view.getBigUint64(40, true), BigInt(number));
  expect("zero byte", bytes[5], 0);
  return {
    type: bytes[4],
    flags: view.getUint16(6, true),
    slot: view.getUint16(8, true),
    lane: view.getUint16(10, true),
    sequence: view.getUint32(12, true),
    offset: Number(view.getBigUint64(16, true)),
    length: Number(view.getBigUint64(24, true)),
    payloadBytes: view.getUint32(32, true),
    status: view.getUint32(36, true),
  };
}

/** Numbers from a seed, the same each time (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Bytes from a seed. */
export function randomBytes(seed: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const random = randomOf(seed);
  const words = new Uint32Array(bytes.buffer, 0, length >>> 2);
  for (let i = 0; i < words.length; i++) words[i] = random() * 2 ** 32;
  for (let i = words.length * 4; i < length; i++) bytes[i] = random() * 256;
  return bytes;
}
