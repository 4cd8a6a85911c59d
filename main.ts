/**
 * The command line: finds the command, runs it, and turns what went wrong into a line that a person can use.
 *
 * @module
 */
import { type Command, helpOf, helpOfAll, parseArguments } from "./engine/control/arguments.ts";
import { ExitCode, exitCodeOf, messageOf, usageFailure } from "./engine/control/failure.ts";
import { LOG_LEVEL_DEFAULT, logger, type LogLevel, startLog, writeError, writeOutput } from "./engine/control/log.ts";
import { printable } from "./engine/control/printable.ts";
import { suggestion } from "./engine/control/suggest.ts";
import manifest from "./deno.json" with { type: "json" };

/** A command that is loaded when it is asked for, so that no command waits for the modules of the others. */
interface Entry {
  readonly name: string;
  readonly summary: string;
  load(): Promise<Command>;
}

const COMMANDS: readonly Entry[] = [
  {
    name: "export",
    summary: "serve a disk to other machines",
    load: async () => (await import("./exporter/command.ts")).command,
  },
  {
    name: "attach",
    summary: "make a disk of another machine a local device",
    load: async () => (await import("./client/command_attach.ts")).command,
  },
  {
    name: "detach",
    summary: "detach a device",
    load: async () => {
      const { detachCommand } = await import("./engine/control/command_status.ts");
      return detachCommand(async (...args) => await (await import("./client/recover.ts")).removeWaiting(...args));
    },
  },
  {
    name: "set",
    summary: "change how patient an attachment is",
    load: async () => (await import("./client/command_set.ts")).command,
  },
  {
    name: "status",
    summary: "show what is attached and exported here",
    load: async () => (await import("./engine/control/command_status.ts")).statusCommand,
  },
  {
    name: "list",
    summary: "show what another machine exports",
    load: async () => (await import("./client/command_query.ts")).listCommand,
  },
  {
    name: "info",
    summary: "show all about one export",
    load: async () => (await import("./client/command_query.ts")).infoCommand,
  },
  {
    name: "copy",
    summary: "copy a disk to or from an export",
    load: async () => {
      const { copyCommand } = await import("./client/command_copy.ts");
      return copyCommand((await import("./exporter/local.ts")).openLocal);
    },
  },
  {
    name: "keygen",
    summary: "make a key that exporter and client share",
    load: async () => (await import("./engine/control/command_keygen.ts")).keygenCommand,
  },
  {
    name: "bench",
    summary: "measure how fast an export is",
    load: async () => (await import("./client/command_measure.ts")).command,
  },
  {
    name: "demo",
    summary: "show the whole path at work, on this machine",
    load: async () => (await import("./client/command_demo.ts")).command,
  },
];

async function run(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    writeError(helpOfAll(COMMANDS) + "\n");
    return ExitCode.USAGE;
  }
  if (name === "--version") {
    writeOutput(`dst ${manifest.version}\n`);
    return ExitCode.OK;
  }
  const asksForHelp = name === "help" || name === "--help" || name === "-h";
  if (asksForHelp && rest.length === 0) {
    writeOutput(helpOfAll(COMMANDS) + "\n");
    return ExitCode.OK;
  }
  const command = await findCommand(asksForHelp ? rest[0] : name);
  const parsed = asksForHelp ? null : parseArguments(command.spec, rest);
  if (parsed === null) {
    writeOutput(helpOf(command.spec) + "\n");
    return ExitCode.OK;
  }
  startLog(parsed.value("--log-level") as LogLevel | undefined ?? LOG_LEVEL_DEFAULT);
  return await command.run(parsed);
}

function findCommand(name: string): Promise<Command> {
  const entry = COMMANDS.find((candidate) => candidate.name === name);
  if (entry !== undefined) return entry.load();
  const near = suggestion(name, COMMANDS.map((candidate) => candidate.name));
  throw usageFailure(`Unknown command "${name}"${near || " (see dst --help)"}`);
}

if (import.meta.main) {
  let exitCode: number;
  try {
    exitCode = await run(Deno.args);
  } catch (error) {
    // It may name what somebody else has named: an export, a file.
    writeError(`dst: ${printable(messageOf(error))}\n`);
    const stack = error instanceof Error ? error.stack ?? "" : "";
    for (const line of stack.split("\n")) logger("main").debug("{line}", { line });
    exitCode = exitCodeOf(error);
  }
  // Threads that are still there must not keep a command that is done from ending.
  Deno.exit(exitCode);
}
