/**
 * With io_uring switched off in the whole kernel, both ends run on the poll loop, and the device is the kernel's own NBD
 * client over `dst attach --nbd` (ublk itself needs io_uring):
 *
 *   mkfs, mount, fio          dst attach --nbd          dst export
 *   ───────────▶ /dev/nbd1 ── unix socket ──▶ ──── 127.0.0.1 ────▶ file
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  checkFilesystem,
  Daemon,
  deviceSize,
  dst,
  fioVerify,
  makeFilesystem,
  mount,
  run,
  scratchFolder,
} from "../../guest_tools.ts";
import { DISK_BYTES, makeDiskFile, startExport } from "../../disk.ts";

const MIB = 1024 * 1024;
const DEVICE = "/dev/nbd1";

Deno.test("a filesystem lives on an export that both ends serve by the poll loop", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const socket = `${folder.path}/nbd.sock`;
  await using attached = new Daemon(["attach", `${exported.address}/disk.img`, "--nbd", `unix:${socket}`]);
  const event = await attached.event("attached", { nbd: `unix:${socket}` });
  assert.equal(event.size, DISK_BYTES);
  await run(["nbd-client", "-unix", socket, DEVICE]);
  try {
    assert.equal(await deviceSize(DEVICE), DISK_BYTES);
    await fioVerify(DEVICE, { bytes: 16 * MIB, blockSizes: "4k/60:64k/30:256k/10", depth: 16 });
    await makeFilesystem("ext4", DEVICE);
    {
      await using mounted = await mount(DEVICE);
      await run(["cp", "-a", new URL("../..", import.meta.url).pathname, `${mounted.path}/copy`]);
      await run(["diff", "-r", new URL("../..", import.meta.url).pathname, `${mounted.path}/copy`]);
    }
    await checkFilesystem("ext4", DEVICE);
  } finally {
    await run(["nbd-client", "-d", DEVICE]);
  }
  assert.equal(await attached.stop(), 0, attached.log);
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
});

Deno.test("what needs io_uring says so in one line, and how to do without", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  const uring = await dst(["export", file, "--loop", "uring", "--listen", "127.0.0.1:0"]);
  assert.notEqual(uring.code, 0);
  assert.match(uring.stderr, /io_uring/);
  await using exported = await startExport(folder.path, [file]);
  const ublk = await dst(["attach", `${exported.address}/disk.img`]);
  assert.notEqual(ublk.code, 0);
  assert.match(ublk.stderr, /io_uring[\s\S]*--nbd/);
});
