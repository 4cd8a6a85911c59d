/**
 * Who may leave when: a device in use is never taken away from under its users, and a disk has one writer.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  attempt,
  checkFilesystem,
  dst,
  makeFilesystem,
  mount,
  run,
  scratchFolder,
  shell,
  waitForDevice,
  waitForGone,
} from "../guest_tools.ts";
import { DISK_BYTES, makeDiskFile, startAttach, startExport } from "../disk.ts";

/** Signals that ask a daemon to leave. */
const LEAVE_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Time for a daemon to end if it wrongly would; what is asserted afterwards is that it has not. */
function aWhile(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 3000));
}

Deno.test("detach and signals are refused while the filesystem is mounted, and nothing of it is lost", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  await makeFilesystem("ext4", attached.device);
  await run(["dd", "if=/dev/urandom", `of=${folder.path}/data`, "bs=1M", "count=20", "status=none"]);
  {
    await using mounted = await mount(attached.device);
    // Dirty pages only: not yet on the disk when the refusals happen.
    await run(["cp", `${folder.path}/data`, `${mounted.path}/data`]);
    const refused = await dst(["detach", attached.device]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, new RegExp(mounted.path));
    assert.doesNotMatch(refused.stderr, /\n\s+at /, "an error for a person has no stack trace");
    for (const signal of LEAVE_SIGNALS) attached.daemon.signal(signal);
    await aWhile();
    assert(!attached.daemon.ended, attached.daemon.log);
    assert.match(attached.daemon.log, new RegExp(mounted.path), "the log names the holder");
    await run(["cmp", `${folder.path}/data`, `${mounted.path}/data`]);
  }
  await checkFilesystem("ext4", attached.device);
  await run(["sysctl", "-q", "-w", "vm.drop_caches=3"]);
  {
    await using mounted = await mount(attached.device, "ro");
    await run(["cmp", `${folder.path}/data`, `${mounted.path}/data`]);
  }
  const detached = await dst(["detach", attached.device]);
  assert.equal(detached.code, 0, detached.stderr);
  await waitForGone(attached.device);
  assert.equal(await attached.daemon.wait(), 0, attached.daemon.log);
});

Deno.test("detach is refused while a program has the device open, and names it", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  const opened = new Deno.Command("sh", { args: ["-c", `exec sleep 1000 <${attached.device}`], stdin: "null" }).spawn();
  try {
    await shell(`until readlink /proc/${opened.pid}/fd/0 | grep -q ublkb; do sleep 0.1; done`);
    const refused = await dst(["detach", attached.device]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, new RegExp(`sleep|${opened.pid}`));
  } finally {
    opened.kill("SIGKILL");
    await opened.status;
  }
  await attached.leave();
});

Deno.test("detach is refused while another device stands on it", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  await run(["dmsetup", "create", "above", "--table", `0 ${DISK_BYTES / 512} linear ${attached.device} 0`]);
  try {
    const refused = await dst(["detach", attached.device]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /dm-\d+|above/);
  } finally {
    await run(["dmsetup", "remove", "--retry", "above"]);
  }
  await attached.leave();
});

Deno.test("what is dirty in the device's page cache is written before a daemon leaves", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  await using exported = await startExport(folder.path, [file]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  await run(["dd", "if=/dev/urandom", `of=${folder.path}/data`, "bs=1M", "count=8", "status=none"]);
  await run(["dd", `if=${folder.path}/data`, `of=${attached.device}`, "bs=64k", "conv=notrunc", "status=none"]);
  await attached.leave();
  await run(["cmp", "-n", `${8 * 1024 * 1024}`, `${folder.path}/data`, file]);
});

for (const signal of LEAVE_SIGNALS) {
  Deno.test(`an unused device goes away on ${signal}, with exit status 0 at both ends`, async () => {
    using folder = scratchFolder();
    await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
    await using attached = await startAttach(`${exported.address}/disk.img`);
    assert.equal(await attached.daemon.stop(signal), 0, attached.daemon.log);
    await waitForGone(attached.device);
    assert.equal(await exported.daemon.stop(signal), 0, exported.daemon.log);
  });
}

Deno.test("--force takes a mounted device away and says what that costs", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  await makeFilesystem("ext4", attached.device);
  await using mounted = await mount(attached.device);
  const forced = await dst(["detach", attached.device, "--force"]);
  assert.equal(forced.code, 0, forced.stderr);
  await attached.daemon.wait();
  await waitForGone(attached.device);
  assert.throws(() => {
    using file = Deno.openSync(`${mounted.path}/file`, { write: true, create: true });
    file.writeSync(new Uint8Array(4096));
    file.syncSync();
  });
});

Deno.test("a second writer is refused with the holder's name, a reader is admitted, --steal takes over", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const remote = `${exported.address}/disk.img`;
  await using first = await startAttach(remote);
  const refused = await dst(["attach", remote]);
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, new RegExp(`${Deno.hostname().replace(/\W/g, "\\$&")}.*127\\.0\\.0\\.1`));
  {
    await using reader = await startAttach(remote, ["--read-only"]);
    await reader.leave();
  }
  await using thief = await startAttach(remote, ["--steal"]);
  await waitForDevice(thief.device);
  await shell(`dd if=/dev/urandom of=${thief.device} bs=4096 count=1 oflag=direct status=none`);
  await assert.rejects(shell(`dd if=/dev/zero of=${first.device} bs=4096 count=1 oflag=direct status=none`));
  await thief.leave();
});

for (const isDirty of [false, true]) {
  const what = isDirty ? "with status 1 where something could not be written" : "in peace where nothing is lost";
  Deno.test(`a device whose exporter has died leaves ${what}`, async () => {
    using folder = scratchFolder();
    const file = await makeDiskFile(folder.path);
    await using exported = await startExport(folder.path, [file, "--layer", "volatile:8M"]);
    await using attached = await startAttach(`${exported.address}/disk.img`);
    const write = `dd if=/dev/urandom of=${attached.device} bs=64k count=4 status=none conv=notrunc`;
    await shell(`${write},fsync`);
    exported.daemon.signal("SIGKILL");
    await exported.daemon.wait();
    // It goes to the page cache, and no further.
    if (isDirty) await attempt(["sh", "-c", write]);
    assert.equal(await attached.daemon.stop(), isDirty ? 1 : 0, attached.daemon.log);
    if (isDirty) assert.match(attached.daemon.log, /is detached, but what was not yet written is lost/);
    else assert.doesNotMatch(attached.daemon.log, /may be lost|is lost \(/);
    await waitForGone(attached.device);
  });
}
