import assert from "node:assert/strict";
import type { Frame } from "../tests/vectors/frames.ts";
import { tlv } from "../tests/vectors/messages.ts";
import { concat, hex, le, pattern, text } from "../tests/vectors/primitives.ts";
import { answerHello, DoorBench, expected, helloOf, JOIN, OPEN, payloadOf } from "./client_door_support_test.ts";
import { feedings, PLAIN_SUITES, XXH64 } from "./client_support_test.ts";
import { type StreamConsumer, Verdict } from "./consumer.ts";
import { ProtocolError } from "./error.ts";
import { Status } from "./status.ts";

Deno.test("the hello offers the digests in their order, and no cipher", () => {
  const bench = new DoorBench();
  assert.equal(hex(bench.sent[0]), hex(helloOf("client without key")));
});

Deno.test("hello, every door request and its answer go through, however the bytes arrive", () => {
  for (const suite of PLAIN_SUITES) {
    for (const { name, pieces } of feedings(5)) {
      const bench = new DoorBench(suite);
      bench.feed.pushInPieces(answerHello(suite), pieces);
      const answer = (frame: Omit<Frame, "name" | "from">) => bench.feed.pushInPieces(bench.script.next(frame), pieces);
      bench.door.list("disk.img");
      answer({ type: 0xa0, payload: payloadOf("LIST answer with more").subarray(32) });
      bench.door.list("");
      answer({ type: 0xa0 });
      bench.door.describe("disk.img");
      answer({ type: 0xa1, payload: payloadOf("DESCRIBE answer") });
      bench.door.describe("disk.img");
      answer({ type: 0xa1, status: Status.NOT_FOUND, payload: payloadOf("DESCRIBE refused") });
      bench.door.open(OPEN);
      answer({ type: 0xa2, status: Status.BUSY, payload: payloadOf("OPEN refused") });
      bench.door.join(JOIN);
      answer({ type: 0x33, length: 17 });
      answer({ type: 0x33, length: 0 });
      answer({ type: 0xa3, payload: payloadOf("JOIN answer with an unknown TLV") });
      assert.deepEqual(bench.takeEvents(), [
        "ready",
        "listed naïve-ß true",
        "listed  false",
        "described",
        "refused 32 No such export: dïsk -",
        "refused 34 No such export: dïsk other.example at 192.0.2.7:40112",
        "fencing 17",
        "fencing 0",
        "granted",
      ], name);
      assert.deepEqual(bench.door.handoff(), { cipher: 0, digest: suite.digest, keys: null, sent: 6, received: 8 });
      const requests = [
        { type: 0x20, payload: payloadOf("LIST after a name") },
        { type: 0x20 },
        { type: 0x21, payload: payloadOf("DESCRIBE") },
        { type: 0x21, payload: payloadOf("DESCRIBE") },
        { type: 0x22, payload: payloadOf("OPEN, all") },
        { type: 0x23, payload: payloadOf("JOIN, all") },
      ];
      requests.forEach((frame, n) => assert.equal(hex(bench.sent[n + 1]), expected(suite, n, frame), `request ${n}`));
    }
  }
});

Deno.test("the least OPEN and JOIN name nothing that was not wished for", () => {
  const bench = new DoorBench().ready();
  const nothing = { depth: null, maxPayload: null };
  bench.door.open({ ...OPEN, ...nothing, access: 0, leaseMs: null, lanes: null, steal: false, resume: null });
  bench.receive({ type: 0xa2, status: Status.BAD_REQUEST });
  bench.door.join({ ...JOIN, ...nothing, fresh: false });
  assert.equal(hex(bench.sent[0]), expected(XXH64, 0, { type: 0x22, payload: payloadOf("OPEN, least") }));
  assert.equal(hex(bench.sent[1]), expected(XXH64, 1, { type: 0x23, payload: payloadOf("JOIN, least") }));
  assert.deepEqual(bench.takeEvents(), ["refused 41 BAD_REQUEST -"]);
});

Deno.test("what the answers say arrives as it was sent", () => {
  const bench = new DoorBench().ready();
  bench.door.list("");
  bench.receive({ type: 0xa0, payload: payloadOf("LIST answer with more") });
  assert.deepEqual(bench.entries, [
    { name: "a", size: 2 ** 30, access: 1, features: 63 },
    { name: "naïve-ß", size: 4096, access: 0, features: 128 },
  ]);
  const shape = {
    size: 5 * 2 ** 40 + 512,
    logicalBlock: 512,
    physicalBlock: 4096,
    optimalIo: 262_144,
    discardGranularity: 4096,
    access: 1,
    features: 63,
    identities: {
      instance: pattern(16, 2),
      durability: pattern(16, 3),
      storage: pattern(16, 4),
      writeEpoch: 1_700_000_000_000_000,
    },
  };
  bench.door.describe("disk.img");
  bench.receive({ type: 0xa1, payload: payloadOf("DESCRIBE answer") });
  assert.deepEqual(bench.description, { ...shape, current: { access: 1, text: "other.example at 192.0.2.7:40112" } });
  bench.door.open(OPEN);
  bench.receive({ type: 0xa2, payload: payloadOf("OPEN answer") });
  const credits = { slots: 128, maxPayload: 262_144, payloadBytes: 128 * 262_144, leaseMs: 120_000, lanes: 4 };
  assert.deepEqual(bench.grant, { ...shape, ...credits });
});

Deno.test("what follows a grant belongs to the next machine", () => {
  const bench = new DoorBench().ready();
  const headers: number[] = [];
  const next: StreamConsumer = {
    headerBytes: 64,
    payloadAt: -1,
    payloadBytes: 0,
    onHeader: (at) => {
      headers.push(bench.arena.core.bytes[at + 4]);
      return Verdict.NEXT;
    },
    onPayload: () => assert.fail("no payload"),
  };
  bench.onGranted = () => bench.feed.consumer = next;
  bench.door.open(OPEN);
  bench.feed.push(concat(
    bench.script.next({ type: 0xa2, payload: payloadOf("OPEN answer") }),
    bench.script.next({ type: 0x31 }),
    bench.script.next({ type: 0x10 }).subarray(0, 63),
  ));
  assert.deepEqual(headers, [0x31]);
  assert.equal(bench.feed.pendingBytes, 63);
});

Deno.test("a refused hello is told with the exporter's words, or the status's name", () => {
  const refusals: [string, string][] = [
    ["exporter has no version in common", "failed 43 VERSION"],
    ["exporter has no algorithm in common", "failed 44 NO_COMMON_ALGORITHM"],
    ["exporter wants a key", "failed 45 This exporter wants a key: add --key FILE"],
    ["exporter could not read the hello", "failed 41 Cannot read the hello"],
    ["exporter is full", "failed 46 Too many connections"],
  ];
  for (const [name, event] of refusals) {
    for (const { pieces } of feedings(6)) {
      const bench = new DoorBench();
      bench.feed.pushInPieces(helloOf(name), pieces);
      assert.deepEqual(bench.takeEvents(), [event]);
      assert.ok(bench.feed.isClosed);
      assert.equal(bench.door.error, ProtocolError.REFUSED);
    }
  }
});

Deno.test("words of the exporter cannot steer a terminal", () => {
  const bench = new DoorBench().ready();
  bench.door.describe("disk.img");
  bench.receive({ type: 0xa1, status: 32, payload: tlv(5, text("\x1b[2J\r\nall\u009b is well\x07")) });
  assert.deepEqual(bench.takeEvents(), ["refused 32 [2J all  is well -"]);
});

Deno.test("the next request may be made from within what was told", () => {
  const bench = new DoorBench();
  bench.onReady = () => bench.door.list("");
  bench.feed.push(answerHello(XXH64));
  assert.equal(bench.sent.length, 2);
});

Deno.test("a caller's mistakes are assertions", () => {
  const bench = new DoorBench();
  assert.throws(() => bench.door.start(), /once/);
  assert.throws(() => bench.door.list(""), /after hello/);
  assert.throws(() => bench.door.handoff(), /granted/);
  bench.ready().door.list("");
  assert.throws(() => bench.door.list(""), /one at a time/);
  assert.throws(() => bench.door.describe(""), /name/);
  assert.throws(() => bench.door.open({ ...OPEN, holder: "a\nb" }), /names/);
  assert.throws(() => bench.door.open({ ...OPEN, session: new Uint8Array(16) }), /session/);
  assert.throws(() => bench.door.join({ ...JOIN, generation: 0 }), /generation/);
});
Deno.test("a list beyond one page of names reads whole", () => {
  const names = Array.from({ length: 200 }, (_, i) => `${String(i).padStart(3, "0")}-${"ü".repeat(120)}`);
  const payload = concat(...names.map((name) => tlv(38, concat(le(512, 8), le(0, 8), text(name)))));
  const bench = new DoorBench().ready();
  bench.door.list("");
  bench.receive({ type: 0xa0, payload });
  assert.deepEqual(bench.entries.map((each) => each.name), names);
});
