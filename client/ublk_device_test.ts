import assert from "node:assert/strict";
import { Errno } from "../ffi/errno.ts";
import { encodeParameters } from "../ffi/ublk_wire.ts";
import { parseMounts } from "./device_use.ts";
import type { OpenedShape } from "./messages.ts";
import { queuesMaxOf, ublkParameters, useText } from "./ublk_device.ts";
import { ublkErrno } from "./ublk_frontend.ts";

const shape = {
  geometry: {
    size: 1 << 30,
    logicalBlock: 512,
    physicalBlock: 4096,
    optimalIo: 4096,
    discardGranularity: 4096,
    readOnly: false,
    volatileCache: true,
    fastZero: true,
  },
  writesZeroes: true,
  partBytes: 262_144,
};

function changed(geometry: Partial<OpenedShape["geometry"]>, more: Partial<typeof shape> = {}) {
  return { ...shape, ...more, geometry: { ...shape.geometry, ...geometry } };
}

Deno.test("a device is as the export is", () => {
  const parameters = ublkParameters(shape);
  assert.equal(parameters.sizeBytes, 1 << 30);
  assert.equal(parameters.maximumIoBytes, 262_144);
  assert(parameters.volatileCache && parameters.fua && !parameters.readOnly);
  assert.equal(parameters.maximumDiscardBytes, 1 << 30);
  assert.equal(parameters.maximumWriteZeroesBytes, 1 << 30);
  encodeParameters(parameters);
});

Deno.test("a device that is read-only, or cannot discard, says so", () => {
  const readOnly = ublkParameters(changed({ readOnly: true, volatileCache: false }));
  assert.deepEqual([readOnly.readOnly, readOnly.fua, readOnly.maximumDiscardBytes], [true, false, 0]);
  assert.equal(readOnly.maximumWriteZeroesBytes, 0);
  assert.equal(ublkParameters(changed({ discardGranularity: 0 })).maximumDiscardBytes, 0);
  assert.equal(ublkParameters(changed({}, { writesZeroes: false })).maximumWriteZeroesBytes, 0);
});

Deno.test("blocks and requests are what the kernel takes", () => {
  const small = ublkParameters(changed({ logicalBlock: 1, physicalBlock: 1, optimalIo: 1, size: 1025 }));
  assert.deepEqual([small.logicalBlock, small.physicalBlock, small.sizeBytes], [512, 512, 1024]);
  assert.equal(ublkParameters(changed({}, { partBytes: 10_000 })).maximumIoBytes, 8192);
  assert.throws(() => ublkParameters(changed({ logicalBlock: 8192 })), /larger than the 4096 .* --nbd/);
  assert.throws(() => ublkParameters(changed({ size: 0 })), /empty/);
});

Deno.test("errnos that the kernel has no status for, or another meaning, become EIO", () => {
  for (const errno of [Errno.ENOSPC, Errno.ETIMEDOUT, Errno.EOPNOTSUPP, Errno.ENODATA, Errno.EILSEQ, Errno.EIO]) {
    assert.equal(ublkErrno(-errno), -errno);
  }
  for (const errno of [Errno.EROFS, Errno.EPERM, Errno.ENOMEM, Errno.EAGAIN, Errno.ESTALE, Errno.ESHUTDOWN, 4000]) {
    assert.equal(ublkErrno(-errno), -Errno.EIO);
  }
});

Deno.test("mounts are found by number and by path, with spaces in their names", () => {
  const parts = [{ path: "/dev/ublkb0", number: "259:0" }, { path: "/dev/ublkb0p1", number: "259:1" }];
  const mountinfo = [
    "22 1 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw",
    "36 1 259:1 / /mnt/my\\040disk rw,noatime shared:1 - ext4 /dev/ublkb0p1 rw",
    "37 1 0:44 /vol /btrfs rw - btrfs /dev/ublkb0 rw",
    "38 1 259:10 / /other rw - ext4 /dev/ublkb1 rw",
    "",
  ].join("\n");
  assert.deepEqual(parseMounts(mountinfo, parts), ["mounted on /mnt/my disk", "mounted on /btrfs"]);
});

Deno.test("a refusal names every user, and says what to do", () => {
  const text = useText("/dev/ublkb0", { kernel: ["mounted on /mnt"], processes: ["sleep (pid 17)"] });
  assert.match(text, /\/dev\/ublkb0 is in use: mounted on \/mnt; open in sleep \(pid 17\)\. .*--force: what .* lost$/);
  assert.match(useText("/dev/ublkb0", { kernel: [], processes: [] }), /the kernel holds it/);
});

Deno.test("a device has at most as many queues as the kernel has numbers of processors", () => {
  const cases: [string, number][] = [["0\n", 1], ["0-1\n", 2], ["0-127\n", 128], ["0-3,8-11\n", 12], ["0,2\n", 3]];
  for (const [processors, queues] of cases) assert.equal(queuesMaxOf(processors), queues);
});
