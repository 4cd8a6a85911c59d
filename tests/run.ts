/**
 * Every test there is, in stages: `deno task test`, or with `--long` the long forms too. Words that are not options choose
 * the stages whose name contains one of them: `deno task test vm`.
 *
 * Each stage streams its output and ends with its time; the last line of the whole is `N passed, N failed`. What a stage
 * needs and the machine lacks is a failure where `CI` is `true`, and otherwise a stage skipped with a loud word.
 *
 * @module
 */
import { ensureKernel, ensurePackages, findProgram, searchPath } from "./packages.ts";
import { TextLineStream } from "./vm/lines.ts";

/** The checkout. */
const REPOSITORY = new URL("..", import.meta.url).pathname;
/** Folders of `tests/` that are not stages of their own: no tests, or run in their own way. */
const OTHER_FOLDERS = ["bench", "vm"];
/** Stages of `tests/` folders, in this order; folders that are not named here come after them. */
const FOLDER_ORDER = ["protocol", "simulator", "nbd", "cli"];
/** A stage that takes longer hangs. The long forms get ten times as much. */
const STAGE_TIMEOUT_S = 15 * 60;
/** The VM's processor is emulated; its own limit (`vm/boot.ts`) comes first, as it says more. */
const VM_STAGE_TIMEOUT_S = 46 * 60;
/** What timeout(1) answers when it had to end the command. */
const TIMED_OUT = 124;

/** What came of one or more test runs. */
export interface Counts {
  passed: number;
  failed: number;
  ignored: number;
}

/** One step of the whole. */
export interface Stage {
  readonly name: string;
  /** Packages without which it cannot run; `kernel` is the VM's. */
  readonly needs: readonly string[];
  /** Its commands, run one after the other until one fails. */
  readonly commands: readonly (readonly string[])[];
  /** Seconds for each command, {@link STAGE_TIMEOUT_S} where it says nothing. */
  readonly timeoutS?: number;
}

/** `deno test`'s last line of a run, as far as its counts go. */
const RESULT_LINE =
  /^(?:ok|FAILED) \| (\d+) passed(?: \(\d+ steps?\))?(?: \| (\d+) failed(?: \(\d+ steps?\))?)?(?: \| (\d+) ignored)?/;
// deno-lint-ignore no-control-regex -- colour codes begin with the escape character
const COLOUR = /\x1b\[[0-9;]*m/g;

/** The counts that a line of `deno test`'s output states, null for any other line. */
export function parseResult(line: string): Counts | null {
  const match = RESULT_LINE.exec(line.replace(COLOUR, ""));
  if (match === null) return null;
  return { passed: Number(match[1]), failed: Number(match[2] ?? 0), ignored: Number(match[3] ?? 0) };
}

/**
 * What a command counts for: what its test runs said, or one when it ran no tests. A bad exit status is always at least
 * one failure, also where every test that came to run passed.
 */
export function judge(said: Counts, runs: number, success: boolean): Counts {
  const passed = runs === 0 && success ? 1 : said.passed;
  const failed = success ? said.failed : Math.max(said.failed, 1);
  return { passed, failed, ignored: said.ignored };
}

/** The stages of this checkout, in order. */
export function stages(ci: boolean): Stage[] {
  const deno = Deno.execPath();
  const found = new Set(subfolders("tests").filter((name) => !OTHER_FOLDERS.includes(name)));
  const folders = [...FOLDER_ORDER.filter((name) => found.delete(name)), ...[...found].sort()];
  const harnessTests = [...testFiles("tests"), ...testFiles("tests/bench"), ...testFiles("tests/vm")]
    // That one is part of `deno task ok`.
    .filter((path) => path !== "tests/rules_test.ts");
  const all: Stage[] = [];
  if (exists("wasm/rebuild_check.ts")) {
    // Rebuilding needs Rust, which a user has no need of: only where everything is to be checked. It comes first, because
    // a crate that it fetches brings vectors that the unit tests read, too.
    if (ci) all.push({ name: "wasm rebuild", needs: [], commands: [[deno, "run", "-A", "wasm/rebuild_check.ts"]] });
    else console.log("the wasm module is not rebuilt and compared: only with CI=true");
  }
  all.push({
    name: "format, lint, types, unit tests",
    needs: [],
    commands: [
      [deno, "task", "--quiet", "ok"],
      [deno, "test", "-A", "--quiet", ...harnessTests],
    ],
  });
  for (const name of folders) {
    const tools = ["qemu-utils", "fio", "nbdkit", "libnbd-bin"];
    // The terminal on which a passphrase is typed.
    const needs = name === "nbd" || name === "faults" ? tools : name === "cli" ? ["bsdutils"] : [];
    // What these print is what they are for, too.
    const quiet = name === "faults" || name === "simulator" ? [] : ["--quiet"];
    all.push({ name, needs, commands: [[deno, "test", "-A", ...quiet, `tests/${name}/`]] });
  }
  const needs = ["qemu-system-x86", "busybox-static", "cpio", "xz-utils", "kmod", "fdisk", "dmsetup", "e2fsprogs"];
  needs.push("xfsprogs", "iproute2", "fio", "nbdkit", "nbd-client", "mdadm", "kernel");
  all.push({ name: "vm", needs, commands: [[deno, "run", "-A", "tests/vm/boot.ts"]], timeoutS: VM_STAGE_TIMEOUT_S });
  return all;
}

/** Runs one command, its output passed on line by line. Its whole process group ends with it when it takes too long. */
async function runCommand(command: readonly string[], timeoutSeconds: number): Promise<Counts> {
  const child = new Deno.Command("timeout", {
    args: ["--kill-after=20", `${timeoutSeconds}`, ...command],
    cwd: REPOSITORY,
    env: { PATH: searchPath(), NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const interrupt = () => {
    child.kill("SIGTERM");
    child.status.then(() => Deno.exit(130));
  };
  Deno.addSignalListener("SIGINT", interrupt);
  Deno.addSignalListener("SIGTERM", interrupt);
  const said: Counts = { passed: 0, failed: 0, ignored: 0 };
  let runs = 0;
  for await (const line of child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
    console.log(line);
    const counts = parseResult(line);
    if (counts === null) continue;
    runs++;
    add(said, counts);
  }
  const { code, success } = await child.status;
  Deno.removeSignalListener("SIGINT", interrupt);
  Deno.removeSignalListener("SIGTERM", interrupt);
  if (code === TIMED_OUT) console.log(`not done after ${timeoutSeconds} s, so it was ended: ${command.join(" ")}`);
  return judge(said, runs, success);
}

/** Runs the stage and prints its counts and time. */
async function runStage(stage: Stage, timeoutSeconds: number): Promise<Counts> {
  console.log(`\n== ${stage.name}`);
  const started = performance.now();
  const total: Counts = { passed: 0, failed: 0, ignored: 0 };
  for (const command of stage.commands) {
    add(total, await runCommand(command, timeoutSeconds));
    if (total.failed > 0) break;
  }
  const ignored = total.ignored > 0 ? `, ${total.ignored} ignored` : "";
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`== ${stage.name}: ${total.passed} passed, ${total.failed} failed${ignored}, ${seconds} s`);
  return total;
}

/** Finds or installs what the stages need: what is missing all the same, each with the way to get it. */
async function missingPieces(needed: ReadonlySet<string>): Promise<Map<string, string>> {
  const missing = new Map<string, string>();
  if (needed.size === 0) return missing;
  const packages = await ensurePackages().catch((error: Error) => {
    console.log(error.message);
    return [...needed].filter((name) => name !== "kernel");
  });
  for (const name of packages) if (needed.has(name)) missing.set(name, `apt-get install ${name}`);
  if (needed.has("kernel")) {
    await ensureKernel().catch((error: Error) => missing.set("kernel", error.message));
  }
  return missing;
}

async function main(args: readonly string[]): Promise<number> {
  const ci = Deno.env.get("CI") === "true";
  const long = args.includes("--long");
  if (long) Deno.env.set("DST_TEST_LONG", "1");
  const words = args.filter((arg) => !arg.startsWith("--"));
  const started = performance.now();
  const chosen = stages(ci).filter((stage) => words.length === 0 || words.some((word) => stage.name.includes(word)));
  if (findProgram("timeout") === null) throw new Error("Cannot run the tests: install coreutils, for timeout(1)");

  console.log("== packages");
  const missing = await missingPieces(new Set(chosen.flatMap((stage) => stage.needs)));
  console.log(`== packages: ${missing.size} missing, ${((performance.now() - started) / 1000).toFixed(1)} s`);

  const total: Counts = { passed: 0, failed: 0, ignored: 0 };
  const skipped: string[] = [];
  for (const stage of chosen) {
    const lacking = stage.needs.filter((name) => missing.has(name));
    if (lacking.length === 0) {
      add(total, await runStage(stage, (stage.timeoutS ?? STAGE_TIMEOUT_S) * (long ? 10 : 1)));
      continue;
    }
    console.log(`\n== ${stage.name}: ${ci ? "FAILED" : "SKIPPED"}, as this machine lacks:`);
    for (const name of lacking) console.log(`   ${name}: ${missing.get(name)}`);
    if (ci) total.failed++;
    else skipped.push(stage.name);
  }

  console.log(`\nall stages: ${((performance.now() - started) / 60_000).toFixed(1)} min`);
  if (total.ignored > 0) console.log(`${total.ignored} TESTS IGNORED: their output above says why`);
  if (skipped.length > 0) console.log(`${skipped.length} STAGES SKIPPED: ${skipped.join(", ")}`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

function add(total: Counts, more: Counts): void {
  total.passed += more.passed;
  total.failed += more.failed;
  total.ignored += more.ignored;
}

/** Folders below the given one that hold test files, at any depth. */
function subfolders(folder: string): string[] {
  return [...Deno.readDirSync(`${REPOSITORY}${folder}`)]
    .filter((entry) => entry.isDirectory && holdsTests(`${folder}/${entry.name}`))
    .map((entry) => entry.name);
}

function holdsTests(folder: string): boolean {
  if (testFiles(folder).length > 0) return true;
  const entries = [...Deno.readDirSync(`${REPOSITORY}${folder}`)];
  return entries.some((entry) => entry.isDirectory && holdsTests(`${folder}/${entry.name}`));
}

/** The test files in the folder itself. */
function testFiles(folder: string): string[] {
  return [...Deno.readDirSync(`${REPOSITORY}${folder}`)]
    .filter((entry) => entry.isFile && entry.name.endsWith("_test.ts"))
    .map((entry) => `${folder}/${entry.name}`)
    .sort();
}

function exists(path: string): boolean {
  try {
    Deno.statSync(`${REPOSITORY}${path}`);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
