/**
 *   /dev/ublkbN ── dst attach ──── 127.0.0.1 ──── dst export ── file | loop device, which grows and shrinks
 *
 * @module
 */
import assert from "node:assert/strict";
import { RuntimeDirectory } from "../../../engine/control/runtime.ts";
import { callControl } from "../../../engine/control/socket.ts";
import { directAccess, DISK_BYTES, makeDiskFile, startAttach, startExport } from "../disk.ts";
import { deviceSize, dst, eventually, loopDevice, run, scratchFolder } from "../guest_tools.ts";

const MIB = 1024 * 1024;

/** Whether a block device of this kernel's ublk can get another size while it is there: since Linux 6.16. */
const FOLLOWS = await (async () => {
  const [major, minor] = (await run(["uname", "-r"])).stdout.split(".").map(Number);
  return major > 6 || (major === 6 && minor >= 16);
})();

/** What the one attachment says of itself; asked without a process of its own, which takes seconds here. */
async function status(): Promise<{ exportSize: number; resized: string | null; failure: string | null }> {
  const runtime = RuntimeDirectory.open();
  const [{ id }] = runtime.list().filter(({ kind }) => kind === "attach");
  const answer = await callControl(runtime.socketPath("attach", id), { command: "status" }, 60_000);
  return answer as Awaited<ReturnType<typeof status>>;
}

/** An exporter with a configuration file, and a way to give its disk another size that its client hears of. */
async function resizable(folder: string, path: string, resize: (bytes: number) => Promise<unknown>) {
  const config = `${folder}/e.toml`;
  Deno.writeTextFileSync(config, `[[exports]]\npath = "${path}"\nname = "disk"\n`);
  const exported = await startExport(folder, ["--config", config]);
  const reload = async (bytes: number) => {
    await resize(bytes);
    exported.daemon.signal("SIGHUP");
    await eventually(`the client knows of ${bytes} bytes`, async () => (await status()).exportSize === bytes);
  };
  return { exported, config, reload };
}

Deno.test("a file that is exported grows and shrinks, and the device follows or says what to do", async () => {
  using folder = scratchFolder();
  const path = await makeDiskFile(folder.path);
  const truncate = (bytes: number) => run(["truncate", "-s", `${bytes}`, path]);
  const { exported, reload } = await resizable(folder.path, path, truncate);
  await using _ = exported;
  await using attached = await startAttach(`${exported.address}/disk`);
  const { device, daemon } = attached;

  await reload(2 * DISK_BYTES);
  if (FOLLOWS) {
    assert.equal(await deviceSize(device), 2 * DISK_BYTES);
    assert.equal((await status()).resized, null);
  } else {
    const text = `the export has 1 GiB now, ${device} 512 MiB: detach and attach to see the new size`;
    assert.equal(await deviceSize(device), DISK_BYTES);
    assert.equal((await status()).resized, text);
    assert((await dst(["status"])).stdout.includes(`connected; ${text}`));
    assert(daemon.log.includes("detach and attach to see the new size"), daemon.log);
  }
  assert.equal(await directAccess(device, "write", 0), "");

  await reload(256 * MIB);
  if (!FOLLOWS) {
    const { resized } = await status();
    assert.match(`${resized}`, /^the export has 256 MiB now, .*: what is beyond its end fails; detach and attach/);
    assert.match(await directAccess(device, "read", 300 * MIB), /Input\/output error/);
    assert.match(await directAccess(device, "write", 300 * MIB), /No space left on device/);
  }
  assert.equal(await directAccess(device, "write", 255 * MIB), "");
  await attached.leave();
});

Deno.test("a block device that has another size stays the same disk, also for an exporter that is started again", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  await using loop = await loopDevice(file);
  const { exported, config, reload } = await resizable(folder.path, loop.path, async (bytes) => {
    await run(["truncate", "-s", `${bytes}`, file]);
    await run(["losetup", "--set-capacity", loop.path]);
  });
  await using _ = exported;
  await using attached = await startAttach(`${exported.address}/disk`);
  await reload(2 * DISK_BYTES);
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
  await using again = await startExport(folder.path, ["--config", config], exported.address);
  assert.equal(await directAccess(attached.device, "write", 255 * MIB), "");
  assert.equal((await status()).failure, null);
  await attached.leave();
  await using fresh = await startAttach(`${exported.address}/disk`);
  assert.equal(await deviceSize(fresh.device), 2 * DISK_BYTES);
  await fresh.leave();
  assert.equal(await again.daemon.stop(), 0, again.daemon.log);
});
