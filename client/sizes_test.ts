import assert from "node:assert/strict";
import type { OpenedShape } from "./messages.ts";
import { Sizes, type SizesState } from "./sizes.ts";

const MIB = 2 ** 20;

/** Threads whose export has another size when they are told so. */
function threadsOf(size: number) {
  let resized: (size: number) => void = () => {};
  return {
    shape: { geometry: { size } } as OpenedShape,
    onResized: (told: (size: number) => void) => void (resized = told),
    resize: (size: number) => resized(size),
  };
}

function device(size: number, resize: (bytes: number) => Promise<number | null>) {
  return { device: "/dev/ublkb0", nbd: null, size, resize };
}

Deno.test("a device that cannot follow says what to do, until the export has its size again", async () => {
  const threads = threadsOf(MIB + 100);
  const sizes = new Sizes(threads, device(MIB, (bytes) => Promise.resolve(bytes === MIB ? MIB : null)));
  await sizes.settled;
  const atFirst: SizesState = { size: MIB, exportSize: MIB + 100, resized: null };
  assert.deepEqual(sizes.state, atFirst);
  threads.resize(3 * MIB);
  await sizes.settled;
  const larger: SizesState = {
    size: MIB,
    exportSize: 3 * MIB,
    resized: "the export has 3 MiB now, /dev/ublkb0 1 MiB: detach and attach to see the new size",
  };
  assert.deepEqual(sizes.state, larger);
  threads.resize(MIB / 2);
  await sizes.settled;
  const { resized } = sizes.state;
  assert.equal(
    resized,
    "the export has 512 KiB now, /dev/ublkb0 1 MiB: what is beyond its end fails; detach and attach to see the new size",
  );
  threads.resize(MIB);
  await sizes.settled;
  assert.deepEqual(sizes.state, { size: MIB, exportSize: MIB, resized: null });
});

Deno.test("a device that can follow does, to the size that the export has at last", async () => {
  const threads = threadsOf(MIB);
  const asked: number[] = [];
  const sizes = new Sizes(threads, device(MIB, (bytes) => Promise.resolve(asked.push(bytes) > 0 ? bytes : null)));
  threads.resize(2 * MIB);
  threads.resize(5 * MIB);
  await sizes.settled;
  assert.deepEqual(sizes.state, { size: 5 * MIB, exportSize: 5 * MIB, resized: null });
  assert.equal(asked.at(-1), 5 * MIB);
});

Deno.test("a device whose driver fails keeps its size, and says what to do", async () => {
  const threads = threadsOf(MIB);
  const sizes = new Sizes(threads, device(MIB, () => Promise.reject(new Error("Cannot resize ublk device 0"))));
  threads.resize(2 * MIB);
  await sizes.settled;
  assert.match(sizes.state.resized!, /detach and attach to see the new size$/);
});

Deno.test("a device that is gone on with follows an export that had another size meanwhile", async () => {
  const sizes = new Sizes(threadsOf(2 * MIB), device(MIB, () => Promise.resolve(null)));
  await sizes.settled;
  assert.match(sizes.state.resized!, /^the export has 2 MiB now, \/dev\/ublkb0 1 MiB: detach and attach/);
});

Deno.test("of NBD clients those see the new size that connect from now on", async () => {
  const threads = threadsOf(MIB);
  const frontend = { device: null, nbd: "unix:/s", size: MIB, resize: (bytes: number) => Promise.resolve(bytes) };
  const sizes = new Sizes(threads, frontend);
  threads.resize(2 * MIB);
  await sizes.settled;
  const resized = "the export has 2 MiB now: NBD clients that connect from now on see it";
  assert.deepEqual(sizes.state, { size: 2 * MIB, exportSize: 2 * MIB, resized });
});
