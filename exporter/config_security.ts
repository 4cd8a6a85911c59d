/**
 * The parts of the configuration that say who may come in and use what: keys, permissions, addresses, limits.
 *
 * @module
 */
import * as v from "valibot";
import { parseCiphers, parseDigests } from "../engine/control/algorithms.ts";
import { type AddressRange, parseRange } from "../engine/control/cidr.ts";
import type { Key } from "../engine/control/key_file.ts";
import { suggestion } from "../engine/control/suggest.ts";
import { CRYPTO_CHOICES } from "../engine/cryptography.ts";
import { LANES_MAX } from "../protocol/limits.ts";
import { type AccessRules, EVERY_OTHER_KEY, type Permission } from "./permissions.ts";
import type { AttemptLimits } from "./rate_limit.ts";
import { flag, listRead, text, whole, wordsRead } from "../engine/control/schema.ts";
import type { TomlPath } from "../engine/control/toml_lines.ts";

/** A key with the rules that belong to it. */
export interface KeyEntry {
  readonly key: Key;
  /** From where it may be used; null: from everywhere. */
  readonly allow: readonly AddressRange[] | null;
}

/** How much of the exporter its peers may use. */
export interface Limits {
  /** Connections at once of those who have not proved yet who they are; and of these, from one address. */
  readonly connections: number;
  readonly connectionsPerAddress: number;
  /** Sessions at once. */
  readonly sessions: number;
  /** Lanes of one session, 1 to 64. */
  readonly lanes: number;
  /** How often one address may try to come in. */
  readonly attempts: Omit<AttemptLimits, "remembered">;
  /** Lines in the log in a minute that are about those who did not come in. */
  readonly logLinesPerMinute: number;
}

/** The limits where the configuration says nothing. */
export const LIMIT_DEFAULTS: Limits = {
  // Four addresses at least that do their worst, so that a fifth still comes in beside three of them.
  connections: 256,
  // All lanes of one client can come at the same moment.
  connectionsPerAddress: LANES_MAX,
  // More than there is memory for on most machines: that is what ends it first, with a reason of its own.
  sessions: 256,
  lanes: LANES_MAX,
  // All lanes of two clients behind one address can come back at the same moment.
  attempts: { burst: 2 * LANES_MAX, perMinute: 60 },
  logLinesPerMinute: 30,
};

/** Half of what one thread can have, so that there is always room for those who are known. */
export const CONNECTIONS_MAX = 512;
/** Far above every use, and small enough for what is counted. */
const COUNT_MAX = 1_000_000;

const KeySchema = v.strictObject({ file: text, allow: v.optional(listRead(parseRange)) });

const LimitsSchema = v.strictObject({
  connections: v.optional(whole(1, CONNECTIONS_MAX)),
  connections_per_address: v.optional(whole(1, CONNECTIONS_MAX)),
  sessions: v.optional(whole(1, COUNT_MAX)),
  lanes: v.optional(whole(1, LANES_MAX)),
  attempts_burst: v.optional(whole(1, COUNT_MAX)),
  attempts_per_minute: v.optional(whole(1, COUNT_MAX)),
  log_lines_per_minute: v.optional(whole(1, COUNT_MAX)),
}, "expected a [limits] section");

/** For the top level of the file. */
export const SECURITY_ENTRIES = {
  insecure: v.optional(flag),
  ciphers: v.optional(wordsRead(parseCiphers)),
  digests: v.optional(wordsRead(parseDigests)),
  crypto: v.optional(v.picklist(CRYPTO_CHOICES, 'expected "auto", "wasm" or "openssl"')),
  workers: v.optional(whole(1, LANES_MAX)),
  allow: v.optional(listRead(parseRange)),
  keys: v.optional(v.array(KeySchema, "expected [[keys]] sections"), []),
  limits: v.optional(LimitsSchema, {}),
};

/** For each export. */
export const EXPORT_SECURITY_ENTRIES = {
  allow: v.optional(listRead(parseRange)),
  permissions: v.optional(
    v.record(v.string(), v.picklist(["read", "read-write"], 'expected "read" or "read-write"'), "expected a section"),
  ),
};

/** The keys that each kind of section may have, for suggestions. */
export const SECURITY_KEYS = { keys: Object.keys(KeySchema.entries), limits: Object.keys(LimitsSchema.entries) };

/** The limits that a section asks for, and the defaults for the rest. */
export function limitsOf(section: v.InferOutput<typeof LimitsSchema>): Limits {
  return {
    connections: section.connections ?? LIMIT_DEFAULTS.connections,
    connectionsPerAddress: section.connections_per_address ?? LIMIT_DEFAULTS.connectionsPerAddress,
    sessions: section.sessions ?? LIMIT_DEFAULTS.sessions,
    lanes: section.lanes ?? LIMIT_DEFAULTS.lanes,
    attempts: {
      burst: section.attempts_burst ?? LIMIT_DEFAULTS.attempts.burst,
      perMinute: section.attempts_per_minute ?? LIMIT_DEFAULTS.attempts.perMinute,
    },
    logLinesPerMinute: section.log_lines_per_minute ?? LIMIT_DEFAULTS.logLinesPerMinute,
  };
}

/** What is wrong, and where in the file. */
export interface Objection {
  readonly path: TomlPath;
  readonly message: string;
}

/**
 * Keys that cannot be told apart, by their names in permissions or by their ids on the wire.
 *
 * @returns the place of the later one in the list and what is wrong, or null
 */
export function clashOf(keys: readonly Key[]): { readonly index: number; readonly message: string } | null {
  const names = new Set<string>();
  const ids = new Map<string, string>();
  for (const [index, { name, id }] of keys.entries()) {
    if (names.has(name)) return { index, message: `there is another key named "${name}": make one with another name` };
    const other = ids.get(id.toHex());
    if (other !== undefined) return { index, message: `"${name}" is the same key as "${other}"` };
    names.add(name);
    ids.set(id.toHex(), name);
  }
  return null;
}

/** The first permission of an export for a key that there is not, or null. */
export function unknownKeyOf(
  exports: readonly { readonly permissions: Readonly<Record<string, Permission>> | null }[],
  keys: readonly Key[],
): Objection | null {
  const known = [...keys.map(({ name }) => name), EVERY_OTHER_KEY];
  for (const [index, { permissions }] of exports.entries()) {
    for (const name of Object.keys(permissions ?? {})) {
      if (known.includes(name)) continue;
      const near = suggestion(name, known.slice(0, -1)) || " (see [[keys]] and --key)";
      return { path: ["exports", index, "permissions", name], message: `there is no key named "${name}"${near}` };
    }
  }
  return null;
}

/** The rules that a configuration comes to. Secrets are no part of them. */
export function accessRules(config: {
  readonly allow: readonly AddressRange[] | null;
  readonly keys: readonly KeyEntry[];
  readonly exports: readonly {
    readonly name: string;
    readonly allow: readonly AddressRange[] | null;
    readonly permissions: Readonly<Record<string, Permission>> | null;
  }[];
}): AccessRules {
  return {
    allow: config.allow,
    keys: config.keys.map(({ key, allow }) => ({ id: key.id.toHex(), name: key.name, allow })),
    exports: config.exports.map(({ name, allow, permissions }) => ({ name, allow, permissions })),
  };
}
