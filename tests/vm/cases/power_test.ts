/**
 *   work with fsync on ext4 or xfs on /dev/ublkbN ── dst attach ══▶ dst export ──▶ dm-log-writes ──▶ disk
 *                                                                                       │
 *                                                            every state of the disk ◀──┘ log
 *
 * A disk that loses its power keeps what was flushed and any part of the rest. The log has that order; the disk is
 * built again from it up to each flush, and up to many places in between, and then mounted as after a loss of power.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Random } from "../../../engine/random.ts";
import { checkFilesystem, type Filesystem, loopDevice, mount, run, scratchFolder } from "../guest_tools.ts";
import { type Exported, startAttach, startExport } from "../disk.ts";
import { findLosses, type Legal, type Progress, SyncedWork } from "../fsync_oracle.ts";
import { applyWrite, readWriteLog, type WriteEntry, WriteFlag } from "../write_log.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 32 * MIB;
/** All that is written, with a sector for each request; the file is sparse. */
const LOG_BYTES = 512 * MIB;
/** Cuts of each filesystem, at least. */
const CUTS = Deno.env.get("DST_TEST_LONG") === "1" ? 500 : 50;
/** Cuts that are no flush, at least. */
const CUTS_BETWEEN = 10;
/** Steps of the work. */
const STEPS = Deno.env.get("DST_TEST_LONG") === "1" ? 250 : 16;
/** States that are looked at at once: as many as the VM has processors. */
const AT_ONCE = 2;
const seed = Number(Deno.env.get("DST_TEST_SEED") ?? Date.now() % 2 ** 31);

/** The smallest filesystems that there are: mkfs.xfs makes these only where xfs is tested (`validate_supported`). */
const MAKE: Record<Filesystem, string[]> = {
  ext4: ["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0", "-m", "0"],
  xfs: ["env", "TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1", "mkfs.xfs", "-q", "-f", "-K"],
};

/** What the log and the work tell together. */
interface History {
  /** The log's path. */
  readonly log: string;
  /** What was synced at each mark, and written until the next one. */
  readonly legal: readonly Legal[];
}

/** Works on a filesystem until there is enough, and records all that reaches the exporter's disk. */
async function recordWork(type: Filesystem, folder: string): Promise<History> {
  const [disk, log] = [`${folder}/disk`, `${folder}/log`];
  await run(["truncate", "-s", `${DISK_BYTES}`, disk]);
  await run(["truncate", "-s", `${LOG_BYTES}`, log]);
  const synced: Progress[] = [];
  const written: Progress[] = [];
  {
    await using below = await loopDevice(disk);
    await using beside = await loopDevice(log);
    const table = `0 ${DISK_BYTES / 512} log-writes ${below.path} ${beside.path}`;
    await run(["dmsetup", "create", "recorded", "--table", table]);
    try {
      const minor = (await run(["dmsetup", "info", "-c", "--noheadings", "-o", "minor", "recorded"])).stdout.trim();
      await using exported: Exported = await startExport(folder, [`disk=/dev/dm-${minor}`]);
      await using attached = await startAttach(`${exported.address}/disk`);
      await run([...MAKE[type], attached.device]);
      await run(["sync"]);
      await using mounted = await mount(attached.device);
      const work = new SyncedWork(mounted.path, seed);
      for (let step = 0; step <= STEPS; step++) {
        if (step > 0) work.step();
        // What the step has written may be there before its mark; what it has synced is there from the mark on.
        if (step > 0) written.push(work.written);
        synced.push(work.synced);
        await run(["dmsetup", "message", "recorded", "0", "mark", `step-${step}`]);
      }
      written.push(work.written);
      await mounted.unmount();
      await attached.leave();
      assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
    } finally {
      await run(["dmsetup", "remove", "--retry", "recorded"]);
    }
  }
  return { log, legal: synced.map((synced, mark) => ({ synced, written: written[mark] })) };
}

/** After which entries the power goes: after every flush since the filesystem is there, and in places by chance. */
function chooseCuts(entries: readonly WriteEntry[], random: Random): { cuts: number[]; flushes: number } {
  const first = entries.findIndex(({ mark }) => mark === "step-0");
  assert(first > 0, "the log has the mark of its beginning");
  const cuts = new Set<number>();
  for (const [index, { flags }] of entries.entries()) {
    if (index > first && (flags & (WriteFlag.FLUSH | WriteFlag.FUA)) !== 0) cuts.add(index);
  }
  const flushes = cuts.size;
  const enough = Math.min(entries.length - first, Math.max(CUTS, flushes + CUTS_BETWEEN));
  while (cuts.size < enough) cuts.add(first + random.below(entries.length - first));
  return { cuts: [...cuts].sort((one, other) => one - other), flushes };
}

/**
 * Mounts a disk as it is after a cut, which has the filesystem replay its journal.
 *
 * @returns what is wrong with it, for people
 */
async function examine(type: Filesystem, image: string, legal: Legal): Promise<string[]> {
  try {
    await using device = await loopDevice(image);
    let losses: string[];
    {
      // Two states of one filesystem may be mounted at once.
      await using mounted = await mount(device.path, type === "xfs" ? "nouuid" : "defaults");
      losses = findLosses(mounted.path, legal);
    }
    await checkFilesystem(type, device.path);
    return losses;
  } catch (error) {
    return [(error as Error).message];
  }
}

for (const type of ["ext4", "xfs"] as const) {
  Deno.test(`whenever the exporter's disk loses its power, ${type} on the device has all that was synced`, async () => {
    console.log(`replay with DST_TEST_SEED=${seed}`);
    using folder = scratchFolder();
    const history = await recordWork(type, folder.path);
    using log = Deno.openSync(history.log, { read: true });
    const entries = readWriteLog(log);
    const { cuts, flushes } = chooseCuts(entries, new Random(seed));
    const base = `${folder.path}/base`;
    await run(["truncate", "-s", `${DISK_BYTES}`, base]);
    using image = Deno.openSync(base, { write: true });
    const problems: string[] = [];
    const examined = new Set<Promise<void>>();
    let next = 0;
    let mark = -1;
    for (const cut of cuts) {
      for (; next <= cut; next++) {
        applyWrite(log, entries[next], image);
        if (entries[next].mark.startsWith("step-")) mark++;
      }
      if (examined.size === AT_ONCE) await Promise.race(examined);
      const copy = `${folder.path}/cut-${cut}`;
      await run(["cp", "--sparse=always", base, copy]);
      const where = `after entry ${cut} of ${entries.length}, step ${mark}`;
      const one = examine(type, copy, history.legal[mark]).then((found) => {
        problems.push(...found.map((problem) => `${where}: ${problem}`));
        examined.delete(one);
        if (cut !== cuts[0]) Deno.removeSync(copy);
      });
      examined.add(one);
    }
    await Promise.all(examined);
    console.log(`${type}: ${cuts.length} cuts, ${flushes} of them at a flush or FUA, in ${entries.length} writes`);
    assert.deepEqual(problems, []);
    // The empty filesystem of the first cut does not pass for the last.
    assert((await examine(type, `${folder.path}/cut-${cuts[0]}`, history.legal.at(-1)!)).length > 0);
  });
}
