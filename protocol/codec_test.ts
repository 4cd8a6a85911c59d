import assert from "node:assert/strict";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "./codec.ts";
import { ProtocolError, protocolErrorText } from "./error.ts";
import { tagOf } from "./guard_support_test.ts";
import { frame, handoffOf, makeMemory, parseFrames } from "./harness_test.ts";
import { PREFIX_BYTES_MAX, writeHeader } from "./wire.ts";

/** Where the tests put things in their memory; not aligned, since a stream's staging area need not be. */
const PREFIX_AT = 1001;
const PAYLOAD_AT = 3003;
const MEMORY_BYTES = 70_000;

function sealed(digest: number, payload: Uint8Array, sent = 0): Uint8Array {
  const memory = makeMemory(MEMORY_BYTES);
  const codec = new FrameCodec(memory, memory.cryptography, 0, handoffOf(digest, sent));
  memory.bytes.fill(0xff, PREFIX_AT, PREFIX_AT + PREFIX_BYTES_MAX);
  memory.bytes.set(payload, PAYLOAD_AT);
  writeHeader(memory, PREFIX_AT, 0x81, 3, 7, 2, 0xffff_ffff, 2 ** 32, Number.MAX_SAFE_INTEGER, payload.length, 9);
  codec.seal(PREFIX_AT, PAYLOAD_AT, payload.length);
  const prefix = memory.bytes.slice(PREFIX_AT, PREFIX_AT + codec.prefixBytes);
  const whole = new Uint8Array(prefix.length + payload.length);
  whole.set(prefix);
  whole.set(payload, prefix.length);
  return whole;
}

function open(bytes: Uint8Array, digest: number, received = 0): { codec: FrameCodec; error: number } {
  const memory = makeMemory(MEMORY_BYTES);
  const codec = new FrameCodec(memory, memory.cryptography, 0, handoffOf(digest, 0, received));
  const prefix = bytes.subarray(0, codec.prefixBytes);
  memory.bytes.set(prefix, PREFIX_AT);
  let error = codec.openPrefix(PREFIX_AT);
  const payload = bytes.subarray(codec.prefixBytes);
  if (error === 0 && payload.length > 0) {
    memory.bytes.set(payload, PAYLOAD_AT);
    error = codec.openPayload(PAYLOAD_AT, payload.length);
  }
  return { codec, error };
}

const FIELDS = {
  type: 0x81,
  flags: 3,
  slot: 7,
  lane: 2,
  sequence: 0xffff_ffff,
  offset: 2 ** 32,
  length: Number.MAX_SAFE_INTEGER,
  status: 9,
};

for (const digest of [0, 1, 2]) {
  Deno.test(`a sealed frame has the bytes that the specification gives it (digest ${digest})`, () => {
    for (const bytes of [0, 1, 7, 8, 4096, 65_536]) {
      const payload = Uint8Array.from({ length: bytes }, (_, i) => i * 31 + 1);
      for (const n of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 5]) {
        const whole = sealed(digest, payload, n);
        assert.deepEqual(whole, frame({ ...FIELDS, payload }, n, digest));
        assert.deepEqual(parseFrames(whole, digest, n), [{ ...FIELDS, payload }]);
        const { codec, error } = open(whole, digest, n);
        assert.equal(error, 0);
        assert.equal(codec.received, n + 1);
      }
    }
  });

  Deno.test(`a codec counts what it seals and what it opens apart (digest ${digest})`, () => {
    const memory = makeMemory(MEMORY_BYTES);
    const codec = new FrameCodec(memory, memory.cryptography, 0, handoffOf(digest, 5, 2));
    memory.bytes.set(frame({ type: 0x10 }, 2, digest), PREFIX_AT);
    assert.equal(codec.openPrefix(PREFIX_AT), 0);
    assert.deepEqual([codec.sent, codec.received], [5, 3]);
    writeHeader(memory, PREFIX_AT, 0x10, 0, 0, 0, 0, 0, 0, 0, 0);
    codec.seal(PREFIX_AT, PAYLOAD_AT, 0);
    assert.deepEqual([codec.sent, codec.received], [6, 3]);
    assert.equal(codec.prefixBytes, 48 + 2 * codec.tagBytes);
  });

  Deno.test(`a frame that is not the next one is refused (digest ${digest})`, () => {
    for (const [n, received] of [[1, 0], [0, 1], [2 ** 32, 0], [0, 2 ** 32], [2 ** 32 + 1, 1]]) {
      const { codec, error } = open(frame({ type: 1 }, n, digest), digest, received);
      assert.equal(error, ProtocolError.FRAME_NUMBER);
      assert.equal(codec.received, received);
    }
    assert.equal(open(frame({ type: 1 }, 2n ** 64n - 1n, digest), digest).error, ProtocolError.FRAME_NUMBER);
  });

  Deno.test(`a wrong magic and a zero byte that is none are refused (digest ${digest})`, () => {
    assert.equal(open(frame({ type: 1, magic: 0x32545344 }, 0, digest), digest).error, ProtocolError.MAGIC);
    assert.equal(open(frame({ type: 1, zero: 1 }, 0, digest), digest).error, ProtocolError.FIELD);
    assert.equal(open(new Uint8Array(64).fill(0x20), digest).error, ProtocolError.MAGIC);
  });

  if (digest === 0) continue;

  Deno.test(`every flipped bit of a frame is noticed (digest ${digest})`, () => {
    const whole = frame({ ...FIELDS, payload: Uint8Array.of(1, 2, 3, 4, 5) }, 0, digest);
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const broken = whole.slice();
      broken[bit >> 3] ^= 1 << (bit & 7);
      const { error } = open(broken, digest);
      const expected = bit < 32
        ? ProtocolError.MAGIC
        : bit < 64 * 8
        ? ProtocolError.HEADER_TAG
        : ProtocolError.PAYLOAD_TAG;
      assert.equal(error, expected, `bit ${bit}`);
    }
  });

  Deno.test(`a payload's tag on a frame without one is refused (digest ${digest})`, () => {
    const payload = Uint8Array.of(1);
    const whole = frame({ type: 1, payload, payloadBytes: 0 }, 0, digest);
    assert.equal(open(whole.subarray(0, 64), digest).error, ProtocolError.PAYLOAD_TAG);
  });
}

Deno.test("a digest's zero tag is a tag like any other", () => {
  const zeroCrc = Uint8Array.of(0xab, 0x9b, 0xe0, 0x9b);
  assert.deepEqual(tagOf(1, zeroCrc), new Uint8Array(8));
  const whole = frame({ type: 2, payload: zeroCrc }, 0, 1);
  assert.equal(open(whole, 1).error, 0);
});

Deno.test("a codec of a digest that it does not have cannot be made", () => {
  const memory = makeMemory(4096);
  for (const digest of [4, 5, -1]) {
    assert.throws(
      () => new FrameCodec(memory, memory.cryptography, 0, handoffOf(digest)),
      /ciphers and MACs|such a suite/,
    );
  }
});

Deno.test("a header whose payload is another than the one to seal is a programmer's error", () => {
  const memory = makeMemory(4096);
  const codec = new FrameCodec(memory, memory.cryptography, 0, handoffOf(0));
  writeHeader(memory, 100, 1, 0, 0, 0, 0, 0, 0, 8, 0);
  assert.throws(() => codec.seal(100, 200, 9), /Assertion/);
  assert.throws(() => writeHeader(memory, 100, 1, 0, 0, 0, 0, 2 ** 53, 0, 0, 0), /Assertion/);
  assert.throws(() => writeHeader(memory, 100, 1, 0, 0, 0, 0, -1, 0, 0, 0), /Assertion/);
});

Deno.test("the scratch area of a codec is all that opening writes to", () => {
  const memory = makeMemory(4096);
  const codec = new FrameCodec(memory, memory.cryptography, 64, handoffOf(2));
  memory.bytes.set(frame({ type: 1 }, 0, 2), 1000);
  const before = memory.bytes.slice();
  assert.equal(codec.openPrefix(1000), 0);
  const changed = [...before.keys()].filter((at) => before[at] !== memory.bytes[at]);
  assert.ok(changed.every((at) => at >= 64 && at < 64 + CODEC_SCRATCH_BYTES));
});

Deno.test("every protocol error has a sentence of its own", () => {
  const texts = Object.values(ProtocolError).map(protocolErrorText);
  assert.equal(new Set(texts).size, texts.length);
  assert.ok(texts.every((text) => !text.startsWith("unknown")));
  assert.equal(protocolErrorText(9999), "unknown error 9999");
});
