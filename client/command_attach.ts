/**
 * `dst attach`.
 *
 * @module
 */
import { formatRemote, parseNbdAddress, parseRemote } from "../engine/control/address.ts";
import { asUsage, type Command, type ParsedArguments } from "../engine/control/arguments.ts";
import { type Daemon, DAEMON_OPTIONS, runDaemon } from "../engine/control/daemon.ts";
import { checkExposure } from "../engine/control/exposure.ts";
import { usageFailure } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import { printable } from "../engine/control/printable.ts";
import { RuntimeDirectory } from "../engine/control/runtime.ts";
import { formatSize } from "../engine/size.ts";
import { attach, type AttachOptions, type RunningAttachment } from "./attach.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import { NO_SETTINGS, readClientConfig } from "./config.ts";
import { recover } from "./recover.ts";
import {
  forgetKey,
  PATIENCE_OPTIONS,
  patienceOptions,
  REPLAY_OPTIONS,
  replayBytesOption,
  SESSION_OPTIONS,
  sessionOptions,
} from "./options.ts";

/** The command. */
export const command: Command = {
  spec: {
    name: "attach",
    summary: "Makes an export of another machine a local block device",
    positionals: "HOST[:PORT]/NAME | --recover [ID]",
    count: [0, 1],
    options: [
      {
        name: "--recover",
        help:
          "take over the device of an attachment whose daemon was killed, with all that it was attached with; the ID " +
          "(see dst status) may be left out where there is one alone",
      },
      {
        name: "--nbd",
        value: "ADDRESS",
        help: "serve the disk by NBD instead: HOST:PORT or unix:PATH; needs neither ublk nor root",
      },
      {
        name: "--insecure",
        help: "serve NBD, which has no keys, to other machines: whoever reaches it reads and writes",
      },
      { name: "--read-only", help: "do not write; always admitted" },
      { name: "--steal", help: "take the export from whoever holds it: its unfinished writes fail" },
      {
        name: "--lanes",
        value: "N",
        help: "how many connections to have, each with a thread of its own (default: 1); the exporter may grant fewer",
      },
      ...SESSION_OPTIONS,
      ...PATIENCE_OPTIONS,
      ...REPLAY_OPTIONS,
      {
        name: "--config",
        value: "FILE.toml",
        help:
          "read these options from a file; what is given here goes before (default: /etc/dst/client.toml for root, " +
          "~/.config/dst/client.toml for others, if it is there)",
      },
      ...DAEMON_OPTIONS,
    ],
    notes: [
      "The device is made by ublk (the kernel module ublk_drv, and root). NAME is all that follows the first slash.",
      "When the connection is lost, requests wait and the connection is made again, by the exporter's name, as often as it " +
      "takes. A request fails only after --resends times --resend-interval without life. A TIME is in seconds, or has ms, " +
      "s, m or h.",
      "When the daemon of a device is killed, what is asked of the device waits, until dst attach --recover takes it over.",
      "SIGINT, SIGTERM and dst detach finish what is under way and detach; while the device is in use they refuse, say " +
      "by whom, and it goes on.",
    ],
    examples: [
      ["attach server/disk.img", "makes the export disk.img of server a device, say /dev/ublkb0"],
      ["attach [2001:db8::1]:7701/data --read-only --background", "reads only; returns when the device is there"],
      ["attach server/disk.img --key backup.key --lanes 4", "encrypts everything, over four connections"],
      ["attach --recover", "goes on where the daemon was killed"],
      ["attach server/disk.img --nbd unix:/run/disk.sock", "serves it to programs that speak NBD, without the kernel"],
    ],
  },
  run(args) {
    const daemon = { kind: "attach", args, endsWithTerminal: false } as const;
    if (args.has("--recover")) {
      refuseOthers(args);
      return runDaemon({ ...daemon, start: (signal) => startRecovery(args.positionals[0] ?? null, signal) });
    }
    if (args.positionals.length === 0) {
      throw usageFailure("Missing argument: dst attach HOST[:PORT]/NAME (see dst attach --help)");
    }
    const remote = asUsage(() => parseRemote(args.positionals[0]));
    const settings = readClientConfig(args.value("--config"))?.settingsOf(remote) ?? NO_SETTINGS;
    const keyFile = args.value("--key") ?? settings.key;
    const lanes = args.integer("--lanes", 1, LANES_MAX) ?? settings.lanes ?? 1;
    const options: AttachOptions = {
      ...remote,
      ...sessionOptions(args, settings),
      nbd: args.read("--nbd", parseNbdAddress) ?? null,
      readOnly: args.has("--read-only"),
      steal: args.has("--steal"),
      lanes,
      patience: patienceOptions(args, settings),
      replayBytes: replayBytesOption(args, lanes, settings),
      runtime: RuntimeDirectory.open(),
      keyPath: keyFile === undefined ? null : Deno.realPathSync(keyFile),
    };
    return runDaemon({ ...daemon, start: (signal) => start(options, args.has("--insecure"), signal) }).finally(() =>
      forgetKey(options)
    );
  },
};

async function start(options: AttachOptions, insecure: boolean, interrupted: AbortSignal): Promise<Daemon> {
  const insisted = await checkExposure({ listen: null, nbd: options.nbd, keys: [], insecure });
  for (const text of insisted) logger("client").warning("{text}", { text });
  const attachment = await attach(options, interrupted);
  return daemonOf(attachment, formatRemote(options.host, options.port, options.name), false);
}

async function startRecovery(wanted: string | null, interrupted: AbortSignal): Promise<Daemon> {
  const { attachment, remote } = await recover(RuntimeDirectory.open(), wanted, interrupted);
  return daemonOf(attachment, remote, true);
}

/** What the disk is attached with is recorded: nothing of it can be changed by the way. */
function refuseOthers(args: ParsedArguments): void {
  const own = new Set(["--recover", ...DAEMON_OPTIONS.map(({ name }) => name)]);
  const other = command.spec.options.find(({ name }) => !own.has(name) && args.has(name));
  if (other === undefined) return;
  throw usageFailure(`--recover goes on with what the disk was attached with: leave out ${other.name}`);
}

function daemonOf(attachment: RunningAttachment, remote: string, recovered: boolean): Daemon {
  const { device, nbd, size, readOnly } = attachment;
  const place = device ?? nbd ?? "";
  const where = device === null ? { nbd } : { device };
  const { promise: detached, resolve } = Promise.withResolvers<null>();
  const how = readOnly ? ", read-only" : "";
  return {
    self: { id: String(attachment.id), attachment: { remote, device, nbd, size, readOnly }, listening: [] },
    announcements: [{
      json: { event: "attached", id: attachment.id, ...where, size, readOnly, recovered },
      text: `${place} is ${printable(remote)} (${formatSize(size)}${how}${recovered ? ", taken over" : ""})`,
    }],
    farewell: { json: { event: "detached", id: attachment.id, ...where }, text: `${place} is detached` },
    status: () => attachment.status(),
    set: (settings) => attachment.set(settings),
    leave: async (force) => {
      await attachment.detach(force);
      resolve(null);
    },
    ended: Promise.race([detached, attachment.ended]),
  };
}
