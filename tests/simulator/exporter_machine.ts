/**
 * The machine with the disk: its exporter is started, killed, and started again. The exporter's own modules run in it;
 * what its threads say to each other takes a while and arrives in order.
 *
 * @module
 */
import type { LayerSpec } from "../../engine/layers/mod.ts";
import { LIMIT_DEFAULTS } from "../../exporter/config_security.ts";
import { makeStickyWord } from "../../exporter/backends/sync.ts";
import type { OpenedDisk } from "../../exporter/backends/disk.ts";
import { DataPath } from "../../exporter/data.ts";
import { Door } from "../../exporter/door.ts";
import type { DataInit, DoorInit, ToData, ToDoor } from "../../exporter/messages.ts";
import { Feature } from "../../protocol/grant.ts";
import type { DiskRecord, DiskRecords } from "../../exporter/state.ts";
import { BLOCK_BYTES } from "./checker.ts";
import type { Disk } from "./disk.ts";
import { OpenFile, Process, type SimThread } from "./kernel.ts";
import type { World } from "./world.ts";

export const EXPORT_NAME = "disk";
export const EXPORTER_HOST = "10.0.0.1";
export const EXPORTER_PORT = 10809;
const DOOR_SLOTS = 48;
const DATA_SLOTS = 96;
/** Of the exporter's own cache: as little as there is. */
const CACHE_BYTES = 1;
const FINGERPRINT = "the disk";
/** A message between two threads: at least, and how much more, in ms. */
const MAIL_MS = 0.01;
const MAIL_JITTER_MS = 0.2;
const LATE_MAIL_MS = 20;

/** The records of the state directory. They survive everything, as does what was synced. */
class Records implements DiskRecords {
  readonly #world: World;
  readonly #records = new Map<string, DiskRecord>();
  /** The directory cannot be written to. */
  isFull = false;

  constructor(world: World) {
    this.#world = world;
  }

  load(fingerprint: string): DiskRecord {
    const known = this.#records.get(fingerprint);
    if (known !== undefined) return known;
    const record = { fingerprint, storage: this.#world.hex16(), writeEpoch: 1_000_000, failures: 0, session: "" };
    this.#records.set(fingerprint, record);
    return record;
  }

  save(record: DiskRecord): void {
    if (this.isFull) throw new Error("Cannot write the record: no space left");
    this.#records.set(record.fingerprint, record);
  }
}

/** Messages in one direction between two threads. */
class Mail<Message> {
  readonly #world: World;
  readonly #to: () => SimThread;
  readonly #hear: (message: Message) => void;
  #lastAt = 0;

  constructor(world: World, to: () => SimThread, hear: (message: Message) => void) {
    this.#world = world;
    this.#to = to;
    this.#hear = hear;
  }

  say(message: Message): void {
    const { events, random } = this.#world;
    const delayMs = random.below(50) === 0 ? random.next() * LATE_MAIL_MS : MAIL_MS + random.next() * MAIL_JITTER_MS;
    this.#lastAt = Math.max(this.#lastAt, events.time + delayMs);
    // As a port does: what the sender does with it afterwards, such as wiping its keys, changes nothing.
    const copy = structuredClone(message);
    events.at(this.#lastAt, {
      fire: () => {
        const thread = this.#to();
        if (!thread.process.isAlive) return;
        this.#hear(copy);
        thread.wake();
      },
    });
  }
}

/** The exporter's machine. */
export class ExporterMachine {
  readonly #world: World;
  readonly disk: Disk;
  readonly records: Records;
  #process: Process | null = null;
  #durability: string;
  /** What a running exporter does to end. */
  #stop: ((then: () => void) => void) | null = null;
  /** What the disk had told when the exporter was started, and whether the door has heard of a failure since. */
  #told = 0;
  #isHeard = false;
  /** It has been told to start, and waits. */
  #isStarting = false;

  constructor(world: World, disk: Disk) {
    this.#world = world;
    this.disk = disk;
    this.records = new Records(world);
    this.#durability = world.hex16();
  }

  /** Whether the exporter runs. */
  get isRunning(): boolean {
    return this.#process !== null;
  }

  /** Starts the exporter, as soon as the disk's lock is free. */
  start(): void {
    if (this.#process !== null || this.#isStarting) return;
    this.#isStarting = true;
    this.disk.whenUnlocked(() => {
      this.#isStarting = false;
      this.#run();
    });
  }

  /** Tells the exporter to end: what executes finishes, and its clients are told. */
  stop(then: () => void): void {
    this.#stop?.(then);
    this.#stop = null;
  }

  /** Kills the exporter. */
  kill(isSilent = false): void {
    const process = this.#process;
    if (process === null) return;
    this.#process = null;
    this.#stop = null;
    process.die(isSilent);
    if (this.#world.scenario.volatile) {
      this.#durability = this.#world.hex16();
      this.#world.checker.crashed();
    }
    for (const thread of process.threads) {
      this.disk.orphan(thread.loop);
      this.#world.forget(thread);
    }
  }

  /** The machine loses its power. */
  crash(): void {
    const { network, checker } = this.#world;
    this.kill(true);
    network.setUp(EXPORTER_HOST, false);
    this.#isStarting = false;
    this.disk.crash();
    checker.crashed();
    this.#durability = this.#world.hex16();
  }

  /** The machine runs again. */
  boot(): void {
    this.#world.network.setUp(EXPORTER_HOST, true);
    this.start();
  }

  #layers(): LayerSpec[] {
    const { scenario, random } = this.#world;
    if (!scenario.volatile) return [];
    return [{ kind: "volatile", bytes: CACHE_BYTES, through: random.next(), seed: random.below(1 << 30) }];
  }

  #run(): void {
    const world = this.#world;
    const { scenario, disk } = world;
    // Whoever comes now was not told of what the one before has met, unless that was recorded in time.
    const isRecorded = disk.told === this.#told || this.#isHeard;
    if (!isRecorded) world.counters.count("failures that nobody could record");
    world.checker.taint(disk.lost, isRecorded);
    this.#told = disk.told;
    this.#isHeard = false;
    const process = new Process(world, EXPORTER_HOST);
    this.#process = process;
    const fd = process.open(new OpenFile(disk, disk.open()));
    const stickyWord = makeStickyWord();
    world.stickyWords.push(stickyWord);
    const rules = { allow: null, keys: [], exports: [{ name: EXPORT_NAME, allow: null, permissions: null }] };
    const noLink = { port: null as unknown as MessagePort, wakePeer: -1 };
    const data: { thread: SimThread; path: DataPath; toData: Mail<ToData>; toDoor: Mail<ToDoor> }[] = [];
    const doorThread = world.thread(process, DOOR_SLOTS);
    for (let worker = 0; worker < scenario.workers; worker++) {
      const thread = world.thread(process, DATA_SLOTS);
      const init: DataInit = {
        exports: [{ name: EXPORT_NAME, disk: openedDisk(fd, disk.size), layers: this.#layers(), stickyWord }],
        door: noLink,
        nbdFd: -1,
        rules,
      };
      const toDoor = new Mail<ToDoor>(world, () => doorThread, (message) => {
        world.met(message);
        if (message.say === "failed" && !this.records.isFull) this.#isHeard = true;
        door.hear(worker, message);
      });
      const path = new DataPath(
        thread.engine,
        init,
        (message) => toDoor.say(message),
        (text) => world.trace(() => `exporter ${worker}: ${text}`),
      );
      const toData = new Mail<ToData>(world, () => thread, (message) => path.hear(message));
      data.push({ thread, path, toData, toDoor });
    }
    const { features, ...shape } = data[0].path.shape(0);
    const doorInit: DoorInit = {
      exports: [{
        index: 0,
        name: EXPORT_NAME,
        shape,
        features: features | (scenario.shared ? Feature.SHARED : 0),
        fingerprint: FINGERPRINT,
        durability: this.#durability,
        oneWorker: scenario.volatile,
      }],
      access: {
        rules,
        secrets: [],
        ciphers: [0],
        digests: [scenario.digest],
        limits: { ...LIMIT_DEFAULTS, connections: 40, logLinesPerMinute: 1_000_000 },
      },
      stateDir: "",
      listenFd: process.listen(EXPORTER_PORT),
      data: data.map(() => noLink),
    };
    const door = new Door(doorThread.engine, doorInit, this.records, world.bytes16(), {
      log: (_level, text) => world.trace(() => `exporter: ${text}`),
      say: (worker, message) => data[worker].toData.say(message),
    });
    this.#stop = (then) => {
      door.stop();
      doorThread.wake();
      let running = data.length;
      const ended = () => {
        if (--running > 0) return;
        // What has been sent, and the sockets, outlive the threads for a moment.
        world.events.after(0.1, {
          fire: () => {
            if (this.#process === process) this.kill();
            then();
          },
        });
      };
      for (const { path, thread } of data) {
        path.stop({ answer: ended, refuse: ended });
        thread.wake();
      }
    };
    for (const thread of process.threads) thread.wake();
    world.trace(() => "exporter: started");
  }
}

function openedDisk(fd: number, size: number): OpenedDisk {
  return {
    path: "/simulated/disk",
    kind: "file",
    fd,
    geometry: {
      size,
      logicalBlock: BLOCK_BYTES,
      physicalBlock: BLOCK_BYTES,
      optimalIo: 4096,
      discardGranularity: BLOCK_BYTES,
      readOnly: false,
      volatileCache: true,
      fastZero: true,
    },
    inline: false,
    forcesWrites: false,
    fastAllocatedZero: true,
    roundedOffBytes: 0,
    identity: {
      deviceMajor: 8,
      deviceMinor: 1,
      inode: 12,
      birthTime: "1",
      targetMajor: 0,
      targetMinor: 0,
      size,
    },
  };
}
