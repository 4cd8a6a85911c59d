import assert from "node:assert/strict";
import fc from "fast-check";
import { type Frame, headerOf } from "../tests/vectors/frames.ts";
import { GRANT, tlv } from "../tests/vectors/messages.ts";
import { concat, le, pattern, text } from "../tests/vectors/primitives.ts";
import { DoorBench, OPEN, payloadOf } from "./client_door_support_test.ts";
import { Arena, PLAIN_SUITES, Random, Script, XXH64 } from "./client_support_test.ts";
import { ProtocolError } from "./error.ts";
import { Status } from "./status.ts";

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
    const bench = new DoorBench();
    bench.feed.push(bytes);
    assert.equal(bench.door.error, error, name);
    assert.ok(bench.feed.isClosed, name);
    assert.match(bench.takeEvents().join(), /^failed 0 [a-z][^,]*$/, name);
  }
  const bench = new DoorBench();
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
    const bench = new DoorBench().ready();
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
    const bench = new DoorBench().ready();
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
    const bench = new DoorBench().ready();
    bench.door.open(OPEN);
    bench.receive({ type: 0xa2, status: Status.BUSY, payload });
    assert.equal(bench.door.error, ProtocolError.TLV, name);
  }
  const bench = new DoorBench().ready();
  bench.door.describe("disk.img");
  bench.receive({ type: 0xa1, payload: payloadOf("OPEN answer").subarray(16) });
  assert.equal(bench.door.error, ProtocolError.TLV);
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
    const bench = new DoorBench().ready();
    bench.door.open(OPEN);
    bench.receive(frame);
    assert.equal(bench.door.error, error, name);
    assert.ok(bench.feed.isClosed, name);
  }
  const unasked = new DoorBench().ready();
  unasked.receive({ type: 0xa2 });
  assert.equal(unasked.door.error, ProtocolError.UNEXPECTED_REPLY);
  const fencing = new DoorBench().ready();
  fencing.door.list("");
  fencing.receive({ type: 0x33, length: 1 });
  assert.equal(fencing.door.error, ProtocolError.TYPE);
  const long = new DoorBench(PLAIN_SUITES[0]).ready();
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
    const bench = new DoorBench(XXH64, arena).ready();
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
      const bench = new DoorBench(PLAIN_SUITES[0], arena);
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
    const bench = new DoorBench(XXH64, arena).ready();
    if (type === 0x20) bench.door.list("");
    else if (type === 0x21) bench.door.describe("disk.img");
    else bench.door.open(OPEN);
    const status = random.below(4) === 0 ? Status.BUSY : 0;
    bench.receive({ type: type | 0x80, payload, status });
    assert.equal(bench.events.length, 1, `seed ${seed}, run ${run}`);
    assert.equal(bench.feed.isClosed, bench.door.error !== 0, `seed ${seed}, run ${run}`);
  }
});
