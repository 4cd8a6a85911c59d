/**
 * Options that the client's commands share.
 *
 * @module
 */
import { parseCiphers, parseDigests, type Suites, suitesOf } from "../engine/control/algorithms.ts";
import type { OptionSpec, ParsedArguments } from "../engine/control/arguments.ts";
import { Failure, usageFailure } from "../engine/control/failure.ts";
import { type Key, readKeyFile } from "../engine/control/key_file.ts";
import { availableCiphers, CRYPTO_CHOICES, type CryptoChoice } from "../engine/cryptography.ts";
import { formatDuration, parseDuration } from "../engine/duration.ts";
import { formatSize, parseSize } from "../engine/size.ts";
import type { LoopChoice } from "../engine/thread.ts";
import { DEPTH_MAX } from "../protocol/limits.ts";
import { type ClientSettings, NO_SETTINGS, RESTART_CHOICES, type RestartChoice } from "./config.ts";
import { REPLAY_BYTES_MAX, REPLAY_BYTES_OF_LANE_MIN } from "./replay_log.ts";
import { objectionToPatience, PATIENCE, type Patience, patienceOf, RESENDS_MAX, TIME_MS_MAX } from "./patience.ts";

/** What ublk's own tools take; deep enough that a round trip of a millisecond does not limit a fast disk. */
const DEPTH_DEFAULT = 128;
/** As `NAME_BYTES_MAX` of the protocol's specification. */
const HOLDER_BYTES_MAX = 255;

/** Memory for the copies of what is not flushed, in bytes: a flush is due at half of it, a second's worth of a fast network. */
const REPLAY_BYTES = 64 * 1024 * 1024;

/** How a client speaks to an exporter. */
export interface ChannelOptions {
  /** The key that both sides have, or null. {@link forgetKey} is to be called when it is no longer needed. */
  readonly key: Key | null;
  /** Names of the ciphers that are acceptable, the best first; such as need a key only where there is one. */
  readonly ciphers: readonly string[];
  /** Names of the digests that are acceptable, the best first. */
  readonly digests: readonly string[];
  /** Who does the cryptography. */
  readonly crypto: CryptoChoice;
  readonly loop: LoopChoice;
}

/** How a session is made; the same for every command. */
export interface SessionOptions extends ChannelOptions {
  /** The requests that may be in flight at once on each lane, 1 to 1024. */
  readonly depth: number;
  /** Who the client is, for people. */
  readonly holder: string;
}

/** The options of every command that connects. */
export const CHANNEL_OPTIONS: readonly OptionSpec[] = [
  { name: "--key", value: "FILE", help: "the key that the exporter has too (see dst keygen)" },
  {
    name: "--cipher",
    value: "LIST",
    help: "ciphers to accept, the best first, of chacha20-poly1305, aes-256-gcm, none (default: with a key the first " +
      "two, else none)",
  },
  {
    name: "--digest",
    value: "LIST",
    help: "checksums to accept where nothing is encrypted, the best first: with a key blake2b-256, hmac-sha256; else " +
      "xxh64, crc32c, blake2b-256, none",
  },
  {
    name: "--crypto",
    value: "WHO",
    choices: CRYPTO_CHOICES,
    help: "who encrypts: openssl is the system's libcrypto (default: auto, which takes the faster)",
  },
  {
    name: "--loop",
    value: "LOOP",
    choices: ["auto", "uring", "poll"],
    help: "how to talk to the kernel (default: auto, which takes io_uring where it can)",
  },
];

/** The options of every command that opens a session. */
export const SESSION_OPTIONS: readonly OptionSpec[] = [
  {
    name: "--depth",
    value: "N",
    help: `how many requests may be in flight at once on each connection (default: ${DEPTH_DEFAULT})`,
  },
  ...CHANNEL_OPTIONS,
];

/** The options of a command whose session outlives its connections. */
export const PATIENCE_OPTIONS: readonly OptionSpec[] = [
  {
    name: "--resend-interval",
    value: "TIME",
    help: `ask after a request that has no answer for so long (default: ${formatDuration(PATIENCE.resendMs)})`,
  },
  {
    name: "--resends",
    value: "N",
    help: `how often, without life, before it fails; "forever" never gives up (default: ${PATIENCE.resends})`,
  },
  {
    name: "--connect-timeout",
    value: "TIME",
    help: `how long each address may take (default: ${formatDuration(PATIENCE.connectMs)})`,
  },
  {
    name: "--ping-interval",
    value: "TIME",
    help: `ping an exporter that is silent for so long (default: ${formatDuration(PATIENCE.pingIdleMs)})`,
  },
  {
    name: "--dead-after",
    value: "TIME",
    help: `give up a connection that is silent for so long (default: ${formatDuration(PATIENCE.deadMs)})`,
  },
];

/**
 * Reads those of {@link PATIENCE_OPTIONS} that are given.
 *
 * @throws {Failure} where one cannot be understood
 */
export function givenPatience(args: ParsedArguments): Partial<Patience> {
  const time = (name: string) => args.read(name, (text) => parseDuration(text, TIME_MS_MAX));
  return {
    resendMs: time("--resend-interval"),
    resends: args.value("--resends") === "forever" ? Infinity : args.integer("--resends", 1, RESENDS_MAX),
    connectMs: time("--connect-timeout"),
    pingIdleMs: time("--ping-interval"),
    deadMs: time("--dead-after"),
  };
}

/**
 * Reads {@link PATIENCE_OPTIONS}.
 *
 * @param settings what counts where they are not given
 * @throws {Failure} where one cannot be understood, or they do not go together
 */
export function patienceOptions(args: ParsedArguments, settings: ClientSettings = NO_SETTINGS): Patience {
  const patience = patienceOf(givenPatience(args), patienceOf(settings));
  const objection = objectionToPatience(patience);
  if (objection !== null) throw usageFailure(`--dead-after, --ping-interval: ${objection}`);
  return patience;
}

/** What becomes of what the exporter loses with its memory. */
export const REPLAY_OPTIONS: readonly OptionSpec[] = [
  {
    name: "--on-exporter-restart",
    value: "WHAT",
    choices: RESTART_CHOICES,
    help:
      "what to do where the exporter has lost what was not flushed: replay writes it again from copies, fail lets " +
      "every later write and flush fail (default: replay)",
  },
  {
    name: "--replay-buffer",
    value: "SIZE",
    help: `memory for these copies, over all lanes (default: ${formatSize(REPLAY_BYTES)})`,
  },
];

/**
 * Reads {@link REPLAY_OPTIONS}: how many bytes there are for copies; null: none are made.
 *
 * @param lanes how many lanes share them
 * @param settings what counts where they are not given
 * @throws {Failure} where the size is of no use
 */
export function replayBytesOption(
  args: ParsedArguments,
  lanes: number,
  settings: ClientSettings = NO_SETTINGS,
): number | null {
  const given = args.read("--replay-buffer", parseSize);
  const choice = args.value("--on-exporter-restart") as RestartChoice | undefined ?? settings.onExporterRestart;
  if (choice === "fail") return null;
  const least = lanes * REPLAY_BYTES_OF_LANE_MIN;
  const bytes = given ?? settings.replayBytes ?? Math.max(REPLAY_BYTES, least);
  if (bytes >= least && bytes <= REPLAY_BYTES_MAX) return bytes;
  const ofLanes = lanes === 1 ? "" : ` for ${lanes} lanes`;
  const wrong = `${formatSize(bytes)} is not between ${formatSize(least)}${ofLanes} and ${
    formatSize(REPLAY_BYTES_MAX)
  }`;
  throw given === undefined ? settings.refuse("replay_buffer", wrong) : usageFailure(`--replay-buffer: ${wrong}`);
}

/**
 * Reads {@link CHANNEL_OPTIONS}.
 *
 * @param settings what counts where they are not given
 * @throws {Failure} where they do not go together, or the key file is of no use
 */
export function channelOptions(args: ParsedArguments, settings: ClientSettings = NO_SETTINGS): ChannelOptions {
  const loop = args.value("--loop") as LoopChoice | undefined ?? settings.loop ?? "auto";
  const crypto = args.value("--crypto") as CryptoChoice | undefined ?? settings.crypto ?? "auto";
  const given = { ciphers: args.read("--cipher", parseCiphers), digests: args.read("--digest", parseDigests) };
  const ciphers = given.ciphers ?? settings.ciphers;
  const digests = given.digests ?? settings.digests;
  const path = args.value("--key") ?? settings.key;
  const locked = ciphers?.find((name) => name !== "none");
  if (locked !== undefined && path === undefined) {
    const why = "needs a key, which both sides have: give its file with --key (dst keygen makes one)";
    throw given.ciphers === undefined
      ? settings.refuse("ciphers", `${locked} ${why}`)
      : usageFailure(`--cipher ${locked} ${why}`);
  }
  let suites: Suites;
  try {
    suites = suitesOf(ciphers, digests, path !== undefined, availableCiphers(crypto));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const name = given.digests === undefined && settings.digests !== undefined ? "digests" : "ciphers";
    const isOfFile = name === "digests" || given.ciphers === undefined && settings.ciphers !== undefined;
    throw isOfFile ? settings.refuse(name, error.message) : usageFailure(error.message);
  }
  return { key: path === undefined ? null : keyOf(path, args, settings), ...suites, crypto, loop };
}

function keyOf(path: string, args: ParsedArguments, settings: ClientSettings): Key {
  try {
    return readKeyFile(path);
  } catch (error) {
    if (args.has("--key") || !(error instanceof Failure)) throw error;
    throw settings.refuse("key", error.message);
  }
}

/** Reads {@link SESSION_OPTIONS}, as {@link channelOptions} does. */
export function sessionOptions(args: ParsedArguments, settings: ClientSettings = NO_SETTINGS): SessionOptions {
  const depth = args.integer("--depth", 1, DEPTH_MAX) ?? settings.depth ?? DEPTH_DEFAULT;
  return { depth, holder: holderOf(Deno.hostname(), Deno.pid), ...channelOptions(args, settings) };
}

/** Who is to do the cryptography: choosing takes time, and without a key there is nothing to choose. */
export function cryptoFor({ key, crypto }: Pick<ChannelOptions, "key" | "crypto">): CryptoChoice {
  return key === null ? "wasm" : crypto;
}

/** Wipes the key: no connection is made with it any more. */
export function forgetKey({ key }: Pick<ChannelOptions, "key">): void {
  key?.secret.fill(0);
}

/** What the exporter shows to others as the holder of an export. */
export function holderOf(hostname: string, pid: number): string {
  const suffix = ` (pid ${pid})`;
  return hostname.slice(0, HOLDER_BYTES_MAX - suffix.length) + suffix;
}
