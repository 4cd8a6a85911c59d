import assert from "node:assert/strict";
import fc from "fast-check";
import { type Frame, FRAMES, headerOf, seal, type Suite } from "../tests/vectors/frames.ts";
import { GRANT, hellos, Status as VectorStatus, tlv } from "../tests/vectors/messages.ts";
import { concat, hex, le, pattern, text } from "../tests/vectors/primitives.ts";
import { ClientDoor } from "./client_door.ts";
import { Arena, Feed, feedings, PLAIN_SUITES, Random, Script, XXH64 } from "./client_support_test.ts";
import type { StreamConsumer } from "./consumer.ts";
import { ProtocolError } from "./error.ts";
import type { Description, Grant, JoinRequest, ListEntry, OpenRequest } from "./grant.ts";
import { Status } from "./status.ts";
import { Verdict } from "./consumer.ts";
import { Digest } from "./wire.ts";

const DIGESTS = [Digest.XXH64, Digest.CRC32C, Digest.NONE];
const HELLOS = hellos(pattern(16, 1));

/** The payload of a frame of the vectors. */
function payloadOf(name: string): Uint8Array {
  const frame = FRAMES.find((candidate) => candidate.name === name);
  assert.ok(frame?.payload, name);
  return frame.payload;
}

/** The bytes of a hello of the vectors. */
function helloOf(name: string): Uint8Array {
  const hello = HELLOS.find((candidate) => candidate.name === name);
  assert.ok(hello, name);
  return hello.bytes;
}

/** The exporter's hello that chooses a suite. */
function answerHello(suite: Suite): Uint8Array {
  const name = suite.digest === Digest.NONE ? "no digest" : suite.name;
  return helloOf(`exporter chose none and ${name}`);
}

const OPEN: OpenRequest = {
  export: "disk.img",
  session: pattern(16, 1),
  access: 1,
  holder: "client.example pid 4711",
  leaseMs: 120_000,
  depth: 128,
  maxPayload: 262_144,
  lanes: 4,
  steal: true,
  resume: { storage: pattern(16, 4), durability: pattern(16, 3), writeEpoch: 1_700_000_000_000_000 },
};
const JOIN: JoinRequest = {
  session: pattern(16, 1),
  lane: 3,
  generation: 2,
  depth: 128,
  maxPayload: 262_144,
  fresh: true,
};

/** A door, its host's diary, and the exporter's half of the connection. */
class Bench {
  readonly arena: Arena;
  readonly door: ClientDoor;
  readonly events: string[] = [];
  readonly sent: Uint8Array[] = [];
  readonly script: Script;
  readonly feed: Feed;
  grant: Grant | null = null;
  description: Description | null = null;
  entries: readonly ListEntry[] = [];
  onReady: () => void = () => {};
  onGranted: () => void = () => {};

  constructor(readonly suite: Suite = XXH64, arena = new Arena()) {
    this.arena = arena;
    const { events } = this;
    this.script = new Script(suite);
    this.door = new ClientDoor(arena.core, arena.core, arena.scratchAt, { digests: DIGESTS }, {
      transmit: (at, bytes) => this.sent.push(arena.core.bytes.slice(at, at + bytes)),
      ready: () => {
        events.push("ready");
        this.onReady();
      },
      listed: (entries, more) => {
        this.entries = entries;
        events.push(`listed ${entries.map((entry) => entry.name)} ${more}`);
      },
      described: (description) => {
        this.description = description;
        events.push("described");
      },
      granted: (grant) => {
        this.grant = grant;
        events.push("granted");
        this.onGranted();
      },
      refused: (status, words, current) => events.push(`refused ${status} ${words} ${current?.text ?? "-"}`),
      fencing: (executing) => events.push(`fencing ${executing}`),
      failed: (words, status) => events.push(`failed ${status} ${words}`),
    });
    this.feed = new Feed(arena, this.door);
    this.door.start();
  }

  /** Past the hello. */
  ready(): this {
    this.feed.push(answerHello(this.suite));
    assert.deepEqual(this.takeEvents(), ["ready"]);
    this.sent.length = 0;
    return this;
  }

  receive(frame: Omit<Frame, "name" | "from">): void {
    this.feed.push(this.script.next(frame));
  }

  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

/** What the independent script would send for the n-th frame of the client. */
function expected(suite: Suite, n: number, frame: Omit<Frame, "name" | "from">): string {
  const sealed = seal(suite, new Uint8Array(32), { name: "", from: "client", ...frame }, n);
  return hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload));
}

Deno.test("the hello offers the digests in their order, and no cipher", () => {
  const bench = new Bench();
  assert.equal(hex(bench.sent[0]), hex(helloOf("client without key")));
});

Deno.test("hello, every door request and its answer go through, however the bytes arrive", () => {
  for (const suite of PLAIN_SUITES) {
    for (const { name, pieces } of feedings(5)) {
      const bench = new Bench(suite);
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
      assert.deepEqual(bench.door.handoff(), { digest: suite.digest, sent: 6, received: 8 });
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
  const bench = new Bench().ready();
  const nothing = { depth: null, maxPayload: null };
  bench.door.open({ ...OPEN, ...nothing, access: 0, leaseMs: null, lanes: null, steal: false, resume: null });
  bench.receive({ type: 0xa2, status: Status.BAD_REQUEST });
  bench.door.join({ ...JOIN, ...nothing, fresh: false });
  assert.equal(hex(bench.sent[0]), expected(XXH64, 0, { type: 0x22, payload: payloadOf("OPEN, least") }));
  assert.equal(hex(bench.sent[1]), expected(XXH64, 1, { type: 0x23, payload: payloadOf("JOIN, least") }));
  assert.deepEqual(bench.takeEvents(), ["refused 41 BAD_REQUEST -"]);
});

Deno.test("what the answers say arrives as it was sent", () => {
  const bench = new Bench().ready();
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
  const bench = new Bench().ready();
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
      const bench = new Bench();
      bench.feed.pushInPieces(helloOf(name), pieces);
      assert.deepEqual(bench.takeEvents(), [event]);
      assert.ok(bench.feed.isClosed);
      assert.equal(bench.door.error, ProtocolError.REFUSED);
    }
  }
});

Deno.test("words of the exporter cannot steer a terminal", () => {
  const bench = new Bench().ready();
  bench.door.describe("disk.img");
  bench.receive({ type: 0xa1, status: 32, payload: tlv(5, text("\x1b[2J\r\nall\u009b is well\x07")) });
  assert.deepEqual(bench.takeEvents(), ["refused 32 [2J all  is well -"]);
});

/** An exporter's hello with any version, zero field and body. */
function hello(body: Uint8Array, version = 1, zero = 0, bodyBytes = body.length, magic = "DSTREPLY"): Uint8Array {
  return concat(text(magic), le(version, 2), le(zero, 2), le(bodyBytes, 4), body);
}

const ok = tlv(4, le(0, 4));
const cipher = (...numbers: number[]) => tlv(1, concat(...numbers.map((number) => le(number, 2))));
const digest = (...numbers: number[]) => tlv(2, concat(...numbers.map((number) => le(number, 2))));

Deno.test("a hello that is malformed or chooses what was not offered ends the connection", () => {
  const good = concat(cipher(0), digest(2), ok);
  const cases: [string, Uint8Array, number][] = [
    ["the client's own magic", hello(good, 1, 0, good.length, "DSTHELLO"), ProtocolError.MAGIC],
    ["HTTP", text("HTTP/1.1 400 Bad Request\r\n"), ProtocolError.MAGIC],
    ["a version that was not offered", hello(good, 2), ProtocolError.ALGORITHM],
    ["a field that is not zero", hello(good, 1, 1), ProtocolError.HELLO],
    ["an empty body", hello(new Uint8Array(0)), ProtocolError.HELLO],
    ["a body beyond the limit", hello(new Uint8Array(0), 1, 0, 497), ProtocolError.HELLO],
    ["the largest length", hello(new Uint8Array(0), 1, 0, 0xffffffff), ProtocolError.HELLO],
    ["no status", hello(concat(cipher(0), digest(2))), ProtocolError.HELLO],
    ["OK without a version", hello(good, 0), ProtocolError.HELLO],
    ["no cipher", hello(concat(digest(2), ok)), ProtocolError.ALGORITHM],
    ["two ciphers", hello(concat(cipher(0, 0), digest(2), ok)), ProtocolError.ALGORITHM],
    ["a cipher that was not offered", hello(concat(cipher(1), digest(2), ok)), ProtocolError.ALGORITHM],
    ["a digest that was not offered", hello(concat(cipher(0), digest(3), ok)), ProtocolError.ALGORITHM],
    ["a digest that is none", hello(concat(cipher(0), digest(0xffff), ok)), ProtocolError.ALGORITHM],
    ["half a digest", hello(concat(cipher(0), tlv(2, le(2, 1)), ok)), ProtocolError.HELLO],
    ["a status of two bytes", hello(concat(cipher(0), digest(2), tlv(4, le(0, 2)))), ProtocolError.HELLO],
    ["two statuses", hello(concat(good, ok)), ProtocolError.HELLO],
    ["a TLV beyond the body", hello(concat(good, le(5, 2), le(0, 2), le(9, 4))), ProtocolError.HELLO],
    ["an unknown TLV that is required", hello(concat(good, tlv(99, le(0, 1), true))), ProtocolError.HELLO],
  ];
  for (const [name, bytes, error] of cases) {
    const bench = new Bench();
    bench.feed.push(bytes);
    assert.equal(bench.door.error, error, name);
    assert.ok(bench.feed.isClosed, name);
    assert.match(bench.takeEvents().join(), /^failed 0 [a-z][^,]*$/, name);
  }
  const bench = new Bench();
  bench.feed.push(hello(concat(tlv(99, text("later")), good)));
  assert.deepEqual(bench.takeEvents(), ["ready"]);
});

/** The grant of the vectors, with the value of one TLV changed. */
function bentGrant(type: number, value: Uint8Array | null): Uint8Array {
  const whole = payloadOf("OPEN answer");
  const parts: Uint8Array[] = [];
  const view = new DataView(whole.buffer, whole.byteOffset, whole.length);
  for (let at = 0; at < whole.length;) {
    const bytes = 8 + Math.ceil(view.getUint32(at + 4, true) / 8) * 8;
    if (view.getUint16(at, true) !== type) parts.push(whole.subarray(at, at + bytes));
    else if (value !== null) parts.push(tlv(type, value));
    at += bytes;
  }
  assert.equal(parts.length, GRANT.length - (value === null ? 1 : 0));
  return concat(...parts);
}

Deno.test("a grant that is incomplete or outside the limits ends the connection", () => {
  const u32s = (...numbers: number[]) => concat(...numbers.map((number) => le(number, 4)));
  const cases: [string, number, Uint8Array | null][] = [
    ...[18, 20, 23, 32, 33, 34, 35, 36].map((type): [string, number, null] => [`no TLV ${type}`, type, null]),
    ["another access than asked for", 18, le(0, 4)],
    ["an access that is none", 18, le(2, 4)],
    ["a lease beyond a day", 20, le(86_400_001, 4)],
    ["no lanes", 23, le(0, 4)],
    ["65 lanes", 23, le(65, 4)],
    ["a size beyond safe integers", 32, le(2n ** 53n, 8)],
    ["a size that is no multiple of the block", 32, le(1000, 8)],
    ["a block of 0", 33, u32s(0, 4096, 0, 0)],
    ["a block that is no power of two", 33, u32s(768, 4096, 0, 0)],
    ["a block of 2 GiB", 33, u32s(2 ** 31, 4096, 0, 0)],
    ["no slots", 34, concat(u32s(0, 4096), le(4096, 8))],
    ["1025 slots", 34, concat(u32s(1025, 4096), le(2 ** 30, 8))],
    ["a payload below a page", 34, concat(u32s(1, 4095), le(4096, 8))],
    ["a payload above 1 MiB", 34, concat(u32s(1, 1048577), le(2 ** 30, 8))],
    ["credits below one payload", 34, concat(u32s(1, 8192), le(4096, 8))],
    ["credits that are too short", 34, u32s(1, 4096)],
    ["identities that are too long", 35, new Uint8Array(64)],
    ["a write epoch beyond safe integers", 35, concat(new Uint8Array(48), le(2n ** 60n, 8))],
  ];
  for (const [name, type, value] of cases) {
    const bench = new Bench().ready();
    bench.door.open(OPEN);
    bench.receive({ type: 0xa2, payload: bentGrant(type, value) });
    assert.equal(bench.door.error, ProtocolError.TLV, name);
    assert.ok(bench.feed.isClosed && bench.grant === null, name);
  }
});

Deno.test("an answer that is malformed ends the connection", () => {
  const entry = (name: string, access = 1) => tlv(38, concat(le(4096, 8), le(access, 4), le(0, 4), text(name)));
  const lists: [string, Uint8Array][] = [
    ["names that descend", concat(entry("b"), entry("a"))],
    ["a name twice", concat(entry("b"), entry("b"))],
    ["a name from before", entry("a")],
    ["the name itself", entry("aa")],
    ["an empty name", entry("")],
    ["a name with a control character", entry("b\n")],
    ["a name that is too long", entry("b".repeat(256))],
    ["a name that is no UTF-8", tlv(38, concat(new Uint8Array(16), Uint8Array.of(0xff)))],
    ["an access that is none", entry("b", 2)],
    ["a size beyond safe integers", tlv(38, concat(le(2n ** 63n, 8), le(0, 8), text("b")))],
    ["more of nothing", tlv(39, new Uint8Array(0))],
    ["MORE with a value", concat(entry("b"), tlv(39, le(0, 4)))],
    ["half a TLV", entry("b").subarray(0, 12)],
  ];
  for (const [name, payload] of lists) {
    const bench = new Bench().ready();
    bench.door.list("aa");
    bench.receive({ type: 0xa0, payload });
    assert.equal(bench.door.error, ProtocolError.TLV, name);
    assert.ok(bench.feed.isClosed, name);
  }
  const refusals: [string, Uint8Array][] = [
    ["words that are no UTF-8", tlv(5, Uint8Array.of(0xc0))],
    ["a holder that is too short", tlv(37, le(1, 4))],
    ["a holder whose second word is not zero", tlv(37, concat(le(1, 4), le(1, 4)))],
  ];
  for (const [name, payload] of refusals) {
    const bench = new Bench().ready();
    bench.door.open(OPEN);
    bench.receive({ type: 0xa2, status: Status.BUSY, payload });
    assert.equal(bench.door.error, ProtocolError.TLV, name);
  }
  const bench = new Bench().ready();
  bench.door.describe("disk.img");
  bench.receive({ type: 0xa1, payload: payloadOf("OPEN answer").subarray(16) });
  assert.equal(bench.door.error, ProtocolError.TLV);
});

Deno.test("a list beyond one page of names reads whole", () => {
  const names = Array.from({ length: 200 }, (_, i) => `${String(i).padStart(3, "0")}-${"ü".repeat(120)}`);
  const payload = concat(...names.map((name) => tlv(38, concat(le(512, 8), le(0, 8), text(name)))));
  const bench = new Bench().ready();
  bench.door.list("");
  bench.receive({ type: 0xa0, payload });
  assert.deepEqual(bench.entries.map((each) => each.name), names);
});

Deno.test("frames that do not answer the request end the connection", () => {
  type Case = [string, Omit<Frame, "name" | "from">, number];
  const cases: Case[] = [
    ["the answer to another request", { type: 0xa1 }, ProtocolError.TYPE],
    ["a frame of the lane phase", { type: 0x81 }, ProtocolError.TYPE],
    ["another lane than 0", { type: 0xa2, lane: 1 }, ProtocolError.LANE],
    ["a flag", { type: 0xa2, flags: 1 }, ProtocolError.FIELD],
    ["a slot", { type: 0xa2, slot: 1 }, ProtocolError.FIELD],
    ["a sequence", { type: 0xa2, sequence: 1 }, ProtocolError.FIELD],
    ["an offset", { type: 0xa2, offset: 1 }, ProtocolError.FIELD],
    ["a length", { type: 0xa2, length: 1 }, ProtocolError.FIELD],
    ["FENCING with a status", { type: 0x33, status: 1 }, ProtocolError.FIELD],
    ["FENCING with payload", { type: 0x33, payload: pattern(8, 1) }, ProtocolError.PAYLOAD_BYTES],
  ];
  for (const [name, frame, error] of cases) {
    const bench = new Bench().ready();
    bench.door.open(OPEN);
    bench.receive(frame);
    assert.equal(bench.door.error, error, name);
    assert.ok(bench.feed.isClosed, name);
  }
  const unasked = new Bench().ready();
  unasked.receive({ type: 0xa2 });
  assert.equal(unasked.door.error, ProtocolError.UNEXPECTED_REPLY);
  const fencing = new Bench().ready();
  fencing.door.list("");
  fencing.receive({ type: 0x33, length: 1 });
  assert.equal(fencing.door.error, ProtocolError.TYPE);
  const long = new Bench(PLAIN_SUITES[0]).ready();
  long.door.list("");
  const header = headerOf({ name: "", from: "exporter", type: 0xa0 }, 0);
  header.set(le(65_537, 4), 32);
  long.feed.push(header);
  assert.equal(long.door.error, ProtocolError.PAYLOAD_TOO_LONG);
});

Deno.test("a flipped bit in an answer ends the connection", () => {
  const arena = new Arena();
  const bytes = new Script(XXH64).next({ type: 0xa2, payload: payloadOf("OPEN answer") });
  for (let bit = 0; bit < bytes.length * 8; bit += 7) {
    const bench = new Bench(XXH64, arena).ready();
    bench.door.open(OPEN);
    const bent = bytes.slice();
    bent[bit >> 3] ^= 1 << (bit & 7);
    bench.feed.push(bent);
    assert.ok(bench.feed.isClosed && bench.grant === null, `bit ${bit}`);
  }
});

Deno.test("any bytes in place of a hello or an answer give verdicts and an error, never an exception", () => {
  const arena = new Arena();
  fc.assert(
    fc.property(fc.boolean(), fc.uint8Array({ maxLength: 700 }), (isHello, bytes) => {
      const bench = new Bench(PLAIN_SUITES[0], arena);
      if (isHello) {
        const length = Math.min(bytes.length, 496);
        bench.feed.push(hello(bytes.subarray(0, length), 1));
        assert.ok(length === 0 || bench.feed.isClosed);
      } else {
        bench.ready().door.open(OPEN);
        bench.feed.push(bench.script.next({ type: 0xa2, payload: bytes }));
        assert.ok(bench.feed.isClosed && bench.grant === null);
      }
      assert.ok(bench.feed.calls <= 4);
    }),
    { numRuns: 300 },
  );
});

Deno.test("answers with any byte changed give verdicts, never an exception", () => {
  const seed = 7;
  const random = new Random(seed);
  const arena = new Arena();
  const answers: [number, Uint8Array][] = [
    [0x20, payloadOf("LIST answer with more")],
    [0x21, payloadOf("DESCRIBE answer")],
    [0x22, payloadOf("OPEN answer")],
  ];
  for (let run = 0; run < 1500; run++) {
    const [type, good] = answers[run % answers.length];
    const payload = good.slice(0, random.below(3) === 0 ? random.below(good.length + 1) : good.length);
    for (let i = 0; i <= random.below(3) && payload.length > 0; i++) {
      payload[random.below(payload.length)] = [0, 1, 0x7f, 0xff][random.below(4)];
    }
    const bench = new Bench(XXH64, arena).ready();
    if (type === 0x20) bench.door.list("");
    else if (type === 0x21) bench.door.describe("disk.img");
    else bench.door.open(OPEN);
    const status = random.below(4) === 0 ? VectorStatus.BUSY : 0;
    bench.receive({ type: type | 0x80, payload, status });
    assert.equal(bench.events.length, 1, `seed ${seed}, run ${run}`);
    assert.equal(bench.feed.isClosed, bench.door.error !== 0, `seed ${seed}, run ${run}`);
  }
});

Deno.test("the next request may be made from within what was told", () => {
  const bench = new Bench();
  bench.onReady = () => bench.door.list("");
  bench.feed.push(answerHello(XXH64));
  assert.equal(bench.sent.length, 2);
});

Deno.test("a caller's mistakes are assertions", () => {
  const bench = new Bench();
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
