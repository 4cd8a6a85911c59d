import assert from "node:assert/strict";
import { type Frame, macKeys, rekeyed, seal, type Suite, SUITES } from "../tests/vectors/frames.ts";
import { concat, hex, pattern } from "../tests/vectors/primitives.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { Random } from "./client_support_test.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff, MORE } from "./codec.ts";
import { ProtocolError } from "./error.ts";
import { coreCryptography, type NonceUse, referenceCryptography } from "./guard_support_test.ts";
import { frameFlags, framePayloadBytes, frameType, PREFIX_BYTES_MAX, writeHeader } from "./wire.ts";

const PIECE = 65_536;
const PAYLOAD_MAX = 3 * PIECE + 1;
const CLIENT_KEY = pattern(32, 1);
const EXPORTER_KEY = pattern(32, 2);

/** One end of a connection. */
class End {
  readonly core: Core = makeArena(4 * 1024 * 1024);
  readonly codec: FrameCodec;
  readonly scratchAt = this.core.freeFrom;
  /** Not aligned: neither a stream's staging area nor a part's payload need be. */
  readonly prefixAt = this.scratchAt + CODEC_SCRATCH_BYTES + 5;
  readonly payloadAt = this.prefixAt + PREFIX_BYTES_MAX + 7;
  readonly elsewhereAt = this.payloadAt + PAYLOAD_MAX + 9;

  constructor(suite: Suite, isClient: boolean, options: { n?: number; rekeyFrames?: number; sealed?: NonceUse } = {}) {
    const [send, receive] = isClient ? [CLIENT_KEY, EXPORTER_KEY] : [EXPORTER_KEY, CLIENT_KEY];
    const n = options.n ?? 0;
    const { cipher, digest } = suite;
    const handoff: Handoff = { cipher, digest, keys: suite.keyed ? { send, receive } : null, sent: n, received: n };
    // Whoever wants to know of nonces gets the guards that tell.
    const cryptography = options.sealed === undefined
      ? coreCryptography(this.core)
      : referenceCryptography(this.core, options.sealed);
    this.codec = new FrameCodec(this.core, cryptography, this.scratchAt, handoff, options.rekeyFrames);
  }

  /** The bytes of the next frame, and how many calls it took. */
  seal(frame: Frame, isInPlace = true): { bytes: Uint8Array; calls: number } {
    const { core, codec, prefixAt, payloadAt } = this;
    const payload = frame.payload ?? new Uint8Array(0);
    core.bytes.fill(0xee, prefixAt, prefixAt + PREFIX_BYTES_MAX);
    core.bytes.set(payload, payloadAt);
    writeHeader(core, prefixAt, frame.type, frame.flags ?? 0, 1, 2, 3, 4, 5, payload.length, 6);
    const toAt = isInPlace ? payloadAt : this.elsewhereAt;
    let calls = 1;
    while (!codec.seal(prefixAt, payloadAt, payload.length, toAt)) calls++;
    const sealedAt = codec.encrypts ? toAt : payloadAt;
    if (!isInPlace) assert.deepEqual(core.bytes.slice(payloadAt, payloadAt + payload.length), payload);
    const bytes = concat(
      core.bytes.slice(prefixAt, prefixAt + codec.prefixBytes),
      core.bytes.slice(sealedAt, sealedAt + payload.length),
    );
    return { bytes, calls };
  }

  /** Opens a frame: the error, or 0, and how many calls its payload took. */
  open(bytes: Uint8Array): { error: number; calls: number; payload: Uint8Array } {
    const { core, codec, prefixAt, payloadAt } = this;
    const payload = bytes.subarray(codec.prefixBytes);
    core.bytes.set(bytes.subarray(0, codec.prefixBytes), prefixAt);
    core.bytes.set(payload, payloadAt);
    let error = codec.openPrefix(prefixAt);
    let calls = 0;
    if (error === 0 && payload.length > 0) {
      assert.equal(framePayloadBytes(core, prefixAt), payload.length);
      do {
        error = codec.openPayload(payloadAt, payload.length);
        calls++;
      } while (error === MORE);
    }
    return { error, calls, payload: core.bytes.slice(payloadAt, payloadAt + payload.length) };
  }
}

const framed = (payload: Uint8Array, type = 0x81): Frame => ({
  name: "",
  from: "client",
  type,
  flags: 9,
  slot: 1,
  lane: 2,
  sequence: 3,
  offset: 4,
  length: 5,
  status: 6,
  payload,
});

for (const suite of SUITES) {
  Deno.test(`a payload of any length is sealed and opened in pieces, in place and not (${suite.name})`, () => {
    const client = new End(suite, true);
    const exporter = new End(suite, false);
    let n = 0;
    for (const length of [0, 1, 15, 512, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 512, PAYLOAD_MAX]) {
      const pieces = suite.tagBytes === 0 ? 1 : Math.max(1, Math.ceil(length / PIECE));
      for (const isInPlace of [true, false]) {
        const payload = pattern(length, length + 3);
        const { bytes, calls } = client.seal(framed(payload), isInPlace);
        const expected = seal(suite, CLIENT_KEY, framed(payload), n++);
        const { header, payloadTag, headerTag } = expected;
        assert.equal(hex(bytes), hex(concat(header, payloadTag, headerTag, expected.payload)), `${length} bytes`);
        assert.equal(calls, pieces);
        const opened = exporter.open(bytes);
        assert.deepEqual([opened.error, opened.calls], [0, length === 0 ? 0 : pieces], `${length} bytes`);
        assert.deepEqual(opened.payload, payload);
        assert.deepEqual([frameType(exporter.core, exporter.prefixAt), frameFlags(exporter.core, exporter.prefixAt)], [
          0x81,
          9,
        ]);
      }
    }
    assert.deepEqual([client.codec.sent, exporter.codec.received], [n, n]);
  });

  Deno.test(`keys change at the frame at which they are due, in each direction by its own count (${suite.name})`, () => {
    const rekeyFrames = 4;
    const client = new End(suite, true, { rekeyFrames });
    const exporter = new End(suite, false, { rekeyFrames });
    const random = new Random(7);
    for (let i = 0; i < 100; i++) {
      const [from, to] = random.below(3) === 0 ? [exporter, client] : [client, exporter];
      const payload = random.bytes(random.below(2) * random.below(100));
      const { bytes } = from.seal(framed(payload));
      const opened = to.open(bytes);
      assert.deepEqual([opened.error, opened.payload], [0, payload], `seed ${random.seed}, frame ${i}`);
    }
    assert.ok(client.codec.sent > 50 && exporter.codec.sent > 20);
  });

  if (suite.tagBytes === 0) continue;

  Deno.test(`a wrong bit anywhere in a long frame is noticed when its last piece is there (${suite.name})`, () => {
    const { bytes } = new End(suite, true).seal(framed(pattern(PAYLOAD_MAX, 1)));
    const prefixBytes = bytes.length - PAYLOAD_MAX;
    for (const at of [0, PIECE - 1, PIECE, 3 * PIECE - 1, 3 * PIECE]) {
      const broken = bytes.slice();
      broken[prefixBytes + at] ^= 0x10;
      const { error, calls } = new End(suite, false).open(broken);
      assert.deepEqual([error, calls], [ProtocolError.PAYLOAD_TAG, 4], `byte ${at}`);
    }
  });

  Deno.test(`every flipped bit of a short frame is noticed (${suite.name})`, () => {
    const { bytes } = new End(suite, true).seal(framed(pattern(3, 1)));
    const prefixBytes = bytes.length - 3;
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const broken = bytes.slice();
      broken[bit >> 3] ^= 1 << (bit & 7);
      const isMagic: boolean = suite.cipher === 0 && bit < 32;
      const inPrefix: number = isMagic ? ProtocolError.MAGIC : ProtocolError.HEADER_TAG;
      const expected: number = bit < prefixBytes * 8 ? inPrefix : ProtocolError.PAYLOAD_TAG;
      assert.equal(new End(suite, false).open(broken).error, expected, `bit ${bit}`);
    }
  });

  Deno.test(`a frame replayed, left out, moved or of the other direction is not opened (${suite.name})`, () => {
    const client = new End(suite, true);
    const frames = [0, 1, 2].map((i) => client.seal(framed(pattern(9, i))).bytes);
    const wrong = suite.cipher === 0 ? ProtocolError.FRAME_NUMBER : ProtocolError.HEADER_TAG;
    const errors = (...order: number[]) => {
      const exporter = new End(suite, false);
      return order.map((i) => exporter.open(frames[i]).error);
    };
    assert.deepEqual(errors(0, 0), [0, wrong]);
    assert.deepEqual(errors(0, 2), [0, wrong]);
    assert.deepEqual(errors(1), [wrong]);
    assert.deepEqual(errors(0, 1, 2), [0, 0, 0]);
    // A client takes what the exporter sends, and not what it has sent itself.
    const reflected = new End(suite, true).open(frames[0]).error;
    assert.equal(reflected, suite.keyed ? ProtocolError.HEADER_TAG : 0);
  });

  Deno.test(`a payload of one frame does not pass as another's (${suite.name})`, () => {
    const client = new End(suite, true);
    const first = client.seal(framed(pattern(64, 1))).bytes;
    const second = client.seal(framed(pattern(64, 2))).bytes;
    const prefixBytes = first.length - 64;
    const exporter = new End(suite, false);
    const mixed = concat(first.slice(0, prefixBytes), second.slice(prefixBytes));
    assert.equal(exporter.open(mixed).error, ProtocolError.PAYLOAD_TAG);
  });
}

for (const suite of SUITES.filter(({ cipher }) => cipher !== 0)) {
  Deno.test(`no key is used with a nonce twice, through many changes of keys (${suite.name})`, () => {
    const seed = 4711;
    const random = new Random(seed);
    const rekeyFrames = 8;
    const uses = new Set<string>();
    const keys = new Set<string>();
    let sealings = 0;
    const sealed = (key: Uint8Array, nonce: bigint) => {
      const use = `${hex(key)} ${nonce}`;
      assert.ok(!uses.has(use), `seed ${seed}: ${use} is used again`);
      uses.add(use);
      keys.add(hex(key));
      sealings++;
    };
    const client = new End(suite, true, { rekeyFrames, sealed });
    const exporter = new End(suite, false, { rekeyFrames, sealed });
    let payloads = 0;
    for (let i = 0; i < 400; i++) {
      const [from, to] = random.below(2) === 0 ? [client, exporter] : [exporter, client];
      const length = [0, 1, 500, PIECE + 1][random.below(40) === 0 ? 3 : random.below(3)];
      const { bytes } = from.seal(framed(pattern(length, i)), random.below(2) === 0);
      assert.equal(to.open(bytes).error, 0, `seed ${seed}`);
      if (length > 0) payloads++;
    }
    assert.equal(sealings, 400 + payloads);
    // Exactly the keys of the schedule.
    const expected = new Set<string>();
    for (const [key, frames] of [[CLIENT_KEY, client.codec.sent], [EXPORTER_KEY, exporter.codec.sent]] as const) {
      for (let i = 0; i * rekeyFrames < frames; i++) expected.add(hex(rekeyed(key, i)));
    }
    assert.deepEqual([...keys].sort(), [...expected].sort());
    assert.ok(keys.size > 40);
  });
}

Deno.test("at the protocol's own count a codec that begins late has the keys of its frames", () => {
  for (const suite of SUITES.filter(({ keyed }) => keyed)) {
    for (const n of [2 ** 20 - 1, 2 ** 20, 3 * 2 ** 20 - 1]) {
      const client = new End(suite, true, { n });
      const exporter = new End(suite, false, { n });
      for (const i of [0, 1]) {
        const { bytes } = client.seal(framed(pattern(5, n)));
        const { header, payloadTag, headerTag, payload } = seal(suite, CLIENT_KEY, framed(pattern(5, n)), n + i);
        assert.equal(hex(bytes), hex(concat(header, payloadTag, headerTag, payload)), `${suite.name}, frame ${n + i}`);
        assert.equal(exporter.open(bytes).error, 0);
      }
    }
  }
});

Deno.test("a codec leaves the keys that it was given alone, and none of its own behind", () => {
  for (const suite of SUITES) {
    const end = new End(suite, true, { rekeyFrames: 2 });
    for (let i = 0; i < 5; i++) end.seal(framed(pattern(100, i)));
    assert.deepEqual([CLIENT_KEY, EXPORTER_KEY], [pattern(32, 1), pattern(32, 2)]);
    end.codec.close();
    const memory = hex(end.core.bytes.slice(end.scratchAt, end.scratchAt + CODEC_SCRATCH_BYTES));
    for (const key of [CLIENT_KEY, EXPORTER_KEY].flatMap((key) => [0, 1, 2].map((i) => rekeyed(key, i)))) {
      for (const secret of [key, ...macKeys(key)]) assert.ok(!memory.includes(hex(secret)), suite.name);
    }
  }
});

Deno.test("a codec whose suite and keys do not go together cannot be made", () => {
  const core = makeArena(2 ** 21);
  const keys = { send: CLIENT_KEY, receive: EXPORTER_KEY };
  const make = (cipher: number, digest: number, keys: Handoff["keys"], scratchAt = core.freeFrom) =>
    new FrameCodec(core, coreCryptography(core), scratchAt, { cipher, digest, keys, sent: 0, received: 0 });
  assert.throws(() => make(1, 0, null), /ciphers and MACs have keys/);
  assert.throws(() => make(0, 4, null), /ciphers and MACs have keys/);
  assert.throws(() => make(1, 3, keys), /a cipher's tags are its own/);
  for (const digest of [0, 1, 2]) assert.throws(() => make(0, digest, keys), /a key is put to use/);
  assert.throws(() => make(1, 0, { send: CLIENT_KEY, receive: new Uint8Array(16) }), /keys are whole/);
  assert.throws(() => make(1, 0, keys, core.freeFrom + 8), /aligned/);
});
