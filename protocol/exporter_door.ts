/**
 * The exporter's end of a connection until it is a lane: hello, the handshake where the client has named a key, then
 * LIST, DESCRIBE, OPEN and JOIN (SPEC.md, sections 2, 4.2 and 6). One message is under way at a time, so one area serves
 * what is received and what is answered. Of a peer that has not authenticated itself the door holds its hello, of 512
 * bytes at most, and the answer.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { concat } from "./bytes.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import { decodeJoin, decodeOpen, encodeDescription, encodeEntries, writeHolder } from "./exporter_message.ts";
import { ProtocolError } from "./error.ts";
import {
  encodeHelloReply,
  type HelloConfig,
  type HelloOutcome,
  negotiate,
  type Offer,
  refusal,
} from "./exporter_hello.ts";
import type { Description, Holder, JoinRequest, ListEntry, OpenRequest } from "./grant.ts";
import { type Cryptography, KEY_BYTES, PIECE_BYTES } from "./guard.ts";
import { CONTROL_BYTES_MAX, DOOR_REQUESTS_MAX, HELLO_BODY_BYTES_MAX } from "./limits.ts";
import { type DirectionKeys, NOISE_MESSAGE_BYTES, NoiseResponder } from "./noise.ts";
import { Status } from "./status.ts";
import { Tlv, TlvReader, TlvWriter } from "./tlv.ts";
import {
  Cipher,
  Digest,
  frameFlags,
  frameLane,
  framePayloadBytes,
  frameSequence,
  frameSlot,
  frameStatus,
  FrameType,
  frameType,
  HeaderAt,
  HELLO_BYTES,
  HELLO_MAGIC,
  HelloAt,
  isZero64,
  REPLY,
  tagBytesOf,
  writeHeader,
} from "./wire.ts";

/** FENCING frames that can be unsent at a time: they are a second apart, and a socket takes thousands of them. */
const FENCING_FRAMES = 8;
const FENCING_STRIDE_BYTES = 128;
const FENCING_AT = CODEC_SCRATCH_BYTES;
/** Where the payload of a message begins in the scratch area; its prefix lies before it. */
const MESSAGE_AT = FENCING_AT + FENCING_FRAMES * FENCING_STRIDE_BYTES + FENCING_STRIDE_BYTES;

/** Bytes of the arena that a door needs. */
export const DOOR_SCRATCH_BYTES = MESSAGE_AT + CONTROL_BYTES_MAX;

/** What the door asks of the exporter. Control plane: it may allocate. */
export interface ExporterDoorHost {
  /** Queues bytes of the arena for sending; they stay put until they are sent. */
  transmit(at: number, bytes: number): void;
  /**
   * The pre-shared key, of `KEY_BYTES`, with this id of 16 bytes; null if there is none for this peer. It stays the
   * host's.
   */
  keyOf(id: Uint8Array): Uint8Array | null;
  /** So many random bytes that nobody can foretell, which the door wipes. */
  randomBytes(count: number): Uint8Array;
  /** The exports that this peer may see whose names follow `after`, sorted by the bytes of their names. */
  list(after: string): { entries: ListEntry[]; more: boolean };
  /** What an export is like, or null if there is none that this peer may see. */
  describe(name: string): Description | null;
  /** Asked for a session: answered by `door.refuse` or by taking the connection over with `door.handoff`. */
  open(request: OpenRequest): void;
  /** Asked for a lane: answered like `open`. */
  join(request: JoinRequest): void;
}

/** Why a peer was not authenticated. It never learns which. */
export type AuthenticationFailure = "unknown key" | "wrong key";

const State = { HELLO: 0, NOISE: 1, DOOR: 2, PENDING: 3, ENDED: 4 } as const;

/** The exporter's end of one connection, from its first byte until it is a lane or ends. */
export class ExporterDoor implements StreamConsumer {
  headerBytes: number = HELLO_BYTES;
  readonly payloadAt: number;
  payloadBytes = 0;
  /** Why the door answered CLOSE: a {@link ProtocolError}. */
  error: number = ProtocolError.NONE;
  /** What the client has offered, once its hello is read; null before, and for a hello that makes no sense. */
  offered: Offer | null = null;
  /** The id of the key that the client says it has, whether or not it has it; null where it named none. */
  claimedKeyId: Uint8Array | null = null;
  /**
   * The id of the key that the client has proved to have, by its first frame: its message of the handshake can be a copy
   * of another client's. Null before, and without a key.
   */
  keyId: Uint8Array | null = null;
  /** For the exporter's log, with the error AUTHENTICATION. */
  authentication: AuthenticationFailure | null = null;
  readonly #memory: Memory;
  readonly #cryptography: Cryptography;
  readonly #scratchAt: number;
  readonly #config: HelloConfig;
  readonly #host: ExporterDoorHost;
  #state: number = State.HELLO;
  /** The client's hello without its body; with it and the answer, once there is one. */
  #prologue = new Uint8Array(0);
  #cipher: number = Cipher.NONE;
  #digest: number = Digest.NONE;
  #keys: DirectionKeys | null = null;
  #codec: FrameCodec | null = null;
  #type = 0;
  #requests = 0;
  #fencingFrames = 0;

  /**
   * @param scratchAt arena offset of {@link DOOR_SCRATCH_BYTES} of this connection's own, a multiple of 64
   * @param config which ciphers and digests are accepted
   */
  constructor(
    memory: Memory,
    cryptography: Cryptography,
    scratchAt: number,
    config: HelloConfig,
    host: ExporterDoorHost,
  ) {
    assert(CONTROL_BYTES_MAX <= PIECE_BYTES, "a message at the door is sealed and opened in one call");
    assert(scratchAt + DOOR_SCRATCH_BYTES <= memory.bytes.length, "the scratch area lies in the arena");
    const { ciphers } = cryptography;
    assert(
      config.ciphers.every((cipher) => cipher === Cipher.NONE || ciphers.includes(cipher)),
      "the ciphers are there",
    );
    assert(config.digests.every((digest) => tagBytesOf(digest) >= 0), "the accepted digests exist");
    this.#memory = memory;
    this.#cryptography = cryptography;
    this.#scratchAt = scratchAt;
    this.#config = config;
    this.#host = host;
    this.payloadAt = scratchAt + MESSAGE_AT;
  }

  /** Whether an OPEN or JOIN waits for the host's answer. */
  get isPending(): boolean {
    return this.#state === State.PENDING;
  }

  onHeader(at: number): Verdict {
    if (this.#state === State.HELLO) return this.#onHello(at);
    if (this.#state === State.NOISE) return this.#onNoise(at);
    if (this.#state === State.DOOR) return this.#onRequest(at);
    return this.#fail(ProtocolError.PHASE);
  }

  onPayload(): Verdict {
    if (this.#state === State.HELLO) return this.#answerHello();
    // The same OPEN or JOIN again, after the host has resumed the stream: it is answered, or still is not.
    if (this.#state === State.PENDING || this.#state === State.ENDED) return Verdict.WAIT;
    if (this.#type === 0) return Verdict.NEXT;
    assert(this.#codec !== null, "the door phase has a codec");
    const error = this.#codec.openPayload(this.payloadAt, this.payloadBytes);
    if (error !== 0) return this.#fail(error);
    this.#serve(this.#memory.bytes.subarray(this.payloadAt, this.payloadAt + this.payloadBytes));
    return this.#type === 0 ? Verdict.NEXT : Verdict.WAIT;
  }

  /**
   * Answers the pending OPEN or JOIN with an error. The host then resumes the stream.
   *
   * @param status any {@link Status} but OK
   * @param text a sentence for a person; empty: none
   * @param current who holds the export, with BUSY
   */
  refuse(status: number, text: string, current: Holder | null = null): void {
    assert(this.#state === State.PENDING, "an OPEN or JOIN is pending");
    assert(status !== Status.OK, "a refusal has a reason");
    const writer = new TlvWriter();
    if (text !== "") writer.text(Tlv.TEXT, text);
    if (current !== null) writeHolder(writer, current);
    this.#state = State.DOOR;
    this.#answer(status, writer);
  }

  /**
   * Tells the client that its pending OPEN or JOIN waits.
   *
   * @param executing how many requests still execute
   */
  fencing(executing: number): void {
    assert(this.#state === State.PENDING && this.#codec !== null, "an OPEN or JOIN is pending");
    const entry = this.#fencingFrames++ % FENCING_FRAMES;
    const at = this.#scratchAt + FENCING_AT + entry * FENCING_STRIDE_BYTES;
    writeHeader(this.#memory, at, FrameType.FENCING, 0, 0, 0, 0, 0, executing, 0, 0);
    this.#codec.seal(at, at, 0);
    this.#host.transmit(at, this.#codec.prefixBytes);
  }

  /**
   * Ends the door: the connection becomes a lane, whose codec goes on with what this returns. What the door has queued
   * (FENCING frames) has to be sent before the lane's first frame.
   *
   * @returns its keys are those that {@link close} wipes: the lane's codec, or the message to it, copies them before
   */
  handoff(): Handoff {
    assert(this.#state === State.PENDING && this.#codec !== null, "an OPEN or JOIN is pending");
    this.#state = State.ENDED;
    const { sent, received } = this.#codec;
    // Now: the lane's codec may get the same scratch area.
    this.#closeCodec();
    return { cipher: this.#cipher, digest: this.#digest, keys: this.#keys, sent, received };
  }

  /** Wipes all keys: to be called when the connection has ended, or is handed over. Again is no harm. */
  close(): void {
    this.#state = State.ENDED;
    this.#closeCodec();
    this.#keys?.send.fill(0);
    this.#keys?.receive.fill(0);
    this.#keys = null;
  }

  #onHello(at: number): Verdict {
    const { bytes, view } = this.#memory;
    if (
      view.getUint32(at + HelloAt.MAGIC, true) !== HELLO_MAGIC[0] ||
      view.getUint32(at + HelloAt.MAGIC + 4, true) !== HELLO_MAGIC[1]
    ) return this.#fail(ProtocolError.MAGIC);
    this.#prologue = bytes.slice(at, at + HELLO_BYTES);
    this.payloadBytes = view.getUint32(at + HelloAt.BODY_BYTES, true);
    if (this.payloadBytes > HELLO_BODY_BYTES_MAX) {
      this.#sendHelloReply(refusal(Status.BAD_REQUEST));
      return this.#fail(ProtocolError.HELLO);
    }
    return this.payloadBytes > 0 ? Verdict.PAYLOAD : this.#answerHello();
  }

  #answerHello(): Verdict {
    const start = new DataView(this.#prologue.buffer);
    const low = start.getUint16(HelloAt.VERSION_LOW, true);
    const high = start.getUint16(HelloAt.VERSION_HIGH, true);
    const body = this.#memory.bytes.slice(this.payloadAt, this.payloadAt + this.payloadBytes);
    const outcome = negotiate(low, high, body, this.#config);
    this.offered = outcome.offered;
    this.claimedKeyId = outcome.keyId;
    const reply = this.#sendHelloReply(outcome);
    if (outcome.status !== Status.OK) {
      const isMalformed = outcome.status === Status.BAD_REQUEST || outcome.status === Status.UNKNOWN_REQUIRED;
      return this.#fail(isMalformed ? ProtocolError.HELLO : ProtocolError.REFUSED);
    }
    this.#cipher = outcome.cipher;
    this.#digest = outcome.digest;
    if (outcome.keyId === null) return this.#enterDoor();
    this.#prologue = concat(this.#prologue, body, reply);
    this.#state = State.NOISE;
    this.headerBytes = NOISE_MESSAGE_BYTES;
    return Verdict.NEXT;
  }

  #sendHelloReply(outcome: HelloOutcome): Uint8Array {
    const reply = encodeHelloReply(outcome, this.#config);
    this.#memory.bytes.set(reply, this.payloadAt);
    this.#host.transmit(this.payloadAt, reply.length);
    return reply;
  }

  /** The client's message of the handshake. Whatever is wrong with it, the peer sees the same: the connection ends. */
  #onNoise(at: number): Verdict {
    assert(this.claimedKeyId !== null, "the client has named a key");
    const message = this.#memory.bytes.slice(at, at + NOISE_MESSAGE_BYTES);
    // A key that is not known is stood in for by one that nobody has, so that it takes as long to find out.
    const random = this.#host.randomBytes(2 * KEY_BYTES);
    const ephemeral = random.subarray(0, KEY_BYTES);
    const key = this.#host.keyOf(this.claimedKeyId);
    const responder = new NoiseResponder(
      this.#cryptography.noise,
      this.#prologue,
      key ?? random.subarray(KEY_BYTES),
      ephemeral,
    );
    const answer = responder.readMessage(message) === null ? null : responder.writeMessage();
    const isAuthentic = key !== null && answer !== null;
    if (isAuthentic) this.#keys = responder.split();
    responder.wipe();
    random.fill(0);
    if (!isAuthentic) {
      this.authentication = key === null ? "unknown key" : "wrong key";
      return this.#fail(ProtocolError.AUTHENTICATION);
    }
    // The answer to the hello may still be unsent where messages are; nothing is where FENCING frames will be.
    const answerAt = this.#scratchAt + FENCING_AT;
    this.#memory.bytes.set(answer, answerAt);
    this.#host.transmit(answerAt, answer.length);
    return this.#enterDoor();
  }

  #enterDoor(): Verdict {
    this.#prologue = new Uint8Array(0);
    const handoff = { cipher: this.#cipher, digest: this.#digest, keys: this.#keys, sent: 0, received: 0 };
    this.#codec = new FrameCodec(this.#memory, this.#cryptography, this.#scratchAt, handoff);
    this.#state = State.DOOR;
    this.headerBytes = this.#codec.prefixBytes;
    return Verdict.NEXT;
  }

  #onRequest(at: number): Verdict {
    const memory = this.#memory;
    assert(this.#codec !== null, "the door phase has a codec");
    const error = this.#codec.openPrefix(at);
    if (error !== 0) return this.#fail(error);
    this.keyId = this.claimedKeyId;
    if (frameLane(memory, at) !== 0) return this.#fail(ProtocolError.LANE);
    const type = frameType(memory, at);
    this.#type = type;
    if (type < FrameType.LIST || type > FrameType.JOIN) {
      const isOfLane = type >= FrameType.READ && type <= FrameType.PING || type === FrameType.CLOSE;
      if (!isOfLane) return this.#fail(ProtocolError.TYPE);
      this.#answer(Status.BAD_REQUEST, new TlvWriter());
      return this.#fail(ProtocolError.PHASE);
    }
    if (
      frameFlags(memory, at) !== 0 || frameSlot(memory, at) !== 0 || frameSequence(memory, at) !== 0 ||
      frameStatus(memory, at) !== 0 || !isZero64(memory.view, at + HeaderAt.OFFSET) ||
      !isZero64(memory.view, at + HeaderAt.LENGTH)
    ) return this.#fail(ProtocolError.FIELD);
    this.payloadBytes = framePayloadBytes(memory, at);
    if (this.payloadBytes > CONTROL_BYTES_MAX) return this.#fail(ProtocolError.PAYLOAD_TOO_LONG);
    if (++this.#requests > DOOR_REQUESTS_MAX) {
      this.#answer(Status.TOO_MANY, new TlvWriter().text(Tlv.TEXT, "too many requests on one connection"));
      return this.#fail(ProtocolError.DOOR_REQUESTS);
    }
    if (this.payloadBytes > 0) return Verdict.PAYLOAD;
    // OPEN and JOIN cannot be complete without TLVs, so they never become pending here.
    this.#serve(new Uint8Array(0));
    return Verdict.NEXT;
  }

  /** Serves the request whose TLVs these are. */
  #serve(tlvs: Uint8Array): void {
    if (this.#type === FrameType.LIST) this.#list(new TlvReader(tlvs, [Tlv.AFTER]));
    else if (this.#type === FrameType.DESCRIBE) this.#describe(new TlvReader(tlvs, [Tlv.EXPORT]));
    else if (this.#type === FrameType.OPEN) {
      const request = decodeOpen(tlvs);
      if (typeof request === "number") return this.#refuseMessage(request);
      this.#state = State.PENDING;
      this.#host.open(request);
    } else {
      const request = decodeJoin(tlvs);
      if (typeof request === "number") return this.#refuseMessage(request);
      this.#state = State.PENDING;
      this.#host.join(request);
    }
  }

  #list(reader: TlvReader): void {
    const after = reader.name(Tlv.AFTER) ?? "";
    if (reader.status !== Status.OK) return this.#refuseMessage(reader.status);
    const { entries, more } = this.#host.list(after);
    this.#answer(Status.OK, encodeEntries(entries, more));
  }

  #describe(reader: TlvReader): void {
    const name = reader.name(Tlv.EXPORT);
    if (reader.status !== Status.OK) return this.#refuseMessage(reader.status);
    if (name === null) return this.#refuseMessage(Status.BAD_REQUEST);
    const description = this.#host.describe(name);
    if (description === null) {
      return this.#answer(Status.NOT_FOUND, new TlvWriter().text(Tlv.TEXT, "there is no such export"));
    }
    this.#answer(Status.OK, encodeDescription(description));
  }

  #refuseMessage(status: number): void {
    const text = status === Status.BAD_REQUEST
      ? "the request is malformed or incomplete"
      : "the request requires something that this exporter does not know";
    this.#answer(status, new TlvWriter().text(Tlv.TEXT, text));
  }

  /** Answers the request of type `#type`, which is then no longer under way. */
  #answer(status: number, writer: TlvWriter): void {
    assert(this.#codec !== null, "the door phase has a codec");
    assert(writer.length <= CONTROL_BYTES_MAX, "an answer fits its area");
    this.#memory.bytes.set(writer.bytes, this.payloadAt);
    const at = this.payloadAt - this.#codec.prefixBytes;
    writeHeader(this.#memory, at, this.#type | REPLY, 0, 0, 0, 0, 0, 0, writer.length, status);
    this.#codec.seal(at, this.payloadAt, writer.length);
    this.#host.transmit(at, this.#codec.prefixBytes + writer.length);
    this.#type = 0;
  }

  #closeCodec(): void {
    this.#codec?.close();
    this.#codec = null;
  }

  #fail(error: number): Verdict {
    this.error = error;
    this.close();
    return Verdict.CLOSE;
  }
}
