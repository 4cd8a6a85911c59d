/**
 * Both ends of a lane in one thread: the client's session and the exporter's lane, each over its end of a pair of
 * sockets, without a door. What is between them is what is between two machines.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Connector } from "../../client/connector.ts";
import { KEEPER_SLOTS } from "../../client/keeper.ts";
import { MutationLedger } from "../../client/ledger.ts";
import { PATIENCE } from "../../client/patience.ts";
import type { ReconnectPlan } from "../../client/reconnect.ts";
import { makeReplayRoom } from "../../client/replay_log.ts";
import { ClientSession } from "../../client/session.ts";
import { type CryptoChoice, makeCryptography } from "../../engine/cryptography.ts";
import { arenaBytes, Engine } from "../../engine/engine.ts";
import type { Stream, StreamOwner } from "../../engine/stream.ts";
import { transmitSlots } from "../../engine/transmit_area.ts";
import { closeBackend, makeBackend, makeStickyWord, openBackend } from "../../exporter/backends/open.ts";
import { Lane } from "../../exporter/lane.ts";
import { makeLoop } from "../../ffi/mod.ts";
import { socketPair } from "../../ffi/socket.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "../../protocol/codec.ts";
import type { FrameGuard } from "../../protocol/guard.ts";
import { type StreamConsumer, Verdict } from "../../protocol/consumer.ts";
import { decodeUsableGrant } from "../../protocol/door_message.ts";
import { Access, encodeGrant, Feature, type Grant } from "../../protocol/grant.ts";
import { framePayloadBytes, FrameType } from "../../protocol/wire.ts";
import { makeArena } from "../../wasm/core.ts";

/** Slots beside those of the requests: two streams', the lane's and the session's own messages. */
const OTHER_SLOTS = 4 + KEEPER_SLOTS;
const CLIENT_KEY = new Uint8Array(32).fill(1);
const EXPORTER_KEY = new Uint8Array(32).fill(2);

export interface BothEndsOptions {
  readonly loop: "uring" | "poll";
  readonly crypto: CryptoChoice;
  readonly cipher: number;
  readonly digest: number;
  readonly keyed: boolean;
  readonly depth: number;
  readonly maxPayload: number;
  /** `mem:SIZE` or a file. */
  readonly path: string;
  /** So many bytes for copies of what is written, as if the disk could lose it; without it none. */
  readonly replayBytes?: number;
  /** Told of each payload, or piece of one, that is sealed or opened: by which guard, in which turn, and its bytes. */
  readonly worked?: (guard: number, turn: number, bytes: number) => void;
}

/** Takes the answer to an OPEN, which is the lane's first frame, and then hands the stream to the session. */
class Opening implements StreamConsumer {
  readonly payloadAt: number;
  payloadBytes = 0;
  readonly #codec: FrameCodec;

  constructor(
    readonly engine: Engine,
    readonly stream: Stream,
    readonly handoff: Handoff,
    readonly opened: (grant: Grant) => void,
  ) {
    this.payloadAt = stream.scratchAt + CODEC_SCRATCH_BYTES;
    this.#codec = new FrameCodec(engine.arena, engine.cryptography, stream.scratchAt, handoff);
  }

  get headerBytes(): number {
    return this.#codec.prefixBytes;
  }

  onHeader(at: number): Verdict {
    assert.equal(this.#codec.openPrefix(at), 0);
    this.payloadBytes = framePayloadBytes(this.engine.arena, at);
    return Verdict.PAYLOAD;
  }

  onPayload(): Verdict {
    assert.equal(this.#codec.openPayload(this.payloadAt, this.payloadBytes), 0);
    this.#codec.close();
    const grant = decodeUsableGrant(this.engine.arena.bytes.slice(this.payloadAt, this.payloadAt + this.payloadBytes));
    assert.ok(grant !== null);
    this.opened(grant);
    return Verdict.NEXT;
  }
}

/** A disk, a lane over it, and a session over the lane. */
export class BothEnds implements StreamOwner {
  readonly engine: Engine;
  readonly lane: Lane;
  session!: ClientSession;
  /** Why either end has dropped the connection. */
  readonly reasons: string[] = [];
  readonly ledger = new MutationLedger();
  /** The client's end. */
  readonly stream: Stream;
  readonly #close: () => void;
  #isOpen = false;

  constructor(options: BothEndsOptions) {
    const { depth, maxPayload, cipher, digest } = options;
    const area = cipher === 0 ? 0 : transmitSlots(depth);
    const arena = arenaBytes(2 * depth + area + OTHER_SLOTS);
    const engine = makeEngine(options, arena);
    this.engine = engine;
    const disk = openBackend({ path: options.path, readOnly: false, direct: false });
    const device = makeBackend(disk, engine.loop, engine.slots, makeStickyWord());
    const slots = engine.slots.reserve(depth + 1)!;
    const owner = {
      onLaneLost: () => {},
      onLaneFinished: () => {},
      onLaneIdle: () => {},
      onClose: () => {},
      log: (text: string) => this.reasons.push(text),
    };
    this.lane = new Lane(engine, device, owner, { session: "", lane: 0, depth, maxPayload, readOnly: false, slots });
    const pair = socketPair();
    assert.ok(typeof pair !== "number");
    const { geometry } = device;
    const identity = new Uint8Array(16);
    const grant: Grant = {
      size: geometry.size,
      logicalBlock: geometry.logicalBlock,
      physicalBlock: geometry.physicalBlock,
      optimalIo: geometry.optimalIo,
      discardGranularity: geometry.discardGranularity,
      access: Access.READ_WRITE,
      features: (options.replayBytes === undefined ? 0 : Feature.VOLATILE_CACHE) | Feature.DISCARD |
        Feature.WRITE_ZEROES | Feature.BLOCK_STATUS,
      identities: { instance: identity, durability: identity, storage: identity, writeEpoch: 1 },
      slots: depth,
      maxPayload,
      payloadBytes: depth * maxPayload,
      leaseMs: 1000,
      lanes: 1,
    };
    const handoff = (send: Uint8Array, receive: Uint8Array, received: number): Handoff => {
      const keys = options.keyed ? { send: send.slice(), receive: receive.slice() } : null;
      return { cipher, digest, keys, sent: 0, received };
    };
    const exporter = handoff(EXPORTER_KEY, CLIENT_KEY, 0);
    assert.ok(this.lane.connect(pair[1], exporter, FrameType.OPEN, 1, encodeGrant(grant)));
    this.stream = engine.streams.open(pair[0], this)!;
    const controlSlots = engine.slots.reserve(1)!;
    this.stream.start(
      new Opening(engine, this.stream, handoff(CLIENT_KEY, EXPORTER_KEY, 0), (granted) => {
        const owner = {
          onLost: (reason: string) => this.reasons.push(reason),
          onShuttingDown: () => {},
          onResized: () => {},
          onAway: (reason: string) => this.reasons.push(reason),
        };
        const replay = options.replayBytes === undefined
          ? null
          : { room: makeReplayRoom(1, options.replayBytes), slots: engine.slots.reserve(KEEPER_SLOTS)! };
        const place = { lane: 0, ledger: this.ledger, plan: patientPlan(engine), replay };
        this.session = new ClientSession(engine, controlSlots, granted, owner, place);
        this.session.connect(this.stream, handoff(CLIENT_KEY, EXPORTER_KEY, 1));
        this.#isOpen = true;
      }),
    );
    this.until(() => this.#isOpen);
    this.#close = () => {
      this.session.abort();
      this.lane.disconnect();
      this.until(() => !this.session.isConnected && !this.lane.isConnected);
      device.close();
      closeBackend(disk);
      engine.close();
    };
  }

  /** Turns until the condition holds. */
  until(condition: () => boolean, turns = 100_000): void {
    for (let turn = 0; !condition(); turn++) {
      assert.ok(turn < turns, `what is waited for does not happen: ${this.reasons.join("; ")}`);
      this.engine.turn(5);
    }
  }

  close(): void {
    this.#close();
  }

  // The stream's owner, until there is a session.

  onHeard(): void {
    if (this.#isOpen) this.session.onHeard();
  }
  onSent(stream: Stream, token: number): void {
    if (this.#isOpen) this.session.onSent(stream, token);
  }
  onDrained(): void {}
  onClosed(stream: Stream, errno: number): void {
    this.session.onClosed(stream, errno);
  }
}

/** A session as attachments have it, but that its connection is never lost here. */
function patientPlan(engine: Engine): ReconnectPlan {
  const address = { family: "ipv4", host: "127.0.0.1", port: 1 } as const;
  return {
    connector: new Connector(engine),
    target: { where: "nowhere", addresses: [address], digests: [] },
    patience: PATIENCE,
    session: new Uint8Array(16),
    lane: 0,
    name: "disk",
    readOnly: false,
    holder: "a test",
    depth: 1,
    maxPayload: 4096,
    lanes: 1,
    address,
    lookup: null,
    random: () => 0,
  };
}

function makeEngine(options: BothEndsOptions, bytes: number): Engine {
  const core = makeArena(bytes);
  core.warmUp();
  const cryptography = makeCryptography(core, options.crypto);
  const { worked } = options;
  if (worked !== undefined) {
    let guards = 0;
    const { makeGuard } = cryptography;
    cryptography.makeGuard = (...suite) => watched(makeGuard(...suite), guards++);
  }
  const engine: Engine = new Engine(makeLoop(options.loop), core, cryptography);
  return engine;

  function watched(guard: FrameGuard, number: number): FrameGuard {
    const { seal, sealPiece, open, openPiece } = guard;
    const work = (bytes: number) => worked!(number, engine.turnNumber, bytes);
    guard.seal = (...range) => (work(range[3]), seal.apply(guard, range));
    guard.sealPiece = (...range) => (work(range[2]), sealPiece.apply(guard, range));
    guard.open = (...range) => (work(range[2]), open.apply(guard, range));
    guard.openPiece = (...range) => (work(range[1]), openPiece.apply(guard, range));
    return guard;
  }
}
