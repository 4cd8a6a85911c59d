/**
 * Servers that are measured, and fio as their client.
 *
 * @module
 */
import { TextLineStream } from "../vm/lines.ts";

/** The command line of the program under test. */
export const DST = [Deno.execPath(), "run", "-A", "--quiet", new URL("../../main.ts", import.meta.url).pathname];
/** Large against every processor's caches, small against its memory. */
export const FILE_BYTES = 512 * 1024 * 1024;
/** Units of utime and stime in /proc/PID/stat: USER_HZ, 100 on every Linux that Deno runs on. */
const TICKS_PER_SECOND = 100;
/** How long a server may take until its socket is there. */
const START_TIMEOUT_MS = 20_000;

/** A load, in fio's words. */
export interface Mix {
  readonly name: string;
  readonly options: readonly string[];
}

/** What one round of one mix measured. */
export interface Sample {
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  /** The server's processor time, user and system, of all its threads, per operation. */
  readonly serverUs: number;
  /** The client's. */
  readonly clientUs: number;
}

/** A server that is being measured. */
export interface Server extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  /** As libnbd and fio take it. */
  readonly uri: string;
}

/** Where a server listens for NBD. */
export type Place = { readonly path: string } | { readonly hostname: string; readonly port: number };

/** Starts a server and waits until somebody listens. */
export async function startServer(name: string, command: string[], place: Place, uri: string): Promise<Server> {
  const [program, ...args] = command;
  // nbdkit complains there of every client that leaves without a farewell.
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
  let ended = false;
  child.status.then(() => ended = true);
  const stop = async () => {
    if (!ended) child.kill("SIGTERM");
    await child.status;
  };
  const end = performance.now() + START_TIMEOUT_MS;
  while (!(await connects(place))) {
    if (ended || performance.now() > end) {
      await stop();
      throw new Error(`Cannot measure ${name}: nobody listens on its socket; its command was: ${command.join(" ")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { name, pid: child.pid, uri, [Symbol.asyncDispose]: stop };
}

async function connects(place: Place): Promise<boolean> {
  try {
    const connection = "path" in place
      ? await Deno.connect({ transport: "unix", path: place.path })
      : await Deno.connect(place);
    connection.close();
    return true;
  } catch {
    return false;
  }
}

/** Processor seconds that the process has used, user and system, of all its threads, those that have ended included. */
export function processorSeconds(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // The second field is the name in parentheses, which may itself hold spaces; utime and stime are fields 14 and 15.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/**
 * Lets fio drive a server for a while.
 *
 * @param prefix what goes before fio on the command line
 * @param env of fio, beside what it inherits
 */
export async function measure(
  server: Server,
  mix: Mix,
  seconds: number,
  prefix: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<Sample> {
  const fixed = ["--name=bench", "--ioengine=nbd", `--uri=${server.uri}`, "--output-format=json"];
  const timed = [`--runtime=${seconds}`, "--time_based", `--size=${FILE_BYTES}`, "--randrepeat=1", "--norandommap"];
  const [program, ...args] = [...prefix, "fio", ...fixed, ...timed, ...mix.options];
  const before = processorSeconds(server.pid);
  const command = new Deno.Command(program, { args, env, stdin: "null", stdout: "piped", stderr: "piped" });
  const output = await command.output();
  const after = processorSeconds(server.pid);
  const text = new TextDecoder().decode(output.stdout);
  if (!output.success) throw new Error(`fio failed: ${text}${new TextDecoder().decode(output.stderr)}`);
  // Some versions write a note before the object.
  const job = JSON.parse(text.slice(text.indexOf("{"))).jobs[0];
  const side = mix.options[0].includes("write") ? job.write : job.read;
  const clientSeconds = (job.usr_cpu + job.sys_cpu) / 100 * side.runtime / 1000;
  return {
    operationsPerSecond: side.iops,
    bytesPerSecond: side.bw_bytes,
    serverUs: (after - before) * 1e6 / side.total_ios,
    clientUs: clientSeconds * 1e6 / side.total_ios,
  };
}

/** A DST exporter that runs. */
export interface Exporter extends AsyncDisposable {
  readonly pid: number;
  /** `HOST:PORT`. */
  readonly address: string;
}

/** Starts `dst export` on a free port of this machine. */
export async function startExporter(args: readonly string[]): Promise<Exporter> {
  const [program, ...rest] = [...DST, "export", ...args, "--listen", "127.0.0.1:0", "--json", "--log-level", "error"];
  const child = new Deno.Command(program, { args: rest, stdin: "null", stdout: "piped", stderr: "inherit" }).spawn();
  let ended = false;
  child.status.then(() => ended = true);
  const stop = async () => {
    if (!ended) child.kill("SIGTERM");
    await child.status;
  };
  return { pid: child.pid, address: await listeningAddress(child.stdout), [Symbol.asyncDispose]: stop };
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
