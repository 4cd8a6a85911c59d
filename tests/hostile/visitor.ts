/**
 * A connection at the door of a {@link World}.
 *
 * @module
 */
import assert from "node:assert/strict";
import { ExporterDoor, type ExporterDoorHost } from "../../protocol/exporter_door.ts";
import { Access, type JoinRequest, type OpenRequest } from "../../protocol/grant.ts";
import { FENCING_INTERVAL_MS, HANDSHAKE_TIME_MS } from "../../protocol/limits.ts";
import { DISK_BYTES, VISITOR_STAGING_AT } from "./ground.ts";
import { type Line, Stream } from "./stream.ts";
import { EXPORT_NAME, FEATURES, IDENTITIES, SHAPE, type World } from "./world.ts";
import type { WorldLane } from "./world_lane.ts";

/** A connection at the door. */
export class Visitor implements ExporterDoorHost {
  readonly machine: ExporterDoor;
  readonly stream: Stream;
  /** The lane that it waits for. */
  lane: WorldLane | null = null;
  readonly #world: World;
  readonly #at: number;
  #answerType = 0;
  #generation = 0;
  #since: number;

  constructor(world: World, line: Line, at: number) {
    const { ground, options } = world;
    const memory = ground.core;
    this.#world = world;
    this.#at = at;
    this.#since = world.now;
    const config = { ciphers: options.ciphers, digests: options.digests, keyRequired: options.keys.size > 0 };
    this.machine = new ExporterDoor(memory, ground.cryptography, at, config, this);
    this.stream = new Stream(line, memory, at + VISITOR_STAGING_AT, this.machine, () => this.#left());
  }

  get keyId(): string {
    return this.machine.keyId === null ? "" : this.machine.keyId.toHex();
  }

  transmit(at: number, bytes: number): void {
    this.stream.transmit(at, bytes);
  }
  keyOf(id: Uint8Array): Uint8Array | null {
    return this.#world.options.keys.get(id.toHex()) ?? null;
  }
  randomBytes(count: number): Uint8Array {
    // Each ephemeral key once in a world, as it has to be; but the same ones in each, so that they are computed once. The
    // first byte would not do: the curve ignores its lowest bits.
    const second = ++this.#world.handshakes;
    assert.ok(second < 256);
    return Uint8Array.from({ length: count }, (_, i) => i === 1 ? second : i < 32 ? i : this.#world.below(256));
  }
  list() {
    this.#since = this.#world.now;
    const entry = { name: EXPORT_NAME, size: DISK_BYTES, access: Access.READ_WRITE, features: FEATURES };
    return { entries: [entry], more: false };
  }
  describe(name: string) {
    this.#since = this.#world.now;
    if (name !== EXPORT_NAME) return null;
    return { ...SHAPE, access: Access.READ_WRITE, features: FEATURES, identities: IDENTITIES, current: null };
  }
  open(request: OpenRequest): void {
    this.#since = this.#world.now;
    this.#world.open(this, request);
  }
  join(request: JoinRequest): void {
    this.#since = this.#world.now;
    this.#world.join(this, request);
  }

  promise(lane: WorldLane, answerType: number, generation: number): void {
    this.lane = lane;
    this.#answerType = answerType;
    this.#generation = generation;
  }

  refuse(status: number): void {
    this.lane = null;
    if (!this.machine.isPending) return;
    this.machine.refuse(status, "not now");
    this.#since = this.#world.now;
    this.stream.resume();
  }

  /** Becomes a lane as soon as it can; says FENCING until then; is sent away when it takes too long. */
  watch(): void {
    if (this.stream.isClosed) return;
    const waitedMs = this.#world.now - this.#since;
    if (this.lane === null || !this.machine.isPending) {
      if (waitedMs >= HANDSHAKE_TIME_MS) this.stream.close();
      return;
    }
    if (this.lane.isIdle && this.stream.isDrained) return this.#become(this.lane);
    if (waitedMs < FENCING_INTERVAL_MS) return;
    this.#since = this.#world.now;
    this.machine.fencing(this.lane.machine.executing);
  }

  #become(lane: WorldLane): void {
    // It did not wait for the answer.
    if (this.stream.hasMore) return this.stream.close();
    this.#world.visitors.delete(this);
    const handoff = this.machine.handoff();
    lane.connect(this.stream, handoff, this.#answerType, this.#generation);
    this.machine.close();
    this.#world.ground.visitors.giveBack(this.#at);
  }

  #left(): void {
    this.#world.count(this.machine.error);
    this.machine.close();
    this.#world.visitors.delete(this);
    this.#world.ground.visitors.giveBack(this.#at);
  }
}
