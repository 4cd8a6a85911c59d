/**
 * `dst export`.
 *
 * @module
 */
import {
  checkName,
  nameOfPath,
  parseHostPort,
  parseNamedPath,
  parseNbdAddress,
  PORT_DEFAULT,
} from "../engine/control/address.ts";
import { CIPHERS, DIGESTS, parseCiphers, parseDigests, suitesOf } from "../engine/control/algorithms.ts";
import { asUsage, type Command, type CommandSpec, type ParsedArguments } from "../engine/control/arguments.ts";
import { parseRange } from "../engine/control/cidr.ts";
import { type Daemon, DAEMON_OPTIONS, runDaemon } from "../engine/control/daemon.ts";
import { usageFailure } from "../engine/control/failure.ts";
import { readKeyFile } from "../engine/control/key_file.ts";
import { printable } from "../engine/control/printable.ts";
import { availableCiphers, CRYPTO_CHOICES, type CryptoChoice } from "../engine/cryptography.ts";
import { type ExporterConfig, readConfig } from "./config.ts";
import { clashOf, LIMIT_DEFAULTS } from "./config_security.ts";
import {
  type ExporterOptions,
  type ExportOptions,
  type RunningExporter,
  startExporter,
  WORKERS_MAX,
} from "./exporter.ts";

const spec: CommandSpec = {
  name: "export",
  summary: "Serves files, block devices or memory to other machines",
  positionals: "[NAME=]PATH...",
  count: [0, Infinity],
  options: [
    {
      name: "--listen",
      value: "HOST:PORT",
      help: `where to listen (default: 127.0.0.1:${PORT_DEFAULT}, this machine only; 0.0.0.0:${PORT_DEFAULT} for all)`,
    },
    { name: "--name", value: "NAME", help: "the name of the export, where there is one PATH" },
    { name: "--read-only", help: "nobody may write" },
    { name: "--shared", help: "several clients may write at once; they must coordinate themselves" },
    { name: "--nbd", value: "ADDRESS", help: "serve by NBD too: HOST:PORT or unix:PATH" },
    { name: "--direct", help: "go past the page cache (O_DIRECT)" },
    {
      name: "--key",
      value: "FILE",
      repeatable: true,
      help: "serve only who has this key (see dst keygen); it may use every export that names no permissions",
    },
    { name: "--allow", value: "RANGE", repeatable: true, help: "serve only these addresses, e.g. 10.0.0.0/8" },
    { name: "--insecure", help: "serve other machines without a key: whoever reaches the port reads and writes" },
    {
      name: "--cipher",
      value: "LIST",
      help: `ciphers to accept, of ${CIPHERS.join(", ")} (default: with a key all but none)`,
    },
    {
      name: "--digest",
      value: "LIST",
      help: `checksums to accept where there is no cipher, of ${DIGESTS.join(", ")} (default: those that suit)`,
    },
    {
      name: "--crypto",
      value: "WHO",
      choices: CRYPTO_CHOICES,
      help: "who does the cryptography (default: auto, the fastest there is)",
    },
    { name: "--workers", value: "N", help: `threads that serve the clients' lanes, up to ${WORKERS_MAX} (default: 1)` },
    {
      name: "--loop",
      value: "LOOP",
      choices: ["auto", "uring", "poll"],
      help: "how to talk to the kernel (default: auto, which takes io_uring where it can)",
    },
    { name: "--state-dir", value: "DIR", help: "where to keep what must survive a restart" },
    { name: "--config", value: "FILE.toml", help: "read all this from a file; what is given here goes before" },
    {
      name: "--layer",
      value: "SPEC",
      repeatable: true,
      help: "for testing: put a layer over the disks, e.g. delay:100",
    },
    ...DAEMON_OPTIONS,
  ],
  notes: [
    "PATH is a file, a block device, or mem:SIZE (memory, lost at the end). NAME defaults to the file's name. A path " +
    "with = in it is written with its folder, as in ./a=b.img.",
    "It serves until SIGINT or SIGTERM. With a key the channel is encrypted, and only who has the key comes in. With " +
    "--config, SIGHUP reads the file and all keys again: exports, keys, permissions, addresses, limits, ciphers and " +
    "digests change without a pause for sessions whose rights stay.",
  ],
  examples: [
    ["export disk.img", "serves disk.img to this machine"],
    [
      "export data=/dev/vg0/data --listen 0.0.0.0:7700 --key dst.key",
      "serves a volume to every machine that has the key",
    ],
    ["export mem:1G --nbd unix:/run/disk.sock", "serves memory, by NBD too: qemu, nbdcopy, nbd-client"],
    ["export --config /etc/dst/exporter.toml --background", "serves what the file says, in the background"],
  ],
};

/** The command. */
export const command: Command = {
  spec,
  run(args) {
    const options = exporterOptions(args);
    // It is another process that serves then.
    if (args.has("--background")) { for (const { key } of options.keys) key.secret.fill(0); }
    return runDaemon({
      kind: "export",
      args,
      // Whoever configures it by a file reloads that by the same signal.
      endsWithTerminal: !args.has("--config"),
      start: () => start(options, args),
    });
  },
};

/**
 * What the arguments, the configuration file and the key files together ask for.
 *
 * @throws {Failure} that says what is wrong with them
 */
export function exporterOptions(args: ParsedArguments): ExporterOptions {
  const givenKeys = args.values("--key").map((path) => readKeyFile(path));
  const clash = clashOf(givenKeys);
  if (clash !== null) throw usageFailure(`--key ${args.values("--key")[clash.index]}: ${clash.message}`);
  const config: ExporterConfig = args.read("--config", (path) => readConfig(path, givenKeys)) ?? { exports: [] };
  const keys = [...givenKeys.map((key) => ({ key, allow: null })), ...config.keys ?? []];
  const ranges = args.values("--allow").map((text) => asUsage(() => parseRange(text), "--allow: "));
  const choice = args.value("--crypto") as CryptoChoice | undefined ?? config.crypto ?? "auto";
  const ciphers = args.read("--cipher", parseCiphers) ?? config.ciphers;
  const digests = args.read("--digest", parseDigests) ?? config.digests;
  return {
    exports: exportsOf(args, config),
    listen: args.read("--listen", (text) => parseHostPort(text)) ?? config.listen ??
      { host: "127.0.0.1", port: PORT_DEFAULT },
    nbd: args.read("--nbd", parseNbdAddress) ?? config.nbd ?? null,
    loop: args.value("--loop") as ExporterOptions["loop"] | undefined ?? config.loop ?? "auto",
    workers: args.integer("--workers", 1, WORKERS_MAX) ?? config.workers ?? 1,
    stateDir: args.value("--state-dir") ?? config.stateDir ?? defaultStateDir(),
    keys,
    allow: ranges.length > 0 ? ranges : config.allow ?? null,
    limits: config.limits ?? LIMIT_DEFAULTS,
    insecure: args.has("--insecure") || config.insecure === true,
    ...asUsage(() => suitesOf(ciphers, digests, keys.length > 0, availableCiphers(choice))),
    crypto: choice,
  };
}

/** The disks of the command line and of the file. */
function exportsOf(args: ParsedArguments, config: ExporterConfig): ExportOptions[] {
  const given = args.positionals.map((positional) => asUsage(() => parseNamedPath(positional)));
  const name = args.read("--name", checkName);
  if (name !== undefined && given.length !== 1) throw usageFailure("--name needs exactly one PATH");
  const exports: ExportOptions[] = given.map(({ name: own, path }) => ({
    name: name ?? own,
    path,
    readOnly: args.has("--read-only"),
    shared: args.has("--shared"),
    direct: args.has("--direct"),
    layers: args.values("--layer"),
    allow: null,
    permissions: null,
  }));
  // The switches speak of all disks, those of the file included.
  for (const entry of config.exports) {
    exports.push({
      ...entry,
      readOnly: entry.readOnly || args.has("--read-only"),
      shared: entry.shared || args.has("--shared"),
      direct: entry.direct || args.has("--direct"),
      layers: [...entry.layers, ...args.values("--layer")],
    });
  }
  if (exports.length === 0) throw usageFailure("Nothing to export: give a PATH or --config (see dst export --help)");
  const names = new Set<string>();
  for (const entry of exports) {
    if (names.has(entry.name)) {
      throw usageFailure(
        `Two exports have the name "${printable(entry.name)}": give one another, NAME=${nameOfPath(entry.path)}`,
      );
    }
    names.add(entry.name);
  }
  return exports;
}

async function start(options: ExporterOptions, args: ParsedArguments): Promise<Daemon> {
  const exporter = await startExporter(options);
  const { promise: stopped, resolve } = Promise.withResolvers<Error | null>();
  const names = options.exports.map(({ name }) => printable(name)).join(", ");
  return {
    self: { id: String(Deno.pid), attachment: null, listening: [...exporter.listening] },
    announcements: exporter.listening.map(({ protocol, address }) => ({
      json: { event: "listening", protocol, address },
      text: `serving ${names} by ${protocol === "dst" ? "DST" : "NBD"} on ${address}`,
    })),
    farewell: { json: { event: "stopped" }, text: "stopped" },
    status: () => exporter.status(),
    reload: () => reload(exporter, args),
    leave: async () => {
      // An exporter that could not sync has ended all the same: that is no refusal to leave, but a failure to report.
      resolve(await exporter.stop().then(() => null, (error: Error) => error));
    },
    ended: Promise.race([stopped, exporter.failed]),
  };
}

/**
 * Reads the configuration and the keys again.
 *
 * @returns what came of it, for the log
 * @throws {Error} what is wrong with them: all stays as it was
 */
async function reload(exporter: RunningExporter, args: ParsedArguments): Promise<string> {
  const ended = await exporter.reload(exporterOptions(args));
  const path = args.value("--config")!;
  if (ended === 0) return `Reloaded ${path}`;
  return `Reloaded ${path}; ${ended} ${ended === 1 ? "session ends" : "sessions end"}, whose rights are gone`;
}

function defaultStateDir(): string {
  if (Deno.uid() === 0) return "/var/lib/dst";
  const home = Deno.env.get("XDG_STATE_HOME") || `${Deno.env.get("HOME") || "."}/.local/state`;
  return `${home}/dst`;
}
