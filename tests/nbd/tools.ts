/**
 * Other people's NBD clients, run as the programs that they are.
 *
 * @module
 */
import assert from "node:assert/strict";
import { findProgram, REQUIREMENTS, searchPath } from "../packages.ts";

/** The packages that bring the clients. */
const PACKAGES = ["libnbd-bin", "qemu-utils", "fio"];
/** A client that takes longer hangs, in milliseconds: the slowest takes a tenth of it on two slow cores. */
const HANGS_MS = 60_000;

const decoder = new TextDecoder();

/** What a program came to. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * A test with real clients. Where they are not installed it fails with `CI=true`, and is otherwise ignored, and its name
 * says what to install.
 *
 * @param lack what else the test lacks on this machine, null for nothing
 */
export function clientTest(
  name: string,
  work: (t: Deno.TestContext) => Promise<void>,
  lack: string | null = null,
): void {
  const missing = REQUIREMENTS.filter((one) => PACKAGES.includes(one.package) && findProgram(one.program) === null);
  const packages = missing.map((one) => one.package).join(" ");
  const reason = missing.length > 0 ? `apt-get install ${packages}` : lack;
  const ignore = reason !== null && Deno.env.get("CI") !== "true";
  Deno.test({
    name: ignore ? `${name}: skipped, ${reason}` : name,
    ignore,
    fn: async (t) => {
      if (reason !== null) throw new Error(`Cannot test with real clients: ${reason}`);
      await work(t);
    },
  });
}

/** Runs a program to its end. One that hangs is ended. */
export async function run(program: string, ...args: string[]): Promise<Outcome> {
  const signal = AbortSignal.timeout(HANGS_MS);
  const child = new Deno.Command(program, {
    args,
    env: { PATH: searchPath() },
    cwd: "/var/tmp",
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal,
  });
  const { code, stdout, stderr } = await child.output();
  const hung = signal.aborted ? `${program} was ended after ${HANGS_MS / 1000} s\n` : "";
  return { code, stdout: decoder.decode(stdout), stderr: hung + decoder.decode(stderr) };
}

/** Runs a program that must succeed; gives its standard output. */
export async function succeed(program: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, ...args);
  assert.equal(code, 0, `${program} ${args.join(" ")}\n${stdout}${stderr}`);
  return stdout;
}

/** Runs a program that must fail and say so. */
export async function fail(message: RegExp, program: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await run(program, ...args);
  assert.notEqual(code, 0, `${program} ${args.join(" ")} should have failed\n${stdout}${stderr}`);
  assert.match(stdout + stderr, message);
}

/** The arguments of qemu-io for commands on a raw disk. By default it would make every write a FUA write. */
function qemuIoArguments(uri: string, commands: readonly string[]): string[] {
  return ["-f", "raw", "-t", "writeback", ...commands.flatMap((command) => ["-c", command]), uri];
}

/** Has qemu-io do some commands, all of which must succeed. */
export async function qemuIo(uri: string, ...commands: string[]): Promise<void> {
  await succeed("qemu-io", ...qemuIoArguments(uri, commands));
}

/** Has qemu-io do some commands, of which one must fail and say so. */
export async function qemuIoFails(message: RegExp, uri: string, ...commands: string[]): Promise<void> {
  await fail(message, "qemu-io", ...qemuIoArguments(uri, commands));
}

/** A qemu-io that stays connected, and does one command after the other. */
export class QemuIo {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #text = "";

  constructor(uri: string) {
    const options = { args: qemuIoArguments(uri, []), env: { PATH: searchPath() }, cwd: "/var/tmp" };
    this.#child = new Deno.Command("qemu-io", { ...options, stdin: "piped", stdout: "piped", stderr: "null" }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Does a command, and waits until it says something that matches. */
  async do(command: string, expected: RegExp): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${command}\n`));
    this.#text = "";
    while (!expected.test(this.#text)) {
      const { value, done } = await this.#output.read();
      if (done) throw new Error(`qemu-io has ended at "${command}": ${this.#text}`);
      this.#text += value;
    }
  }

  /** Ends it without a word to the server: what it wrote it does not flush. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#input.close().catch(() => {});
    await this.#output.cancel();
    await this.#child.status;
  }
}

/** A kind of range that `nbdinfo --map` tells of. */
export interface MapEntry {
  readonly offset: number;
  readonly length: number;
  /** STATE_HOLE is 1, STATE_ZERO is 2. */
  readonly type: number;
}

/** The allocation of a disk. */
export async function mapOf(uri: string): Promise<MapEntry[]> {
  return JSON.parse(await succeed("nbdinfo", "--map", "--json", uri));
}

/** The arguments of fio for jobs that write at random and read it all back, comparing. */
export function fioVerifies(uri: string, jobs: number, mebibytesEach: number): string[] {
  return [
    "--name=verify",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--rw=randrw",
    "--rwmixread=30",
    "--bssplit=512/10:4k/50:24k/20:64k/15:512k/5",
    "--iodepth=32",
    "--fsync=64",
    `--numjobs=${jobs}`,
    `--size=${mebibytesEach}m`,
    `--offset_increment=${mebibytesEach}m`,
    "--verify=crc32c",
    "--verify_fatal=1",
    "--verify_state_save=0",
    "--group_reporting",
  ];
}
