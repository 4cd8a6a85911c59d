/**
 * The exporter's configuration file.
 *
 * @module
 */
import * as v from "valibot";
import { checkName, nameOfPath, parseHostPort, parseNbdAddress } from "../engine/control/address.ts";
import type { AddressRange } from "../engine/control/cidr.ts";
import { Failure } from "../engine/control/failure.ts";
import { type Key, readKeyFile } from "../engine/control/key_file.ts";
import { flag, text, textRead } from "../engine/control/schema.ts";
import { TomlFile } from "../engine/control/toml_file.ts";
import type { CryptoChoice } from "../engine/cryptography.ts";
import {
  clashOf,
  EXPORT_SECURITY_ENTRIES,
  type KeyEntry,
  type Limits,
  limitsOf,
  SECURITY_ENTRIES,
  SECURITY_KEYS,
  unknownKeyOf,
} from "./config_security.ts";
import type { ExporterOptions, ExportOptions } from "./exporter.ts";
import type { ExportRule } from "./permissions.ts";

/** What a configuration file says; what it does not say is undefined. */
export interface ExporterConfig extends Partial<Pick<ExporterOptions, "listen" | "nbd" | "stateDir" | "loop">> {
  readonly exports: readonly (ExportOptions & ExportRule)[];
  /** Serve others without a key. */
  readonly insecure?: boolean;
  /** Names, the most wanted first. */
  readonly ciphers?: readonly string[];
  readonly digests?: readonly string[];
  readonly crypto?: CryptoChoice;
  /** Threads that serve the lanes. */
  readonly workers?: number;
  /** From where anybody may connect. */
  readonly allow?: readonly AddressRange[];
  readonly keys?: readonly KeyEntry[];
  /** With the defaults for what the file does not say. */
  readonly limits?: Limits;
}

const ExportSchema = v.strictObject({
  path: text,
  name: v.optional(textRead(checkName)),
  read_only: v.optional(flag, false),
  shared: v.optional(flag, false),
  direct: v.optional(flag, false),
  layers: v.optional(v.array(text, "expected a list of texts"), []),
  ...EXPORT_SECURITY_ENTRIES,
});

const ConfigSchema = v.strictObject({
  listen: v.optional(textRead((value) => parseHostPort(value))),
  nbd: v.optional(textRead(parseNbdAddress)),
  state_dir: v.optional(text),
  loop: v.optional(v.picklist(["auto", "uring", "poll"], 'expected "auto", "uring" or "poll"')),
  ...SECURITY_ENTRIES,
  exports: v.pipe(
    v.array(ExportSchema, "expected [[exports]] sections"),
    v.nonEmpty("there must be at least one [[exports]] section"),
  ),
});

const SHAPE = {
  schema: ConfigSchema,
  keys: { top: Object.keys(ConfigSchema.entries), exports: Object.keys(ExportSchema.entries), ...SECURITY_KEYS },
  missing: { exports: "there must be at least one [[exports]] section" },
};

/**
 * Reads a configuration file, and the key files that it names.
 *
 * @param path of the file; relative paths in it start at its folder
 * @param givenKeys keys from elsewhere, which its permissions may name; no two of them clash
 * @throws {Failure} that names the file and, where possible, the line
 */
export function readConfig(path: string, givenKeys: readonly Key[] = []): ExporterConfig {
  return configOf(TomlFile.read(path), givenKeys);
}

/**
 * Reads the text of a configuration file, and the key files that it names.
 *
 * @param path of the file, for messages and as the start of relative paths
 * @param givenKeys keys from elsewhere, which its permissions may name; no two of them clash
 * @throws {Failure} that names the file and, where possible, the line
 */
export function parseConfig(content: string, path: string, givenKeys: readonly Key[] = []): ExporterConfig {
  return configOf(new TomlFile(content, path), givenKeys);
}

function configOf(file: TomlFile, givenKeys: readonly Key[]): ExporterConfig {
  const config = file.check(SHAPE);
  const keys = config.keys.map(({ file: path, allow }, index) => {
    try {
      return { key: readKeyFile(file.below(path)), allow: allow ?? null };
    } catch (error) {
      if (error instanceof Failure) throw file.refuse(["keys", index, "file"], error.message);
      throw error;
    }
  });
  const allKeys = [...givenKeys, ...keys.map(({ key }) => key)];
  const clash = clashOf(allKeys);
  if (clash !== null) throw file.refuse(["keys", clash.index - givenKeys.length, "file"], clash.message);
  const exports = config.exports.map((entry) => ({
    name: entry.name ?? nameOfPath(entry.path),
    path: entry.path.startsWith("mem:") ? entry.path : file.below(entry.path),
    readOnly: entry.read_only,
    shared: entry.shared,
    direct: entry.direct,
    layers: entry.layers,
    allow: entry.allow ?? null,
    permissions: entry.permissions ?? null,
  }));
  const unknown = unknownKeyOf(exports, allKeys);
  if (unknown !== null) throw file.refuse(unknown.path, unknown.message);
  return {
    exports,
    listen: config.listen,
    nbd: config.nbd,
    stateDir: config.state_dir === undefined ? undefined : file.below(config.state_dir),
    loop: config.loop,
    insecure: config.insecure,
    ciphers: config.ciphers,
    digests: config.digests,
    crypto: config.crypto,
    workers: config.workers,
    allow: config.allow,
    keys,
    limits: limitsOf(config.limits),
  };
}
