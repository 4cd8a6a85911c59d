/**
 * A machine with a client: its process is started, killed, and started again.
 *
 * @module
 */
import { Application, type ApplicationOptions } from "./application.ts";
import { Process } from "./kernel.ts";
import type { World } from "./world.ts";

/** For three lanes of eight requests, each with what is written again beside them. */
const SLOTS = 96;

/** A client's machine. */
export class ClientMachine {
  readonly world: World;
  readonly name: string;
  readonly #host: string;
  readonly #options: ApplicationOptions;
  #process: Process | null = null;
  application: Application | null = null;

  constructor(world: World, name: string, host: string, options: ApplicationOptions) {
    this.world = world;
    this.name = name;
    this.#host = host;
    this.#options = options;
  }

  /** Starts the client's process, which attaches the disk. */
  start(): void {
    if (this.#process !== null) return;
    this.world.network.setUp(this.#host, true);
    const process = new Process(this.world, this.#host);
    this.#process = process;
    const thread = this.world.thread(process, SLOTS);
    this.application = new Application(this, thread, this.#options);
    thread.wake();
  }

  /**
   * Ends the process at once.
   *
   * @param isSilent the machine with it
   */
  kill(isSilent: boolean): void {
    const process = this.#process;
    if (process === null) return;
    this.#process = null;
    this.application!.die();
    this.application = null;
    process.die(isSilent);
    if (isSilent) this.world.network.setUp(this.#host, false);
    for (const thread of process.threads) this.world.forget(thread);
  }
}
