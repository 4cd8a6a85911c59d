import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { Operation, PENDING } from "../block.ts";
import { Timers } from "../timers.ts";
import { makeLayer, parseLayer } from "./mod.ts";
import { ask, makeSlots, TestDisk, Told } from "./test_disk.ts";

function make(text: string) {
  const slots = makeSlots(4);
  const clock = { ms: 1000, now: () => clock.ms };
  const timers = new Timers(4, clock);
  const disk = new TestDisk(slots, 8192);
  return { slots, clock, timers, disk, told: new Told(), layer: makeLayer(parseLayer(text), disk, { slots, timers }) };
}

Deno.test("a delayed request reaches the disk only when its delay is over", () => {
  const { slots, timers, disk, told, layer } = make("delay:2000");
  assert.equal(ask(layer, slots, 1, Operation.WRITE, 512, 512, 1, told), PENDING);
  assert.equal(ask(layer, slots, 2, Operation.FLUSH, 0, 0, 0, told), PENDING);
  timers.expire(2999);
  assert.deepEqual(disk.asked, []);
  timers.expire(3000);
  assert.deepEqual(disk.asked, ["WRITE 512+512 1", "FLUSH 0+0 0"]);
  assert.deepEqual(told.order, [1, 2]);
});

Deno.test("operations without a delay pass at once, and the disk's status comes through either way", () => {
  const { slots, timers, disk, told, layer } = make("delay:read=5,write=0.5");
  assert.equal(ask(layer, slots, 0, Operation.FLUSH, 0, 0, 0, told), 0);
  assert.equal(ask(layer, slots, 0, Operation.READ, 0, 512, 0, told), PENDING);
  disk.failure = -Errno.EIO;
  assert.equal(ask(layer, slots, 1, Operation.WRITE, 0, 512, 0, told), PENDING);
  assert.equal(timers.nextDeadline(), 1000.5);
  timers.expire(1000.5);
  assert.deepEqual([...told.statuses], [[1, -Errno.EIO]]);
  disk.deferred = true;
  timers.expire(1005);
  assert.equal(told.statuses.has(0), false);
  disk.release();
  assert.equal(told.statuses.get(0), 0);
});

Deno.test("the delay layer has the geometry of the disk below and closes it", () => {
  const { disk, layer } = make("delay:1");
  assert.equal(layer.geometry, disk.geometry);
  assert.equal(layer.extentBytes(0), 16);
  layer.close();
  assert.equal(disk.closed, true);
});
