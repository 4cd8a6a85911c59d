/**
 * A lane of a {@link World}, and its disk.
 *
 * @module
 */
import assert from "node:assert/strict";
import { FrameCodec, type Handoff } from "../../protocol/codec.ts";
import { ExporterLane, type ExporterLaneHost } from "../../protocol/exporter_lane.ts";
import { Access } from "../../protocol/grant.ts";
import { Operation, PENDING } from "../../protocol/request.ts";
import {
  BLOCK_BYTES,
  DEPTH,
  DISK_BYTES,
  LANE_CONTROL_AT,
  LANE_STAGING_AT,
  MAX_PAYLOAD,
  payloadAtOf,
} from "./ground.ts";
import type { Stream } from "./stream.ts";
import type { Session, World } from "./world.ts";

/** Something that executes. */
interface Execution {
  readonly slot: number;
  readonly operation: number;
  readonly offset: number;
  readonly length: number;
}

/** A lane and its disk. */
export class WorldLane implements ExporterLaneHost {
  readonly machine: ExporterLane;
  stream: Stream | null = null;
  generation = 0;
  /** Its slots are to be cleared before the next connection. */
  clears = false;
  /** What executes. */
  readonly pending: Execution[] = [];
  readonly #world: World;
  readonly #session: Session;
  readonly #payloadAt: number[];
  #arrivals = 0;

  constructor(world: World, session: Session, number: number, readonly at: number) {
    this.#world = world;
    this.#session = session;
    this.#payloadAt = Array.from({ length: DEPTH }, (_, slot) => at + payloadAtOf(slot));
    this.machine = new ExporterLane(world.ground.core, {
      lane: number,
      depth: DEPTH,
      maxPayload: MAX_PAYLOAD,
      payloadAt: this.#payloadAt,
      controlAt: at + LANE_CONTROL_AT,
      size: DISK_BYTES,
      logicalBlock: BLOCK_BYTES,
      readOnly: session.access !== Access.READ_WRITE,
    }, this);
  }

  get turn(): number {
    return this.#world.turnNumber;
  }
  get isIdle(): boolean {
    return this.stream === null && this.machine.executing === 0;
  }

  again(): void {
    this.#world.again(this);
  }

  /** In the turn after `again`. */
  goOn(): void {
    this.machine.run();
    this.stream?.resume();
  }

  connect(stream: Stream, handoff: Handoff, answerType: number, generation: number): void {
    const { ground, now } = this.#world;
    if (this.clears) this.machine.clear();
    this.clears = false;
    this.generation = generation;
    this.stream = stream;
    // The door's own area is another visitor's from now on.
    stream.handOver(this.at + LANE_STAGING_AT, this.machine, () => this.#lost());
    const codec = new FrameCodec(ground.core, ground.cryptography, this.at, handoff);
    this.machine.connect(codec, answerType, generation, this.#world.grantOf(this.#session), now);
  }

  transmit(at: number, bytes: number): void {
    this.stream!.transmit(at, bytes);
  }

  execute(slot: number, operation: number, range: Float64Array): number {
    const [offset, length] = range;
    this.#world.executed++;
    assert.ok(offset % BLOCK_BYTES === 0 && length % BLOCK_BYTES === 0 && offset + length <= DISK_BYTES);
    const request = { slot, operation, offset, length };
    if (this.#world.below(2) === 0) return this.#carryOut(request);
    this.pending.push(request);
    return PENDING;
  }

  extentBytes(): number {
    return 16;
  }

  closeSession(): void {
    this.#session.isClosing = true;
  }

  /** Something that executes comes to its end. */
  complete(index: number): void {
    const [request] = this.pending.splice(index, 1);
    this.machine.complete(request.slot, this.#carryOut(request));
  }

  /** Nothing more is taken; ends when all is sent. */
  finish(): void {
    if (this.stream === null) return;
    this.machine.finish();
    if (!this.machine.isSending) this.stream.finish();
  }

  /** Drives its pings. */
  watch(): void {
    if (this.stream === null) return;
    if (this.stream.arrivals !== this.#arrivals) this.machine.heard(this.#world.now);
    this.#arrivals = this.stream.arrivals;
    this.machine.tick(this.#world.now);
    if (this.machine.error !== 0) this.stream.close();
  }

  #lost(): void {
    this.#world.count(this.machine.error);
    this.stream = null;
    this.machine.disconnect();
  }

  #carryOut({ slot, operation, offset, length }: Execution): number {
    const { disk, ground } = this.#world;
    const { bytes, view } = ground.core;
    const payloadAt = this.#payloadAt[slot];
    if (operation === Operation.READ) bytes.set(disk.subarray(offset, offset + length), payloadAt);
    if (operation === Operation.WRITE) disk.set(bytes.subarray(payloadAt, payloadAt + length), offset);
    if (operation === Operation.WRITE_ZEROES) disk.fill(0, offset, offset + length);
    if (operation === Operation.BLOCK_STATUS) {
      view.setBigUint64(payloadAt, BigInt(length), true);
      view.setBigUint64(payloadAt + 8, 0n, true);
    }
    return 0;
  }
}
