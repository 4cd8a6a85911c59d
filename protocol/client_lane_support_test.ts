/**
 * A lane of a client under test, with an exporter that says what the test wants.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Frame, seal, type Suite } from "../tests/vectors/frames.ts";
import { concat, hex, le } from "../tests/vectors/primitives.ts";
import { ClientLane, type ClientLaneOptions } from "./client_lane.ts";
import { Arena, Feed, Script, XXH64 } from "./client_support_test.ts";
import { FrameCodec } from "./codec.ts";
import type { TransmitRoom } from "./frame_sender.ts";
import { Operation } from "./request.ts";

/** The lane's number. */
export const LANE = 3;

/** A lane, its host's diary, and the exporter's half of the connection. */
export class LaneBench {
  readonly arena: Arena;
  readonly lane: ClientLane;
  /** What the host was told. */
  readonly events: string[] = [];
  /** What was sent, message by message, as it was when it was queued. */
  sent: Uint8Array[] = [];
  /** Where each lay. */
  places: { at: number; bytes: number }[] = [];
  /** With a keyed suite: those of the next connection, as this side sees them. */
  keys: { send: Uint8Array; receive: Uint8Array } = { send: new Uint8Array(32), receive: new Uint8Array(32) };
  script: Script;
  feed: Feed;
  onCompleted: (slot: number) => void = () => {};
  turn = 0;
  /** The lane has more to do, in a turn to come. */
  isAgainWanted = false;

  constructor(
    readonly suite: Suite = XXH64,
    options: Partial<ClientLaneOptions> = {},
    arena = new Arena(),
    readonly room: TransmitRoom | null = null,
  ) {
    this.arena = arena;
    this.arena.core.bytes.fill(0xee, this.arena.payloadAt(0) - 4096);
    const { events } = this;
    const turn = () => this.turn;
    const allOptions = { lane: LANE, depth: 4, maxPayload: 65536, controlAt: this.arena.scratchAt, ...options };
    this.lane = new ClientLane(this.arena.core, allOptions, {
      transmit: (at, bytes) => {
        this.sent.push(this.arena.core.bytes.slice(at, at + bytes));
        this.places.push({ at, bytes });
      },
      completed: (slot, status, payloadBytes) => {
        events.push(`completed ${slot} ${status} ${payloadBytes}`);
        this.onCompleted(slot);
      },
      resized: (size) => events.push(`resized ${size}`),
      shuttingDown: () => events.push("shuttingDown"),
      fenced: () => events.push("fenced"),
      closed: () => events.push("closed"),
      probed: (slot, state) => events.push(`probed ${slot} ${state}`),
      again: () => this.isAgainWanted = true,
      get turn() {
        return turn();
      },
    });
    this.script = new Script(suite);
    this.feed = new Feed(this.arena, this.lane);
    this.connect();
  }

  /** A new connection, on which the door has sent and received two frames already. */
  connect(now = 0): void {
    this.script = new Script(this.suite, this.keys.receive);
    this.script.n = 2;
    this.feed = new Feed(this.arena, this.lane);
    this.sent = [];
    this.places = [];
    const { cipher, digest, keyed } = this.suite;
    const handoff = { cipher, digest, keys: keyed ? this.keys : null, sent: 2, received: 2 };
    this.lane.connect(
      new FrameCodec(this.arena.core, this.arena.cryptography, this.arena.codecAt, handoff),
      now,
      this.room,
    );
  }

  request(slot: number, operation: number, offset: number, length: number, flags = 0): void {
    this.lane.request(slot, this.arena.payloadAt(slot), operation, Float64Array.of(offset, length), flags);
  }

  payload(slot: number, bytes: number): Uint8Array {
    return this.arena.core.bytes.slice(this.arena.payloadAt(slot), this.arena.payloadAt(slot) + bytes);
  }

  /** The exporter sends a frame of this lane. */
  receive(frame: Omit<Frame, "name" | "from">): void {
    this.feed.push(this.script.next({ lane: LANE, ...frame }));
    this.settle();
  }

  /** The next turn. */
  next(): void {
    this.turn++;
    if (!this.isAgainWanted) return;
    this.isAgainWanted = false;
    this.lane.run();
    if (this.feed.isWaiting) this.feed.resume();
  }

  /** The turns that the lane wants. */
  settle(): void {
    for (let turns = 0; this.isAgainWanted; turns++) {
      assert.ok(turns < 10_000, "a lane does not want turns for ever");
      this.next();
    }
  }

  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

/** What the independent script would send for the n-th frame of the client. */
export function expected(suite: Suite, n: number, frame: Omit<Frame, "name" | "from">): string {
  const sealed = seal(suite, new Uint8Array(32), { name: "", from: "client", lane: LANE, ...frame }, n);
  return hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload));
}

/** An extent of a BLOCK_STATUS. */
export const extent = (length: number, flags: number) => concat(le(length, 8), le(flags, 4), le(0, 4));

/** Requests that are under way while a hostile frame arrives: READ in 0, WRITE in 1, BLOCK_STATUS in 2; 3 is free. */
export function withRequests(options: Partial<ClientLaneOptions> = {}): LaneBench {
  const bench = new LaneBench(XXH64, options);
  bench.request(0, Operation.READ, 0, 1024);
  bench.request(1, Operation.WRITE, 0, 512);
  bench.request(2, Operation.BLOCK_STATUS, 0, 4096);
  return bench;
}
