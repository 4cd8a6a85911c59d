/**
 * `dst bench`.
 *
 * @module
 */
import { parseRemote } from "../engine/control/address.ts";
import { asUsage, type Command } from "../engine/control/arguments.ts";
import { writeOutput } from "../engine/control/log.ts";
import { bench, type BenchRow } from "./bench.ts";
import { SESSION_OPTIONS, sessionOptions } from "./options.ts";

const SECONDS_DEFAULT = 3;
const SECONDS_MAX = 3600;
/** Where the columns begin: the longest mix is "256k sequential write". */
const MIX_COLUMNS = 24;

/** The command. */
export const command: Command = {
  spec: {
    name: "bench",
    summary: "Measures how fast an export is",
    positionals: "HOST[:PORT]/NAME",
    count: [1, 1],
    options: [
      { name: "--write", help: "measure writing too: DESTROYS what is on the export" },
      { name: "--seconds", value: "N", help: `how long each mix runs (default: ${SECONDS_DEFAULT})` },
      ...SESSION_OPTIONS,
      { name: "--json", help: "print one JSON object for each mix" },
    ],
    notes: [
      "It drives the export through the client session, without a device: small random and large sequential requests.",
    ],
    examples: [
      ["bench server/disk.img", "measures reading"],
      [
        "bench 127.0.0.1/scratch --write --seconds 10",
        "measures reading and writing, on an export that may be overwritten",
      ],
    ],
  },
  async run(args) {
    const remote = asUsage(() => parseRemote(args.positionals[0]));
    const json = args.has("--json");
    const seconds = args.integer("--seconds", 1, SECONDS_MAX) ?? SECONDS_DEFAULT;
    let isFirst = true;
    await bench({ ...remote, ...sessionOptions(args), seconds, write: args.has("--write") }, (row) => {
      if (json) return writeOutput(JSON.stringify({ event: "measured", ...row }) + "\n");
      if (isFirst) writeOutput(headingOf(row));
      isFirst = false;
      writeOutput(lineOf(row));
    });
    return 0;
  },
};

function headingOf({ cipher, digest, crypto }: BenchRow): string {
  const columns = ["IOPS", "MB/s", "P50 us", "P99 us", "CPU us/op"].map((title) => title.padStart(10)).join("");
  const protection = `cipher ${cipher}, digest ${digest}, by ${crypto}`;
  return `${protection}\n${"MIX".padEnd(MIX_COLUMNS)}${"DEPTH".padStart(6)}${columns}\n`;
}

function lineOf({ mix, depth, operations, bytes, elapsedMs, p50Us, p99Us, cpuUs }: BenchRow): string {
  const iops = Math.round(operations / elapsedMs * 1000);
  const megabytes = (bytes / elapsedMs / 1000).toFixed(1);
  const columns = [iops, megabytes, p50Us, p99Us, cpuUs].map((value) => String(value).padStart(10)).join("");
  return `${mix.padEnd(MIX_COLUMNS)}${String(depth).padStart(6)}${columns}\n`;
}
