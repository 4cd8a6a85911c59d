/**
 * What the other cases stand on: the kernel, its modules and the programs, without any of our own code. When one of
 * these fails, the VM is at fault and not DST.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  attempt,
  checkFilesystem,
  deviceSize,
  exists,
  fioVerify,
  loopDevice,
  makeFilesystem,
  mount,
  RAM_DISK,
  run,
  scratchFolder,
  shell,
  sysctl,
} from "../guest_tools.ts";

const MIB = 1024 * 1024;

Deno.test("the ublk driver is loaded and its control device is there", () => {
  assert(exists("/sys/module/ublk_drv"));
  assert(Deno.statSync("/dev/ublk-control").isCharDevice);
});

Deno.test("io_uring is on until it is switched off", async () => {
  assert.equal(await sysctl("kernel.io_uring_disabled"), "0");
});

Deno.test("the root takes writes, though the host's root that lies under it is read-only", () => {
  Deno.writeTextFileSync("/dst-vm-write", "x");
  assert.equal(Deno.readTextFileSync("/dst-vm-write"), "x");
  assert.match(Deno.readTextFileSync("/proc/mounts"), /^overlay \/ overlay /m);
});

for (const type of ["ext4", "xfs"] as const) {
  Deno.test(`${type} is made, mounted, written, checked and read again on a RAM disk`, async () => {
    await makeFilesystem(type, RAM_DISK);
    {
      await using mounted = await mount(RAM_DISK);
      await run(["cp", "-a", new URL("..", import.meta.url).pathname, `${mounted.path}/copy`]);
    }
    await checkFilesystem(type, RAM_DISK);
    await using mounted = await mount(RAM_DISK, "ro");
    await run(["diff", "-r", new URL("..", import.meta.url).pathname, `${mounted.path}/copy`]);
  });
}

Deno.test("a loop device over a file in memory has the file's size and takes discards", async () => {
  using folder = scratchFolder();
  const file = `${folder.path}/disk`;
  await shell(`truncate -s 64M ${file}; dd if=/dev/urandom of=${file} bs=1M count=8 conv=notrunc status=none`);
  await using loop = await loopDevice(file);
  assert.equal(await deviceSize(loop.path), 64 * MIB);
  await run(["blkdiscard", "-o", "0", "-l", `${4 * MIB}`, loop.path]);
  assert.equal((await run(["stat", "-c", "%b", file])).stdout.trim(), `${4 * MIB / 512}`);
});

Deno.test("fio verifies mixed sizes at depth 32", async () => {
  await fioVerify(RAM_DISK, { bytes: 16 * MIB, blockSizes: "4k/60:16k/30:256k/10", depth: 32 });
});

Deno.test("a device mapper target can be made over the RAM disk and removed", async () => {
  const sectors = await deviceSize(RAM_DISK) / 512;
  await run(["dmsetup", "create", "flaky", "--table", `0 ${sectors} flakey ${RAM_DISK} 0 60 0`]);
  await run(["dmsetup", "remove", "flaky"]);
});

Deno.test("the loopback interface can be given a delay", async () => {
  await run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]);
  await run(["tc", "qdisc", "del", "dev", "lo", "root"]);
});

Deno.test("the kernel's nbd client reads a disk that another process serves", async () => {
  using folder = scratchFolder();
  const socket = `${folder.path}/nbd.sock`;
  await run(["nbdkit", "-U", socket, "-P", `${folder.path}/pid`, "pattern", "size=1M"]);
  try {
    await run(["nbd-client", "-unix", socket, "/dev/nbd0"]);
    assert.equal(await deviceSize("/dev/nbd0"), MIB);
    const digest = await shell("dd if=/dev/nbd0 bs=8 count=1 skip=1 status=none | od -An -tx1 | tr -d ' \n'");
    assert.equal(digest.stdout, "0000000000000008");
  } finally {
    await attempt(["nbd-client", "-d", "/dev/nbd0"]);
    Deno.kill(Number(Deno.readTextFileSync(`${folder.path}/pid`)), "SIGTERM");
  }
});
