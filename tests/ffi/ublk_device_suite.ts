/**
 * The tests of ublk on a real driver: run as root in a kernel that has one, as the test VM's does.
 *
 * @module
 */
import assert from "node:assert/strict";
import { addressOf, close } from "../../ffi/libc.ts";
import { Errno, SystemError } from "../../ffi/errno.ts";
import { Ring } from "../../ffi/ring.ts";
import { openQueueDevice, UblkControl } from "../../ffi/ublk_control.ts";
import { UblkQueue, type UblkQueueHandler } from "../../ffi/ublk_queue.ts";
import { type UblkDeviceInfo, UblkFeature, UblkFlag, UblkOperation, type UblkParameters } from "../../ffi/ublk_wire.ts";

const DEPTH = 32;
const IO_BYTES = 65_536;
const DISK_BYTES = 16 << 20;

const PARAMETERS: UblkParameters = {
  sizeBytes: DISK_BYTES,
  logicalBlock: 512,
  physicalBlock: 4096,
  optimalIo: 65_536,
  maximumIoBytes: IO_BYTES,
  readOnly: false,
  rotational: false,
  volatileCache: true,
  fua: true,
  discardGranularity: 4096,
  maximumDiscardBytes: DISK_BYTES,
  maximumWriteZeroesBytes: DISK_BYTES,
};

/** A request as it was seen. */
interface Seen {
  readonly operation: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

/** A disk in memory behind one queue, or one of the queues before it. */
class MemoryServer implements UblkQueueHandler {
  readonly disk: Uint8Array;
  readonly seen: Seen[] = [];
  /** Answers this errno to writes, when not 0. */
  writeErrno = 0;
  /** Keeps writes instead of answering them. */
  holdingWrites = false;
  readonly heldTags: number[] = [];
  endedWith: number | null = null;
  readonly ring = new Ring();
  readonly queue: UblkQueue;
  readonly #buffers = new Uint8Array(new ArrayBuffer(DEPTH * IO_BYTES));
  readonly #pumping: Promise<void>;

  constructor(readonly fd: number, disk: Uint8Array, queueId = 0) {
    this.disk = disk;
    const address = addressOf(this.#buffers);
    this.queue = new UblkQueue(this.ring, fd, queueId, DEPTH, (tag) => address + tag * IO_BYTES, this);
    this.#pumping = this.#pump();
  }

  onRequest(tag: number, operation: number, flags: number, offset: number, length: number): void {
    this.seen.push({ operation, flags, offset, length });
    if (this.holdingWrites && operation === UblkOperation.WRITE) {
      this.heldTags.push(tag);
      return;
    }
    this.queue.commit(tag, this.#execute(tag, operation, offset, length));
  }

  onEnded(error: number): void {
    this.endedWith = error;
  }

  #execute(tag: number, operation: number, offset: number, length: number): number {
    const buffer = this.#buffers.subarray(tag * IO_BYTES, (tag + 1) * IO_BYTES);
    switch (operation) {
      case UblkOperation.READ:
        buffer.set(this.disk.subarray(offset, offset + length));
        return length;
      case UblkOperation.WRITE:
        if (this.writeErrno !== 0) return -this.writeErrno;
        this.disk.set(buffer.subarray(0, length), offset);
        return length;
      case UblkOperation.DISCARD:
      case UblkOperation.WRITE_ZEROES:
        this.disk.fill(0, offset, offset + length);
        return 0;
      case UblkOperation.FLUSH:
        return 0;
      default:
        return -Errno.EOPNOTSUPP;
    }
  }

  /** Turns the loop between other things of this thread, which waits for processes that use the device. */
  async #pump(): Promise<void> {
    while (this.queue.live > 0) {
      this.ring.turn(1);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  /** Gives everything but the descriptor back, after the queue has ended. */
  async close(): Promise<void> {
    await this.#pumping;
    this.queue.close();
    this.ring.close();
  }
}

async function shell(script: string): Promise<{ code: number; output: string }> {
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", script],
    env: { LC_ALL: "C" },
    stdin: "null",
  }).output();
  return { code, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

async function good(script: string): Promise<string> {
  const { code, output } = await shell(script);
  assert.equal(code, 0, `${script}: ${output}`);
  return output.trim();
}

function count(server: MemoryServer, operation: number, flag = 0): number {
  return server.seen.filter((seen) => seen.operation === operation && (seen.flags & flag) === flag).length;
}

/** Ends a device, and expects all of it to go. */
async function end(control: UblkControl, id: number, ...servers: MemoryServer[]): Promise<void> {
  await control.stopDevice(id);
  for (const server of servers) {
    while (server.queue.live > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(server.endedWith, 0);
    await server.close();
  }
  close(servers[0].fd);
  await control.deleteDevice(id);
  assert.equal(await control.deviceInfo(id), null);
  control.close();
}

/** Registers the suite's tests. */
export function runUblkDeviceSuite(): void {
  function test(
    name: string,
    features: number,
    change: Partial<UblkParameters>,
    body: (control: UblkControl, device: UblkDeviceInfo, server: MemoryServer, path: string) => Promise<void>,
  ): void {
    Deno.test(`ublk: ${name}`, async () => {
      const control = UblkControl.open();
      const device = await control.addDevice({ queues: 1, queueDepth: DEPTH, maximumIoBytes: IO_BYTES, features });
      await control.setParameters(device.id, { ...PARAMETERS, ...change });
      const fd = await openQueueDevice(device.id);
      const server = new MemoryServer(fd, new Uint8Array(DISK_BYTES));
      await control.startDevice(device.id, Deno.pid);
      try {
        await body(control, device, server, `/dev/ublkb${device.id}`);
      } finally {
        await end(control, device.id, server);
      }
    });
  }

  Deno.test("ublk: the driver tells its features", async () => {
    const control = UblkControl.open();
    const features = await control.features();
    for (const feature of [UblkFeature.IOCTL_ENCODE, UblkFeature.USER_RECOVERY, UblkFeature.USER_RECOVERY_REISSUE]) {
      assert.equal(features & feature, feature);
    }
    assert.equal(await control.deviceInfo(777), null);
    await assert.rejects(control.stopDevice(777), SystemError);
    control.close();
  });

  Deno.test("ublk: closing the control device rejects what is under way", async () => {
    const control = UblkControl.open();
    const device = await control.addDevice({ queues: 1, queueDepth: 4, maximumIoBytes: IO_BYTES, features: 0 });
    await control.setParameters(device.id, PARAMETERS);
    const starting = control.startDevice(device.id, Deno.pid);
    const outcome = assert.rejects(starting, /cancelled \(ECANCELED\)/);
    await new Promise((resolve) => setTimeout(resolve, 20));
    control.close();
    await outcome;
    const again = UblkControl.open();
    await again.deleteDevice(device.id);
    again.close();
  });

  test("the block device is as described", 0, {}, async (control, device, _server, path) => {
    const info = (await control.deviceInfo(device.id))!;
    assert.equal(info.state, "live");
    assert.equal(info.serverPid, Deno.pid);
    assert.equal(info.queueDepth, DEPTH);
    assert.equal(info.maximumIoBytes, IO_BYTES);
    const told = await good(`blockdev --getsize64 --getss --getpbsz --getiomin --getioopt --getro ${path}`);
    assert.deepEqual(told.split("\n").map(Number), [DISK_BYTES, 512, 4096, 4096, 65_536, 0]);
    const queue = `/sys/block/ublkb${device.id}/queue`;
    assert.equal(
      await good(`cat ${queue}/write_cache ${queue}/fua ${queue}/discard_granularity`),
      "write back\n1\n4096",
    );
  });

  test("a read-only device refuses writers", 0, { readOnly: true }, async (_control, _device, server, path) => {
    assert.equal(await good(`blockdev --getro ${path}`), "1");
    const { code } = await shell(`dd if=/dev/zero of=${path} bs=4k count=1 oflag=direct`);
    assert.notEqual(code, 0);
    assert.equal(count(server, UblkOperation.WRITE), 0);
  });

  test("reads and writes reach the disk, up to its last block", 0, {}, async (_control, _device, server, path) => {
    await good(`head -c ${DISK_BYTES} /dev/urandom > /tmp/ublk-pattern`);
    const pattern = await Deno.readFile("/tmp/ublk-pattern");
    await good(`dd if=/tmp/ublk-pattern of=${path} bs=1M oflag=direct 2>&1`);
    assert.deepEqual(server.disk, pattern);
    await good(`dd if=${path} iflag=direct bs=1M 2>/dev/null | cmp - /tmp/ublk-pattern`);
    await good(`printf A | dd of=${path} bs=1 seek=${DISK_BYTES - 1} conv=fsync 2>&1`);
    assert.equal(server.disk[DISK_BYTES - 1], 65);
    assert.ok(server.seen.every(({ length }) => length <= IO_BYTES));
    await Deno.remove("/tmp/ublk-pattern");
  });

  test("flush and FUA arrive", 0, {}, async (_control, _device, server, path) => {
    await good(`dd if=/dev/zero of=${path} bs=4k count=1 conv=fsync 2>&1`);
    assert.ok(count(server, UblkOperation.FLUSH) >= 1);
    assert.equal(count(server, UblkOperation.WRITE, UblkFlag.FUA), 0);
    await good(`dd if=/dev/zero of=${path} bs=4k count=1 oflag=direct,dsync 2>&1`);
    assert.equal(count(server, UblkOperation.WRITE, UblkFlag.FUA), 1);
  });

  test("discards and zeroes arrive", 0, {}, async (_control, _device, server, path) => {
    server.disk.fill(7);
    await good(`blkdiscard -o 4096 -l 8192 ${path}`);
    const discard = server.seen.find(({ operation }) => operation === UblkOperation.DISCARD)!;
    assert.deepEqual([discard.offset, discard.length], [4096, 8192]);
    await good(`blkdiscard -z -o 1048576 -l 4194304 ${path}`);
    const zeroed = server.seen.filter(({ operation }) => operation === UblkOperation.WRITE_ZEROES);
    assert.equal(zeroed.reduce((sum, { length }) => sum + length, 0), 4_194_304);
    // blkdiscard asks for zeroes that stay allocated.
    assert.ok(zeroed.every(({ flags }) => (flags & UblkFlag.NO_UNMAP) !== 0));
    assert.deepEqual([...server.disk.subarray(4095, 4097)], [7, 0]);
  });

  test("an error arrives as its errno", 0, {}, async (_control, _device, server, path) => {
    server.writeErrno = Errno.ENOSPC;
    const { code, output } = await shell(`dd if=/dev/zero of=${path} bs=4k count=1 oflag=direct`);
    assert.notEqual(code, 0);
    assert.match(output, /No space left on device/);
  });

  test("a filesystem works on it", 0, {}, async (_control, _device, _server, path) => {
    await good(`mkfs.ext4 -q ${path} && mkdir -p /run/ublk-mount && mount ${path} /run/ublk-mount`);
    await good(
      "head -c 1000000 /dev/urandom > /run/ublk-mount/file && sync && cksum < /run/ublk-mount/file > /run/ublk-sum",
    );
    await good("umount /run/ublk-mount");
    await good(`mount ${path} /run/ublk-mount && cksum < /run/ublk-mount/file | cmp - /run/ublk-sum`);
    await good(`umount /run/ublk-mount && fsck.ext4 -fn ${path} 2>&1`);
  });

  Deno.test("ublk: each queue of a device has its own requests, and it starts when all are served", async () => {
    const control = UblkControl.open();
    const device = await control.addDevice({ queues: 2, queueDepth: DEPTH, maximumIoBytes: IO_BYTES, features: 0 });
    assert.equal(device.queues, 2, "the VM has two processors");
    await control.setParameters(device.id, PARAMETERS);
    const fd = await openQueueDevice(device.id);
    const disk = new Uint8Array(DISK_BYTES);
    const first = new MemoryServer(fd, disk, 0);
    let isStarted = false;
    const starting = control.startDevice(device.id, Deno.pid).then(() => isStarted = true);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert(!isStarted);
    const second = new MemoryServer(fd, disk, 1);
    await starting;
    const path = `/dev/ublkb${device.id}`;
    try {
      assert.equal(await good(`ls /sys/block/ublkb${device.id}/mq | wc -l`), "2");
      // Each processor has a queue of its own.
      for (const [cpu, [mine, other]] of [[first, second], [second, first]].entries()) {
        mine.seen.length = other.seen.length = 0;
        await good(`printf ${cpu} | taskset -c ${cpu} dd of=${path} bs=4k seek=${cpu} conv=sync oflag=direct 2>&1`);
        assert.deepEqual([count(mine, UblkOperation.WRITE), count(other, UblkOperation.WRITE)], [1, 0]);
        assert.equal(disk[cpu * 4096], 48 + cpu);
      }
    } finally {
      await end(control, device.id, first, second);
    }
  });

  Deno.test("ublk: another process takes the device of a killed one over, with what was under way", async () => {
    const control = UblkControl.open();
    const features = UblkFeature.USER_RECOVERY | UblkFeature.USER_RECOVERY_REISSUE;
    const device = await control.addDevice({ queues: 1, queueDepth: DEPTH, maximumIoBytes: IO_BYTES, features });
    await control.setParameters(device.id, PARAMETERS);
    const path = `/dev/ublkb${device.id}`;

    const source = `import { serveUntilWrite } from ${
      JSON.stringify(import.meta.url)
    }; await serveUntilWrite(${device.id});`;
    const first = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--cached-only", `data:application/typescript,${encodeURIComponent(source)}`],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const words = first.stdout.pipeThrough(new TextDecoderStream()).getReader();
    await control.startDevice(device.id, first.pid);
    await good(`echo 1000 > /sys/block/ublkb${device.id}/queue/io_timeout`);
    const write = shell(`printf hello | dd of=${path} bs=512 count=1 conv=sync oflag=direct`);
    assert.deepEqual(await words.read(), { done: false, value: "holding\n" });
    await words.cancel();
    first.kill("SIGKILL");
    await first.status;

    for (;;) {
      try {
        await control.startRecovery(device.id);
        break;
      } catch (error) {
        if (!(error instanceof SystemError) || error.errno !== Errno.EBUSY) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    assert.equal((await control.deviceInfo(device.id))!.state, "quiesced");
    const server = new MemoryServer(await openQueueDevice(device.id), new Uint8Array(DISK_BYTES));
    await control.endRecovery(device.id, Deno.pid);
    assert.equal((await control.deviceInfo(device.id))!.state, "live");
    assert.equal((await write).code, 0);
    assert.equal(new TextDecoder().decode(server.disk.subarray(0, 5)), "hello");
    await end(control, device.id, server);
  });
}

/** The part of the server that is killed: serves a device until a write has come, keeps that and says so. */
export async function serveUntilWrite(id: number): Promise<void> {
  const server = new MemoryServer(await openQueueDevice(id), new Uint8Array(DISK_BYTES));
  server.holdingWrites = true;
  while (server.heldTags.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  console.log("holding");
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
