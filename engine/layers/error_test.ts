import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { type BlockDevice, Operation } from "../block.ts";
import { Timers } from "../timers.ts";
import { makeLayer, parseLayer } from "./mod.ts";
import { ask, makeSlots, TestDisk, Told } from "./test_disk.ts";

const told = new Told();

const slots = makeSlots(2);

function make(text: string): { layer: BlockDevice; disk: TestDisk } {
  const disk = new TestDisk(slots, 1 << 20);
  const timers = new Timers(1, { now: () => 0 });
  return { disk, layer: makeLayer(parseLayer(text), disk, { slots, timers }) };
}

function read(layer: BlockDevice, offset: number, length = 512): number {
  return ask(layer, slots, 0, Operation.READ, offset, length, 0, told);
}

Deno.test("only the named operations fail, with the named errno, and never reach the disk", () => {
  const { layer, disk } = make("error:write,flush,errno=ENOSPC");
  assert.equal(ask(layer, slots, 0, Operation.WRITE, 0, 512, 0, told), -Errno.ENOSPC);
  assert.equal(ask(layer, slots, 0, Operation.FLUSH, 0, 0, 0, told), -Errno.ENOSPC);
  assert.equal(read(layer, 0), 0);
  assert.deepEqual(disk.asked, ["READ 0+512 0"]);
});

Deno.test("a range fails every request that touches a byte of it, and no neighbour", () => {
  const { layer } = make("error:offset=4K,length=1K");
  assert.equal(read(layer, 3584), 0);
  assert.equal(read(layer, 3584, 1024), -Errno.EIO);
  assert.equal(read(layer, 4608), -Errno.EIO);
  assert.equal(read(layer, 5120), 0);
  assert.equal(read(layer, 0, 8192), -Errno.EIO);
});

Deno.test("a range does not spare FLUSH, which concerns the whole disk", () => {
  const { layer } = make("error:flush,offset=4K,length=1K");
  assert.equal(ask(layer, slots, 0, Operation.FLUSH, 0, 0, 0, told), -Errno.EIO);
});

Deno.test("after, every and count choose which of the matching requests fail", () => {
  const failures = (text: string): number[] => {
    const { layer } = make(text);
    return Array.from({ length: 10 }, (_, i) => i + 1).filter(() => read(layer, 0) !== 0);
  };
  assert.deepEqual(failures("error:after=7"), [8, 9, 10]);
  assert.deepEqual(failures("error:every=4"), [4, 8]);
  assert.deepEqual(failures("error:after=3,count=2"), [4, 5]);
  assert.deepEqual(failures("error:after=1,every=3,count=2"), [4, 7]);
  assert.deepEqual(failures("error:write"), []);
});

Deno.test("failures by chance come at the given rate and repeat with the seed", () => {
  const pattern = (text: string): string => {
    const { layer } = make(text);
    return Array.from({ length: 2000 }, () => read(layer, 0) === 0 ? "." : "x").join("");
  };
  const first = pattern("error:probability=0.1,seed=5");
  const failures = first.replaceAll(".", "").length;
  assert.ok(failures > 120 && failures < 280, `${failures} of 2000`);
  assert.equal(pattern("error:probability=0.1,seed=5"), first);
  assert.notEqual(pattern("error:probability=0.1,seed=6"), first);
  assert.equal(pattern("error:probability=0").includes("x"), false);
});
