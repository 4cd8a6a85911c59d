/**
 * What the protocol needs of cryptography, given by its host: the protocol itself has no algorithm.
 *
 * @module
 */

/** Bytes of a payload that a {@link FrameGuard} works on in one call, at most: a longer one takes several turns, so that
 * nobody waits behind it for long. */
export const PIECE_BYTES = 64 * 1024;
/** Bytes of the arena that a guard may be given for its keys and its state. */
export const GUARD_SCRATCH_BYTES = 1024;
/** Bytes of every key: of the pre-shared, of a cipher, of a keyed digest. */
export const KEY_BYTES = 32;

/**
 * Tags, and with a cipher the encryption, of the frames of one direction of one connection (SPEC.md, 4.1 and 4.3). All
 * offsets are in the arena; all lengths in bytes. Nothing is allocated by a call, but for {@link setKeys}.
 *
 * Nonces are given by their place: eight bytes that hold the counter, little-endian; digests do not look at them. A
 * payload is worked on in one call of `seal` or `open`, or piece by piece, one payload at a time: `begin`, then pieces
 * of `PIECE_BYTES` (the last may be shorter), then `finishSeal` or `finishOpen`. Headers may be sealed in between.
 */
export interface FrameGuard {
  /** Bytes T of a tag. */
  readonly tagBytes: number;
  /** Whether sealing changes the payload's bytes: then they may go elsewhere than where the plaintext is. */
  readonly encrypts: boolean;
  /**
   * From now on these keys, of {@link KEY_BYTES}. A cipher uses the first for both; an unkeyed digest is never given any.
   */
  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void;
  /**
   * Writes the payload's tag, and with a cipher the ciphertext.
   *
   * @param at the plaintext
   * @param toAt where the ciphertext goes, `at` or a range apart from it; a digest ignores it
   * @param bytes 1 to {@link PIECE_BYTES}
   * @param tagAt where the tag goes
   */
  seal(nonceAt: number, at: number, toAt: number, bytes: number, tagAt: number): void;
  /**
   * Checks the payload's tag in constant time, and with a cipher puts the plaintext in place of the ciphertext.
   *
   * @returns whether the tag is right; when it is not, the payload's bytes are of no use
   */
  open(nonceAt: number, at: number, bytes: number, tagAt: number): boolean;
  /** Begins a payload that comes in pieces. */
  begin(nonceAt: number): void;
  sealPiece(at: number, toAt: number, bytes: number): void;
  /** Writes the tag of the pieces. */
  finishSeal(tagAt: number): void;
  openPiece(at: number, bytes: number): void;
  /** As {@link open}, of the pieces. */
  finishOpen(tagAt: number): boolean;
  /** Seals the 48 bytes of a header in place, bound to the payload tag right behind it, and writes its tag behind that. */
  sealHeader(nonceAt: number, at: number): void;
  /** Opens in place what {@link sealHeader} has made. */
  openHeader(nonceAt: number, at: number): boolean;
  /** Wipes the keys and gives back what the guard holds. */
  close(): void;
}

/** The primitives of the Noise handshake (Noise specification, revision 34, sections 4 and 12). Control plane. */
export interface NoisePrimitives {
  /** X25519 (RFC 7748): the public key of a private one, 32 bytes each. */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /** X25519: the shared secret, or null when it is all zero, which no honest peer's key gives. */
  sharedSecret(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | null;
  /** BLAKE2s (RFC 7693), 32 bytes. */
  hash(data: Uint8Array): Uint8Array;
  /** HMAC (RFC 2104) with BLAKE2s, 32 bytes. */
  hmac(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** ChaCha20-Poly1305 (RFC 8439): ciphertext and tag. The nonce is the counter, a small integer. */
  seal(key: Uint8Array, nonce: number, associated: Uint8Array, plaintext: Uint8Array): Uint8Array;
  /** ChaCha20-Poly1305: the plaintext, or null when the tag is wrong. */
  open(key: Uint8Array, nonce: number, associated: Uint8Array, ciphertext: Uint8Array): Uint8Array | null;
}

/** All cryptography of one thread. */
export interface Cryptography {
  /** Numbers of the ciphers that {@link makeGuard} can make; their order means nothing. */
  readonly ciphers: readonly number[];
  readonly noise: NoisePrimitives;
  /**
   * Makes the guard of one direction.
   *
   * @param cipher a number of `ciphers`, or NONE
   * @param digest what tags are with cipher NONE; else NONE
   * @param keyed whether `setKeys` is called before the first frame: always with a cipher and with HMAC
   * @param scratchAt arena offset of {@link GUARD_SCRATCH_BYTES} of its own, a multiple of 64
   */
  makeGuard(cipher: number, digest: number, keyed: boolean, scratchAt: number): FrameGuard;
}
