/**
 * What the cases in the VM work with: commands with a time limit, filesystems, fio, and `dst` processes. They make
 * filesystems and load modules, so they refuse to run anywhere but in the VM.
 *
 * @module
 */
import assert from "node:assert/strict";
import { TextLineStream } from "./lines.ts";

if (Deno.env.get("DST_VM") !== "1") {
  throw new Error("Cannot run these cases here: they are for the VM; run deno run -A tests/vm/boot.ts");
}

/** The command line's main module. */
const MAIN = new URL("../../main.ts", import.meta.url).pathname;
/** Long enough for anything that is not stuck, in a VM whose processor is emulated. */
const COMMAND_TIMEOUT_MS = 120_000;
/** How long a daemon may take to say that it is ready, Deno's own start of 2 s included, on a machine with other work. */
const EVENT_TIMEOUT_MS = 120_000;

/** How often a daemon is killed in the cases that do so: the more the better, as long as the whole stays bearable. */
export const KILL_ROUNDS = Deno.env.get("DST_TEST_LONG") === "1" ? 50 : 3;

/** What a command said and how it ended. */
export interface Output {
  /** The exit status; 128 plus the signal's number when it was killed. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a command to its end, without input.
 *
 * @param timeoutMs after which it is killed
 * @returns how it ended, whatever its status
 * @throws Error when it was not done in time
 */
export async function attempt(command: string[], timeoutMs = COMMAND_TIMEOUT_MS): Promise<Output> {
  const [program, ...args] = command;
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, timeoutMs);
  try {
    const { code, stdout, stderr } = await child.output();
    const output = { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
    if (late) throw new Error(`${command.join(" ")}: not done after ${timeoutMs} ms\n${output.stdout}${output.stderr}`);
    return output;
  } finally {
    clearTimeout(timer);
  }
}

/** As {@link attempt}, but a status other than 0 is an Error with all that the command said. */
export async function run(command: string[], timeoutMs = COMMAND_TIMEOUT_MS): Promise<Output> {
  const output = await attempt(command, timeoutMs);
  if (output.code !== 0) {
    throw new Error(`${command.join(" ")}: exit status ${output.code}\n${output.stdout}${output.stderr}`);
  }
  return output;
}

/** Runs a shell script that must succeed in every step. */
export function shell(script: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<Output> {
  return run(["bash", "-euo", "pipefail", "-c", script], timeoutMs);
}

/** Waits until the condition holds, looking ten times a second unless told otherwise. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 60_000,
  pollMs = 100,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** Whether the path names anything. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Waits until the block device is there and has a size. */
export async function waitForDevice(path: string): Promise<void> {
  await eventually(`${path} appears`, async () => exists(path) && (await deviceSize(path)) > 0);
}

/** Waits until the device is gone. */
export async function waitForGone(path: string): Promise<void> {
  await eventually(`${path} goes away`, () => !exists(path));
}

/** The size of a block device in bytes, 0 when it cannot be asked. */
export async function deviceSize(path: string): Promise<number> {
  const output = await attempt(["blockdev", "--getsize64", path]);
  return output.code === 0 ? Number(output.stdout) : 0;
}

/** A file of `/sys/block/DEVICE/queue/`, trimmed. */
export function queueAttribute(device: string, name: string): string {
  return Deno.readTextFileSync(`/sys/block/${device.replace("/dev/", "")}/queue/${name}`).trim();
}

/** Sets a sysctl when a value is given, and answers what it is then. */
export async function sysctl(name: string, value?: string): Promise<string> {
  if (value !== undefined) await run(["sysctl", "-q", "-w", `${name}=${value}`]);
  return (await run(["sysctl", "-n", name])).stdout.trim();
}

/** A new folder in memory, removed with all its content at the end of the scope. */
export function scratchFolder(): { path: string } & Disposable {
  const path = Deno.makeTempDirSync();
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** The RAM disk that `guest.ts` makes, for one case at a time. */
export const RAM_DISK = "/dev/ram0";

/** The filesystems that the cases use. */
export type Filesystem = "ext4" | "xfs";

/** Makes a filesystem on the whole device, whatever was on it. */
export async function makeFilesystem(type: Filesystem, device: string): Promise<void> {
  await run(type === "ext4" ? ["mkfs.ext4", "-q", "-F", device] : ["mkfs.xfs", "-q", "-f", device]);
}

/** Checks an unmounted filesystem without changing it; anything that it would mend is an Error. */
export async function checkFilesystem(type: Filesystem, device: string): Promise<void> {
  await run(type === "ext4" ? ["fsck.ext4", "-n", "-f", device] : ["xfs_repair", "-n", device]);
}

/** A mounted filesystem. */
export interface Mounted extends AsyncDisposable {
  /** The folder where it is. */
  readonly path: string;
  /** Writes everything back and unmounts; later calls do nothing. */
  unmount(): Promise<void>;
}

/** Mounts the device on a new folder; it is unmounted at the end of the scope if it was not before. */
export async function mount(device: string, options = "defaults"): Promise<Mounted> {
  const path = Deno.makeTempDirSync();
  await run(["mount", "-o", options, device, path]);
  let mounted = true;
  const unmount = async () => {
    if (!mounted) return;
    await run(["umount", path]);
    mounted = false;
    Deno.removeSync(path);
  };
  return { path, unmount, [Symbol.asyncDispose]: unmount };
}

/** A loop device over a file, given back at the end of the scope. */
export async function loopDevice(file: string, options: string[] = []): Promise<{ path: string } & AsyncDisposable> {
  const path = (await run(["losetup", "--find", "--show", ...options, file])).stdout.trim();
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await run(["losetup", "--detach", path]);
    },
  };
}

/** What {@link fioVerify} writes and reads back. */
export interface FioVerify {
  /** Bytes of the device that are used, from its start. */
  readonly bytes: number;
  /** fio's `bssplit` or a single size: `4k`, or `512/20:4k/60:256k/20`. */
  readonly blockSizes: string;
  /** Requests in flight. */
  readonly depth: number;
  /** Of the order and the contents of what is written: the same every time where there is none. */
  readonly seed?: number;
}

/** Writes the device in random order and verifies every block by its CRC-32C; a wrong byte is an Error. */
export async function fioVerify(device: string, job: FioVerify): Promise<void> {
  const sizes = job.blockSizes.includes("/") ? "--bssplit" : "--bs";
  const fixed = ["--name=verify", "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--verify=crc32c"];
  const repeatable = job.seed === undefined ? "--randrepeat=1" : `--randseed=${job.seed}`;
  const strict = ["--verify_fatal=1", "--verify_backlog=1024", repeatable, "--group_reporting"];
  const chosen = [
    `--filename=${device}`,
    `--size=${job.bytes}`,
    `${sizes}=${job.blockSizes}`,
    `--iodepth=${job.depth}`,
  ];
  await run(["fio", ...fixed, ...strict, ...chosen], 300_000);
}

/** An event of `dst … --json`. */
export type DstEvent = { readonly event: string } & Record<string, unknown>;

/** A `dst` process in the foreground. It is killed at the end of the scope if it still runs. */
export class Daemon implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #command: string;
  readonly #events: DstEvent[] = [];
  readonly #streams: Promise<void>[];
  #log = "";
  #ended: Deno.CommandStatus | null = null;

  /**
   * @param args as the command line takes them; `--json` is added
   * @param options put before main.ts
   */
  constructor(args: string[]) {
    this.#command = `dst ${args.join(" ")}`;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: dstArguments([...args, "--json"]),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#child.status.then((status) => this.#ended = status);
    this.#streams = [
      eachLine(this.#child.stdout, (line) => this.#events.push(JSON.parse(line) as DstEvent)),
      eachLine(this.#child.stderr, (line) => this.#log += `${line}\n`),
    ];
  }

  /** The process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** What it has written to stderr so far. */
  get log(): string {
    return this.#log;
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return this.#ended !== null;
  }

  /** Waits for the first event of this name and these members; an Error when the process ends without it. */
  async event(name: string, members: Record<string, unknown> = {}): Promise<DstEvent> {
    const matches = (event: DstEvent) =>
      event.event === name && Object.entries(members).every(([key, value]) => event[key] === value);
    const found = () => this.#events.find(matches);
    await eventually(`${this.#command} says ${name}`, () => found() !== undefined || this.ended, EVENT_TIMEOUT_MS)
      .catch((error) => {
        throw new Error(`${error.message}\n${this.#log}`);
      });
    if (found() === undefined) await Promise.all(this.#streams);
    const event = found();
    assert(event !== undefined, `${this.#command} ended before it said ${name}:\n${this.#log}`);
    return event;
  }

  /** Sends a signal, without waiting for anything. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Asks it to leave and waits until it has: its exit status. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    if (!this.ended) this.#child.kill(signal);
    return await this.wait();
  }

  /** Waits for its end: its exit status. */
  async wait(): Promise<number> {
    await eventually(`${this.#command} ends`, () => this.ended).catch((error) => {
      throw new Error(`${error.message}\n${this.#log}`);
    });
    await Promise.all(this.#streams);
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.ended) this.#child.kill("SIGKILL");
    await this.#child.status;
    await Promise.all(this.#streams);
  }
}

/** Runs a `dst` command to its end, whatever its status. */
export function dst(args: string[]): Promise<Output> {
  return attempt([Deno.execPath(), ...dstArguments(args)]);
}

function dstArguments(args: string[]): string[] {
  return ["run", "-A", "--quiet", "--no-check", "--cached-only", MAIN, ...args];
}

async function eachLine(stream: ReadableStream<Uint8Array<ArrayBuffer>>, take: (line: string) => void): Promise<void> {
  const lines = stream.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
  for await (const line of lines) if (line !== "") take(line);
}

/** Switches one of the VM's processors, from 1 on, on or off. */
export function switchProcessor(processor: number, on: boolean): void {
  Deno.writeTextFileSync(`/sys/devices/system/cpu/cpu${processor}/online`, on ? "1" : "0");
}

/** Has the VM use its second processor, which is off otherwise, as long as the result lives. */
export function secondProcessor(): Disposable {
  switchProcessor(1, true);
  return { [Symbol.dispose]: () => switchProcessor(1, false) };
}
