/**
 * An exporter that says exactly what a test wants it to say, over the raw {@link Peer}. It knows nothing of disks.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Cipher, FrameType, REPLY } from "../../protocol/wire.ts";
import { type Frame, type FrameFields, hello, join, readTlvs, tlv, tlv16, tlv32, tlvText } from "./bytes.ts";
import { NOISE_MESSAGE, NoiseExporter, type PresharedKey } from "./channel.ts";
import { type Manner, Peer } from "./peer.ts";

/** What the exporter grants; what is not given is a disk of 1 MiB with blocks of 512 bytes, and 8 slots. */
export interface GrantWish {
  readonly size?: number;
  readonly blocks?: readonly [number, number, number, number];
  readonly access?: number;
  readonly features?: number;
  readonly slots?: number;
  readonly maxPayload?: number;
  readonly payloadBytes?: number;
  readonly leaseMs?: number;
  readonly lanes?: number;
  /** What instance, durability epoch and storage are made of; 1, 2 and 3 if not given. */
  readonly identities?: readonly [number, number, number];
  /** The type of a TLV that is left out. */
  readonly without?: number;
}

/** DISCARD, WRITE_ZEROES, FAST_ZERO, BLOCK_STATUS and CACHE: all that a disk can do. */
const ALL_FEATURES = 2 | 4 | 8 | 16 | 32;

function u64(value: number): Uint8Array {
  return new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
}

/** The TLVs that grant an OPEN. */
export function grantTlvs(wish: GrantWish = {}): Uint8Array {
  const { slots = 8, maxPayload = 65536 } = wish;
  const identities = join(...(wish.identities ?? [1, 2, 3]).map((fill) => new Uint8Array(16).fill(fill)), u64(77));
  const credits = join(
    new Uint8Array(Uint32Array.of(slots, maxPayload).buffer),
    u64(wish.payloadBytes ?? slots * maxPayload),
  );
  const pieces: [number, Uint8Array][] = [
    [Tlv.SIZE, tlv(Tlv.SIZE, u64(wish.size ?? 1048576))],
    [Tlv.BLOCKS, tlv32(Tlv.BLOCKS, wish.blocks ?? [512, 4096, 65536, 4096])],
    [Tlv.ACCESS, tlv32(Tlv.ACCESS, [wish.access ?? 1])],
    [Tlv.FEATURES, tlv(Tlv.FEATURES, u64(wish.features ?? ALL_FEATURES))],
    [Tlv.IDENTITIES, tlv(Tlv.IDENTITIES, identities)],
    [Tlv.CREDITS, tlv(Tlv.CREDITS, credits)],
    [Tlv.LEASE, tlv32(Tlv.LEASE, [wish.leaseMs ?? 0])],
    [Tlv.LANES, tlv32(Tlv.LANES, [wish.lanes ?? 1])],
  ];
  return join(...pieces.filter(([type]) => type !== wish.without).map(([, piece]) => piece));
}

/** Listens on a port of its own. */
export class ScriptedExporter {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #connections: Visit[] = [];

  /** @param key the one that the client has to have, or null: without a handshake */
  constructor(readonly manner: Manner, readonly key: PresharedKey | null) {}

  get port(): number {
    return this.#listener.addr.port;
  }

  /** Takes the next client, up to its hello. */
  async accept(): Promise<Visit> {
    const connection = await this.#listener.accept();
    connection.setNoDelay(true);
    const visit = new Visit(new Peer(connection, this.manner), this.key);
    this.#connections.push(visit);
    return visit;
  }

  /** Takes the next client and grants what it asks for. */
  async serve(wish: GrantWish = {}): Promise<Visit> {
    const visit = await this.accept();
    await visit.greet();
    await visit.grant(wish);
    return visit;
  }

  [Symbol.dispose](): void {
    for (const { peer } of this.#connections) peer.close();
    this.#listener.close();
  }
}

/** One client's connection, seen from the exporter. */
export class Visit {
  #said: Uint8Array = new Uint8Array(0);
  #answered: Uint8Array = new Uint8Array(0);

  constructor(readonly peer: Peer, readonly key: PresharedKey | null) {}

  /** The client's hello: its versions and the TLVs of its body. */
  async hello() {
    const head = await this.peer.take(16);
    assert.equal(new TextDecoder().decode(head.subarray(0, 8)), "DSTHELLO");
    const view = new DataView(head.buffer, head.byteOffset);
    const body = await this.peer.take(view.getUint32(12, true));
    assert.ok(body.length <= 496);
    this.#said = join(head, body);
    return { low: view.getUint16(8, true), high: view.getUint16(10, true), tlvs: readTlvs(body) };
  }

  /** Answers a hello. */
  async answerHello(body: Uint8Array, version = 1, magic = "DSTREPLY"): Promise<void> {
    this.#answered = hello(body, version, 0, magic);
    await this.peer.write(this.#answered);
  }

  /** Answers a hello, but somebody on the way makes something else of the answer. */
  async answerHelloThrough(body: Uint8Array, harm: (bytes: Uint8Array) => Uint8Array): Promise<void> {
    this.#answered = hello(body, 1, 0, "DSTREPLY");
    await this.peer.write(harm(this.#answered.slice()));
  }

  /** Whether the client's message of the handshake authenticates. */
  async trusts(): Promise<boolean> {
    const noise = new NoiseExporter(join(this.#said, this.#answered), this.key!.secret);
    return noise.take(await this.peer.take(NOISE_MESSAGE));
  }

  /** Runs the handshake where there is a key; `harm` may change the message that the client gets. */
  async handshake(harm: (message: Uint8Array) => Uint8Array = (message) => message): Promise<void> {
    if (this.key === null) return;
    const noise = new NoiseExporter(join(this.#said, this.#answered), this.key.secret);
    assert.ok(noise.take(await this.peer.take(NOISE_MESSAGE)), "the client's message authenticates");
    const { message, keys } = noise.answer();
    this.peer.secure(keys.exporter, keys.client);
    await this.peer.write(harm(message));
  }

  /** The hello, its usual answer, and the handshake where there is a key. */
  async greet(): Promise<void> {
    const { low, high, tlvs } = await this.hello();
    assert.ok(low <= 1 && high >= 1);
    const { cipher, digest } = this.peer.algorithms;
    assert.ok(numbers16(tlvs.get(Tlv.CIPHERS)![0]).includes(cipher), "the client offers the cipher");
    const offered = numbers16(tlvs.get(Tlv.DIGESTS)![0]);
    assert.ok(cipher !== Cipher.NONE || offered.includes(digest), "the client offers the digest");
    assert.deepEqual(tlvs.get(Tlv.KEY_ID)?.[0], this.key?.id, "the client names its key");
    await this.answerHello(chosen(cipher, digest));
    await this.handshake();
  }

  /** The client's request at the door, which must be of that type. */
  async request(type: number): Promise<Map<number, Uint8Array[]>> {
    const frame = await this.peer.receive();
    assert.equal(frame.type, type);
    const { flags, slot, lane, sequence, offset, length, status } = frame;
    assert.deepEqual([flags, slot, lane, sequence, offset, length, status], [0, 0, 0, 0, 0, 0, 0]);
    return readTlvs(frame.payload);
  }

  /** Answers an OPEN with a grant; or a JOIN of a lane. */
  async grant(wish: GrantWish = {}, type: number = FrameType.OPEN, lane = 0): Promise<Map<number, Uint8Array[]>> {
    const tlvs = await this.request(type);
    await this.peer.send({ type: type | REPLY, payload: grantTlvs(wish) });
    this.peer.enterLane(lane);
    return tlvs;
  }

  /** Refuses an OPEN. */
  async refuse(status: number, text: string, ...more: Uint8Array[]): Promise<void> {
    await this.refuseType(FrameType.OPEN, status, text, ...more);
  }

  /** Refuses an OPEN or JOIN; what it asked for. */
  async refuseType(type: number, status: number, text: string, ...more: Uint8Array[]) {
    const tlvs = await this.request(type);
    await this.peer.send({ type: type | REPLY, status, payload: join(tlvText(Tlv.TEXT, text), ...more) });
    return tlvs;
  }

  /** The client's next request on its lane, whose fields must suit any. */
  async take(): Promise<Frame> {
    const frame = await this.peer.receive();
    assert.ok(frame.type >= 0x01 && frame.type <= 0x07, `a frame of type ${frame.type} came`);
    assert.deepEqual([frame.lane, frame.status], [this.peer.lane, 0]);
    return frame;
  }

  /** Replies to a request. */
  async reply(request: Frame, payload = new Uint8Array(0), status: number = Status.OK): Promise<void> {
    await this.peer.send(replyTo(request, { payload, status }));
  }

  /** Takes CLOSE and answers it; the connection ends with it. */
  async close(): Promise<void> {
    const frame = await this.peer.receive();
    assert.equal(frame.type, FrameType.CLOSE);
    await this.peer.send({ type: FrameType.CLOSE | REPLY });
    await this.peer.flush();
    this.peer.close();
  }
}

/** The reply to a request, with other fields where they are given. */
export function replyTo({ type, slot, sequence }: Frame, fields: Partial<FrameFields> = {}): FrameFields {
  return { type: type | REPLY, slot, sequence, ...fields };
}

/** The u16s of a TLV's value. */
export function numbers16(value: Uint8Array): number[] {
  return [...new Uint16Array(value.slice().buffer)];
}

/** The body of a hello's answer that chooses these. */
export function chosen(cipher: number, digest: number): Uint8Array {
  return join(tlv16(Tlv.CIPHERS, [cipher]), tlv16(Tlv.DIGESTS, [digest]), tlv32(Tlv.STATUS, [Status.OK]));
}

/** The body of a hello's answer that refuses. */
export function helloRefusal(status: number, text: string, ...more: Uint8Array[]): Uint8Array {
  return join(...more, tlv32(Tlv.STATUS, [status]), tlvText(Tlv.TEXT, text));
}

/** Extents as BLOCK_STATUS answers them. */
export function extents(...pairs: readonly (readonly [number, number])[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pairs.length * 16);
  const view = new DataView(bytes.buffer);
  for (const [i, [length, flags]] of pairs.entries()) {
    view.setBigUint64(i * 16, BigInt(length), true);
    view.setUint32(i * 16 + 8, flags, true);
  }
  return bytes;
}
