/**
 * The client's side of the hello: what it offers, and what it agrees to (SPEC.md, section 2).
 *
 * @module
 */
import { assert } from "./assert.ts";
import { printable } from "./door_message.ts";
import { HELLO_BODY_BYTES_MAX } from "./limits.ts";
import { Status, statusName } from "./status.ts";
import { Tlv, TlvReader, TlvWriter } from "./tlv.ts";
import { Cipher, Digest, HELLO_BYTES, HELLO_MAGIC, HelloAt, isKeyable, VERSION } from "./wire.ts";

/** A pre-shared key. */
export interface DoorKey {
  /** 16 bytes, which travel in clear. */
  readonly id: Uint8Array;
  /** `KEY_BYTES`, which stay the caller's. */
  readonly secret: Uint8Array;
}

/** What a client accepts. */
export interface ClientHelloConfig {
  /** Numbers of the ciphers that are acceptable, the most wanted first; at least one, and NONE where it may go without. */
  readonly ciphers: readonly number[];
  /** Numbers of the digests that are acceptable, the most wanted first; at least one if a cipher is not a must. */
  readonly digests: readonly number[];
  readonly key: DoorKey | null;
}

/** Writes the whole hello, 512 bytes at most. */
export function encodeHello(config: ClientHelloConfig): Uint8Array {
  const writer = new TlvWriter();
  writer.uint16s(Tlv.CIPHERS, config.ciphers, true);
  writer.uint16s(Tlv.DIGESTS, config.digests, true);
  if (config.key !== null) writer.value(Tlv.KEY_ID, config.key.id);
  assert(writer.length <= HELLO_BODY_BYTES_MAX, "the hello fits");
  const bytes = new Uint8Array(HELLO_BYTES + writer.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(HelloAt.MAGIC, HELLO_MAGIC[0], true);
  view.setUint32(HelloAt.MAGIC + 4, HELLO_MAGIC[1], true);
  view.setUint16(HelloAt.VERSION_LOW, VERSION, true);
  view.setUint16(HelloAt.VERSION_HIGH, VERSION, true);
  view.setUint32(HelloAt.BODY_BYTES, writer.length, true);
  bytes.set(writer.bytes, HELLO_BYTES);
  return bytes;
}

/** What the exporter answered to a hello. */
export interface HelloAnswer {
  readonly status: number;
  /** For a person. */
  readonly text: string;
  /** The chosen cipher and digest; -1 unless there is exactly one. */
  readonly cipher: number;
  readonly digest: number;
  /** All that were named: the chosen ones, or those that the exporter accepts. */
  readonly ciphers: readonly number[];
  readonly digests: readonly number[];
}

/** The body of the exporter's hello, or null if it is malformed. */
export function decodeHelloAnswer(bytes: Uint8Array): HelloAnswer | null {
  const reader = new TlvReader(bytes, [Tlv.CIPHERS, Tlv.DIGESTS, Tlv.STATUS, Tlv.TEXT]);
  const ciphers = reader.uint16s(Tlv.CIPHERS) ?? [];
  const digests = reader.uint16s(Tlv.DIGESTS) ?? [];
  const status = reader.uint32(Tlv.STATUS);
  const text = printable(reader.text(Tlv.TEXT) ?? "");
  if (reader.status !== Status.OK || status === null) return null;
  return {
    status,
    text: text === "" ? statusName(status) : text,
    cipher: ciphers.length === 1 ? ciphers[0] : -1,
    digest: digests.length === 1 ? digests[0] : -1,
    ciphers,
    digests,
  };
}

/** Whether the exporter may choose this: it was offered, and suits the presence of a key. */
export function isAcceptable(cipher: number, digest: number, config: ClientHelloConfig): boolean {
  const { ciphers, digests, key } = config;
  if (!ciphers.includes(cipher)) return false;
  if (cipher !== Cipher.NONE) return key !== null && digest === Digest.NONE;
  if (!digests.includes(digest)) return false;
  return key === null ? digest !== Digest.HMAC_SHA_256 : isKeyable(digest);
}
