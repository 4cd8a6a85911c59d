/**
 * The exporter's configuration file.
 *
 * @module
 */
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { checkName, nameOfPath, parseHostPort, parseNbdAddress } from "../engine/control/address.ts";
import { DIGESTS } from "../engine/control/algorithms.ts";
import { usageFailure } from "../engine/control/failure.ts";
import { suggestion } from "../engine/control/suggest.ts";
import { type ExporterOptions, type ExportOptions, WORKERS_MAX } from "./exporter.ts";

/** What a configuration file says; what it does not say is undefined. */
export interface ExporterConfig
  extends Partial<Pick<ExporterOptions, "listen" | "nbd" | "stateDir" | "loop" | "workers">> {
  readonly exports: readonly ExportOptions[];
  readonly digests?: readonly string[];
}

/** Makes a check of a function that throws RangeError. */
function readable<T>(read: (text: string) => T) {
  return v.rawCheck<string>(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    try {
      read(dataset.value);
    } catch (error) {
      addIssue({ message: (error as Error).message });
    }
  });
}

const text = v.pipe(v.string("expected text in quotes"), v.nonEmpty("must not be empty"));
const flag = v.boolean("expected true or false");

const ExportSchema = v.strictObject({
  path: text,
  name: v.optional(v.pipe(text, readable(checkName))),
  read_only: v.optional(flag, false),
  shared: v.optional(flag, false),
  direct: v.optional(flag, false),
  layers: v.optional(v.array(text, "expected a list of texts"), []),
});

const ConfigSchema = v.strictObject({
  listen: v.optional(v.pipe(text, readable((value) => parseHostPort(value)))),
  nbd: v.optional(v.pipe(text, readable(parseNbdAddress))),
  state_dir: v.optional(text),
  loop: v.optional(v.picklist(["auto", "uring", "poll"], 'expected "auto", "uring" or "poll"')),
  workers: v.optional(
    v.pipe(
      v.number("expected a number"),
      v.check(
        (count) => Number.isInteger(count) && count >= 1 && count <= WORKERS_MAX,
        `expected a whole number from 1 to ${WORKERS_MAX}`,
      ),
    ),
  ),
  digests: v.optional(
    v.pipe(
      v.array(v.picklist(DIGESTS, `expected some of ${DIGESTS.join(", ")}`), "expected a list of texts"),
      v.nonEmpty("must not be empty"),
    ),
  ),
  exports: v.pipe(
    v.array(ExportSchema, "expected [[exports]] sections"),
    v.nonEmpty("there must be at least one [[exports]] section"),
  ),
});

const KEYS = { top: Object.keys(ConfigSchema.entries), exports: Object.keys(ExportSchema.entries) };

/**
 * Reads a configuration file.
 *
 * @param path of the file; relative paths in it start at its folder
 * @throws {Failure} that names the file and, where possible, the line
 */
export function readConfig(path: string): ExporterConfig {
  let content: string;
  try {
    content = Deno.readTextFileSync(path);
  } catch (error) {
    throw usageFailure(`Cannot read the configuration ${path}: ${describeReadError(error)}`);
  }
  return parseConfig(content, path);
}

/**
 * Reads the text of a configuration file.
 *
 * @param path of the file, for messages and as the start of relative paths
 * @throws {Failure} that names the file and, where possible, the line
 */
export function parseConfig(content: string, path: string): ExporterConfig {
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
  if (!result.success) throw usageFailure(describeIssue(result.issues[0], content, path));
  const config = result.output;
  const folder = path.includes("/") ? path.replace(/\/[^/]*$/, "") : ".";
  const below = (relative: string) => relative.startsWith("/") ? relative : `${folder}/${relative}`;
  return {
    exports: config.exports.map((entry) => ({
      name: entry.name ?? nameOfPath(entry.path),
      path: entry.path.startsWith("mem:") ? entry.path : below(entry.path),
      readOnly: entry.read_only,
      shared: entry.shared,
      direct: entry.direct,
      layers: entry.layers,
    })),
    listen: config.listen === undefined ? undefined : parseHostPort(config.listen),
    nbd: config.nbd === undefined ? undefined : parseNbdAddress(config.nbd),
    stateDir: config.state_dir === undefined ? undefined : below(config.state_dir),
    loop: config.loop,
    workers: config.workers,
    digests: config.digests,
  };
}

type Issue = v.InferIssue<typeof ConfigSchema>;

function describeIssue(issue: Issue, content: string, path: string): string {
  const keys = (issue.path ?? []).map((item) => item.key as string | number);
  const line = lineOfKey(content, keys);
  const where = line === null ? path : `${path}:${line}`;
  const name = keys.filter((key) => typeof key === "string").at(-1) ?? "";
  // A strict object reports what it does not know as "never expected", and what is missing as "undefined received".
  if (issue.expected === "never") {
    return `${where}: unknown key ${name}${suggestion(String(name), keys.length > 1 ? KEYS.exports : KEYS.top)}`;
  }
  if (issue.received === "undefined") {
    return name === "exports"
      ? `${path}: there must be at least one [[exports]] section`
      : `${where}: ${name} is missing`;
  }
  return `${where}: ${name}: ${issue.message}`;
}

/** The line, from 1, on which a key of the document stands, or the section it belongs to; null when it is not found. */
function lineOfKey(content: string, keys: readonly (string | number)[]): number | null {
  const section = keys[0] === "exports" && typeof keys[1] === "number" ? keys[1] : -1;
  const key = String(section < 0 ? keys[0] : keys[2]);
  let current = -1;
  let sectionLine: number | null = null;
  for (const [index, line] of content.split("\n").entries()) {
    if (/^\s*\[\[\s*exports\s*\]\]/.test(line)) {
      current++;
      if (current === section) sectionLine = index + 1;
    } else if (current === section) {
      const found = /^\s*["']?([A-Za-z0-9_-]+)["']?\s*[=.]/.exec(line)?.[1] ??
        /^\s*\[+\s*([A-Za-z0-9_-]+)/.exec(line)?.[1];
      if (found === key) return index + 1;
    }
  }
  return sectionLine;
}

function describeReadError(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "no permission";
  return (error as Error).message;
}
