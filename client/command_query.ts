/**
 * `dst list` and `dst info`.
 *
 * @module
 */
import { parseHostPort, parseRemote } from "../engine/control/address.ts";
import { asUsage, type Command, type OptionSpec } from "../engine/control/arguments.ts";
import { writeOutput } from "../engine/control/log.ts";
import { table } from "../engine/control/output.ts";
import { printable } from "../engine/control/printable.ts";
import { formatSize } from "../engine/size.ts";
import { CHANNEL_OPTIONS, channelOptions, forgetKey } from "./options.ts";
import { describeExport, type Description, listExports } from "./query.ts";

const QUERY_OPTIONS: readonly OptionSpec[] = [
  ...CHANNEL_OPTIONS,
  { name: "--json", help: "print one JSON object a line" },
];

/** `dst list`. */
export const listCommand: Command = {
  spec: {
    name: "list",
    summary: "Shows what another machine exports",
    positionals: "HOST[:PORT]",
    count: [1, 1],
    options: QUERY_OPTIONS,
    notes: ["The access shown is what this machine may do at most."],
    examples: [
      ["list server", "shows what server exports on the default port"],
      ["list [::1]:7701 --json", "the same of another port of this machine, for programs"],
    ],
  },
  async run(args) {
    const { host, port } = asUsage(() => parseHostPort(args.positionals[0]));
    const options = channelOptions(args);
    const exports = await listExports(host, port, options).finally(() => forgetKey(options));
    if (args.has("--json")) {
      for (const entry of exports) writeOutput(JSON.stringify(entry) + "\n");
    } else if (exports.length === 0) {
      writeOutput("nothing is exported there\n");
    } else {
      const rows = exports.map(({ name, size, access, features }) => [
        printable(name),
        formatSize(size),
        access,
        features.join(" "),
      ]);
      writeOutput(table([["NAME", "SIZE", "ACCESS", "FEATURES"], ...rows], [1]));
    }
    return 0;
  },
};

/** `dst info`. */
export const infoCommand: Command = {
  spec: {
    name: "info",
    summary: "Shows all about one export of another machine",
    positionals: "HOST[:PORT]/NAME",
    count: [1, 1],
    options: QUERY_OPTIONS,
    notes: [],
    examples: [
      ["info server/disk.img", "shows its size, block sizes, features, and who writes to it"],
      ["info server/disk.img --json", "the same for programs"],
    ],
  },
  async run(args) {
    const { host, port, name } = asUsage(() => parseRemote(args.positionals[0]));
    const options = channelOptions(args);
    const description = await describeExport(host, port, name, options).finally(() => forgetKey(options));
    writeOutput(args.has("--json") ? JSON.stringify(description) + "\n" : textOf(description));
    return 0;
  },
};

function textOf(description: Description): string {
  const { identities } = description;
  return table([
    ["name", printable(description.name)],
    ["size", `${formatSize(description.size)} (${description.size} bytes)`],
    ["access", description.access],
    ["held by", description.holder === null ? "nobody" : printable(description.holder)],
    ["logical block", formatSize(description.logicalBlock)],
    ["physical block", formatSize(description.physicalBlock)],
    ["optimal I/O", formatSize(description.optimalIo)],
    ["discard granularity", description.discardGranularity === 0 ? "none" : formatSize(description.discardGranularity)],
    ["features", description.features.join(" ")],
    ["instance", identities.instance],
    ["durability epoch", identities.durabilityEpoch],
    ["storage", identities.storage],
    ["write epoch", identities.writeEpoch],
  ]);
}
