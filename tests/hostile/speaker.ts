/**
 * A client's end of a connection in a {@link World}: hello, handshake and frames, written from SPEC.md like the raw peer
 * of the conformance suite, but without waiting.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import {
  type Frame,
  type FrameFields,
  HEADER,
  headerOf,
  hello,
  join,
  readHeader,
  readTlvs,
} from "../protocol/bytes.ts";
import { type Algorithms, Direction, NOISE_MESSAGE, NoiseClient, type PresharedKey } from "../protocol/channel.ts";
import { helloBody } from "../protocol/peer.ts";
import { rememberingCurve } from "./noise.ts";
import type { Line } from "./stream.ts";

const NOTHING: Uint8Array<ArrayBuffer> = new Uint8Array(0);
const HELLO_HEAD = 16;

const State = { HELLO: 0, NOISE: 1, FRAMES: 2 } as const;

/** One connection as its client sees it. */
export class Speaker {
  readonly line: Line;
  readonly algorithms: Algorithms;
  sender: Direction;
  receiver: Direction;
  sent = 0;
  received = 0;
  lane = 0;
  readonly #key: PresharedKey | null;
  readonly #privateKey: Uint8Array;
  readonly #said: Uint8Array;
  #state: number = State.HELLO;
  #buffer: Uint8Array = NOTHING;
  #noise: NoiseClient | null = null;

  /** Says hello. */
  constructor(line: Line, algorithms: Algorithms, key: PresharedKey | null, privateKey: Uint8Array) {
    this.line = line;
    this.algorithms = algorithms;
    this.#key = key;
    this.#privateKey = privateKey;
    this.sender = this.receiver = new Direction(algorithms, null);
    this.#said = hello(helloBody({ ...algorithms, key }));
    line.write(this.#said);
  }

  /** Whether frames can be sent. */
  get isReady(): boolean {
    return this.#state === State.FRAMES;
  }

  /** The next frame, without sending it: it counts as sent. */
  next(fields: FrameFields): Uint8Array<ArrayBuffer> {
    const number = this.sent++;
    const header = headerOf(number, { lane: this.lane, ...fields });
    return this.sender.seal(number, header, fields.payload ?? NOTHING);
  }

  send(fields: FrameFields): void {
    this.line.write(this.next(fields));
  }

  /** The frames that have arrived. Throws where the exporter breaks the protocol, or somebody has changed something. */
  poll(): Frame[] {
    this.#buffer = join(this.#buffer, this.line.read());
    if (this.#state === State.HELLO) this.#takeHello();
    if (this.#state === State.NOISE) this.#takeNoise();
    const frames: Frame[] = [];
    while (this.#state === State.FRAMES) {
      const frame = this.#takeFrame();
      if (frame === null) break;
      frames.push(frame);
    }
    return frames;
  }

  #takeHello(): void {
    const buffer = this.#buffer;
    if (buffer.length < HELLO_HEAD) return;
    const bytes = HELLO_HEAD + new DataView(buffer.buffer, buffer.byteOffset).getUint32(12, true);
    assert.ok(bytes <= 512, "an answer to a hello fits 512 bytes");
    if (buffer.length < bytes) return;
    const answer = this.#take(bytes);
    assert.equal(new TextDecoder().decode(answer.subarray(0, 8)), "DSTREPLY");
    const tlvs = readTlvs(answer.subarray(HELLO_HEAD));
    const number = (type: number) => tlvs.get(type)?.[0]?.[0];
    assert.deepEqual([number(Tlv.STATUS), number(Tlv.CIPHERS), number(Tlv.DIGESTS)], [
      Status.OK,
      this.algorithms.cipher,
      this.algorithms.digest,
    ]);
    if (this.#key === null) {
      this.#state = State.FRAMES;
      return;
    }
    this.#noise = new NoiseClient(join(this.#said, answer), this.#key.secret, this.#privateKey, rememberingCurve);
    this.line.write(this.#noise.message());
    this.#state = State.NOISE;
  }

  #takeNoise(): void {
    if (this.#buffer.length < NOISE_MESSAGE) return;
    const keys = this.#noise!.finish(this.#take(NOISE_MESSAGE));
    assert.ok(keys !== null, "the exporter's message authenticates");
    this.sender = new Direction(this.algorithms, keys.client);
    this.receiver = new Direction(this.algorithms, keys.exporter);
    this.#state = State.FRAMES;
  }

  #takeFrame(): Frame | null {
    const prefixBytes = HEADER + 2 * this.receiver.tagBytes;
    if (this.#buffer.length < prefixBytes) return null;
    const prefix = this.#buffer.slice(0, prefixBytes);
    const plain = this.receiver.openPrefix(this.received, prefix);
    assert.ok(plain !== null, "a header's tag is right");
    const { payloadBytes, ...header } = readHeader(plain, this.received);
    if (this.#buffer.length < prefixBytes + payloadBytes) return null;
    this.#take(prefixBytes);
    const payload = this.receiver.openPayload(this.received, prefix, this.#take(payloadBytes));
    assert.ok(payload !== null, "a payload's tag is right");
    this.received++;
    return { ...header, payload };
  }

  #take(bytes: number): Uint8Array {
    const taken = this.#buffer.slice(0, bytes);
    this.#buffer = this.#buffer.subarray(bytes);
    return taken;
  }
}
