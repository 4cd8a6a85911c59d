import assert from "node:assert/strict";
import { ProtocolError } from "./error.ts";
import { CUTS, type Fields } from "./harness_test.ts";
import { LaneSetup } from "./lane_setup_test.ts";
import { PENDING } from "./request.ts";
import { Status } from "./status.ts";

const READ = 1, WRITE = 2, FLUSH = 3, DISCARD = 4, BLOCK_STATUS = 7;

function writeOf(fill: number, fields: Partial<Fields> = {}): Fields {
  return { type: WRITE, sequence: 1, length: 512, payload: new Uint8Array(512).fill(fill), ...fields };
}

for (const digest of [0, 1, 2]) {
  for (const cut of CUTS) {
    Deno.test(`a WRITE that was done is answered again and not executed again (digest ${digest}, fed ${cut})`, () => {
      const setup = new LaneSetup({ digest, cut }).connect();
      setup.send(writeOf(1)).break().connect();
      setup.disk.fill(9, 0, 512);
      const reply = setup.ask(writeOf(2));
      assert.deepEqual([reply.type, reply.sequence, reply.status], [0x82, 1, 0]);
      assert.equal(setup.calls.length, 1);
      assert.ok(setup.disk.subarray(0, 512).every((byte) => byte === 9));
      assert.equal(setup.ask(writeOf(3, { sequence: 2 })).status, 0);
      assert.ok(setup.disk.subarray(0, 512).every((byte) => byte === 3));
    });

    Deno.test(`a resend of what executes is answered once, when it ends (digest ${digest}, fed ${cut})`, () => {
      const setup = new LaneSetup({ digest, cut }).connect();
      setup.answer = PENDING;
      setup.send(writeOf(1)).break().connect();
      setup.send(writeOf(2));
      setup.frames(0);
      assert.deepEqual([setup.calls.length, setup.lane.executing], [1, 1]);
      setup.lane.complete(0, -28);
      assert.equal(setup.frames(1)[0].status, Status.NO_SPACE);
      assert.ok(setup.disk.subarray(0, 512).every((byte) => byte === 1));
    });
  }
}

Deno.test("what ends while the lane has no connection is told when it is asked for", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send({ type: DISCARD, sequence: 1, length: 512 }).break();
  setup.lane.complete(0, -5);
  setup.frames(0);
  setup.connect();
  setup.frames(0);
  assert.equal(setup.ask({ type: DISCARD, sequence: 1, length: 512 }).status, Status.IO);
  assert.equal(setup.calls.length, 1);
});

Deno.test("what ends on a later connection is not told before it is asked for there", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send({ type: DISCARD, sequence: 1, length: 512 }).break().connect();
  setup.lane.complete(0, 0);
  setup.frames(0);
  assert.equal(setup.ask({ type: DISCARD, sequence: 1, length: 512 }).status, 0);
  assert.equal(setup.calls.length, 1);
});

Deno.test("a request that ends while its resend's payload is on the way is answered once", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send(writeOf(1)).break().connect();
  const bytes = setup.frame(writeOf(2));
  setup.feeder.feed(bytes.subarray(0, 300));
  setup.lane.complete(0, 0);
  assert.equal(setup.frames(1)[0].status, 0);
  setup.feeder.feed(bytes.subarray(300));
  setup.frames(0);
  assert.equal(setup.feeder.closed, false);
});

Deno.test("a READ, BLOCK_STATUS or FLUSH that was OK is executed again", () => {
  for (const type of [READ, BLOCK_STATUS, FLUSH]) {
    const fields: Fields = { type, sequence: 1, length: type === FLUSH ? 0 : 512 };
    const setup = new LaneSetup().connect();
    setup.send(fields).break().connect();
    setup.disk.fill(5);
    const reply = setup.ask(fields);
    assert.deepEqual([reply.status, setup.calls.length], [0, 2]);
    if (type === READ) assert.deepEqual(reply.payload, new Uint8Array(512).fill(5));
    if (type === BLOCK_STATUS) assert.deepEqual(reply.payload, setup.extents);
    // The second time it may fail, and may take its time.
    setup.break().connect().answer = PENDING;
    setup.send(fields);
    assert.equal(setup.lane.executing, 1);
    setup.lane.complete(0, -5);
    assert.equal(setup.frames(1)[0].status, Status.IO);
  }
});

Deno.test("a READ, BLOCK_STATUS or FLUSH that failed is answered from memory", () => {
  for (const type of [READ, BLOCK_STATUS, FLUSH]) {
    const fields: Fields = { type, sequence: 1, length: type === FLUSH ? 0 : 512 };
    const setup = new LaneSetup().connect();
    setup.answer = -61;
    setup.send(fields).break().connect().answer = null;
    const reply = setup.ask(fields);
    assert.deepEqual([reply.status, reply.payload.length, setup.calls.length], [Status.MEDIUM, 0, 1]);
  }
});

Deno.test("a READ is executed again only where it is still acceptable", () => {
  const fields: Fields = { type: READ, sequence: 1, offset: 4096, length: 512 };
  for (
    const [change, status] of [["resized", Status.OUT_OF_RANGE], ["fenced", Status.EPOCH_CHANGED], [
      "shutdown",
      Status.SHUTTING_DOWN,
    ]] as const
  ) {
    const setup = new LaneSetup().connect();
    setup.send(fields).send(writeOf(1, { slot: 1 })).break();
    setup.lane[change](512);
    setup.connect();
    // That it is ending, an exporter says again on the new connection.
    assert.deepEqual(setup.announced, change === "shutdown" ? [0x31] : []);
    assert.equal(setup.ask(fields).status, status);
    assert.equal(setup.ask(writeOf(1, { slot: 1 })).status, 0);
    assert.equal(setup.calls.length, 2);
  }
});

Deno.test("a refused request is remembered like any other", () => {
  const setup = new LaneSetup().connect();
  const fields = writeOf(1, { offset: 2n ** 60n });
  setup.send(fields).break().connect();
  assert.equal(setup.ask(fields).status, Status.OUT_OF_RANGE);
  assert.equal(setup.calls.length, 0);
});

Deno.test("a resend that differs is refused", () => {
  const differing: Fields[] = [
    { type: DISCARD, sequence: 1, length: 512 },
    writeOf(1, { offset: 512 }),
    { type: WRITE, sequence: 1, length: 1024, payload: new Uint8Array(1024) },
  ];
  for (const fields of differing) {
    for (const answer of [PENDING, 0]) {
      const setup = new LaneSetup().connect();
      setup.answer = answer;
      setup.send(writeOf(1)).break().connect().send(fields);
      setup.assertFailed(ProtocolError.RESEND_DIFFERS);
      assert.equal(setup.calls.length, 1);
    }
  }
});

Deno.test("a sequence that is neither the present nor the next is refused", () => {
  for (const sequence of [0, 1, 4, 5, 0x8000_0002, 0xffff_ffff]) {
    const setup = new LaneSetup().connect();
    setup.send({ type: FLUSH, sequence: 1 }).send({ type: FLUSH, sequence: 2 }).frames(2);
    setup.send({ type: FLUSH, sequence });
    setup.assertFailed(ProtocolError.SEQUENCE);
  }
});

Deno.test("the next request has to wait for the slot's present one", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 }).send({ type: FLUSH, sequence: 2 });
  setup.assertFailed(ProtocolError.SLOT_BUSY);
  setup.break().lane.complete(0, 0);
  assert.equal(setup.lane.executing, 0);
});

Deno.test("a WRITE whose payload did not come in whole has changed nothing", () => {
  for (const before of [0, 1]) {
    const setup = new LaneSetup().connect();
    if (before === 1) setup.send(writeOf(1)).frames(1);
    const next = writeOf(2, { sequence: before + 1 });
    setup.feeder.feed(setup.frame(next).subarray(0, 500));
    setup.break();
    assert.deepEqual([setup.calls.length, setup.lane.executing], [before, 0]);
    setup.connect();
    if (before === 1) assert.equal(setup.ask(writeOf(1)).status, 0);
    assert.equal(setup.ask(next).status, 0);
    assert.ok(setup.disk.subarray(0, 512).every((byte) => byte === 2));
  }
});

Deno.test("a client that joins fresh starts every slot again at 1", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send(writeOf(1)).break();
  assert.throws(() => setup.lane.clear(), /Assertion/);
  setup.lane.complete(0, 0);
  setup.lane.clear();
  setup.connect().answer = null;
  assert.equal(setup.ask(writeOf(2)).status, 0);
  assert.ok(setup.disk.subarray(0, 512).every((byte) => byte === 2));
  const other = new LaneSetup().connect();
  other.send(writeOf(1)).break().lane.clear();
  other.connect().send({ type: FLUSH, sequence: 2 });
  other.assertFailed(ProtocolError.SEQUENCE);
});

Deno.test("a lane has one connection at a time, and its generation grows", () => {
  const setup = new LaneSetup().connect(1);
  assert.deepEqual([setup.lane.isConnected, setup.lane.generation], [true, 1]);
  assert.throws(() => setup.connect(2), /Assertion/);
  assert.throws(() => setup.lane.clear(), /Assertion/);
  setup.break();
  assert.throws(() => setup.connect(1), /Assertion/);
  assert.deepEqual([setup.lane.isConnected, setup.lane.generation], [false, 1]);
  assert.equal(setup.connect(7).lane.generation, 7);
  setup.break().break();
});

Deno.test("payload credit bounds what is under way, and comes back with the replies", () => {
  const setup = new LaneSetup({ payloadBytes: 1024 }).connect();
  setup.answer = PENDING;
  setup.send({ type: READ, slot: 0, sequence: 1, length: 512 });
  setup.send(writeOf(1, { slot: 1 }));
  setup.send({ type: DISCARD, slot: 2, sequence: 1, length: 4096 });
  setup.lane.complete(0, 0);
  setup.frames(1);
  setup.send({ type: READ, slot: 0, sequence: 2, length: 512 });
  assert.equal(setup.lane.executing, 3);
  setup.send({ type: READ, slot: 3, sequence: 1, length: 512 });
  setup.assertFailed(ProtocolError.CREDIT);
  setup.break();
  for (const slot of [0, 1, 2]) setup.lane.complete(slot, 0);
  setup.connect().send({ type: READ, slot: 0, sequence: 2, length: 512 });
  setup.send(writeOf(1, { slot: 3, length: 1024, payload: new Uint8Array(1024) }));
  setup.assertFailed(ProtocolError.CREDIT);
  // A refused request takes no credit.
  setup.break().connect();
  assert.equal(setup.ask({ type: READ, slot: 3, sequence: 1, offset: 2 ** 40, length: 1024 }).status, 8);
});

Deno.test("the credits that a lane's slots can hold are all usable at once", () => {
  const setup = new LaneSetup({ depth: 8 }).connect();
  setup.answer = PENDING;
  for (let slot = 0; slot < 8; slot++) setup.send({ type: READ, slot, sequence: 1, length: 8192 });
  assert.equal(setup.lane.executing, 8);
  for (let slot = 7; slot >= 0; slot--) setup.lane.complete(slot, 0);
  assert.equal(setup.frames(8).reduce((sum, { payload }) => sum + payload.length, 0), 65_536);
});

Deno.test("a completion of nothing is a programmer's error", () => {
  const setup = new LaneSetup().connect();
  assert.throws(() => setup.lane.complete(0, 0), /Assertion/);
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 });
  assert.throws(() => setup.lane.complete(0, 5), /Assertion/);
  setup.lane.complete(0, 0);
  assert.throws(() => setup.lane.complete(0, 0), /Assertion/);
});
