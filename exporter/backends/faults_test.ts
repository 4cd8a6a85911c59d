// What happens when the disk below fails: real failures, of file systems that are full and of descriptors that cannot
// be synced.
import assert from "node:assert/strict";
import { Operation, RequestFlag } from "../../engine/block.ts";
import { SLOT_PAYLOAD_BYTES } from "../../engine/slots.ts";
import { Errno } from "../../ffi/errno.ts";
import { OpenFlag, ReadWriteFlag } from "../../ffi/constants.ts";
import { close, eventfd, open } from "../../ffi/libc.ts";
import type { Loop } from "../../ffi/loop.ts";
import { uringAvailable } from "../../ffi/uring.ts";
import { closeBackend, makeStickyWord, openBackend } from "./open.ts";
import { Bench, pattern, Scratch, whyNoMounts } from "./test_bench.ts";

const MIB = 1024 ** 2;
const FUA = RequestFlag.FUA;

/** Defines a test for each loop; with a reason it is skipped. */
function forEachLoop(
  name: string,
  needsMounts: boolean,
  body: (loop: "uring" | "poll", scratch: Scratch) => void,
): void {
  for (const loop of ["uring", "poll"] as const) {
    const reason = (loop === "uring" ? uringAvailable() : null) ?? (needsMounts ? whyNoMounts : null);
    Deno.test({
      name: `${name}, over ${loop}${reason === null ? "" : `: skipped, ${reason}`}`,
      ignore: reason !== null,
      fn: () => {
        using scratch = new Scratch();
        body(loop, scratch);
      },
    });
  }
}

/** Writes slot after slot until it fails; answers the status. */
function fill(bench: Bench, flags = 0): number {
  for (let offset = 0; offset < bench.device.geometry.size; offset += SLOT_PAYLOAD_BYTES) {
    const status = bench.write(offset, SLOT_PAYLOAD_BYTES, 1, flags);
    if (status !== 0) return status;
  }
  return 0;
}

/** A descriptor that nothing can be done with: EBADF. */
const NO_DESCRIPTOR = -1;

/** What a back-end asked its loop for: "write", "forced write", "fallocate", or "sync" with the descriptor. */
interface Watched {
  readonly asked: string[];
  readonly syncedFds: Set<number>;
  /** Where set, the next sync goes to this descriptor instead, and so fails with its errno. */
  syncFd: number | null;
  /** Likewise all writes with RWF_DSYNC, and all without. */
  forcedWriteFd: number | null;
  writeFd: number | null;
}

/** Stands between a back-end and its loop, which does everything as it does, but perhaps with another descriptor. */
function watch(loop: Loop): Watched {
  const watched: Watched = { asked: [], syncedFds: new Set(), syncFd: null, forcedWriteFd: null, writeFd: null };
  const fdatasync = loop.fdatasync.bind(loop);
  const write = loop.write.bind(loop);
  const fallocate = loop.fallocate.bind(loop);
  loop.fdatasync = (fd, ...rest) => {
    watched.asked.push("sync");
    watched.syncedFds.add(fd);
    fdatasync(watched.syncFd ?? fd, ...rest);
    watched.syncFd = null;
  };
  loop.write = (fd, address, bytes, offset, rwFlags, ...rest) => {
    const forced = (rwFlags & ReadWriteFlag.DSYNC) !== 0;
    watched.asked.push(forced ? "forced write" : "write");
    const otherFd = forced ? watched.forcedWriteFd : watched.writeFd;
    // /dev/full fails as it should only without RWF_DSYNC.
    if (otherFd === null) write(fd, address, bytes, offset, rwFlags, ...rest);
    else write(otherFd, address, bytes, offset, 0, ...rest);
  };
  loop.fallocate = (...args) => {
    watched.asked.push("fallocate");
    fallocate(...args);
  };
  return watched;
}

forEachLoop("mutations of a read-only disk are refused, reads and FLUSH are not", false, (loop, scratch) => {
  const path = scratch.file("disk", MIB);
  using bench = new Bench(loop, path, { readOnly: true });
  assert.equal(bench.device.geometry.readOnly, true);
  assert.equal(bench.device.geometry.discardGranularity, 0);
  for (const operation of [Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES]) {
    assert.equal(bench.run(operation, 0, 512), -Errno.EPERM);
  }
  assert.deepEqual(bench.read(0, 512), new Uint8Array(512));
  assert.equal(bench.run(Operation.FLUSH), 0);
});

forEachLoop(
  "a file that became shorter fails reads with EIO, also those that begin before its end",
  false,
  (loop, scratch) => {
    const path = scratch.file("disk", MIB);
    using bench = new Bench(loop, path);
    assert.equal(bench.write(0, 8192, 1), 0);
    Deno.truncateSync(path, 4096 + 100);
    assert.equal(bench.run(Operation.READ, 0, 8192), -Errno.EIO);
    assert.equal(bench.run(Operation.READ, 65536, 512), -Errno.EIO);
    assert.deepEqual(bench.read(0, 4096), pattern(0, 4096, 1));
  },
);

forEachLoop(
  "a flush that fails, fails every later FLUSH and FUA, in every Worker, and nothing else",
  false,
  (loop, scratch) => {
    const opened = openBackend({ path: scratch.file("disk", MIB), readOnly: false, direct: false });
    // It can be opened again, but not be synced: EINVAL.
    const unsyncable = open("/dev/null", OpenFlag.READ_WRITE);
    const sticky = makeStickyWord();
    {
      using failing = new Bench(loop, { ...opened, fd: unsyncable, inline: false }, { sticky });
      using other = new Bench(loop, { ...opened, inline: false }, { sticky });
      assert.equal(other.run(Operation.FLUSH), 0);
      for (let slot = 0; slot < 3; slot++) failing.start(slot, Operation.FLUSH);
      for (let slot = 0; slot < 3; slot++) assert.equal(failing.finish(slot), -Errno.EINVAL);
      assert.equal(other.run(Operation.FLUSH), -Errno.EINVAL);
      assert.equal(other.write(0, 512, 1, FUA), -Errno.EINVAL);
      assert.equal(other.run(Operation.WRITE_ZEROES, 0, 512, FUA), -Errno.EINVAL);
      assert.equal(other.run(Operation.DISCARD, 0, 512, FUA), -Errno.EINVAL);
      assert.equal(other.write(0, 512, 2), 0);
      assert.deepEqual(other.read(0, 512), pattern(0, 512, 2));
    }
    close(unsyncable);
    closeBackend(opened);
  },
);

for (const direct of [false, true]) {
  const kind = direct ? "a file with O_DIRECT" : "a file";
  forEachLoop(
    `FUA on ${kind} is a mutation and then a sync, on a description that nothing else uses`,
    false,
    (loop, scratch) => {
      using bench = new Bench(loop, scratch.file("disk", MIB), { direct });
      const watched = watch(bench.loop);
      assert.equal(bench.write(0, 4096, 1, FUA), 0);
      assert.deepEqual(watched.asked.splice(0), ["write", "sync"]);
      assert.equal(bench.run(Operation.DISCARD, 4096, 4096, FUA), 0);
      assert.deepEqual(watched.asked.splice(0), ["fallocate", "sync"]);
      assert.equal(bench.run(Operation.WRITE_ZEROES, 0, 4096, FUA), 0);
      assert.deepEqual(watched.asked.splice(0), ["fallocate", "sync"]);
      assert.equal(bench.run(Operation.FLUSH), 0);
      assert.deepEqual(watched.asked.splice(0), ["sync"]);
      assert.equal(watched.syncedFds.size, 1);
      assert.ok(!watched.syncedFds.has(bench.disk.fd));
      assert.equal(bench.run(Operation.READ, 0, 4096, FUA), 0);
      assert.equal(bench.write(0, 4096, 1), 0);
      assert.deepEqual(watched.asked.splice(0), ["write"]);
    },
  );

  forEachLoop(`one sync that fails, fails every FUA mutation of ${kind}, for good`, false, (loop, scratch) => {
    using bench = new Bench(loop, scratch.file("disk", MIB), { direct });
    const watched = watch(bench.loop);
    // The kernel tells of lost pages once: the next sync succeeds.
    watched.syncFd = NO_DESCRIPTOR;
    bench.start(0, Operation.WRITE, 0, 4096, FUA);
    bench.start(1, Operation.WRITE, 4096, 4096, FUA);
    bench.start(2, Operation.DISCARD, 8192, 4096, FUA);
    bench.start(3, Operation.WRITE_ZEROES, 12288, 4096, FUA);
    for (let slot = 0; slot < 4; slot++) assert.equal(bench.finish(slot), -Errno.EBADF, `slot ${slot}`);
    assert.equal(bench.write(0, 4096, 1, FUA), -Errno.EBADF);
    assert.equal(bench.run(Operation.FLUSH), -Errno.EBADF);
    assert.equal(bench.write(0, 4096, 1), 0);
  });
}

forEachLoop("a write that fails by itself is not sticky, with FUA neither", false, (loop, scratch) => {
  using bench = new Bench(loop, scratch.file("disk", MIB));
  const watched = watch(bench.loop);
  watched.writeFd = NO_DESCRIPTOR;
  assert.equal(bench.write(0, 4096, 1, FUA), -Errno.EBADF);
  assert.deepEqual(watched.asked.splice(0), ["write"]);
  watched.writeFd = null;
  assert.equal(bench.write(0, 4096, 1, FUA), 0);
  assert.equal(bench.run(Operation.FLUSH), 0);
});

forEachLoop("a disk that forces its writes by itself is not synced after a FUA write", false, (loop, scratch) => {
  const opened = openBackend({ path: scratch.file("disk", MIB), readOnly: false, direct: true });
  {
    using bench = new Bench(loop, { ...opened, forcesWrites: true });
    const watched = watch(bench.loop);
    assert.equal(bench.write(0, 4096, 1, FUA), 0);
    assert.equal(bench.write(0, 4096, 1), 0);
    assert.equal(bench.run(Operation.WRITE_ZEROES, 0, 4096, FUA), 0);
    assert.deepEqual(watched.asked, ["forced write", "write", "fallocate", "sync"]);
    watched.forcedWriteFd = NO_DESCRIPTOR;
    assert.equal(bench.write(0, 4096, 1, FUA), -Errno.EBADF);
    watched.forcedWriteFd = null;
    assert.equal(bench.write(0, 4096, 1, FUA), -Errno.EBADF);
    assert.equal(bench.run(Operation.FLUSH), -Errno.EBADF);
  }
  closeBackend(opened);
});

forEachLoop("ENOSPC of a forced write is sticky if it was not the write's own", false, (loop, scratch) => {
  const opened = openBackend({ path: scratch.file("disk", MIB), readOnly: false, direct: true });
  const full = open("/dev/full", OpenFlag.READ_WRITE);
  {
    using bench = new Bench(loop, { ...opened, forcesWrites: true });
    const watched = watch(bench.loop);
    watched.forcedWriteFd = watched.writeFd = full;
    assert.equal(bench.write(0, 4096, 1, FUA), -Errno.ENOSPC);
    assert.deepEqual(watched.asked.splice(0), ["forced write", "write"]);
    watched.forcedWriteFd = watched.writeFd = null;
    assert.equal(bench.write(0, 4096, 1, FUA), 0);
    watched.forcedWriteFd = full;
    assert.equal(bench.write(0, 4096, 1, FUA), -Errno.ENOSPC);
    watched.forcedWriteFd = null;
    assert.equal(bench.run(Operation.FLUSH), -Errno.ENOSPC);
  }
  close(full);
  closeBackend(opened);
});

forEachLoop("requests that a descriptor cannot do at all end with its errno", false, (loop, scratch) => {
  const opened = openBackend({ path: scratch.file("disk", MIB), readOnly: false, direct: false });
  const directory = open(scratch.folder, OpenFlag.READ_ONLY);
  {
    using bench = new Bench(loop, { ...opened, fd: directory, inline: false });
    assert.equal(bench.run(Operation.READ, 0, 512), -Errno.EISDIR);
    assert.equal(bench.write(0, 512, 1), -Errno.EBADF);
    assert.equal(bench.run(Operation.DISCARD, 0, 512), -Errno.EBADF);
    assert.equal(bench.run(Operation.WRITE_ZEROES, 0, 512), -Errno.EBADF);
    assert.equal(bench.run(Operation.CACHE, 0, 512), 0);
    assert.equal(bench.write(0, 512, 1, FUA), -Errno.EBADF);
    // None of this was a sync that failed: a directory can be synced.
    assert.equal(bench.run(Operation.FLUSH), 0);
  }
  close(directory);
  closeBackend(opened);
});

Deno.test("a disk that cannot be opened again, for syncs of its own, is not served", () => {
  using scratch = new Scratch();
  const opened = openBackend({ path: scratch.file("disk", MIB), readOnly: false, direct: false });
  const once = eventfd();
  assert.throws(() => new Bench("poll", { ...opened, fd: once }), /open the disk once more/);
  close(once);
  closeBackend(opened);
});

forEachLoop("a full file system in memory answers ENOSPC, and works on once there is space", true, (loop, scratch) => {
  const folder = scratch.tmpfs(MIB);
  using bench = new Bench(loop, scratch.file("disk", 8 * MIB, folder));
  assert.equal(fill(bench), -Errno.ENOSPC);
  assert.equal(bench.run(Operation.WRITE_ZEROES, 0, 4 * MIB, RequestFlag.NO_UNMAP), -Errno.ENOSPC);
  assert.equal(bench.run(Operation.DISCARD, 0, 8 * MIB), 0);
  assert.equal(bench.write(4 * MIB, 65536, 2, FUA), 0);
  assert.equal(bench.run(Operation.FLUSH), 0);
});

forEachLoop(
  "a full file system on a disk answers ENOSPC to a FUA write, which is not sticky",
  true,
  (loop, scratch) => {
    const folder = scratch.filesystem("ext4", 8 * MIB);
    using bench = new Bench(loop, scratch.file("disk", 32 * MIB, folder));
    assert.equal(fill(bench, FUA), -Errno.ENOSPC);
    assert.equal(Atomics.load(bench.sticky, 0), 0);
    assert.equal(bench.run(Operation.DISCARD, 0, 32 * MIB), 0);
    assert.equal(bench.run(Operation.FLUSH), 0);
    assert.equal(bench.write(MIB, 65536, 2, FUA), 0);
    assert.deepEqual(bench.read(MIB, 65536), pattern(MIB, 65536, 2));
  },
);

forEachLoop("pages that are lost after they were acknowledged make FLUSH fail for good", true, (loop, scratch) => {
  // A loop device whose file lies on a tmpfs that is too small: the page cache takes what the device cannot write.
  const device = scratch.loopDevice(scratch.file("image", 8 * MIB, scratch.tmpfs(MIB)));
  using bench = new Bench(loop, device);
  assert.equal(fill(bench), 0);
  const status = bench.run(Operation.FLUSH);
  assert.ok(status === -Errno.ENOSPC || status === -Errno.EIO, `${status}`);
  assert.equal(bench.run(Operation.FLUSH), status);
  assert.equal(bench.write(0, 512, 1, FUA), status);
});

forEachLoop(
  "a FUA write that the device cannot take is sticky, although the page cache takes it",
  true,
  (loop, scratch) => {
    const device = scratch.loopDevice(scratch.file("image", 8 * MIB, scratch.tmpfs(MIB)));
    using bench = new Bench(loop, device);
    const status = fill(bench, FUA);
    assert.ok(status === -Errno.ENOSPC || status === -Errno.EIO, `${status}`);
    assert.equal(bench.run(Operation.FLUSH), status);
  },
);

Deno.test("a slot takes one request at a time", () => {
  using scratch = new Scratch();
  using bench = new Bench("poll", scratch.file("disk", MIB));
  const device = bench.device;
  bench.start(0, Operation.FLUSH);
  if (!bench.statuses.has(0)) {
    assert.throws(() => device.submit(0, Operation.FLUSH, 0, bench), /has a request already/);
  }
  assert.equal(bench.finish(0), 0);
});
