/**
 * Guards whose cipher or HMAC is that of the system's libcrypto.
 *
 * @module
 */
import {
  AEAD_TAG_BYTES,
  CIPHER_SCRATCH_BYTES,
  CipherContext,
  type Libcrypto,
  NONCE_BYTES,
  Sha256,
  SHA256_BYTES,
  SHA256_STATE_BYTES,
} from "../ffi/libcrypto.ts";
import { assert } from "../protocol/assert.ts";
import { type FrameGuard, GUARD_SCRATCH_BYTES, KEY_BYTES, PIECE_BYTES } from "../protocol/guard.ts";
import { Cipher, Digest, HEADER_BYTES } from "../protocol/wire.ts";
import type { Core } from "../wasm/core.ts";

/** What a guard is in the middle of. */
const Phase = { UNKEYED: 0, IDLE: 1, BEGUN: 2, SEALING: 3, OPENING: 4, CLOSED: 5 } as const;

/** Bytes of a block of SHA-256, to which HMAC pads its key (RFC 2104). */
const SHA256_BLOCK_BYTES = 64;
/** What HMAC adds to its key for the inner and for the outer digest (RFC 2104). */
const INNER_PAD = 0x36;
const OUTER_PAD = 0x5c;

/**
 * Makes a guard; the arguments are those of `Cryptography.makeGuard`.
 *
 * @param cipher CHACHA20_POLY1305 or AES_256_GCM; or NONE, and then `digest` is HMAC_SHA_256
 * @param onClose is told of the guard's end, once
 */
export function makeOpenSslGuard(
  library: Libcrypto,
  core: Core,
  cipher: number,
  digest: number,
  scratchAt: number,
  onClose: (guard: FrameGuard) => void = () => {},
): FrameGuard {
  assert(
    scratchAt % 64 === 0 && core.holds(scratchAt, GUARD_SCRATCH_BYTES),
    "a guard's scratch is aligned free memory",
  );
  if (cipher !== Cipher.NONE) return new CipherGuard(library, core, cipher, scratchAt, onClose);
  assert(digest === Digest.HMAC_SHA_256, "the digest is one that goes through the library");
  return new HmacGuard(library, core, scratchAt, onClose);
}

/** What both guards refuse: the library trusts its arguments, and would work on any memory of the process. */
abstract class OpenSslGuard {
  protected readonly core: Core;
  protected readonly scratchAt: number;
  protected phase: number = Phase.UNKEYED;
  readonly #onClose: (guard: FrameGuard) => void;

  constructor(core: Core, scratchAt: number, onClose: (guard: FrameGuard) => void) {
    this.core = core;
    this.scratchAt = scratchAt;
    this.#onClose = onClose;
  }

  /** Gives back what the library holds. */
  protected abstract release(): void;

  close(): void {
    if (this.phase === Phase.CLOSED) return;
    this.phase = Phase.CLOSED;
    this.core.bytes.fill(0, this.scratchAt, this.scratchAt + GUARD_SCRATCH_BYTES);
    this.release();
    this.#onClose(this as unknown as FrameGuard);
  }

  protected checkKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    assert(headerKey.length === KEY_BYTES && payloadKey.length === KEY_BYTES, "a key has 32 bytes");
    assert(
      this.phase === Phase.UNKEYED || this.phase === Phase.IDLE,
      "keys are set between two payloads, before close",
    );
  }

  /** Without a key the library would use whatever it has. */
  protected checkKeyed(): void {
    assert(this.phase !== Phase.UNKEYED && this.phase !== Phase.CLOSED, "a guard is used between setKeys and close");
  }

  protected checkPiece(at: number, bytes: number): void {
    assert(bytes >= 1 && bytes <= PIECE_BYTES, "a piece has 1 to 65536 bytes");
    this.checkRange(at, bytes);
  }

  protected checkRange(at: number, bytes: number): void {
    assert(this.core.holds(at, bytes), "a guard works on free memory");
  }
}

/** Offsets in a cipher guard's scratch. */
const CipherAt = { HEADER: 0, PAYLOAD: CIPHER_SCRATCH_BYTES, KEY: 2 * CIPHER_SCRATCH_BYTES } as const;

/** Seals with a cipher: two contexts, since headers are sealed between the pieces of a payload. */
class CipherGuard extends OpenSslGuard implements FrameGuard {
  readonly tagBytes = AEAD_TAG_BYTES;
  readonly encrypts = true;
  readonly #header: CipherContext;
  readonly #payload: CipherContext;
  readonly #headerNonceAt: number;
  readonly #payloadNonceAt: number;
  /** Whether the counter stands in the nonce in big-endian order (SPEC.md, 4.3). */
  readonly #isBigEndian: boolean;

  constructor(
    library: Libcrypto,
    core: Core,
    cipher: number,
    scratchAt: number,
    onClose: (guard: FrameGuard) => void,
  ) {
    super(core, scratchAt, onClose);
    assert(cipher === Cipher.CHACHA20_POLY1305 || cipher === Cipher.AES_256_GCM, "the cipher is one that there is");
    this.#isBigEndian = cipher === Cipher.AES_256_GCM;
    const evp = this.#isBigEndian ? library.aes256Gcm : library.chacha20Poly1305;
    this.#headerNonceAt = scratchAt + CipherAt.HEADER;
    this.#payloadNonceAt = scratchAt + CipherAt.PAYLOAD;
    this.#header = new CipherContext(library, evp, core.address, this.#headerNonceAt);
    this.#payload = new CipherContext(library, evp, core.address, this.#payloadNonceAt);
  }

  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    this.checkKeys(headerKey, payloadKey);
    const { bytes } = this.core;
    const keyAt = this.scratchAt + CipherAt.KEY;
    bytes.set(headerKey, keyAt);
    this.#header.setKey(keyAt);
    this.#payload.setKey(keyAt);
    bytes.fill(0, keyAt, keyAt + KEY_BYTES);
    this.phase = Phase.IDLE;
  }

  seal(nonceAt: number, at: number, toAt: number, bytes: number, tagAt: number): void {
    this.begin(nonceAt);
    this.sealPiece(at, toAt, bytes);
    this.finishSeal(tagAt);
  }

  open(nonceAt: number, at: number, bytes: number, tagAt: number): boolean {
    this.begin(nonceAt);
    this.openPiece(at, bytes);
    return this.finishOpen(tagAt);
  }

  begin(nonceAt: number): void {
    this.checkKeyed();
    this.#setNonce(this.#payloadNonceAt, nonceAt);
    this.phase = Phase.BEGUN;
  }

  sealPiece(at: number, toAt: number, bytes: number): void {
    this.checkPiece(at, bytes);
    this.checkPiece(toAt, bytes);
    this.#enter(Phase.SEALING);
    this.#payload.update(at, toAt, bytes);
  }

  finishSeal(tagAt: number): void {
    assert(this.phase === Phase.SEALING, "a payload is being sealed");
    this.checkRange(tagAt, AEAD_TAG_BYTES);
    this.phase = Phase.IDLE;
    this.#payload.tag(tagAt);
  }

  openPiece(at: number, bytes: number): void {
    this.checkPiece(at, bytes);
    this.#enter(Phase.OPENING);
    this.#payload.update(at, at, bytes);
  }

  finishOpen(tagAt: number): boolean {
    assert(this.phase === Phase.OPENING, "a payload is being opened");
    this.checkRange(tagAt, AEAD_TAG_BYTES);
    this.phase = Phase.IDLE;
    return this.#payload.isTag(tagAt);
  }

  sealHeader(nonceAt: number, at: number): void {
    this.#beginHeader(nonceAt, at, true);
    this.#header.tag(at + HEADER_BYTES + AEAD_TAG_BYTES);
  }

  openHeader(nonceAt: number, at: number): boolean {
    this.#beginHeader(nonceAt, at, false);
    return this.#header.isTag(at + HEADER_BYTES + AEAD_TAG_BYTES);
  }

  protected release(): void {
    this.#header.close();
    this.#payload.close();
  }

  #beginHeader(nonceAt: number, at: number, isSealing: boolean): void {
    this.checkKeyed();
    this.checkRange(at, HEADER_BYTES + 2 * AEAD_TAG_BYTES);
    this.#setNonce(this.#headerNonceAt, nonceAt);
    this.#header.begin(isSealing);
    this.#header.associate(at + HEADER_BYTES, AEAD_TAG_BYTES);
    this.#header.update(at, at, HEADER_BYTES);
  }

  /** The first piece says whether the payload is sealed or opened; the others go on with it. */
  #enter(phase: typeof Phase.SEALING | typeof Phase.OPENING): void {
    if (this.phase === Phase.BEGUN) {
      this.#payload.begin(phase === Phase.SEALING);
      this.phase = phase;
    }
    assert(this.phase === phase, "a payload has begun, and is either sealed or opened");
  }

  /** Four zero bytes, then the counter. */
  #setNonce(toAt: number, nonceAt: number): void {
    this.checkRange(nonceAt, NONCE_BYTES - 4);
    const { view } = this.core;
    const low = view.getUint32(nonceAt, true);
    const high = view.getUint32(nonceAt + 4, true);
    view.setUint32(toAt, 0, true);
    view.setUint32(toAt + 4, this.#isBigEndian ? high : low, !this.#isBigEndian);
    view.setUint32(toAt + 8, this.#isBigEndian ? low : high, !this.#isBigEndian);
  }
}

/** Offsets in an HMAC guard's scratch: states of SHA-256, made from the keys or at work, a digest, a padded key. */
const HmacAt = {
  HEADER_INNER: 0,
  HEADER_OUTER: SHA256_STATE_BYTES,
  PAYLOAD_INNER: 2 * SHA256_STATE_BYTES,
  PAYLOAD_OUTER: 3 * SHA256_STATE_BYTES,
  HEADER_WORK: 4 * SHA256_STATE_BYTES,
  PAYLOAD_WORK: 5 * SHA256_STATE_BYTES,
  DIGEST: 6 * SHA256_STATE_BYTES,
  BLOCK: 6 * SHA256_STATE_BYTES + SHA256_BYTES,
} as const;

/**
 * Tags with HMAC-SHA-256. Both passes of HMAC begin with a block that only depends on the key: the states behind it are
 * made once a key, and copied for each tag.
 */
class HmacGuard extends OpenSslGuard implements FrameGuard {
  readonly tagBytes = SHA256_BYTES;
  readonly encrypts = false;
  readonly #sha256: Sha256;

  constructor(library: Libcrypto, core: Core, scratchAt: number, onClose: (guard: FrameGuard) => void) {
    super(core, scratchAt, onClose);
    this.#sha256 = new Sha256(library, core.address);
  }

  setKeys(headerKey: Uint8Array, payloadKey: Uint8Array): void {
    this.checkKeys(headerKey, payloadKey);
    this.#prepare(HmacAt.HEADER_INNER, headerKey, INNER_PAD);
    this.#prepare(HmacAt.HEADER_OUTER, headerKey, OUTER_PAD);
    this.#prepare(HmacAt.PAYLOAD_INNER, payloadKey, INNER_PAD);
    this.#prepare(HmacAt.PAYLOAD_OUTER, payloadKey, OUTER_PAD);
    this.phase = Phase.IDLE;
  }

  seal(nonceAt: number, at: number, _toAt: number, bytes: number, tagAt: number): void {
    this.begin(nonceAt);
    this.sealPiece(at, at, bytes);
    this.finishSeal(tagAt);
  }

  open(nonceAt: number, at: number, bytes: number, tagAt: number): boolean {
    this.begin(nonceAt);
    this.openPiece(at, bytes);
    return this.finishOpen(tagAt);
  }

  begin(_nonceAt: number): void {
    this.checkKeyed();
    this.#restart(HmacAt.PAYLOAD_WORK, HmacAt.PAYLOAD_INNER);
    this.phase = Phase.BEGUN;
  }

  sealPiece(at: number, _toAt: number, bytes: number): void {
    this.openPiece(at, bytes);
  }

  finishSeal(tagAt: number): void {
    assert(this.phase === Phase.BEGUN, "a payload has begun");
    this.checkRange(tagAt, SHA256_BYTES);
    this.phase = Phase.IDLE;
    this.#finish(HmacAt.PAYLOAD_WORK, HmacAt.PAYLOAD_OUTER, tagAt);
  }

  openPiece(at: number, bytes: number): void {
    assert(this.phase === Phase.BEGUN, "a payload has begun");
    this.checkPiece(at, bytes);
    this.#sha256.update(this.scratchAt + HmacAt.PAYLOAD_WORK, at, bytes);
  }

  finishOpen(tagAt: number): boolean {
    this.checkRange(tagAt, SHA256_BYTES);
    const digestAt = this.scratchAt + HmacAt.DIGEST;
    this.finishSeal(digestAt);
    return this.#sha256.isEqual(digestAt, tagAt);
  }

  sealHeader(_nonceAt: number, at: number): void {
    this.#tagHeader(at, at + HEADER_BYTES + SHA256_BYTES);
  }

  openHeader(_nonceAt: number, at: number): boolean {
    const digestAt = this.scratchAt + HmacAt.DIGEST;
    this.#tagHeader(at, digestAt);
    return this.#sha256.isEqual(digestAt, at + HEADER_BYTES + SHA256_BYTES);
  }

  /** All that there is lies in the scratch. */
  protected release(): void {}

  #tagHeader(at: number, tagAt: number): void {
    this.checkKeyed();
    this.checkRange(at, HEADER_BYTES + 2 * SHA256_BYTES);
    this.#restart(HmacAt.HEADER_WORK, HmacAt.HEADER_INNER);
    this.#sha256.update(this.scratchAt + HmacAt.HEADER_WORK, at, HEADER_BYTES + SHA256_BYTES);
    this.#finish(HmacAt.HEADER_WORK, HmacAt.HEADER_OUTER, tagAt);
  }

  /** The state behind the block that is the key with a pad. */
  #prepare(stateAt: number, key: Uint8Array, pad: number): void {
    const { bytes } = this.core;
    const blockAt = this.scratchAt + HmacAt.BLOCK;
    bytes.fill(pad, blockAt, blockAt + SHA256_BLOCK_BYTES);
    for (let i = 0; i < KEY_BYTES; i++) bytes[blockAt + i] = key[i] ^ pad;
    this.#sha256.init(this.scratchAt + stateAt);
    this.#sha256.update(this.scratchAt + stateAt, blockAt, SHA256_BLOCK_BYTES);
    bytes.fill(0, blockAt, blockAt + SHA256_BLOCK_BYTES);
  }

  #restart(workAt: number, fromAt: number): void {
    const from = this.scratchAt + fromAt;
    this.core.bytes.copyWithin(this.scratchAt + workAt, from, from + SHA256_STATE_BYTES);
  }

  /** Ends the inner digest in `tagAt`, and replaces it with the outer digest of it. */
  #finish(workAt: number, outerAt: number, tagAt: number): void {
    this.#sha256.final(this.scratchAt + workAt, tagAt);
    this.#restart(workAt, outerAt);
    this.#sha256.update(this.scratchAt + workAt, tagAt, SHA256_BYTES);
    this.#sha256.final(this.scratchAt + workAt, tagAt);
  }
}
