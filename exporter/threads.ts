/**
 * The threads of an exporter: the door and the data-path Workers, started, asked and ended together.
 *
 * @module
 */
import type { CryptoChoice } from "../engine/cryptography.ts";
import { layerNeeds } from "../engine/layers/mod.ts";
import { makeWakeFd, Thread } from "../engine/thread.ts";
import { DATA_SLOTS } from "./data.ts";
import type { Access } from "./admission.ts";
import { DOOR_SLOTS } from "./door.ts";
import type {
  DataInit,
  DataQuestion,
  DoorExport,
  DoorInit,
  DoorQuestion,
  DoorStatus,
  ResizedExport,
  ServedExport,
  ServedShape,
  ThreadEvent,
} from "./messages.ts";
import type { AccessRules } from "./permissions.ts";

/** What the threads are started with. */
export interface ThreadsOptions {
  readonly loop: "auto" | "uring" | "poll";
  /** Who does their cryptography. */
  readonly crypto: CryptoChoice;
  /** How many data-path Workers. */
  readonly workers: number;
  readonly exports: readonly ServedExport[];
  /** A listening socket for NBD, or -1. */
  readonly nbdFd: number;
  /** Who may use what. */
  readonly rules: AccessRules;
}

/** How one data-path Worker and the door reach each other. */
interface Connection {
  readonly doorPort: MessagePort;
  readonly dataPort: MessagePort;
  /** Wakes the Worker. */
  readonly wakeFd: number;
}

/** An exporter's threads. */
export class Threads {
  readonly #options: ThreadsOptions;
  readonly #report: (event: ThreadEvent) => void;
  readonly #connections: readonly Connection[];
  readonly #doorWake: number;
  readonly #data: readonly Thread<DataQuestion, ThreadEvent>[];
  #door: Thread<DoorQuestion, ThreadEvent> | null = null;

  private constructor(
    options: ThreadsOptions,
    report: (event: ThreadEvent) => void,
    connections: readonly Connection[],
    doorWake: number,
    data: readonly Thread<DataQuestion, ThreadEvent>[],
  ) {
    this.#options = options;
    this.#report = report;
    this.#connections = connections;
    this.#doorWake = doorWake;
    this.#data = data;
  }

  /**
   * Starts the data-path Workers.
   *
   * @param report gets what any thread reports
   * @throws {Error} when one of them cannot start; then none is left
   */
  static async start(options: ThreadsOptions, report: (event: ThreadEvent) => void): Promise<Threads> {
    const doorWake = makeWakeFd();
    const connections = Array.from({ length: options.workers }, () => {
      const { port1: doorPort, port2: dataPort } = new MessageChannel();
      return { doorPort, dataPort, wakeFd: makeWakeFd() };
    });
    const outcomes = await Promise.allSettled(connections.map(({ dataPort, wakeFd }, worker) => {
      const init: DataInit = {
        // What has state has it once: then all lanes of the export live in the first Worker.
        exports: options.exports.map((one) => worker > 0 && livesInOneWorker(one) ? null : one),
        door: { port: dataPort, wakePeer: doorWake },
        nbdFd: worker === 0 ? options.nbdFd : -1,
        rules: options.rules,
      };
      return Thread.start<DataInit, DataQuestion, ThreadEvent>(
        new URL("./data_worker.ts", import.meta.url),
        {
          loop: options.loop,
          crypto: options.crypto,
          slots: DATA_SLOTS,
          // Room for all lanes that there may ever be, of which few exporters have more than some.
          residence: "used",
          wakeFd,
          init,
          transfer: [dataPort],
        },
        report,
      );
    }));
    const data = outcomes.filter((outcome) => outcome.status === "fulfilled").map(({ value }) => value);
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure === undefined) return new Threads(options, report, connections, doorWake, data);
    for (const thread of data) thread.end();
    throw failure.reason;
  }

  /** Which loop they run. */
  get loop(): "uring" | "poll" {
    return this.#data[0].loop;
  }

  /** What an export is like, as its layers leave it. */
  async shape(index: number): Promise<ServedShape> {
    return await this.#data[0].ask({ ask: "shape", index }) as ServedShape;
  }

  /**
   * Starts the door: from now on clients come in. The keys' secrets are the door's then, and gone here.
   *
   * @throws {Error} when it cannot start
   */
  async openDoor(init: Omit<DoorInit, "data">): Promise<void> {
    const data = this.#connections.map(({ doorPort, wakeFd }) => ({ port: doorPort, wakePeer: wakeFd }));
    this.#door = await Thread.start<DoorInit, DoorQuestion, ThreadEvent>(
      new URL("./door_worker.ts", import.meta.url),
      {
        loop: this.#options.loop,
        crypto: this.#options.crypto,
        slots: DOOR_SLOTS,
        wakeFd: this.#doorWake,
        init: { ...init, data },
        transfer: [...data.map(({ port }) => port), ...secretsOf(init.access)],
      },
      this.#report,
    );
  }

  /**
   * Makes ready to serve one more, with an index that was never used.
   *
   * @throws {Error} when it or a layer cannot be made; then no thread has it
   */
  async add(index: number, one: ServedExport): Promise<void> {
    const workers = livesInOneWorker(one) ? [this.#data[0]] : this.#data;
    const question: DataQuestion = { ask: "add", index, export: one };
    const outcomes = await Promise.allSettled(workers.map((thread) => thread.ask(question)));
    const failure = outcomes.find((outcome) => outcome.status === "rejected");
    if (failure === undefined) return;
    await this.letGo(index);
    throw failure.reason;
  }

  /**
   * Goes on with other rules, more exports, and without others. The keys' secrets are the door's then, and gone here.
   *
   * @param added that {@link add} has made ready
   * @param removed indexes
   * @param resized those that have become larger or smaller
   * @returns how many sessions end, whose rights or disks are gone. The door is open
   * @throws {Error} when a record cannot be read or made; then nothing has changed
   */
  async reload(
    access: Access,
    added: readonly DoorExport[],
    removed: readonly number[],
    resized: readonly ResizedExport[],
  ): Promise<number> {
    const { rules } = access;
    const question: DoorQuestion = { ask: "reload", access, added, removed, resized };
    const ended = await this.#door!.ask(question, secretsOf(access)) as number;
    if (this.#options.nbdFd >= 0) await this.#data[0].ask({ ask: "reload", rules });
    return ended;
  }

  /** Waits until an export that {@link reload} has removed has no sessions any more. */
  async whenGone(index: number): Promise<void> {
    await this.#door!.ask({ ask: "gone", index });
  }

  /**
   * Lets go of a disk that is not exported, or no more: it is synced and closed in all threads.
   *
   * @throws {Error} when it could not be synced: it is let go of all the same
   */
  async letGo(index: number): Promise<void> {
    const outcomes = this.#data.map((thread) => thread.ask({ ask: "remove", index }));
    const failure = (await Promise.allSettled(outcomes)).find((outcome) => outcome.status === "rejected");
    if (failure !== undefined) throw failure.reason;
  }

  /** Who uses the exports. The door is open. */
  async status(): Promise<DoorStatus> {
    return await this.#door!.ask({ ask: "status" }) as DoorStatus;
  }

  /**
   * Resolves, and never rejects, when a thread has died: without it the exporter is none. The door is open.
   */
  get failed(): Promise<Error> {
    const data = this.#data.map((thread, worker) => diesAs(`data-path thread ${worker}`, thread.failed));
    return Promise.race([...data, diesAs("door", this.#door!.failed)]);
  }

  /**
   * Accepts nobody any more, finishes what executes, syncs and lets go of the disks; then ends the threads.
   *
   * @throws {Error} when a disk could not be synced: all has ended all the same
   */
  async stop(): Promise<void> {
    await this.#door!.ask({ ask: "stop" });
    const outcomes = await Promise.allSettled(this.#data.map((thread) => thread.ask({ ask: "stop" })));
    this.end();
    const failures = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason as Error);
    // Each Worker syncs each disk: one that fails does so in several.
    if (failures.length > 0) throw new Error([...new Set(failures.map(({ message }) => message))].join("; "));
  }

  /** Ends all threads at once. */
  end(): void {
    this.#door?.end();
    for (const thread of this.#data) thread.end();
  }
}

/** Whether all lanes of an export live in the first data-path Worker. */
export function livesInOneWorker({ layers }: Pick<ServedExport, "layers">): boolean {
  return layers.some((layer) => layerNeeds(layer).oneWorker);
}

/** Given away with a message, so that there is no second copy of them. */
function secretsOf({ secrets }: Access): ArrayBuffer[] {
  return secrets.map(({ secret }) => secret.buffer);
}

function diesAs(what: string, failed: Promise<Error>): Promise<Error> {
  return failed.then((error) => new Error(`The exporter's ${what} has died: ${error.message}`, { cause: error }));
}
