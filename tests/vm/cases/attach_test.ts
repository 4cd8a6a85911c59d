/**
 *   mkfs, mount, fio            dst attach            dst export
 *   ───────────────▶ /dev/ublkbN ──────── 127.0.0.1 ────────▶ file | block device
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  attempt,
  checkFilesystem,
  deviceSize,
  dst,
  exists,
  type Filesystem,
  fioVerify,
  loopDevice,
  makeFilesystem,
  mount,
  queueAttribute,
  run,
  scratchFolder,
  secondProcessor,
  shell,
  waitForDevice,
  waitForGone,
} from "../guest_tools.ts";
import { allocatedBytes, directAccess, DISK_BYTES, makeDiskFile, startAttach, startExport } from "../disk.ts";

const MIB = 1024 * 1024;
/** A tree of a few hundred files of all sizes that is there wherever the VM is: a part of its own kernel's modules. */
const TREE = `/lib/modules/${(await run(["uname", "-r"])).stdout.trim()}/kernel/fs`;

async function filesystemCase(type: Filesystem): Promise<void> {
  using folder = scratchFolder();
  await shell(`tar -C ${TREE} -cf ${folder.path}/tree.tar .`);
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const remote = `${exported.address}/disk.img`;
  {
    await using attached = await startAttach(remote);
    assert.equal(attached.size, DISK_BYTES);
    assert.equal(await deviceSize(attached.device), DISK_BYTES);
    await makeFilesystem(type, attached.device);
    {
      await using mounted = await mount(attached.device);
      await run(["tar", "-C", mounted.path, "-xf", `${folder.path}/tree.tar`]);
      await run(["diff", "-r", "-x", "lost+found", TREE, mounted.path]);
    }
    await checkFilesystem(type, attached.device);
    await attached.leave();
  }
  // A new attachment finds what the old one wrote, without any cache in between.
  await run(["sysctl", "-q", "-w", "vm.drop_caches=3"]);
  await using again = await startAttach(remote);
  {
    await using mounted = await mount(again.device, "ro");
    await run(["diff", "-r", "-x", "lost+found", TREE, mounted.path]);
  }
  await again.leave();
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
  await checkFilesystem(type, `${folder.path}/disk.img`);
}

Deno.test("an ext4 filesystem is made, filled, checked, detached, attached again and found whole", () =>
  filesystemCase("ext4"));

Deno.test("an xfs filesystem is made, filled, checked, detached, attached again and found whole", () =>
  filesystemCase("xfs"));

Deno.test("every byte of mixed sizes at depth 32 is read back as it was written", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`, ["--depth", "64"]);
  await fioVerify(attached.device, { bytes: 48 * MIB, blockSizes: "4k/50:12k/20:64k/15:256k/10:1m/5", depth: 32 });
  await attached.leave();
});

Deno.test("with --lanes each processor has a queue of its own, served by a thread with a lane of its own", async () => {
  using _ = secondProcessor();
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path), "--workers", "2"]);
  // More than the VM has processors.
  await using attached = await startAttach(`${exported.address}/disk.img`, ["--lanes", "3", "--depth", "32"]);
  const status = JSON.parse((await dst(["status", "--json"])).stdout);
  const { lanes } = status.attachments[0].status;
  const { device } = attached;
  assert.match(attached.daemon.log, /at most 2 queues, one for each processor: as many lanes are opened, not 3/);
  assert.equal((await shell(`ls ${device.replace("/dev/", "/sys/block/")}/mq | wc -l`)).stdout.trim(), `${lanes}`);
  await fioVerify(device, { bytes: 32 * MIB, blockSizes: "4k/50:64k/30:1m/20", depth: 16 });
  await makeFilesystem("ext4", device);
  {
    await using mounted = await mount(device);
    // Two writers at a time, so that both queues have work.
    const copy = (cpu: number) => run(["taskset", "-c", `${cpu}`, "cp", "-r", TREE, `${mounted.path}/${cpu}`]);
    await Promise.all([copy(0), copy(1)]);
    for (const cpu of [0, 1]) await run(["diff", "-r", TREE, `${mounted.path}/${cpu}`]);
  }
  await checkFilesystem("ext4", device);
  await attached.leave();
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
});

Deno.test("discards and punched holes free the file's blocks and read as zeroes", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  await using exported = await startExport(folder.path, [file]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  const { device } = attached;
  await shell(`dd if=/dev/urandom of=${device} bs=1M count=16 oflag=direct status=none`);
  assert.equal(await allocatedBytes(file), 16 * MIB);
  await run(["blkdiscard", "-o", `${4 * MIB}`, "-l", `${4 * MIB}`, device]);
  assert.equal(await allocatedBytes(file), 12 * MIB);
  await run(["fallocate", "-p", "-o", `${8 * MIB}`, "-l", `${2 * MIB}`, device]);
  await run(["blkdiscard", "-z", "-o", `${10 * MIB}`, "-l", `${2 * MIB}`, device]);
  await shell(`cmp -n ${8 * MIB} -i ${4 * MIB}:0 ${device} /dev/zero`);
  // The neighbours on both sides are as they were.
  await shell(`cmp -n ${4 * MIB} ${device} ${file}; cmp -n ${4 * MIB} -i ${12 * MIB} ${device} ${file}`);
  assert((await attempt(["cmp", "-n", "4096", device, "/dev/zero"])).code === 1);
  await run(["blkdiscard", "--force", device]);
  await run(["sync"]);
  assert.equal(await allocatedBytes(file), 0);
  await attached.leave();
});

Deno.test("a partition table is written, read by the kernel, and its partition carries a filesystem", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  const { device } = attached;
  await shell(`printf 'label: gpt\\nsize=64MiB\\nsize=128MiB\\n' | sfdisk --quiet ${device}`);
  await waitForDevice(`${device}p2`);
  assert.equal(await deviceSize(`${device}p1`), 64 * MIB);
  assert.equal(await deviceSize(`${device}p2`), 128 * MIB);
  await makeFilesystem("ext4", `${device}p2`);
  {
    await using mounted = await mount(`${device}p2`);
    Deno.writeTextFileSync(`${mounted.path}/file`, "on a partition");
    const refused = await dst(["detach", device]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, new RegExp(mounted.path), "the refusal names where its partition is mounted");
  }
  await checkFilesystem("ext4", `${device}p2`);
  await attached.leave();
  await waitForGone(`${device}p2`);
});

Deno.test("a read-only attachment reads, refuses every write, and leaves the file as it was", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  await shell(`dd if=/dev/urandom of=${file} bs=1M count=4 conv=notrunc status=none`);
  const before = (await run(["sha256sum", file])).stdout;
  await using exported = await startExport(folder.path, [file]);
  await using attached = await startAttach(`${exported.address}/disk.img`, ["--read-only"]);
  assert.equal((await run(["blockdev", "--getro", attached.device])).stdout.trim(), "1");
  await run(["cmp", attached.device, file]);
  assert.match(await directAccess(attached.device, "write", 0), /Operation not permitted|Read-only/);
  assert.notEqual((await attempt(["blkdiscard", attached.device])).code, 0);
  await attached.leave();
  assert.equal((await run(["sha256sum", file])).stdout, before);
});

Deno.test("a block device is exported with its block sizes, discards and contents", async () => {
  using folder = scratchFolder();
  const file = await makeDiskFile(folder.path);
  await using loop = await loopDevice(file, ["--sector-size", "4096"]);
  await using exported = await startExport(folder.path, [`disk=${loop.path}`]);
  await using attached = await startAttach(`${exported.address}/disk`);
  assert.equal(queueAttribute(attached.device, "logical_block_size"), "4096");
  assert.equal(queueAttribute(attached.device, "write_cache"), "write back");
  assert.notEqual(queueAttribute(attached.device, "discard_granularity"), "0");
  await shell(`dd if=/dev/urandom of=${attached.device} bs=1M count=8 conv=fsync status=none`);
  await run(["cmp", "-n", `${8 * MIB}`, attached.device, file]);
  await run(["blkdiscard", "-o", "0", "-l", `${4 * MIB}`, attached.device]);
  assert.equal(await allocatedBytes(file), 4 * MIB);
  await attached.leave();
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
});

Deno.test("in the background attach returns with the device, and status and detach know it", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const started = await dst(["attach", `${exported.address}/disk.img`, "--background"]);
  assert.equal(started.code, 0, started.stderr);
  const device = /\/dev\/ublkb\d+/.exec(started.stdout)?.[0];
  assert(device !== undefined, started.stdout);
  await waitForDevice(device);
  const status = await dst(["status", "--json"]);
  assert.match(status.stdout, new RegExp(`"${device}"`));
  const detached = await dst(["detach", device]);
  assert.equal(detached.code, 0, detached.stderr);
  await waitForGone(device);
  assert(!exists(device.replace("ublkb", "ublkc")));
  assert.doesNotMatch((await dst(["status", "--json"])).stdout, /ublkb/);
});

Deno.test("with --direct the exporter's file carries a filesystem as well", async () => {
  using folder = scratchFolder();
  // Past the page cache needs a filesystem that can: tmpfs takes O_DIRECT only since 6.6, ext4 always has.
  await makeFilesystem("ext4", "/dev/ram0");
  await using backing = await mount("/dev/ram0");
  const file = `${backing.path}/disk.img`;
  await run(["truncate", "-s", `${128 * MIB}`, file]);
  {
    await using exported = await startExport(folder.path, ["--direct", file]);
    await using attached = await startAttach(`${exported.address}/disk.img`);
    await fioVerify(attached.device, { bytes: 16 * MIB, blockSizes: "4k/60:64k/30:256k/10", depth: 16 });
    await attached.leave();
    assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
  }
  await backing.unmount();
});
