/**
 * Reads and writes at a disk without pause, and knows what has to be read: each block holds its number and how often it was
 * written, all over.
 *
 * @module
 */
import assert from "node:assert/strict";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Random } from "../../engine/random.ts";

export const BLOCK_BYTES = 16 * 1024;
/** Requests of each client at once, each with blocks of its own. */
const WORKERS = 8;
/** After so many writes of a worker one FLUSH. */
const FLUSH_EVERY = 32;

/** Several NBD clients at work. */
export class Workload {
  /** How many requests have ended. */
  done = 0;
  /** What has failed, and where something else was read than was written. */
  readonly errors: string[] = [];
  readonly #disks: readonly NbdDisk[];
  readonly #versions: Uint32Array;
  readonly #random: Random;
  readonly #listeners = new Set<() => void>();
  #isStopping = false;
  #running: Promise<unknown> = Promise.resolve();

  private constructor(disks: readonly NbdDisk[], blocks: number, seed: number) {
    this.#disks = disks;
    this.#versions = new Uint32Array(blocks);
    this.#random = new Random(seed);
  }

  /** Begins, on a disk that reads as zeroes. */
  static async start(socket: string, sizeBytes: number, clients: number, seed: number): Promise<Workload> {
    const disks = await Promise.all(Array.from({ length: clients }, () => NbdDisk.connect(socket)));
    const load = new Workload(disks, Math.floor(sizeBytes / BLOCK_BYTES), seed);
    const workers = clients * WORKERS;
    load.#running = Promise.all(
      disks.flatMap((disk, i) => Array.from({ length: WORKERS }, (_, k) => load.#work(disk, i * WORKERS + k, workers))),
    );
    return load;
  }

  /** Waits until so many more requests have ended. */
  async progress(count: number): Promise<void> {
    const goal = this.done + count;
    while (this.done < goal) {
      if (this.errors.length > 0) throw new Error(this.errors.join("\n"));
      await new Promise<void>((resolve) => this.#listeners.add(resolve));
    }
  }

  /** Stops, and reads everything once more. */
  async finish(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
    for (let block = 0; block < this.#versions.length; block++) await this.#read(this.#disks[0], block);
    for (const disk of this.#disks) await disk.close();
    assert.deepEqual(this.errors, []);
  }

  async #work(disk: NbdDisk, worker: number, workers: number): Promise<void> {
    let writes = 0;
    try {
      while (!this.#isStopping) {
        const block = worker + workers * this.#random.below(Math.floor(this.#versions.length / workers));
        if (this.#random.below(2) === 0) await this.#read(disk, block);
        else await this.#write(disk, block);
        if (++writes % FLUSH_EVERY === 0) await disk.flush();
        this.#tell();
      }
    } catch (error) {
      this.errors.push((error as Error).message);
      this.#tell();
    }
  }

  async #write(disk: NbdDisk, block: number): Promise<void> {
    const version = this.#versions[block] + 1;
    const words = new Uint32Array(BLOCK_BYTES / 4);
    for (let i = 0; i < words.length; i += 2) {
      words[i] = block;
      words[i + 1] = version;
    }
    await disk.write(block * BLOCK_BYTES, new Uint8Array(words.buffer));
    this.#versions[block] = version;
  }

  async #read(disk: NbdDisk, block: number): Promise<void> {
    const words = new Uint32Array(BLOCK_BYTES / 4);
    await disk.read(block * BLOCK_BYTES, new Uint8Array(words.buffer));
    const version = this.#versions[block];
    const wrong = words.findIndex((word, i) => word !== (i % 2 === 1 ? version : version === 0 ? 0 : block));
    if (wrong < 0) return;
    this.errors.push(
      `block ${block} has ${words[wrong]} at byte ${
        wrong * 4
      }, but its version is ${version} (${this.done} requests done)`,
    );
  }

  #tell(): void {
    this.done++;
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }
}
