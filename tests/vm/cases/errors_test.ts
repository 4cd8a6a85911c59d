/**
 * The errors of the exporter's disk at the device of the client.
 *
 * @module
 */
import assert from "node:assert/strict";
import { attempt, deviceSize, RAM_DISK, run, scratchFolder, shell } from "../guest_tools.ts";
import { directAccess, makeDiskFile, startAttach, startExport } from "../disk.ts";

const MIB = 1024 * 1024;

/** Errno of the exporter's disk, and what the kernel hands to the application (`blk_errors` in block/blk-core.c). */
const ERRNO_TABLE: [string, RegExp][] = [
  ["EIO", /Input\/output error/],
  ["ENOSPC", /No space left on device/],
  ["EDQUOT", /No space left on device/],
  ["ETIMEDOUT", /Connection timed out/],
  ["ENODATA", /No data available/],
  ["EILSEQ", /Invalid or incomplete multibyte/],
  ["EROFS", /Input\/output error/],
  ["EPERM", /Input\/output error/],
];

Deno.test("every error of the disk arrives as the errno that the table promises", async () => {
  using folder = scratchFolder();
  const layers = ERRNO_TABLE.flatMap(([errno], i) => [
    "--layer",
    `error:read,write,offset=${64 + i}M,length=4K,errno=${errno}`,
  ]);
  await using exported = await startExport(folder.path, [...layers, await makeDiskFile(folder.path)]);
  await using attached = await startAttach(`${exported.address}/disk.img`);
  for (const [i, [errno, message]] of ERRNO_TABLE.entries()) {
    const offset = (64 + i) * MIB;
    for (const direction of ["read", "write"] as const) {
      assert.match(await directAccess(attached.device, direction, offset), message, `${direction}: ${errno}`);
    }
    assert.equal(await directAccess(attached.device, "write", offset + 4096), "", "the block beside it is well");
  }
  await attached.leave();
});

Deno.test("a full filesystem behind the export is ENOSPC, and its other blocks can still be read", async () => {
  using folder = scratchFolder();
  const small = `${folder.path}/small`;
  Deno.mkdirSync(small);
  await run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", small]);
  try {
    await using exported = await startExport(folder.path, [await makeDiskFile(small)]);
    await using attached = await startAttach(`${exported.address}/disk.img`);
    const filled = await attempt(["dd", "if=/dev/zero", `of=${attached.device}`, "bs=1M", "count=32", "oflag=direct"]);
    assert.match(filled.stderr, /No space left on device/);
    assert.equal(await directAccess(attached.device, "read", 0), "");
    await attached.leave();
    assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
  } finally {
    await run(["umount", small]);
  }
});

Deno.test("after a failed sync every fsync fails, though the disk below is well again, and reads go on", async () => {
  using folder = scratchFolder();
  const sectors = await deviceSize(RAM_DISK) / 512;
  const [well, sick] = [`0 ${sectors} linear ${RAM_DISK} 0`, `0 ${sectors} error`];
  const become = (table: string) =>
    shell(`dmsetup suspend --noflush below && dmsetup load below --table '${table}' && dmsetup resume below`);
  await run(["dmsetup", "create", "below", "--table", well]);
  try {
    const minor = (await run(["dmsetup", "info", "-c", "--noheadings", "-o", "minor", "below"])).stdout.trim();
    await using exported = await startExport(folder.path, [`disk=/dev/dm-${minor}`]);
    await using attached = await startAttach(`${exported.address}/disk`);
    const fsync = ["dd", "if=/dev/zero", `of=${attached.device}`, "bs=4096", "count=1", "conv=notrunc,fsync"];
    assert.equal((await attempt(fsync)).code, 0);
    await become(sick);
    assert.match((await attempt(fsync)).stderr, /Input\/output error/, "while the disk is sick");
    await become(well);
    for (let i = 0; i < 3; i++) assert.match((await attempt(fsync)).stderr, /Input\/output error/, `fsync ${i}`);
    assert.equal(await directAccess(attached.device, "read", 0), "");
    await attached.daemon.stop();
    assert.equal(await exported.daemon.stop(), 1, "what could not be synced is no success");
    assert.match(exported.daemon.log, /Cannot sync/);
    assert.match((await run(["dmsetup", "table", "below"])).stdout, /linear/);
  } finally {
    await run(["dmsetup", "remove", "--retry", "below"]);
  }
});
