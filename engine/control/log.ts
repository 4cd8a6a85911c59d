/**
 * Logs: to standard error, through LogTape.
 *
 * @module
 */
import {
  configureSync,
  getAnsiColorFormatter,
  getLogger,
  getTextFormatter,
  type Logger,
  type LogLevel,
  type LogRecord,
} from "@logtape/logtape";
import { messageOf } from "./failure.ts";
import { printable } from "./printable.ts";

export type { Logger, LogLevel } from "@logtape/logtape";

/** The level where none is asked for. */
export const LOG_LEVEL_DEFAULT: LogLevel = "info";

const style = {
  timestamp: "rfc3339",
  level: "full",
  category: (category: readonly string[]) => category.slice(1).join("."),
  // Text is shown as it is, without quotes; it may come from a peer, so that it must not drive the terminal.
  value: (value: unknown) => typeof value === "string" ? printable(value) : Deno.inspect(value),
} as const;

/**
 * Sends the log to standard error. Call once per thread, before the first {@link logger} is used.
 *
 * @param level the least severe level that is let through
 */
export function startLog(level: LogLevel): void {
  const format = Deno.stderr.isTerminal() && !Deno.noColor ? getAnsiColorFormatter(style) : getTextFormatter(style);
  configureSync({
    reset: true,
    sinks: { stderr: (record: LogRecord) => writeError(format(record)) },
    loggers: [
      { category: "dst", lowestLevel: level, sinks: ["stderr"] },
      { category: ["logtape", "meta"], lowestLevel: "warning", sinks: ["stderr"] },
    ],
  });
}

/** The logger of one area, for example `exporter`. */
export function logger(area: string): Logger {
  return getLogger(["dst", area]);
}

/** Writes text to standard error as it is, whole, at once. There is nobody to be told when that fails. */
export function writeError(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch {
    // A full disk behind the log must not end a daemon.
  }
}

/**
 * Writes text to standard output as it is, whole, at once.
 *
 * @throws {Error} when that fails for another reason than that nobody reads it
 */
export function writeOutput(text: string): void {
  try {
    writeAll(Deno.stdout, text);
  } catch (error) {
    throw new Error(`Cannot write to standard output: ${messageOf(error)}`);
  }
}

const encoder = new TextEncoder();

function writeAll(to: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let written = 0; written < bytes.length;) {
    try {
      written += to.writeSync(bytes.subarray(written));
    } catch (error) {
      // A pipe that its owner has made non-blocking is full: wait for its reader.
      if (error instanceof Deno.errors.WouldBlock) Atomics.wait(waiter, 0, 0, FULL_PIPE_WAIT_MS);
      // Nobody reads any more (a closed pipe, a terminal that is gone): a daemon goes on without being heard.
      else if (isGone(error)) return;
      else throw error;
    }
  }
}

const waiter = new Int32Array(new SharedArrayBuffer(4));
/** Long enough to cost nothing, short enough not to be noticed. */
const FULL_PIPE_WAIT_MS = 2;

function isGone(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return error instanceof Deno.errors.BrokenPipe || code === "EIO" || code === "EPIPE";
}
