/**
 * The client's side of a connection until it is a lane: hello, the handshake where it has a key, then LIST, DESCRIBE,
 * OPEN and JOIN, one at a time (SPEC.md, sections 2, 4.2 and 6).
 *
 * @module
 */
import { assert } from "./assert.ts";
import { concat } from "./bytes.ts";
import { type ClientHelloConfig, decodeHelloAnswer, type DoorKey, encodeHello, isAcceptable } from "./client_hello.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import {
  decodeDescription,
  decodeList,
  decodeRefusal,
  decodeUsableGrant,
  encodeDescribe,
  encodeJoin,
  encodeList,
  encodeOpen,
} from "./door_message.ts";
import { ProtocolError, protocolErrorText } from "./error.ts";
import {
  type Description,
  type Grant,
  type Holder,
  IDENTITY_BYTES,
  type JoinRequest,
  type ListEntry,
  type OpenRequest,
} from "./grant.ts";
import { type Cryptography, KEY_BYTES, PIECE_BYTES } from "./guard.ts";
import { CONTROL_BYTES_MAX, HELLO_BODY_BYTES_MAX } from "./limits.ts";
import { type DirectionKeys, NOISE_MESSAGE_BYTES, NoiseInitiator } from "./noise.ts";
import { Status } from "./status.ts";
import { isName } from "./tlv.ts";
import {
  Cipher,
  frameFlags,
  frameLane,
  frameLength,
  framePayloadBytes,
  frameSequence,
  frameSlot,
  frameStatus,
  FrameType,
  frameType,
  HeaderAt,
  HELLO_BYTES,
  HELLO_REPLY_MAGIC,
  HelloAt,
  isZero64,
  KEY_ID_BYTES,
  PREFIX_BYTES_MAX,
  REPLY,
  tagBytesOf,
  VERSION,
  writeHeader,
} from "./wire.ts";

/** Bytes of the TLVs of the longest request: an OPEN with two longest names takes below 800. */
const REQUEST_BYTES_MAX = 1024;

/** Bytes of the arena that a {@link ClientDoor} needs: for its codec, one request and one answer. */
export const CLIENT_DOOR_SCRATCH_BYTES = CODEC_SCRATCH_BYTES + PREFIX_BYTES_MAX + REQUEST_BYTES_MAX + CONTROL_BYTES_MAX;

/** What a client accepts, and what its handshake needs. */
export interface ClientDoorConfig extends ClientHelloConfig {
  /** With a key: `KEY_BYTES` of fresh randomness, for this one connection. The door wipes them. */
  readonly ephemeral: Uint8Array;
}

/** Whom a {@link ClientDoor} tells what came of it. From within each call the next request may be made. */
export interface ClientDoorHost {
  /** Queues bytes of the arena for sending. */
  transmit(at: number, bytes: number): void;
  /** Hello is done: requests may be made. */
  ready(): void;
  /** Answer to LIST; `more`: ask again after the last entry, of which there is at least one then. */
  listed(entries: readonly ListEntry[], more: boolean): void;
  /** Answer to DESCRIBE. */
  described(description: Description): void;
  /** Answer to OPEN or JOIN: the connection is a lane now, and what follows belongs to a `ClientLane`. */
  granted(grant: Grant): void;
  /** The answer has an error; `text` is for people. Another request may be made. */
  refused(status: number, text: string, current: Holder | null): void;
  /** OPEN or JOIN waits until this many requests have finished. The exporter is alive. */
  fencing(executing: number): void;
  /**
   * The connection is of no use and ends; {@link ClientDoor.error} says why.
   *
   * @param text for people
   * @param status the status with which the exporter refused the hello; 0 for a protocol error
   */
  failed(text: string, status: number): void;
}

const State = { NEW: 0, HELLO: 1, NOISE: 2, READY: 3, WAITING: 4, GRANTED: 5, ENDED: 6 } as const;

/**
 * Hello, handshake and door phase at the client.
 *
 * @example
 * ```ts
 * const door = new ClientDoor(memory, cryptography, scratchAt, { ciphers, digests, key, ephemeral }, host);
 * stream.start(door);
 * door.start(); // host.ready() is called when the exporter has answered: then door.open({...})
 * ```
 */
export class ClientDoor implements StreamConsumer {
  headerBytes = HELLO_BYTES;
  payloadAt = -1;
  payloadBytes = 0;
  /** A `ProtocolError` once the door has answered CLOSE; 0 before. */
  error: number = ProtocolError.NONE;
  /** The ciphers that the exporter accepts, where it has refused what was offered with NO_COMMON_ALGORITHM. */
  acceptedCiphers: readonly number[] = [];
  /** The digests, likewise. */
  acceptedDigests: readonly number[] = [];
  readonly #memory: Memory;
  readonly #cryptography: Cryptography;
  readonly #config: ClientDoorConfig;
  readonly #host: ClientDoorHost;
  readonly #codecAt: number;
  readonly #outAt: number;
  readonly #inAt: number;
  /** The hello, then the answer too: what the handshake has to agree on. */
  #prologue: Uint8Array = new Uint8Array(0);
  #handshake: NoiseInitiator | null = null;
  #keys: DirectionKeys | null = null;
  #codec: FrameCodec | null = null;
  #cipher = -1;
  #digest = -1;
  #state: number = State.NEW;
  /** Type of the request that awaits its answer. */
  #request = 0;
  #status: number = Status.OK;
  #after = "";
  /** The access that OPEN asked for, or -1: a JOIN leaves it as it is. */
  #access = -1;

  /** @param scratchAt arena offset of {@link CLIENT_DOOR_SCRATCH_BYTES} that nobody else uses meanwhile, a multiple of 64 */
  constructor(
    memory: Memory,
    cryptography: Cryptography,
    scratchAt: number,
    config: ClientDoorConfig,
    host: ClientDoorHost,
  ) {
    assert(CONTROL_BYTES_MAX <= PIECE_BYTES, "a message at the door is sealed and opened in one call");
    const { ciphers, digests, key } = config;
    assert(ciphers.length > 0, "at least one cipher is acceptable, or none");
    assert(
      ciphers.every((cipher) => cipher === Cipher.NONE || (key !== null && cryptography.ciphers.includes(cipher))),
      "the ciphers are there, and have a key",
    );
    assert(digests.length > 0 || !ciphers.includes(Cipher.NONE), "at least one digest is acceptable");
    assert(digests.every((digest) => tagBytesOf(digest) >= 0), "the acceptable digests exist");
    assert(
      key === null || (key.id.length === KEY_ID_BYTES && key.secret.length === KEY_BYTES),
      "a key has 32 bytes, and its id 16",
    );
    assert(key === null || config.ephemeral.length === KEY_BYTES, "a handshake has an ephemeral key");
    this.#memory = memory;
    this.#cryptography = cryptography;
    this.#config = config;
    this.#host = host;
    this.#codecAt = scratchAt;
    this.#outAt = scratchAt + CODEC_SCRATCH_BYTES;
    this.#inAt = this.#outAt + PREFIX_BYTES_MAX + REQUEST_BYTES_MAX;
  }

  /** The cipher that was agreed on, once `ready` was called. */
  get cipher(): number {
    return this.#cipher;
  }

  /** The digest that was agreed on, once `ready` was called; NONE with a cipher. */
  get digest(): number {
    return this.#digest;
  }

  /**
   * Whether the exporter owes its part of the handshake. One that ends the connection now does not have the key, does not
   * admit it, or has met somebody on the way who changes what is said: it never tells which.
   */
  get isAuthenticating(): boolean {
    return this.#state === State.NOISE;
  }

  /** Sends the hello. */
  start(): void {
    assert(this.#state === State.NEW, "the hello is sent once");
    this.#prologue = encodeHello(this.#config);
    this.#memory.bytes.set(this.#prologue, this.#outAt);
    this.#state = State.HELLO;
    this.#host.transmit(this.#outAt, this.#prologue.length);
  }

  /** Asks for the exports whose names come after this one; the empty string: from the first on. */
  list(after: string): void {
    assert(after === "" || isName(after), "LIST goes on after a name");
    this.#after = after;
    this.#send(FrameType.LIST, encodeList(after));
  }

  /** Asks what an export is like. */
  describe(name: string): void {
    assert(isName(name), "an export has a name");
    this.#send(FrameType.DESCRIBE, encodeDescribe(name));
  }

  /** Asks for a session. */
  open(request: OpenRequest): void {
    assert(isName(request.export) && isName(request.holder), "export and holder have names");
    assert(isSessionId(request.session), "a session id is 16 bytes, not all zero");
    this.#access = request.access;
    this.#send(FrameType.OPEN, encodeOpen(request));
  }

  /** Asks to connect a lane of a session. */
  join(request: JoinRequest): void {
    assert(isSessionId(request.session), "a session id is 16 bytes, not all zero");
    assert(request.generation >= 1, "generations count from 1");
    this.#access = -1;
    this.#send(FrameType.JOIN, encodeJoin(request));
  }

  /**
   * What the lane's codec goes on with, once, after `granted`.
   *
   * @returns its keys are those that {@link close} wipes: the lane's codec copies them before
   */
  handoff(): Handoff {
    assert(this.#state === State.GRANTED && this.#codec !== null, "a lane was granted");
    const { sent, received } = this.#codec;
    // Now: the lane's codec may get the same scratch area.
    this.#closeCodec();
    return { cipher: this.#cipher, digest: this.#digest, keys: this.#keys, sent, received };
  }

  /** Wipes all keys but the pre-shared: to be called when the connection has ended, or is a lane's. Again is no harm. */
  close(): void {
    this.#state = State.ENDED;
    this.#handshake?.wipe();
    this.#handshake = null;
    this.#config.ephemeral.fill(0);
    this.#closeCodec();
    this.#keys?.send.fill(0);
    this.#keys?.receive.fill(0);
    this.#keys = null;
  }

  onHeader(at: number): Verdict {
    if (this.#state === State.HELLO) return this.#onHello(at);
    if (this.#state === State.NOISE) return this.#onNoise(at);
    assert(this.#state === State.READY || this.#state === State.WAITING, "the door is open");
    const error = this.#checkFrame(at);
    if (error !== ProtocolError.NONE) return this.#fail(error);
    if (frameType(this.#memory, at) === FrameType.FENCING) {
      this.#host.fencing(frameLength(this.#memory, at));
      return Verdict.NEXT;
    }
    this.#status = frameStatus(this.#memory, at);
    this.payloadBytes = framePayloadBytes(this.#memory, at);
    this.payloadAt = this.#inAt;
    return this.payloadBytes > 0 ? Verdict.PAYLOAD : this.#onAnswer();
  }

  onPayload(): Verdict {
    if (this.#state === State.HELLO) return this.#onHelloBody();
    assert(this.#state === State.WAITING && this.#codec !== null, "an answer is due");
    const error = this.#codec.openPayload(this.payloadAt, this.payloadBytes);
    return error === ProtocolError.NONE ? this.#onAnswer() : this.#fail(error);
  }

  #onHello(at: number): Verdict {
    const view = this.#memory.view;
    if (
      view.getUint32(at + HelloAt.MAGIC, true) !== HELLO_REPLY_MAGIC[0] ||
      view.getUint32(at + HelloAt.MAGIC + 4, true) !== HELLO_REPLY_MAGIC[1]
    ) return this.#fail(ProtocolError.MAGIC);
    const version = view.getUint16(at + HelloAt.VERSION_LOW, true);
    const bodyBytes = view.getUint32(at + HelloAt.BODY_BYTES, true);
    if (version > VERSION) return this.#fail(ProtocolError.ALGORITHM);
    // A body there must be: it has the status.
    if (
      view.getUint16(at + HelloAt.VERSION_HIGH, true) !== 0 || bodyBytes === 0 || bodyBytes > HELLO_BODY_BYTES_MAX
    ) return this.#fail(ProtocolError.HELLO);
    this.#status = version === VERSION ? Status.OK : Status.VERSION;
    this.#prologue = concat(this.#prologue, this.#memory.bytes.subarray(at, at + HELLO_BYTES));
    this.payloadAt = this.#inAt;
    this.payloadBytes = bodyBytes;
    return Verdict.PAYLOAD;
  }

  #onHelloBody(): Verdict {
    const body = this.#received();
    const answer = decodeHelloAnswer(body);
    if (answer === null) return this.#fail(ProtocolError.HELLO);
    if (answer.status !== Status.OK) {
      if (answer.status === Status.NO_COMMON_ALGORITHM) {
        this.acceptedCiphers = answer.ciphers;
        this.acceptedDigests = answer.digests;
      }
      return this.#end(ProtocolError.REFUSED, answer.text, answer.status);
    }
    // Version 0 with status OK is no answer.
    if (this.#status !== Status.OK) return this.#fail(ProtocolError.HELLO);
    if (!isAcceptable(answer.cipher, answer.digest, this.#config)) return this.#fail(ProtocolError.ALGORITHM);
    this.#cipher = answer.cipher;
    this.#digest = answer.digest;
    if (this.#config.key === null) return this.#enterDoor();
    this.#beginHandshake(concat(this.#prologue, body), this.#config.key);
    return Verdict.NEXT;
  }

  /** Sends the client's message of the handshake. The hello is gone from the buffer: its answer is there. */
  #beginHandshake(prologue: Uint8Array, key: DoorKey): void {
    this.#handshake = new NoiseInitiator(this.#cryptography.noise, prologue, key.secret, this.#config.ephemeral);
    const message = this.#handshake.writeMessage();
    this.#memory.bytes.set(message, this.#outAt);
    this.headerBytes = NOISE_MESSAGE_BYTES;
    this.#state = State.NOISE;
    this.#host.transmit(this.#outAt, message.length);
  }

  /** The exporter's message of the handshake. */
  #onNoise(at: number): Verdict {
    const handshake = this.#handshake!;
    const message = this.#memory.bytes.slice(at, at + NOISE_MESSAGE_BYTES);
    if (handshake.readMessage(message) === null) return this.#fail(ProtocolError.AUTHENTICATION);
    this.#keys = handshake.split();
    this.#handshake = null;
    return this.#enterDoor();
  }

  #enterDoor(): Verdict {
    this.#prologue = new Uint8Array(0);
    const handoff = { cipher: this.#cipher, digest: this.#digest, keys: this.#keys, sent: 0, received: 0 };
    this.#codec = new FrameCodec(this.#memory, this.#cryptography, this.#codecAt, handoff);
    this.headerBytes = this.#codec.prefixBytes;
    this.#state = State.READY;
    this.#host.ready();
    return Verdict.NEXT;
  }

  /** Everything about an answer's header, in the order of SPEC.md, section 4. */
  #checkFrame(at: number): number {
    const memory = this.#memory;
    const error = this.#codec!.openPrefix(at);
    if (error !== ProtocolError.NONE) return error;
    if (frameLane(memory, at) !== 0) return ProtocolError.LANE;
    if (this.#state !== State.WAITING) return ProtocolError.UNEXPECTED_REPLY;
    const isFencing = frameType(memory, at) === FrameType.FENCING;
    const isPending = this.#request === FrameType.OPEN || this.#request === FrameType.JOIN;
    if (isFencing ? !isPending : frameType(memory, at) !== (this.#request | REPLY)) return ProtocolError.TYPE;
    if ((frameFlags(memory, at) | frameSlot(memory, at) | frameSequence(memory, at)) !== 0) return ProtocolError.FIELD;
    if (!isZero64(memory.view, at + HeaderAt.OFFSET)) return ProtocolError.FIELD;
    if (isFencing) {
      if (frameLength(memory, at) < 0 || frameStatus(memory, at) !== 0) return ProtocolError.FIELD;
      return framePayloadBytes(memory, at) === 0 ? ProtocolError.NONE : ProtocolError.PAYLOAD_BYTES;
    }
    if (!isZero64(memory.view, at + HeaderAt.LENGTH)) return ProtocolError.FIELD;
    return framePayloadBytes(memory, at) <= CONTROL_BYTES_MAX ? ProtocolError.NONE : ProtocolError.PAYLOAD_TOO_LONG;
  }

  /** The whole answer is there. */
  #onAnswer(): Verdict {
    const bytes = this.#received();
    this.#state = State.READY;
    if (this.#status !== Status.OK) {
      const refusal = decodeRefusal(bytes, this.#status);
      if (refusal === null) return this.#fail(ProtocolError.TLV);
      this.#host.refused(this.#status, refusal.text, refusal.current);
      return Verdict.NEXT;
    }
    if (this.#request === FrameType.LIST) {
      const list = decodeList(bytes, this.#after);
      if (list === null) return this.#fail(ProtocolError.TLV);
      this.#host.listed(list.entries, list.more);
    } else if (this.#request === FrameType.DESCRIBE) {
      const description = decodeDescription(bytes);
      if (description === null) return this.#fail(ProtocolError.TLV);
      this.#host.described(description);
    } else {
      const grant = decodeUsableGrant(bytes);
      if (grant === null || (this.#access >= 0 && grant.access !== this.#access)) return this.#fail(ProtocolError.TLV);
      this.#state = State.GRANTED;
      this.#host.granted(grant);
    }
    return Verdict.NEXT;
  }

  /** A copy of the payload that has arrived. */
  #received(): Uint8Array {
    return this.#memory.bytes.slice(this.#inAt, this.#inAt + this.payloadBytes);
  }

  /** The one buffer is free again: the answer to what was last sent from it is there. */
  #send(type: number, tlvs: Uint8Array): void {
    assert(this.#state === State.READY && this.#codec !== null, "door requests are made one at a time, after hello");
    assert(tlvs.length <= REQUEST_BYTES_MAX, "the request fits");
    const prefixBytes = this.#codec.prefixBytes;
    const payloadAt = this.#outAt + prefixBytes;
    this.#memory.bytes.set(tlvs, payloadAt);
    writeHeader(this.#memory, this.#outAt, type, 0, 0, 0, 0, 0, 0, tlvs.length, 0);
    this.#codec.seal(this.#outAt, payloadAt, tlvs.length);
    this.#request = type;
    this.#state = State.WAITING;
    this.#host.transmit(this.#outAt, prefixBytes + tlvs.length);
  }

  #closeCodec(): void {
    this.#codec?.close();
    this.#codec = null;
  }

  #fail(error: number): Verdict {
    return this.#end(error, protocolErrorText(error), Status.OK);
  }

  #end(error: number, text: string, status: number): Verdict {
    this.error = error;
    this.close();
    this.#host.failed(text, status);
    return Verdict.CLOSE;
  }
}

/** Whether the bytes can be the id of a session. */
function isSessionId(id: Uint8Array): boolean {
  return id.length === IDENTITY_BYTES && id.some((byte) => byte !== 0);
}
