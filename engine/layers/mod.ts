/**
 * Layers: disks over a disk, for faults on purpose. A specification is read on the control plane, travels to the
 * Workers as plain data, and becomes a layer there.
 *
 * | specification | effect |
 * |---|---|
 * | `delay:2000` | every request takes 2 s longer |
 * | `delay:read=5,write=10` | READs take 5 ms longer, WRITEs 10 ms |
 * | `error:write,offset=1M,length=4K,errno=ENOSPC` | WRITEs that touch these 4 KiB fail |
 * | `error:flush,after=3` | the fourth FLUSH and all later ones fail with EIO |
 * | `error:read,write,every=100,count=2` | the 100th and the 200th READ or WRITE fail |
 * | `error:probability=0.01,seed=7` | one request in a hundred fails, repeatably |
 * | `volatile:64M` | a volatile write cache of 64 MiB |
 * | `volatile:64M,through=0.5,seed=7` | the same, but half of what is written is on the disk at once, repeatably |
 *
 * Operations are `read`, `write`, `flush`, `discard`, `write-zeroes`, `cache` and `block-status`.
 *
 * @module
 */
import { Errno } from "../../ffi/errno.ts";
import { type BlockDevice, Operation } from "../block.ts";
import { parseSize } from "../size.ts";
import type { Slots } from "../slots.ts";
import type { Timers } from "../timers.ts";
import { DelayLayer, type DelaySpec } from "./delay.ts";
import { ErrorLayer, type ErrorSpec } from "./error.ts";
import { VolatileLayer, volatileSlots, type VolatileSpec } from "./volatile.ts";

export { DelayLayer, ErrorLayer, VolatileLayer };
export type { DelaySpec, ErrorSpec, VolatileSpec };

/** A layer as plain data. */
export type LayerSpec = DelaySpec | ErrorSpec | VolatileSpec;

/** What layers are made from: their Worker's own. */
export interface LayerContext {
  readonly slots: Slots;
  readonly timers: Timers;
}

/** What a layer takes of its Worker. */
export interface LayerNeeds {
  /** Slots that it reserves for itself. */
  readonly slots: number;
  /** Timers that it may run at once, for each slot of the Worker. */
  readonly timersPerSlot: number;
  /** Its state cannot be spread over Workers: one must serve the whole export. */
  readonly oneWorker: boolean;
}

const OPERATION_NAMES: Readonly<Record<string, number>> = {
  read: Operation.READ,
  write: Operation.WRITE,
  flush: Operation.FLUSH,
  discard: Operation.DISCARD,
  "write-zeroes": Operation.WRITE_ZEROES,
  cache: Operation.CACHE,
  "block-status": Operation.BLOCK_STATUS,
};

/** One more than the highest operation: the length of a table by operation. */
const OPERATIONS = Math.max(...Object.values(OPERATION_NAMES)) + 1;

/**
 * Reads a layer's specification, as in the table above.
 *
 * @throws {RangeError} "Cannot use the layer …: reason"
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseLayer("volatile:64M"), { kind: "volatile", bytes: 64 * 1024 * 1024, through: 0, seed: 1 });
 * ```
 */
export function parseLayer(text: string): LayerSpec {
  const colon = text.indexOf(":");
  const kind = colon < 0 ? text : text.slice(0, colon);
  const parts = colon < 0 ? [] : text.slice(colon + 1).split(",");
  try {
    if (kind === "delay") return parseDelay(parts);
    if (kind === "error") return parseError(parts);
    if (kind === "volatile") return parseVolatile(parts);
    throw new RangeError("there are the layers delay, error and volatile");
  } catch (error) {
    throw new RangeError(`Cannot use the layer "${text}": ${(error as Error).message}`);
  }
}

/** What the layer takes of its Worker. */
export function layerNeeds(spec: LayerSpec): LayerNeeds {
  return {
    slots: spec.kind === "volatile" ? volatileSlots(spec) : 0,
    timersPerSlot: spec.kind === "delay" ? 1 : 0,
    oneWorker: hasState(spec),
  };
}

/** Whether what the layer does to one request depends on others. */
function hasState(spec: LayerSpec): boolean {
  if (spec.kind !== "error") return spec.kind === "volatile";
  return spec.after > 0 || spec.every > 1 || spec.probability < 1 || spec.count < Number.MAX_SAFE_INTEGER;
}

/**
 * Makes a layer.
 *
 * @param spec what it does
 * @param lower the disk below, which becomes the layer's to close
 * @param context its Worker's slots and timers, which must have what {@link layerNeeds} says
 * @throws {RangeError} when they do not
 */
export function makeLayer(spec: LayerSpec, lower: BlockDevice, context: LayerContext): BlockDevice {
  switch (spec.kind) {
    case "delay":
      return new DelayLayer(spec, lower, context.slots.count, context.timers);
    case "error":
      return new ErrorLayer(spec, lower, context.slots);
    case "volatile":
      return new VolatileLayer(spec, lower, context.slots);
  }
}

function parseDelay(parts: string[]): DelaySpec {
  const delaysMs = new Array<number>(OPERATIONS).fill(0);
  if (parts.length === 0) throw new RangeError("it needs a delay in ms");
  for (const part of parts) {
    const [name, value] = splitOption(part);
    if (value === null) delaysMs.fill(parseNumber("the delay", name, 0, MAX_DELAY_MS));
    else delaysMs[operationNamed(name)] = parseNumber(name, value, 0, MAX_DELAY_MS);
  }
  return { kind: "delay", delaysMs };
}

/** A day: longer than any lease or resend window that a test could want to outlast. */
const MAX_DELAY_MS = 86_400_000;

function parseError(parts: string[]): ErrorSpec {
  const operations: number[] = [];
  const options = new Map<string, string>();
  for (const part of parts) {
    const [name, value] = splitOption(part);
    if (value === null) operations.push(operationNamed(name));
    else addOption(options, name, value);
  }
  const take = (name: string, otherwise: string) => takeOption(options, name, otherwise);
  const errnoName = take("errno", "EIO");
  if (!Object.hasOwn(Errno, errnoName)) throw new RangeError(`there is no errno "${errnoName}"`);
  const length = options.has("length") ? parseSize(take("length", "")) : Number.MAX_SAFE_INTEGER;
  const spec: ErrorSpec = {
    kind: "error",
    operations,
    offset: parseSize(take("offset", "0")),
    length,
    errno: -Errno[errnoName as keyof typeof Errno],
    after: parseWhole("after", take("after", "0"), 0),
    every: parseWhole("every", take("every", "1"), 1),
    probability: parseNumber("probability", take("probability", "1"), 0, 1),
    seed: parseWhole("seed", take("seed", "1"), 0),
    count: parseWhole("count", take("count", String(Number.MAX_SAFE_INTEGER)), 1),
  };
  refuseOthers(options);
  return spec;
}

function parseVolatile([size, ...parts]: string[]): VolatileSpec {
  const options = new Map<string, string>();
  for (const part of parts) {
    const [name, value] = splitOption(part);
    if (value === null) throw new RangeError("it needs one size");
    addOption(options, name, value);
  }
  if (size === undefined || size.includes("=")) throw new RangeError("it needs one size");
  const bytes = parseSize(size);
  if (bytes === 0) throw new RangeError("its size must be more than 0");
  const spec: VolatileSpec = {
    kind: "volatile",
    bytes,
    through: parseNumber("through", takeOption(options, "through", "0"), 0, 1),
    seed: parseWhole("seed", takeOption(options, "seed", "1"), 0),
  };
  refuseOthers(options);
  return spec;
}

function addOption(options: Map<string, string>, name: string, value: string): void {
  if (options.has(name)) throw new RangeError(`${name} is given twice`);
  options.set(name, value);
}

/** Takes an option out, or gives what holds without it. */
function takeOption(options: Map<string, string>, name: string, otherwise: string): string {
  const value = options.get(name) ?? otherwise;
  options.delete(name);
  return value;
}

/** Refuses what nobody has taken out. */
function refuseOthers(options: Map<string, string>): void {
  for (const name of options.keys()) throw new RangeError(`there is no option "${name}"`);
}

function splitOption(part: string): [string, string | null] {
  const equals = part.indexOf("=");
  return equals < 0 ? [part, null] : [part.slice(0, equals), part.slice(equals + 1)];
}

function operationNamed(name: string): number {
  if (!Object.hasOwn(OPERATION_NAMES, name)) {
    throw new RangeError(`"${name}" is none of ${Object.keys(OPERATION_NAMES).join(", ")}`);
  }
  return OPERATION_NAMES[name];
}

function parseNumber(name: string, text: string, least: number, most: number): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new RangeError(`${name} must be a number from ${least} to ${most}, not "${text}"`);
  }
  return value;
}

function parseWhole(name: string, text: string, least: number): number {
  const value = parseNumber(name, text, least, Number.MAX_SAFE_INTEGER);
  if (!Number.isSafeInteger(value)) throw new RangeError(`${name} must be a whole number, not "${text}"`);
  return value;
}
