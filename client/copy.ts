/**
 * Copies a disk: between files, block devices, standard input and output, and exports.
 *
 * @module
 */
import { createXXHash64, type IHasher } from "hash-wasm";
import type { Endpoint } from "../engine/control/address.ts";
import { messageOf } from "../engine/control/failure.ts";
import { Operation } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { formatSize } from "../engine/size.ts";
import { transmitSlots } from "../engine/transmit_area.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { Connector } from "./connector.ts";
import { copyFromInput } from "./copy_input.ts";
import {
  emptyFile,
  isSameFile,
  type OpenLocal,
  openLocalDevice,
  openLocalFile,
  openLocalSource,
  openRemoteSide,
  type Side,
} from "./copy_side.ts";
import { readInOrder, type Sink } from "./copy_stream.ts";
import { readTail, submitOnce, writeTail } from "./copy_tail.ts";
import { Transfer } from "./copy_transfer.ts";
import { makeLocalEngine, turnUntil } from "./local_engine.ts";
import { cryptoFor, forgetKey, type SessionOptions } from "./options.ts";
export type { LocalDisk, OpenLocal } from "./copy_side.ts";

/** Requests at a time, where the session is as deep: 4 MiB under way fill a path of 40 ms at 100 MB/s. */
const DEPTH_MAX = 16;
/** Both may be exports. */
const SIDES = 2;
/** Slots beside those: of two sessions, two maps, and single requests. */
const OTHER_SLOTS = 16;

/** How far a copy is. All in bytes. */
export interface CopyProgress {
  /** How much of the disk is dealt with, holes included. */
  readonly done: number;
  /** The size of the disk, or null when it is not known (standard input). */
  readonly total: number | null;
  /** How much data was moved. */
  readonly moved: number;
}

/** How to copy. The key is wiped at the end. */
export interface CopyOptions extends SessionOptions {
  /** Read the destination again and compare its digest with that of what was read from the source. */
  readonly verify: boolean;
  /** Called now and then; null when nobody looks. */
  readonly onProgress: ((progress: CopyProgress) => void) | null;
  /** Ends the copy early. */
  readonly signal: AbortSignal;
}

/** What a copy did. */
export interface CopyResult {
  /** Bytes of the source, holes included. */
  readonly size: number;
  /** Bytes of data that were moved. */
  readonly moved: number;
  readonly elapsedMs: number;
  /** The digest that source and destination share, as `xxh64:` and hexadecimal digits; null without `verify`. */
  readonly digest: string | null;
}

/**
 * Copies everything from the source to the destination, and syncs it there. A file is made when it is missing, and
 * replaced when it is there.
 *
 * @param openLocal opens files and block devices
 * @throws {Error} one line that says what could not be done and why
 */
export async function copy(
  source: Endpoint,
  destination: Endpoint,
  options: CopyOptions,
  openLocal: OpenLocal,
): Promise<CopyResult> {
  if (source.kind === "stdio" && destination.kind === "stdio") {
    throw new Error("Cannot copy standard input to standard output: one side must be a disk");
  }
  if (source.kind === "path" && destination.kind === "path" && isSameFile(source.path, destination.path)) {
    throw new Error(`Cannot copy ${source.path} to ${destination.path}: they are the same file`);
  }
  const depth = Math.min(options.depth, DEPTH_MAX);
  const slots = depth + SIDES * transmitSlots(options.depth) + OTHER_SLOTS;
  const engine = makeLocalEngine(options.loop, slots, cryptoFor(options));
  const job = new CopyJob(engine, options, depth, openLocal);
  try {
    return await job.run(source, destination);
  } finally {
    await job.close();
    engine.close();
    forgetKey(options);
  }
}

/** One copy under way. */
class CopyJob {
  readonly #engine: Engine;
  readonly #options: CopyOptions;
  readonly #depth: number;
  readonly #openLocal: OpenLocal;
  readonly #connector: Connector;
  readonly #sides: Side[] = [];
  readonly #startedAt = performance.now();
  /** What has been begun to be written, for the message when it is not finished. */
  #written: string | null = null;

  constructor(engine: Engine, options: CopyOptions, depth: number, openLocal: OpenLocal) {
    this.#engine = engine;
    this.#options = options;
    this.#depth = depth;
    this.#openLocal = openLocal;
    this.#connector = new Connector(engine);
  }

  async run(source: Endpoint, destination: Endpoint): Promise<CopyResult> {
    try {
      if (source.kind === "stdio") return await this.#fromInput(destination);
      const from = await this.#openSource(source);
      return destination.kind === "stdio" ? await this.#toOutput(from) : await this.#toDisk(from, destination);
    } catch (error) {
      // The first reason is in the error; a lost connection is the reason of all that follow it.
      const lost = this.#sides.map((side) => side.failure()).find((failure) => failure !== null);
      const why = lost === undefined ? "" : ` (${lost})`;
      const left = this.#written === null ? "" : `; ${this.#written} is incomplete`;
      throw new Error(messageOf(error) + why + left);
    }
  }

  async close(): Promise<void> {
    for (const side of this.#sides) await side.close();
  }

  async #openSource(endpoint: Exclude<Endpoint, { kind: "stdio" }>): Promise<Side> {
    const { signal } = this.#options;
    return this.#keep(
      endpoint.kind === "path"
        ? openLocalSource(endpoint.path, this.#engine, this.#openLocal)
        : await openRemoteSide(this.#connector, endpoint, false, this.#options, signal),
    );
  }

  /** Opens a destination for so many bytes, or what is there when the size is null: then null for a file. */
  async #openDestination(endpoint: Exclude<Endpoint, { kind: "stdio" }>, size: number | null): Promise<Side | null> {
    if (endpoint.kind === "remote") {
      return this.#keep(await openRemoteSide(this.#connector, endpoint, true, this.#options, this.#options.signal));
    }
    const device = openLocalDevice(endpoint.path, this.#engine, this.#openLocal);
    if (device !== null) return this.#keep(device);
    if (size === null) return null;
    return this.#keep(openLocalFile(endpoint.path, size, this.#engine, this.#openLocal));
  }

  #keep(side: Side): Side {
    this.#sides.push(side);
    return side;
  }

  async #toDisk(from: Side, endpoint: Exclude<Endpoint, { kind: "stdio" }>): Promise<CopyResult> {
    const to = (await this.#openDestination(endpoint, from.size))!;
    if (to.size < from.size) {
      throw new Error(
        `Cannot copy ${from.name} to ${to.name}: it has ${formatSize(to.size)} (${to.size} bytes), and ` +
          `${formatSize(from.size)} (${from.size} bytes) are needed`,
      );
    }
    this.#written = to.name;
    const block = Math.max(from.device?.geometry.logicalBlock ?? 1, to.device?.geometry.logicalBlock ?? 1);
    const bulk = from.device === null || to.device === null ? 0 : from.size - from.size % block;
    const moved = bulk === 0 ? 0 : await this.#transfer(from, to, bulk, block);
    if (bulk < from.size) {
      await writeTail(this.#engine, to, bulk, await readTail(this.#engine, from, bulk, from.size));
    }
    await this.#flush(to);
    this.#written = null;
    const digest = this.#options.verify ? await this.#verify(from, to, from.size, null) : null;
    return this.#result(from.size, moved + from.size - bulk, digest);
  }

  async #transfer(from: Side, to: Side, bytes: number, block: number): Promise<number> {
    const transfer = new Transfer(this.#engine, {
      source: from.device!,
      destination: to.device!,
      bytes,
      block,
      skipZeroes: to.isFresh,
      depth: this.#depth,
    });
    const { signal } = this.#options;
    transfer.start();
    await turnUntil(this.#engine, () => {
      if (signal.aborted) transfer.failure ??= messageOf(signal.reason);
      this.#progress(transfer.done, from.size, transfer.moved);
      return transfer.isOver;
    });
    transfer.close();
    signal.throwIfAborted();
    if (transfer.failure !== null) throw new Error(`Cannot copy ${from.name} to ${to.name}: ${transfer.failure}`);
    return transfer.moved;
  }

  async #toOutput(from: Side): Promise<CopyResult> {
    let moved = 0;
    await this.#read(from, from.size, async (bytes) => {
      try {
        for (let written = 0; written < bytes.length;) written += await Deno.stdout.write(bytes.subarray(written));
      } catch (error) {
        throw new Error(`Cannot write to standard output: ${messageOf(error)}`);
      }
      moved += bytes.length;
      this.#progress(moved, from.size, moved);
    });
    return this.#result(from.size, moved, null);
  }

  async #fromInput(endpoint: Endpoint): Promise<CopyResult> {
    if (endpoint.kind === "stdio") throw new Error("standard input and output are no disks");
    const hasher = this.#options.verify ? await createXXHash64() : null;
    const to = await this.#openDestination(endpoint, null);
    if (to === null) emptyFile((endpoint as { path: string }).path, 0);
    this.#written = to?.name ?? (endpoint as { path: string }).path;
    const name = this.#written;
    const { size, moved, tail } = await copyFromInput({
      engine: this.#engine,
      destination: to === null ? name : { name, device: to.device!, size: to.size },
      depth: this.#depth,
      signal: this.#options.signal,
      onBytes: (bytes) => hasher?.update(bytes),
      onProgress: (done) => this.#progress(done, null, done),
    });
    if (to !== null) {
      if (tail.length > 0) await writeTail(this.#engine, to, size - tail.length, tail);
      await this.#flush(to);
    }
    this.#written = null;
    if (hasher === null) return this.#result(size, moved, null);
    const back = to ?? this.#keep(openLocalSource(name, this.#engine, this.#openLocal));
    const digest = await this.#verify({ ...back, name: "standard input" }, back, size, hasher.digest());
    return this.#result(size, moved, digest);
  }

  /** Compares the digests of both; that of the source is known when it cannot be read again. */
  async #verify(from: Side, to: Side, size: number, known: string | null): Promise<string> {
    const expected = known ?? await this.#digest(from, size);
    const found = await this.#digest(to, size);
    if (found !== expected) {
      throw new Error(
        `The copy is wrong: ${from.name} has the digest xxh64:${expected}, but ${to.name} has xxh64:${found}`,
      );
    }
    return `xxh64:${found}`;
  }

  async #digest(side: Side, size: number): Promise<string> {
    const hasher: IHasher = await createXXHash64();
    await this.#read(side, size, (bytes) => {
      hasher.update(bytes);
    });
    return hasher.digest();
  }

  /** Reads a side in order, up to a size that may be no whole block. */
  async #read(side: Side, size: number, sink: Sink): Promise<void> {
    const { device } = side;
    const bulk = device === null ? 0 : size - size % device.geometry.logicalBlock;
    if (bulk > 0) await readInOrder(this.#engine, device!, side.name, bulk, this.#depth, sink, this.#options.signal);
    if (bulk < size) await sink(await readTail(this.#engine, side, bulk, size));
  }

  async #flush({ name, device }: Side): Promise<void> {
    if (device === null) return;
    const status = await submitOnce(this.#engine, device, Operation.FLUSH, 0, 0, null);
    if (status < 0) throw new Error(`Cannot sync ${name}: ${errnoMessage(status)}`);
  }

  #progress(done: number, total: number | null, moved: number): void {
    this.#options.onProgress?.({ done, total, moved });
  }

  #result(size: number, moved: number, digest: string | null): CopyResult {
    this.#progress(size, size, moved);
    return { size, moved, elapsedMs: Math.round(performance.now() - this.#startedAt), digest };
  }
}
