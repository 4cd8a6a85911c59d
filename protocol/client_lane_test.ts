import assert from "node:assert/strict";
import fc from "fast-check";
import { type Frame, seal, type Suite } from "../tests/vectors/frames.ts";
import { concat, hex, le, pattern } from "../tests/vectors/primitives.ts";
import { ClientLane, type ClientLaneOptions } from "./client_lane.ts";
import { Arena, Feed, feedings, PLAIN_SUITES, Random, Script, XXH64 } from "./client_support_test.ts";
import { FrameCodec } from "./codec.ts";
import { ProtocolError } from "./error.ts";
import { Operation, RequestFlag } from "./request.ts";
import { Errno, Status } from "./status.ts";
import { FrameType, ProbeState, REPLY } from "./wire.ts";

const LANE = 3;

/** A lane, its host's diary, and the exporter's half of the connection. */
class Bench {
  readonly arena: Arena;
  readonly lane: ClientLane;
  /** What the host was told. */
  readonly events: string[] = [];
  /** What was sent, message by message, as it was when it was queued. */
  sent: Uint8Array[] = [];
  script: Script;
  feed: Feed;
  onCompleted: (slot: number) => void = () => {};

  constructor(readonly suite: Suite = XXH64, options: Partial<ClientLaneOptions> = {}, arena = new Arena()) {
    this.arena = arena;
    this.arena.core.bytes.fill(0xee, this.arena.payloadAt(0) - 4096);
    const { events } = this;
    const allOptions = { lane: LANE, depth: 4, maxPayload: 65536, controlAt: this.arena.scratchAt, ...options };
    this.lane = new ClientLane(this.arena.core, allOptions, {
      transmit: (at, bytes) => this.sent.push(this.arena.core.bytes.slice(at, at + bytes)),
      completed: (slot, status, payloadBytes) => {
        events.push(`completed ${slot} ${status} ${payloadBytes}`);
        this.onCompleted(slot);
      },
      resized: (size) => events.push(`resized ${size}`),
      shuttingDown: () => events.push("shuttingDown"),
      fenced: () => events.push("fenced"),
      closed: () => events.push("closed"),
      probed: (slot, state) => events.push(`probed ${slot} ${state}`),
    });
    this.script = new Script(suite);
    this.feed = new Feed(this.arena, this.lane);
    this.connect();
  }

  /** A new connection, on which the door has sent and received two frames already. */
  connect(now = 0): void {
    this.script = new Script(this.suite);
    this.script.n = 2;
    this.feed = new Feed(this.arena, this.lane);
    this.sent = [];
    this.lane.connect(
      new FrameCodec(this.arena.core, this.arena.core, this.arena.codecAt, this.suite.digest, 2, 2),
      now,
    );
  }

  request(slot: number, operation: number, offset: number, length: number, flags = 0): void {
    this.lane.request(slot, this.arena.payloadAt(slot), operation, offset, length, flags);
  }

  payload(slot: number, bytes: number): Uint8Array {
    return this.arena.core.bytes.slice(this.arena.payloadAt(slot), this.arena.payloadAt(slot) + bytes);
  }

  /** The exporter sends a frame of this lane. */
  receive(frame: Omit<Frame, "name" | "from">): void {
    this.feed.push(this.script.next({ lane: LANE, ...frame }));
  }

  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

/** What the independent script would send for the n-th frame of the client. */
function expected(suite: Suite, n: number, frame: Omit<Frame, "name" | "from">): string {
  const sealed = seal(suite, new Uint8Array(32), { name: "", from: "client", lane: LANE, ...frame }, n);
  return hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload));
}

const extent = (length: number, flags: number) => concat(le(length, 8), le(flags, 4), le(0, 4));

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
    const bench = new Bench(suite);
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
      const bench = new Bench(suite);
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
  const bench = new Bench();
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
  const bench = new Bench();
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
  const bench = new Bench();
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

/** Requests that are under way while a hostile frame arrives: READ in 0, WRITE in 1, BLOCK_STATUS in 2; 3 is free. */
function withRequests(options: Partial<ClientLaneOptions> = {}): Bench {
  const bench = new Bench(XXH64, options);
  bench.request(0, Operation.READ, 0, 1024);
  bench.request(1, Operation.WRITE, 0, 512);
  bench.request(2, Operation.BLOCK_STATUS, 0, 4096);
  return bench;
}

Deno.test("what an honest exporter does not send ends the connection and completes nothing", () => {
  const block = pattern(512, 1);
  const cases: [string, Omit<Frame, "name" | "from">, number][] = [
    ["another lane", { type: 0x81, lane: 2, sequence: 1, payload: pattern(1024, 1) }, ProtocolError.LANE],
    ["a slot at the depth", { type: 0x81, slot: 4, sequence: 1 }, ProtocolError.SLOT],
    ["the largest slot", { type: 0x81, slot: 0xffff, sequence: 1 }, ProtocolError.SLOT],
    ["a reply in a free slot", { type: 0x81, slot: 3, sequence: 0 }, ProtocolError.UNEXPECTED_REPLY],
    ["a reply of another type", { type: 0x82, slot: 0, sequence: 1 }, ProtocolError.UNEXPECTED_REPLY],
    ["the sequence before", { type: 0x82, slot: 1, sequence: 0 }, ProtocolError.SEQUENCE],
    ["the sequence after", { type: 0x82, slot: 1, sequence: 2 }, ProtocolError.SEQUENCE],
    ["a flag in a reply", { type: 0x82, slot: 1, sequence: 1, flags: 1 }, ProtocolError.FIELD],
    ["an offset in a reply", { type: 0x82, slot: 1, sequence: 1, offset: 2 ** 40 }, ProtocolError.FIELD],
    ["a length in a reply", { type: 0x82, slot: 1, sequence: 1, length: 512 }, ProtocolError.FIELD],
    ["a READ's reply without data", { type: 0x81, slot: 0, sequence: 1 }, ProtocolError.PAYLOAD_BYTES],
    ["too little data", { type: 0x81, slot: 0, sequence: 1, payload: block }, ProtocolError.PAYLOAD_BYTES],
    ["too much data", { type: 0x81, slot: 0, sequence: 1, payload: pattern(1536, 1) }, ProtocolError.PAYLOAD_BYTES],
    [
      "data with an error",
      { type: 0x81, slot: 0, sequence: 1, status: 1, payload: block },
      ProtocolError.PAYLOAD_BYTES,
    ],
    ["data for a WRITE", { type: 0x82, slot: 1, sequence: 1, payload: block }, ProtocolError.PAYLOAD_BYTES],
    ["no extents", { type: 0x87, slot: 2, sequence: 1 }, ProtocolError.PAYLOAD_BYTES],
    ["half an extent", { type: 0x87, slot: 2, sequence: 1, payload: pattern(24, 1) }, ProtocolError.PAYLOAD_BYTES],
    [
      "more extents than fit",
      { type: 0x87, slot: 2, sequence: 1, payload: new Uint8Array(65536 + 16) },
      ProtocolError.PAYLOAD_BYTES,
    ],
    ["an empty extent", { type: 0x87, slot: 2, sequence: 1, payload: extent(0, 0) }, ProtocolError.EXTENTS],
    ["extents beyond the range", { type: 0x87, slot: 2, sequence: 1, payload: extent(4608, 0) }, ProtocolError.EXTENTS],
    [
      "extents whose sum is beyond the range",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(extent(4096, 0), extent(512, 0)) },
      ProtocolError.EXTENTS,
    ],
    [
      "an extent beyond safe integers",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(le(2n ** 63n, 8), le(0, 8)) },
      ProtocolError.EXTENTS,
    ],
    ["an unknown extent flag", { type: 0x87, slot: 2, sequence: 1, payload: extent(512, 4) }, ProtocolError.EXTENTS],
    [
      "an extent whose last word is not zero",
      { type: 0x87, slot: 2, sequence: 1, payload: concat(le(512, 8), le(0, 4), le(1, 4)) },
      ProtocolError.EXTENTS,
    ],
    ["extents below one block", { type: 0x87, slot: 2, sequence: 1, payload: extent(256, 0) }, ProtocolError.EXTENTS],
    ["a request", { type: 0x02, slot: 1, sequence: 1 }, ProtocolError.TYPE],
    ["the reply to a type that is none", { type: 0x88, slot: 1, sequence: 1 }, ProtocolError.TYPE],
    ["type 0", { type: 0 }, ProtocolError.TYPE],
    ["type 0x80", { type: 0x80 }, ProtocolError.TYPE],
    ["type 0xff", { type: 0xff }, ProtocolError.TYPE],
    ["CLOSE from the exporter", { type: 0x24 }, ProtocolError.TYPE],
    ["a reply to RESIZED", { type: 0xb0 }, ProtocolError.TYPE],
    ["FENCING in the lane phase", { type: 0x33, length: 1 }, ProtocolError.PHASE],
    ["another answer to OPEN", { type: 0xa2 }, ProtocolError.PHASE],
    ["a reply to no CLOSE", { type: 0xa4 }, ProtocolError.UNEXPECTED_REPLY],
    ["a reply to no PING", { type: 0x90, offset: 1 }, ProtocolError.UNEXPECTED_REPLY],
    ["a PING with PROBE", { type: 0x10, flags: 1, slot: 0, sequence: 1 }, ProtocolError.FIELD],
    ["a PING with payload", { type: 0x10, payload: block }, ProtocolError.FIELD],
    ["a PING with status", { type: 0x10, status: 1 }, ProtocolError.FIELD],
    ["RESIZED with a length", { type: 0x30, offset: 512, length: 512 }, ProtocolError.FIELD],
    ["SHUTTING_DOWN with an offset", { type: 0x31, offset: 512 }, ProtocolError.FIELD],
    ["FENCED with a slot", { type: 0x32, slot: 1 }, ProtocolError.FIELD],
    ["FENCED with a sequence", { type: 0x32, sequence: 1 }, ProtocolError.FIELD],
  ];
  for (const [name, frame, error] of cases) {
    const bench = withRequests({ logicalBlock: 512 });
    bench.receive(frame);
    assert.equal(bench.lane.error, error, name);
    assert.ok(bench.feed.isClosed, name);
    assert.deepEqual(bench.takeEvents(), [], name);
    assert.equal(bench.lane.busy, 3, name);
  }
});

Deno.test("a token or a size beyond safe integers is refused", () => {
  for (const type of [FrameType.PING, FrameType.RESIZED]) {
    const bench = new Bench(PLAIN_SUITES[0]);
    const bytes = bench.script.next({ type, lane: LANE });
    bytes[16 + 6] = 0x20; // bit 53 of the offset field
    bench.feed.push(bytes);
    assert.equal(bench.lane.error, ProtocolError.FIELD);
  }
});

Deno.test("a second reply to the same request is refused", () => {
  const bench = withRequests();
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  assert.deepEqual(bench.takeEvents(), ["completed 1 0 0"]);
  bench.receive({ type: 0x82, slot: 1, sequence: 1 });
  assert.equal(bench.lane.error, ProtocolError.UNEXPECTED_REPLY);
});

Deno.test("no flipped bit anywhere in a reply gets past a digest", () => {
  for (const suite of PLAIN_SUITES.slice(1)) {
    const arena = new Arena();
    const length = 64;
    const whole = new Script(suite);
    whole.n = 2;
    const bytes = whole.next({ type: 0x81, lane: LANE, slot: 0, sequence: 1, payload: pattern(length, 3) });
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const bench = new Bench(suite, {}, arena);
      bench.request(0, Operation.READ, 0, length);
      const bent = bytes.slice();
      bent[bit >> 3] ^= 1 << (bit & 7);
      bench.feed.push(bent);
      assert.ok(bench.feed.isClosed && bench.lane.error !== ProtocolError.NONE, `${suite.name}, bit ${bit}`);
      assert.deepEqual(bench.takeEvents(), []);
    }
  }
});

Deno.test("a frame that is missing, repeated or out of order is refused", () => {
  for (const skip of [-1, 1]) {
    const bench = withRequests();
    bench.script.n += skip;
    bench.receive({ type: 0x82, slot: 1, sequence: 1 });
    assert.equal(bench.lane.error, ProtocolError.FRAME_NUMBER);
  }
});

Deno.test("what a lost connection left unanswered is sent again with its sequence, and only then answered", () => {
  const bench = new Bench();
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
  const bench = new Bench();
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

Deno.test("after clear every slot begins again at sequence 1, also one that is busy", () => {
  const bench = new Bench();
  for (let sequence = 1; sequence <= 3; sequence++) {
    for (const slot of [0, 1]) {
      bench.request(slot, Operation.FLUSH, 0, 0);
      if (slot === 0 || sequence < 3) bench.receive({ type: 0x83, slot, sequence });
    }
  }
  bench.lane.disconnect();
  bench.lane.clear();
  bench.connect();
  bench.lane.resend(1);
  bench.request(0, Operation.FLUSH, 0, 0);
  assert.equal(hex(bench.sent[0]), expected(XXH64, 2, { type: 3, slot: 1, sequence: 1 }));
  assert.equal(hex(bench.sent[1]), expected(XXH64, 3, { type: 3, slot: 0, sequence: 1 }));
});

Deno.test("a PING is answered with its token, also many at once", () => {
  const bench = new Bench();
  for (let i = 0; i < 1500; i++) bench.receive({ type: 0x10, offset: 2 ** 40 + i });
  assert.equal(bench.sent.length, 1500);
  for (const i of [0, 527, 528, 1499]) {
    assert.equal(hex(bench.sent[i]), expected(XXH64, i + 2, { type: 0x90, offset: 2 ** 40 + i }));
  }
});

Deno.test("a silent exporter is pinged, and taken for dead when it stays silent", () => {
  const bench = new Bench(XXH64, { pingIdleMs: 100, deadMs: 300 });
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
  const bench = new Bench(XXH64, { pingIdleMs: 100, deadMs: 50 });
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

Deno.test("a pong that does not repeat what its ping asked is refused", () => {
  const wrong: Omit<Frame, "name" | "from">[] = [
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 2 },
    { type: 0x90, flags: 0, slot: 2, sequence: 1, offset: 1 },
    { type: 0x90, flags: 3, slot: 2, sequence: 1, offset: 1 },
    { type: 0x90, flags: 1, slot: 1, sequence: 1, offset: 1 },
    { type: 0x90, flags: 1, slot: 2, sequence: 2, offset: 1 },
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 1, status: 3 },
    { type: 0x90, flags: 1, slot: 2, sequence: 1, offset: 1, length: 1 },
  ];
  for (const frame of wrong) {
    const bench = withRequests();
    bench.lane.probe(2);
    bench.receive(frame);
    assert.ok(bench.feed.isClosed);
    assert.ok(bench.lane.error === ProtocolError.FIELD || bench.lane.error === ProtocolError.UNEXPECTED_REPLY);
  }
  const bench = new Bench(XXH64, { pingIdleMs: 1 });
  bench.lane.tick(1);
  bench.receive({ type: 0x90, offset: 1, status: 1 });
  assert.equal(bench.lane.error, ProtocolError.FIELD);
});

Deno.test("CLOSE waits for what executes, and its answer ends the connection", () => {
  const bench = new Bench();
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
  const bench = new Bench(XXH64, { payloadBytes: 8192 });
  bench.request(0, Operation.READ, 0, 4096);
  bench.request(1, Operation.WRITE, 0, 3584);
  bench.request(2, Operation.DISCARD, 0, 2 ** 40);
  assert.equal(bench.lane.creditBytes, 512);
  assert.throws(() => bench.request(3, Operation.READ, 0, 1024), /credit/);
  bench.receive({ type: 0x81, slot: 0, sequence: 1, status: Status.IO });
  assert.equal(bench.lane.creditBytes, 4608);
});

Deno.test("a caller's mistakes are assertions", () => {
  const bench = new Bench();
  bench.request(0, Operation.READ, 0, 512);
  assert.throws(() => bench.request(0, Operation.READ, 0, 512), /free/);
  assert.throws(() => bench.request(4, Operation.READ, 0, 512), /free/);
  assert.throws(() => bench.request(1, 8, 0, 512), /operation/);
  assert.throws(() => bench.request(1, Operation.READ, 0, 0), /payload/);
  assert.throws(() => bench.request(1, Operation.WRITE, 0, 65537), /payload/);
  assert.throws(() => bench.lane.resend(0), /not sent/);
  assert.throws(() => bench.lane.clear(), /between/);
  assert.throws(() => bench.connect(), /gone/);
});

Deno.test("any bytes give verdicts and an error, never an exception or a loop without end", () => {
  const arena = new Arena();
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 6 }), (pieces) => {
      const bench = new Bench(PLAIN_SUITES[0], {}, arena);
      bench.request(0, Operation.READ, 0, 1024);
      for (const piece of pieces) if (!bench.feed.isClosed) bench.feed.push(piece);
      assert.equal(bench.feed.isClosed, bench.lane.error !== 0);
      assert.equal(bench.lane.busy, 1);
    }),
    { numRuns: 200 },
  );
});

Deno.test("well-formed frames with any fields give verdicts; only a right reply completes anything", () => {
  const seed = 20260101;
  const random = new Random(seed);
  const arena = new Arena();
  const types = [0x81, 0x82, 0x87, 0x83, 0x10, 0x90, 0x30, 0x31, 0x32, 0xa4, 0x33, 0x01, 0xff];
  const small = (limit: number) => random.below(4) === 0 ? random.below(limit) : 0;
  for (let run = 0; run < 2000; run++) {
    const bench = new Bench(PLAIN_SUITES[run % 3], {}, arena);
    bench.request(0, Operation.READ, 0, 64);
    bench.request(1, Operation.WRITE, 0, 64);
    bench.request(2, Operation.BLOCK_STATUS, 0, 4096);
    for (let i = 0; i < 4 && !bench.feed.isClosed; i++) {
      const frame = {
        type: types[random.below(types.length)],
        flags: small(3),
        slot: random.below(5),
        lane: random.below(20) === 0 ? 1 : LANE,
        sequence: random.below(8) === 0 ? random.below(3) : 1,
        offset: small(2 ** 31),
        length: small(3),
        status: small(50),
        payload: random.below(2) === 0 ? undefined : random.bytes([16, 64, 1 + random.below(80)][random.below(3)]),
      };
      bench.feed.push(bench.script.next(frame));
      for (const event of bench.takeEvents()) {
        if (!event.startsWith("completed")) continue;
        assert.ok(frame.slot < 3 && frame.sequence === 1 && frame.flags === 0, `seed ${seed}, run ${run}: ${event}`);
        assert.equal(event.endsWith(" 0"), frame.payload === undefined, `seed ${seed}, run ${run}: ${event}`);
      }
    }
    assert.ok(bench.lane.error === 0 || bench.feed.isClosed, `seed ${seed}, run ${run}`);
  }
});
