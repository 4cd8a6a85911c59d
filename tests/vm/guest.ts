/**
 * Runs inside the VM: loads the modules that the cases need, runs the case files, then once more those for a kernel
 * whose io_uring is switched off. Arguments choose the case files whose path contains one of them.
 *
 * @module
 */
import { ProcessControl } from "../../ffi/constants.ts";
import { prctl } from "../../ffi/libc.ts";
import { run, switchProcessor, sysctl } from "./guest_tools.ts";

const CASES = new URL("cases/", import.meta.url).pathname;
/** Case files in this folder run last, with `kernel.io_uring_disabled` = 2: that switch is for the whole kernel. */
const WITHOUT_IO_URING = new URL("cases/without_io_uring/", import.meta.url).pathname;
/** Loaded up front, so that a kernel without one of them fails here and not in the middle of a case. */
const MODULES = ["ublk_drv", "nbd", "loop", "brd", "ext4", "xfs", "raid1", "dm-flakey", "dm-log-writes", "sch_netem"];
/** Parameters of modules that have them: one RAM disk of 320 MiB (in KiB; mkfs.xfs wants 300), four idle nbd devices. */
const MODULE_PARAMETERS: Record<string, string[]> = { brd: ["rd_nr=1", "rd_size=327680"], nbd: ["nbds_max=4"] };

function caseFiles(folder: string, words: readonly string[]): string[] {
  try {
    return [...Deno.readDirSync(folder)]
      .filter((entry) => entry.isFile && entry.name.endsWith("_test.ts"))
      .map((entry) => `${folder}${entry.name}`)
      .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))
      .sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function runCases(files: string[]): Promise<boolean> {
  if (files.length === 0) return true;
  // Types were checked on the host, where it takes a tenth of the time. What the cases print is to be seen.
  const args = ["test", "-A", "--no-check", "--cached-only", ...files];
  // Through a pipe: on a terminal, which a serial port is, every test's name would be printed twice.
  const child = new Deno.Command(Deno.execPath(), { args, stdin: "null", stdout: "piped" }).spawn();
  await child.stdout.pipeTo(Deno.stdout.writable, { preventClose: true });
  return (await child.status).success;
}

async function main(words: readonly string[]): Promise<number> {
  for (const module of MODULES) await run(["modprobe", module, ...MODULE_PARAMETERS[module] ?? []]);
  const plain = caseFiles(CASES, words);
  const withoutIoUring = caseFiles(WITHOUT_IO_URING, words);
  if (plain.length + withoutIoUring.length === 0) {
    console.log(`no case file matches ${words.join(" ")}`);
    return 1;
  }
  // What starts here is an I/O flusher from the start, and has no need to execute itself once more: that takes seconds in a VM.
  prctl(ProcessControl.SET_IO_FLUSHER, 1);
  // One thread emulates all processors: where two have work, each waits for the other's turns of a tenth of a second.
  switchProcessor(1, false);
  let good = await runCases(plain);
  await sysctl("kernel.io_uring_disabled", "2");
  good = await runCases(withoutIoUring) && good;
  return good ? 0 : 1;
}

Deno.exit(await main(Deno.args));
