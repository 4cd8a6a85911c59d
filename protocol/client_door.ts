/**
 * The client's side of a connection until it is a lane: hello, then LIST, DESCRIBE, OPEN and JOIN, one at a time
 * (SPEC.md, sections 2 and 6).
 *
 * @module
 */
import { assert } from "./assert.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "./codec.ts";
import { type Memory, type StreamConsumer, Verdict } from "./consumer.ts";
import {
  decodeDescription,
  decodeHelloAnswer,
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
import type { Cryptography } from "./guard.ts";
import { CONTROL_BYTES_MAX, HELLO_BODY_BYTES_MAX } from "./limits.ts";
import { Status } from "./status.ts";
import { isName, Tlv, TlvWriter } from "./tlv.ts";
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
  HELLO_MAGIC,
  HELLO_REPLY_MAGIC,
  HelloAt,
  isZero64,
  PREFIX_BYTES_MAX,
  REPLY,
  VERSION,
  writeHeader,
} from "./wire.ts";

/** Bytes of the TLVs of the longest request: an OPEN with two longest names takes below 800. */
const REQUEST_BYTES_MAX = 1024;

/** Bytes of the arena that a {@link ClientDoor} needs: for its codec, one request and one answer. */
export const CLIENT_DOOR_SCRATCH_BYTES = CODEC_SCRATCH_BYTES + PREFIX_BYTES_MAX + REQUEST_BYTES_MAX + CONTROL_BYTES_MAX;

/** What a client accepts. */
export interface ClientDoorConfig {
  /** Numbers of the digests that are acceptable, the most wanted first; at least one. */
  readonly digests: readonly number[];
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

const State = { NEW: 0, HELLO: 1, READY: 2, WAITING: 3, GRANTED: 4, FAILED: 5 } as const;

/**
 * Hello and door phase at the client.
 *
 * @example
 * ```ts
 * const door = new ClientDoor(memory, cryptography, scratchAt, { digests: [Digest.XXH64] }, host);
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
  /** The digests that the exporter accepts, where it has refused all that were offered. */
  acceptedDigests: readonly number[] = [];
  readonly #memory: Memory;
  readonly #cryptography: Cryptography;
  readonly #config: ClientDoorConfig;
  readonly #host: ClientDoorHost;
  readonly #codecAt: number;
  readonly #outAt: number;
  readonly #inAt: number;
  #codec: FrameCodec | null = null;
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
    assert(config.digests.length > 0, "at least one digest is acceptable");
    this.#memory = memory;
    this.#cryptography = cryptography;
    this.#config = config;
    this.#host = host;
    this.#codecAt = scratchAt;
    this.#outAt = scratchAt + CODEC_SCRATCH_BYTES;
    this.#inAt = this.#outAt + PREFIX_BYTES_MAX + REQUEST_BYTES_MAX;
  }

  /** Sends the hello. */
  start(): void {
    assert(this.#state === State.NEW, "the hello is sent once");
    const { bytes, view } = this.#memory;
    const writer = new TlvWriter();
    writer.uint16s(Tlv.CIPHERS, [Cipher.NONE], true);
    writer.uint16s(Tlv.DIGESTS, this.#config.digests, true);
    assert(writer.length <= HELLO_BODY_BYTES_MAX, "the hello fits");
    view.setUint32(this.#outAt + HelloAt.MAGIC, HELLO_MAGIC[0], true);
    view.setUint32(this.#outAt + HelloAt.MAGIC + 4, HELLO_MAGIC[1], true);
    view.setUint16(this.#outAt + HelloAt.VERSION_LOW, VERSION, true);
    view.setUint16(this.#outAt + HelloAt.VERSION_HIGH, VERSION, true);
    view.setUint32(this.#outAt + HelloAt.BODY_BYTES, writer.length, true);
    bytes.set(writer.bytes, this.#outAt + HELLO_BYTES);
    this.#state = State.HELLO;
    this.#host.transmit(this.#outAt, HELLO_BYTES + writer.length);
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

  /** What the lane's codec goes on with, after `granted`. */
  handoff(): Handoff {
    assert(this.#state === State.GRANTED && this.#codec !== null, "a lane was granted");
    const { sent, received } = this.#codec;
    return { cipher: Cipher.NONE, digest: this.#digest, keys: null, sent, received };
  }

  onHeader(at: number): Verdict {
    if (this.#state === State.HELLO) return this.#onHello(at);
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
    this.payloadAt = this.#inAt;
    this.payloadBytes = bodyBytes;
    return Verdict.PAYLOAD;
  }

  #onHelloBody(): Verdict {
    const answer = decodeHelloAnswer(this.#received());
    if (answer === null) return this.#fail(ProtocolError.HELLO);
    if (answer.status !== Status.OK) {
      this.#state = State.FAILED;
      this.error = ProtocolError.REFUSED;
      this.acceptedDigests = answer.digests;
      this.#host.failed(answer.text, answer.status);
      return Verdict.CLOSE;
    }
    // Version 0 with status OK is no answer.
    if (this.#status !== Status.OK) return this.#fail(ProtocolError.HELLO);
    if (answer.cipher !== Cipher.NONE || !this.#config.digests.includes(answer.digest)) {
      return this.#fail(ProtocolError.ALGORITHM);
    }
    this.#digest = answer.digest;
    const { cipher, digest } = answer;
    const handoff = { cipher, digest, keys: null, sent: 0, received: 0 };
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

  #fail(error: number): Verdict {
    this.#state = State.FAILED;
    this.error = error;
    this.#host.failed(protocolErrorText(error), Status.OK);
    return Verdict.CLOSE;
  }
}

/** Whether the bytes can be the id of a session. */
function isSessionId(id: Uint8Array): boolean {
  return id.length === IDENTITY_BYTES && id.some((byte) => byte !== 0);
}
