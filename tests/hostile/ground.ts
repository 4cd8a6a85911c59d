/**
 * What the exporters and clients of the tests stand on: one memory with its cryptography, in pools of a fixed size, so that
 * what is not given back is found out; and what their disk is like.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CODEC_SCRATCH_BYTES } from "../../protocol/codec.ts";
import { HEADER_BYTES_MAX } from "../../protocol/consumer.ts";
import { DOOR_SCRATCH_BYTES } from "../../protocol/exporter_door.ts";
import { LANE_CONTROL_BYTES } from "../../protocol/exporter_lane.ts";
import type { Cryptography, FrameGuard, NoisePrimitives } from "../../protocol/guard.ts";
import type { Core } from "../../wasm/core.ts";

/** The disk of all sessions, the block of its requests, and what a lane is granted. */
export const DISK_BYTES = 64 * 1024;
export const BLOCK_BYTES = 512;
export const DEPTH = 4;
export const MAX_PAYLOAD = 4096;
/** Connections at the door at once, and lanes. */
const VISITORS = 12;
const LANES_IN_ALL = 12;
/** Bytes before a slot's payload for its prefix. */
const SLOT_PREFIX_BYTES = 128;
const SLOT_BYTES = SLOT_PREFIX_BYTES + MAX_PAYLOAD;
const ALIGNMENT = 64;

/** Where things lie in a visitor's area, behind the door's own. */
export const VISITOR_STAGING_AT = aligned(DOOR_SCRATCH_BYTES);
const VISITOR_BYTES = aligned(VISITOR_STAGING_AT + HEADER_BYTES_MAX);
/** Where things lie in a lane's area, behind the codec's own. */
export const LANE_CONTROL_AT = CODEC_SCRATCH_BYTES;
export const LANE_STAGING_AT = LANE_CONTROL_AT + LANE_CONTROL_BYTES;
const LANE_SLOTS_AT = LANE_STAGING_AT + HEADER_BYTES_MAX;
const LANE_BYTES = aligned(LANE_SLOTS_AT + DEPTH * SLOT_BYTES);

/** Where in a lane's area the payload of a slot lies. */
export function payloadAtOf(slot: number): number {
  return LANE_SLOTS_AT + slot * SLOT_BYTES + SLOT_PREFIX_BYTES;
}

/** The next multiple of what areas begin at. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Arena offsets that are lent and given back. */
class Pool {
  readonly #all: readonly number[];
  #free: number[] = [];
  constructor(readonly size: number, first: number, stride: number) {
    this.#all = Array.from({ length: size }, (_, i) => first + i * stride);
    this.reset();
  }
  /** As if nothing had been lent. */
  reset(): void {
    this.#free = [...this.#all];
  }
  get isWhole(): boolean {
    return this.#free.length === this.size;
  }
  take(): number | null {
    return this.#free.pop() ?? null;
  }
  giveBack(at: number): void {
    assert.ok(!this.#free.includes(at), "nothing is given back twice");
    this.#free.push(at);
  }
}

/** What all worlds are made of, one after the other: the memory, its cryptography, and the pools. */
export class Ground {
  readonly core: Core;
  readonly cryptography: Cryptography;
  readonly visitors: Pool;
  readonly lanes: Pool;
  /** Guards that are not closed. */
  guards = 0;

  constructor(core: Core, cryptography: Cryptography, noise: NoisePrimitives = cryptography.noise) {
    this.core = core;
    const makeGuard: Cryptography["makeGuard"] = (...args) => this.#counted(cryptography.makeGuard(...args));
    this.cryptography = { ciphers: cryptography.ciphers, noise, makeGuard };
    const first = aligned(core.freeFrom);
    this.visitors = new Pool(VISITORS, first, VISITOR_BYTES);
    const lanesAt = first + VISITORS * VISITOR_BYTES;
    this.lanes = new Pool(LANES_IN_ALL, lanesAt, LANE_BYTES);
    assert.ok(lanesAt + LANES_IN_ALL * LANE_BYTES <= core.bytes.length, "the memory is large enough");
  }

  /** Whether everything has been given back. */
  get isWhole(): boolean {
    return this.visitors.isWhole && this.lanes.isWhole && this.guards === 0;
  }

  /** After a world that failed: the next one must not fail because of it. */
  reset(): void {
    this.visitors.reset();
    this.lanes.reset();
    this.guards = 0;
  }

  #counted(guard: FrameGuard): FrameGuard {
    this.guards++;
    let isOpen = true;
    const close = guard.close.bind(guard);
    guard.close = () => {
      if (isOpen) this.guards--;
      isOpen = false;
      close();
    };
    return guard;
  }
}
