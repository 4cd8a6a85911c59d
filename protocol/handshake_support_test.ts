/**
 * Both doors joined through memory, with keys, and a man in the middle:
 *
 *     ClientDoor ── hello, Noise, frames ──> tamper ──> ExporterDoor ──> a host that keeps a diary
 *                <─ hello, Noise, frames ── tamper <──
 *
 * @module
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { noisePrimitives } from "../engine/noise_primitives.ts";
import { concat, pattern, text } from "../tests/vectors/primitives.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { CLIENT_DOOR_SCRATCH_BYTES, ClientDoor, type ClientDoorConfig } from "./client_door.ts";
import { Feed } from "./client_support_test.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "./codec.ts";
import { DOOR_SCRATCH_BYTES, ExporterDoor } from "./exporter_door.ts";
import type { HelloConfig } from "./exporter_hello.ts";
import { encodeGrant, type Grant, type OpenRequest } from "./grant.ts";
import type { Cryptography } from "./guard.ts";
import { coreCryptography, referenceCryptography } from "./guard_support_test.ts";
import { FrameType, REPLY, writeHeader } from "./wire.ts";

const STAGING_BYTES = 1024;

/** A pre-shared key and its id. The key is like no other bytes of the tests, so that it can be looked for. */
export const KEY = { id: pattern(16, 70), secret: noisePrimitives.hash(text("a pre-shared key")) };
/** What a client with every algorithm wants, if it could go without a cipher. */
export const CLIENT = { ciphers: [1, 2, 0], digests: [3, 4, 2], key: KEY };
/** An exporter that takes everything from everybody. */
export const EXPORTER: HelloConfig = { ciphers: [0, 1, 2], digests: [0, 1, 2, 3, 4], keyRequired: false };

export const OPEN: OpenRequest = {
  export: "a name that nobody is to see",
  session: pattern(16, 72),
  access: 1,
  holder: "whoever",
  leaseMs: null,
  depth: null,
  maxPayload: null,
  lanes: null,
  steal: false,
  resume: null,
};

const GRANT: Grant = {
  size: 2 ** 30,
  logicalBlock: 512,
  physicalBlock: 4096,
  optimalIo: 4096,
  discardGranularity: 512,
  access: 1,
  features: 63,
  identities: { instance: pattern(16, 1), durability: pattern(16, 2), storage: pattern(16, 3), writeEpoch: 7 },
  slots: 4,
  maxPayload: 4096,
  payloadBytes: 16384,
  leaseMs: 1000,
  lanes: 1,
};

/** The memory of one side: staging, the door's scratch, and another codec's for the lane. */
class Side {
  readonly core: Core;
  readonly cryptography: Cryptography;
  readonly stagingAt: number;
  readonly doorAt: number;
  readonly laneCodecAt: number;
  readonly laneAt: number;

  constructor(doorBytes: number, cryptographyOf: (core: Core) => Cryptography) {
    this.core = makeArena(2 ** 21);
    this.cryptography = { ...cryptographyOf(this.core), noise: noisePrimitives };
    this.stagingAt = this.core.freeFrom;
    this.doorAt = this.stagingAt + STAGING_BYTES;
    this.laneCodecAt = Math.ceil((this.doorAt + doorBytes) / 64) * 64;
    this.laneAt = this.laneCodecAt + CODEC_SCRATCH_BYTES + 1024;
  }
}

// One each for all connections: a memory of WebAssembly is not made by the thousand. Two makers, who have to agree.
const clientSide = new Side(CLIENT_DOOR_SCRATCH_BYTES, referenceCryptography);
const exporterSide = new Side(DOOR_SCRATCH_BYTES, coreCryptography);

/** Who sent a message. */
export type From = "client" | "exporter";
/** What becomes of the n-th message of a side: hello 0, Noise 1, frames from 2 on. */
export type Tamper = (from: From, n: number, bytes: Uint8Array) => Uint8Array;

export interface LoopbackOptions {
  readonly client?: Partial<ClientDoorConfig>;
  readonly exporter?: Partial<HelloConfig>;
  /** The keys that the exporter has. */
  readonly keys?: readonly { readonly id: Uint8Array; readonly secret: Uint8Array }[];
  readonly tamper?: Tamper;
  /** What the exporter's random bytes are. */
  readonly random?: (count: number) => Uint8Array;
  /** In place of a side's Noise primitives. */
  readonly clientNoise?: Cryptography["noise"];
  readonly exporterNoise?: Cryptography["noise"];
  /** How long the pieces are in which bytes arrive. */
  readonly pieceBytes?: number;
}

let seed = 1000;

/** One connection, from its first byte on. */
export class Loopback {
  readonly events: string[] = [];
  /** What the exporter's host was asked for. */
  readonly calls: string[] = [];
  /** All messages as they were sent, before anybody changed them. */
  readonly sent: Record<From, Uint8Array[]> = { client: [], exporter: [] };
  /** Where in its memory the exporter has queued them. */
  readonly exporterPlaces: number[] = [];
  readonly client: ClientDoor;
  readonly exporter: ExporterDoor;
  readonly clientFeed: Feed;
  readonly exporterFeed: Feed;
  readonly ephemeral: Uint8Array;
  readonly randomDrawn: number[] = [];
  isReady = false;
  grant: Grant | null = null;
  refusal = "";
  onReady: () => void = () => {};
  readonly #queue: { from: From; bytes: Uint8Array }[] = [];
  readonly #options: LoopbackOptions;

  constructor(options: LoopbackOptions = {}) {
    this.#options = options;
    this.ephemeral = pattern(32, seed++);
    const { events, calls } = this;
    const config = { ...CLIENT, ephemeral: this.ephemeral, ...options.client };
    const { clientNoise = noisePrimitives, exporterNoise = noisePrimitives } = options;
    const clientCryptography = { ...clientSide.cryptography, noise: clientNoise };
    this.client = new ClientDoor(clientSide.core, clientCryptography, clientSide.doorAt, config, {
      transmit: (at, bytes) => this.#transmit("client", clientSide.core, at, bytes),
      ready: () => {
        this.isReady = true;
        events.push("ready");
        this.onReady();
      },
      listed: (entries, more) => events.push(`listed ${entries.map((entry) => entry.name)} ${more}`),
      described: () => events.push("described"),
      granted: (grant) => {
        this.grant = grant;
        events.push("granted");
      },
      refused: (status) => events.push(`refused ${status}`),
      fencing: (executing) => events.push(`fencing ${executing}`),
      failed: (text, status) => events.push(`failed ${status} ${text}`),
    });
    const { keys = [KEY], random = (count: number) => pattern(count, seed++) } = options;
    const exporterCryptography = { ...exporterSide.cryptography, noise: exporterNoise };
    this.exporter = new ExporterDoor(exporterSide.core, exporterCryptography, exporterSide.doorAt, {
      ...EXPORTER,
      ...options.exporter,
    }, {
      transmit: (at, bytes) => this.#transmit("exporter", exporterSide.core, at, bytes),
      keyOf: (id) => keys.find((key) => key.id.every((byte, i) => byte === id[i]))?.secret ?? null,
      randomBytes: (count) => {
        this.randomDrawn.push(count);
        return random(count);
      },
      list: () => {
        calls.push("list");
        return { entries: [{ name: "disk", size: 512, access: 1, features: 0 }], more: false };
      },
      describe: (name) => {
        calls.push(`describe ${name}`);
        return null;
      },
      open: (request) => calls.push(`open ${request.export}`),
      join: () => calls.push("join"),
    });
    this.clientFeed = new Feed(clientSide, this.client);
    this.exporterFeed = new Feed(exporterSide, this.exporter);
  }

  /** Sends the hello, and lets everything happen that follows. */
  start(): this {
    this.client.start();
    return this.run();
  }

  /** Lets messages arrive until there are none. What arrives at an end that has closed is lost. */
  run(): this {
    for (let message = this.#queue.shift(); message !== undefined; message = this.#queue.shift()) {
      const feed = message.from === "client" ? this.exporterFeed : this.clientFeed;
      const piece = this.#options.pieceBytes ?? message.bytes.length;
      for (let at = 0; at < message.bytes.length && !feed.isClosed; at += piece) {
        feed.push(message.bytes.subarray(at, at + piece));
      }
    }
    return this;
  }

  /** Bytes that come to the exporter from somebody else than the client. */
  inject(bytes: Uint8Array): this {
    this.exporterFeed.push(bytes);
    return this;
  }

  /**
   * The exporter takes the pending OPEN over and grants it, as a lane does.
   *
   * @returns what both doors hand over, and the codecs that go on with it
   */
  grantOpen() {
    const at = exporterSide.laneAt;
    const exporter = this.exporter.handoff();
    const exporterCodec = new FrameCodec(
      exporterSide.core,
      exporterSide.cryptography,
      exporterSide.laneCodecAt,
      exporter,
    );
    const tlvs = encodeGrant(GRANT);
    exporterSide.core.bytes.set(tlvs, at + exporterCodec.prefixBytes);
    writeHeader(exporterSide.core, at, FrameType.OPEN | REPLY, 0, 0, 0, 0, 0, 0, tlvs.length, 0);
    exporterCodec.seal(at, at + exporterCodec.prefixBytes, tlvs.length);
    this.#transmit("exporter", exporterSide.core, at, exporterCodec.prefixBytes + tlvs.length);
    this.run();
    assert.deepEqual(this.grant, GRANT);
    const client = this.client.handoff();
    const clientCodec = new FrameCodec(clientSide.core, clientSide.cryptography, clientSide.laneCodecAt, client);
    return { client, exporter, clientCodec, exporterCodec };
  }

  /** What lies now where the exporter has queued its n-th message. */
  queued(n: number): Uint8Array {
    const at = this.exporterPlaces[n];
    return exporterSide.core.bytes.slice(at, at + this.sent.exporter[n].length);
  }

  /** Whether the memory of the exporter's side, whose guards keep their keys in it, has these bytes anywhere. */
  static exporterHolds(secret: Uint8Array): boolean {
    return Buffer.from(exporterSide.core.bytes.buffer).includes(Buffer.from(secret));
  }

  /** Whether a frame of one side's lane codec opens at the other's. */
  static passes(from: FrameCodec, fromSide: From, to: FrameCodec, payload: Uint8Array): boolean {
    const [sender, receiver] = fromSide === "client" ? [clientSide, exporterSide] : [exporterSide, clientSide];
    const payloadAt = sender.laneAt + from.prefixBytes;
    sender.core.bytes.set(payload, payloadAt);
    writeHeader(sender.core, sender.laneAt, FrameType.WRITE, 0, 3, 0, 1, 512, payload.length, payload.length, 0);
    assert.equal(from.seal(sender.laneAt, payloadAt, payload.length), true);
    const bytes = sender.core.bytes.slice(sender.laneAt, payloadAt + payload.length);
    receiver.core.bytes.set(bytes, receiver.laneAt);
    if (to.openPrefix(receiver.laneAt) !== 0) return false;
    const receivedAt = receiver.laneAt + to.prefixBytes;
    if (to.openPayload(receivedAt, payload.length) !== 0) return false;
    assert.deepEqual(receiver.core.bytes.slice(receivedAt, receivedAt + payload.length), payload);
    return true;
  }

  /** Gives back what both doors hold. */
  close(): void {
    this.client.close();
    this.exporter.close();
  }

  /** Everything that went over the wire. */
  get captured(): Uint8Array {
    return concat(...this.sent.client, ...this.sent.exporter);
  }

  #transmit(from: From, core: Core, at: number, count: number): void {
    const bytes = core.bytes.slice(at, at + count);
    const n = this.sent[from].push(bytes) - 1;
    if (from === "exporter") this.exporterPlaces.push(at);
    this.#queue.push({ from, bytes: this.#options.tamper?.(from, n, bytes.slice()) ?? bytes });
  }
}

/** Whether the bytes contain the others. */
export function contains(bytes: Uint8Array, others: Uint8Array): boolean {
  return Array.from(bytes.keys()).some((at) => others.every((byte, i) => bytes[at + i] === byte));
}

/** What every failed attempt has in common: neither side goes on, and the exporter has done nothing for anybody. */
export function assertNothingDone(loopback: Loopback, what: string): void {
  assert.equal(loopback.isReady, false, `${what}: the client takes the exporter for authentic`);
  assert.deepEqual(loopback.calls, [], `${what}: the exporter does what it is asked for`);
  assert.equal(loopback.exporter.keyId, null, `${what}: the exporter takes the client for authentic`);
  loopback.close();
}
