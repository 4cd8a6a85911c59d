/**
 * Makes things go wrong, and right again.
 *
 * @module
 */
import type { ClientMachine } from "./client_machine.ts";
import type { DiskManner } from "./disk.ts";
import type { Connection, NetworkManner } from "./network.ts";
import type { Fault } from "./scenario.ts";
import type { World } from "./world.ts";

/** How often something goes wrong however little is done, in ms. */
const RESTLESS_MS = 12_000;
/** How long nobody may come in to it, in ms. */
const AWAY_LONG_MS = 30_000;
/** How long an exporter may be away, in ms. */
const AWAY_MS = 4000;

/** How soon one misfortune may follow another, in ms. */
const AT_ONCE_MS = 20;

/** The faults of one world. */
export class Faults {
  readonly #world: World;
  #untilNext: number;
  #rivals = 0;

  constructor(world: World) {
    this.#world = world;
    this.#untilNext = this.#draw();
    this.#beRestless();
  }

  /** A request was completed. */
  completed(): void {
    if (this.#world.isEnding || --this.#untilNext > 0) return;
    this.#untilNext = this.#draw();
    this.#after(this.#world.random.next() * 3);
  }

  /** Somebody begins to write again what the exporter has lost: it may lose it once more. */
  replaying(): void {
    const { random, scenario, events, isEnding } = this.#world;
    const { faults } = scenario;
    if (isEnding || random.below(3) > 0) return;
    const fault = random.below(2) === 0 ? "exporter's machine crashes" : "client killed";
    if (!faults.includes(fault)) return;
    events.after(random.next() * AT_ONCE_MS, { fire: () => this.#world.isEnding || this.#happen(fault) });
  }

  /** Everything is well from now on. */
  heal(): void {
    const { network, disk, scenario, exporter } = this.#world;
    Object.assign(network.manner, scenario.network, { corruption: 0 });
    network.partitionedUntil = 0;
    network.closedUntil = 0;
    Object.assign(disk.manner, scenario.disk, { stuck: 0, errors: 0, full: 0, lost: 0 });
    exporter.records.isFull = false;
  }

  #draw(): number {
    return 1 + this.#world.random.below(2 * this.#world.scenario.requestsPerFault);
  }

  #beRestless(): void {
    const { events, random } = this.#world;
    events.after(RESTLESS_MS * (0.1 + random.next()), {
      fire: () => {
        if (this.#world.isEnding) return;
        if (random.below(2) === 0) this.#strike();
        this.#beRestless();
      },
    });
  }

  #after(delayMs: number): void {
    this.#world.events.after(delayMs, { fire: () => this.#strike() });
  }

  #strike(): void {
    const { random, scenario, isEnding, counters } = this.#world;
    if (isEnding || scenario.faults.length === 0) return;
    const fault = scenario.faults[random.below(scenario.faults.length)];
    counters.count(`fault: ${fault}`);
    this.#world.trace(() => `--- ${fault}`);
    this.#happen(fault);
    // Misfortunes seldom come singly.
    if (random.below(3) === 0) this.#after(random.next() * (random.below(2) === 0 ? 50 : 5000));
  }

  #happen(fault: Fault): void {
    const { random, network, disk, events, exporter, client } = this.#world;
    switch (fault) {
      case "reset":
        return this.#connection()?.break(random, true);
      case "cut short":
        return this.#connection()?.break(random, false);
      case "half-open": {
        const connection = this.#connection();
        if (connection !== null) connection.isCut = true;
        return;
      }
      case "stall": {
        const connection = this.#connection();
        if (connection !== null) connection.stalledUntil = events.time + random.next() * this.#someTime();
        return;
      }
      case "a lane is away":
        // While something of it takes long, and the others go on.
        Object.assign(disk.manner, { stuck: 0.3 });
        return events.after(random.next() * 20, {
          fire: () => {
            disk.manner.stuck = 0;
            const connection = this.#connection();
            if (connection !== null) connection.isCut = true;
            network.closedUntil = events.time + random.next() * AWAY_LONG_MS;
          },
        });
      case "partition":
        network.partitionedUntil = events.time + random.next() * this.#someTime();
        return;
      case "slow network":
        return this.#networkIs({ delayMs: 5 + random.below(100), jitterMs: random.below(100), bytesPerMs: 500 });
      case "corruption":
        return this.#networkIs({ corruption: 0.05 });
      case "slow disk":
        return this.#diskIs({ delayMs: random.below(100), jitterMs: random.below(500), syncMs: 500 });
      case "disk hangs":
        disk.hangsUntil = events.time + random.next() * this.#someTime();
        return;
      case "disk errors":
        return this.#diskIs({ errors: 0.1 });
      case "disk loses pages":
        return this.#diskIs({ lost: 0.5 });
      case "disk full":
        return this.#diskIs({ full: 0.2 });
      case "records full":
        exporter.records.isFull = true;
        return events.after(random.next() * 2000, { fire: () => exporter.records.isFull = false });
      case "exporter killed":
        exporter.kill();
        return events.after(random.next() * AWAY_MS, { fire: () => exporter.start() });
      case "exporter stopped":
        return exporter.stop(() => events.after(random.next() * AWAY_MS, { fire: () => exporter.start() }));
      case "exporter's machine crashes":
        exporter.crash();
        return events.after(10 + random.next() * AWAY_MS, { fire: () => exporter.boot() });
      case "client killed":
      case "client's machine crashes":
        client.kill(fault !== "client killed");
        return events.after(random.next() * AWAY_MS, { fire: () => client.start() });
      case "rival":
        return this.#rival();
      case "client leaves":
        client.application?.leave();
        return this.#startAgain(client);
      case "disturbance":
        return client.application?.disturb();
    }
  }

  /** When the client has left, another process of it comes. */
  #startAgain(client: ClientMachine): void {
    const { events, random } = this.#world;
    events.after(random.next() * AWAY_MS, {
      fire: () => {
        if (client.application?.isDone === false) return this.#startAgain(client);
        client.kill(false);
        client.start();
      },
    });
  }

  /** Somebody else takes the disk, and leaves or dies after a while. */
  #rival(): void {
    const { random, events } = this.#world;
    const rival = this.#world.addRival(++this.#rivals, 5 + random.below(60));
    events.after(100 + random.next() * 20_000, { fire: () => rival.kill(random.below(2) === 0) });
  }

  #connection(): Connection | null {
    const { connections } = this.#world.network;
    return connections.length === 0 ? null : connections[this.#world.random.below(connections.length)];
  }

  /** Shorter than anybody's patience, or longer; in ms. */
  #someTime(): number {
    const { random } = this.#world;
    return random.below(3) === 0 ? 60_000 : 3000;
  }

  #networkIs(manner: Partial<NetworkManner>): void {
    const { network, scenario, events, random } = this.#world;
    Object.assign(network.manner, manner);
    events.after(random.next() * 2000, { fire: () => Object.assign(network.manner, scenario.network) });
  }

  #diskIs(manner: Partial<DiskManner>): void {
    const { disk, scenario, events, random } = this.#world;
    Object.assign(disk.manner, manner);
    events.after(random.next() * 1000, { fire: () => Object.assign(disk.manner, scenario.disk) });
  }
}
