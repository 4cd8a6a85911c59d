/**
 * A simulated world: one exporter with its disk, a client, its rivals, and the network between them, from one seed.
 *
 * @module
 */
import { Operation } from "../../engine/block.ts";
import { Engine } from "../../engine/engine.ts";
import { Random } from "../../engine/random.ts";
import type { ToDoor } from "../../exporter/messages.ts";
import type { Session } from "../../exporter/registry.ts";
import { Access } from "../../protocol/grant.ts";
import type { Watcher } from "./instruments.ts";
import { giveArenaBack, type SimArena, takeArena } from "./arenas.ts";
import { type AttachmentMaker, SessionAttachment } from "./attachment.ts";
import type { ApplicationOptions, Script } from "./application.ts";
import { BLOCK_BYTES, Checker, Violation } from "./checker.ts";
import { ClientMachine } from "./client_machine.ts";
import { Events } from "./clock.ts";
import { Counters } from "./counters.ts";
import { Disk } from "./disk.ts";
import { EXPORTER_HOST, ExporterMachine } from "./exporter_machine.ts";
import { Faults } from "./faults.ts";
import { type Listening, type Process, SimThread, type Universe } from "./kernel.ts";
import { Network } from "./network.ts";
import { ResendingAttachment } from "./resending.ts";
import { drawScenario, type Scenario } from "./scenario.ts";

/** How long the clients may take for their requests, and everybody to come to rest, in virtual ms. */
const PATIENCE_MS = 3_600_000;
const REST_MS = 600_000;
/** How often the disk is read before its failures are believed: each try starts the exporter anew if it has to. */
const VERIFY_TRIES = 4;
/** Blocks of one read of the final verification. */
const VERIFY_BLOCKS = 16;

/** How a world is made. */
export interface WorldOptions {
  readonly seed: number;
  /** How many requests there are. */
  readonly requests: number;
  /** Told of what happens, line by line. */
  readonly trace?: (line: string) => void;
}

/** What is counted when a disk fails. */
const DISK_FAILURES = ["sticky failures", "reads that failed", "writes that failed", "writes that found no space"];
const CLIENTS = ["plain", "patient", "keeping", "resending"] as const;

const makers: Record<Scenario["client"], AttachmentMaker> = {
  plain: (host, wish, owner) => new SessionAttachment(host, wish, owner),
  patient: (host, wish, owner) => new SessionAttachment(host, wish, owner, host.world.scenario.patience),
  keeping: (host, wish, owner) => {
    const { patience, copiesBytes } = host.world.scenario;
    return new SessionAttachment(host, wish, owner, patience, copiesBytes);
  },
  resending: (host, wish, owner) => new ResendingAttachment(host, wish, owner),
};

/** One world. */
export class World implements Universe, Watcher {
  readonly events = new Events();
  readonly random: Random;
  readonly scenario: Scenario;
  readonly counters = new Counters();
  readonly network: Network;
  readonly listeners = new Map<string, Listening>();
  readonly shortTransfers: number;
  readonly checker: Checker;
  readonly disk: Disk;
  readonly exporter: ExporterMachine;
  readonly client: ClientMachine;
  readonly stickyWords: Int32Array[] = [];
  readonly #clients: ClientMachine[] = [];
  readonly #arenas = new Map<SimThread, SimArena>();
  readonly #faults: Faults;
  readonly #trace: ((line: string) => void) | undefined;
  #submitted = 0;
  readonly #writers = new Map<string, number>();
  /** Nothing goes wrong any more, and nothing new is asked for. */
  isEnding = false;

  constructor(options: WorldOptions) {
    this.#trace = options.trace;
    this.random = new Random(options.seed);
    // The first numbers of seeds that are close to each other are not alike, but cost nothing.
    for (let i = 0; i < 8; i++) this.random.next();
    this.scenario = drawScenario(this.random, options.requests);
    const { scenario, events, random, counters } = this;
    this.trace(() => JSON.stringify(scenario));
    this.shortTransfers = scenario.shortTransfers;
    this.network = new Network(events, random, counters, { ...scenario.network });
    this.disk = new Disk(scenario.blocks * BLOCK_BYTES, events, random, counters, { ...scenario.disk });
    this.checker = new Checker(scenario.blocks, scenario.shared);
    this.exporter = new ExporterMachine(this, this.disk);
    this.client = this.#machine("client", "10.0.0.2", {
      make: makers[scenario.client],
      readOnly: false,
      steals: false,
      depth: scenario.depth,
      lanes: scenario.lanes,
      requests: Infinity,
    });
    this.#faults = new Faults(this);
    if (scenario.hasReader) {
      const make = makers[CLIENTS[random.below(CLIENTS.length)]];
      this.#machine("reader", "10.0.0.3", {
        make,
        readOnly: true,
        steals: false,
        depth: 2,
        lanes: 1,
        requests: Infinity,
      });
    }
  }

  get isTracing(): boolean {
    return this.#trace !== undefined;
  }

  /** Says what happens, where somebody listens. */
  trace(line: () => string): void {
    this.#trace?.(`${this.events.time.toFixed(3).padStart(12)}  ${line()}`);
  }

  /** A thread with its engine. */
  thread(process: Process, slots: number): SimThread {
    const thread = new SimThread(process);
    const arena = takeArena(slots);
    this.#arenas.set(thread, arena);
    thread.engine = new Engine(thread.loop, arena.core, arena.cryptography, { now: () => thread.now() });
    return thread;
  }

  /** The thread is no more. */
  forget(thread: SimThread): void {
    giveArenaBack(this.#arenas.get(thread)!);
    this.#arenas.delete(thread);
  }

  /** Whether the disk has failed anybody until now. */
  get diskHasFailed(): boolean {
    return DISK_FAILURES.some((what) => this.counters.of(what) > 0);
  }

  /** Sixteen bytes that nobody has had. */
  bytes16(): Uint8Array {
    return Uint8Array.from({ length: 16 }, () => 1 + this.random.below(255));
  }

  /** The same as 32 hexadecimal digits. */
  hex16(): string {
    return this.bytes16().toHex();
  }

  /** The number of a new session, to be known by its id, too. */
  nextWriter(id: Uint8Array): number {
    this.#writers.set(id.toHex(), this.#writers.size + 1);
    return this.#writers.size;
  }

  begun(session: Session): void {
    if (session.access === Access.READ_WRITE && !this.scenario.shared) {
      this.checker.granted(this.#writers.get(session.id)!);
    }
  }

  replaying(): void {
    this.trace(() => "--- what was lost is written again");
    this.checker.replaying();
    this.#faults.replaying();
  }

  /** A request is submitted. */
  submitted(): void {
    this.#submitted++;
  }

  /** A request has ended. */
  completed(status: number): void {
    this.counters.count(status === 0 ? "requests that succeeded" : "requests that failed");
    this.#faults.completed();
  }

  /** Whoever operates the exporter is told that nothing succeeds any more, and exports the disk anew if that may help. */
  renew(): void {
    const { exporter, events } = this;
    if (!this.#mayFail || !exporter.isRunning) return;
    exporter.kill();
    events.after(10, { fire: () => exporter.start() });
  }

  /** The door hears something from a thread. */
  met(message: ToDoor): void {
    if (message.say === "fencing" && message.executing > 0) this.counters.count("fences that waited");
    if (message.say === "ending" && message.executing > 0) this.counters.count("ends of sessions that waited");
  }

  /** Somebody else takes the disk. */
  addRival(number: number, requests: number): ClientMachine {
    const { random } = this;
    const make = makers[CLIENTS[random.below(CLIENTS.length)]];
    const options = { make, readOnly: false, steals: true, depth: 1 + random.below(4), lanes: 1, requests };
    const rival = this.#machine(`rival ${number}`, `10.0.1.${number % 250}`, options);
    rival.start();
    return rival;
  }

  /**
   * Lets everything happen, then verifies what is left.
   *
   * @throws {Violation} or whatever a part of the product throws
   */
  run(): void {
    this.exporter.start();
    for (const client of this.#clients) client.start();
    this.#until(() => this.#submitted >= this.scenario.requests, PATIENCE_MS, "the requests are not all made");
    this.isEnding = true;
    this.trace(() => "--- everything is well from now on");
    this.#faults.heal();
    this.#whole();
    for (const { application } of this.#clients) application?.leave();
    this.#until(
      () => this.#clients.every(({ application }) => application === null || application.isDone),
      REST_MS,
      "requests are not answered",
    );
    for (const client of this.#clients) client.kill(false);
    this.#verify("after everybody has left");
    // What the verifier has flushed has to be there.
    this.exporter.crash();
    this.#wait(5);
    this.#whole();
    this.#verify("after a crash");
    this.counters.count("requests", this.#submitted);
  }

  /** Gives back what the world has. It is of no use afterwards. */
  end(): void {
    for (const thread of [...this.#arenas.keys()]) this.forget(thread);
  }

  /** The exporter runs, on its machine, without a failure that sticks to it. */
  #whole(): void {
    const { exporter, network } = this;
    if (!network.isUp(EXPORTER_HOST)) exporter.boot();
    if (this.#mayFail) exporter.kill();
    exporter.start();
  }

  /** Whether a failure may stick to the exporter: that of its own cache is known to nobody else. */
  get #mayFail(): boolean {
    return this.scenario.volatile || this.stickyWords.at(-1)?.[0] !== 0;
  }

  /**
   * Takes the disk from whoever has it, reads all of it, and flushes it. Pages may have been lost of which nobody knows yet:
   * then the FLUSH fails, and the exporter has to be started again.
   */
  #verify(when: string): void {
    for (let tries = 0; tries < VERIFY_TRIES; tries++) {
      const failed = this.counters.of("requests that failed");
      this.#readAll(when);
      if (this.counters.of("requests that failed") === failed) return;
      this.#whole();
    }
    throw new Violation(`a request of the verifier fails again and again ${when}`);
  }

  #readAll(when: string): void {
    let at = 0;
    let isDone = false;
    const { blocks } = this.scenario;
    const script: Script = {
      next: () => {
        const first = at;
        if (first > blocks) return null;
        at += VERIFY_BLOCKS;
        if (first === blocks) return { operation: Operation.FLUSH, first: 0, blocks: 0 };
        return { operation: Operation.READ, first, blocks: VERIFY_BLOCKS };
      },
      done: () => isDone = true,
    };
    const options = {
      make: makers.plain,
      readOnly: false,
      steals: true,
      depth: 2,
      lanes: 1,
      requests: Infinity,
      script,
    };
    const machine = this.#machine("verifier", "10.0.0.9", options);
    machine.start();
    this.#until(() => isDone, REST_MS, `the disk cannot be verified ${when}`);
    machine.kill(false);
  }

  #machine(name: string, host: string, options: ApplicationOptions): ClientMachine {
    const machine = new ClientMachine(this, name, host, options);
    this.#clients.push(machine);
    return machine;
  }

  #until(condition: () => boolean, patienceMs: number, complaint: string): void {
    const deadline = this.events.time + patienceMs;
    while (!condition()) {
      if (this.events.time > deadline) throw new Violation(complaint);
      if (!this.events.step()) throw new Violation(`${complaint}, and nothing more happens`);
    }
  }

  #wait(ms: number): void {
    const deadline = this.events.time + ms;
    this.events.at(deadline, { fire: () => {} });
    this.#until(() => this.events.time >= deadline, ms + 1, "time stands still");
  }
}
