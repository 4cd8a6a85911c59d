import assert from "node:assert/strict";
import { ProtocolError } from "./error.ts";
import { DEPTH_MAX } from "./limits.ts";
import { Operation } from "./request.ts";
import { Arrival, SlotTable } from "./slot_table.ts";

const { READ, WRITE, DISCARD } = Operation;

function range(offset: number, length: number): Float64Array {
  return Float64Array.of(offset, length);
}

Deno.test("the first request of a slot has sequence 1, and nothing else is its first", () => {
  const table = new SlotTable(2);
  assert.equal(table.classify(0, 1, READ, range(0, 512)), Arrival.NEW);
  for (const sequence of [0, 2, 3, 0xffff_ffff]) {
    assert.equal(table.classify(0, sequence, 0, range(0, 0)), -ProtocolError.SEQUENCE);
  }
});

Deno.test("an executing slot knows its request again and takes no other", () => {
  const table = new SlotTable(2);
  table.begin(1, 1, WRITE, range(4096, 512));
  assert.equal(table.classify(1, 1, WRITE, range(4096, 512)), Arrival.EXECUTING);
  assert.equal(table.classify(1, 2, WRITE, range(4096, 512)), -ProtocolError.SLOT_BUSY);
  assert.equal(table.classify(1, 3, WRITE, range(4096, 512)), -ProtocolError.SEQUENCE);
  assert.equal(table.classify(1, 0, WRITE, range(4096, 512)), -ProtocolError.SEQUENCE);
  assert.equal(table.classify(0, 1, WRITE, range(4096, 512)), Arrival.NEW);
  assert.throws(() => table.begin(1, 2, WRITE, range(0, 0)), /Assertion/);
  assert.throws(() => table.repeat(1), /Assertion/);
});

Deno.test("a done slot remembers its status and takes the next request", () => {
  const table = new SlotTable(1);
  table.begin(0, 1, WRITE, range(4096, 512));
  table.finish(0, 2);
  assert.equal(table.classify(0, 1, WRITE, range(4096, 512)), Arrival.DONE);
  assert.equal(table.status[0], 2);
  assert.equal(table.classify(0, 2, READ, range(0, 1)), Arrival.NEW);
  assert.equal(table.classify(0, 0, READ, range(0, 1)), -ProtocolError.SEQUENCE);
  assert.throws(() => table.finish(0, 0), /Assertion/);
});

Deno.test("a resend that asks for something else is refused, whether executing or done", () => {
  const table = new SlotTable(1);
  table.begin(0, 1, WRITE, range(2 ** 40, 512));
  for (let round = 0; round < 2; round++) {
    assert.equal(table.classify(0, 1, DISCARD, range(2 ** 40, 512)), -ProtocolError.RESEND_DIFFERS);
    assert.equal(table.classify(0, 1, WRITE, range(2 ** 40 + 2 ** 32, 512)), -ProtocolError.RESEND_DIFFERS);
    assert.equal(table.classify(0, 1, WRITE, range(2 ** 40, 513)), -ProtocolError.RESEND_DIFFERS);
    if (round === 0) table.finish(0, 0);
  }
});

Deno.test("sequences wrap from 2^32 - 1 to 0", () => {
  const table = new SlotTable(1);
  table.sequence[0] = 0xffff_fffe;
  table.begin(0, 0xffff_ffff, READ, range(0, 1));
  table.finish(0, 0);
  assert.equal(table.classify(0, 1, READ, range(0, 1)), -ProtocolError.SEQUENCE);
  assert.equal(table.classify(0, 0, READ, range(0, 1)), Arrival.NEW);
  table.begin(0, 0, READ, range(0, 1));
  assert.equal(table.classify(0, 0, READ, range(0, 1)), Arrival.EXECUTING);
  table.finish(0, 0);
  assert.equal(table.classify(0, 0, READ, range(0, 1)), Arrival.DONE);
  assert.equal(table.classify(0, 1, READ, range(0, 1)), Arrival.NEW);
});

Deno.test("what executes is counted, and the payload of READs and WRITEs only", () => {
  const table = new SlotTable(4);
  table.begin(0, 1, READ, range(0, 100));
  table.begin(1, 1, WRITE, range(0, 10));
  table.begin(2, 1, DISCARD, range(0, 2 ** 50));
  table.begin(3, 1, READ, range(0, -1));
  assert.deepEqual([table.executing, table.payloadBytes], [4, 110]);
  for (let slot = 0; slot < 4; slot++) table.finish(slot, 0);
  assert.deepEqual([table.executing, table.payloadBytes], [0, 0]);
  table.repeat(0);
  assert.deepEqual([table.executing, table.payloadBytes], [1, 100]);
});

Deno.test("a cleared table is like a new one, and one that executes is not cleared", () => {
  const table = new SlotTable(1);
  table.begin(0, 1, READ, range(0, 1));
  assert.throws(() => table.clear(), /Assertion/);
  table.finish(0, 0);
  table.clear();
  assert.equal(table.classify(0, 1, WRITE, range(5, 6)), Arrival.NEW);
  assert.equal(table.classify(0, 2, WRITE, range(5, 6)), -ProtocolError.SEQUENCE);
  assert.equal(table.classify(0, 0, READ, range(0, 1)), -ProtocolError.SEQUENCE);
});

Deno.test("a depth outside its limits is a programmer's error", () => {
  for (const depth of [0, -1, 1.5, DEPTH_MAX + 1]) assert.throws(() => new SlotTable(depth), /Assertion/);
  assert.equal(new SlotTable(DEPTH_MAX).depth, DEPTH_MAX);
});
