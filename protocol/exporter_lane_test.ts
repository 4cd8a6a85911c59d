import assert from "node:assert/strict";
import { ProtocolError } from "./error.ts";
import { concat, CUTS, type Fields } from "./harness_test.ts";
import { DISK_BYTES, LANE, LaneSetup, MAX_PAYLOAD } from "./lane_setup_test.ts";
import { PENDING } from "./request.ts";
import { Status } from "./status.ts";

const READ = 1, WRITE = 2, FLUSH = 3, DISCARD = 4, WRITE_ZEROES = 5, CACHE = 6, BLOCK_STATUS = 7;
const PING = 0x10, CLOSE = 0x24;

function pattern(bytes: number, from = 1): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => i * 13 + from);
}

for (const digest of [0, 1, 2]) {
  for (const cut of CUTS) {
    Deno.test(`every operation is executed and answered (digest ${digest}, fed ${cut})`, () => {
      const setup = new LaneSetup({ digest, cut }).connect();
      const data = pattern(1024);
      const zero = { flags: 0, lane: LANE, offset: 0, length: 0, status: 0 };
      const none = new Uint8Array(0);
      const write: Fields = { type: WRITE, flags: 1, slot: 3, sequence: 1, offset: 512, length: 1024, payload: data };
      assert.deepEqual(setup.ask(write), { ...zero, type: 0x82, slot: 3, sequence: 1, payload: none });
      const read: Fields = { type: READ, flags: 8, slot: 3, sequence: 2, offset: 512, length: 1024 };
      assert.deepEqual(setup.ask(read), { ...zero, type: 0x81, slot: 3, sequence: 2, payload: data });
      const others: [number, number, number, number][] = [
        [FLUSH, 0, 0, 0],
        [DISCARD, 1, 0, DISK_BYTES],
        [WRITE_ZEROES, 7, 512, 512],
        [CACHE, 0, 0, 512],
      ];
      let sequence = 0;
      for (const [type, flags, offset, length] of others) {
        const reply = setup.ask({ type, flags, sequence: ++sequence, offset, length });
        assert.deepEqual(reply, { ...zero, type: type | 0x80, slot: 0, sequence, payload: none });
      }
      const status = setup.ask({ type: BLOCK_STATUS, sequence: ++sequence, length: DISK_BYTES });
      assert.deepEqual(status, { ...zero, type: 0x87, slot: 0, sequence, payload: setup.extents });
      assert.deepEqual(setup.calls, [
        [3, WRITE, 512, 1024, 1],
        [3, READ, 512, 1024, 0],
        [0, FLUSH, 0, 0, 0],
        [0, DISCARD, 0, DISK_BYTES, 1],
        [0, WRITE_ZEROES, 512, 512, 7],
        [0, CACHE, 0, 512, 0],
        [0, BLOCK_STATUS, 0, DISK_BYTES, 0],
      ]);
      assert.equal(setup.lane.executing, 0);
    });

    Deno.test(`replies come when requests end, in any order (digest ${digest}, fed ${cut})`, () => {
      const setup = new LaneSetup({ digest, cut }).connect();
      setup.answer = PENDING;
      setup.send({ type: READ, slot: 0, sequence: 1, length: 512 });
      setup.send({ type: WRITE, slot: 1, sequence: 1, offset: 512, length: 512, payload: pattern(512) });
      setup.send({ type: FLUSH, slot: 2, sequence: 1 });
      setup.frames(0);
      assert.equal(setup.lane.executing, 3);
      setup.lane.complete(2, -5);
      setup.lane.complete(0, 0);
      setup.lane.complete(1, -28);
      const replies = setup.frames(3).map(({ slot, status, payload }) => [slot, status, payload.length]);
      assert.deepEqual(replies, [[2, Status.IO, 0], [0, 0, 512], [1, Status.NO_SPACE, 0]]);
      assert.equal(setup.lane.executing, 0);
    });

    Deno.test(`several frames and a cut one are taken one by one (digest ${digest}, fed ${cut})`, () => {
      const setup = new LaneSetup({ digest, cut }).connect();
      const last = setup.frame({ type: PING, offset: 9 });
      setup.break().connect();
      const bytes = concat(
        setup.frame({ type: WRITE, sequence: 1, length: 512, payload: pattern(512) }),
        setup.frame({ type: READ, slot: 1, sequence: 1, length: 512 }),
        setup.frame({ type: FLUSH, slot: 2, sequence: 1 }),
        last.subarray(0, 40),
      );
      setup.feeder.feed(bytes, cut);
      assert.deepEqual(setup.frames(3).map(({ type }) => type), [0x82, 0x81, 0x83]);
      assert.equal(setup.feeder.unread, 40);
    });
  }

  Deno.test(`a corrupted payload never reaches the disk, and the request can be sent again (digest ${digest})`, () => {
    const setup = new LaneSetup({ digest }).connect();
    const before = setup.disk.slice();
    const bytes = setup.frame({ type: WRITE, sequence: 1, length: 512, payload: pattern(512) });
    // The header's last field is its number, without a digest the only thing that can be seen to be wrong.
    bytes[digest === 0 ? 40 : bytes.length - 1] ^= 1;
    setup.feeder.feed(concat(bytes, new Uint8Array(200)));
    setup.assertFailed(digest === 0 ? ProtocolError.FRAME_NUMBER : ProtocolError.PAYLOAD_TAG);
    assert.deepEqual([setup.disk, setup.calls.length], [before, 0]);
    setup.break().connect();
    assert.equal(setup.ask({ type: WRITE, sequence: 1, length: 512, payload: pattern(512) }).status, 0);
    assert.deepEqual(setup.disk.subarray(0, 512), pattern(512));
  });

  Deno.test(`what breaks the rules of frames ends the connection and executes nothing (digest ${digest})`, () => {
    const cases: [string, Fields, number][] = [
      ["magic", { type: READ, magic: 0 }, ProtocolError.MAGIC],
      ["zero byte", { type: READ, zero: 1 }, ProtocolError.FIELD],
      ["lane", { type: READ, lane: LANE + 1 }, ProtocolError.LANE],
      ["type 0", { type: 0 }, ProtocolError.TYPE],
      ["an exporter's type", { type: 0x30 }, ProtocolError.TYPE],
      ["a reply to nothing", { type: 0x81 }, ProtocolError.TYPE],
      ["type 0xff", { type: 0xff }, ProtocolError.TYPE],
      ["slot", { type: READ, slot: 4, sequence: 1, length: 512 }, ProtocolError.SLOT],
      ["slot 65535", { type: FLUSH, slot: 65_535, sequence: 1 }, ProtocolError.SLOT],
      ["status", { type: FLUSH, sequence: 1, status: 1 }, ProtocolError.FIELD],
      ["sequence 0", { type: FLUSH, sequence: 0 }, ProtocolError.SEQUENCE],
      ["sequence 2", { type: FLUSH, sequence: 2 }, ProtocolError.SEQUENCE],
      [
        "READ with payload",
        { type: READ, sequence: 1, length: 512, payload: pattern(512) },
        ProtocolError.PAYLOAD_BYTES,
      ],
      ["FLUSH with payload", { type: FLUSH, sequence: 1, payload: pattern(1) }, ProtocolError.PAYLOAD_BYTES],
      ["short payload", { type: WRITE, sequence: 1, length: 512, payload: pattern(511) }, ProtocolError.PAYLOAD_BYTES],
      ["no payload", { type: WRITE, sequence: 1, length: 512 }, ProtocolError.PAYLOAD_BYTES],
      [
        "huge length",
        { type: WRITE, sequence: 1, length: 2n ** 64n - 1n, payload: pattern(1) },
        ProtocolError.PAYLOAD_BYTES,
      ],
      [
        "long payload",
        { type: WRITE, sequence: 1, length: MAX_PAYLOAD + 512, payloadBytes: MAX_PAYLOAD + 512 },
        ProtocolError.PAYLOAD_TOO_LONG,
      ],
      ["long unknown payload", { type: 9, sequence: 1, payloadBytes: 0xffff_ffff }, ProtocolError.PAYLOAD_TOO_LONG],
      ["PING with a token too large", { type: PING, offset: 2n ** 53n }, ProtocolError.FIELD],
      ["PING with a length", { type: PING, length: 1 }, ProtocolError.FIELD],
      ["PING with a status", { type: PING, status: 1 }, ProtocolError.FIELD],
      ["PING with payload", { type: PING, payload: pattern(1) }, ProtocolError.FIELD],
      ["PING with a flag", { type: PING, flags: 2 }, ProtocolError.FIELD],
      ["PING with a slot", { type: PING, slot: 1 }, ProtocolError.FIELD],
      ["PING with a sequence", { type: PING, sequence: 1 }, ProtocolError.FIELD],
      ["a pong to nothing", { type: PING | 0x80 }, ProtocolError.UNEXPECTED_REPLY],
      ["CLOSE with an offset", { type: CLOSE, offset: 1 }, ProtocolError.FIELD],
      ["CLOSE with flags", { type: CLOSE, flags: 1 }, ProtocolError.FIELD],
      ["CLOSE with payload", { type: CLOSE, payload: pattern(1) }, ProtocolError.FIELD],
    ];
    for (const [name, fields, error] of cases) {
      const setup = new LaneSetup({ digest }).connect();
      setup.feeder.feed(concat(setup.frame(fields), new Uint8Array(300)));
      assert.equal(setup.lane.error, error, name);
      setup.assertFailed(error);
      assert.deepEqual([setup.calls.length, setup.closings, setup.lane.executing], [0, 0, 0], name);
      // The session is not ended by it.
      assert.equal(setup.break().connect().ask({ type: FLUSH, sequence: 1 }).status, 0);
    }
  });

  Deno.test(`a door's request in the lane phase is answered, then the connection ends (digest ${digest})`, () => {
    for (const type of [0x20, 0x21, 0x22, 0x23]) {
      const setup = new LaneSetup({ digest }).connect();
      const reply = setup.ask({ type });
      assert.deepEqual([reply.type, reply.status], [type | 0x80, Status.BAD_REQUEST]);
      setup.assertFailed(ProtocolError.PHASE);
    }
  });
}

Deno.test("a request that is not acceptable is answered, and uses up its sequence", () => {
  const cases: [string, Fields, number, { readOnly?: boolean; size?: number }?][] = [
    ["flags", { type: READ, flags: 1, length: 512 }, Status.INVALID],
    ["flags", { type: WRITE, flags: 8, length: 512, payload: pattern(512) }, Status.INVALID],
    ["flags", { type: FLUSH, flags: 1 }, Status.INVALID],
    ["FLUSH with a length", { type: FLUSH, length: 512 }, Status.INVALID],
    ["zero length", { type: READ }, Status.INVALID],
    ["empty WRITE", { type: WRITE }, Status.INVALID],
    ["long READ", { type: READ, length: MAX_PAYLOAD + 512 }, Status.INVALID],
    ["huge READ", { type: READ, length: 2n ** 64n - 512n }, Status.INVALID],
    ["unaligned offset", { type: READ, offset: 1, length: 512 }, Status.INVALID],
    ["unaligned length", { type: WRITE, length: 100, payload: pattern(100) }, Status.INVALID],
    ["behind the end", { type: READ, offset: DISK_BYTES, length: 512 }, Status.OUT_OF_RANGE],
    ["over the end", { type: DISCARD, offset: 512, length: DISK_BYTES }, Status.OUT_OF_RANGE],
    ["wrapping around", { type: DISCARD, offset: 2n ** 64n - 512n, length: 1024 }, Status.OUT_OF_RANGE],
    [
      "wrapping around",
      { type: WRITE, offset: 2n ** 64n - 512n, length: 512, payload: pattern(512) },
      Status.OUT_OF_RANGE,
    ],
    ["a number too large", { type: DISCARD, length: 2n ** 53n }, Status.INVALID],
    ["the largest numbers", { type: DISCARD, offset: 2n ** 53n - 512n, length: 2n ** 53n - 512n }, Status.OUT_OF_RANGE],
    ["a later type", { type: 8, flags: 0xffff, offset: 2n ** 63n }, Status.NOT_SUPPORTED],
    ["a later type with payload", { type: 15, length: 3, payload: pattern(700) }, Status.NOT_SUPPORTED],
    ["read-only", { type: WRITE, length: 512, payload: pattern(512) }, Status.READ_ONLY, { readOnly: true }],
    ["read-only", { type: WRITE_ZEROES, length: 512 }, Status.READ_ONLY, { readOnly: true }],
    ["an empty disk", { type: READ, length: 512 }, Status.OUT_OF_RANGE, { size: 0 }],
  ];
  for (const [name, fields, status, options] of cases) {
    for (const cut of CUTS) {
      const setup = new LaneSetup({ ...options, cut }).connect();
      const reply = setup.ask({ ...fields, slot: 1, sequence: 1 });
      assert.deepEqual([reply.type, reply.status, reply.slot, reply.sequence, reply.payload.length], [
        fields.type | 0x80,
        status,
        1,
        1,
        0,
      ], name);
      assert.equal(setup.ask({ type: FLUSH, slot: 1, sequence: 2 }).status, 0, name);
      assert.deepEqual(setup.calls, [[1, FLUSH, 0, 0, 0]]);
    }
  }
});

Deno.test("the last block and the blocks around 4 GiB are reached", () => {
  const size = 2 ** 32 + 4096;
  const setup = new LaneSetup({ size }).connect();
  let sequence = 0;
  for (const offset of [2 ** 32 - 512, 2 ** 32, size - 512]) {
    const write: Fields = { type: WRITE, sequence: ++sequence, offset, length: 512, payload: pattern(512) };
    assert.equal(setup.ask(write).status, 0);
    assert.deepEqual(setup.calls.pop(), [0, WRITE, offset, 512, 0]);
  }
  assert.equal(setup.ask({ type: READ, sequence: ++sequence, offset: size, length: 512 }).status, Status.OUT_OF_RANGE);
});

Deno.test("every errno of the disk comes back as its status, and the slot goes on", () => {
  const setup = new LaneSetup().connect();
  let sequence = 0;
  for (const [errno, status] of [[5, 1], [28, 2], [122, 2], [22, 3], [30, 4], [95, 5], [110, 7], [61, 10], [200, 1]]) {
    setup.answer = -errno;
    const reply = setup.ask({ type: READ, sequence: ++sequence, length: 512 });
    assert.deepEqual([reply.status, reply.payload.length], [status, 0]);
    assert.equal(setup.ask({ type: BLOCK_STATUS, sequence: ++sequence, length: 512 }).payload.length, 0);
  }
});

Deno.test("a PING is answered with its token", () => {
  for (const cut of CUTS) {
    const setup = new LaneSetup({ cut }).connect();
    for (const offset of [0, 1, 2 ** 32, 2 ** 53 - 1]) {
      const { type, lane, offset: token, status } = setup.ask({ type: PING, offset });
      assert.deepEqual([type, lane, token, status], [PING | 0x80, LANE, offset, 0]);
    }
  }
});

Deno.test("a probe says what became of a request", () => {
  const setup = new LaneSetup().connect();
  const probe = (slot: number, sequence: number) => {
    const reply = setup.ask({ type: PING, flags: 1, slot, sequence, offset: 77 });
    assert.deepEqual([reply.flags, reply.slot, reply.sequence, reply.offset], [1, slot, sequence, 77]);
    return reply.status;
  };
  assert.deepEqual([probe(0, 0), probe(0, 1), probe(4, 1), probe(65_535, 0)], [0, 0, 0, 0]);
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 });
  assert.deepEqual([probe(0, 1), probe(0, 0), probe(0, 2), probe(1, 1)], [1, 0, 0, 0]);
  setup.lane.complete(0, 0);
  setup.frames(1);
  assert.deepEqual([probe(0, 1), probe(0, 2)], [2, 0]);
});

Deno.test("an idle client is pinged once, and one that answers lives on", () => {
  const setup = new LaneSetup();
  assert.equal(setup.lane.tick(5), Infinity);
  setup.connect(1, 1000);
  assert.equal(setup.lane.tick(1000), 1000);
  assert.equal(setup.lane.tick(1400), 600);
  setup.frames(0);
  assert.equal(setup.lane.tick(2000), 29_000);
  const [ping] = setup.frames(1);
  assert.deepEqual([ping.type, ping.lane, ping.flags], [PING, LANE, 0]);
  assert.equal(setup.lane.tick(3000), 28_000);
  setup.frames(0);
  setup.send({ type: PING | 0x80, offset: ping.offset });
  setup.lane.heard(3500);
  assert.equal(setup.lane.tick(3500), 1000);
  assert.equal(setup.lane.tick(4500), 29_000);
  const [next] = setup.frames(1);
  assert.notEqual(next.offset, ping.offset);
  assert.equal(setup.feeder.closed, false);
  // Any byte is life, also without a pong.
  setup.lane.heard(30_000);
  assert.equal(setup.lane.tick(34_500), 25_500);
  setup.frames(0);
});

Deno.test("a pong with another token, or with more in it, is refused", () => {
  for (const wrong of [{ offset: 2 }, { offset: 2n ** 63n }, { slot: 1 }, { flags: 1 }, { status: 1 }, { length: 1 }]) {
    const setup = new LaneSetup().connect();
    setup.lane.tick(1000);
    assert.equal(setup.frames(1)[0].offset, 1);
    setup.send({ type: PING | 0x80, offset: 1, ...wrong });
    setup.assertFailed("offset" in wrong ? ProtocolError.UNEXPECTED_REPLY : ProtocolError.FIELD);
  }
});

Deno.test("a client that stays silent is dead, until it comes back", () => {
  const setup = new LaneSetup().connect();
  setup.lane.tick(1000);
  assert.equal(setup.lane.tick(29_999), 1);
  assert.equal(setup.lane.error, ProtocolError.NONE);
  assert.equal(setup.lane.tick(30_000), Infinity);
  assert.equal(setup.lane.error, ProtocolError.PEER_DEAD);
  setup.break();
  assert.equal(setup.lane.tick(40_000), Infinity);
  setup.connect(2, 50_000);
  assert.deepEqual([setup.lane.error, setup.lane.tick(50_000)], [ProtocolError.NONE, 1000]);
});

Deno.test("a new size is announced and holds at once", () => {
  const setup = new LaneSetup().connect();
  setup.lane.resized(2 ** 40);
  const [announced] = setup.frames(1);
  assert.deepEqual([announced.type, announced.lane, announced.offset], [0x30, LANE, 2 ** 40]);
  const last: Fields = { type: READ, sequence: 1, offset: 2 ** 40 - 512, length: 512 };
  assert.equal(setup.ask(last).status, 0);
  setup.lane.resized(512);
  setup.frames(1);
  assert.equal(setup.ask({ ...last, sequence: 2 }).status, Status.OUT_OF_RANGE);
  setup.break().lane.resized(0);
  setup.connect();
  assert.equal(setup.ask({ type: READ, sequence: 3, length: 512 }).status, Status.OUT_OF_RANGE);
});

Deno.test("an exporter that is ending finishes what executes and refuses what is new", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 });
  setup.lane.shutdown();
  setup.lane.shutdown();
  assert.deepEqual(setup.frames(1).map(({ type }) => type), [0x31]);
  assert.equal(setup.ask({ type: READ, slot: 1, sequence: 1, length: 512 }).status, Status.SHUTTING_DOWN);
  const write: Fields = { type: WRITE, slot: 2, sequence: 1, length: 512, payload: pattern(512) };
  assert.equal(setup.ask(write).status, Status.SHUTTING_DOWN);
  setup.lane.complete(0, 0);
  assert.equal(setup.frames(1)[0].status, 0);
  assert.equal(setup.calls.length, 1);
});

Deno.test("nothing more is executed for a session that another took over", () => {
  const setup = new LaneSetup().connect();
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 });
  setup.lane.fenced();
  setup.lane.fenced();
  assert.deepEqual(setup.frames(1).map(({ type }) => type), [0x32]);
  assert.equal(setup.ask({ type: READ, slot: 1, sequence: 1, length: 512 }).status, Status.EPOCH_CHANGED);
  setup.lane.complete(0, 0);
  assert.equal(setup.frames(1)[0].status, 0);
  assert.equal(setup.calls.length, 1);
});

Deno.test("CLOSE is answered when the host is done, and nothing new comes after it", () => {
  const setup = new LaneSetup().connect();
  setup.lane.closed();
  setup.frames(0);
  setup.answer = PENDING;
  setup.send({ type: FLUSH, sequence: 1 });
  setup.send({ type: CLOSE });
  assert.equal(setup.closings, 1);
  assert.equal(setup.ask({ type: PING, offset: 3 }).type, PING | 0x80);
  setup.lane.complete(0, 0);
  setup.lane.closed();
  assert.deepEqual(setup.frames(2).map(({ type, status }) => [type, status]), [[0x83, 0], [CLOSE | 0x80, 0]]);
  for (const fields of [{ type: FLUSH, slot: 1, sequence: 1 }, { type: CLOSE }]) {
    const other = new LaneSetup().connect();
    other.send({ type: CLOSE }).send(fields);
    other.assertFailed(ProtocolError.PHASE);
    assert.equal(other.closings, 1);
  }
  const gone = new LaneSetup().connect();
  gone.send({ type: CLOSE }).break().lane.closed();
  gone.frames(0);
});
