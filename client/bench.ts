/**
 * Drives an export through the client session and measures.
 *
 * @module
 */
import process from "node:process";
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../engine/block.ts";
import type { RemoteAddress } from "../engine/control/address.ts";
import type { Provider } from "../engine/cryptography.ts";
import type { Engine } from "../engine/engine.ts";
import { Random } from "../engine/random.ts";
import { transmitSlots } from "../engine/transmit_area.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { Connector } from "./connector.ts";
import { openRemoteSide, type Side } from "./copy_side.ts";
import { Latencies } from "./latencies.ts";
import { makeLocalEngine, turnUntil } from "./local_engine.ts";
import { cryptoFor, forgetKey, type SessionOptions } from "./options.ts";

const SMALL_BYTES = 4096;
const LARGE_BYTES = 256 * 1024;
/** The deep queue, as NVMe benchmarks have it; enough for large requests too. */
const DEEP = 32;
/** Slots beside those of requests: for the session, its connection, the address, and the last flush. */
const OTHER_SLOTS = 8;
/** Before each mix, so that what is compiled on the way is compiled: a part of its time. */
const WARM_UP_SHARE = 0.2;
/** Any number: the offsets are the same each time. */
const SEED = 1;

/** What one row measures. */
interface Mix {
  readonly name: string;
  readonly operation: number;
  readonly bytes: number;
  readonly isRandom: boolean;
  readonly depth: number;
}

const { READ, WRITE } = Operation;
const MIXES: readonly Mix[] = [
  { name: "4k random read", operation: READ, bytes: SMALL_BYTES, isRandom: true, depth: DEEP },
  { name: "4k random read", operation: READ, bytes: SMALL_BYTES, isRandom: true, depth: 1 },
  { name: "256k sequential read", operation: READ, bytes: LARGE_BYTES, isRandom: false, depth: DEEP },
  { name: "4k random write", operation: WRITE, bytes: SMALL_BYTES, isRandom: true, depth: DEEP },
  { name: "4k random write", operation: WRITE, bytes: SMALL_BYTES, isRandom: true, depth: 1 },
  { name: "256k sequential write", operation: WRITE, bytes: LARGE_BYTES, isRandom: false, depth: DEEP },
];

/** What to measure. The key is wiped at the end. */
export interface BenchOptions extends RemoteAddress, SessionOptions {
  /** For each mix. */
  readonly seconds: number;
  /** Measure writes too; they destroy what is on the export. */
  readonly write: boolean;
}

/** One measured mix. */
export interface BenchRow {
  /** For example `4k random read`. */
  readonly mix: string;
  readonly depth: number;
  /** How the data was protected, and by whom: as `dst status` shows it. */
  readonly cipher: string;
  readonly digest: string;
  readonly crypto: Provider;
  readonly operations: number;
  /** With those before and after the measurement: what the exporter has done altogether for this row. */
  readonly allOperations: number;
  readonly bytes: number;
  readonly elapsedMs: number;
  /** From the request to its completion, in microseconds: half of all, and 99 of 100, were faster. */
  readonly p50Us: number;
  readonly p99Us: number;
  /** Processor time of this process for each operation, in microseconds. */
  readonly cpuUs: number;
}

/**
 * Measures one mix after the other and reports each when it is done.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export async function bench(options: BenchOptions, report: (row: BenchRow) => void): Promise<void> {
  const depth = Math.min(DEEP, options.depth);
  const slots = depth + transmitSlots(options.depth) + OTHER_SLOTS;
  const engine = makeLocalEngine(options.loop, slots, cryptoFor(options));
  const never = new AbortController().signal;
  let side: Side | null = null;
  try {
    side = await openRemoteSide(new Connector(engine), options, options.write, options, never);
    if (side.size < LARGE_BYTES) throw new Error(`Cannot measure ${side.name}: it is smaller than one request of 256k`);
    for (const mix of MIXES) {
      if (mix.operation === WRITE && !options.write) continue;
      if (mix.depth > 1 && depth === 1) continue;
      report(await measure(engine, side, { ...mix, depth: Math.min(mix.depth, depth) }, options.seconds * 1000));
    }
  } finally {
    await side?.close();
    engine.close();
    forgetKey(options);
  }
}

async function measure(engine: Engine, side: Side, mix: Mix, measureMs: number): Promise<BenchRow> {
  const load = new Load(engine, side.device!, mix);
  const wait = async (ms: number) => {
    const end = performance.now() + ms;
    await turnUntil(engine, () => load.failure < 0 || performance.now() >= end);
  };
  load.start();
  await wait(measureMs * WARM_UP_SHARE);
  load.reset();
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  await wait(measureMs);
  const elapsedMs = performance.now() - startedAt;
  const cpu = process.cpuUsage(cpuBefore);
  const { operations } = load;
  load.stop();
  await turnUntil(engine, () => load.isIdle);
  load.close();
  if (load.failure < 0) {
    throw new Error(`Cannot measure ${side.name}: ${errnoMessage(load.failure)} (${side.failure() ?? mix.name})`);
  }
  return {
    mix: mix.name,
    depth: mix.depth,
    ...side.protection!,
    operations,
    allOperations: load.allOperations,
    bytes: operations * mix.bytes,
    elapsedMs: Math.round(elapsedMs),
    p50Us: load.latencies.percentile(50),
    p99Us: load.latencies.percentile(99),
    cpuUs: Number(((cpu.user + cpu.system) / Math.max(operations, 1)).toFixed(2)),
  };
}

/** So many requests at a time, each followed by the next. */
class Load implements BlockClient {
  operations = 0;
  allOperations = 0;
  /** The first negative errno, or 0. */
  failure = 0;
  readonly latencies = new Latencies();
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #mix: Mix;
  readonly #slots: Uint32Array;
  readonly #random = new Random(SEED);
  /** How many requests fit the disk. */
  readonly #places: number;
  /** By slot: when its request began. */
  readonly #beganAt: Float64Array;
  #place = 0;
  #busy = 0;
  #isStopping = false;

  constructor(engine: Engine, device: BlockDevice, mix: Mix) {
    const slots = engine.slots.reserve(mix.depth);
    if (slots === null) throw new RangeError(`Cannot measure: there are no ${mix.depth} slots`);
    this.#engine = engine;
    this.#device = device;
    this.#mix = mix;
    this.#slots = slots;
    this.#beganAt = new Float64Array(engine.slots.count);
    this.#places = Math.floor(device.geometry.size / mix.bytes);
    if (mix.operation === WRITE) this.#fill();
  }

  get isIdle(): boolean {
    return this.#busy === 0;
  }

  start(): void {
    for (const slot of this.#slots) this.#next(slot);
  }

  /** Forgets what was counted so far. */
  reset(): void {
    this.operations = 0;
    this.latencies.reset();
  }

  /** Begins nothing any more. */
  stop(): void {
    this.#isStopping = true;
  }

  onComplete(slot: number, status: number): void {
    this.#busy--;
    if (status < 0) {
      this.failure = status;
      return;
    }
    this.operations++;
    this.allOperations++;
    this.latencies.add(performance.now() - this.#beganAt[slot]);
    if (!this.#isStopping && this.failure === 0) this.#next(slot);
  }

  close(): void {
    this.#engine.slots.release(this.#slots);
  }

  #next(slot: number): void {
    const { operation, bytes, isRandom } = this.#mix;
    const place = isRandom ? Math.floor(this.#random.next() * this.#places) : this.#place;
    this.#place = (this.#place + 1) % this.#places;
    this.#engine.slots.setRange(slot, place * bytes, bytes);
    this.#beganAt[slot] = performance.now();
    const status = this.#device.submit(slot, operation, 0, this);
    if (status === PENDING) this.#busy++;
    else this.failure = status;
  }

  /** Bytes that no disk can leave out or pack. */
  #fill(): void {
    const { arena, slots } = this.#engine;
    for (const slot of this.#slots) {
      const at = slots.payloadAt(slot);
      for (let i = 0; i < this.#mix.bytes; i++) arena.bytes[at + i] = this.#random.next() * 256;
    }
  }
}
