/**
 * Load that goes on while something is done to what carries it, and what the kernel knows of a device at work.
 *
 * @module
 */
import { eventually, type FioVerify, fioVerify } from "./guest_tools.ts";

/** Longer than anything that is not stuck waits, in milliseconds: requests wait for 100 s by default. */
const STALL_MS = 110_000;

/**
 * fio on a device or file, one run after the other: each writes, reads back and compares. At the end of the scope it
 * waits for the run that is under way.
 */
export class VerifyingLoad implements AsyncDisposable {
  /** How many runs have ended. */
  runs = 0;
  readonly #running: Promise<void>;
  #error: Error | null = null;
  #isStopping = false;

  /** Begins. Where it is given no seed, each run has its own. */
  constructor(path: string, job: FioVerify) {
    this.#running = this.#run(path, job).catch((error) => {
      this.#error = error;
    });
  }

  /** Throws what fio has complained of, if it has. */
  check(): void {
    if (this.#error !== null) throw this.#error;
  }

  /** Lets the present run end, and throws what fio has complained of, if it has. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
    this.check();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopping = true;
    await this.#running;
  }

  async #run(path: string, job: FioVerify): Promise<void> {
    while (!this.#isStopping) {
      await fioVerify(path, { ...job, seed: job.seed ?? this.runs + 1 });
      this.runs++;
    }
  }
}

/** How many reads, writes, discards and flushes of the device have ended since it is there. */
export function completedRequests(device: string): number {
  const words = Deno.readTextFileSync(`${blockFolder(device)}/stat`).trim().split(/ +/).map(Number);
  // Documentation/block/stat.rst: reads, writes, discards and flushes are the first of each group.
  return words[0] + words[4] + words[11] + words[15];
}

/** How many requests of the device its driver is working on. */
export function requestsInFlight(device: string): number {
  const words = Deno.readTextFileSync(`${blockFolder(device)}/inflight`).trim().split(/ +/).map(Number);
  return words[0] + words[1];
}

/** How many requests a queue of the device has room for; one process on one processor fills one queue. */
export function queueDepth(device: string): number {
  return Number(Deno.readTextFileSync(`${blockFolder(device)}/mq/0/nr_tags`));
}

/** Waits until so many more requests have ended: in how many milliseconds, to the nearest 20. */
export async function progress(device: string, requests: number, load?: VerifyingLoad): Promise<number> {
  const started = performance.now();
  const goal = completedRequests(device) + requests;
  await eventually(
    `${device} completes ${requests} requests`,
    () => {
      load?.check();
      return completedRequests(device) >= goal;
    },
    STALL_MS,
    20,
  );
  return Math.round(performance.now() - started);
}

/** Waits until the driver works on as many requests as a queue has room for. */
export async function fullDepth(device: string, load?: VerifyingLoad): Promise<void> {
  const depth = queueDepth(device);
  await eventually(
    `${device} has ${depth} requests in flight`,
    () => {
      load?.check();
      return requestsInFlight(device) >= depth;
    },
    STALL_MS,
    2,
  );
}

function blockFolder(device: string): string {
  return `/sys/block/${device.replace("/dev/", "")}`;
}
