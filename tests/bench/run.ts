/**
 * Side by side: the exporter's NBD front-end and nbdkit's `file` plugin, each serving the same file in memory to the same
 * client (fio's nbd engine) over a Unix socket, taking turns mix by mix; then DST's own protocol under each way to protect
 * it, and nbdkit with and without TLS, over TCP. Prints medians; asserts nothing.
 *
 * ```sh
 * deno task bench
 * deno task bench --seconds 5 --rounds 5 --only randread
 * deno task bench --part nbd                                  # or: --part channel
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
import { benchChannel } from "./channel.ts";
import { DST, FILE_BYTES, measure, type Mix, type Sample, type Server, startServer } from "./servers.ts";
import { formatTable, median } from "./table.ts";

/** Long enough for the just-in-time compiler to have seen every path of a mix. */
const WARM_UP_SECONDS = 1;
/** Goes before a command that is to stay on one processor. */
const ONE_PROCESSOR = ["taskset", "-c", "0"];

const MIXES: readonly Mix[] = [
  { name: "4k randread qd32", options: ["--rw=randread", "--bs=4k", "--iodepth=32"] },
  { name: "4k randwrite qd32", options: ["--rw=randwrite", "--bs=4k", "--iodepth=32"] },
  { name: "4k randread qd1", options: ["--rw=randread", "--bs=4k", "--iodepth=1"] },
  { name: "4k randwrite qd1", options: ["--rw=randwrite", "--bs=4k", "--iodepth=1"] },
  { name: "256k read qd16", options: ["--rw=read", "--bs=256k", "--iodepth=16"] },
  { name: "256k write qd16", options: ["--rw=write", "--bs=256k", "--iodepth=16"] },
];

/** Splits at spaces and fills `{file}` and `{socket}` in; there is no quoting. */
function fill(command: string, file: string, socket: string): string[] {
  return command.split(" ").map((word) => word.replace("{file}", file).replace("{socket}", socket));
}

/** Measures every mix on both servers, taking turns, and prints the table. */
async function compare(ours: Server, theirs: Server, mixes: readonly Mix[], options: Options): Promise<void> {
  const rows: string[][] = [];
  const pin = options.pinned ? ONE_PROCESSOR : [];
  for (const mix of mixes) {
    const samples = new Map<Server, Sample[]>([[ours, []], [theirs, []]]);
    for (const server of [ours, theirs]) await measure(server, mix, WARM_UP_SECONDS, pin);
    for (let round = 0; round < options.rounds; round++) {
      const order = round % 2 === 0 ? [ours, theirs] : [theirs, ours];
      for (const server of order) {
        samples.get(server)!.push(await measure(server, mix, options.seconds, pin));
      }
    }
    const of = (server: Server, key: keyof Sample) => median(samples.get(server)!.map((sample) => sample[key]));
    const speed = [of(ours, "operationsPerSecond"), of(theirs, "operationsPerSecond")];
    const bytes = [of(ours, "bytesPerSecond"), of(theirs, "bytesPerSecond")];
    const cost = [of(ours, "serverUs"), of(theirs, "serverUs")];
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

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      seconds: { type: "string", default: "2" },
      rounds: { type: "string", default: "3" },
      only: { type: "string", default: "" },
      part: { type: "string", default: "" },
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
      `${DST.join(" ")} export {file} --nbd unix:{socket} --json --log-level error`;
    for (const pinned of values.part === "channel" ? [] : [false, true]) {
      const options = { seconds: Number(values.seconds), rounds: Number(values.rounds), pinned };
      const pin = pinned ? ONE_PROCESSOR : [];
      const sockets = [`${folder}/ours-${pinned}`, `${folder}/theirs-${pinned}`];
      const start = (name: string, command: string, path: string) =>
        startServer(name, [...pin, ...fill(command, file, path)], { path }, `nbd+unix:///?socket=${path}`);
      await using ours = await start("dst", ourCommand, sockets[0]);
      await using theirs = await start("nbdkit", values.theirs, sockets[1]);
      await compare(ours, theirs, mixes, options);
    }
    if (values.ours === undefined && values.part !== "nbd") await benchChannel(folder, file, Number(values.seconds));
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
