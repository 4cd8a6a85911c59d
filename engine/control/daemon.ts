/**
 * What `dst export` and `dst attach` have in common: a process that serves until it is told to leave, can be asked how it
 * is, and may run in the background.
 *
 * @module
 */
import type { OptionSpec, ParsedArguments } from "./arguments.ts";
import { backgroundLog, runInBackground, WaitingParent } from "./background.ts";
import { ExitCode, exitCodeOf, Failure, LossFailure, messageOf, usageFailure } from "./failure.ts";
import { logger } from "./log.ts";
import { beIoFlusher, spareFromOutOfMemory } from "./memory.ts";
import { announce, type Announcement, lineOf } from "./output.ts";
import { type DaemonKind, type DaemonSelf, removeIfThere, RuntimeDirectory } from "./runtime.ts";
import { ControlServer } from "./socket.ts";

/** Options of every daemon. */
export const DAEMON_OPTIONS: readonly OptionSpec[] = [
  { name: "--background", help: "return when ready, or with the error that stopped it" },
  { name: "--log-file", value: "FILE", help: "with --background: where the log goes (default: the runtime directory)" },
  { name: "--json", help: "print events as JSON, one object a line" },
];

/** A daemon that serves. */
export interface Daemon {
  readonly self: Omit<DaemonSelf, "kind" | "log">;
  /** Printed when it is ready. */
  readonly announcements: readonly Announcement[];
  /** Printed when it has ended as it was asked to. */
  readonly farewell: Announcement;
  status(): Promise<unknown>;
  /**
   * Ends it.
   *
   * @throws {LossFailure} when it has ended, but not all is well: that is then `ended`, too
   * @throws {Error} when it is in use and not forced: it goes on serving
   */
  leave(force: boolean): Promise<void>;
  /**
   * Changes settings of what runs. Without this nothing can be set.
   *
   * @param settings as they came over the control socket
   * @returns all that count now, as JSON
   * @throws {Error} when all stays as it was
   */
  set?(settings: unknown): Promise<unknown>;
  /**
   * Reads its configuration again, for which SIGHUP asks where it does not end the daemon. Without this it is ignored.
   *
   * @returns a sentence for the log
   * @throws {Error} when all stays as it was
   */
  reload?(): Promise<string>;
  /** Resolves, and never rejects, at its end: with what ended it, or null when it was asked to. */
  readonly ended: Promise<Error | null>;
}

/** How a daemon is run. */
export interface DaemonOptions {
  readonly kind: DaemonKind;
  readonly args: ParsedArguments;
  /** Whether a terminal that goes away (SIGHUP) ends it. */
  readonly endsWithTerminal: boolean;
  /**
   * Checks and opens everything. Its error is the command's.
   *
   * @param interrupted a signal has asked the daemon to leave before it serves: whatever takes long may be given up. A
   * daemon that starts all the same is told to leave then
   */
  start(interrupted: AbortSignal): Promise<Daemon>;
}

/**
 * Runs a daemon until its end, or starts it in the background.
 *
 * @returns the exit code
 * @throws {Error} when it cannot start
 */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  const { kind, args } = options;
  const runtime = RuntimeDirectory.open();
  const log = args.value("--log-file") ?? null;
  if (args.has("--background")) {
    await runInBackground({ kind, args: Deno.args, runtime, log });
    return ExitCode.OK;
  }
  if (log !== null && backgroundLog() === null) throw usageFailure("--log-file needs --background");
  beIoFlusher();
  spareFromOutOfMemory();
  const parent = await WaitingParent.connect();
  const signals = new Signals(options.endsWithTerminal);
  const json = args.has("--json");
  let served: Served;
  try {
    served = await serve(options, runtime, signals.interrupted, async ({ announcements }) => {
      if (parent !== null) await parent.ready(announcements.map((announcement) => lineOf(announcement, json)).join(""));
      else for (const announcement of announcements) announce(announcement, json);
    });
  } catch (error) {
    signals.stop();
    await parent?.failed(messageOf(error), exitCodeOf(error));
    throw error;
  }
  signals.hand(served.daemon, kind, json);
  const error = await served.daemon.ended;
  signals.stop();
  await served.control.close();
  runtime.unregister(kind, served.daemon.self.id);
  if (error !== null) throw error;
  announce(served.daemon.farewell, json);
  // The log of a daemon that ended well interests nobody; one that the user has named is the user's.
  if (log === null && backgroundLog() !== null) removeIfThere(backgroundLog()!);
  return ExitCode.OK;
}

interface Served {
  readonly daemon: Daemon;
  readonly control: ControlServer;
}

/** Starts a daemon, so that it can be found, and tells that it is ready. Nothing is left of it when that fails. */
async function serve(
  options: DaemonOptions,
  runtime: RuntimeDirectory,
  interrupted: AbortSignal,
  tell: (daemon: Daemon) => void | Promise<void>,
): Promise<Served> {
  const daemon = await options.start(interrupted);
  let control: ControlServer | null = null;
  try {
    control = new ControlServer(runtime.socketPath(options.kind, daemon.self.id), {
      status: () => daemon.status(),
      detach: (force) => daemon.leave(force),
      set: async (settings) => {
        if (daemon.set === undefined) throw new Failure("There is nothing to set here");
        return await daemon.set(settings);
      },
    });
    runtime.register({ kind: options.kind, log: backgroundLog(), ...daemon.self });
    await tell(daemon);
    return { daemon, control };
  } catch (error) {
    await daemon.leave(true);
    await control?.close();
    runtime.unregister(options.kind, daemon.self.id);
    throw error;
  }
}

/** The signals that ask a daemon to leave. One that comes before it serves counts from then on; the next one kills. */
class Signals {
  readonly #listeners = new Map<Deno.Signal, () => void>();
  readonly #onHangup = () => this.#hangUp();
  readonly #endsWithTerminal: boolean;
  readonly #interrupt = new AbortController();
  #early = 0;
  #leave: (() => void) | null = null;
  #reload: (() => Promise<void>) | null = null;
  /** Asked for while one runs, or before the daemon serves: however often, it is done once more. */
  #mustReload = false;
  #isReloading = false;

  constructor(endsWithTerminal: boolean) {
    this.#endsWithTerminal = endsWithTerminal;
    const leaving: Deno.Signal[] = ["SIGINT", "SIGTERM"];
    if (endsWithTerminal) leaving.push("SIGHUP");
    else Deno.addSignalListener("SIGHUP", this.#onHangup);
    for (const signal of leaving) {
      const listener = () => this.#onSignal(signal);
      this.#listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
  }

  /** Aborted by the first one, when it comes before the daemon serves. */
  get interrupted(): AbortSignal {
    return this.#interrupt.signal;
  }

  /** From now on signals go to the daemon. */
  hand(daemon: Daemon, kind: DaemonKind, json: boolean): void {
    this.#reload = async () => {
      if (daemon.reload === undefined) return;
      try {
        logger(kind).info("{text}", { text: await daemon.reload() });
        if (json) announce({ json: { event: "reloaded" }, text: "" }, json);
      } catch (error) {
        this.#say(kind, json, `Not reloaded, all stays as it was: ${messageOf(error)}`);
      }
    };
    if (this.#mustReload) this.#hangUp();
    let busy = false;
    this.#leave = async () => {
      if (busy) return;
      busy = true;
      try {
        await daemon.leave(false);
      } catch (error) {
        if (error instanceof LossFailure) return;
        this.#say(kind, json, messageOf(error));
      }
      busy = false;
    };
    if (this.#early > 0) this.#leave();
  }

  stop(): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
    if (!this.#endsWithTerminal) Deno.removeSignalListener("SIGHUP", this.#onHangup);
  }

  /** What was asked for is not done. */
  #say(kind: DaemonKind, json: boolean, reason: string): void {
    logger(kind).warning("{reason}", { reason });
    if (json) announce({ json: { event: "refused", reason }, text: "" }, json);
  }

  async #hangUp(): Promise<void> {
    this.#mustReload = true;
    if (this.#reload === null || this.#isReloading) return;
    this.#isReloading = true;
    while (this.#mustReload) {
      this.#mustReload = false;
      await this.#reload();
    }
    this.#isReloading = false;
  }

  #onSignal(signal: Deno.Signal): void {
    if (this.#leave !== null) return this.#leave();
    if (++this.#early > 1) Deno.exit(ExitCode.FAILED);
    this.#interrupt.abort(new Failure(`${signal} came`));
  }
}
