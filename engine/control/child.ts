/**
 * This program's own commands as child processes, for what drives several of them.
 *
 * @module
 */
import { selfArguments } from "./background.ts";
import { Failure } from "./failure.ts";
import { ownEnvironment } from "./memory.ts";

/** An event that a command printed with `--json`. */
export type ChildEvent = Readonly<Record<string, unknown>>;

/** How a command ended. */
export interface ChildResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How children are started. */
export interface ChildOptions {
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** The arguments of this process's executable up to those of the command; by default those of this program itself. */
  readonly program?: readonly string[];
  readonly cwd?: string;
}

function commandOf(args: readonly string[], options: ChildOptions): Deno.Command {
  const { program, env, cwd } = options;
  return new Deno.Command(Deno.execPath(), {
    args: program === undefined ? selfArguments(args) : [...program, ...args],
    env: { NO_COLOR: "1", ...ownEnvironment(), ...env },
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs a command to its end. */
export async function runChild(args: readonly string[], options: ChildOptions = {}): Promise<ChildResult> {
  const { code, stdout, stderr } = await commandOf(args, options).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A command that runs until it is told to end, and prints events. */
export class DaemonChild {
  readonly #process: Deno.ChildProcess;
  readonly #name: string;
  readonly #events: ChildEvent[] = [];
  readonly #done: Promise<void>;
  #stderr = "";
  #wake: (() => void) | null = null;
  #ended = false;

  /** @param args those of the command; `--json` is added */
  constructor(args: readonly string[], options: ChildOptions = {}) {
    this.#name = `dst ${args[0]}`;
    this.#process = commandOf([...args, "--json"], options).spawn();
    this.#done = Promise.all([this.#readEvents(), this.#readErrors()]).then(() => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /**
   * Waits for the next event of that name, and takes it and those before it.
   *
   * @throws {Failure} with what the command wrote to standard error, when it ends first
   */
  async waitFor(name: string): Promise<ChildEvent> {
    for (;;) {
      const index = this.#events.findIndex(({ event }) => event === name);
      if (index >= 0) return this.#events.splice(0, index + 1)[index];
      if (this.#ended) throw new Failure(`${this.#name} has ended: ${this.#stderr.trim()}`);
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Asks the command to end, by a signal, and waits until it has. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<ChildResult> {
    this.signal(signal);
    return await this.result();
  }

  /** Sends a signal; nothing happens when it has ended already. */
  signal(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  /** Waits until the command has ended. */
  async result(): Promise<ChildResult> {
    const { code } = await this.#process.status;
    await this.#done;
    const stdout = this.#events.map((event) => JSON.stringify(event)).join("\n");
    return { code, stdout, stderr: this.#stderr };
  }

  async #readEvents(): Promise<void> {
    let text = "";
    for await (const chunk of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) this.#events.push(JSON.parse(line));
      this.#wake?.();
    }
  }

  async #readErrors(): Promise<void> {
    for await (const chunk of this.#process.stderr.pipeThrough(new TextDecoderStream())) this.#stderr += chunk;
  }
}
