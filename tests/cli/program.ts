/**
 * The program as a user runs it, for the tests of this folder.
 *
 * @module
 */
import { type ChildResult, DaemonChild, runChild } from "../../engine/control/child.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const PROGRAM = ["run", "--quiet", "-A", MAIN];

/** A folder with records, state and files of its own, in which commands run and daemons are ended at the end. */
export class Workplace {
  readonly #daemons: DaemonChild[] = [];

  private constructor(readonly folder: string) {}

  /** Makes a test of a function that gets a workplace. */
  static test(work: (place: Workplace) => Promise<void>): () => Promise<void> {
    return async () => {
      const place = new Workplace(Deno.makeTempDirSync({ prefix: "dst-cli-" }));
      try {
        await work(place);
      } finally {
        await place.#end();
      }
    };
  }

  /** Makes a sparse file of that size in bytes; gives its path. */
  file(name: string, size: number): string {
    const path = `${this.folder}/${name}`;
    Deno.writeFileSync(path, new Uint8Array(0));
    Deno.truncateSync(path, size);
    return path;
  }

  /** Runs a command to its end. */
  run(...args: string[]): Promise<ChildResult> {
    return runChild(args, this.#options());
  }

  /** Runs a command whose standard output goes to a file. */
  async runInto(path: string, ...args: string[]): Promise<{ code: number; stderr: string }> {
    const { env, cwd } = this.#options();
    const shell = ["-c", 'exec "$@" > "$0"', path, Deno.execPath(), ...PROGRAM, ...args];
    const { code, stderr } = await new Deno.Command("sh", { args: shell, env: { NO_COLOR: "1", ...env }, cwd })
      .output();
    return { code, stderr: new TextDecoder().decode(stderr) };
  }

  /** Runs a command that must fail, and checks that it fails as one should: one line, no stack. */
  async fails(code: number, message: RegExp, ...args: string[]): Promise<void> {
    const result = await this.run(...args);
    const line = result.stderr.trimEnd();
    if (result.code !== code || !message.test(line) || line.includes("\n") || !line.startsWith("dst: ")) {
      throw new Error(
        `dst ${args.join(" ")} should have failed with exit code ${code} and ${message}, but it gave ` +
          `exit code ${result.code} and:\n${line}`,
      );
    }
  }

  /** Starts a daemon, with `--json`. */
  daemon(...args: string[]): DaemonChild {
    const daemon = new DaemonChild(args, this.#options());
    this.#daemons.push(daemon);
    return daemon;
  }

  /** Starts an exporter on a free port; gives the address. */
  async exporter(...args: string[]): Promise<{ daemon: DaemonChild; address: string }> {
    const daemon = this.daemon("export", ...args, ...this.exportOptions());
    const event = await daemon.waitFor("listening");
    return { daemon, address: String(event.address) };
  }

  /** Starts an exporter that was there before, with the same state, where it was. */
  async exporterAt(address: string, ...args: string[]): Promise<{ daemon: DaemonChild }> {
    const daemon = this.daemon("export", ...args, "--listen", address, "--state-dir", `${this.folder}/state`);
    await daemon.waitFor("listening");
    return { daemon };
  }

  /** A free port, and a state directory that is this test's. */
  exportOptions(): string[] {
    return ["--listen", "127.0.0.1:0", "--state-dir", `${this.folder}/state`];
  }

  #options() {
    return { program: PROGRAM, cwd: this.folder, env: { DST_RUNTIME_DIR: `${this.folder}/run`, TMPDIR: this.folder } };
  }

  async #end(): Promise<void> {
    for (const daemon of this.#daemons.reverse()) await daemon.stop("SIGKILL");
    Deno.removeSync(this.folder, { recursive: true });
  }
}
