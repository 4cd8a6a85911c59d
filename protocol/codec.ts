/**
 * Numbers, seals and opens the frames of one connection (SPEC.md, section 4). Everything about tags, ciphers and keys is
 * here, so that the machines are the same under every one of them.
 *
 * @module
 */
import { assert } from "./assert.ts";
import type { Memory } from "./consumer.ts";
import { ProtocolError } from "./error.ts";
import { type Cryptography, type FrameGuard, GUARD_SCRATCH_BYTES, KEY_BYTES, PIECE_BYTES } from "./guard.ts";
import { macKeys, nextKey } from "./key_schedule.ts";
import { REKEY_FRAMES } from "./limits.ts";
import { Cipher, Digest, FRAME_MAGIC, HEADER_BYTES, HeaderAt, TAG_BYTES_MAX } from "./wire.ts";

/** What a connection's next codec goes on with, where the one before has ended: the door's, when it becomes a lane. */
export interface Handoff {
  readonly cipher: number;
  /** NONE with a cipher. */
  readonly digest: number;
  /** K₀ of both directions, as seen from this side; null without a key. */
  readonly keys: { readonly send: Uint8Array; readonly receive: Uint8Array } | null;
  /** Frames already sent on this connection. */
  readonly sent: number;
  /** Frames already received on this connection. */
  readonly received: number;
}

/** What {@link FrameCodec.openPayload} answers when the payload needs another call. */
export const MORE = -1;

/** Where things lie in a codec's scratch area: two guards' own, each direction's nonces, the tag of what arrives. */
const ScratchAt = {
  SENDER: 0,
  RECEIVER: GUARD_SCRATCH_BYTES,
  SEND_NONCES: 2 * GUARD_SCRATCH_BYTES,
  RECEIVE_NONCES: 2 * GUARD_SCRATCH_BYTES + 16,
  PAYLOAD_TAG: 2 * GUARD_SCRATCH_BYTES + 32,
} as const;
/** From a header's nonce to the payload's. */
const NONCE_BYTES = 8;

/** Bytes of the arena that a codec needs for itself: a multiple of 64. */
export const CODEC_SCRATCH_BYTES = Math.ceil((ScratchAt.PAYLOAD_TAG + TAG_BYTES_MAX) / 64) * 64;

/**
 * How many pieces of a fast digest may be done in the time that others take for one: CRC-32C and XXH64 read ten or more
 * bytes in the time of one byte of a cipher.
 */
const FAST_DIGEST_PIECES = 8;
/** For tags that cost nothing. */
const NO_LIMIT_BYTES = 2 ** 30;
/** Nonces are twice a frame's number, and safe integers. */
const FRAMES_MAX = 2 ** 52;

/** Indexes of a direction's number. */
const SENT = 0;
const RECEIVED = 1;

/**
 * The frames of one connection, in both directions.
 *
 * @example
 * ```ts
 * while (!codec.seal(payloadAt - codec.prefixBytes, payloadAt, payloadBytes)); // then send prefix and payload
 * ```
 */
export class FrameCodec {
  /** Bytes T of a tag. */
  readonly tagBytes: number;
  /** Bytes of a frame before its payload: header and two tags. */
  readonly prefixBytes: number;
  /** Whether sealing makes ciphertext of the payload: then it goes elsewhere if the plaintext is needed any more. */
  readonly encrypts: boolean;
  /**
   * Bytes of frames that one direction may seal or open in one turn, so that other connections are not held up: never
   * less than a piece.
   */
  readonly turnBytes: number;
  readonly #memory: Memory;
  readonly #cryptography: Cryptography;
  readonly #scratchAt: number;
  readonly #rekeyFrames: number;
  readonly #sender: FrameGuard;
  readonly #receiver: FrameGuard;
  readonly #keys: { send: Uint8Array; receive: Uint8Array } | null;
  /** Frames of each direction so far. In an array, since large numbers elsewhere may become objects. */
  readonly #numbers = new Float64Array(2);
  /** From these numbers on the next keys are due. */
  readonly #rekeyAt = new Float64Array(2);
  /** Bytes done of the payload that is being sealed, or opened, in pieces. */
  #sealedBytes = 0;
  #openedBytes = 0;

  /**
   * @param scratchAt arena offset of {@link CODEC_SCRATCH_BYTES} that nobody else uses, a multiple of 64
   * @param handoff its keys are copied
   * @param rekeyFrames how many frames a key serves; another number than the protocol's is for tests
   */
  constructor(
    memory: Memory,
    cryptography: Cryptography,
    scratchAt: number,
    handoff: Handoff,
    rekeyFrames: number = REKEY_FRAMES,
  ) {
    const { cipher, digest, keys, sent, received } = handoff;
    assert(scratchAt % 64 === 0, "the scratch area is aligned");
    assert(Number.isSafeInteger(sent) && sent >= 0, "the number of frames sent is a safe integer");
    assert(Number.isSafeInteger(received) && received >= 0, "the number of frames received is a safe integer");
    assert(cipher === Cipher.NONE || digest === Digest.NONE, "a cipher's tags are its own");
    assert(keys !== null || (cipher === Cipher.NONE && digest !== Digest.HMAC_SHA_256), "ciphers and MACs have keys");
    assert(keys === null || cipher !== Cipher.NONE || digest >= Digest.BLAKE2B_256, "a key is put to use");
    assert(keys === null || (keys.send.length === KEY_BYTES && keys.receive.length === KEY_BYTES), "keys are whole");
    this.#memory = memory;
    this.#cryptography = cryptography;
    this.#scratchAt = scratchAt;
    this.#rekeyFrames = rekeyFrames;
    this.#keys = keys === null ? null : { send: keys.send.slice(), receive: keys.receive.slice() };
    this.#sender = cryptography.makeGuard(cipher, digest, keys !== null, scratchAt + ScratchAt.SENDER);
    this.#receiver = cryptography.makeGuard(cipher, digest, keys !== null, scratchAt + ScratchAt.RECEIVER);
    this.tagBytes = this.#sender.tagBytes;
    this.prefixBytes = HEADER_BYTES + 2 * this.tagBytes;
    this.encrypts = this.#sender.encrypts;
    if (this.tagBytes === 0) this.turnBytes = NO_LIMIT_BYTES;
    else if (keys === null && digest < Digest.BLAKE2B_256) this.turnBytes = FAST_DIGEST_PIECES * PIECE_BYTES;
    else this.turnBytes = PIECE_BYTES;
    this.#numbers[SENT] = sent;
    this.#numbers[RECEIVED] = received;
    this.#enterKeys(SENT);
    this.#enterKeys(RECEIVED);
  }

  /** Frames sealed so far, which is the number of the next. */
  get sent(): number {
    return this.#numbers[SENT];
  }

  /** Frames opened so far, which is the number of the next. */
  get received(): number {
    return this.#numbers[RECEIVED];
  }

  /**
   * Completes the frame whose header (all but its number) is at `at`: writes the number and both tags, and makes of both
   * header and payload what goes on the wire. A payload above {@link PIECE_BYTES} takes several calls with the same
   * arguments, during which no other frame is sealed.
   *
   * @param at arena offset of the prefix
   * @param payloadAt arena offset of the payload; it need not follow the prefix
   * @param payloadBytes as the header says; 0 none
   * @param toAt where a ciphertext goes: `payloadAt`, or a range apart from it
   * @returns whether the frame is complete
   */
  seal(at: number, payloadAt: number, payloadBytes: number, toAt: number = payloadAt): boolean {
    const view = this.#memory.view;
    if (this.#sealedBytes === 0) {
      assert(view.getUint32(at + HeaderAt.PAYLOAD_BYTES, true) === payloadBytes, "the header has the payload's length");
      this.#number(at);
    }
    if (this.tagBytes === 0) return true;
    const guard = this.#sender;
    const nonceAt = this.#scratchAt + ScratchAt.SEND_NONCES;
    const payloadTagAt = at + HEADER_BYTES;
    if (payloadBytes === 0) {
      for (let i = 0; i < this.tagBytes; i += 4) view.setUint32(payloadTagAt + i, 0, true);
    } else if (payloadBytes <= PIECE_BYTES) {
      guard.seal(nonceAt + NONCE_BYTES, payloadAt, toAt, payloadBytes, payloadTagAt);
    } else {
      const done = this.#sealedBytes;
      const bytes = this.sealPieceBytes(payloadBytes);
      if (done === 0) guard.begin(nonceAt + NONCE_BYTES);
      guard.sealPiece(payloadAt + done, toAt + done, bytes);
      this.#sealedBytes = done + bytes < payloadBytes ? done + bytes : 0;
      if (this.#sealedBytes > 0) return false;
      guard.finishSeal(payloadTagAt);
    }
    guard.sealHeader(nonceAt, at);
    return true;
  }

  /**
   * Opens in place header and payload tag of the frame whose prefix is at the arena offset, checks magic, number and zero
   * byte, and remembers the payload's tag. Not to be called twice for one frame.
   *
   * @returns 0 or a {@link ProtocolError}: then the header says nothing
   */
  openPrefix(at: number): number {
    const view = this.#memory.view;
    assert(this.#openedBytes === 0, "the payload before is opened in whole");
    if (this.#numbers[RECEIVED] >= this.#rekeyAt[RECEIVED]) this.#enterKeys(RECEIVED);
    if (this.tagBytes > 0) {
      if (this.encrypts) this.#writeNonces(RECEIVED, this.#scratchAt + ScratchAt.RECEIVE_NONCES);
      if (!this.#receiver.openHeader(this.#scratchAt + ScratchAt.RECEIVE_NONCES, at)) {
        // Bytes that are of no frame at all are better named so, where that can be seen.
        const isOfFrame = this.encrypts || view.getUint32(at, true) === FRAME_MAGIC;
        return isOfFrame ? ProtocolError.HEADER_TAG : ProtocolError.MAGIC;
      }
    }
    if (view.getUint32(at + HeaderAt.MAGIC, true) !== FRAME_MAGIC) return ProtocolError.MAGIC;
    const number = this.#numbers[RECEIVED];
    if (
      view.getUint32(at + HeaderAt.NUMBER, true) !== number >>> 0 ||
      view.getUint32(at + HeaderAt.NUMBER + 4, true) !== Math.floor(number / 0x1_0000_0000)
    ) return ProtocolError.FRAME_NUMBER;
    if (this.#memory.bytes[at + HeaderAt.ZERO] !== 0) return ProtocolError.FIELD;
    let bits = 0;
    for (let i = 0; i < this.tagBytes; i += 4) {
      const word = view.getUint32(at + HEADER_BYTES + i, true);
      view.setUint32(this.#scratchAt + ScratchAt.PAYLOAD_TAG + i, word, true);
      bits |= word;
    }
    if (view.getUint32(at + HeaderAt.PAYLOAD_BYTES, true) === 0 && bits !== 0) return ProtocolError.PAYLOAD_TAG;
    this.#numbers[RECEIVED]++;
    return ProtocolError.NONE;
  }

  /**
   * Opens in place the payload of the frame opened last. One above {@link PIECE_BYTES} takes several calls with the same
   * arguments. Nothing of it may be used before the answer is 0.
   *
   * @returns 0, a {@link ProtocolError}, or {@link MORE}: call again
   */
  openPayload(payloadAt: number, payloadBytes: number): number {
    assert(payloadBytes > 0, "there is a payload");
    if (this.tagBytes === 0) return ProtocolError.NONE;
    const guard = this.#receiver;
    const nonceAt = this.#scratchAt + ScratchAt.RECEIVE_NONCES + NONCE_BYTES;
    const tagAt = this.#scratchAt + ScratchAt.PAYLOAD_TAG;
    let isRight: boolean;
    if (payloadBytes <= PIECE_BYTES) {
      isRight = guard.open(nonceAt, payloadAt, payloadBytes, tagAt);
    } else {
      const done = this.#openedBytes;
      const bytes = this.openPieceBytes(payloadBytes);
      if (done === 0) guard.begin(nonceAt);
      guard.openPiece(payloadAt + done, bytes);
      this.#openedBytes = done + bytes < payloadBytes ? done + bytes : 0;
      if (this.#openedBytes > 0) return MORE;
      isRight = guard.finishOpen(tagAt);
    }
    return isRight ? ProtocolError.NONE : ProtocolError.PAYLOAD_TAG;
  }

  /** How many bytes of such a payload the next call of {@link seal} works on. */
  sealPieceBytes(payloadBytes: number): number {
    const left = payloadBytes - this.#sealedBytes;
    return left < PIECE_BYTES ? left : PIECE_BYTES;
  }

  /** How many bytes of such a payload the next call of {@link openPayload} works on. */
  openPieceBytes(payloadBytes: number): number {
    const left = payloadBytes - this.#openedBytes;
    return left < PIECE_BYTES ? left : PIECE_BYTES;
  }

  /** Wipes the keys. The codec is of no use afterwards. */
  close(): void {
    this.#keys?.send.fill(0);
    this.#keys?.receive.fill(0);
    this.#sender.close();
    this.#receiver.close();
  }

  /** Gives the header its number, which no other frame gets, and writes the nonces that follow from it. */
  #number(at: number): void {
    const view = this.#memory.view;
    const number = this.#numbers[SENT];
    assert(number < FRAMES_MAX, "the frame numbers last");
    if (number >= this.#rekeyAt[SENT]) this.#enterKeys(SENT);
    view.setUint32(at + HeaderAt.NUMBER, number >>> 0, true);
    view.setUint32(at + HeaderAt.NUMBER + 4, Math.floor(number / 0x1_0000_0000), true);
    if (this.encrypts) this.#writeNonces(SENT, this.#scratchAt + ScratchAt.SEND_NONCES);
    this.#numbers[SENT] = number + 1;
  }

  /** Of frame n: 2n for the header, then 2n + 1 for the payload. */
  #writeNonces(direction: number, at: number): void {
    const view = this.#memory.view;
    const nonce = 2 * this.#numbers[direction];
    const high = Math.floor(nonce / 0x1_0000_0000);
    view.setUint32(at, nonce >>> 0, true);
    view.setUint32(at + 4, high, true);
    view.setUint32(at + NONCE_BYTES, nonce + 1 >>> 0, true);
    view.setUint32(at + NONCE_BYTES + 4, high, true);
  }

  /** Gives a direction's guard the keys that its next frame needs. Allocates; once in REKEY_FRAMES. */
  #enterKeys(direction: number): void {
    const keys = this.#keys;
    if (keys === null) {
      this.#rekeyAt[direction] = Infinity;
      return;
    }
    const { noise } = this.#cryptography;
    let key = direction === SENT ? keys.send : keys.receive;
    // The first are those of the handshake; a codec that begins late passes all that lie before its own.
    do {
      if (this.#rekeyAt[direction] > 0) {
        const next = nextKey(noise, key);
        key.fill(0);
        key = next;
      }
      this.#rekeyAt[direction] += this.#rekeyFrames;
    } while (this.#numbers[direction] >= this.#rekeyAt[direction]);
    if (direction === SENT) keys.send = key;
    else keys.receive = key;
    const guard = direction === SENT ? this.#sender : this.#receiver;
    if (this.encrypts) {
      guard.setKeys(key, key);
    } else {
      const { header, payload } = macKeys(noise, key);
      guard.setKeys(header, payload);
      header.fill(0);
      payload.fill(0);
    }
  }
}
