/**
 * A filesystem at work while its exporter is killed, again and again.
 *
 * @module
 */
import assert from "node:assert/strict";
import { checkFilesystem, KILL_ROUNDS, makeFilesystem, mount, scratchFolder, shell } from "./guest_tools.ts";
import { makeDiskFile, startAttach, startExport } from "./disk.ts";
import { fullDepth, progress, requestsInFlight, VerifyingLoad } from "./load.ts";

const MIB = 1024 * 1024;
/** Of each queue of the device. */
const DEPTH = 64;
/** Slow enough that fio can keep as many under way: each write takes so many milliseconds longer. */
const SLOW = ["--layer", "delay:write=100"];
/** Longer than any round takes, in milliseconds. */
const ROUND_MS = 120_000;

/**
 * Kills the exporter {@link KILL_ROUNDS} times, each time with all under way that a queue has room for, and starts it
 * again. fio must not see anything of it, no fsync may fail, and the filesystem must be clean at the end.
 *
 * @param layers of the exporter, that it is started with for the nth time
 * @param options of the attachment
 */
export async function killExporterUnderLoad(layers: (nth: number) => string[], options: string[] = []): Promise<void> {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  let exported = await startExport(folder.path, [...layers(0), ...SLOW, file]);
  const { address } = exported;
  try {
    await using attached = await startAttach(`${address}/disk.img`, ["--depth", `${DEPTH}`, ...options]);
    const { device } = attached;
    await makeFilesystem("ext4", device);
    {
      await using mounted = await mount(device);
      const job = { bytes: 12 * MIB, blockSizes: "4k/70:16k/20:64k/10", depth: 2 * DEPTH };
      await using load = new VerifyingLoad(`${mounted.path}/verified`, job);
      const synced = syncWithoutEnd(mounted.path, `${folder.path}/enough`);
      for (let round = 1; round <= KILL_ROUNDS; round++) {
        await progress(device, 2 * DEPTH, load);
        await fullDepth(device, load);
        exported.daemon.signal("SIGKILL");
        await exported.daemon.wait();
        const waiting = requestsInFlight(device);
        exported = await startExport(folder.path, [...layers(round), ...SLOW, file], address);
        const ms = await progress(device, 1, load);
        console.log(
          `round ${round} of ${KILL_ROUNDS}: ${waiting} requests waited, the first for ${ms} ms after the start`,
        );
      }
      await progress(device, 2 * DEPTH, load);
      await load.stop();
      Deno.writeTextFileSync(`${folder.path}/enough`, "");
      console.log(`${load.runs} runs of fio, ${(await synced).stdout.trim()} fsyncs`);
    }
    await checkFilesystem("ext4", device);
    await attached.leave();
    const { log } = attached.daemon;
    assert.doesNotMatch(log, /\[error\]|had failed/);
    const returns = log.match(/Connected again after/g)?.length ?? 0;
    // Where a lane is not back yet when the next round begins, two are one.
    assert(returns > 0 && returns <= KILL_ROUNDS, log);
    assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
    await checkFilesystem("ext4", file);
  } finally {
    await exported.daemon[Symbol.asyncDispose]();
  }
}

/** Writes and syncs small files until there is a file of that name: the journal has work, and the device flushes. */
function syncWithoutEnd(folder: string, until: string) {
  const one = `dd if=/dev/urandom of=${folder}/small-$((i % 8)) bs=16k count=2 conv=fsync status=none`;
  return shell(`i=0; until [ -e ${until} ]; do i=$((i + 1)); ${one}; done; echo $i`, (KILL_ROUNDS + 1) * ROUND_MS);
}
