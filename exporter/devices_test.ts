import assert from "node:assert/strict";
import { arenaBytes, Engine } from "../engine/engine.ts";
import { type BlockClient, Operation, PENDING } from "../engine/block.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";
import { Feature } from "../protocol/grant.ts";
import { closeDisk, type Disk, openDisk } from "./disks.ts";
import { Devices } from "./devices.ts";

const BYTES = 64 * 1024;

/** An engine with the disks of some paths and layers, which are closed at the end. */
async function withDisks(
  paths: readonly [path: string, ...layers: string[]][],
  work: (engine: Engine, disks: readonly Disk[], folder: string) => void,
): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "dst-devices-", dir: "/var/tmp" });
  const engine = new Engine(makeLoop("poll"), makeArena(arenaBytes(4)));
  const disks: Disk[] = [];
  try {
    for (const [index, [name, ...layers]] of paths.entries()) {
      const path = name.startsWith("mem:") ? name : `${folder}/${name}`;
      if (path !== name) Deno.writeFileSync(path, new Uint8Array(BYTES));
      const options = { name, path, readOnly: false, shared: false, direct: false, layers, allow: null };
      disks.push(await openDisk(index, { ...options, permissions: null }));
    }
    work(engine, disks, folder);
  } finally {
    for (const disk of disks) closeDisk(disk);
    engine.close();
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Turns the engine until the function has been called; answers with what. */
function outcome<T>(engine: Engine, start: (then: (value: T) => void) => void): T {
  let value: { is: T } | null = null;
  start((is) => value = { is });
  for (let turns = 0; value === null; turns++) {
    assert.ok(turns < 1000, "it comes to an end");
    engine.turn(10);
  }
  return (value as { is: T }).is;
}

/** No disk fails here. */
function unexpected(index: number): void {
  throw new Error(`disk ${index} has failed`);
}

Deno.test("a disk is what its back-end and its layers make it", () =>
  withDisks([["a", "volatile:256K"], ["mem:8K"]], (engine, disks) => {
    const devices = new Devices(engine, disks.map(({ served }) => served), unexpected);
    const shape = devices.shape(0);
    assert.equal(shape.size, BYTES);
    assert.equal(shape.features & Feature.VOLATILE_CACHE, Feature.VOLATILE_CACHE);
    assert.equal(devices.shape(1).features & (Feature.VOLATILE_CACHE | Feature.READ_ONLY), 0);
    assert.equal(devices.shape(1).size, 8192);
    assert.deepEqual(outcome<string[]>(engine, (then) => devices.removeAll(then)), []);
  }));

Deno.test("a disk that goes is synced, also when lanes have all the slots, and the others stay", () =>
  withDisks([["a", "volatile:256K"], ["b"]], (engine, disks, folder) => {
    const devices = new Devices(engine, disks.map(({ served }) => served), unexpected);
    const [slot] = engine.slots.reserve(1)!;
    engine.slots.setRange(slot, 4096, 4096);
    const at = engine.slots.payloadAt(slot);
    engine.arena.bytes.fill(0x5a, at, at + 4096);
    const written = outcome<number>(engine, (then) => {
      const client: BlockClient = { onComplete: (_slot, status) => then(status) };
      const status = devices.get(0).submit(slot, Operation.WRITE, 0, client);
      if (status !== PENDING) then(status);
    });
    assert.equal(written, 0);
    assert.equal(Deno.readFileSync(`${folder}/a`)[4096], 0, "it is in the volatile cache");
    engine.slots.reserve(engine.slots.freeCount);
    assert.equal(outcome<string | null>(engine, (then) => devices.remove(0, then)), null);
    assert.equal(Deno.readFileSync(`${folder}/a`)[4096], 0x5a);
    assert.equal(devices.shape(1).size, BYTES);
    assert.equal(outcome<string | null>(engine, (then) => devices.remove(0, then)), null, "it is gone already");
    assert.deepEqual(outcome<string[]>(engine, (then) => devices.removeAll(then)), []);
  }));

Deno.test("all disks are synced, one after the other where there is one slot, and failures are told", () =>
  withDisks([["a"], ["b", "error:flush,errno=ENOSPC"], ["c"], ["d", "error:flush"]], (engine, disks) => {
    const devices = new Devices(engine, disks.map(({ served }) => served), unexpected);
    engine.slots.reserve(engine.slots.freeCount);
    const failures = outcome<string[]>(engine, (then) => devices.removeAll(then));
    assert.deepEqual(failures.length, 2);
    assert.match(failures.join(), /space/i);
  }));

Deno.test("the end of all waits for one that goes already", () =>
  withDisks([["a"]], (engine, disks) => {
    const devices = new Devices(engine, disks.map(({ served }) => served), unexpected);
    const order: string[] = [];
    devices.remove(0, () => order.push("one"));
    outcome<string[]>(engine, (then) => devices.removeAll(then));
    assert.deepEqual(order, ["one"]);
  }));

Deno.test("a layer for which there is no memory is refused, and a disk can be added later", () =>
  withDisks([["a"], ["b", "volatile:64M"], ["c"]], (engine, disks) => {
    const [a, b, c] = disks.map(({ served }) => served);
    const { freeCount } = engine.slots;
    const devices = new Devices(engine, [a, null], unexpected);
    assert.throws(() => devices.add(1, b), /Cannot use the layer volatile on "b": it needs more memory/);
    devices.add(2, c);
    assert.equal(devices.shape(2).size, BYTES);
    assert.equal(outcome<string | null>(engine, (then) => devices.remove(1, then)), null);
    assert.deepEqual(outcome<string[]>(engine, (then) => devices.removeAll(then)), []);
    assert.equal(engine.slots.freeCount, freeCount - 1);
  }));
