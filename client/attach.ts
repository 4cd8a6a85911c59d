/**
 * An attachment: a remote disk as a local block device, or behind a local NBD server.
 *
 * @module
 */
import type { NbdAddress, RemoteAddress } from "../engine/control/address.ts";
import { cipherName, digestName } from "../engine/control/algorithms.ts";
import { LossFailure, messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import type { RuntimeDirectory } from "../engine/control/runtime.ts";
import { formatDuration } from "../engine/duration.ts";
import { type Listening, listenNbd, removeSocketFile } from "../engine/listen.ts";
import { check } from "../ffi/errno.ts";
import { close, duplicate } from "../ffi/libc.ts";
import { UblkControl } from "../ffi/ublk_control.ts";
import type { Provider } from "../engine/cryptography.ts";
import { unlessInterrupted } from "./interrupt.ts";
import { LaneThreads, type Reconnecting, type ReplayState } from "./lane_threads.ts";
import { isAddress, lookUp, nameOfRemote, resolveTarget } from "./open.ts";
import { cryptoFor, forgetKey, type SessionOptions } from "./options.ts";
import type { Patience } from "./patience.ts";
import { changedPatience, type ShownPatience, shownPatience } from "./settings.ts";
import { Sizes } from "./sizes.ts";
import { serveUblk } from "./ublk_attachment.ts";
import { sleep, ublkQueuesMax } from "./ublk_device.ts";
export type { NbdAddress } from "../engine/control/address.ts";

const log = logger("client");

/** NBD clients that are just leaving are not in the way. */
const LEAVING_CLIENTS_MS = 1000;
const LEAVING_CLIENTS_POLL_MS = 50;
/** The last flush may take as long as the exporter's disk does; whoever waits is told why after so long. */
const SLOW_MS = 5000;

/** What {@link attach} needs to know. It wipes the key: the lanes' threads have their own copies. */
export interface AttachOptions extends RemoteAddress, SessionOptions {
  /** Where to serve the disk by NBD; null: as a block device by ublk. */
  readonly nbd: NbdAddress | null;
  readonly readOnly: boolean;
  /** Take the export from whoever holds it. */
  readonly steal: boolean;
  /** How many connections the session is wished to have, each served by a thread of its own: 1 to 64. */
  readonly lanes: number;
  readonly patience: Patience;
  /** Room for copies of what the exporter may lose with its memory, in bytes; null: that is lost. */
  readonly replayBytes: number | null;
  /** Where to keep what another daemon needs to take a block device over; null: it goes away with this one. */
  readonly runtime: RuntimeDirectory | null;
  /** The absolute path of the key's file, where there is a key. */
  readonly keyPath: string | null;
}

/** What an attachment says about itself. It is sent as JSON. */
export interface AttachmentStatus {
  readonly connected: boolean;
  /** Names of the cipher and the digest that were agreed on; the digest is `none` with a cipher. */
  readonly cipher: string;
  readonly digest: string;
  /** Who does that. */
  readonly crypto: Provider;
  /** Name of the key, or null without one. */
  readonly key: string | null;
  readonly loop: "uring" | "poll";
  /** How many lanes the exporter has granted. */
  readonly lanes: number;
  /** What the device has, and what the export has, in bytes. */
  readonly size: number;
  readonly exportSize: number;
  /** What there is to say where the two are not the same, or were not; else null. */
  readonly resized: string | null;
  /** How patient it is. */
  readonly patience: ShownPatience;
  /** Requests that have not ended. */
  readonly inFlight: number;
  /** Where lanes have no connection and are coming back; else null. */
  readonly reconnecting: Reconnecting | null;
  /** The copies of what the exporter may lose with its memory; null where it loses nothing, or nothing is kept. */
  readonly replay: ReplayState | null;
  /** Why writes fail for good, or null. */
  readonly failure: string | null;
}

/** A remote disk that is attached. */
export interface RunningAttachment {
  /** Names it on this machine: the number of its ublk device, or `nbd-PID`. */
  readonly id: number | string;
  /** For example `/dev/ublkb0`; null when it is served by NBD. */
  readonly device: string | null;
  /** For example `unix:/run/disk.sock`; null when it is a device. */
  readonly nbd: string | null;
  /** In bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  status(): Promise<AttachmentStatus>;
  /**
   * Changes how patient it is, at once and on all lanes.
   *
   * @param change as JSON: those of {@link ShownPatience} that are to change
   * @returns what counts now
   * @throws {Failure} when that makes no sense: then nothing has changed
   */
  set(change: unknown): Promise<ShownPatience>;
  /**
   * Drains and detaches. With `force` also while the device is in use: what was not yet written is then lost.
   *
   * @throws {LossFailure} when it is detached, but something may be lost though nobody forced it
   * @throws {Error} that names who uses it, when it is in use, or says that there is no connection, which what was written
   * needs; everything goes on as before
   */
  detach(force: boolean): Promise<void>;
  /** Resolves, and never rejects, at the end: null after a detach, otherwise with what ended it. */
  readonly ended: Promise<Error | null>;
}

/** What serves the disk on this machine. */
export interface Frontend {
  readonly id: number | string;
  readonly device: string | null;
  readonly nbd: string | null;
  /** In bytes: whole blocks of the front-end's. */
  readonly size: number;
  /**
   * Has whoever uses it see another size.
   *
   * @param bytes of the export
   * @returns the size that they see now, in bytes; null: they do not, as it keeps the one that it has
   */
  resize(bytes: number): Promise<number | null>;
  /**
   * Lets nobody use it any more; resolves with what was lost by that, or null.
   *
   * @param isAway there is no connection, nothing waits for one, and nothing is there to be flushed
   * @throws {Error} and leaves everything as it is, when somebody uses it, unless forced
   */
  stop(force: boolean, isAway: boolean): Promise<string | null>;
  /** Gives back what is left of it after a thread has died; null: it outlives this process, and waits for another one. */
  readonly abandon: (() => Promise<void>) | null;
}

/**
 * Connects, opens the export and makes the device.
 *
 * @param interrupted gives up at once, as long as there is no device
 * @throws {Error} one line that says what could not be done, why, and what to do
 */
export async function attach(options: AttachOptions, interrupted: AbortSignal): Promise<RunningAttachment> {
  const what = `attach ${nameOfRemote(options)}`;
  // What this machine lacks is known before anybody is asked for anything.
  const control = options.nbd === null ? openControl(options) : null;
  let listening: Listening | null = null;
  let threads: LaneThreads | null = null;
  try {
    if (options.nbd !== null) listening = await listenNbd(options.nbd);
    threads = await because(what, connect(options, interrupted));
    const frontend = control !== null
      ? await because(what, serveUblk(control, threads, options))
      : await serveNbd(listening!, threads, options.name);
    return running(threads, frontend, options.key?.name ?? null);
  } catch (error) {
    await threads?.leave();
    control?.close();
    if (listening !== null) {
      close(listening.fd);
      if (listening.path !== null) removeSocketFile(listening.path);
    }
    throw error;
  } finally {
    forgetKey(options);
  }
}

async function connect(options: AttachOptions, interrupted: AbortSignal): Promise<LaneThreads> {
  const { name, readOnly, steal, depth, holder, loop, patience, replayBytes } = options;
  const target = await unlessInterrupted(resolveTarget(options, options), interrupted);
  const open = { target, name, readOnly, steal, depth, holder, patience };
  const lookUpAgain = isAddress(options) ? null : () => lookUp(options);
  const frontend = options.nbd === null ? "ublk" : "nbd";
  const crypto = cryptoFor(options);
  return await LaneThreads.open(
    { open, lookUp: lookUpAgain, lanes: lanesOf(options), replayBytes, frontend, loop, crypto },
    interrupted,
  );
}

/** How many lanes are of use. */
function lanesOf({ lanes, nbd }: AttachOptions): number {
  if (nbd !== null) return lanes;
  const most = ublkQueuesMax();
  if (lanes <= most) return lanes;
  log.warning("{text}", {
    text:
      `A block device of this machine has at most ${most} queues, one for each processor: as many lanes are opened, ` +
      `not ${lanes}`,
  });
  return most;
}

function openControl({ loop }: AttachOptions): UblkControl {
  if (loop === "poll") throw new Error("Cannot use ublk with --loop poll, as it needs io_uring: use --nbd");
  return UblkControl.open();
}

async function serveNbd(listening: Listening, threads: LaneThreads, name: string): Promise<Frontend> {
  // All accept from one socket, each by a descriptor of its own; whoever is free takes the next client.
  const fds = Array.from({ length: threads.count - 1 }, () => check(duplicate(listening.fd), "share a socket"));
  fds.unshift(listening.fd);
  await threads.askAll((lane) => ({ ask: "serveNbd", fd: fds[lane], name }));
  const removePath = () => {
    if (listening.path !== null) removeSocketFile(listening.path);
  };
  return {
    id: `nbd-${Deno.pid}`,
    device: null,
    nbd: listening.address,
    size: threads.shape.geometry.size,
    // The threads tell it to those that connect; the protocol has no word for the others.
    resize: (bytes) => Promise.resolve(bytes),
    stop: async (force) => {
      const clients = await clientsAfterAWhile(threads);
      if (clients > 0) {
        const many = clients === 1 ? "1 NBD client is" : `${clients} NBD clients are`;
        if (!force) {
          throw new Error(
            `${listening.address} is in use: ${many} connected. Disconnect them first, or use --force: what they have ` +
              "not yet written is then lost",
          );
        }
        log.warning(`${listening.address}: ${many} cut off`);
      }
      removePath();
      await threads.orAbort(threads.askAll(() => ({ ask: "stopNbd" })), force);
      return null;
    },
    abandon: () => Promise.resolve(removePath()),
  };
}

/** How many NBD clients there are that are not just leaving. */
async function clientsAfterAWhile(threads: LaneThreads): Promise<number> {
  const deadline = performance.now() + LEAVING_CLIENTS_MS;
  for (;;) {
    const { clients } = await threads.status();
    if (clients === 0 || performance.now() > deadline) return clients;
    await sleep(LEAVING_CLIENTS_POLL_MS);
  }
}

/** The attachment that the threads and the front-end are. */
export function running(threads: LaneThreads, frontend: Frontend, key: string | null): RunningAttachment {
  const { promise: ended, resolve } = Promise.withResolvers<Error | null>();
  const { shape } = threads;
  const place = frontend.device ?? frontend.nbd;
  /** The detaching that is under way, and whether somebody has asked to force it. */
  let leaving: Promise<void> | null = null;
  let isForced = false;
  let isOver = false;
  const leave = async (): Promise<void> => {
    const isAway = await isAwayInPeace(threads, isForced, place);
    let loss = await frontend.stop(isForced, isAway);
    const waiting = setTimeout(() => sayThatItWaits(place), SLOW_MS);
    if (!isAway) loss ??= await lastFlush(threads, isForced);
    clearTimeout(waiting);
    isOver = true;
    await threads.leave();
    if (loss === null || isForced) {
      if (loss !== null) log.error("{loss}", { loss: `As it was forced: ${loss}` });
      return resolve(null);
    }
    const failure = new LossFailure(`${place} is detached, but ${loss}`);
    resolve(failure);
    throw failure;
  };
  const sizes = new Sizes(threads, frontend);
  threads.failed.then(async (error) => {
    isOver = true;
    if (frontend.abandon === null) {
      threads.end();
      const what = `A thread of the attachment has died (${messageOf(error)})`;
      resolve(new Error(`${what}; ${place} waits: dst attach --recover ${frontend.id} goes on with it`));
      return;
    }
    threads.abort("a thread of the attachment has died");
    await frontend.abandon().catch((failure) => log.error("{failure}", { failure: messageOf(failure) }));
    threads.end();
    resolve(error);
  });
  return {
    id: frontend.id,
    device: frontend.device,
    nbd: frontend.nbd,
    size: frontend.size,
    readOnly: shape.geometry.readOnly,
    ended,
    status: async () => {
      const { connected, inFlight, reconnecting } = await threads.status();
      const { count: lanes, loop, failure, replay } = threads;
      const cipher = cipherName(shape.cipher);
      const digest = digestName(shape.digest);
      const patience = shownPatience(threads.patience);
      const channel = { cipher, digest, crypto: shape.provider, key, loop, lanes };
      return { connected, ...channel, ...sizes.state, patience, inFlight, reconnecting, replay, failure };
    },
    set: async (change) => {
      await threads.setPatience(changedPatience(change, threads.patience));
      return shownPatience(threads.patience);
    },
    detach: async (force) => {
      if (isOver || (leaving !== null && (!force || isForced))) throw new Error(`${place} is being detached already`);
      if (leaving !== null) {
        isForced = true;
        // It may be waiting for an exporter that is out of reach; or it refuses, as somebody uses the disk.
        await threads.orAbort(leaving, true).catch(() => {});
        if (isOver) return;
      }
      isForced = force;
      leaving = leave();
      try {
        await leaving;
      } finally {
        leaving = null;
      }
    },
  };
}

/**
 * Whether there is no connection and none is needed: everything was flushed, and nothing waits.
 *
 * @throws {Error} when one is needed, unless it is forced
 */
async function isAwayInPeace(threads: LaneThreads, force: boolean, place: string | null): Promise<boolean> {
  const { reconnecting, inFlight, isFirstAway } = await threads.status();
  if (reconnecting === null || (!isFirstAway && reconnecting.waiting === 0)) return false;
  if (inFlight === 0 && !threads.hasUncovered) {
    log.warning("The exporter is told nothing of it, as there is no connection: it may keep the export for a while");
    return true;
  }
  if (force) return false;
  const many = inFlight === 1 ? "1 request waits" : `${inFlight} requests wait`;
  const why = inFlight > 0 ? many : "what was written last is not flushed";
  throw new Error(
    `${place} has had no connection for ${
      formatDuration(reconnecting.forMs)
    } (${reconnecting.reason}), and ${why}: it is ` +
      "detached once there is one and you ask again, or at once with --force: what is not yet flushed may then be lost",
  );
}

function sayThatItWaits(place: string | null): void {
  log.warning("{text}", {
    text: `${place} waits for the exporter to flush what was written: dst detach --force gives that up`,
  });
}

/** Puts on stable storage what is not there yet; what may be lost, or null. */
async function lastFlush(threads: LaneThreads, force: boolean): Promise<string | null> {
  if (threads.shape.geometry.readOnly) return null;
  try {
    // One for all lanes, and also where nothing is known to need it: the exporter may have had trouble meanwhile.
    await threads.orAbort(threads.ask(0, { ask: "flush" }), force);
    return null;
  } catch (error) {
    if (!threads.hasUncovered) return null;
    return `the last flush failed (${messageOf(error)}), and what no flush before it covered may be lost`;
  }
}

/** Says what could not be done, before why. */
export async function because<Result>(what: string, work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    const reason = messageOf(error);
    throw new Error(reason.startsWith("Cannot ") ? reason : `Cannot ${what}: ${reason}`);
  }
}
