/**
 * Side by side: the exporter's NBD front-end and nbdkit's `file` plugin, each serving the same file in memory to the same
 * client (fio's nbd engine) over a Unix socket, taking turns mix by mix; then the DST client session with the same mixes
 * (`dst bench`). Prints medians; asserts nothing.
 *
 * ```sh
 * deno task bench
 * deno task bench --seconds 5 --rounds 5 --only randread
 * deno task bench --ours 'nbdkit -f -U {socket} file {file}'    # another program in our place
 * ```
 *
 * Each comparison is made twice: free to use all processors, and with server and client pinned to one of them. On idle
 * processors a request at depth 1 mostly measures the wake-up from one to the other; on a single one it measures the work.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { findProgram } from "../packages.ts";
import { TextLineStream } from "../vm/lines.ts";
import { formatTable, median } from "./table.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
/** Large against every processor's caches, small against its memory. */
const FILE_BYTES = 512 * 1024 * 1024;
/** Units of utime and stime in /proc/PID/stat: USER_HZ, 100 on every Linux that Deno runs on. */
const TICKS_PER_SECOND = 100;
/** Long enough for the just-in-time compiler to have seen every path of a mix. */
const WARM_UP_SECONDS = 1;
/** How long a server may take until its socket is there. */
const START_TIMEOUT_MS = 20_000;

/** A load, in fio's words. */
interface Mix {
  readonly name: string;
  readonly options: readonly string[];
}

const MIXES: readonly Mix[] = [
  { name: "4k randread qd32", options: ["--rw=randread", "--bs=4k", "--iodepth=32"] },
  { name: "4k randwrite qd32", options: ["--rw=randwrite", "--bs=4k", "--iodepth=32"] },
  { name: "4k randread qd1", options: ["--rw=randread", "--bs=4k", "--iodepth=1"] },
  { name: "4k randwrite qd1", options: ["--rw=randwrite", "--bs=4k", "--iodepth=1"] },
  { name: "256k read qd16", options: ["--rw=read", "--bs=256k", "--iodepth=16"] },
  { name: "256k write qd16", options: ["--rw=write", "--bs=256k", "--iodepth=16"] },
];

/** What one round of one mix measured. */
interface Sample {
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  /** The server's processor time, user and system, of all its threads, per operation. */
  readonly microsecondsPerOperation: number;
}

/** A server that is being measured. */
interface Server extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly socket: string;
}

/** Splits at spaces and fills `{file}` and `{socket}` in; there is no quoting. */
function fill(command: string, file: string, socket: string): string[] {
  return command.split(" ").map((word) => word.replace("{file}", file).replace("{socket}", socket));
}

async function startServer(name: string, command: string[], socket: string): Promise<Server> {
  const [program, ...args] = command;
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "inherit" }).spawn();
  let ended = false;
  child.status.then(() => ended = true);
  const stop = async () => {
    if (!ended) child.kill("SIGTERM");
    await child.status;
  };
  const end = performance.now() + START_TIMEOUT_MS;
  while (!(await connects(socket))) {
    if (ended || performance.now() > end) {
      await stop();
      throw new Error(`Cannot measure ${name}: nobody listens on its socket; its command was: ${command.join(" ")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { name, pid: child.pid, socket, [Symbol.asyncDispose]: stop };
}

async function connects(socket: string): Promise<boolean> {
  try {
    const connection = await Deno.connect({ transport: "unix", path: socket });
    connection.close();
    return true;
  } catch {
    return false;
  }
}

/** Processor seconds that the process has used, user and system, of all its threads, those that have ended included. */
function processorSeconds(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // The second field is the name in parentheses, which may itself hold spaces; utime and stime are fields 14 and 15.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function measure(server: Server, mix: Mix, seconds: number, pinned: boolean): Promise<Sample> {
  const fixed = [
    "--name=bench",
    "--ioengine=nbd",
    `--uri=nbd+unix:///?socket=${server.socket}`,
    "--output-format=json",
  ];
  const timed = [`--runtime=${seconds}`, "--time_based", `--size=${FILE_BYTES}`, "--randrepeat=1", "--norandommap"];
  const fio = ["fio", ...fixed, ...timed, ...mix.options];
  const [program, ...args] = pinned ? ["taskset", "-c", "0", ...fio] : fio;
  const before = processorSeconds(server.pid);
  const output = await new Deno.Command(program, { args, stdin: "null", stdout: "piped", stderr: "piped" }).output();
  const after = processorSeconds(server.pid);
  const text = new TextDecoder().decode(output.stdout);
  if (!output.success) throw new Error(`fio failed: ${text}${new TextDecoder().decode(output.stderr)}`);
  // Some versions write a note before the object.
  const job = JSON.parse(text.slice(text.indexOf("{"))).jobs[0];
  const side = mix.options[0].includes("write") ? job.write : job.read;
  return {
    operationsPerSecond: side.iops,
    bytesPerSecond: side.bw_bytes,
    microsecondsPerOperation: (after - before) * 1e6 / side.total_ios,
  };
}

/** Measures every mix on both servers, taking turns, and prints the table. */
async function compare(ours: Server, theirs: Server, mixes: readonly Mix[], options: Options): Promise<void> {
  const rows: string[][] = [];
  for (const mix of mixes) {
    const samples = new Map<Server, Sample[]>([[ours, []], [theirs, []]]);
    for (const server of [ours, theirs]) await measure(server, mix, WARM_UP_SECONDS, options.pinned);
    for (let round = 0; round < options.rounds; round++) {
      const order = round % 2 === 0 ? [ours, theirs] : [theirs, ours];
      for (const server of order) {
        samples.get(server)!.push(await measure(server, mix, options.seconds, options.pinned));
      }
    }
    const of = (server: Server, key: keyof Sample) => median(samples.get(server)!.map((sample) => sample[key]));
    const speed = [of(ours, "operationsPerSecond"), of(theirs, "operationsPerSecond")];
    const bytes = [of(ours, "bytesPerSecond"), of(theirs, "bytesPerSecond")];
    const cost = [of(ours, "microsecondsPerOperation"), of(theirs, "microsecondsPerOperation")];
    rows.push([
      mix.name,
      ...speed.map((value) => value.toFixed(0)),
      (speed[0] / speed[1]).toFixed(2),
      ...bytes.map((value) => (value / 1e6).toFixed(0)),
      ...cost.map((value) => value.toFixed(1)),
      (cost[1] / cost[0]).toFixed(2),
    ]);
  }
  const [a, b] = [ours.name, theirs.name];
  const head = ["", `${a} IOPS`, `${b} IOPS`, "ratio", `${a} MB/s`, `${b} MB/s`, `${a} µs/op`, `${b} µs/op`, "ratio"];
  console.log(
    `\n${options.pinned ? "server and client on one processor" : "free"}, medians of ${options.rounds} rounds`,
  );
  console.log(formatTable([head, ...rows]));
}

interface Options {
  readonly seconds: number;
  readonly rounds: number;
  readonly pinned: boolean;
}

/** Serves a file by DST and lets `dst bench` measure it through the client session. */
async function benchSession(file: string): Promise<void> {
  const dst = [Deno.execPath(), "run", "-A", "--quiet", MAIN];
  const [program, ...args] = [
    ...dst,
    "export",
    `disk=${file}`,
    "--listen",
    "127.0.0.1:0",
    "--json",
    "--log-level",
    "error",
  ];
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
  try {
    const address = await listeningAddress(child.stdout);
    console.log("\nDST, through the client session");
    // The disk is this program's own, so writing to it destroys nothing.
    const bench = [...dst.slice(1), "bench", `${address}/disk`, "--write"];
    await new Deno.Command(program, { args: bench, stdin: "null" }).spawn().status;
  } finally {
    child.kill("SIGTERM");
    await child.status;
  }
}

/** The address of the exporter's `listening` event; what it says later is read and dropped, so that it never blocks. */
function listeningAddress(stdout: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  return new Promise((resolve, reject) => {
    const take = async () => {
      const lines = stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
      for await (const line of lines) {
        const event = JSON.parse(line);
        if (event.event === "listening" && event.protocol === "dst") resolve(event.address);
      }
      reject(new Error("Cannot measure the client session: the exporter ended before it listened"));
    };
    take().catch(reject);
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      seconds: { type: "string", default: "2" },
      rounds: { type: "string", default: "3" },
      only: { type: "string", default: "" },
      ours: { type: "string" },
      theirs: { type: "string", default: "nbdkit -f -U {socket} file {file}" },
    },
  });
  for (const program of ["fio", "taskset", ...(values.theirs.startsWith("nbdkit") ? ["nbdkit"] : [])]) {
    if (findProgram(program) === null) throw new Error(`Cannot compare: ${program} is not installed`);
  }
  const mixes = MIXES.filter((mix) => mix.name.includes(values.only));
  const folder = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "dst-bench-" });
  try {
    const file = `${folder}/disk`;
    writeFile(file);
    const ourCommand = values.ours ??
      `${Deno.execPath()} run -A --quiet ${MAIN} export {file} --nbd unix:{socket} --json --log-level error`;
    for (const pinned of [false, true]) {
      const options = { seconds: Number(values.seconds), rounds: Number(values.rounds), pinned };
      const pin = pinned ? ["taskset", "-c", "0"] : [];
      const sockets = [`${folder}/ours-${pinned}`, `${folder}/theirs-${pinned}`];
      await using ours = await startServer("dst", [...pin, ...fill(ourCommand, file, sockets[0])], sockets[0]);
      await using theirs = await startServer("nbdkit", [...pin, ...fill(values.theirs, file, sockets[1])], sockets[1]);
      await compare(ours, theirs, mixes, options);
    }
    if (values.ours === undefined) await benchSession(file);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Fills the file, so that no read finds a hole, which a server may answer faster than data. */
function writeFile(path: string): void {
  using file = Deno.openSync(path, { write: true, create: true });
  const piece = new Uint8Array(1024 * 1024);
  for (let i = 0; i < piece.length; i++) piece[i] = (i * 31) & 0xff;
  for (let at = 0; at < FILE_BYTES; at += piece.length) {
    for (let done = 0; done < piece.length;) done += file.writeSync(piece.subarray(done));
  }
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
