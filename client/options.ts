/**
 * Options that the client's commands share.
 *
 * @module
 */
import { parseCiphers, parseDigests, suitesOf } from "../engine/control/algorithms.ts";
import { asUsage, type OptionSpec, type ParsedArguments } from "../engine/control/arguments.ts";
import { usageFailure } from "../engine/control/failure.ts";
import { type Key, readKeyFile } from "../engine/control/key_file.ts";
import { availableCiphers, CRYPTO_CHOICES, type CryptoChoice } from "../engine/cryptography.ts";
import { formatDuration, parseDuration } from "../engine/duration.ts";
import type { LoopChoice } from "../engine/thread.ts";
import type { Patience } from "./patience.ts";

/** As `DEPTH_MAX` of the protocol's specification. */
const DEPTH_MAX = 1024;
/** What ublk's own tools take; deep enough that a round trip of a millisecond does not limit a fast disk. */
const DEPTH_DEFAULT = 128;
/** As `NAME_BYTES_MAX` of the protocol's specification. */
const HOLDER_BYTES_MAX = 255;

/** The longest time that an option takes: a day, as the longest lease. */
const TIME_MS_MAX = 86_400_000;
/** More would be "forever" by another name. */
const RESENDS_MAX = 1_000_000;
/**
 * How patient an attachment is unless told otherwise. Three pings and their answers can get lost or held up before a
 * connection counts as dead, and an exporter's machine has time to start again before a request fails.
 */
export const PATIENCE: Patience = { resendMs: 5000, resends: 20, connectMs: 5000, pingIdleMs: 1000, deadMs: 15_000 };

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
 * Reads {@link PATIENCE_OPTIONS}.
 *
 * @throws {Failure} where one cannot be understood
 */
export function patienceOptions(args: ParsedArguments): Patience {
  const time = (name: string) => args.read(name, (text) => parseDuration(text, TIME_MS_MAX));
  const resends = args.value("--resends") === "forever" ? Infinity : args.integer("--resends", 1, RESENDS_MAX);
  const patience = {
    resendMs: time("--resend-interval") ?? PATIENCE.resendMs,
    resends: resends ?? PATIENCE.resends,
    connectMs: time("--connect-timeout") ?? PATIENCE.connectMs,
    pingIdleMs: time("--ping-interval") ?? PATIENCE.pingIdleMs,
    deadMs: time("--dead-after") ?? PATIENCE.deadMs,
  };
  if (patience.deadMs <= patience.pingIdleMs) {
    throw usageFailure(
      `--dead-after (${formatDuration(patience.deadMs)}) has to be longer than --ping-interval ` +
        `(${formatDuration(patience.pingIdleMs)}): silence alone does not say that the exporter is dead`,
    );
  }
  return patience;
}

/**
 * Reads {@link CHANNEL_OPTIONS}.
 *
 * @throws {Failure} where they do not go together, or the key file is of no use
 */
export function channelOptions(args: ParsedArguments): ChannelOptions {
  const loop = args.value("--loop") as LoopChoice | undefined ?? "auto";
  const crypto = args.value("--crypto") as CryptoChoice | undefined ?? "auto";
  const ciphers = args.read("--cipher", parseCiphers);
  const digests = args.read("--digest", parseDigests);
  const path = args.value("--key");
  const locked = ciphers?.find((name) => name !== "none");
  if (locked !== undefined && path === undefined) {
    throw usageFailure(
      `--cipher ${locked} needs a key, which both sides have: give its file with --key (dst keygen makes one)`,
    );
  }
  const suites = asUsage(() => suitesOf(ciphers, digests, path !== undefined, availableCiphers(crypto)));
  return { key: path === undefined ? null : readKeyFile(path), ...suites, crypto, loop };
}

/** Reads {@link SESSION_OPTIONS}, as {@link channelOptions} does. */
export function sessionOptions(args: ParsedArguments): SessionOptions {
  const depth = args.integer("--depth", 1, DEPTH_MAX) ?? DEPTH_DEFAULT;
  return { depth, holder: holderOf(Deno.hostname(), Deno.pid), ...channelOptions(args) };
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
