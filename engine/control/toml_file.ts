/**
 * Configuration files: read, checked against a schema, and objected to with the line.
 *
 * @module
 */
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { type Failure, usageFailure } from "./failure.ts";
import { suggestion } from "./suggest.ts";
import { lineOf, type TomlPath } from "./toml_lines.ts";

/** A schema of a whole file. */
type FileSchema = v.GenericSchema<unknown, unknown>;

/** What is known of a file's schema for its messages. */
export interface FileShape<Schema extends FileSchema> {
  readonly schema: Schema;
  /** The keys that each section may have, by its name, for suggestions; those of the top level under `top`. */
  readonly keys: Readonly<Record<string, readonly string[]>>;
  /** What is said of a key of the top level that is missing, without the file's name; by default that it is missing. */
  readonly missing?: Readonly<Record<string, string>>;
}

/** The text of a configuration file. */
export class TomlFile {
  /** Its folder, at which relative paths in it start. */
  readonly #folder: string;

  /**
   * @param content the text
   * @param path of the file, for messages and as the start of relative paths
   */
  constructor(readonly content: string, readonly path: string) {
    this.#folder = path.includes("/") ? path.replace(/\/[^/]*$/, "") : ".";
  }

  /**
   * Reads a file.
   *
   * @throws {Failure} of usage, when it cannot be read
   */
  static read(path: string): TomlFile {
    try {
      return new TomlFile(Deno.readTextFileSync(path), path);
    } catch (error) {
      throw usageFailure(`Cannot read the configuration ${path}: ${describeReadError(error)}`);
    }
  }

  /** A path that stands in the file, as this process can use it. */
  below(path: string): string {
    return path.startsWith("/") ? path : `${this.#folder}/${path}`;
  }

  /** What is wrong, with the place: the file, and the line where it is known. */
  refuse(at: TomlPath, message: string): Failure {
    return usageFailure(`${this.#placeOf(at)}: ${message}`);
  }

  /**
   * The document as its schema reads it.
   *
   * @throws {Failure} of usage, that names the file and, where possible, the line
   */
  check<Schema extends FileSchema>(shape: FileShape<Schema>): v.InferOutput<Schema> {
    let document: unknown;
    try {
      document = parse(this.content);
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      // The message goes on with the lines around the place, which the line number makes unnecessary.
      const reason = error.message.split("\n")[0].replace(/^Invalid TOML document: /, "");
      throw usageFailure(`${this.path}:${error.line}: ${reason}`);
    }
    const result = v.safeParse(shape.schema, document);
    if (result.success) return result.output;
    // A key that is misspelt explains why the right one is missing.
    const issue = result.issues.find(({ expected }) => expected === "never") ?? result.issues[0];
    throw usageFailure(this.#describe(issue, shape));
  }

  #describe(issue: v.BaseIssue<unknown>, { keys: known, missing = {} }: FileShape<FileSchema>): string {
    const keys = (issue.path ?? []).map((item) => item.key as string | number);
    const where = this.#placeOf(keys);
    const name = keys.filter((key) => typeof key === "string").at(-1) ?? "";
    // A strict object reports what it does not know as "never expected", and what is missing as "undefined received".
    if (issue.expected === "never") {
      return `${where}: unknown key ${name}${suggestion(name, known[keys.length > 1 ? String(keys[0]) : "top"])}`;
    }
    if (issue.received === "undefined") {
      return name in missing ? `${this.path}: ${missing[name]}` : `${where}: ${name} is missing`;
    }
    return `${where}: ${name}: ${issue.message}`;
  }

  #placeOf(keys: TomlPath): string {
    const line = lineOf(this.content, keys);
    return line === null ? this.path : `${this.path}:${line}`;
  }
}

function describeReadError(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "no permission";
  return (error as Error).message;
}
