import assert from "node:assert/strict";
import * as libc from "./libc.ts";
import { FilesystemType, Lock, Mapping, OpenFlag, Protection, ReadWriteFlag, Seek } from "./constants.ts";
import { Errno, SystemError } from "./errno.ts";
import { fstat, fstatfs, stat } from "./stat.ts";

function memory(bytes: number): { bytes: Uint8Array<ArrayBuffer>; address: number } {
  const array = new Uint8Array(new ArrayBuffer(bytes));
  return { bytes: array, address: libc.addressOf(array) };
}

function withFile(body: (fd: number, path: string) => void): void {
  const path = Deno.makeTempFileSync();
  const fd = libc.open(path, OpenFlag.READ_WRITE);
  try {
    body(fd, path);
  } finally {
    libc.close(fd);
    Deno.removeSync(path);
  }
}

Deno.test("an address views the same memory, in both directions", () => {
  const { bytes, address } = memory(64);
  const again = new Uint8Array(libc.viewOf(address, 64));
  bytes[63] = 7;
  assert.equal(again[63], 7);
  again[0] = 9;
  assert.equal(bytes[0], 9);
  assert.equal(libc.addressOf(bytes.subarray(8)), address + 8);
  assert.throws(() => libc.addressOf(new Uint8Array(0)), RangeError);
  assert.throws(() => libc.viewOf(0, 8), RangeError);
});

Deno.test("failures are negative errnos", () => {
  assert.equal(libc.open("/nonexistent/file", OpenFlag.READ_ONLY), -Errno.ENOENT);
  assert.equal(libc.close(-1), -Errno.EBADF);
  assert.equal(libc.unlink("/nonexistent"), -Errno.ENOENT);
  assert.equal(libc.pread(-1, 0, memory(8).address, 8, 0), -Errno.EBADF);
  assert.equal(libc.fadvise(-1, 0, 0, 0), -Errno.EBADF);
  assert.equal(libc.kill(Deno.pid, 0), 0);
  assert.equal(libc.getpid(), Deno.pid);
  assert.throws(() => libc.open("a\0b", OpenFlag.READ_ONLY), TypeError);
});

Deno.test("descriptors are closed on exec", () => {
  withFile((fd) => assert.equal(libc.fcntl(fd, 1, 0), 1));
});

Deno.test("positional reads and writes work at every offset, short at the end, with flags", () => {
  withFile((fd) => {
    const out = memory(1000);
    out.bytes.forEach((_, i) => out.bytes[i] = i * 7);
    const into = memory(1000);
    for (const offset of [0, 2 ** 31 - 500, 2 ** 32 - 500, 2 ** 32, 2 ** 40 + 1]) {
      assert.equal(libc.pwrite(fd, 0, out.address, 1000, offset), 1000);
      into.bytes.fill(0);
      assert.equal(libc.preadv2(fd, into.address, 1000, offset, 0), 1000);
      assert.deepEqual(into.bytes, out.bytes);
      assert.equal(libc.pwritev2(fd, into.address, 500, offset + 500, ReadWriteFlag.DSYNC), 500);
      assert.equal(libc.pread(fd, 0, into.address, 1000, offset + 500), 500);
      assert.deepEqual(into.bytes.slice(0, 500), out.bytes.slice(0, 500));
      assert.equal(libc.ftruncate(fd, 0), 0);
    }
    assert.equal(libc.pread(fd, 0, into.address, 1000, 0), 0);
    assert.equal(libc.pread(fd, 0, into.address, 0, 0), 0);
    assert.equal(libc.fdatasync(fd), 0);
    assert.equal(libc.fsync(fd), 0);
  });
});

Deno.test("holes and data are found", () => {
  const fd = libc.memfdCreate("holes");
  const page = memory(4096);
  assert.equal(libc.ftruncate(fd, 2 ** 33), 0);
  assert.equal(libc.pwrite(fd, 0, page.address, 4096, 2 ** 32), 4096);
  assert.equal(libc.lseek(fd, 0, Seek.HOLE), 0);
  assert.equal(libc.lseek(fd, 0, Seek.DATA), 2 ** 32);
  assert.equal(libc.lseek(fd, 2 ** 32, Seek.HOLE), 2 ** 32 + libc.pageBytes());
  assert.equal(libc.lseek(fd, 2 ** 32 + libc.pageBytes(), Seek.DATA), -Errno.ENXIO);
  assert.equal(libc.seekEnd(fd), 2 ** 33);
  assert.equal(fstatfs(fd).type, FilesystemType.TMPFS);
  libc.close(fd);
});

Deno.test("a lock is held by the description, and refused to another", () => {
  withFile((fd, path) => {
    const other = libc.open(path, OpenFlag.READ_ONLY);
    assert.equal(libc.flock(fd, Lock.EXCLUSIVE | Lock.NONBLOCK), 0);
    assert.equal(libc.flock(other, Lock.SHARED | Lock.NONBLOCK), -Errno.EAGAIN);
    assert.equal(libc.flock(fd, Lock.UNLOCK), 0);
    assert.equal(libc.flock(other, Lock.SHARED | Lock.NONBLOCK), 0);
    assert.equal(libc.flock(fd, Lock.SHARED | Lock.NONBLOCK), 0);
    assert.equal(libc.flock(fd, Lock.EXCLUSIVE | Lock.NONBLOCK), -Errno.EAGAIN);
    libc.close(other);
  });
});

Deno.test("files are told apart, with size and identity", () => {
  withFile((fd, path) => {
    Deno.truncateSync(path, 12_345);
    const status = fstat(fd);
    const expected = Deno.statSync(path);
    assert.equal(status.kind, "file");
    assert.equal(status.size, 12_345);
    assert.equal(status.allocated, 0);
    assert.equal(status.inode, expected.ino);
    assert.equal(status.permissions, expected.mode! & 0o7777);
    assert.equal(status.uid, expected.uid);
    if (status.birthTime !== "") {
      assert.equal(Math.floor(Number(BigInt(status.birthTime) / 1_000_000n)), expected.birthtime!.getTime());
    }
    assert.deepEqual(stat(path).inode, status.inode);
    assert.equal(stat("/").kind, "directory");
    const zero = stat("/dev/zero");
    assert.deepEqual([zero.kind, zero.targetMajor, zero.targetMinor], ["character", 1, 5]);
  });
  assert.throws(() => stat("/nonexistent"), SystemError);
  assert.throws(() => fstat(-1), SystemError);
});

Deno.test("an eventfd counts, and is empty after it was read", () => {
  const fd = libc.eventfd();
  assert.equal(libc.eventfdRead(fd), 0);
  assert.equal(libc.eventfdWrite(fd, 1), 0);
  assert.equal(libc.eventfdWrite(fd, 0xffff_ffff), 0);
  assert.equal(libc.eventfdRead(fd), 2 ** 32);
  assert.equal(libc.eventfdRead(fd), 0);
  libc.close(fd);
  assert.equal(libc.eventfdWrite(fd, 1), -Errno.EBADF);
});

Deno.test("memory is mapped, locked and given back", () => {
  const bytes = 4 * libc.pageBytes();
  const address = libc.mmap(bytes, Protection.READ | Protection.WRITE, Mapping.PRIVATE | Mapping.ANONYMOUS, -1, 0);
  assert.ok(address > 0 && address % libc.pageBytes() === 0);
  const view = new Uint8Array(libc.viewOf(address, bytes));
  view[bytes - 1] = 1;
  assert.equal(libc.mlock(address, bytes), 0);
  assert.equal(libc.mlock(address, bytes, true), 0);
  assert.equal(libc.munmap(address, bytes), 0);
  assert.equal(libc.mmap(4096, Protection.READ, Mapping.SHARED, -1, 0), -Errno.EBADF);
  assert.equal(libc.mmap(0, Protection.READ, Mapping.PRIVATE | Mapping.ANONYMOUS, -1, 0), -Errno.EINVAL);
});

Deno.test("the thread knows its processors", () => {
  const cpus = libc.cpuAffinity();
  assert.ok(cpus.length >= 1);
  assert.ok(cpus.includes(libc.currentCpu()));
  assert.equal(libc.setCpuAffinity(cpus), 0);
  assert.deepEqual(libc.cpuAffinity(), cpus);
  assert.equal(libc.setCpuAffinity([]), -Errno.EINVAL);
});

Deno.test("a request for what the descriptor is not answers ENOTTY", () => {
  withFile((fd) => assert.equal(libc.ioctlNumber(fd, 0x80081272), -Errno.ENOTTY));
});

Deno.test("a process goes on as another program, with the arguments and the environment that it is given", async () => {
  const program = `
    import { execute } from ${JSON.stringify(new URL("./libc.ts", import.meta.url).href)};
    new Worker("data:application/javascript,setInterval(() => {}, 1)", { type: "module" });
    const errno = execute("/nowhere", ["x"], {});
    if (errno !== -2) throw new Error("it ends with " + errno);
    execute("/bin/sh", ["sh", "-c", 'echo "$0|$1|$A|$$"', "one", "two words"], { A: "b=c" });`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", program], stdout: "piped", stderr: "piped" })
    .spawn();
  const { code, stdout, stderr } = await child.output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  assert.equal(new TextDecoder().decode(stdout), `one|two words|b=c|${child.pid}\n`);
});
