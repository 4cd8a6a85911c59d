import assert from "node:assert/strict";
import { concat, hex, pattern } from "../tests/vectors/primitives.ts";
import { expected, extent, LANE, LaneBench, withRequests } from "./client_lane_support_test.ts";
import { feedings, PLAIN_SUITES, XXH64 } from "./client_support_test.ts";
import { ProtocolError } from "./error.ts";
import { Operation, RequestFlag } from "./request.ts";
import { Errno, Status } from "./status.ts";
import { FrameType, ProbeState, REPLY } from "./wire.ts";

Deno.test("every kind of request is sent as the specification has it", () => {
  const cases: [number, number, number, number][] = [
    [Operation.READ, 4096, 512, 0],
    [Operation.READ, 2 ** 32 - 512, 65536, 0],
    [Operation.WRITE, 0, 512, 0],
    [Operation.WRITE, 2 ** 32 - 512, 1024, RequestFlag.FUA],
    [Operation.WRITE, Number.MAX_SAFE_INTEGER - 65535, 65536, 0],
    [Operation.FLUSH, 0, 0, 0],
    [Operation.DISCARD, 512, 2 ** 40, RequestFlag.FUA],
    [Operation.WRITE_ZEROES, 0, Number.MAX_SAFE_INTEGER, RequestFlag.NO_UNMAP | RequestFlag.FAST_ZERO],
    [Operation.CACHE, 0, 2 ** 33, 0],
    [Operation.BLOCK_STATUS, 2 ** 41, 2 ** 33, 0],
  ];
  for (const suite of PLAIN_SUITES) {
    const bench = new LaneBench(suite);
    cases.forEach(([operation, offset, length, flags], i) => {
      const payload = operation === Operation.WRITE ? pattern(length, i) : new Uint8Array(0);
      bench.arena.core.bytes.set(payload, bench.arena.payloadAt(1));
      bench.request(1, operation, offset, length, flags);
      const frame = { type: operation, flags, slot: 1, sequence: i + 1, offset, length, payload };
      assert.equal(hex(bench.sent[i]), expected(suite, i + 2, frame));
      assert.ok(bench.lane.isBusy(1));
      bench.receive({ type: operation | REPLY, slot: 1, sequence: i + 1, status: Status.IO });
      assert.deepEqual(bench.takeEvents(), [`completed 1 -${Errno.EIO} 0`]);
      assert.ok(!bench.lane.isBusy(1));
    });
  }
});

Deno.test("every kind of reply completes its request, however the bytes arrive", () => {
  const data = pattern(4096, 1);
  const map = concat(extent(512, 0), extent(2 ** 32, 3), extent(2 ** 32 - 512, 2));
  for (const suite of PLAIN_SUITES) {
    for (const { name, pieces } of feedings(11)) {
      const bench = new LaneBench(suite);
      bench.request(0, Operation.READ, 0, 4096);
      bench.request(1, Operation.WRITE, 4096, 512);
      bench.request(2, Operation.BLOCK_STATUS, 0, 2 ** 33);
      bench.request(3, Operation.FLUSH, 0, 0);
      const frames = [
        { type: 0x83, slot: 3, sequence: 1 },
        { type: 0x82, slot: 1, sequence: 1, status: Status.NO_SPACE },
        { type: 0x87, slot: 2, sequence: 1, payload: map },
        { type: 0x81, slot: 0, sequence: 1, payload: data },
        { type: FrameType.RESIZED, offset: 2 ** 41 },
        { type: FrameType.SHUTTING_DOWN },
      ].map((frame) => bench.script.next({ lane: LANE, ...frame }));
      bench.feed.pushInPieces(concat(...frames), pieces);
      assert.deepEqual(bench.takeEvents(), [
        "completed 3 0 0",
        `completed 1 -${Errno.ENOSPC} 0`,
        "completed 2 0 48",
        "completed 0 0 4096",
        `resized ${2 ** 41}`,
        "shuttingDown",
      ], name);
      assert.deepEqual(bench.payload(0, 4096), data);
      assert.deepEqual(bench.payload(2, 48), map);
      assert.equal(bench.lane.busy, 0);
      assert.equal(bench.feed.isClosed, false);
    }
  }
});

Deno.test("the beginning of a frame behind a whole one waits for the rest", () => {
  const bench = new LaneBench();
  bench.request(0, Operation.FLUSH, 0, 0);
  bench.request(1, Operation.FLUSH, 0, 0);
  const first = bench.script.next({ lane: LANE, type: 0x83, slot: 1, sequence: 1 });
  const second = bench.script.next({ lane: LANE, type: 0x83, slot: 0, sequence: 1 });
  bench.feed.push(concat(first, second.subarray(0, 63)));
  assert.deepEqual(bench.takeEvents(), ["completed 1 0 0"]);
  assert.equal(bench.feed.pendingBytes, 63);
  bench.feed.push(second.subarray(63));
  assert.deepEqual(bench.takeEvents(), ["completed 0 0 0"]);
});

Deno.test("a status reaches the host as the errno of the table, an unknown one as EIO", () => {
  const bench = new LaneBench();
  const cases: [number, number, number][] = [
    [Operation.READ, Status.OUT_OF_RANGE, Errno.EINVAL],
    [Operation.WRITE, Status.OUT_OF_RANGE, Errno.ENOSPC],
    [Operation.DISCARD, Status.OUT_OF_RANGE, Errno.ENOSPC],
    [Operation.WRITE_ZEROES, Status.NOT_SUPPORTED, Errno.EOPNOTSUPP],
    [Operation.WRITE, Status.READ_ONLY, Errno.EROFS],
    [Operation.FLUSH, Status.SHUTTING_DOWN, Errno.ESHUTDOWN],
    [Operation.READ, 0xffffffff, Errno.EIO],
    [Operation.READ, 63, Errno.EIO],
  ];
  cases.forEach(([operation, status, errno], i) => {
    bench.request(0, operation, 0, operation === Operation.FLUSH ? 0 : 512);
    bench.receive({ type: operation | REPLY, slot: 0, sequence: i + 1, status });
    assert.deepEqual(bench.takeEvents(), [`completed 0 -${errno} 0`]);
  });
});

Deno.test("the next request may be made from within a completion", () => {
  const bench = new LaneBench();
  bench.onCompleted = (slot) => {
    if (bench.events.length < 3) bench.request(slot, Operation.READ, 0, 512);
  };
  bench.request(2, Operation.READ, 0, 512);
  for (let sequence = 1; sequence <= 3; sequence++) {
    bench.receive({ type: 0x81, slot: 2, sequence, payload: pattern(512, sequence) });
  }
  assert.deepEqual(bench.takeEvents(), Array(3).fill("completed 2 0 512"));
  assert.equal(bench.sent.length, 3);
});

Deno.test("what a lost connection left unanswered is sent again with its sequence, and only then answered", () => {
  const bench = new LaneBench();
  const data = pattern(512, 7);
  bench.arena.core.bytes.set(data, bench.arena.payloadAt(1));
  bench.request(0, Operation.READ, 0, 512);
  bench.request(1, Operation.WRITE, 512, 512, RequestFlag.FUA);
  bench.receive({ type: 0x81, slot: 0, sequence: 1, payload: data });
  bench.takeEvents();
  bench.lane.disconnect();
  assert.deepEqual([bench.lane.isConnected, bench.lane.isBusy(1), bench.lane.isUnsent(1)], [false, true, true]);
  // A request made meanwhile waits with the other one.
  bench.request(0, Operation.READ, 1024, 512);

  bench.connect();
  assert.equal(bench.sent.length, 0);
  bench.lane.resend(1);
  bench.lane.resend(0);
  const write = { type: 2, flags: 1, slot: 1, sequence: 1, offset: 512, length: 512, payload: data };
  assert.equal(hex(bench.sent[0]), expected(XXH64, 2, write));
  assert.equal(hex(bench.sent[1]), expected(XXH64, 3, { type: 1, slot: 0, sequence: 2, offset: 1024, length: 512 }));
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  bench.receive({ type: 0x81, slot: 0, sequence: 2, payload: data });
  assert.deepEqual(bench.takeEvents(), ["completed 1 0 0", "completed 0 0 512"]);
});

Deno.test("a reply to what was not sent on this connection is refused", () => {
  const bench = withRequests();
  bench.lane.disconnect();
  bench.connect();
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  assert.equal(bench.lane.error, ProtocolError.UNEXPECTED_REPLY);
  // The next connection begins without the error.
  bench.lane.disconnect();
  bench.connect();
  assert.equal(bench.lane.error, ProtocolError.NONE);
});

Deno.test("a connection lost within a payload leaves its request to be sent again", () => {
  const bench = new LaneBench();
  bench.request(0, Operation.READ, 0, 1024);
  const bytes = bench.script.next({ type: 0x81, lane: LANE, slot: 0, sequence: 1, payload: pattern(1024, 1) });
  bench.feed.push(bytes.subarray(0, 500));
  bench.lane.disconnect();
  bench.connect();
  bench.lane.resend(0);
  bench.receive({ type: 0x81, slot: 0, sequence: 1, payload: pattern(1024, 2) });
  assert.deepEqual(bench.takeEvents(), ["completed 0 0 1024"]);
  assert.deepEqual(bench.payload(0, 1024), pattern(1024, 2));
});

Deno.test("a PING is answered with its token, also many at once", () => {
  const bench = new LaneBench();
  for (let i = 0; i < 1500; i++) bench.receive({ type: 0x10, offset: 2 ** 40 + i });
  assert.equal(bench.sent.length, 1500);
  for (const i of [0, 527, 528, 1499]) {
    assert.equal(hex(bench.sent[i]), expected(XXH64, i + 2, { type: 0x90, offset: 2 ** 40 + i }));
  }
});

Deno.test("a silent exporter is pinged, and taken for dead when it stays silent", () => {
  const bench = new LaneBench(XXH64, { pingIdleMs: 100, deadMs: 300 });
  const { lane } = bench;
  assert.equal(lane.tick(0), 100);
  assert.equal(lane.tick(60), 40);
  lane.heard(60);
  assert.equal(lane.tick(100), 60);
  assert.equal(bench.sent.length, 0);
  assert.equal(lane.tick(160), 200);
  assert.equal(hex(bench.sent[0]), expected(XXH64, 2, { type: 0x10, offset: 1 }));
  // One ping at a time.
  assert.equal(lane.tick(300), 60);
  assert.equal(bench.sent.length, 1);
  lane.heard(310);
  bench.receive({ type: 0x90, offset: 1 });
  assert.equal(lane.tick(310), 100);
  assert.equal(lane.tick(410), 200);
  assert.equal(hex(bench.sent[1]), expected(XXH64, 3, { type: 0x10, offset: 2 }));
  assert.equal(lane.error, ProtocolError.NONE);
  assert.equal(lane.tick(610), Infinity);
  assert.equal(lane.error, ProtocolError.PEER_DEAD);
  lane.disconnect();
  assert.equal(lane.tick(10_000), Infinity);
  bench.connect(10_000);
  assert.equal(lane.error, ProtocolError.NONE);
  assert.equal(lane.tick(10_050), 50);
});

Deno.test("a dead time below the idle time is kept too", () => {
  const bench = new LaneBench(XXH64, { pingIdleMs: 100, deadMs: 50 });
  assert.equal(bench.lane.tick(20), 30);
  assert.equal(bench.lane.tick(50), Infinity);
  assert.equal(bench.lane.error, ProtocolError.PEER_DEAD);
});

Deno.test("probes ask about one request after the other and tell what became of it", () => {
  const bench = withRequests();
  bench.lane.probe(2);
  bench.lane.probe(0);
  bench.lane.probe(0);
  bench.lane.probe(1);
  assert.equal(bench.sent.length, 4);
  assert.equal(hex(bench.sent[3]), expected(XXH64, 5, { type: 0x10, flags: 1, slot: 2, sequence: 1, offset: 1 }));
  bench.receive({ type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 1, status: ProbeState.EXECUTING });
  assert.deepEqual(bench.takeEvents(), ["probed 2 1"]);
  assert.equal(hex(bench.sent[4]), expected(XXH64, 6, { type: 0x10, flags: 1, slot: 0, sequence: 1, offset: 2 }));
  bench.receive({ type: 0x90, flags: 1, slot: 0, sequence: 1, offset: 2, status: ProbeState.UNKNOWN });
  assert.deepEqual(bench.takeEvents(), ["probed 0 0"]);
  // The reply itself comes before the answer to its probe: there is nothing to tell.
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  bench.receive({ type: 0x90, flags: 1, slot: 1, sequence: 1, offset: 3, status: ProbeState.DONE });
  assert.deepEqual(bench.takeEvents(), ["completed 1 0 0"]);
  assert.equal(bench.sent.length, 6);
});

Deno.test("CLOSE waits for what executes, and its answer ends the connection", () => {
  const bench = new LaneBench();
  bench.request(0, Operation.FLUSH, 0, 0);
  bench.lane.close();
  assert.equal(hex(bench.sent[1]), expected(XXH64, 3, { type: 0x24 }));
  bench.receive({ type: 0x83, slot: 0, sequence: 1 });
  bench.receive({ type: 0xa4 });
  assert.deepEqual(bench.takeEvents(), ["completed 0 0 0", "closed"]);
  assert.ok(bench.feed.isClosed);
  assert.equal(bench.lane.error, ProtocolError.NONE);
});

Deno.test("FENCED ends the connection without an error of the protocol", () => {
  const bench = withRequests();
  bench.receive({ type: 0x32 });
  assert.deepEqual(bench.takeEvents(), ["fenced"]);
  assert.ok(bench.feed.isClosed);
  assert.equal(bench.lane.error, ProtocolError.NONE);
  assert.equal(bench.lane.busy, 3);
});

Deno.test("the credit is what READs and WRITEs may still ask for", () => {
  const bench = new LaneBench(XXH64, { payloadBytes: 8192 });
  bench.request(0, Operation.READ, 0, 4096);
  bench.request(1, Operation.WRITE, 0, 3584);
  bench.request(2, Operation.DISCARD, 0, 2 ** 40);
  assert.equal(bench.lane.creditBytes, 512);
  assert.throws(() => bench.request(3, Operation.READ, 0, 1024), /credit/);
  bench.receive({ type: 0x81, slot: 0, sequence: 1, status: Status.IO });
  assert.equal(bench.lane.creditBytes, 4608);
});

Deno.test("a caller's mistakes are assertions", () => {
  const bench = new LaneBench();
  bench.request(0, Operation.READ, 0, 512);
  assert.throws(() => bench.request(0, Operation.READ, 0, 512), /free/);
  assert.throws(() => bench.request(4, Operation.READ, 0, 512), /free/);
  assert.throws(() => bench.request(1, 8, 0, 512), /operation/);
  assert.throws(() => bench.request(1, Operation.READ, 0, 0), /payload/);
  assert.throws(() => bench.request(1, Operation.WRITE, 0, 65537), /payload/);
  assert.throws(() => bench.lane.resend(0), /not sent/);
  assert.throws(() => bench.connect(), /gone/);
});
