/**
 * The exporter's side of the hello: what it agrees to (SPEC.md, section 2).
 *
 * @module
 */
import { Status } from "./status.ts";
import { Tlv, TlvReader, TlvWriter } from "./tlv.ts";
import { Cipher, Digest, HELLO_BYTES, HELLO_REPLY_MAGIC, HelloAt, isKeyable, KEY_ID_BYTES, VERSION } from "./wire.ts";

/** What an exporter accepts. */
export interface HelloConfig {
  /** The ciphers that it accepts, by number; NONE among them where a connection may go without. */
  readonly ciphers: readonly number[];
  /** The digests that it accepts, by number. */
  readonly digests: readonly number[];
  /** Whether it admits only peers that have a key: others are told KEY_REQUIRED. */
  readonly keyRequired: boolean;
  /** Whether the exporter has no room for one more connection: then it says TOO_MANY. */
  readonly full?: boolean;
}

/** What a client offered, by number, the most wanted first; nothing of it need be a number that exists. */
export interface Offer {
  readonly ciphers: readonly number[];
  readonly digests: readonly number[];
}

/** What came of a hello. Cipher and digest mean something with OK only. */
export interface HelloOutcome {
  readonly status: number;
  readonly cipher: number;
  readonly digest: number;
  /** The id of the key that the client named, of 16 bytes; null where it named none or the hello is malformed. */
  readonly keyId: Uint8Array | null;
  /** What the client offered; null where the hello is malformed or of another version. */
  readonly offered: Offer | null;
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
  if (low > high) return refusal(Status.BAD_REQUEST);
  // Before the body: another version's may not be ours to judge.
  if (low > VERSION || high < VERSION) return refusal(Status.VERSION);
  const reader = new TlvReader(body, [Tlv.CIPHERS, Tlv.DIGESTS, Tlv.KEY_ID]);
  const ciphers = reader.uint16s(Tlv.CIPHERS);
  const digests = reader.uint16s(Tlv.DIGESTS);
  const keyId = reader.value(Tlv.KEY_ID, KEY_ID_BYTES);
  if (reader.status !== Status.OK) return refusal(reader.status);
  if (ciphers === null || digests === null) return refusal(Status.BAD_REQUEST);

  const offered = { ciphers, digests };
  const refused = (status: number): HelloOutcome => ({ ...refusal(status), keyId, offered });
  if (config.full === true) return refused(Status.TOO_MANY);
  if (config.keyRequired && keyId === null) return refused(Status.KEY_REQUIRED);
  const chosen = choose(offered, keyId !== null, config);
  if (chosen !== null) return { status: Status.OK, ...chosen, keyId, offered };
  const keyWouldDo = keyId === null && choose(offered, true, config) !== null;
  return refused(keyWouldDo ? Status.KEY_REQUIRED : Status.NO_COMMON_ALGORITHM);
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

/** An outcome of which nothing is known but the status that refuses. */
export function refusal(status: number): HelloOutcome {
  return { status, cipher: Cipher.NONE, digest: Digest.NONE, keyId: null, offered: null };
}

/**
 * The first cipher of the client's list that will do, and the first such digest where it needs one; null if there is none.
 * Whoever would go without a cipher but has no digest for that may have named a cipher, too.
 */
function choose(offered: Offer, hasKey: boolean, config: HelloConfig): { cipher: number; digest: number } | null {
  const digest = offered.digests.find((number) => config.digests.includes(number) && suits(number, hasKey));
  for (const cipher of offered.ciphers) {
    if (!config.ciphers.includes(cipher)) continue;
    if (cipher === Cipher.NONE) {
      if (digest !== undefined) return { cipher, digest };
    } else if (hasKey) {
      // A cipher's tags take the place of a digest.
      return { cipher, digest: Digest.NONE };
    }
  }
  return null;
}

/** Whether a digest may be used without a cipher: with a key it has to be one that can be keyed. */
function suits(digest: number, hasKey: boolean): boolean {
  return hasKey ? isKeyable(digest) : digest !== Digest.HMAC_SHA_256;
}
