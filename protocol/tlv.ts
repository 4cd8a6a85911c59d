/**
 * Type-length-values: the negotiated fields of hello and door messages (SPEC.md, section 3). Control plane only, so
 * it may allocate.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { NAME_BYTES_MAX } from "./limits.ts";
import { Status } from "./status.ts";
import { readUint64, writeUint64 } from "./wire.ts";

/** The numbers of the TLVs (SPEC.md, sections 2 and 6). */
export const Tlv = {
  CIPHERS: 1,
  DIGESTS: 2,
  KEY_ID: 3,
  STATUS: 4,
  TEXT: 5,
  EXPORT: 16,
  SESSION: 17,
  ACCESS: 18,
  HOLDER: 19,
  LEASE: 20,
  DEPTH: 21,
  PAYLOAD: 22,
  LANES: 23,
  STEAL: 24,
  RESUME: 25,
  LANE: 26,
  GENERATION: 27,
  FRESH: 28,
  AFTER: 29,
  SIZE: 32,
  BLOCKS: 33,
  CREDITS: 34,
  IDENTITIES: 35,
  FEATURES: 36,
  CURRENT: 37,
  ENTRY: 38,
  MORE: 39,
} as const;

/** Bytes of a TLV before its value: u16 type, u16 flags, u32 length. */
export const TLV_HEADER_BYTES = 8;
/** Flag: a receiver that does not know the type refuses the message. */
export const TLV_REQUIRED = 1;

/** Those that are always sent with {@link TLV_REQUIRED} by a client. */
const REQUIRED: ReadonlySet<number> = new Set<number>([Tlv.KEY_ID, Tlv.STEAL, Tlv.RESUME, Tlv.FRESH]);

/** Bytes that a value takes in a message, with its header and padding. */
export function tlvBytes(valueBytes: number): number {
  return TLV_HEADER_BYTES + Math.ceil(valueBytes / 8) * 8;
}

/** Builds the TLVs of one message. */
export class TlvWriter {
  #bytes = new Uint8Array(512);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** Bytes so far; a multiple of 8. */
  get length(): number {
    return this.#length;
  }

  /** The message so far: a view that the next write may invalidate. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** A value as it is. `required` is set by itself for the types that always have it. */
  value(type: number, value: Uint8Array, required = REQUIRED.has(type)): this {
    // First, since it may put a larger array in the place of the present one.
    const at = this.#begin(type, value.length, required);
    this.#bytes.set(value, at);
    return this;
  }

  /** A TLV that is there or not. */
  empty(type: number): this {
    this.#begin(type, 0, REQUIRED.has(type));
    return this;
  }

  /** u16 each. */
  uint16s(type: number, values: readonly number[], required = REQUIRED.has(type)): this {
    const at = this.#begin(type, values.length * 2, required);
    for (let i = 0; i < values.length; i++) this.#view.setUint16(at + i * 2, values[i], true);
    return this;
  }

  /** u32 each; one is a plain u32. */
  uint32s(type: number, ...values: number[]): this {
    const at = this.#begin(type, values.length * 4, REQUIRED.has(type));
    for (let i = 0; i < values.length; i++) this.#view.setUint32(at + i * 4, values[i], true);
    return this;
  }

  /** A u64, given as a safe integer. */
  uint64(type: number, value: number): this {
    const at = this.#begin(type, 8, REQUIRED.has(type));
    writeUint64(this.#view, at, value);
    return this;
  }

  /** UTF-8. */
  text(type: number, text: string): this {
    return this.value(type, new TextEncoder().encode(text));
  }

  /** Writes the header of a TLV and answers where its value goes; the padding is zero. */
  #begin(type: number, valueBytes: number, required: boolean): number {
    const at = this.#length;
    this.#length += tlvBytes(valueBytes);
    while (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#view.setUint16(at, type, true);
    this.#view.setUint16(at + 2, required ? TLV_REQUIRED : 0, true);
    this.#view.setUint32(at + 4, valueBytes, true);
    return at + TLV_HEADER_BYTES;
  }
}

/**
 * Reads the TLVs of one message strictly. It never throws: what is wrong is in {@link TlvReader.status}, which is to
 * be looked at after the last field was read, since a field can turn out to be malformed only then.
 */
export class TlvReader {
  readonly #values = new Map<number, Uint8Array[]>();
  #status: number;

  /**
   * @param bytes the whole message; its values are copied out
   * @param accepted the types that this message may have; others are skipped, or refused when they are required
   * @param repeated those of them that may stand more than once
   */
  constructor(bytes: Uint8Array, accepted: readonly number[], repeated: readonly number[] = []) {
    this.#status = this.#read(bytes, accepted, repeated);
    if (this.#status !== Status.OK) this.#values.clear();
  }

  /** OK, BAD_REQUEST or UNKNOWN_REQUIRED. */
  get status(): number {
    return this.#status;
  }

  /** Marks the message as malformed, for checks that only its reader can make. */
  refuse(): void {
    this.#status = Status.BAD_REQUEST;
  }

  /** Whether the TLV is there. */
  has(type: number): boolean {
    return this.#values.has(type);
  }

  /** Whether the TLV is there, which has to be empty. */
  isSet(type: number): boolean {
    return this.value(type, 0) !== null;
  }

  /** All values of a repeated TLV. */
  all(type: number): readonly Uint8Array[] {
    return this.#values.get(type) ?? [];
  }

  /**
   * The value as it is, or null if it is not there.
   *
   * @param valueBytes the length that it must have; -1 any
   */
  value(type: number, valueBytes = -1): Uint8Array | null {
    const value = this.#values.get(type)?.[0];
    if (value === undefined) return null;
    if (valueBytes >= 0 && value.length !== valueBytes) {
      this.refuse();
      return null;
    }
    return value;
  }

  /** A u32, or null if it is not there. */
  uint32(type: number): number | null {
    const value = this.value(type, 4);
    return value === null ? null : new DataView(value.buffer).getUint32(0, true);
  }

  /** `count` times u32, or null if it is not there. */
  uint32s(type: number, count: number): number[] | null {
    const value = this.value(type, count * 4);
    if (value === null) return null;
    const view = new DataView(value.buffer);
    return Array.from({ length: count }, (_, i) => view.getUint32(i * 4, true));
  }

  /** u16 each, as many as there are, or null if it is not there. */
  uint16s(type: number): number[] | null {
    const value = this.value(type);
    if (value === null) return null;
    if (value.length % 2 !== 0) {
      this.refuse();
      return null;
    }
    const view = new DataView(value.buffer);
    return Array.from({ length: value.length / 2 }, (_, i) => view.getUint16(i * 2, true));
  }

  /** A u64 as a safe integer, or null if it is not there; above 2^53 - 1 it is malformed. */
  uint64(type: number): number | null {
    const value = this.value(type, 8);
    return value === null ? null : this.uint64Of(value, 0);
  }

  /** A u64 within a value; above 2^53 - 1 the message is malformed and the answer 0. */
  uint64Of(value: Uint8Array, at: number): number {
    assert(at + 8 <= value.length, "the u64 lies within the value");
    const number = readUint64(new DataView(value.buffer, value.byteOffset, value.length), at);
    if (number >= 0) return number;
    this.refuse();
    return 0;
  }

  /** UTF-8, or null if it is not there. */
  text(type: number): string | null {
    const value = this.value(type);
    return value === null ? null : this.textOf(value);
  }

  /** A name: UTF-8 of 1 to NAME_BYTES_MAX bytes without control characters; null if it is not there. */
  name(type: number): string | null {
    const value = this.value(type);
    return value === null ? null : this.nameOf(value);
  }

  /** A name that is the given bytes; if they are none, the message is malformed. */
  nameOf(value: Uint8Array): string {
    const text = this.textOf(value);
    if (value.length > NAME_BYTES_MAX || !isName(text)) this.refuse();
    return text;
  }

  /** The text that the given bytes are in UTF-8; if they are none, the message is malformed. */
  textOf(value: Uint8Array): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
    } catch {
      this.refuse();
      return "";
    }
  }

  #read(bytes: Uint8Array, accepted: readonly number[], repeated: readonly number[]): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let status: number = Status.OK;
    let at = 0;
    while (at < bytes.length) {
      if (bytes.length - at < TLV_HEADER_BYTES) return Status.BAD_REQUEST;
      const type = view.getUint16(at, true);
      const valueAt = at + TLV_HEADER_BYTES;
      const valueEnd = valueAt + view.getUint32(at + 4, true);
      const end = at + tlvBytes(valueEnd - valueAt);
      if (end > bytes.length) return Status.BAD_REQUEST;
      for (let i = valueEnd; i < end; i++) if (bytes[i] !== 0) return Status.BAD_REQUEST;
      if (accepted.includes(type)) {
        const values = this.#values.get(type);
        if (values === undefined) this.#values.set(type, [bytes.slice(valueAt, valueEnd)]);
        else if (repeated.includes(type)) values.push(bytes.slice(valueAt, valueEnd));
        else return Status.BAD_REQUEST;
      } else if ((view.getUint16(at + 2, true) & TLV_REQUIRED) !== 0) {
        // Not the end: a message that is malformed further on is refused as malformed.
        status = Status.UNKNOWN_REQUIRED;
      }
      at = end;
    }
    return status;
  }
}

/** Whether a text may be the name of an export or a holder. */
export function isName(text: string): boolean {
  const bytes = new TextEncoder().encode(text).length;
  return bytes >= 1 && bytes <= NAME_BYTES_MAX && !/\p{Cc}/u.test(text);
}
