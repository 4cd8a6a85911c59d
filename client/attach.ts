/**
 * An attachment: a remote disk as a local block device, or behind a local NBD server.
 *
 * @module
 */
import type { NbdAddress, RemoteAddress } from "../engine/control/address.ts";
import { digestName } from "../engine/control/algorithms.ts";
import { LossFailure, messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import { type Listening, listenNbd, removeSocketFile } from "../engine/listen.ts";
import { makeWakeFd, Thread } from "../engine/thread.ts";
import { close } from "../ffi/libc.ts";
import { UblkControl } from "../ffi/ublk_control.ts";
import { attachmentSlots } from "./attachment.ts";
import type { AttachEvent, AttachInit, AttachQuestion, OpenedShape, SessionState } from "./messages.ts";
import { nameOfRemote, type OpenOptions, resolveTarget } from "./open.ts";
import { sleep, UblkDevice, ublkParameters } from "./ublk_device.ts";
export type { NbdAddress } from "../engine/control/address.ts";

const log = logger("client");

/** How long a forced detach waits for each step before it gives up what is under way, in milliseconds. */
const FORCE_PATIENCE_MS = 5000;
/** NBD clients that are just leaving are not in the way. */
const LEAVING_CLIENTS_MS = 1000;
const LEAVING_CLIENTS_POLL_MS = 50;

/** How a client reaches an exporter; the same for every command. */
export interface SessionOptions {
  /** The requests that may be in flight at once, 1 to 1024. */
  readonly depth: number;
  readonly loop: "auto" | "uring" | "poll";
  /** Names of the digests that are acceptable, the best first. */
  readonly digests: readonly string[];
  /** Who the client is, for people. */
  readonly holder: string;
}

/** What {@link attach} needs to know. */
export interface AttachOptions extends RemoteAddress, SessionOptions {
  /** Where to serve the disk by NBD; null: as a block device by ublk. */
  readonly nbd: NbdAddress | null;
  readonly readOnly: boolean;
  /** Take the export from whoever holds it. */
  readonly steal: boolean;
}

/** What an attachment says about itself. It is sent as JSON. */
export interface AttachmentStatus {
  readonly connected: boolean;
  /** Name of the digest that was agreed on. */
  readonly digest: string;
  readonly loop: "uring" | "poll";
  /** Requests that await their reply. */
  readonly inFlight: number;
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
   * Drains and detaches. With `force` also while the device is in use: what was not yet written is then lost.
   *
   * @throws {LossFailure} when it is detached, but something may be lost though nobody forced it
   * @throws {Error} that names who uses it, when it is in use; everything goes on as before
   */
  detach(force: boolean): Promise<void>;
  /** Resolves, and never rejects, at the end: null after a detach, otherwise with what ended it. */
  readonly ended: Promise<Error | null>;
}

/** The thread that does the work. */
type AttachThread = Thread<AttachQuestion, AttachEvent>;

/** What serves the disk on this machine. */
interface Frontend {
  readonly id: number | string;
  readonly device: string | null;
  readonly nbd: string | null;
  /** In bytes: whole blocks of the front-end's. */
  readonly size: number;
  /**
   * Lets nobody use it any more; resolves with what was lost by that, or null.
   *
   * @throws {Error} and leaves everything as it is, when somebody uses it, unless forced
   */
  stop(force: boolean): Promise<string | null>;
  /** Gives back what is left of it after the thread has died. */
  abandon(): Promise<void>;
}

/**
 * Connects, opens the export and makes the device.
 *
 * @throws {Error} one line that says what could not be done, why, and what to do
 */
export async function attach(options: AttachOptions): Promise<RunningAttachment> {
  const what = `attach ${nameOfRemote(options)}`;
  // What this machine lacks is known before anybody is asked for anything.
  const control = options.nbd === null ? openControl(options) : null;
  let listening: Listening | null = null;
  let thread: AttachThread | null = null;
  try {
    if (options.nbd !== null) listening = await listenNbd(options.nbd);
    const open: OpenOptions = {
      target: await because(what, resolveTarget(options, options.digests)),
      name: options.name,
      readOnly: options.readOnly,
      steal: options.steal,
      depth: options.depth,
      holder: options.holder,
    };
    thread = await because(what, startThread(options, open));
    const shape = await because(what, thread.ask({ ask: "open" })) as OpenedShape;
    const frontend = control !== null
      ? await because(what, serveUblk(control, thread, shape))
      : await serveNbd(listening!, thread, options.name, shape);
    return running(thread, shape, frontend);
  } catch (error) {
    if (thread !== null) await leave(thread);
    control?.close();
    if (listening !== null) {
      close(listening.fd);
      if (listening.path !== null) removeSocketFile(listening.path);
    }
    throw error;
  }
}

function openControl({ loop }: AttachOptions): UblkControl {
  if (loop === "poll") throw new Error("Cannot use ublk with --loop poll, as it needs io_uring: use --nbd");
  return UblkControl.open();
}

function startThread(options: AttachOptions, open: OpenOptions): Promise<AttachThread> {
  const frontend = options.nbd === null ? "ublk" : "nbd";
  return Thread.start<AttachInit, AttachQuestion, AttachEvent>(
    new URL("./attach_worker.ts", import.meta.url),
    {
      loop: frontend === "ublk" ? "uring" : options.loop,
      slots: attachmentSlots(frontend, options.depth),
      wakeFd: makeWakeFd(),
      init: { open },
    },
    ({ level, text }) => log[level]("{text}", { text }),
  );
}

async function serveNbd(
  listening: Listening,
  thread: AttachThread,
  name: string,
  shape: OpenedShape,
): Promise<Frontend> {
  await thread.ask({ ask: "serveNbd", fd: listening.fd, name });
  const removePath = () => {
    if (listening.path !== null) removeSocketFile(listening.path);
  };
  return {
    id: `nbd-${Deno.pid}`,
    device: null,
    nbd: listening.address,
    size: shape.geometry.size,
    stop: async (force) => {
      const clients = await clientsAfterAWhile(thread);
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
      await orAbort(thread, thread.ask({ ask: "stopNbd" }), force);
      return null;
    },
    abandon: () => Promise.resolve(removePath()),
  };
}

/** How many NBD clients there are that are not just leaving. */
async function clientsAfterAWhile(thread: AttachThread): Promise<number> {
  const deadline = performance.now() + LEAVING_CLIENTS_MS;
  for (;;) {
    const { clients } = await thread.ask({ ask: "status" }) as SessionState;
    if (clients === 0 || performance.now() > deadline) return clients;
    await sleep(LEAVING_CLIENTS_POLL_MS);
  }
}

async function serveUblk(control: UblkControl, thread: AttachThread, shape: OpenedShape): Promise<Frontend> {
  const parameters = ublkParameters(shape);
  const device = await UblkDevice.make(control, parameters, shape.depth);
  let isServed = false;
  const remove = async (force: boolean, claim: number) => {
    try {
      await orAbort(thread, device.stop(), force);
    } finally {
      // Held until nobody can mount it any more, and no longer: the driver forgets no device that is open.
      if (claim >= 0) close(claim);
    }
    if (isServed) await thread.ask({ ask: "queueEnd" });
    await device.delete();
  };
  try {
    await thread.ask({ ask: "serveUblk", fd: device.charFd, depth: device.depth });
    isServed = true;
    await device.start();
  } catch (error) {
    await remove(true, -1);
    throw error;
  }
  return {
    id: device.id,
    device: device.path,
    nbd: null,
    size: parameters.sizeBytes,
    stop: async (force) => {
      const claim = force ? -1 : await device.claim();
      const users = force ? device.users() : null;
      if (users !== null) log.warning(`${device.path} is taken away from its users: ${users}`);
      const loss = await orAbort(thread, device.sync(), force).then(
        () => null,
        (error) => `what was not yet written is lost (${messageOf(error)})`,
      );
      await remove(force, claim);
      return loss;
    },
    // The driver ends a device whose server is gone; what it keeps of it is removed here.
    abandon: async () => {
      await device.stop();
      await device.delete();
    },
  };
}

function running(thread: AttachThread, shape: OpenedShape, frontend: Frontend): RunningAttachment {
  const { promise: ended, resolve } = Promise.withResolvers<Error | null>();
  let isLeaving = false;
  thread.failed.then(async (error) => {
    isLeaving = true;
    await frontend.abandon().catch((failure) => log.error("{failure}", { failure: messageOf(failure) }));
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
      const { connected, inFlight, failure } = await thread.ask({ ask: "status" }) as SessionState;
      return { connected, digest: digestName(shape.digest), loop: thread.loop, inFlight, failure };
    },
    detach: async (force) => {
      if (isLeaving) throw new Error(`${frontend.device ?? frontend.nbd} is being detached already`);
      isLeaving = true;
      let loss: string | null;
      try {
        loss = await frontend.stop(force);
      } catch (error) {
        isLeaving = false;
        throw error;
      }
      if (loss === null && !shape.geometry.readOnly) {
        loss = await orAbort(thread, thread.ask({ ask: "flush" }), force).then(
          () => null,
          (error) => `the last flush failed (${messageOf(error)}), and what no flush before it covered may be lost`,
        );
      }
      await leave(thread);
      if (loss === null || force) {
        if (loss !== null) log.error("{loss}", { loss: `As it was forced: ${loss}` });
        return resolve(null);
      }
      const failure = new LossFailure(`${frontend.device ?? frontend.nbd} is detached, but ${loss}`);
      resolve(failure);
      throw failure;
    },
  };
}

/** Waits; when forced, only so long, and then drops the connection, so that nothing waits for the exporter any more. */
async function orAbort<Result>(thread: AttachThread, work: Promise<Result>, force: boolean): Promise<Result> {
  if (!force) return await work;
  const done = work.then(() => true, () => true);
  if (!await Promise.race([done, sleep(FORCE_PATIENCE_MS).then(() => false)])) {
    log.warning("The exporter does not answer: its connection is dropped, and what was under way is lost");
    await thread.ask({ ask: "abort" });
  }
  return await work;
}

/** Ends the session and the thread, or what a dead thread has left. */
async function leave(thread: AttachThread): Promise<void> {
  await Promise.race([thread.ask({ ask: "leave" }), thread.failed]);
  thread.end();
}

/** Says what could not be done, before why. */
async function because<Result>(what: string, work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    const reason = messageOf(error);
    throw new Error(reason.startsWith("Cannot ") ? reason : `Cannot ${what}: ${reason}`);
  }
}
