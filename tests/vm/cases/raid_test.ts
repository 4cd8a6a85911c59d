/**
 *                 ┌─ /dev/ublkbN ── dst attach ══════▶ dst export ──▶ disk.img
 *   ext4 on md0 ──┤
 *    (RAID1)      └─ /dev/ublkbM ── dst attach ══════▶ dst export ──▶ disk.img
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  attempt,
  checkFilesystem,
  dst,
  eventually,
  exists,
  makeFilesystem,
  mount,
  run,
  scratchFolder,
  shell,
} from "../guest_tools.ts";
import { type Attached, type Exported, startAttach, startExport } from "../disk.ts";
import { progress, requestsInFlight, VerifyingLoad } from "../load.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const ARRAY = "/dev/md0";
/** How long the second attachment's requests wait for its exporter: 6 s. Those of the first wait for 100 s. */
const SHORT_WINDOW = ["--resend-interval", "2s", "--resends", "3"];

/** One half of the array. */
interface Leg extends AsyncDisposable {
  readonly file: string;
  readonly attached: Attached;
  /** Ends the exporter as a crash does. */
  kill(): Promise<void>;
  /** Starts it again, where it was. */
  restart(): Promise<void>;
  stopExporter(): Promise<number>;
}

async function makeLeg(folder: string, options: string[]): Promise<Leg> {
  Deno.mkdirSync(folder);
  const file = `${folder}/disk.img`;
  await run(["truncate", "-s", `${DISK_BYTES}`, file]);
  let exported: Exported = await startExport(folder, [file]);
  const { address } = exported;
  const attached = await startAttach(`${address}/disk.img`, options);
  return {
    file,
    attached,
    kill: async () => {
      exported.daemon.signal("SIGKILL");
      await exported.daemon.wait();
    },
    restart: async () => {
      exported = await startExport(folder, [file], address);
    },
    stopExporter: () => exported.daemon.stop(),
    [Symbol.asyncDispose]: async () => {
      await attached[Symbol.asyncDispose]();
      await exported[Symbol.asyncDispose]();
    },
  };
}

/** A file of the array's folder in sysfs (Documentation/admin-guide/md.rst), trimmed. */
function md(name: string): string {
  return Deno.readTextFileSync(`/sys/block/md0/md/${name}`).trim();
}

/** Whether the array has a half for what it is: `in_sync`, or `faulty`. */
function isLeg({ attached }: Leg, state: string): boolean {
  return md(`dev-${attached.device.replace("/dev/", "")}/state`).split(",").includes(state);
}

/** Waits until the array is doing nothing but its work. */
function settled(): Promise<void> {
  return eventually("the array is whole and idle", () => md("sync_action") === "idle" && md("degraded") === "0");
}

Deno.test("an array over two exporters outlives a short outage of one unharmed, and a long one degraded", async () => {
  using folder = scratchFolder();
  await using first = await makeLeg(`${folder.path}/first`, []);
  await using second = await makeLeg(`${folder.path}/second`, SHORT_WINDOW);
  const devices = [first.attached.device, second.attached.device];
  // Without --failfast the array tries each block of a failed write again, and each waits as long as the write did.
  const kind = ["--level=1", "--raid-devices=2", "--bitmap=internal", "--assume-clean", "--failfast"];
  await run(["mdadm", "--create", ARRAY, "--run", "--quiet", ...kind, ...devices]);
  try {
    await makeFilesystem("ext4", ARRAY);
    {
      await using mounted = await mount(ARRAY);
      await using load = new VerifyingLoad(`${mounted.path}/file`, {
        bytes: 6 * MIB,
        blockSizes: "4k/60:16k/30:128k/10",
        depth: 16,
      });
      await progress(ARRAY, 200, load);

      await first.kill();
      await eventually("requests wait", () => requestsInFlight(first.attached.device) > 0);
      await first.restart();
      console.log(`first completed request ${await progress(first.attached.device, 1, load)} ms after the restart`);
      await progress(ARRAY, 200, load);
      assert.equal(md("degraded"), "0");
      assert(isLeg(first, "in_sync") && isLeg(second, "in_sync"));

      await second.kill();
      await eventually("the array is degraded", () => md("degraded") === "1");
      assert(isLeg(second, "faulty"));
      await progress(ARRAY, 200, load);
      await second.restart();
      await eventually("all lanes are connected", async () => {
        const { attachments } = JSON.parse((await dst(["status", "--json"])).stdout);
        return attachments.every(({ status }: { status: { connected: boolean } }) => status.connected);
      });
      // Busy until the last of its requests has failed.
      const removed = async () => (await attempt(["mdadm", ARRAY, "--remove", second.attached.device])).code === 0;
      await eventually("the lost half is taken out", removed);
      // In KiB a second: it does not have to spare the load.
      Deno.writeTextFileSync("/sys/block/md0/md/sync_speed_min", "1000000");
      await run(["mdadm", ARRAY, "--re-add", second.attached.device]);
      await settled();
      await progress(ARRAY, 200, load);
      await load.stop();
    }
    await checkFilesystem("ext4", ARRAY);
    Deno.writeTextFileSync("/sys/block/md0/md/sync_action", "check");
    await settled();
    assert.equal(md("mismatch_cnt"), "0");
    assert(isLeg(first, "in_sync") && isLeg(second, "in_sync"));
  } finally {
    if (exists("/sys/block/md0/md")) await run(["mdadm", "--stop", ARRAY]);
  }
  await run(["sync"]);
  // Past what the array keeps of its own, the same for both.
  const examined = await shell(`mdadm --examine ${devices[0]} | sed -n 's/.*Data Offset : \\([0-9]*\\) sectors/\\1/p'`);
  const dataOffset = Number(examined.stdout.trim()) * 512;
  assert(dataOffset > 0, examined.stdout);
  await run(["cmp", "-i", `${dataOffset}`, ...devices]);
  for (const { attached } of [first, second]) await attached.leave();
  assert.match(second.attached.daemon.log, /[1-9]\d* requests? had failed/);
  for (const { stopExporter } of [first, second]) assert.equal(await stopExporter(), 0);
  await run(["cmp", "-i", `${dataOffset}`, first.file, second.file]);
});
