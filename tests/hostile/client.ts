/**
 * A client without sockets and threads: its real door and lane, against an exporter that says whatever a test wants.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CLIENT_DOOR_SCRATCH_BYTES, ClientDoor, type ClientDoorHost } from "../../protocol/client_door.ts";
import { CLIENT_LANE_CONTROL_BYTES, ClientLane, type ClientLaneHost } from "../../protocol/client_lane.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "../../protocol/codec.ts";
import { HEADER_BYTES_MAX } from "../../protocol/consumer.ts";
import type { Grant } from "../../protocol/grant.ts";
import type { Cryptography } from "../../protocol/guard.ts";
import { Operation } from "../../protocol/request.ts";
import type { Core } from "../../wasm/core.ts";
import { type FrameFields, headerOf, hello } from "../protocol/bytes.ts";
import { type Algorithms, Direction, NOISE_MESSAGE, NoiseExporter, type PresharedKey } from "../protocol/channel.ts";
import { chosen } from "../protocol/scripted_exporter.ts";
import { Line, Stream } from "./stream.ts";

/** Slots that the client uses, with one request each, and how long they are; all at offset 0. */
export const REQUESTS = [
  { operation: Operation.READ, length: 1024 },
  { operation: Operation.WRITE, length: 512 },
  { operation: Operation.BLOCK_STATUS, length: 4096 },
  { operation: Operation.FLUSH, length: 0 },
] as const;
const DEPTH = REQUESTS.length;
const MAX_PAYLOAD = 4096;
const SLOT_PREFIX_BYTES = 128;
const SLOT_BYTES = SLOT_PREFIX_BYTES + MAX_PAYLOAD;
const ALIGNMENT = 64;
const HELLO_HEAD = 16;
const NOTHING = new Uint8Array(0);

/** What the client was told of a request. */
export interface Completion {
  readonly slot: number;
  readonly status: number;
  readonly payload: Uint8Array;
}

/** The client. */
export class FuzzedClient implements ClientDoorHost, ClientLaneHost {
  /** Its end is the exporter's here: what the test writes is what the client receives. */
  readonly line = new Line();
  readonly door: ClientDoor;
  readonly stream: Stream;
  lane: ClientLane | null = null;
  readonly completions: Completion[] = [];
  /** What else it was told. */
  readonly events: string[] = [];
  turn = 0;
  readonly #core: Core;
  readonly #cryptography: Cryptography;
  readonly #stagingAt: number;
  readonly #slotsAt: number;
  #wantsTurn = false;
  /** Messages with room of their own that are not sent; and how much room is taken. */
  #unsentRoom = 0;
  #roomTaken = 0;
  #roomNext = 0;

  constructor(core: Core, cryptography: Cryptography, algorithms: Algorithms, key: PresharedKey | null) {
    this.#core = core;
    this.#cryptography = cryptography;
    this.#stagingAt = aligned(core.freeFrom);
    const scratch = Math.max(CLIENT_DOOR_SCRATCH_BYTES, CODEC_SCRATCH_BYTES + CLIENT_LANE_CONTROL_BYTES);
    this.#slotsAt = aligned(this.#scratchAt + scratch);
    const config = {
      ciphers: [algorithms.cipher],
      digests: [algorithms.digest],
      key: key && { id: Uint8Array.from(key.id), secret: Uint8Array.from(key.secret) },
      ephemeral: new Uint8Array(key === null ? 0 : 32).fill(6),
    };
    this.door = new ClientDoor(core, cryptography, this.#scratchAt, config, this);
    this.stream = new Stream(this.line, core, this.#stagingAt, this.door, () => this.#lost());
    this.door.start();
  }

  get #scratchAt(): number {
    return this.#stagingAt + HEADER_BYTES_MAX;
  }

  /** Takes what has come and sends what is due, until nothing more happens. */
  settle(): void {
    for (let turns = 0; turns < 200; turns++) {
      this.turn++;
      this.stream.deliver(1_000_000);
      this.stream.flush();
      for (; this.#unsentRoom > 0; this.#unsentRoom--) this.lane!.sent();
      if (!this.#wantsTurn) return;
      this.#wantsTurn = false;
      if (this.stream.isClosed) return;
      this.lane?.run();
      this.stream.resume();
    }
    assert.fail("a client comes to rest");
  }

  // The door's host.

  ready(): void {
    this.events.push("ready");
    const session = new Uint8Array(16).fill(7);
    const wishes = { leaseMs: null, depth: DEPTH, maxPayload: MAX_PAYLOAD, lanes: 1, steal: false, resume: null };
    this.door.open({ export: "disk", session, access: 1, holder: "fuzz", ...wishes });
  }
  listed(): void {
    assert.fail("nobody asked for a list");
  }
  described(): void {
    assert.fail("nobody asked for a description");
  }
  refused(): void {
    this.events.push("refused");
  }
  fencing(): void {}
  failed(): void {
    this.events.push("failed");
  }
  granted(grant: Grant): void {
    this.events.push("granted");
    // What it would do with less is not what is fuzzed here.
    if (grant.slots < DEPTH || grant.maxPayload < MAX_PAYLOAD || grant.logicalBlock > 512) return this.stream.close();
    const controlAt = this.#scratchAt + CODEC_SCRATCH_BYTES;
    this.lane = new ClientLane(this.#core, { lane: 0, depth: DEPTH, maxPayload: MAX_PAYLOAD, controlAt }, this);
    const codec = new FrameCodec(this.#core, this.#cryptography, this.#scratchAt, this.door.handoff());
    this.door.close();
    this.lane.connect(codec, 0, {
      take: () => this.#takeRoom(),
      giveBack: () => this.#roomTaken--,
      clear: () => this.#roomTaken = 0,
    });
    this.stream.handOver(this.#stagingAt, this.lane, () => this.#lost());
    for (const [slot, { operation, length }] of REQUESTS.entries()) {
      this.lane.request(slot, this.#payloadAt(slot), operation, Float64Array.of(0, length), 0);
    }
  }

  // The lane's host.

  transmit(at: number, bytes: number, takesRoom = false): void {
    this.stream.transmit(at, bytes);
    if (takesRoom) this.#unsentRoom++;
  }
  again(): void {
    this.#wantsTurn = true;
  }
  completed(slot: number, status: number, payloadBytes: number): void {
    const at = this.#payloadAt(slot);
    this.completions.push({ slot, status, payload: this.#core.bytes.slice(at, at + payloadBytes) });
  }
  resized(): void {
    this.events.push("resized");
  }
  shuttingDown(): void {
    this.events.push("shutting down");
  }
  fenced(): void {
    this.events.push("fenced");
  }
  closed(): void {
    this.events.push("closed");
  }

  #payloadAt(slot: number): number {
    return this.#slotsAt + slot * SLOT_BYTES + SLOT_PREFIX_BYTES;
  }

  #takeRoom(): number {
    if (this.#roomTaken === DEPTH) return -1;
    this.#roomTaken++;
    return this.#payloadAt(DEPTH + this.#roomNext++ % DEPTH);
  }

  #lost(): void {
    this.door.close();
    this.lane?.disconnect();
  }
}

/** The exporter. */
export class Responder {
  sender: Direction;
  sent = 0;
  readonly #algorithms: Algorithms;
  readonly #key: PresharedKey | null;
  readonly #client: FuzzedClient;

  constructor(client: FuzzedClient, algorithms: Algorithms, key: PresharedKey | null) {
    this.#client = client;
    this.#algorithms = algorithms;
    this.#key = key;
    // Where the handshake fails, frames come all the same, under a key that nobody has.
    this.sender = new Direction(algorithms, key === null ? null : new Uint8Array(32));
  }

  /** Answers hello and handshake, in the usual way. */
  greets(): void {
    const { cipher, digest } = this.#algorithms;
    const said = this.#hears();
    const bytes = HELLO_HEAD + new DataView(said.buffer, said.byteOffset).getUint32(12, true);
    assert.equal(said.length, bytes, "the client says hello, and nothing more");
    const answer = hello(chosen(cipher, digest), 1, 0, "DSTREPLY");
    this.#client.line.write(answer);
    if (this.#key === null) return;
    const message = this.#hears();
    // It may have taken offence at the answer.
    if (message.length < NOISE_MESSAGE) return;
    const noise = new NoiseExporter(Uint8Array.of(...said, ...answer), this.#key.secret, new Uint8Array(32).fill(8));
    // What the client has heard is not what was said: nothing that could be answered would be right.
    if (!noise.take(message)) return this.#client.line.write(new Uint8Array(NOISE_MESSAGE).fill(0x5a));
    const { message: reply, keys } = noise.answer();
    this.sender = new Direction(this.#algorithms, keys.exporter);
    this.#client.line.write(reply);
  }

  /** Sends a frame. */
  send(fields: FrameFields): void {
    const number = this.sent++;
    this.#client.line.write(this.sender.seal(number, headerOf(number, fields), fields.payload ?? NOTHING));
  }

  #hears(): Uint8Array {
    this.#client.settle();
    return this.#client.line.read();
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
