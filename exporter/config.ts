/**
 * The exporter's configuration file.
 *
 * @module
 */
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { checkName, nameOfPath, parseHostPort, parseNbdAddress } from "../engine/control/address.ts";
import type { AddressRange } from "../engine/control/cidr.ts";
import { Failure, usageFailure } from "../engine/control/failure.ts";
import { type Key, readKeyFile } from "../engine/control/key_file.ts";
import { suggestion } from "../engine/control/suggest.ts";
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
import { flag, text, textRead } from "./schema.ts";
import { lineOf, type TomlPath } from "./toml_lines.ts";

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

/** The keys that each kind of section may have, for suggestions. */
const KEYS: Readonly<Record<string, readonly string[]>> = {
  top: Object.keys(ConfigSchema.entries),
  exports: Object.keys(ExportSchema.entries),
  ...SECURITY_KEYS,
};

/**
 * Reads a configuration file, and the key files that it names.
 *
 * @param path of the file; relative paths in it start at its folder
 * @param givenKeys keys from elsewhere, which its permissions may name; no two of them clash
 * @throws {Failure} that names the file and, where possible, the line
 */
export function readConfig(path: string, givenKeys: readonly Key[] = []): ExporterConfig {
  let content: string;
  try {
    content = Deno.readTextFileSync(path);
  } catch (error) {
    throw usageFailure(`Cannot read the configuration ${path}: ${describeReadError(error)}`);
  }
  return parseConfig(content, path, givenKeys);
}

/**
 * Reads the text of a configuration file, and the key files that it names.
 *
 * @param path of the file, for messages and as the start of relative paths
 * @param givenKeys keys from elsewhere, which its permissions may name; no two of them clash
 * @throws {Failure} that names the file and, where possible, the line
 */
export function parseConfig(content: string, path: string, givenKeys: readonly Key[] = []): ExporterConfig {
  const config = checked(content, path);
  const folder = path.includes("/") ? path.replace(/\/[^/]*$/, "") : ".";
  const below = (relative: string) => relative.startsWith("/") ? relative : `${folder}/${relative}`;
  const refuse = (at: TomlPath, message: string) => usageFailure(`${placeOf(at, content, path)}: ${message}`);
  const keys = config.keys.map(({ file, allow }, index) => {
    try {
      return { key: readKeyFile(below(file)), allow: allow ?? null };
    } catch (error) {
      if (error instanceof Failure) throw refuse(["keys", index, "file"], error.message);
      throw error;
    }
  });
  const allKeys = [...givenKeys, ...keys.map(({ key }) => key)];
  const clash = clashOf(allKeys);
  if (clash !== null) throw refuse(["keys", clash.index - givenKeys.length, "file"], clash.message);
  const exports = config.exports.map((entry) => ({
    name: entry.name ?? nameOfPath(entry.path),
    path: entry.path.startsWith("mem:") ? entry.path : below(entry.path),
    readOnly: entry.read_only,
    shared: entry.shared,
    direct: entry.direct,
    layers: entry.layers,
    allow: entry.allow ?? null,
    permissions: entry.permissions ?? null,
  }));
  const unknown = unknownKeyOf(exports, allKeys);
  if (unknown !== null) throw refuse(unknown.path, unknown.message);
  return {
    exports,
    listen: config.listen,
    nbd: config.nbd,
    stateDir: config.state_dir === undefined ? undefined : below(config.state_dir),
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

type Issue = v.InferIssue<typeof ConfigSchema>;

/** The document as the schema reads it. */
function checked(content: string, path: string): v.InferOutput<typeof ConfigSchema> {
  let document: unknown;
  try {
    document = parse(content);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The message goes on with the lines around the place, which the line number makes unnecessary.
    const reason = error.message.split("\n")[0].replace(/^Invalid TOML document: /, "");
    throw usageFailure(`${path}:${error.line}: ${reason}`);
  }
  const result = v.safeParse(ConfigSchema, document);
  if (!result.success) {
    // A key that is misspelt explains why the right one is missing.
    const issue = result.issues.find(({ expected }) => expected === "never") ?? result.issues[0];
    throw usageFailure(describeIssue(issue, content, path));
  }
  return result.output;
}

function describeIssue(issue: Issue, content: string, path: string): string {
  const keys = (issue.path ?? []).map((item) => item.key as string | number);
  const where = placeOf(keys, content, path);
  const name = keys.filter((key) => typeof key === "string").at(-1) ?? "";
  // A strict object reports what it does not know as "never expected", and what is missing as "undefined received".
  if (issue.expected === "never") {
    return `${where}: unknown key ${name}${suggestion(name, KEYS[keys.length > 1 ? String(keys[0]) : "top"])}`;
  }
  if (issue.received === "undefined") {
    return name === "exports"
      ? `${path}: there must be at least one [[exports]] section`
      : `${where}: ${name} is missing`;
  }
  return `${where}: ${name}: ${issue.message}`;
}

/** The file, with the line where it is known. */
function placeOf(keys: TomlPath, content: string, path: string): string {
  const line = lineOf(content, keys);
  return line === null ? path : `${path}:${line}`;
}

function describeReadError(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "no permission";
  return (error as Error).message;
}
