/**
 * A raw peer over TCP: says exactly what a test wants it to say, in the pieces it wants, and checks every frame that it
 * receives. The client's end by default; a scripted exporter uses it for the other end.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Cipher, FrameType, REPLY } from "../../protocol/wire.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import {
  type Frame,
  type FrameFields,
  HEADER,
  headerOf,
  hello,
  join,
  randomOf,
  readHeader,
  readTlvs,
  tlv,
  tlv16,
} from "./bytes.ts";
import { type Algorithms, Direction, NOISE_MESSAGE, NoiseClient, type PresharedKey, tagBytes } from "./channel.ts";

/**
 * How the bytes of a message reach the wire: in one write; each byte in one of its own; in pieces of random length; or
 * with the beginning of the next message behind them.
 */
export type Feeding = "whole" | "bytes" | "pieces" | "trailing";

/** A message that takes longer than this means that the other side hangs. Not a claim about speed. */
const PATIENCE_MS = 20_000;
/** Of a long message, byte by byte, these first and last ones go singly: the rest is payload, which is all alike. */
const SINGLE_BYTES = 400;
/** Token of the PINGs that trail behind other frames. */
const TRAILING_TOKEN = 0x7ea1;

/** How to talk. With a cipher the digest is none. */
export interface Manner extends Algorithms {
  readonly feeding: Feeding;
  readonly seed: number;
}

/** Where to connect, how to talk, and with which key. */
export interface PeerOptions extends Manner {
  readonly host: string;
  readonly port: number;
  readonly key: PresharedKey | null;
}

/** One connection. */
export class Peer {
  readonly algorithms: Algorithms;
  readonly connection: Deno.TcpConn;
  /** What seals the frames that are sent, and opens those that are received. */
  sender: Direction;
  receiver: Direction;
  /** The number of the next frame of each direction. */
  sent = 0;
  received = 0;
  /** The lane that frames of the lane phase name. */
  lane = 0;
  /** Whether PINGs are answered and trailing PONGs taken by the way. */
  answersPings = true;
  readonly #feeding: Feeding;
  readonly #random: () => number;
  #inLane = false;
  #buffer: Uint8Array = new Uint8Array(0);
  #trailing: Uint8Array | null = null;
  #awaitsPong = false;
  #closed = false;

  constructor(connection: Deno.TcpConn, options: Manner) {
    this.connection = connection;
    this.algorithms = { cipher: options.cipher, digest: options.digest };
    this.sender = this.receiver = new Direction(this.algorithms, null);
    this.#feeding = options.feeding;
    this.#random = randomOf(options.seed);
  }

  /** Connects and says nothing. */
  static async connect(options: PeerOptions): Promise<Peer> {
    const connection = await Deno.connect({ hostname: options.host, port: options.port });
    connection.setNoDelay(true);
    return new Peer(connection, options);
  }

  /** Connects, says hello and, with a key, runs the handshake; the exporter must agree. */
  static async greet(options: PeerOptions): Promise<Peer> {
    const peer = await Peer.connect(options);
    try {
      const said = hello(helloBody(options));
      await peer.write(said);
      const answer = await peer.helloAnswer();
      assert.deepEqual([answer.version, answer.status], [1, Status.OK], `version and status: ${answer.text}`);
      assert.deepEqual(answer.ciphers, [options.cipher]);
      assert.deepEqual(answer.digests, [options.digest]);
      if (options.key !== null) await peer.handshake(join(said, answer.bytes), options.key.secret);
    } catch (error) {
      peer.close();
      throw error;
    }
    return peer;
  }

  /** Runs the handshake as a client (SPEC.md, 4.2), which must succeed; `prologue` is both sides' hello. */
  async handshake(prologue: Uint8Array, secret: Uint8Array): Promise<void> {
    const noise = new NoiseClient(prologue, secret);
    await this.write(noise.message());
    const keys = noise.finish(await this.take(NOISE_MESSAGE));
    assert.ok(keys !== null, "the exporter's message authenticates");
    this.secure(keys.client, keys.exporter);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Cuts the connection. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.connection.close();
  }

  /** From now on frames are sealed and opened under these keys: K₀ of each direction. */
  secure(sendKey: Uint8Array, receiveKey: Uint8Array): void {
    this.sender = new Direction(this.algorithms, sendKey);
    this.receiver = new Direction(this.algorithms, receiveKey);
  }

  /** From now on frames name their lane, and other frames may trail behind one. */
  enterLane(lane: number): void {
    this.lane = lane;
    this.#inLane = true;
  }

  /** Bytes of a prefix. */
  get prefixBytes(): number {
    return HEADER + 2 * tagBytes(this.algorithms);
  }

  /** The next frame, without sending it: it counts as sent. */
  next(fields: FrameFields): Uint8Array<ArrayBuffer> {
    const number = this.sent++;
    const header = headerOf(number, { lane: this.lane, ...fields });
    return this.sender.seal(number, header, fields.payload ?? new Uint8Array(0));
  }

  /** Sends a frame, fed as this peer feeds. */
  async send(fields: FrameFields): Promise<void> {
    const bytes = this.next(fields);
    if (this.#feeding !== "trailing" || !this.#inLane) return await this.write(bytes);
    const ahead = this.#trailing ?? new Uint8Array(0);
    if (this.#awaitsPong && this.#trailing === null) return await this.write(bytes);
    if (this.#trailing !== null) {
      this.#trailing = null;
      return await this.#writeAll(join(ahead, bytes));
    }
    this.#awaitsPong = true;
    const ping = this.next({ type: FrameType.PING, offset: TRAILING_TOKEN });
    const cut = 1 + Math.floor(this.#random() * (ping.length - 1));
    this.#trailing = ping.slice(cut);
    await this.#writeAll(join(bytes, ping.slice(0, cut)));
  }

  /** Sends bytes, fed as this peer feeds. */
  async write(bytes: Uint8Array): Promise<void> {
    await this.flush();
    if (this.#feeding === "bytes") {
      const tail = Math.max(SINGLE_BYTES, bytes.length - 16);
      for (let i = 0; i < Math.min(SINGLE_BYTES, bytes.length); i++) await this.#writeAll(bytes.subarray(i, i + 1));
      if (tail > SINGLE_BYTES) await this.#writeAll(bytes.subarray(SINGLE_BYTES, tail));
      for (let i = tail; i < bytes.length; i++) await this.#writeAll(bytes.subarray(i, i + 1));
    } else if (this.#feeding === "pieces") {
      for (let at = 0; at < bytes.length;) {
        const most = this.#random() < 0.5 ? 60 : bytes.length / 3;
        const piece = 1 + Math.floor(this.#random() * most);
        await this.#writeAll(bytes.subarray(at, at + piece));
        at += piece;
      }
    } else {
      await this.#writeAll(bytes);
    }
  }

  /** Sends what trails behind the last frame. */
  async flush(): Promise<void> {
    const rest = this.#trailing;
    this.#trailing = null;
    if (rest !== null) await this.#writeAll(rest);
  }

  /** The answer to the hello. */
  async helloAnswer() {
    const head = await this.#take(16);
    assert.equal(new TextDecoder().decode(head.subarray(0, 8)), "DSTREPLY");
    const view = new DataView(head.buffer, head.byteOffset);
    assert.equal(view.getUint16(10, true), 0);
    const body = await this.#take(view.getUint32(12, true));
    const tlvs = readTlvs(body);
    const numbers = (type: number) => {
      const value = tlvs.get(type)?.[0].slice();
      return value === undefined ? null : [...new Uint16Array(value.buffer)];
    };
    return {
      /** All of it, as it came. */
      bytes: join(head, body),
      version: view.getUint16(8, true),
      status: new Uint32Array(tlvs.get(Tlv.STATUS)![0].slice().buffer)[0],
      ciphers: numbers(Tlv.CIPHERS),
      digests: numbers(Tlv.DIGESTS),
      text: new TextDecoder().decode(tlvs.get(Tlv.TEXT)?.[0]),
    };
  }

  /** The next frame. PINGs are answered and trailing PONGs dropped on the way, unless `answersPings` is off. */
  async receive(): Promise<Frame> {
    await this.flush();
    for (;;) {
      const next = await this.#receiveAny();
      if (this.#awaitsPong && next.type === (FrameType.PING | REPLY) && next.offset === TRAILING_TOKEN) {
        this.#awaitsPong = false;
        continue;
      }
      if (!this.answersPings || next.type !== FrameType.PING) return next;
      await this.write(this.next({ type: FrameType.PING | REPLY, offset: next.offset }));
    }
  }

  /** Sends a frame and takes the next one as its answer. */
  async call(fields: FrameFields): Promise<Frame> {
    await this.send(fields);
    return await this.receive();
  }

  /** Expects that the other side ends the connection without one more frame (PINGs and PONGs apart). */
  async ended(): Promise<void> {
    for (;;) {
      const bytes = await this.#read();
      if (bytes === null) break;
      this.#buffer = join(this.#buffer, bytes);
    }
    while (this.#buffer.length > 0) {
      const { type } = await this.#receiveAny();
      assert.ok(type === FrameType.PING || type === (FrameType.PING | REPLY), `a frame of type ${type} came`);
    }
    this.close();
  }

  /** The bytes of the next frame as they came, PINGs and PONGs apart. */
  async takeFrame(): Promise<Uint8Array> {
    for (;;) {
      const prefix = await this.#take(this.prefixBytes);
      const number = this.received++;
      const plain = this.receiver.openPrefix(number, prefix) ?? assert.fail("the header's tag is wrong");
      const { type, payloadBytes } = readHeader(plain, number);
      const payload = await this.#take(payloadBytes);
      if (type !== FrameType.PING && type !== (FrameType.PING | REPLY)) return join(prefix, payload);
    }
  }

  /** Exactly so many bytes. */
  async take(bytes: number): Promise<Uint8Array> {
    return await this.#take(bytes);
  }

  /** Takes so many replies quickly, without a look at more than their status, which has to be OK. Answers PINGs. */
  async drop(replies: number): Promise<void> {
    const into = new Uint8Array(1 << 19);
    const view = new DataView(into.buffer);
    into.set(this.#buffer);
    let have = this.#buffer.length;
    let at = 0;
    /** Bytes of a payload that are still to come. */
    let payload = 0;
    while (replies > 0 || payload > 0) {
      const skipped = Math.min(payload, have - at);
      at += skipped;
      payload -= skipped;
      if (payload === 0 && replies > 0 && have - at >= this.prefixBytes) {
        if (this.algorithms.cipher !== Cipher.NONE) {
          const prefix = into.subarray(at, at + this.prefixBytes);
          into.set(this.receiver.openPrefix(this.received, prefix) ?? assert.fail("the header's tag"), at);
        }
        this.received++;
        if (into[at + 4] === FrameType.PING) {
          await this.write(this.next({ type: FrameType.PING | REPLY, offset: view.getUint32(at + 16, true) }));
        } else {
          assert.equal(view.getUint32(at + 36, true), Status.OK, "the status of a reply");
          payload = view.getUint32(at + 32, true);
          replies--;
        }
        at += this.prefixBytes;
        continue;
      }
      if (replies === 0 && payload === 0) break;
      into.copyWithin(0, at, have);
      have -= at;
      at = 0;
      const count = await this.connection.read(into.subarray(have));
      if (count === null) throw new EndOfStream(`The connection ended with ${replies} replies to come`);
      have += count;
    }
    this.#buffer = into.slice(at, have);
  }

  async #receiveAny(): Promise<Frame> {
    const prefix = await this.#take(this.prefixBytes);
    const plain = this.receiver.openPrefix(this.received, prefix) ?? assert.fail("the header's tag is wrong");
    const number = this.received++;
    const { payloadBytes, ...header } = readHeader(plain, number);
    const sealed = await this.#take(payloadBytes);
    const payload = this.receiver.openPayload(number, prefix, sealed) ?? assert.fail("the payload's tag is wrong");
    return { ...header, payload };
  }

  async #take(count: number): Promise<Uint8Array> {
    if (this.#buffer.length < count) {
      const pieces = [this.#buffer];
      let have = this.#buffer.length;
      while (have < count) {
        const bytes = await this.#read();
        if (bytes === null) throw new EndOfStream(`The connection ended ${have} bytes into ${count}`);
        pieces.push(bytes);
        have += bytes.length;
      }
      this.#buffer = join(...pieces);
    }
    const taken = this.#buffer.slice(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return taken;
  }

  /** Some bytes, or null at the end of the stream, a reset included. */
  async #read(): Promise<Uint8Array | null> {
    const bytes = new Uint8Array(65536);
    const timer = setTimeout(() => this.close(), PATIENCE_MS);
    try {
      const count = await this.connection.read(bytes);
      return count === null ? null : bytes.subarray(0, count);
    } catch (error) {
      if (this.#closed) throw new Silence(`Nothing came for ${PATIENCE_MS} ms`, { cause: error });
      if (error instanceof Deno.errors.ConnectionReset) return null;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Writes everything. That the other side has ended the connection is seen when reading. */
  async #writeAll(bytes: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) at += await this.connection.write(bytes.subarray(at));
    } catch (error) {
      if (!(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe)) throw error;
    }
  }
}

/** The other side neither says anything nor ends the connection. */
export class Silence extends Error {
  override name = "Silence";
}

/** The connection ended where more was expected. */
export class EndOfStream extends Error {
  override name = "EndOfStream";
}

/** The TLVs of a hello that offers one cipher, one digest, and a key where there is one. */
export function helloBody({ cipher, digest, key }: Algorithms & { readonly key: PresharedKey | null }): Uint8Array {
  return join(
    tlv16(Tlv.CIPHERS, [cipher], 1),
    tlv16(Tlv.DIGESTS, [digest], 1),
    key === null ? new Uint8Array(0) : tlv(Tlv.KEY_ID, key.id, 1),
  );
}
