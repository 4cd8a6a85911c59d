/**
 * A lane of an exporter over a small disk in memory, as its tests use it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "./codec.ts";
import { ExporterLane, type ExporterLaneHost, LANE_CONTROL_BYTES } from "./exporter_lane.ts";
import {
  concat,
  type Cut,
  Feeder,
  type Fields,
  frame,
  handoffOf,
  makeMemory,
  parseFrames,
  type Received,
} from "./harness_test.ts";
import { Operation, PENDING } from "./request.ts";

const SCRATCH_BYTES = CODEC_SCRATCH_BYTES;
const STAGING_BYTES = 512;
const PREFIX_BYTES = 128;
/** The lane's number: not 0, so that it is seen whether it is right. */
export const LANE = 5;
/** The disk's first bytes are real; what lies behind them is accepted and not kept. */
export const DISK_BYTES = 65_536;
export const MAX_PAYLOAD = 8192;
export const GRANT = Uint8Array.from({ length: 24 }, (_, i) => i);

/** One request as the host saw it: slot, operation, offset, length, flags. */
export type Call = [number, number, number, number, number];

export interface LaneSetupOptions {
  depth?: number;
  size?: number;
  logicalBlock?: number;
  readOnly?: boolean;
  payloadBytes?: number;
  digest?: number;
  cut?: Cut;
}

/** The lane, its disk, and the client's end of its connection. */
export class LaneSetup implements ExporterLaneHost {
  readonly memory;
  readonly lane: ExporterLane;
  readonly disk = Uint8Array.from({ length: DISK_BYTES }, (_, i) => i * 7 + (i >> 8));
  readonly calls: Call[] = [];
  /** What `execute` answers; null: what the disk says. */
  answer: number | null = null;
  extents = concat(Uint8Array.from([0, 2, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]));
  closings = 0;
  feeder!: Feeder;
  /** The types of the frames that came with the answer to the latest connect. */
  announced: number[] = [];
  readonly digest: number;
  readonly #cut: Cut;
  readonly #payloadAt: number[];
  readonly #stagingAt: number;
  #sent: Uint8Array[] = [];
  #framesIn = 0;
  #framesOut = 0;

  constructor(options: LaneSetupOptions = {}) {
    const depth = options.depth ?? 4;
    this.digest = options.digest ?? 2;
    this.#cut = options.cut ?? "whole";
    const controlAt = SCRATCH_BYTES;
    const slotsAt = controlAt + LANE_CONTROL_BYTES;
    const stride = PREFIX_BYTES + MAX_PAYLOAD;
    this.#payloadAt = Array.from({ length: depth }, (_, slot) => slotsAt + slot * stride + PREFIX_BYTES);
    this.#stagingAt = slotsAt + depth * stride;
    this.memory = makeMemory(this.#stagingAt + STAGING_BYTES);
    this.lane = new ExporterLane(this.memory, {
      lane: LANE,
      depth,
      maxPayload: MAX_PAYLOAD,
      payloadBytes: options.payloadBytes,
      payloadAt: this.#payloadAt,
      controlAt,
      size: options.size ?? DISK_BYTES,
      logicalBlock: options.logicalBlock ?? 512,
      readOnly: options.readOnly ?? false,
    }, this);
  }

  execute(laneSlot: number, operation: number, [offset, length]: Float64Array, flags: number): number {
    this.calls.push([laneSlot, operation, offset, length, flags]);
    const payloadAt = this.#payloadAt[laneSlot];
    if (this.answer !== null && this.answer !== PENDING) return this.answer;
    if (operation === Operation.READ) {
      const data = this.disk.subarray(offset, offset + length);
      this.memory.bytes.fill(0, payloadAt, payloadAt + length);
      this.memory.bytes.set(data, payloadAt);
    }
    if (operation === Operation.WRITE && offset + length <= DISK_BYTES) {
      this.disk.set(this.memory.bytes.subarray(payloadAt, payloadAt + length), offset);
    }
    if (operation === Operation.BLOCK_STATUS) this.memory.bytes.set(this.extents, payloadAt);
    return this.answer ?? 0;
  }
  extentBytes(): number {
    return this.extents.length;
  }
  transmit(at: number, bytes: number): void {
    assert.ok(at >= SCRATCH_BYTES && at + bytes <= this.#stagingAt, "only the lane's own memory is sent");
    this.#sent.push(this.memory.bytes.slice(at, at + bytes));
  }
  closeSession(): void {
    this.closings++;
  }
  turn = 0;
  again(): void {
    this.isAgainWanted = true;
  }
  /** The lane has more to do, in a turn to come. */
  isAgainWanted = false;

  /** The turns that the lane wants. */
  settle(): this {
    for (let turns = 0; this.isAgainWanted; turns++) {
      assert.ok(turns < 10_000, "a lane does not want turns for ever");
      this.isAgainWanted = false;
      this.turn++;
      this.lane.run();
      if (this.feeder.waiting) this.feeder.resume();
    }
    return this;
  }

  /** A connection of the generation, with the grant received. */
  connect(generation = this.lane.generation + 1, now = 0): this {
    const codec = new FrameCodec(this.memory, this.memory.cryptography, 0, handoffOf(this.digest, 3, 2));
    this.#framesIn = 2;
    this.#framesOut = 3;
    this.lane.connect(codec, 0x23, generation, GRANT, now);
    this.feeder = new Feeder(this.memory, this.#stagingAt, this.lane);
    const [answer, ...announced] = this.frames();
    this.announced = announced.map(({ type }) => type);
    assert.deepEqual([answer.type, answer.lane, answer.status, answer.payload], [0xa3, 0, 0, GRANT]);
    return this;
  }

  /** The connection breaks, and what was sent on it is lost. */
  break(): this {
    this.lane.disconnect();
    this.#sent = [];
    return this;
  }

  /** The bytes of the client's next frame. */
  frame(fields: Fields): Uint8Array {
    return frame({ lane: LANE, ...fields }, this.#framesIn++, this.digest);
  }

  /** Sends a frame. */
  send(fields: Fields): this {
    this.feeder.feed(this.frame(fields), this.#cut);
    return this.settle();
  }

  /** The frames that came since the last call. */
  frames(count?: number): Received[] {
    const frames = parseFrames(concat(...this.#sent.splice(0)), this.digest, this.#framesOut);
    this.#framesOut += frames.length;
    if (count !== undefined) assert.equal(frames.length, count, "so many frames came");
    return frames;
  }

  /** Sends a frame and gives the one reply. */
  ask(fields: Fields): Received {
    this.send(fields);
    return this.frames(1)[0];
  }

  /** The connection was ended for this reason, without anything sent. */
  assertFailed(error: number): void {
    assert.deepEqual([this.feeder.closed, this.lane.error], [true, error]);
    this.frames(0);
  }
}
