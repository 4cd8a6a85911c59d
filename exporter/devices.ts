/**
 * The disks of one data-path Worker: back-ends with their layers, by the index of the export.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, type Geometry, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { layerNeeds, makeLayer } from "../engine/layers/mod.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { Feature } from "../protocol/grant.ts";
import { makeBackend } from "./backends/open.ts";
import type { ServedExport, ServedShape } from "./messages.ts";

/** The disks that lanes of this Worker can be of. */
export class Devices implements BlockClient {
  readonly #engine: Engine;
  /** Those that live here, by the index of the export. */
  readonly #devices = new Map<number, BlockDevice>();
  /** For the last FLUSH of a disk when lanes have all the others. */
  readonly #spareSlot: number;
  /** Whoever waits for the last FLUSH of a disk, by its slot. */
  readonly #syncing = new Map<number, (failure: string | null) => void>();
  /** Syncs that wait for the spare slot. */
  readonly #waiting: (() => void)[] = [];
  /** Disks that are being removed. */
  #removing = 0;
  #whenRemoved: (() => void) | null = null;

  readonly #onFailure: (index: number) => void;

  /**
   * @param onFailure gets the index of a disk whose stable storage has failed; each fails once
   * @throws {Error} when a disk or a layer cannot be made
   */
  constructor(engine: Engine, exports: readonly (ServedExport | null)[], onFailure: (index: number) => void) {
    this.#engine = engine;
    this.#onFailure = onFailure;
    this.#spareSlot = engine.slots.reserve(1)![0];
    for (const [index, one] of exports.entries()) if (one !== null) this.add(index, one);
  }

  /** One that lives here. */
  get(index: number): BlockDevice {
    return this.#devices.get(index)!;
  }

  /** Whether it lives here. */
  has(index: number): boolean {
    return this.#devices.has(index);
  }

  /** One that lives here has become larger or smaller: so many bytes. */
  resize(index: number, size: number): void {
    // Layers show the geometry of what is below them, or a copy of their own.
    this.get(index).geometry.size = size;
  }

  /** What an export is like, as its layers leave it. */
  shape(index: number): ServedShape {
    const { geometry } = this.get(index);
    return {
      size: geometry.size,
      logicalBlock: geometry.logicalBlock,
      physicalBlock: geometry.physicalBlock,
      optimalIo: geometry.optimalIo,
      discardGranularity: geometry.discardGranularity,
      features: featuresOf(geometry),
    };
  }

  /**
   * Adds one, with an index that was never used.
   *
   * @throws {Error} when it or a layer cannot be made
   */
  add(index: number, one: ServedExport): void {
    this.#devices.set(index, makeDevice(this.#engine, one, () => this.#onFailure(index)));
  }

  /**
   * Syncs one and closes it, if it lives here. Nothing uses it any more.
   *
   * @param then gets why it could not be synced, or null; perhaps from within the call
   */
  remove(index: number, then: (failure: string | null) => void): void {
    const device = this.#devices.get(index);
    this.#devices.delete(index);
    if (device === undefined) return then(null);
    this.#removing++;
    this.#sync(device, (failure) => {
      device.close();
      then(failure);
      this.#removing--;
      this.#settle();
    });
  }

  /** Syncs and closes all of them, as {@link remove} does; `then` is called when nothing is under way any more. */
  removeAll(then: (failures: string[]) => void): void {
    const failures: string[] = [];
    for (const index of [...this.#devices.keys()]) {
      this.remove(index, (failure) => failure !== null && failures.push(failure));
    }
    this.#whenRemoved = () => then(failures);
    this.#settle();
  }

  onComplete(slot: number, status: number): void {
    const then = this.#syncing.get(slot)!;
    this.#syncing.delete(slot);
    if (slot !== this.#spareSlot) this.#engine.slots.release(Uint32Array.of(slot));
    then(status < 0 ? errnoMessage(status) : null);
    this.#waiting.shift()?.();
  }

  #settle(): void {
    if (this.#removing > 0) return;
    const then = this.#whenRemoved;
    this.#whenRemoved = null;
    then?.();
  }

  #sync(device: BlockDevice, then: (failure: string | null) => void): void {
    if (device.geometry.readOnly) return then(null);
    const slot = this.#engine.slots.reserve(1)?.[0] ?? this.#spareSlot;
    if (this.#syncing.has(slot)) {
      this.#waiting.push(() => this.#sync(device, then));
      return;
    }
    this.#syncing.set(slot, then);
    const status = device.submit(slot, Operation.FLUSH, 0, this);
    if (status !== PENDING) this.onComplete(slot, status);
  }
}

/** A disk with its layers, the first the lowest. */
function makeDevice(engine: Engine, one: ServedExport, onFailure: () => void): BlockDevice {
  let device = makeBackend(one.disk, engine.loop, engine.slots, one.stickyWord, onFailure);
  for (const spec of one.layers) {
    if (layerNeeds(spec).slots > engine.slots.freeCount) {
      device.close();
      throw new Error(`Cannot use the layer ${spec.kind} on "${one.name}": it needs more memory than there is`);
    }
    device = makeLayer(spec, device, engine);
  }
  return device;
}

/** What an export can do, as the wire says it. */
function featuresOf(geometry: Geometry): number {
  let features = Feature.BLOCK_STATUS | Feature.CACHE;
  if (geometry.volatileCache) features |= Feature.VOLATILE_CACHE;
  if (geometry.readOnly) return features | Feature.READ_ONLY;
  features |= Feature.WRITE_ZEROES;
  if (geometry.discardGranularity > 0) features |= Feature.DISCARD;
  if (geometry.fastZero) features |= Feature.FAST_ZERO;
  return features;
}
