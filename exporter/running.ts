/**
 * An exporter that runs, on the control plane: asked how it is, told to go on otherwise, and ended.
 *
 * @module
 */
import { cipherName, cipherNumbers, digestName, digestNumbers } from "../engine/control/algorithms.ts";
import { checkExposure } from "../engine/control/exposure.ts";
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import { type Listening, removeSocketFile } from "../engine/listen.ts";
import { Access, Feature } from "../protocol/grant.ts";
import type { Access as DoorAccess } from "./admission.ts";
import { accessRules } from "./config_security.ts";
import { closeDisk, type Disk, doorExport, failureOf, measureDisk, openDisk, resizedExport } from "./disks.ts";
import type { ExporterOptions, ExporterStatus, ExportOptions, RunningExporter } from "./exporter.ts";
import type { DoorSession, ServedShape } from "./messages.ts";
import { Threads } from "./threads.ts";

const log = logger("exporter");

/** A disk that is exported. */
interface Served {
  readonly disk: Disk;
  readonly shape: ServedShape;
}

/** An exporter that runs. */
export class Exporter implements RunningExporter {
  readonly listening: RunningExporter["listening"];
  readonly failed: Promise<Error>;
  #options: ExporterOptions;
  readonly #threads: Threads;
  readonly #sockets: readonly Listening[];
  /** In the order of the configuration. */
  #served: Served[];
  /** Disks that are exported no more, and still in use. */
  readonly #leaving = new Set<Disk>();
  /** Names a disk to the threads; never used twice. */
  #nextIndex: number;

  private constructor(
    options: ExporterOptions,
    threads: Threads,
    served: readonly Served[],
    sockets: readonly Listening[],
  ) {
    this.#options = options;
    this.#threads = threads;
    this.#served = [...served];
    this.#nextIndex = served.length;
    this.#sockets = sockets;
    this.listening = sockets.map(({ address }, i) => ({ protocol: i === 0 ? "dst" : "nbd", address }));
    this.failed = threads.failed;
  }

  /**
   * Starts the threads.
   *
   * @param disks in the order of the options, with indexes from 0 on
   * @param sockets the one for DST, and perhaps one for NBD; with the disks they are the exporter's, if it starts
   * @throws {Error} when it cannot start
   */
  static async start(
    options: ExporterOptions,
    disks: readonly Disk[],
    sockets: readonly Listening[],
  ): Promise<Exporter> {
    const access = accessOf(options);
    const threads = await Threads.start(
      {
        loop: options.loop,
        crypto: options.crypto,
        workers: options.workers,
        exports: disks.map(({ served }) => served),
        nbdFd: sockets[1]?.fd ?? -1,
        rules: access.rules,
      },
      ({ level, text }) => log[level](text),
    );
    try {
      const served: Served[] = [];
      for (const disk of disks) served.push({ disk, shape: await threads.shape(disk.index) });
      await threads.openDoor({
        exports: served.map(({ disk, shape }) => doorExport(disk, shape)),
        access,
        stateDir: options.stateDir,
        listenFd: sockets[0].fd,
      });
      return new Exporter(options, threads, served, sockets);
    } catch (error) {
      threads.end();
      throw error;
    }
  }

  async status(): Promise<ExporterStatus> {
    const sessions = await this.#threads.status();
    return {
      loop: this.#threads.loop,
      workers: this.#options.workers,
      exports: this.#served.map(({ disk: { index, options, served }, shape }) => ({
        name: options.name,
        path: options.path,
        size: shape.size,
        access: (shape.features & Feature.READ_ONLY) !== 0 ? "read-only" : "read-write",
        sessions: (sessions.get(index) ?? []).map(sessionStatus),
        failure: failureOf(served.stickyWord),
      })),
    };
  }

  async reload(options: ExporterOptions): Promise<number> {
    try {
      const { kept, added, removed } = this.#changes(options);
      const measured = kept.map(measuredAgain);
      const resized = measured.filter((one, i) => one !== kept[i]);
      await checkExposure(options);
      const more: Served[] = [];
      let ended: number;
      try {
        for (const one of added) more.push(await this.#add(one));
        ended = await this.#threads.reload(
          accessOf(options),
          more.map(({ disk, shape }) => doorExport(disk, shape)),
          removed.map(({ disk }) => disk.index),
          resized.map(({ disk }) => resizedExport(disk)),
        );
      } catch (error) {
        for (const { disk } of more) await this.#letGo(disk);
        throw error;
      }
      for (const { disk, shape } of resized) {
        log.info("{text}", { text: `"${disk.options.name}" has ${shape.size} bytes now: its clients are told` });
      }
      const all = [...measured, ...more];
      this.#options = options;
      this.#served = options.exports.map(({ name }) => all.find(({ disk }) => disk.options.name === name)!);
      for (const { disk } of removed) this.#remove(disk);
      return ended;
    } finally {
      // Secrets that were given away have no bytes here any more.
      for (const { key } of options.keys) if (key.secret.length > 0) key.secret.fill(0);
    }
  }

  async stop(): Promise<void> {
    try {
      await this.#threads.stop();
    } finally {
      for (const { path } of this.#sockets) if (path !== null) removeSocketFile(path);
      for (const { disk } of this.#served) closeDisk(disk);
      for (const disk of this.#leaving) closeDisk(disk);
    }
  }

  /**
   * What other options change about the exports.
   *
   * @throws {Error} that names what cannot be changed while the exporter runs
   */
  #changes(options: ExporterOptions): { kept: Served[]; added: ExportOptions[]; removed: Served[] } {
    const refuse = (what: string) => new Error(`${what} cannot be changed by a reload: restart`);
    const pairs: [string, unknown, unknown][] = [
      ["listen", this.#options.listen, options.listen],
      ["nbd", this.#options.nbd, options.nbd],
      ["loop", this.#options.loop, options.loop],
      ["state_dir", this.#options.stateDir, options.stateDir],
      ["crypto", this.#options.crypto, options.crypto],
      ["workers", this.#options.workers, options.workers],
    ];
    for (const [what, before, after] of pairs) if (!isSame(before, after)) throw refuse(what);
    const kept: Served[] = [];
    const added: ExportOptions[] = [];
    for (const one of options.exports) {
      const before = this.#served.find(({ disk }) => disk.options.name === one.name);
      if (before === undefined) {
        added.push(one);
        continue;
      }
      if (!isSame(diskOf(before.disk.options), diskOf(one))) {
        throw refuse(`"${one.name}": path, read_only, shared, direct and layers`);
      }
      kept.push(before);
    }
    return { kept, added, removed: this.#served.filter((one) => !kept.includes(one)) };
  }

  /** Opens one more disk and makes it ready in the threads. */
  async #add(options: ExportOptions): Promise<Served> {
    const disk = await openDisk(this.#nextIndex++, options);
    try {
      await this.#threads.add(disk.index, disk.served);
    } catch (error) {
      closeDisk(disk);
      throw error;
    }
    return { disk, shape: await this.#threads.shape(disk.index) };
  }

  /** Lets go of a disk that is exported no more, when its sessions have ended: however long that takes. */
  async #remove(disk: Disk): Promise<void> {
    this.#leaving.add(disk);
    await this.#threads.whenGone(disk.index);
    await this.#letGo(disk);
    log.info("{text}", { text: `"${disk.options.name}" is exported no more` });
  }

  async #letGo(disk: Disk): Promise<void> {
    try {
      await this.#threads.letGo(disk.index);
    } catch (error) {
      log.error("{text}", { text: `"${disk.options.name}": ${messageOf(error)}` });
    } finally {
      this.#leaving.delete(disk);
      closeDisk(disk);
    }
  }
}

/** A disk and what it is like as it is now; the same where nothing has changed. */
function measuredAgain(one: Served): Served {
  const disk = measureDisk(one.disk);
  return disk === one.disk ? one : { disk, shape: { ...one.shape, size: disk.served.disk.geometry.size } };
}

/** What the door decides by. */
function accessOf(options: ExporterOptions): DoorAccess {
  return {
    rules: accessRules(options),
    secrets: options.keys.map(({ key }) => ({ id: key.id.toHex(), secret: key.secret })),
    ciphers: cipherNumbers(options.ciphers),
    digests: digestNumbers(options.digests),
    limits: options.limits,
  };
}

function sessionStatus({ access, suite, ...session }: DoorSession): ExporterStatus["exports"][0]["sessions"][0] {
  return {
    ...session,
    access: access === Access.READ_WRITE ? "read-write" : "read-only",
    cipher: suite === null ? null : cipherName(suite.cipher),
    digest: suite === null ? null : digestName(suite.digest),
  };
}

/** The part of an export's options that is its disk, and not who may use it. */
function diskOf({ path, readOnly, shared, direct, layers }: ExportOptions) {
  return { path, readOnly, shared, direct, layers };
}

/** Whether plain data are the same, given that their fields are in the same order. */
function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
