/**
 * Daemons in the background: the command runs itself again, detached from the terminal, and waits until that child is
 * ready or has failed. The child says so over a unix socket whose path is in its environment.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { Failure, messageOf } from "./failure.ts";
import { writeError, writeOutput } from "./log.ts";
import { markIoFlusher, ownEnvironment } from "./memory.ts";
import { type DaemonKind, removeIfThere, type RuntimeDirectory } from "./runtime.ts";
import { lines, writeLine } from "./socket.ts";

/** In the environment of the child: where its parent waits for it. */
const READY_VARIABLE = "DST_READY_SOCKET";
/** In the environment of the child: the file that it logs to. */
const LOG_VARIABLE = "DST_LOG_FILE";
/** A message carries a few lines of output at most. */
const MESSAGE_BYTES_MAX = 64 * 1024;
/** How much of the log of a child that died is shown. */
const LOG_TAIL_LINES = 5;

type Message =
  | { readonly kind: "ready"; readonly output: string }
  | { readonly kind: "failed"; readonly message: string; readonly exitCode: number };

/** How a child is started. */
export interface BackgroundOptions {
  readonly kind: DaemonKind;
  /** All arguments of the command line, the command included; `--background` among them is left out. */
  readonly args: readonly string[];
  readonly runtime: RuntimeDirectory;
  /** The file to log to; null for one in the runtime directory. */
  readonly log: string | null;
}

/**
 * Starts this program again as a daemon with a session of its own, and waits for it. What it announces when it is ready
 * goes to standard output.
 *
 * @throws {Failure} with the error that stopped it
 */
export async function runInBackground(options: BackgroundOptions): Promise<void> {
  const { kind, runtime } = options;
  const log = options.log ?? runtime.logPath(kind, Deno.pid);
  const socket = `${runtime.path}/ready-${Deno.pid}.sock`;
  removeIfThere(socket);
  const listener = Deno.listen({ transport: "unix", path: socket });
  try {
    const child = startChild(options.args, log, socket);
    // The child has a session of its own, so that the terminal's interrupt reaches only the parent: it is passed on.
    const interrupt = () => child.kill("SIGTERM");
    Deno.addSignalListener("SIGINT", interrupt);
    Deno.addSignalListener("SIGTERM", interrupt);
    try {
      const message = await Promise.race([readMessage(listener), child.exited.then(() => null)]);
      if (message === null) throw new Failure(describeDeath(kind, await child.exited, log));
      if (message.kind === "failed") {
        // The log says no more than the error does.
        if (options.log === null) removeIfThere(log);
        throw new Failure(message.message, message.exitCode);
      }
      writeOutput(message.output);
    } finally {
      Deno.removeSignalListener("SIGINT", interrupt);
      Deno.removeSignalListener("SIGTERM", interrupt);
    }
  } finally {
    closeListener(listener);
    removeIfThere(socket);
  }
}

/** The arguments with which this program is run again. */
export function selfArguments(args: readonly string[]): string[] {
  return Deno.build.standalone ? [...args] : ["run", "--quiet", "-A", Deno.mainModule, ...args];
}

/** The parent that waits for this process, seen from the child. */
export class WaitingParent {
  readonly #connection: Deno.UnixConn;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
  }

  /** Connects to the parent; null when this process was not started in the background. */
  static async connect(): Promise<WaitingParent | null> {
    const path = Deno.env.get(READY_VARIABLE);
    if (path === undefined) return null;
    Deno.env.delete(READY_VARIABLE);
    try {
      return new WaitingParent(await Deno.connect({ transport: "unix", path }));
    } catch (error) {
      throw new Failure(`Cannot start in the background: the process that asked for it is gone (${messageOf(error)})`);
    }
  }

  /** Says that the daemon serves. */
  ready(output: string): Promise<void> {
    return this.#tell({ kind: "ready", output });
  }

  /** Says why the daemon does not serve. */
  failed(message: string, exitCode: number): Promise<void> {
    return this.#tell({ kind: "failed", message, exitCode });
  }

  async #tell(message: Message): Promise<void> {
    try {
      await writeLine(this.#connection, message);
    } catch {
      // A parent that was killed meanwhile hears nothing; the daemon serves all the same.
    }
    this.#connection.close();
  }
}

/** The log file of this daemon if it runs in the background, otherwise null. */
export function backgroundLog(): string | null {
  return Deno.env.get(LOG_VARIABLE) ?? null;
}

interface Child {
  /** Resolves with how it ended. */
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  kill(signal: "SIGTERM"): void;
}

function startChild(args: readonly string[], log: string, socket: string): Child {
  let file: number;
  try {
    file = openSync(log, "a", 0o600);
  } catch (error) {
    throw new Failure(`Cannot write the log file ${log}: ${messageOf(error)}`);
  }
  try {
    const own = withoutBackground(args);
    // The child, with all its threads, has it from this thread.
    markIoFlusher();
    const child = spawn(Deno.execPath(), selfArguments(own), {
      detached: true,
      stdio: ["ignore", file, file],
      env: {
        ...Deno.env.toObject(),
        ...ownEnvironment(),
        [READY_VARIABLE]: socket,
        [LOG_VARIABLE]: Deno.realPathSync(log),
      },
    });
    const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
      child.on("exit", (code: number | null, signal: string | null) => resolve({ code, signal }));
      child.on("error", (error: Error) => {
        writeError(`${messageOf(error)}\n`);
        resolve({ code: null, signal: null });
      });
    });
    child.unref();
    return { exited, kill: (signal) => void child.kill(signal) };
  } finally {
    closeSync(file);
  }
}

/** The arguments without the switch, which would start a child of the child. What follows `--` is no switch. */
export function withoutBackground(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  return args.filter((argument, i) => argument !== "--background" || (end >= 0 && i > end));
}

/** The first message that the child sends; null when it closes without one. */
async function readMessage(listener: Deno.UnixListener): Promise<Message | null> {
  try {
    const connection = await listener.accept();
    try {
      for await (const line of lines(connection, MESSAGE_BYTES_MAX)) return JSON.parse(line) as Message;
    } finally {
      connection.close();
    }
  } catch {
    // The listener was closed because the child has ended, or the child died in the middle of its message.
  }
  return null;
}

function describeDeath(kind: DaemonKind, how: { code: number | null; signal: string | null }, log: string): string {
  const end = how.signal !== null ? `was ended by ${how.signal}` : `ended with exit code ${how.code}`;
  const tail = tailOf(log);
  return `dst ${kind} ${end} before it was ready (log: ${log})${tail === "" ? "" : `: ${tail}`}`;
}

function tailOf(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim().split("\n").slice(-LOG_TAIL_LINES).join(" | ");
  } catch {
    return "";
  }
}

function closeListener(listener: Deno.UnixListener): void {
  try {
    listener.close();
  } catch {
    // It is closed already.
  }
}
