import assert from "node:assert/strict";
import { concat, makeRandom, tlv, uint16s, uint32s, uint64 } from "./harness_test.ts";
import { Status } from "./status.ts";
import { isName, Tlv, tlvBytes, TlvReader, TlvWriter } from "./tlv.ts";

Deno.test("a written message has the bytes that the specification gives it", () => {
  const writer = new TlvWriter()
    .uint16s(Tlv.CIPHERS, [0, 2], true)
    .uint32s(Tlv.LEASE, 60_000)
    .uint64(Tlv.SIZE, 2 ** 53 - 1)
    .text(Tlv.TEXT, "é")
    .empty(Tlv.STEAL)
    .value(Tlv.SESSION, new Uint8Array(16).fill(7));
  const expected = concat(
    tlv(1, uint16s(0, 2), 1),
    tlv(20, uint32s(60_000)),
    tlv(32, uint64(2n ** 53n - 1n)),
    tlv(5, [0xc3, 0xa9]),
    tlv(24, [], 1),
    tlv(17, new Uint8Array(16).fill(7)),
  );
  assert.deepEqual(writer.bytes, expected);
  assert.equal(writer.length, expected.length);
});

Deno.test("a message longer than the writer's first buffer keeps its bytes", () => {
  const writer = new TlvWriter();
  const value = Uint8Array.from({ length: 1001 }, (_, i) => i);
  for (let i = 0; i < 5; i++) writer.value(Tlv.ENTRY, value);
  assert.deepEqual(writer.bytes, concat(...Array.from({ length: 5 }, () => tlv(Tlv.ENTRY, value))));
});

Deno.test("every field comes back as it was written, in any order", () => {
  const parts = [
    tlv(Tlv.DEPTH, uint32s(32)),
    tlv(Tlv.SIZE, uint64(2 ** 40)),
    tlv(Tlv.CIPHERS, uint16s(2, 1)),
    tlv(Tlv.EXPORT, "disk"),
    tlv(Tlv.FRESH, [], 1),
    tlv(Tlv.CREDITS, uint32s(1, 2, 3, 4)),
  ];
  for (let turn = 0; turn < parts.length; turn++) {
    parts.push(parts.shift()!);
    const reader = new TlvReader(concat(...parts), [21, 32, 1, 16, 28, 34]);
    assert.equal(reader.uint32(Tlv.DEPTH), 32);
    assert.equal(reader.uint64(Tlv.SIZE), 2 ** 40);
    assert.deepEqual(reader.uint16s(Tlv.CIPHERS), [2, 1]);
    assert.equal(reader.name(Tlv.EXPORT), "disk");
    assert.equal(reader.isSet(Tlv.FRESH), true);
    assert.deepEqual(reader.uint32s(Tlv.CREDITS, 4), [1, 2, 3, 4]);
    assert.equal(reader.status, Status.OK);
  }
});

Deno.test("what is not there is null, and nothing is wrong with that", () => {
  const reader = new TlvReader(new Uint8Array(0), [1, 16, 21, 28]);
  assert.equal(reader.uint32(21), null);
  assert.equal(reader.uint64(21), null);
  assert.equal(reader.uint16s(1), null);
  assert.equal(reader.uint32s(1, 2), null);
  assert.equal(reader.name(16), null);
  assert.equal(reader.text(16), null);
  assert.equal(reader.isSet(28), false);
  assert.equal(reader.has(28), false);
  assert.deepEqual(reader.all(28), []);
  assert.equal(reader.status, Status.OK);
});

Deno.test("an unknown TLV is skipped, or refused when it is required, whatever its other flags", () => {
  const known = tlv(Tlv.DEPTH, uint32s(1));
  const skipped = new TlvReader(concat(tlv(999, "x", 0xfffe), known), [Tlv.DEPTH]);
  assert.deepEqual([skipped.status, skipped.uint32(Tlv.DEPTH)], [Status.OK, 1]);
  assert.equal(new TlvReader(concat(known, tlv(999, "x", 3)), [Tlv.DEPTH]).status, Status.UNKNOWN_REQUIRED);
  // Known, but not in this message.
  assert.equal(new TlvReader(tlv(Tlv.STEAL, [], 1), [Tlv.DEPTH]).status, Status.UNKNOWN_REQUIRED);
  // Known and required.
  assert.equal(new TlvReader(tlv(Tlv.DEPTH, uint32s(1), 1), [Tlv.DEPTH]).status, Status.OK);
});

Deno.test("a malformed message is BAD_REQUEST, also behind an unknown required TLV", () => {
  const good = tlv(Tlv.DEPTH, uint32s(1));
  const long = good.slice();
  long[4] = 9;
  const huge = good.slice();
  huge.fill(0xff, 4, 8);
  const dirty = good.slice();
  dirty[15] = 1;
  const malformed = { cut: good.subarray(0, 15), header: good.subarray(0, 7), long, huge, dirty };
  for (const [name, bytes] of Object.entries(malformed)) {
    for (const before of [new Uint8Array(0), good.with(0, 20), tlv(999, [], 1)]) {
      const reader = new TlvReader(concat(before, bytes), [20, Tlv.DEPTH]);
      assert.equal(reader.status, Status.BAD_REQUEST, name);
      assert.equal(reader.uint32(Tlv.DEPTH), null);
    }
  }
  assert.equal(new TlvReader(concat(good, good), [Tlv.DEPTH]).status, Status.BAD_REQUEST);
});

Deno.test("a TLV that may be repeated gives all its values", () => {
  const reader = new TlvReader(concat(tlv(38, "a"), tlv(39, []), tlv(38, "b")), [38, 39], [38]);
  assert.deepEqual(reader.all(38).map((value) => reader.textOf(value)), ["a", "b"]);
  assert.equal(reader.status, Status.OK);
});

Deno.test("a value that does not fit its type is BAD_REQUEST once it is read", () => {
  const reads: [number[] | string, (reader: TlvReader) => unknown][] = [
    [[1, 2, 3], (reader) => reader.uint32(16)],
    [uint64(1), (reader) => reader.uint32(16)],
    [uint32s(1), (reader) => reader.uint64(16)],
    [uint64(2n ** 53n), (reader) => reader.uint64(16)],
    [uint64(2n ** 64n - 1n), (reader) => reader.uint64(16)],
    [[1], (reader) => reader.uint16s(16)],
    [uint32s(1), (reader) => reader.uint32s(16, 2)],
    ["x", (reader) => reader.isSet(16)],
    ["x", (reader) => reader.value(16, 2)],
    [[0xff], (reader) => reader.text(16)],
    [[0xc3], (reader) => reader.name(16)],
    ["", (reader) => reader.name(16)],
    ["a\nb", (reader) => reader.name(16)],
    ["a\u007f", (reader) => reader.name(16)],
    ["a\u0085", (reader) => reader.name(16)],
    ["x".repeat(256), (reader) => reader.name(16)],
  ];
  for (const [value, read] of reads) {
    const reader = new TlvReader(tlv(16, value), [16]);
    assert.equal(reader.status, Status.OK);
    read(reader);
    assert.equal(reader.status, Status.BAD_REQUEST, `${value}`);
  }
});

Deno.test("a name is 1 to 255 bytes of UTF-8 without control characters", () => {
  for (const name of ["a", "é".repeat(127), "x".repeat(255), "a b", "\u{1f4be}"]) assert.equal(isName(name), true);
  for (const name of ["", "é".repeat(128), "x".repeat(256), "\0", "a\tb"]) assert.equal(isName(name), false);
});

Deno.test("a value takes whole units of eight bytes", () => {
  assert.deepEqual([0, 1, 7, 8, 9].map(tlvBytes), [8, 16, 16, 16, 24]);
});

Deno.test("any bytes are read or refused", () => {
  const seed = 77;
  const random = makeRandom(seed);
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from({ length: random(80) }, () => random(4) === 0 ? random(256) : random(3));
    const reader = new TlvReader(bytes, [0, 1, 2, 16], [2]);
    for (const type of [0, 1, 2, 16]) {
      reader.uint16s(type);
      reader.uint64(type);
      reader.name(type);
    }
    const known: number[] = [Status.OK, Status.BAD_REQUEST, Status.UNKNOWN_REQUIRED];
    assert.ok(known.includes(reader.status), `seed ${seed}, round ${round}`);
  }
});
