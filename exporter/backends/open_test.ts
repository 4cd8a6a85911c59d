import assert from "node:assert/strict";
import { geteuid } from "../../ffi/libc.ts";
import { closeBackend, ExportError, openBackend, type OpenedDisk } from "./open.ts";
import { run, Scratch, whyNoMounts } from "./test_bench.ts";

function open(path: string, options: { readOnly?: boolean; direct?: boolean } = {}): OpenedDisk {
  return openBackend({ path, readOnly: false, direct: false, ...options });
}

function refused(path: string, reason: RegExp, options: { readOnly?: boolean; direct?: boolean } = {}): ExportError {
  try {
    closeBackend(open(path, options));
  } catch (error) {
    assert.ok(error instanceof ExportError, `${error}`);
    assert.ok(error.message.startsWith(`Cannot export ${path}: `), error.message);
    assert.match(error.message, reason);
    return error;
  }
  throw new Error(`${path} was opened`);
}

Deno.test("memory, a file in memory and a file on a disk are told apart, as plain data", () => {
  using scratch = new Scratch();
  using inMemory = new Scratch("/dev/shm");
  const disks = [open("mem:64M"), open(inMemory.file("disk", 1 << 20)), open(scratch.file("disk", 1 << 20))];
  assert.deepEqual(disks.map((disk) => disk.kind), ["memory", "file", "file"]);
  assert.deepEqual(disks.slice(0, 2).map((disk) => disk.inline), [true, true]);
  assert.deepEqual(disks.slice(0, 2).map((disk) => disk.geometry.volatileCache), [false, false]);
  assert.equal(disks[0].geometry.size, 64 << 20);
  for (const disk of disks) {
    assert.deepEqual(structuredClone(disk), disk);
    assert.equal(disk.identity.size, disk.geometry.size);
    closeBackend(disk);
  }
});

Deno.test("a size that is no multiple of the block is rounded down, and the rest is told", () => {
  using scratch = new Scratch();
  const disk = open(scratch.file("disk", 10_000));
  assert.equal(disk.geometry.size, 9728);
  assert.equal(disk.roundedOffBytes, 272);
  assert.equal(disk.identity.size, 10_000);
  closeBackend(disk);
});

Deno.test("what cannot be exported is refused in one line with the reason", () => {
  using scratch = new Scratch();
  refused(`${scratch.folder}/missing`, /no such file or directory$/);
  refused(scratch.folder, /it is a directory$/);
  refused("/dev/null", /it is a character device$/);
  refused(scratch.file("empty", 0), /it is empty$/);
  refused(scratch.file("small", 511), /smaller than one block of 512 bytes$/);
  refused("mem:", /Cannot read the size/);
  refused("mem:0", /it is empty$/);
  refused("mem:12X", /Cannot read the size "12X"/);
  run("mkfifo", `${scratch.folder}/fifo`);
  refused(`${scratch.folder}/fifo`, /neither a file nor a block device$/);
  assert.throws(() => open("a\0b"), TypeError);
});

Deno.test({
  name: `a file without permission is refused with a hint to read it only${
    geteuid() === 0 ? ": skipped, root may" : ""
  }`,
  ignore: geteuid() === 0,
  fn: () => {
    using scratch = new Scratch();
    const path = scratch.file("disk", 4096);
    Deno.chmodSync(path, 0o444);
    refused(path, /permission denied; reading alone may do: --read-only$/);
    closeBackend(open(path, { readOnly: true }));
  },
});

Deno.test("a disk is locked by its writer against all, by its readers against a writer", () => {
  using scratch = new Scratch();
  const path = scratch.file("disk", 4096);
  Deno.symlinkSync(path, `${scratch.folder}/link`);
  const writer = open(path);
  assert.equal(refused(path, /it is already exported by another process$/).locked, true);
  assert.equal(refused(`${scratch.folder}/link`, /already exported/, { readOnly: true }).locked, true);
  closeBackend(writer);
  const readers = [open(path, { readOnly: true }), open(path, { readOnly: true })];
  assert.equal(refused(path, /already exported/).locked, true);
  for (const reader of readers) closeBackend(reader);
  closeBackend(open(path));
});

Deno.test("looking for the lock's holder leaves the file as it is", () => {
  using scratch = new Scratch();
  const path = scratch.file("disk", 10_000);
  Deno.writeFileSync(path, new Uint8Array(10_000).fill(7));
  closeBackend(open(path));
  assert.deepEqual(Deno.readFileSync(path), new Uint8Array(10_000).fill(7));
});

Deno.test({
  name: `a block device has the geometry that its queue tells${whyNoMounts ? `: skipped, ${whyNoMounts}` : ""}`,
  ignore: whyNoMounts !== null,
  fn: () => {
    using scratch = new Scratch();
    const device = scratch.loopDevice(scratch.file("image", 1 << 20), "--sector-size", "4096");
    const disk = open(device);
    assert.equal(disk.kind, "block");
    assert.equal(disk.geometry.size, 1 << 20);
    assert.equal(disk.geometry.logicalBlock, 4096);
    assert.ok(disk.geometry.physicalBlock >= 4096);
    assert.equal(disk.geometry.volatileCache, true);
    assert.equal(disk.identity.targetMajor, 7);
    const sysfs = `/sys/block/${device.slice("/dev/".length)}/queue`;
    const granularity = Number(Deno.readTextFileSync(`${sysfs}/discard_granularity`));
    const zeroes = Number(Deno.readTextFileSync(`${sysfs}/write_zeroes_max_bytes`)) > 0;
    assert.equal(disk.geometry.discardGranularity, zeroes ? Math.max(4096, granularity) : 0);
    assert.equal(disk.geometry.fastZero, zeroes);
    closeBackend(disk);
  },
});

Deno.test({
  name: `a mounted or read-only block device is refused to a writer${whyNoMounts ? `: skipped, ${whyNoMounts}` : ""}`,
  ignore: whyNoMounts !== null,
  fn: () => {
    using scratch = new Scratch();
    const folder = scratch.filesystem("ext4", 8 << 20);
    const device = run("findmnt", "-n", "-o", "SOURCE", folder);
    refused(device, /the device is in use: mounted, exported, or part of an array or volume$/);
    closeBackend(open(device, { readOnly: true }));
    const readOnly = scratch.loopDevice(scratch.file("image", 1 << 20), "-r");
    refused(readOnly, /read-only/);
    closeBackend(open(readOnly, { readOnly: true }));
  },
});
