/**
 * The exporter's side of the hello: what it agrees to (SPEC.md, section 2).
 *
 * @module
 */
import { Status } from "./status.ts";
import { Tlv, TlvReader, TlvWriter } from "./tlv.ts";
import { Cipher, Digest, HELLO_BYTES, HELLO_REPLY_MAGIC, HelloAt, VERSION } from "./wire.ts";

/** What an exporter accepts. */
export interface HelloConfig {
  /** The ciphers that it accepts, by number. */
  readonly ciphers: readonly number[];
  /** The digests that it accepts, by number. */
  readonly digests: readonly number[];
  /** Whether the exporter has no room for one more connection: then it says TOO_MANY. */
  readonly full?: boolean;
}

/** What came of a hello. Cipher and digest mean something with OK only. */
export interface HelloOutcome {
  readonly status: number;
  readonly cipher: number;
  readonly digest: number;
}

const SENTENCES: ReadonlyMap<number, string> = new Map([
  [Status.VERSION, "this exporter speaks version 1 of the protocol"],
  [Status.NO_COMMON_ALGORITHM, "this exporter accepts none of the ciphers or none of the digests that were offered"],
  [Status.KEY_REQUIRED, "this exporter admits only peers that have a key"],
  [Status.BAD_REQUEST, "the hello is malformed"],
  [Status.UNKNOWN_REQUIRED, "the hello requires something that this exporter does not know"],
  [Status.TOO_MANY, "this exporter has no room for one more connection"],
]);

/**
 * Decides about a hello.
 *
 * @param low the lowest version that the client speaks
 * @param high the highest
 * @param body the hello's TLVs
 */
export function negotiate(low: number, high: number, body: Uint8Array, config: HelloConfig): HelloOutcome {
  if (low > high) return refused(Status.BAD_REQUEST);
  // Before the body: another version's may not be ours to judge.
  if (low > VERSION || high < VERSION) return refused(Status.VERSION);
  const reader = new TlvReader(body, [Tlv.CIPHERS, Tlv.DIGESTS, Tlv.KEY_ID]);
  const ciphers = reader.uint16s(Tlv.CIPHERS);
  const digests = reader.uint16s(Tlv.DIGESTS);
  const hasKey = reader.value(Tlv.KEY_ID, 16) !== null;
  if (reader.status !== Status.OK) return refused(reader.status);
  if (ciphers === null || digests === null) return refused(Status.BAD_REQUEST);
  if (config.full === true) return refused(Status.TOO_MANY);

  const cipher = ciphers.find((number) => config.ciphers.includes(number) && (hasKey || number === Cipher.NONE));
  if (cipher === undefined) return refused(withoutCommon(hasKey, ciphers, config.ciphers));
  if (cipher !== Cipher.NONE) return { status: Status.OK, cipher, digest: Digest.NONE };
  const digest = digests.find((number) => config.digests.includes(number) && suits(number, hasKey));
  if (digest === undefined) return refused(withoutCommon(hasKey, digests, config.digests));
  return { status: Status.OK, cipher, digest };
}

/** Writes the whole answer to a hello, 512 bytes at most. */
export function encodeHelloReply(outcome: HelloOutcome, config: HelloConfig): Uint8Array {
  const writer = new TlvWriter();
  const { status } = outcome;
  if (status === Status.OK) {
    writer.uint16s(Tlv.CIPHERS, [outcome.cipher]).uint16s(Tlv.DIGESTS, [outcome.digest]);
  } else if (status === Status.NO_COMMON_ALGORITHM) {
    writer.uint16s(Tlv.CIPHERS, config.ciphers).uint16s(Tlv.DIGESTS, config.digests);
  }
  writer.uint32s(Tlv.STATUS, status);
  const sentence = SENTENCES.get(status);
  if (sentence !== undefined) writer.text(Tlv.TEXT, sentence);

  const bytes = new Uint8Array(HELLO_BYTES + writer.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(HelloAt.MAGIC, HELLO_REPLY_MAGIC[0], true);
  view.setUint32(HelloAt.MAGIC + 4, HELLO_REPLY_MAGIC[1], true);
  view.setUint16(HelloAt.VERSION_LOW, status === Status.VERSION ? 0 : VERSION, true);
  view.setUint32(HelloAt.BODY_BYTES, writer.length, true);
  bytes.set(writer.bytes, HELLO_BYTES);
  return bytes;
}

/** Whether a digest may be used without a cipher: with a key it has to be one that can be keyed. */
function suits(digest: number, hasKey: boolean): boolean {
  if (hasKey) return digest === Digest.BLAKE2B_256 || digest === Digest.HMAC_SHA_256;
  return digest !== Digest.HMAC_SHA_256;
}

/** A client without a key that offered something the exporter accepts was refused for the want of a key. */
function withoutCommon(hasKey: boolean, offered: readonly number[], accepted: readonly number[]): number {
  const keyWouldDo = !hasKey && offered.some((number) => accepted.includes(number));
  return keyWouldDo ? Status.KEY_REQUIRED : Status.NO_COMMON_ALGORITHM;
}

function refused(status: number): HelloOutcome {
  return { status, cipher: Cipher.NONE, digest: Digest.NONE };
}
