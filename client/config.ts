/**
 * The client's configuration file: how it attaches what, unless the command line says otherwise.
 *
 * @module
 */
import * as v from "valibot";
import { parseRemote, type RemoteAddress } from "../engine/control/address.ts";
import { parseCiphers, parseDigests } from "../engine/control/algorithms.ts";
import type { Failure } from "../engine/control/failure.ts";
import { text, textRead, tryRead, whole, wordsRead } from "../engine/control/schema.ts";
import { TomlFile } from "../engine/control/toml_file.ts";
import { CRYPTO_CHOICES, type CryptoChoice } from "../engine/cryptography.ts";
import { parseDuration } from "../engine/duration.ts";
import { parseSize } from "../engine/size.ts";
import type { LoopChoice } from "../engine/thread.ts";
import { DEPTH_MAX, LANES_MAX } from "../protocol/limits.ts";
import { objectionToPatience, type Patience, patienceOf, RESENDS_MAX, TIME_MS_MAX } from "./patience.ts";

/** What becomes of writes that were not flushed when the exporter loses its memory: they are written again, or lost. */
export const RESTART_CHOICES = ["replay", "fail"] as const;
export type RestartChoice = (typeof RESTART_CHOICES)[number];

/** What the file says of one attachment; what it does not say is undefined. */
export interface ClientSettings extends Partial<Patience> {
  readonly lanes?: number;
  readonly depth?: number;
  /** Path of a key file. */
  readonly key?: string;
  /** Names, the most wanted first. */
  readonly ciphers?: readonly string[];
  readonly digests?: readonly string[];
  readonly crypto?: CryptoChoice;
  readonly loop?: LoopChoice;
  readonly onExporterRestart?: RestartChoice;
  readonly replayBytes?: number;
  /**
   * What is wrong with a setting that only shows where it is used.
   *
   * @param name as it stands in the file
   */
  refuse(name: string, message: string): Failure;
}

/** The settings without a file. */
export const NO_SETTINGS: ClientSettings = {
  refuse: (name) => {
    throw new Error(`Nothing is said of ${name}`);
  },
};

/** A time as on the command line; a number is in seconds. */
const time = v.pipe(
  v.union([v.string(), v.number()], "expected a time: a number of seconds, or text with ms, s, m or h"),
  v.rawTransform<string | number, number>((context) =>
    tryRead(context, (value) => parseDuration(String(value), TIME_MS_MAX))
  ),
);

const forever = v.pipe(v.literal("forever"), v.transform(() => Infinity));

/** For the top level of the file, and for each attachment. */
const ENTRIES = {
  resend_interval: v.optional(time),
  resends: v.optional(
    v.union([forever, whole(1, RESENDS_MAX)], `expected a whole number from 1 to ${RESENDS_MAX}, or "forever"`),
  ),
  connect_timeout: v.optional(time),
  ping_interval: v.optional(time),
  dead_after: v.optional(time),
  lanes: v.optional(whole(1, LANES_MAX)),
  depth: v.optional(whole(1, DEPTH_MAX)),
  key: v.optional(text),
  ciphers: v.optional(wordsRead(parseCiphers)),
  digests: v.optional(wordsRead(parseDigests)),
  crypto: v.optional(v.picklist(CRYPTO_CHOICES, 'expected "auto", "wasm" or "openssl"')),
  loop: v.optional(v.picklist(["auto", "uring", "poll"], 'expected "auto", "uring" or "poll"')),
  on_exporter_restart: v.optional(v.picklist(RESTART_CHOICES, 'expected "replay" or "fail"')),
  replay_buffer: v.optional(textRead(parseSize)),
};

const AttachmentSchema = v.strictObject({ remote: textRead(parseRemote), ...ENTRIES });

const ConfigSchema = v.strictObject({
  ...ENTRIES,
  attachments: v.optional(v.array(AttachmentSchema, "expected [[attachments]] sections"), []),
});

const SHAPE = {
  schema: ConfigSchema,
  keys: { top: Object.keys(ConfigSchema.entries), attachments: Object.keys(AttachmentSchema.entries) },
};

type Section = Omit<v.InferOutput<typeof AttachmentSchema>, "remote">;

/** A configuration file that was read. */
export class ClientConfig {
  readonly #file: TomlFile;
  readonly #config: v.InferOutput<typeof ConfigSchema>;

  /** @throws {Failure} of usage, that names the file and, where possible, the line */
  constructor(file: TomlFile) {
    this.#file = file;
    this.#config = file.check(SHAPE);
    const { attachments } = this.#config;
    this.#checkPatience(-1);
    for (const [index, { remote }] of attachments.entries()) {
      const first = attachments.findIndex((other) => isSame(other.remote, remote));
      if (first < index) {
        throw file.refuse(["attachments", index, "remote"], "remote: another section is about it already");
      }
      this.#checkPatience(index);
    }
  }

  /** What the file says of an attachment: in a section of its own, else for all. */
  settingsOf(remote: RemoteAddress): ClientSettings {
    return this.#settings(this.#config.attachments.findIndex((one) => isSame(one.remote, remote)));
  }

  /** @param index of the attachment's section; -1: it has none */
  #settings(index: number): ClientSettings {
    const common: Section = this.#config;
    const own: Section = this.#config.attachments[index] ?? {};
    const get = <Name extends keyof Section>(name: Name): Section[Name] => own[name] ?? common[name];
    const key = get("key");
    return {
      resendMs: get("resend_interval"),
      resends: get("resends"),
      connectMs: get("connect_timeout"),
      pingIdleMs: get("ping_interval"),
      deadMs: get("dead_after"),
      lanes: get("lanes"),
      depth: get("depth"),
      key: key === undefined ? undefined : this.#file.below(key),
      ciphers: get("ciphers"),
      digests: get("digests"),
      crypto: get("crypto"),
      loop: get("loop"),
      onExporterRestart: get("on_exporter_restart"),
      replayBytes: get("replay_buffer"),
      refuse: (name, message) => {
        const isOwn = own[name as keyof Section] !== undefined;
        return this.#file.refuse(isOwn ? ["attachments", index, name] : [name], `${name}: ${message}`);
      },
    };
  }

  #checkPatience(index: number): void {
    const settings = this.#settings(index);
    const objection = objectionToPatience(patienceOf(settings));
    if (objection !== null) {
      throw settings.refuse(settings.deadMs === undefined ? "ping_interval" : "dead_after", objection);
    }
  }
}

/**
 * Reads the client's configuration.
 *
 * @param path of a file that must be there; undefined: {@link defaultConfigPath}, if there is one
 * @throws {Failure} of usage, that names the file and, where possible, the line
 */
export function readClientConfig(path: string | undefined): ClientConfig | null {
  if (path !== undefined) return new ClientConfig(TomlFile.read(path));
  const usual = defaultConfigPath();
  return exists(usual) ? new ClientConfig(TomlFile.read(usual)) : null;
}

/** Where the configuration is looked for: as the exporter's state, root's apart from that of others. */
export function defaultConfigPath(): string {
  if (Deno.uid() === 0) return "/etc/dst/client.toml";
  const folder = Deno.env.get("XDG_CONFIG_HOME") || `${Deno.env.get("HOME") || "."}/.config`;
  return `${folder}/dst/client.toml`;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    // What is there and cannot be read is reported by whoever reads it.
    return !(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory);
  }
}

/** Whether two addresses mean the same export. */
function isSame(one: RemoteAddress, other: RemoteAddress): boolean {
  return one.host.toLowerCase() === other.host.toLowerCase() && one.port === other.port && one.name === other.name;
}
