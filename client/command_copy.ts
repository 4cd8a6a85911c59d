/**
 * `dst copy`.
 *
 * @module
 */
import { type Endpoint, formatRemote, parseEndpoint } from "../engine/control/address.ts";
import { asUsage, type Command, type CommandSpec, type ParsedArguments } from "../engine/control/arguments.ts";
import { ExitCode, usageFailure } from "../engine/control/failure.ts";
import { writeError } from "../engine/control/log.ts";
import { announce } from "../engine/control/output.ts";
import { printable } from "../engine/control/printable.ts";
import { formatSize } from "../engine/size.ts";
import { copy, type CopyProgress, type OpenLocal } from "./copy.ts";
import { SESSION_OPTIONS, sessionOptions } from "./options.ts";

/** As often as an eye can follow. */
const PROGRESS_INTERVAL_MS = 100;
const BAR_COLUMNS = 30;

/**
 * The command.
 *
 * @param openLocal opens the disks of this machine
 */
export function copyCommand(openLocal: OpenLocal): Command {
  return { spec, run: (args) => run(args, openLocal) };
}

const spec: CommandSpec = {
  name: "copy",
  summary: "Copies a disk to or from an export, a file, a block device or a pipe",
  positionals: "SOURCE DESTINATION",
  count: [2, 2],
  options: [
    { name: "--verify", help: "read the destination again and compare checksums" },
    ...SESSION_OPTIONS,
    { name: "--json", help: "print the result as JSON" },
  ],
  notes: [
    "SOURCE and DESTINATION are each a file, a block device, HOST[:PORT]/NAME, or - (standard input or output). What " +
    "has a slash in it and does not begin with / or . is an export, unless its folder is there; dst:// before it makes " +
    "that certain. Holes stay holes.",
  ],
  examples: [
    ["copy disk.img server/disk.img", "writes a file to an export"],
    ["copy server/disk.img backup.img --verify", "makes a backup of an export, and checks it"],
    ["copy server/disk.img - | zstd > backup.zst", "packs an export"],
    ["copy one/disk.img two/disk.img", "copies from one machine to another"],
  ],
};

async function run(args: ParsedArguments, openLocal: OpenLocal): Promise<number> {
  const [source, destination] = args.positionals.map((text) => asUsage(() => parseEndpoint(text, isFolder)));
  const json = args.has("--json");
  if (args.has("--verify") && destination.kind === "stdio") {
    throw usageFailure("--verify cannot read standard output again");
  }
  if (json && destination.kind === "stdio") {
    throw usageFailure("--json and the data cannot both go to standard output");
  }
  const abort = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      // The first one waits for what is under way, which an exporter that hangs can make long; the second does not.
      if (abort.signal.aborted) {
        writeError(`dst: Cannot finish the copy: ${signal} came again; the destination is incomplete\n`);
        Deno.exit(ExitCode.FAILED);
      }
      abort.abort(new Error(`Cannot finish the copy: ${signal} came`));
    });
  }
  const bar = Deno.stderr.isTerminal() ? new ProgressBar() : null;
  let result;
  try {
    result = await copy(source, destination, {
      ...sessionOptions(args),
      verify: args.has("--verify"),
      onProgress: bar === null ? null : (progress) => bar.show(progress),
      signal: abort.signal,
    }, openLocal);
  } finally {
    bar?.clear();
  }
  const { size, moved, elapsedMs, digest } = result;
  const speed = formatSize(Math.round(moved / Math.max(elapsedMs, 1) * 1000));
  const announcement = {
    json: { event: "copied", size, moved, elapsedMs, digest },
    text: `${printable(nameOf(source))} to ${printable(nameOf(destination))}: ${formatSize(size)}, of which ` +
      `${formatSize(moved)} data, in ${(elapsedMs / 1000).toFixed(1)} s (${speed}/s)` +
      (digest === null ? "" : `; verified, ${digest}`),
  };
  // Where the data went to standard output, what is said about it must not.
  if (destination.kind === "stdio") writeError(announcement.text + "\n");
  else announce(announcement, json);
  return 0;
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

function nameOf(endpoint: Endpoint): string {
  if (endpoint.kind === "stdio") return "-";
  return endpoint.kind === "path" ? endpoint.path : formatRemote(endpoint.host, endpoint.port, endpoint.name);
}

/** A line on the terminal that is written over and over. */
class ProgressBar {
  #shownAt = 0;
  readonly #startedAt = performance.now();

  show(progress: CopyProgress): void {
    const now = performance.now();
    if (now - this.#shownAt < PROGRESS_INTERVAL_MS) return;
    this.#shownAt = now;
    writeError(`\r${progressLine(progress, now - this.#startedAt)}\u001b[K`);
  }

  clear(): void {
    if (this.#shownAt > 0) writeError("\r\u001b[K");
  }
}

/** The text of a progress bar. */
export function progressLine({ done, total, moved }: CopyProgress, elapsedMs: number): string {
  const speed = `${formatSize(Math.round(moved / Math.max(elapsedMs, 1) * 1000))}/s`;
  if (total === null) return `${formatSize(done)}  ${speed}`;
  const share = total === 0 ? 1 : Math.min(done / total, 1);
  const filled = Math.round(share * BAR_COLUMNS);
  const bar = "#".repeat(filled) + "-".repeat(BAR_COLUMNS - filled);
  return `[${bar}] ${String(Math.floor(share * 100)).padStart(3)}%  ${formatSize(done)} of ${
    formatSize(total)
  }  ${speed}`;
}
