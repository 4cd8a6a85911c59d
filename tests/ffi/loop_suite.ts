/**
 * The tests that every {@link Loop} must pass, over real sockets and files.
 *
 * @module
 */
import assert from "node:assert/strict";
import * as libc from "../../ffi/libc.ts";
import { FallocateMode, PollEvent, ReadWriteFlag } from "../../ffi/constants.ts";
import { Errno } from "../../ffi/errno.ts";
import { Buffer, type LoopUnderTest, Message, pattern, Recorder, testsOf } from "./loop_fixture.ts";
import { registerSocketTests } from "./loop_suite_sockets.ts";
import * as socket from "../../ffi/socket.ts";
import { fstat } from "../../ffi/stat.ts";

/** Registers the suite's tests. */
export function runLoopSuite(suite: LoopUnderTest): void {
  const test = testsOf(suite);
  registerSocketTests(test, suite.name);

  test("operations on a bad descriptor are EBADF", ({ loop, kind, until }) => {
    const buffer = new Buffer(8);
    const message = new Message({ address: buffer.address, bytes: 8 });
    loop.recv(-1, buffer.address, 8, 0, kind, 0, 0);
    loop.sendmsg(-1, message.address, 0, kind, 1, 0);
    loop.accept(-1, kind, 2, 0);
    loop.connect(-1, buffer.address, 8, kind, 3, 0);
    loop.read(-1, buffer.address, 8, 0, kind, 4, 0);
    loop.write(-1, buffer.address, 8, 0, 0, kind, 5, 0);
    loop.fdatasync(-1, kind, 6, 0);
    loop.fallocate(-1, 0, 0, 8, kind, 7, 0);
    loop.fadvise(-1, 0, 8, 0, kind, 8, 0);
    // ppoll takes a negative descriptor for one to be left out, so this one is only closed.
    loop.pollIn(1_000_000, kind, 9, 0);
    for (const { tag, result } of until(10)) assert.equal(result, -Errno.EBADF, `tag ${tag}`);
  });

  test("writes and reads a file, and reads short at its end", ({ loop, kind, one, file }) => {
    const fd = file();
    const out = new Buffer(10_000, pattern);
    const into = new Buffer(10_000);
    loop.write(fd, out.address, 10_000, 5, 0, kind, 1, 0);
    assert.equal(one(), 10_000);
    loop.read(fd, into.address, 10_000, 5, kind, 1, 0);
    assert.equal(one(), 10_000);
    assert.deepEqual(into.bytes, out.bytes);
    loop.read(fd, into.address, 10_000, 10_000, kind, 1, 0);
    assert.equal(one(), 5);
    assert.deepEqual(into.bytes.slice(0, 5), out.bytes.slice(9995));
    loop.read(fd, into.address, 10_000, 10_005, kind, 1, 0);
    assert.equal(one(), 0);
    loop.read(fd, into.address, 0, 0, kind, 1, 0);
    assert.equal(one(), 0);
    assert.equal(fstat(fd).size, 10_005);
  });

  test("offsets beyond 4 GiB reach the file whole", ({ loop, kind, one, file }) => {
    const fd = file();
    const out = new Buffer(512, pattern);
    const into = new Buffer(512);
    for (const offset of [2 ** 31 - 256, 2 ** 32 - 256, 2 ** 32, 2 ** 33 + 4096, 2 ** 40 + 12_345]) {
      loop.write(fd, out.address, 512, offset, 0, kind, 1, 0);
      assert.equal(one(), 512);
      assert.equal(fstat(fd).size, offset + 512);
      into.bytes.fill(0);
      loop.read(fd, into.address, 512, offset, kind, 1, 0);
      assert.equal(one(), 512);
      assert.deepEqual(into.bytes, out.bytes, `at ${offset}`);
      into.bytes.fill(0);
      assert.equal(libc.pread(fd, 0, into.address, 512, offset), 512);
      assert.deepEqual(into.bytes, out.bytes, `at ${offset}`);
    }
  });

  test("RWF_DSYNC writes and fdatasync succeed, unknown flags do not", ({ loop, kind, one, file }) => {
    const fd = file();
    const out = new Buffer(512, pattern);
    loop.write(fd, out.address, 512, 0, ReadWriteFlag.DSYNC, kind, 1, 0);
    assert.equal(one(), 512);
    loop.fdatasync(fd, kind, 1, 0);
    assert.equal(one(), 0);
    loop.write(fd, out.address, 512, 0, 1 << 20, kind, 1, 0);
    assert.equal(one(), -Errno.EOPNOTSUPP);
  });

  test("fdatasync of what has no data is EINVAL", ({ loop, kind, one, keep }) => {
    loop.fdatasync(keep(libc.eventfd()), kind, 1, 0);
    assert.equal(one(), -Errno.EINVAL);
  });

  test("fallocate makes and punches, also beyond 4 GiB", ({ loop, kind, one, keep }) => {
    const fd = keep(libc.memfdCreate("loop"));
    const base = 2 ** 32 + 8192;
    loop.fallocate(fd, 0, base, 65536, kind, 1, 0);
    assert.equal(one(), 0);
    assert.equal(fstat(fd).size, base + 65536);
    const buffer = new Buffer(4096, () => 0xaa);
    loop.write(fd, buffer.address, 4096, base, 0, kind, 1, 0);
    assert.equal(one(), 4096);
    const mode = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE;
    loop.fallocate(fd, mode, 0, base + 4096, kind, 1, 0);
    assert.equal(one(), 0);
    loop.read(fd, buffer.address, 4096, base, kind, 1, 0);
    assert.equal(one(), 4096);
    assert.ok(buffer.bytes.every((byte) => byte === 0));
    loop.fallocate(fd, mode, 0, 0, kind, 1, 0);
    assert.equal(one(), -Errno.EINVAL);
  });

  test("advice is taken, for any length", ({ loop, kind, one, file }) => {
    const fd = file();
    for (const bytes of [0, 4096, 2 ** 32, 2 ** 40]) {
      loop.fadvise(fd, 4096, bytes, 3, kind, 1, 0);
      assert.equal(one(), 0);
    }
    loop.fadvise(fd, 0, 4096, 99, kind, 1, 0);
    assert.equal(one(), -Errno.EINVAL);
  });

  test("an eventfd wakes the loop", ({ loop, kind, one, keep }) => {
    const event = keep(libc.eventfd());
    loop.pollIn(event, kind, 1, 0);
    assert.equal(loop.turn(0), 0);
    assert.equal(libc.eventfdWrite(event, 3), 0);
    assert.equal(one() & PollEvent.IN, PollEvent.IN);
    assert.equal(libc.eventfdRead(event), 3);
    loop.pollIn(event, kind, 1, 0);
    assert.equal(loop.turn(0), 0, "it was emptied");
  });

  test("another thread wakes a loop that waits", async ({ loop, kind, recorder, keep }) => {
    const event = keep(libc.eventfd());
    const source = `
      import { eventfdWrite } from ${JSON.stringify(import.meta.resolve("../../ffi/libc.ts"))};
      self.onmessage = ({ data }) => setTimeout(() => eventfdWrite(data, 1), 50);
      self.postMessage("ready");`;
    const url = URL.createObjectURL(new Blob([source], { type: "application/typescript" }));
    const worker = new Worker(url, { type: "module" });
    await new Promise((resolve) => worker.onmessage = resolve);
    loop.pollIn(event, kind, 1, 0);
    worker.postMessage(event);
    assert.equal(loop.turn(10_000), 1);
    assert.deepEqual(recorder.seen, [{ tag: 1, generation: 0, result: PollEvent.IN }]);
    worker.terminate();
    URL.revokeObjectURL(url);
  });

  test("a turn without completions returns 0 after its time", ({ loop, kind, keep }) => {
    assert.equal(loop.turn(0), 0);
    assert.equal(loop.turn(2), 0);
    loop.pollIn(keep(libc.eventfd()), kind, 1, 0);
    assert.equal(loop.turn(0.5), 0);
    assert.equal(loop.turn(3), 0);
    assert.equal(loop.pending, 1);
  });

  test("waiting without end for nothing is refused", ({ loop }) => {
    assert.throws(() => loop.turn(Infinity), /no operation is pending/);
  });

  test("waiting without end returns on a completion", ({ loop, kind, keep }) => {
    const event = keep(libc.eventfd());
    libc.eventfdWrite(event, 1);
    loop.pollIn(event, kind, 1, 0);
    assert.equal(loop.turn(Infinity), 1);
  });

  test("tags and generations come back whole", ({ loop, kind, until, file }) => {
    const fd = file();
    const cases = [[0, 0], [0xff_ffff, 0xffff_ffff], [0x80_0000, 0x8000_0000], [1, 0x7fff_ffff]];
    for (const [tag, generation] of cases) loop.fdatasync(fd, kind, tag, generation);
    const seen = until(cases.length).map(({ tag, generation }) => [tag, generation]);
    assert.deepEqual(seen.toSorted((a, b) => a[0] - b[0]), cases.toSorted((a, b) => a[0] - b[0]));
    assert.throws(() => loop.fdatasync(fd, kind, 0x100_0000, 0), RangeError);
    assert.throws(() => loop.fdatasync(fd, kind, -1, 0), RangeError);
    assert.throws(() => loop.fdatasync(fd, kind + 1, 0, 0), RangeError);
  });

  test("255 handlers are told apart, and no more are taken", ({ loop, file }) => {
    const fd = file();
    const recorders: Recorder[] = [];
    for (let kind = 1; kind < 255; kind++) {
      recorders.push(new Recorder());
      assert.equal(loop.register(recorders[kind - 1]), kind);
      loop.fdatasync(fd, kind, kind * 3, kind);
    }
    assert.throws(() => loop.register(new Recorder()), RangeError);
    while (loop.pending > 0) loop.turn(1000);
    recorders.forEach((recorder, i) => {
      assert.deepEqual(recorder.seen, [{ tag: (i + 1) * 3, generation: i + 1, result: 0 }]);
    });
  });

  test("far more operations than the queues hold are all done, once each", ({ loop, kind, until, file }) => {
    const fd = file();
    const count = 10_000;
    const buffer = new Buffer(16, pattern);
    for (let tag = 0; tag < count; tag++) {
      loop.write(fd, buffer.address, 1 + tag % 16, tag * 16, 0, kind, tag, tag ^ 0x5555_5555);
    }
    assert.equal(loop.pending, count);
    const done = new Uint8Array(count);
    for (const { tag, generation, result } of until(count)) {
      assert.equal(result, 1 + tag % 16);
      assert.equal(generation, (tag ^ 0x5555_5555) >>> 0);
      done[tag]++;
    }
    assert.ok(done.every((times) => times === 1));
    assert.equal(loop.pending, 0);
  });

  test("more operations than may be pending are refused", ({ loop, kind, until, file }) => {
    const fd = file();
    for (let tag = 0; tag < 64; tag++) loop.fdatasync(fd, kind, tag, 0);
    assert.throws(() => loop.fdatasync(fd, kind, 64, 0), /64 are pending/);
    until(64);
    loop.fdatasync(fd, kind, 64, 0);
    until(65);
  }, 64);

  test("completions come only from turns, what handlers queue in later ones", ({ loop, kind, recorder, file }) => {
    const fd = file();
    let inTurn = false;
    let left = 3;
    recorder.then = ({ tag }) => {
      assert.ok(inTurn);
      if (left-- > 0) loop.fdatasync(fd, kind, tag + 1, 0);
    };
    loop.fdatasync(fd, kind, 0, 0);
    assert.equal(recorder.seen.length, 0);
    const seenAfterTurn: number[] = [];
    while (loop.pending > 0) {
      inTurn = true;
      loop.turn(1000);
      inTurn = false;
      seenAfterTurn.push(recorder.seen.length);
    }
    assert.equal(recorder.seen.length, 4);
    for (let i = 1; i < seenAfterTurn.length; i++) assert.ok(seenAfterTurn[i] - seenAfterTurn[i - 1] <= 1);
  });

  test("a handler that queues more than the queue holds loses nothing", ({ loop, kind, recorder, file }) => {
    const fd = file();
    const each = 900;
    recorder.then = ({ tag }) => {
      if (tag < 8) { for (let i = 0; i < each; i++) loop.fdatasync(fd, kind, 100 + i, tag); }
    };
    for (let tag = 0; tag < 8; tag++) loop.fdatasync(fd, kind, tag, 0);
    while (loop.pending > 0) loop.turn(1000);
    assert.equal(recorder.seen.length, 8 + 8 * each);
    const distinct = new Set(recorder.seen.map(({ tag, generation }) => generation * 65536 + tag));
    assert.equal(distinct.size, 8 + 8 * each);
  });

  test("file operations do not keep a socket waiting", ({ loop, kind, recorder, file, pair }) => {
    const fd = file();
    const [left, right] = pair();
    const buffer = new Buffer(16);
    let socketDone = false;
    let files = 0;
    recorder.then = ({ tag }) => {
      if (tag === 1) socketDone = true;
      else if (!socketDone && files++ < 50_000) loop.write(fd, buffer.address, 16, 0, 0, kind, 2, 0);
    };
    loop.recv(right, buffer.address, 1, 0, kind, 1, 0);
    assert.equal(loop.turn(0), 0);
    for (let i = 0; i < 500; i++) loop.write(fd, buffer.address, 16, 0, 0, kind, 2, 0);
    assert.equal(socket.sendmsg(left, new Message({ address: buffer.address, bytes: 1 }).address, 0), 1);
    while (loop.pending > 0) loop.turn(1000);
    assert.ok(socketDone);
    assert.ok(files < 50_000);
  });

  test("a handler may close the loop, and nothing is handed out after", ({ loop, kind, recorder, file }) => {
    const fd = file();
    recorder.then = () => loop.close();
    for (let tag = 0; tag < 5; tag++) loop.fdatasync(fd, kind, tag, 0);
    loop.turn(1000);
    assert.equal(recorder.seen.length, 1);
    assert.throws(() => loop.turn(0), /closed/);
    assert.throws(() => loop.fdatasync(fd, kind, 1, 0), /closed/);
    loop.close();
  });

  test("closing cancels what is under way", ({ loop, kind, pair, recorder }) => {
    const [left, right] = pair();
    const into = new Buffer(10, () => 1);
    loop.recv(right, into.address, 10, 0, kind, 1, 0);
    assert.equal(loop.turn(0), 0);
    loop.close();
    const out = new Buffer(4);
    assert.equal(socket.sendmsg(left, new Message({ address: out.address, bytes: 4 }).address, 0), 4);
    assert.equal(recorder.seen.length, 0);
    assert.ok(into.bytes.every((byte) => byte === 1), "the data was not received");
  });

  test("a turn within a turn is refused", ({ loop, kind, recorder, file }) => {
    let refused = false;
    recorder.then = () => {
      assert.throws(() => loop.turn(0), /from within/);
      refused = true;
    };
    loop.fdatasync(file(), kind, 1, 0);
    loop.turn(1000);
    assert.ok(refused);
  });

  test("a handler that throws loses no other completion", ({ loop, kind, recorder, file }) => {
    const fd = file();
    recorder.then = ({ tag }) => {
      if (tag === 0) throw new Error("first");
    };
    loop.fdatasync(fd, kind, 0, 0);
    loop.fdatasync(fd, kind, 1, 0);
    assert.throws(() => {
      while (loop.pending > 0) loop.turn(1000);
    }, /first/);
    while (loop.pending > 0) loop.turn(1000);
    assert.deepEqual(recorder.seen.map(({ tag }) => tag).toSorted(), [0, 1]);
  });
}
