/**
 * Command lines: what a command takes is declared once, and read, checked and explained from that.
 *
 * @module
 */
import { usageFailure } from "./failure.ts";
import { suggestion } from "./suggest.ts";

/** An option of a command. */
export interface OptionSpec {
  /** With its dashes, for example `--listen`. */
  readonly name: string;
  /** What its value is called in the help; without one the option is a switch. */
  readonly value?: string;
  /** The only values that there are. */
  readonly choices?: readonly string[];
  /** May be given more than once. */
  readonly repeatable?: boolean;
  /** What it is for, in a line. */
  readonly help: string;
}

/** A command. */
export interface CommandSpec {
  readonly name: string;
  /** What it does, in a line. */
  readonly summary: string;
  /** How its positional arguments are written, for example `SOURCE DESTINATION`. */
  readonly positionals: string;
  /** How many positional arguments it takes, at least and at most. */
  readonly count: readonly [least: number, most: number];
  readonly options: readonly OptionSpec[];
  /** More about it, in paragraphs. */
  readonly notes: readonly string[];
  /** Command lines without the leading `dst`, each with what it does. */
  readonly examples: readonly (readonly [line: string, what: string])[];
}

/** A command with what it does. */
export interface Command {
  readonly spec: CommandSpec;
  /** @returns the exit code */
  run(args: ParsedArguments): Promise<number>;
}

/** Options of every command. */
export const COMMON_OPTIONS: readonly OptionSpec[] = [
  {
    name: "--log-level",
    value: "LEVEL",
    choices: ["trace", "debug", "info", "warning", "error", "fatal"],
    help: "how much goes to the log on standard error (default: info)",
  },
  { name: "--help", help: "this text" },
];

/** What {@link parseArguments} found. */
export class ParsedArguments {
  readonly #spec: CommandSpec;
  readonly #values: ReadonlyMap<string, readonly string[]>;

  /**
   * @param spec the command that the arguments belong to
   * @param positionals the arguments that are not options, in order
   * @param values the values of each option that was given; a switch has an empty one
   */
  constructor(
    spec: CommandSpec,
    readonly positionals: readonly string[],
    values: ReadonlyMap<string, readonly string[]>,
  ) {
    this.#spec = spec;
    this.#values = values;
  }

  /** Whether the option was given. */
  has(name: string): boolean {
    return this.values(name).length > 0;
  }

  /** The option's value, or undefined when it was not given. */
  value(name: string): string | undefined {
    return this.values(name)[0];
  }

  /** All values of a repeatable option. */
  values(name: string): readonly string[] {
    if (!optionsOf(this.#spec).some((option) => option.name === name)) {
      throw new TypeError(`The command ${this.#spec.name} declares no option ${name}`);
    }
    return this.#values.get(name) ?? [];
  }

  /**
   * The option's value, read by a function; its errors become those of the option.
   *
   * @throws {Failure} that names the option
   */
  read<T>(name: string, parse: (text: string) => T): T | undefined {
    const text = this.value(name);
    if (text === undefined) return undefined;
    return asUsage(() => parse(text), `${name}: `);
  }

  /**
   * The option's value as a whole number.
   *
   * @throws {Failure} when it is none, or not within the bounds
   */
  integer(name: string, least: number, most: number): number | undefined {
    return this.read(name, (text) => {
      const number = Number(text);
      if (!/^\d+$/.test(text) || number < least || number > most) {
        throw new RangeError(`expected a whole number from ${least} to ${most}, not "${text}"`);
      }
      return number;
    });
  }
}

/**
 * Reads the arguments of one command. Options are `--name value`, `--name=value` or switches, anywhere; after `--` all
 * is positional, and a lone `-` always is.
 *
 * @returns null when help was asked for
 * @throws {Failure} that says what cannot be understood
 */
export function parseArguments(spec: CommandSpec, args: readonly string[]): ParsedArguments | null {
  const options = optionsOf(spec);
  const positionals: string[] = [];
  const values = new Map<string, string[]>();
  for (let i = 0; i < args.length; i++) {
    const argument = args[i];
    if (argument === "--") {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!argument.startsWith("-") || argument === "-") {
      positionals.push(argument);
      continue;
    }
    const equals = argument.startsWith("--") ? argument.indexOf("=") : -1;
    const typed = equals < 0 ? argument : argument.slice(0, equals);
    const name = typed === "-h" ? "--help" : typed;
    const option = options.find((candidate) => candidate.name === name);
    if (option === undefined) {
      const near = suggestion(name, options.map((candidate) => candidate.name));
      throw usageFailure(`Unknown option ${typed}${near || ` (see dst ${spec.name} --help)`}`);
    }
    if (name === "--help") return null;
    const found = values.get(name) ?? [];
    if (found.length > 0 && option.repeatable !== true) throw usageFailure(`${name} is given twice`);
    if (option.value === undefined) {
      if (equals >= 0) throw usageFailure(`${name} takes no value`);
      found.push("");
    } else {
      // What looks like an option is not taken for a value: the value was forgotten. NAME=VALUE can carry any.
      const next = equals >= 0 ? argument.slice(equals + 1) : args[i + 1];
      if (next === undefined || next === "" || (equals < 0 && next.startsWith("--"))) {
        throw usageFailure(`${name} needs a value: ${name} ${option.value}`);
      }
      if (equals < 0) i++;
      if (option.choices !== undefined && !option.choices.includes(next)) {
        throw usageFailure(
          `${name}: "${next}" is not one of ${option.choices.join(", ")}${suggestion(next, option.choices)}`,
        );
      }
      found.push(next);
    }
    values.set(name, found);
  }
  const [least, most] = spec.count;
  if (positionals.length < least) {
    throw usageFailure(`Missing argument: dst ${spec.name} ${spec.positionals} (see dst ${spec.name} --help)`);
  }
  if (positionals.length > most) {
    throw usageFailure(`Too many arguments: "${positionals[most]}" (see dst ${spec.name} --help)`);
  }
  return new ParsedArguments(spec, positionals, values);
}

/**
 * Calls a function that reads something a user wrote, and makes its RangeErrors failures of usage.
 *
 * @param prefix goes before the message
 */
export function asUsage<T>(read: () => T, prefix = ""): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof RangeError) throw usageFailure(`${prefix}${error.message}`);
    throw error;
  }
}

/** The help of a command. */
export function helpOf(spec: CommandSpec): string {
  const usage = ["dst", spec.name, spec.positionals, spec.options.length > 0 ? "[OPTION]..." : ""];
  const lines = [`Usage: ${usage.filter((word) => word !== "").join(" ")}`, "", `${spec.summary}.`];
  for (const note of spec.notes) lines.push("", ...wrap(note, HELP_COLUMNS));
  lines.push("", "Options:", ...helpOfOptions(optionsOf(spec)), "", "Examples:");
  for (const [line, what] of spec.examples) lines.push(`  dst ${line}`, `      ${what}`);
  return lines.join("\n");
}

/** The help of the whole program. */
export function helpOfAll(commands: readonly Pick<CommandSpec, "name" | "summary">[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  return [
    "Usage: dst COMMAND [ARGUMENT]...",
    "",
    "Exports a disk on one machine and attaches it on another.",
    "",
    "Commands:",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    "",
    "Examples:",
    "  dst export disk.img",
    "      serves disk.img on this machine",
    "  dst attach 127.0.0.1/disk.img",
    "      makes it a block device",
    "",
    "dst COMMAND --help says more about each, and dst --version which one this is.",
  ].join("\n");
}

/** Terminals are at least this wide. */
const HELP_COLUMNS = 80;

function optionsOf(spec: CommandSpec): readonly OptionSpec[] {
  return [...spec.options, ...COMMON_OPTIONS];
}

function helpOfOptions(options: readonly OptionSpec[]): string[] {
  const indent = 26;
  const lines: string[] = [];
  for (const { name, value, choices, help, repeatable } of options) {
    const left = `  ${name}${value === undefined ? "" : ` ${value}`}`;
    const listed = choices === undefined ? "" : `; one of ${choices.join(", ")}`;
    const again = repeatable === true ? "; may be repeated" : "";
    const text = wrap(help + listed + again, HELP_COLUMNS - indent);
    // A long option has a line of its own, so that all the explanations begin in one column.
    if (left.length > indent - 2) lines.push(left, ...text.map((line) => " ".repeat(indent) + line));
    else lines.push(left.padEnd(indent) + text[0], ...text.slice(1).map((line) => " ".repeat(indent) + line));
  }
  return lines;
}

/** Breaks a text into lines of at most so many columns, at spaces. */
function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
