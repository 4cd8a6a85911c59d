import assert from "node:assert/strict";
import * as libc from "./libc.ts";
import { runLoopSuite } from "../tests/ffi/loop_suite.ts";
import { Ring } from "./ring.ts";
import { mapUring, SetupFlag, unmapUring, uringAvailable, WaitArgument } from "./uring.ts";

const unavailable = uringAvailable();
if (unavailable === null) {
  runLoopSuite({ name: "ring", start: (pendingMax) => new Ring({ pendingMax }) });
  runLoopSuite({
    name: "ring with small queues",
    start: (pendingMax) => new Ring({ entries: 8, completionEntries: 16, pendingMax }),
  });

  Deno.test("ring: completions beyond the completion queue are kept by the kernel and handed out", () => {
    const ring = new Ring({ entries: 4, completionEntries: 4 });
    const tags = new Set<number>();
    const kind = ring.register({ complete: (tag) => void tags.add(tag) });
    const fd = libc.memfdCreate("ring");
    for (let tag = 0; tag < 1000; tag++) ring.fadvise(fd, 0, 0, 0, kind, tag, 0);
    while (ring.pending > 0) ring.turn(1000);
    assert.equal(tags.size, 1000);
    ring.close();
    libc.close(fd);
  });

  Deno.test("ring: a command to what has no driver is answered with an error", () => {
    const ring = new Ring();
    const results: number[] = [];
    const kind = ring.register({ complete: (tag, generation, result) => void results.push(tag, generation, result) });
    const fd = libc.memfdCreate("ring");
    ring.uringCmd(fd, 0xc010_7520, 1, 2, 3, 4, kind, 5, 6);
    ring.turn(1000);
    assert.deepEqual(results.slice(0, 2), [5, 6]);
    assert.ok(results[2] < 0);
    ring.close();
    libc.close(fd);
  });

  Deno.test("ring: a kernel that does not know a set-up flag is asked for less", () => {
    const before = [...Deno.readDirSync("/proc/self/fd")].length;
    const uring = mapUring(8, 32, [2 ** 30, SetupFlag.CQSIZE]);
    assert.deepEqual([uring.sqEntries, uring.cqEntries], [8, 32]);
    unmapUring(uring);
    assert.throws(() => mapUring(8, 32, [2 ** 30]), /Cannot make an io_uring: invalid argument/);
    assert.equal([...Deno.readDirSync("/proc/self/fd")].length, before);
  });

  Deno.test("ring: many are made and closed without leaving descriptors behind", () => {
    const before = [...Deno.readDirSync("/proc/self/fd")].length;
    for (let i = 0; i < 20; i++) new Ring().close();
    assert.equal([...Deno.readDirSync("/proc/self/fd")].length, before);
  });
} else {
  Deno.test({ name: `ring: skipped: ${unavailable}`, ignore: true, fn() {} });
}

Deno.test("a wait's timeout counts fractions of a millisecond", () => {
  const wait = new WaitArgument();
  const cases: [number, number, number][] = [
    [0, 0, 0],
    [0.25, 0, 250_000],
    [1, 0, 1_000_000],
    [999.999_999_9, 0, 999_999_999],
    [1000, 1, 0],
    [61_500, 61, 500_000_000],
    [1e15, 0xffff_ffff, 999_999_999],
  ];
  for (const [timeoutMs, seconds, nanoseconds] of cases) {
    wait.set(timeoutMs);
    const timespec = new BigUint64Array(libc.viewOf(Number(wait.timespecAddress), 16));
    assert.deepEqual([...timespec], [BigInt(seconds), BigInt(nanoseconds)], `${timeoutMs} ms`);
  }
});
