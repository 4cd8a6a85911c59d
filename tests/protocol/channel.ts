/**
 * The channel of a connection, written from `protocol/SPEC.md` (section 4) apart from the product's own code: the
 * handshake, the key schedule, and each frame sealed and opened under every suite. Built on the primitives of the golden
 * vectors; what has to be fast is node:crypto's and hash-wasm's.
 *
 * @module
 */
import { createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { x25519 } from "@noble/curves/ed25519.js";
import { macKeys, REKEY_FRAMES, rekeyed } from "../vectors/frames.ts";
import { AEAD, blake2b256, type Bytes, concat, SymmetricState } from "../vectors/primitives.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import { HEADER } from "./bytes.ts";

/** The Castagnoli polynomial, reflected (RFC 3720, B.4). */
const CASTAGNOLI = 0x82f63b78;
/** Bytes of an AEAD's tag. */
const AEAD_TAG = 16;
/** Bytes of an X25519 public key, and of a Noise message of this pattern with an empty payload. */
const PUBLIC_KEY = 32;
export const NOISE_MESSAGE = PUBLIC_KEY + AEAD_TAG;
const NOISE_NAME = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const NOTHING: Bytes = new Uint8Array(0);

const crc32c = await createCRC32(CASTAGNOLI);
const xxh64 = await createXXHash64();

/** What the frames of a connection are sealed with: numbers of `Cipher` and `Digest`. With a cipher the digest is none. */
export interface Algorithms {
  readonly cipher: number;
  readonly digest: number;
}

/** A pre-shared key: its id of 16 bytes and its 32 bytes. */
export interface PresharedKey {
  readonly id: Uint8Array;
  readonly secret: Uint8Array;
}

/** The keys that a handshake gives: K₀ of frames from the client and of frames from the exporter. */
export interface ChannelKeys {
  readonly client: Uint8Array;
  readonly exporter: Uint8Array;
}

/** Bytes of a tag. */
export function tagBytes({ cipher, digest }: Algorithms): number {
  if (cipher !== Cipher.NONE) return AEAD_TAG;
  if (digest === Digest.NONE) return 0;
  return digest === Digest.CRC32C || digest === Digest.XXH64 ? 8 : 32;
}

/** The digest of the bytes as it stands on the wire, keyed where there is a key (SPEC.md, 4.1 and 4.3). */
function digestOf(digest: number, bytes: Uint8Array, key: Uint8Array | null): Uint8Array {
  switch (digest) {
    case Digest.NONE:
      return NOTHING;
    case Digest.CRC32C:
    case Digest.XXH64: {
      const out = new Uint8Array(8);
      const hasher = digest === Digest.CRC32C ? crc32c : xxh64;
      // The library gives both in big-endian order.
      out.set(hasher.init().update(bytes).digest("binary").reverse());
      return out;
    }
    case Digest.BLAKE2B_256:
      return blake2b256(bytes, key ?? undefined);
    default:
      return new Uint8Array(createHmac("sha256", key!).update(bytes).digest());
  }
}

/** The frames of one direction of one connection. Any frame may be sealed or opened, by its number. */
export class Direction {
  readonly tagBytes: number;
  readonly #algorithms: Algorithms;
  readonly #key: Uint8Array | null;
  /** The keys of the frames from `#epoch` · REKEY_FRAMES on: of the cipher, or (Kh, Kp). */
  #epoch = -1;
  #epochKey: Uint8Array = NOTHING;
  #headerKey: Uint8Array | null = null;
  #payloadKey: Uint8Array | null = null;

  /** @param key K₀, or null without a handshake */
  constructor(algorithms: Algorithms, key: Uint8Array | null) {
    this.#algorithms = algorithms;
    this.#key = key;
    this.tagBytes = tagBytes(algorithms);
  }

  /** A whole frame from its header in clear and its payload. */
  seal(number: number, header: Uint8Array, payload: Uint8Array): Bytes {
    const sealed = payload.length === 0
      ? { payload, tag: new Uint8Array(this.tagBytes) }
      : this.sealPayload(number, payload);
    return this.sealAround(number, header, sealed.tag, sealed.payload);
  }

  /** A whole frame around a payload and its tag as they are to stand on the wire. */
  sealAround(number: number, header: Uint8Array, payloadTag: Uint8Array, payload: Uint8Array): Bytes {
    if (this.#algorithms.cipher === Cipher.NONE) {
      this.#keysOf(number);
      const covered = concat(header, payloadTag);
      return concat(covered, digestOf(this.#algorithms.digest, covered, this.#headerKey), payload);
    }
    const sealed = this.#encrypt(number, 2n * BigInt(number), payloadTag, header);
    return concat(sealed.bytes, payloadTag, sealed.tag, payload);
  }

  /** A payload, of at least one byte, and its tag as they stand on the wire. */
  sealPayload(number: number, payload: Uint8Array): { payload: Uint8Array; tag: Uint8Array } {
    const { cipher, digest } = this.#algorithms;
    if (cipher !== Cipher.NONE) {
      const { bytes, tag } = this.#encrypt(number, 2n * BigInt(number) + 1n, NOTHING, payload);
      return { payload: bytes, tag };
    }
    this.#keysOf(number);
    return { payload, tag: digestOf(digest, payload, this.#payloadKey) };
  }

  /** The header in clear, or null when its tag is wrong. */
  openPrefix(number: number, prefix: Uint8Array): Bytes | null {
    const header = prefix.slice(0, HEADER);
    const payloadTag = prefix.slice(HEADER, HEADER + this.tagBytes);
    const tag = prefix.slice(HEADER + this.tagBytes, HEADER + 2 * this.tagBytes);
    if (this.#algorithms.cipher !== Cipher.NONE) {
      return this.#decrypt(number, 2n * BigInt(number), payloadTag, header, tag);
    }
    this.#keysOf(number);
    const expected = digestOf(this.#algorithms.digest, prefix.slice(0, HEADER + this.tagBytes), this.#headerKey);
    return equal(tag, expected) ? header : null;
  }

  /** The payload of the frame with this prefix in clear, or null when its tag is wrong. */
  openPayload(number: number, prefix: Uint8Array, payload: Uint8Array): Uint8Array | null {
    const tag = prefix.slice(HEADER, HEADER + this.tagBytes);
    if (payload.length === 0) return tag.every((byte) => byte === 0) ? payload : null;
    const { cipher, digest } = this.#algorithms;
    if (cipher !== Cipher.NONE) return this.#decrypt(number, 2n * BigInt(number) + 1n, NOTHING, payload, tag);
    this.#keysOf(number);
    return equal(tag, digestOf(digest, payload, this.#payloadKey)) ? payload : null;
  }

  /** Makes the keys of the frame with this number the present ones. */
  #keysOf(number: number): void {
    if (this.#key === null) return;
    const epoch = Math.floor(number / REKEY_FRAMES);
    if (epoch === this.#epoch) return;
    const isNext = this.#epoch >= 0 && epoch > this.#epoch;
    this.#epochKey = rekeyed(isNext ? this.#epochKey : this.#key, isNext ? epoch - this.#epoch : epoch);
    this.#epoch = epoch;
    if (this.#algorithms.cipher === Cipher.NONE) [this.#headerKey, this.#payloadKey] = macKeys(this.#epochKey);
  }

  #nonce(counter: bigint): Bytes {
    return AEAD[this.#algorithms.cipher === Cipher.CHACHA20_POLY1305 ? "chacha20-poly1305" : "aes-256-gcm"]
      .nonce(counter);
  }

  #encrypt(number: number, counter: bigint, associated: Uint8Array, plain: Uint8Array) {
    this.#keysOf(number);
    const nonce = this.#nonce(counter);
    const cipher = this.#algorithms.cipher === Cipher.CHACHA20_POLY1305
      ? createCipheriv("chacha20-poly1305", this.#epochKey, nonce, { authTagLength: AEAD_TAG })
      : createCipheriv("aes-256-gcm", this.#epochKey, nonce);
    cipher.setAAD(associated, { plaintextLength: plain.length });
    const bytes = new Uint8Array(cipher.update(plain));
    cipher.final();
    return { bytes, tag: new Uint8Array(cipher.getAuthTag()) };
  }

  #decrypt(number: number, counter: bigint, associated: Uint8Array, sealed: Uint8Array, tag: Uint8Array): Bytes | null {
    this.#keysOf(number);
    const nonce = this.#nonce(counter);
    const decipher = this.#algorithms.cipher === Cipher.CHACHA20_POLY1305
      ? createDecipheriv("chacha20-poly1305", this.#epochKey, nonce, { authTagLength: AEAD_TAG })
      : createDecipheriv("aes-256-gcm", this.#epochKey, nonce);
    decipher.setAAD(associated, { plaintextLength: sealed.length });
    decipher.setAuthTag(tag);
    const bytes = new Uint8Array(decipher.update(sealed));
    try {
      decipher.final();
    } catch {
      return null;
    }
    return bytes;
  }
}

/** X25519 (RFC 7748). */
export interface Curve {
  getPublicKey(privateKey: Uint8Array): Bytes;
  getSharedSecret(privateKey: Uint8Array, publicKey: Uint8Array): Bytes;
}

/** The client's side of `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (SPEC.md, 4.2). */
export class NoiseClient {
  readonly #state = new SymmetricState(NOISE_NAME);
  readonly #private: Bytes;
  readonly #public: Bytes;

  readonly #curve: Curve;

  /** @param prologue the client's whole hello, then the exporter's whole answer */
  constructor(prologue: Uint8Array, secret: Uint8Array, privateKey = randomKey(), curve: Curve = x25519) {
    this.#curve = curve;
    this.#private = Uint8Array.from(privateKey);
    this.#public = curve.getPublicKey(this.#private);
    this.#state.mixHash(prologue);
    this.#state.mixKeyAndHash(secret);
  }

  /** `-> psk, e`: 48 bytes. */
  message(): Bytes {
    this.#state.mixHash(this.#public);
    this.#state.mixKey(this.#public);
    return concat(this.#public, this.#state.encryptAndHash(NOTHING));
  }

  /** Takes `<- e, ee`: the keys, or null when it does not authenticate. */
  finish(message: Uint8Array): ChannelKeys | null {
    const theirs = message.slice(0, PUBLIC_KEY);
    this.#state.mixHash(theirs);
    this.#state.mixKey(theirs);
    this.#state.mixKey(this.#curve.getSharedSecret(this.#private, theirs));
    if (this.#state.decryptAndHash(message.slice(PUBLIC_KEY)) === null) return null;
    const [client, exporter] = this.#state.split();
    return { client, exporter };
  }
}

/** The exporter's side of it. */
export class NoiseExporter {
  readonly #state = new SymmetricState(NOISE_NAME);
  readonly #private: Bytes;
  #theirs: Bytes = NOTHING;

  constructor(prologue: Uint8Array, secret: Uint8Array, privateKey: Uint8Array = randomKey()) {
    this.#private = Uint8Array.from(privateKey);
    this.#state.mixHash(prologue);
    this.#state.mixKeyAndHash(secret);
  }

  /** Takes `-> psk, e`; whether it authenticates. */
  take(message: Uint8Array): boolean {
    this.#theirs = message.slice(0, PUBLIC_KEY) as Bytes;
    this.#state.mixHash(this.#theirs);
    this.#state.mixKey(this.#theirs);
    return this.#state.decryptAndHash(message.slice(PUBLIC_KEY)) !== null;
  }

  /** `<- e, ee`, and the keys. */
  answer(): { message: Bytes; keys: ChannelKeys } {
    const ours = x25519.getPublicKey(this.#private);
    this.#state.mixHash(ours);
    this.#state.mixKey(ours);
    this.#state.mixKey(x25519.getSharedSecret(this.#private, this.#theirs));
    const message = concat(ours, this.#state.encryptAndHash(NOTHING));
    const [client, exporter] = this.#state.split();
    return { message, keys: { client, exporter } };
  }
}

function randomKey(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(32));
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
