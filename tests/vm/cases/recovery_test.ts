/**
 *   dd                   dst attach  ──kill -9──▶  dst attach --recover            dst export
 *   ────────▶ /dev/ublkbN ──────────────────────────────────────── 127.0.0.1 ────────▶ file
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Daemon, dst, eventually, scratchFolder, shell, waitForGone } from "../guest_tools.ts";
import { type Attached, directAccess, makeDiskFile, startAttach, startExport } from "../disk.ts";

/** Kills a daemon as nothing else does: no handler of it runs. */
async function kill(daemon: Daemon): Promise<void> {
  daemon.signal("SIGKILL");
  await daemon.wait();
}

/** Takes over what was killed. */
function startRecovery(args: string[] = []): Promise<Attached> {
  return startAttach("--recover", args);
}

async function stateOf(device: string): Promise<{ error: string | null; status: Record<string, unknown> | null }> {
  const { attachments } = JSON.parse((await dst(["status", "--json"])).stdout);
  return attachments.find((one: { device: string }) => one.device === device);
}

Deno.test("what is asked of a device whose daemon was killed waits, and is done once another has taken it over", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const attached = await startAttach(`${exported.address}/disk.img`);
  const { device } = attached;
  await shell(`dd if=/dev/urandom of=${device} bs=64k count=4 oflag=direct status=none`);
  await kill(attached.daemon);
  assert.match(String((await stateOf(device)).error), /its daemon is gone: waits for dst attach --recover \d+/);
  const waiting = directAccess(device, "write", 4096);
  await using recovered = await startRecovery();
  assert.equal(recovered.device, device);
  assert.equal(await waiting, "");
  await recovered.leave();
});

Deno.test("what the exporter forgot while nobody served the device fails writes for good, and reads go on", async () => {
  using folder = scratchFolder();
  const args = [await makeDiskFile(folder.path), "--layer", "volatile:8M"];
  const exported = await startExport(folder.path, args);
  const { address } = exported;
  const attached = await startAttach(`${address}/disk.img`);
  const { device } = attached;
  await shell(`dd if=/dev/urandom of=${device} bs=64k count=4 oflag=direct status=none`);
  await kill(attached.daemon);
  await kill(exported.daemon);
  await using _ = await startExport(folder.path, args, address);
  for (let round = 0; round < 2; round++) {
    await using recovered = await startRecovery();
    assert.equal(await directAccess(device, "read", 0), "");
    assert.match(await directAccess(device, "write", 4096), /Input\/output error/);
    await eventually("the state says why", async () => {
      return /what was written last and not flushed is lost/.test(String((await stateOf(device)).status?.failure));
    });
    // Sticky: whoever comes next knows it, too.
    if (round === 0) await kill(recovered.daemon);
    else assert.match((await dst(["detach", device])).stderr, /is detached, but what .* lost/);
  }
  await waitForGone(device);
});
