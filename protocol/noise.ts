/**
 * The handshake `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (Noise specification, revision 34), without input, output or
 * randomness: ephemeral private keys are given. Sections named here are those of that specification.
 *
 * ```
 * NNpsk0:
 *   -> psk, e
 *   <- e, ee
 * ```
 *
 * Both messages may carry a payload, which in DST is always empty (SPEC.md, 4.2). Control plane: it may allocate. What
 * is secret is wiped as soon as it is used up, as far as it is in arrays of this module's own.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { concat } from "./bytes.ts";
import { KEY_BYTES, type NoisePrimitives } from "./guard.ts";

const PROTOCOL_NAME = new TextEncoder().encode("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s");
/** DHLEN of 25519 (section 12.1), HASHLEN of BLAKE2s (12.5) and the bytes of a psk (9.1). */
const PUBLIC_KEY_BYTES = 32;
const HASH_BYTES = 32;
/** Bytes of ChaChaPoly's tag (12.3). */
const TAG_BYTES = 16;
/** A Noise message is no longer (section 3). */
const MESSAGE_BYTES_MAX = 65_535;
const NOTHING = new Uint8Array(0);

/** Bytes of each of the two messages without a payload: an ephemeral public key and a tag. */
export const NOISE_MESSAGE_BYTES = PUBLIC_KEY_BYTES + TAG_BYTES;

/** Keys of both directions, as one side sees them. */
export interface DirectionKeys {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
}

/**
 * HKDF (section 4.3) with BLAKE2s.
 *
 * @param chainingKey 32 bytes
 * @param input any number of bytes
 * @param count how many outputs of 32 bytes
 */
export function hkdf(
  noise: NoisePrimitives,
  chainingKey: Uint8Array,
  input: Uint8Array,
  count: 2 | 3,
): Uint8Array[] {
  const temporary = noise.hmac(chainingKey, input);
  const outputs = [noise.hmac(temporary, Uint8Array.of(1))];
  while (outputs.length < count) {
    const message = concat(outputs[outputs.length - 1], Uint8Array.of(outputs.length + 1));
    outputs.push(noise.hmac(temporary, message));
    message.fill(0);
  }
  temporary.fill(0);
  return outputs;
}

/** A SymmetricState and its CipherState (sections 5.1 and 5.2), in the order in which this one pattern needs them. */
class SymmetricState {
  hash: Uint8Array;
  readonly #noise: NoisePrimitives;
  #chainingKey: Uint8Array;
  #key: Uint8Array | null = null;
  #nonce = 0;

  constructor(noise: NoisePrimitives, prologue: Uint8Array) {
    assert(PROTOCOL_NAME.length > HASH_BYTES, "the protocol's name is too long to stand for itself");
    this.#noise = noise;
    this.hash = noise.hash(PROTOCOL_NAME);
    this.#chainingKey = this.hash.slice();
    this.mixHash(prologue);
  }

  mixHash(data: Uint8Array): void {
    const message = concat(this.hash, data);
    this.hash = this.#noise.hash(message);
    message.fill(0);
  }

  mixKey(input: Uint8Array): void {
    const [chainingKey, key] = hkdf(this.#noise, this.#chainingKey, input, 2);
    this.#replace(chainingKey, key);
  }

  mixKeyAndHash(input: Uint8Array): void {
    const [chainingKey, hash, key] = hkdf(this.#noise, this.#chainingKey, input, 3);
    this.mixHash(hash);
    hash.fill(0);
    this.#replace(chainingKey, key);
  }

  /** Token `e` of a pattern with a psk: the public key goes into the key too (section 9.2). */
  mixEphemeral(publicKey: Uint8Array): void {
    this.mixHash(publicKey);
    this.mixKey(publicKey);
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    assert(this.#key !== null, "a key was mixed in");
    const ciphertext = this.#noise.seal(this.#key, this.#nonce++, this.hash, plaintext);
    this.mixHash(ciphertext);
    return ciphertext;
  }

  decryptAndHash(ciphertext: Uint8Array): Uint8Array | null {
    assert(this.#key !== null, "a key was mixed in");
    const plaintext = this.#noise.open(this.#key, this.#nonce++, this.hash, ciphertext);
    if (plaintext !== null) this.mixHash(ciphertext);
    return plaintext;
  }

  /** Split: the keys of the initiator's and of the responder's direction. The state is wiped. */
  split(): [Uint8Array, Uint8Array] {
    const [first, second] = hkdf(this.#noise, this.#chainingKey, NOTHING, 2);
    this.wipe();
    return [first, second];
  }

  wipe(): void {
    this.#chainingKey.fill(0);
    this.#key?.fill(0);
    this.#key = null;
  }

  #replace(chainingKey: Uint8Array, key: Uint8Array): void {
    this.wipe();
    this.#chainingKey = chainingKey;
    this.#key = key;
    this.#nonce = 0;
  }
}

const Stage = { FIRST: 0, SECOND: 1, SPLIT: 2, OVER: 3 } as const;

/** What both sides have in common (HandshakeState, section 5.3). */
class Handshake {
  protected readonly noise: NoisePrimitives;
  protected readonly state: SymmetricState;
  protected readonly ephemeral: Uint8Array;
  protected stage: number = Stage.FIRST;

  /**
   * @param prologue what both sides have to agree on; not secret
   * @param preSharedKey of {@link KEY_BYTES}; it stays the caller's
   * @param ephemeral the ephemeral private key, of {@link KEY_BYTES}: fresh random bytes, which are wiped after their use
   */
  constructor(noise: NoisePrimitives, prologue: Uint8Array, preSharedKey: Uint8Array, ephemeral: Uint8Array) {
    assert(preSharedKey.length === KEY_BYTES, "a pre-shared key has 32 bytes");
    assert(ephemeral.length === KEY_BYTES, "an ephemeral private key has 32 bytes");
    this.noise = noise;
    this.ephemeral = ephemeral;
    this.state = new SymmetricState(noise, prologue);
    // Token `psk`, with which the first message begins.
    this.state.mixKeyAndHash(preSharedKey);
  }

  /** The hash of everything so far (section 11.2): after both messages the same at both sides, and unique. */
  get hash(): Uint8Array {
    return this.state.hash;
  }

  /** Wipes what is secret. The handshake is of no use afterwards. */
  wipe(): void {
    this.ephemeral.fill(0);
    this.state.wipe();
    this.stage = Stage.OVER;
  }

  protected enter(stage: number): void {
    assert(this.stage === stage, "the messages come in the pattern's order");
    this.stage = stage + 1;
  }

  /** Sends `e`; its public key begins the message. */
  protected writeEphemeral(): Uint8Array {
    const publicKey = this.noise.publicKey(this.ephemeral);
    this.state.mixEphemeral(publicKey);
    return publicKey;
  }

  /** Token `ee`: false when the peer's key is one with which every secret is the same (section 12.1). */
  protected mixSharedSecret(publicKey: Uint8Array): boolean {
    const secret = this.noise.sharedSecret(this.ephemeral, publicKey);
    this.ephemeral.fill(0);
    if (secret === null) return false;
    this.state.mixKey(secret);
    secret.fill(0);
    return true;
  }

  protected sealed(publicKey: Uint8Array, payload: Uint8Array): Uint8Array {
    const message = concat(publicKey, this.state.encryptAndHash(payload));
    assert(message.length <= MESSAGE_BYTES_MAX, "a Noise message fits");
    return message;
  }

  /** A message that does not authenticate ends the handshake. */
  protected failed(): null {
    this.wipe();
    return null;
  }
}

/**
 * The side that speaks first: the client.
 *
 * @example
 * ```ts
 * const initiator = new NoiseInitiator(noise, prologue, preSharedKey, ephemeral);
 * send(initiator.writeMessage());
 * if (initiator.readMessage(received) === null) return close();
 * const { send: sendKey, receive: receiveKey } = initiator.split();
 * ```
 */
export class NoiseInitiator extends Handshake {
  /** `-> psk, e`: the message, {@link NOISE_MESSAGE_BYTES} more than the payload. */
  writeMessage(payload: Uint8Array = NOTHING): Uint8Array {
    this.enter(Stage.FIRST);
    return this.sealed(this.writeEphemeral(), payload);
  }

  /** `<- e, ee`: the payload, or null if the message does not authenticate; then the handshake is over. */
  readMessage(message: Uint8Array): Uint8Array | null {
    this.enter(Stage.SECOND);
    if (!isMessage(message)) return this.failed();
    const publicKey = message.subarray(0, PUBLIC_KEY_BYTES);
    this.state.mixEphemeral(publicKey);
    if (!this.mixSharedSecret(publicKey)) return this.failed();
    return this.state.decryptAndHash(message.subarray(PUBLIC_KEY_BYTES)) ?? this.failed();
  }

  /** The keys of both directions, which are the caller's to wipe. The handshake is over. */
  split(): DirectionKeys {
    this.enter(Stage.SPLIT);
    const [send, receive] = this.state.split();
    return { send, receive };
  }
}

/** The side that answers: the exporter. */
export class NoiseResponder extends Handshake {
  #peer: Uint8Array | null = null;

  /** `-> psk, e`: the payload, or null if the message does not authenticate; then the handshake is over. */
  readMessage(message: Uint8Array): Uint8Array | null {
    this.enter(Stage.FIRST);
    if (!isMessage(message)) return this.failed();
    this.#peer = message.slice(0, PUBLIC_KEY_BYTES);
    this.state.mixEphemeral(this.#peer);
    return this.state.decryptAndHash(message.subarray(PUBLIC_KEY_BYTES)) ?? this.failed();
  }

  /** `<- e, ee`: the message, or null if the peer's key gives no shared secret; then the handshake is over. */
  writeMessage(payload: Uint8Array = NOTHING): Uint8Array | null {
    this.enter(Stage.SECOND);
    assert(this.#peer !== null, "the first message was read");
    const publicKey = this.writeEphemeral();
    if (!this.mixSharedSecret(this.#peer)) return this.failed();
    return this.sealed(publicKey, payload);
  }

  /** The keys of both directions, which are the caller's to wipe. The handshake is over. */
  split(): DirectionKeys {
    this.enter(Stage.SPLIT);
    const [receive, send] = this.state.split();
    return { send, receive };
  }
}

function isMessage(message: Uint8Array): boolean {
  return message.length >= NOISE_MESSAGE_BYTES && message.length <= MESSAGE_BYTES_MAX;
}
