/**
 * What the daemons of a machine that is short of memory have to have: in the foreground, where they execute themselves, and in
 * the background, where they are started by another process.
 *
 * @module
 */
import assert from "node:assert/strict";
import { arenaBytes } from "../../../engine/engine.ts";
import { attachmentSlots } from "../../../client/attachment.ts";
import { ProcessControl } from "../../../ffi/constants.ts";
import { prctl } from "../../../ffi/libc.ts";
import { fioVerify, run, scratchFolder } from "../guest_tools.ts";
import { makeDiskFile, startAttach, startExport } from "../disk.ts";

const DEPTH = 32;
const LANES = 2;
/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of include/linux/sched.h, which PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER = 0x0008_0000 | 0x0010_0000;

/** The threads of a process that are no I/O flushers: their names, with their flags. */
function others(pid: number): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    const stat = Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`);
    // Field 9 of proc(5); the second may contain spaces.
    const flags = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]);
    if ((flags & IO_FLUSHER) !== IO_FLUSHER) found.push(`${stat.slice(0, stat.lastIndexOf(")") + 1)} ${flags}`);
  }
  return found;
}

/** A number of /proc/PID/status, in KiB. */
function statusKib(pid: number, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
}

function check(pid: number, lockedBytes: number): void {
  assert.deepEqual(others(pid), [], "every thread is an I/O flusher");
  assert.equal(Deno.readTextFileSync(`/proc/${pid}/oom_score_adj`).trim(), "-1000");
  const lockedKib = statusKib(pid, "VmLck");
  assert(lockedKib * 1024 >= lockedBytes, `${lockedKib} KiB are locked, and not ${lockedBytes} bytes`);
  const environment = Deno.readTextFileSync(`/proc/${pid}/environ`).split("\0");
  if (Deno.build.arch === "x86_64") assert(environment.includes("DENO_V8_FLAGS=--no-memory-protection-keys"));
}

for (const where of ["foreground", "background"] as const) {
  Deno.test(`in the ${where} all threads of an exporter and an attachment are prepared for want of memory`, async () => {
    // As a user's shell is.
    prctl(ProcessControl.SET_IO_FLUSHER, 0);
    using folder = scratchFolder();
    await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
    check(exported.daemon.pid, 0);
    const remote = `${exported.address}/disk.img`;
    const args = ["--depth", `${DEPTH}`, "--lanes", `${LANES}`];
    const arenas = LANES * arenaBytes(attachmentSlots("ublk", DEPTH));
    if (where === "foreground") {
      await using attached = await startAttach(remote, args);
      // After some work, for which V8 has threads.
      await fioVerify(attached.device, { bytes: 8 * 2 ** 20, blockSizes: "4k/50:64k/50", depth: 16 });
      check(attached.daemon.pid, arenas);
      await attached.leave();
      return;
    }
    const main = new URL("../../../main.ts", import.meta.url).pathname;
    const dst = (...words: string[]) => run([Deno.execPath(), "run", "--quiet", "-A", main, ...words]);
    await dst("attach", remote, ...args, "--background");
    const [{ pid, device }] = JSON.parse((await dst("status", "--json")).stdout).attachments;
    check(pid, arenas);
    await dst("detach", device);
  });
}
