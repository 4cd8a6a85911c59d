import assert from "node:assert/strict";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { FrameCodec, type Handoff } from "../../protocol/codec.ts";
import type { Memory } from "../../protocol/consumer.ts";
import { ProtocolError } from "../../protocol/error.ts";
import type { Cryptography } from "../../protocol/guard.ts";
import { coreCryptography, coreHas, referenceCryptography } from "../../protocol/guard_support_test.ts";
import { TlvReader, TlvWriter } from "../../protocol/tlv.ts";
import * as wire from "../../protocol/wire.ts";
import { type Core, makeArena } from "../../wasm/core.ts";
import { type Suite, SUITES } from "./frames.ts";
import { makeVectors, type Vector } from "./make.ts";
import { tlv } from "./messages.ts";
import {
  AEAD,
  blake2b256,
  concat,
  crc32c,
  hex,
  hmacSha256,
  noiseNNpsk0,
  pattern,
  text,
  unhex,
  xxh64,
} from "./primitives.ts";

Deno.test("the committed vectors are those that the maker makes", async () => {
  const made = makeVectors();
  const committed = new Set<string>();
  for await (const file of Deno.readDir(new URL(".", import.meta.url))) {
    if (file.name.endsWith(".json")) committed.add(file.name);
  }
  assert.deepEqual([...committed].sort(), [...made.keys()].sort());
  for (const [name, content] of made) {
    const found = await Deno.readTextFile(new URL(name, import.meta.url));
    assert.ok(found === content, `${name} differs: run "deno run -A tests/vectors/make.ts" and look at what changed`);
  }
});

Deno.test("the script's digests give the published check values", () => {
  assert.equal(crc32c(text("123456789")), 0xe3069283); // RFC 3720 B.4 catalogues it as CRC-32/ISCSI
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa); // RFC 3720 B.4, 32 bytes of zeroes
  assert.equal(xxh64(new Uint8Array(0)), 0xef46db3751d8e999n);
  assert.equal(xxh64(text("abc")), 0x44bc2cf5ad770999n);
  // RFC 4231, test case 2.
  assert.equal(
    hex(hmacSha256(text("Jefe"), text("what do ya want for nothing?"))),
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
  );
  assert.equal(
    hex(blake2b256(new Uint8Array(0))),
    "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8",
  );
});

Deno.test("the script's digests agree with hash-wasm at every length up to three blocks", async () => {
  const [theirCrc32c, theirXxh64] = await Promise.all([createCRC32(0x82f63b78), createXXHash64()]);
  for (let length = 0; length <= 200; length++) {
    const bytes = pattern(length, length);
    assert.equal(crc32c(bytes), parseInt(theirCrc32c.init().update(bytes).digest("hex"), 16));
    assert.equal(xxh64(bytes), BigInt("0x" + theirXxh64.init().update(bytes).digest("hex")));
  }
});

Deno.test("the script's Noise gives the published vector of the cacophony project", () => {
  const payloads = [
    "4c756477696720766f6e204d69736573",
    "4d757272617920526f746862617264",
    "462e20412e20486179656b",
    "4361726c204d656e676572",
    "4a65616e2d426170746973746520536179",
    "457567656e2042f6686d20766f6e2042617765726b",
  ].map(unhex);
  const psk = unhex("54686973206973206d7920417573747269616e20706572737065637469766521");
  const result = noiseNNpsk0({
    prologue: unhex("4a6f686e2047616c74"),
    psk,
    initiator: unhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
    responder: unhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
    payloads: [payloads[0], payloads[1]],
  });
  assert.equal(
    hex(result.first),
    "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944" +
      "fda936bec35a8adfdff198386f7d5475880897edaaf7495314c99095a2e4d66a",
  );
  assert.equal(
    hex(result.second),
    "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843" +
      "4cd2a371993ba41ea11448024fca32766b169183c9e691a7a433279da7e729",
  );
  assert.equal(hex(result.hash), "b3e9c846d264120a4211e18307da91157a21e92e69b639c50f027f101db3e1a6");
  // The messages after Split, the initiator's and the responder's in turn, prove both of its keys.
  const transport = [
    "bc44da303ae0beb08075fc4eb4e58235c67c2d1f53a4f2fff0bca7",
    "416d1af83e9fa6966ce4e871156b131aa9bd7e9a1d6f8794f4872a",
    "8a7d81b77bcc6c072f2b807da066efba6b5fab9edf71a7faceb2c8454b0cfef608",
    "1e2ee010f72894824a25a867664ff298f2548a145dc4e9d27b1cad83f32fa7c54d69dc3279",
  ];
  const { nonce, seal } = AEAD["chacha20-poly1305"];
  transport.forEach((ciphertext, i) => {
    const key = i % 2 === 0 ? result.k1 : result.k2;
    assert.equal(hex(seal(key, nonce(i >> 1), new Uint8Array(0), payloads[i + 2])), ciphertext);
  });
});

Deno.test("the script's AEADs give the published vectors of their specifications", () => {
  // RFC 8439, section 2.8.2; its nonce begins with a constant where ours has four zero bytes.
  const plain = text(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  );
  const key = Uint8Array.from({ length: 32 }, (_, i) => 0x80 + i);
  const sealed = AEAD["chacha20-poly1305"].seal(
    key,
    unhex("070000004041424344454647"),
    unhex("50515253c0c1c2c3c4c5c6c7"),
    plain,
  );
  assert.equal(hex(sealed.slice(-16)), "1ae10b594f09e26a7e902ecbd0600691");
  // The GCM specification (McGrew and Viega), test case 14: all zeroes.
  const zeroes = new Uint8Array(32);
  const gcmSealed = AEAD["aes-256-gcm"].seal(zeroes, new Uint8Array(12), new Uint8Array(0), new Uint8Array(16));
  assert.equal(hex(gcmSealed), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  // Nonces count in the byte order of each RFC.
  assert.equal(hex(AEAD["chacha20-poly1305"].nonce(0x0102)), "000000000201000000000000");
  assert.equal(hex(AEAD["aes-256-gcm"].nonce(0x0102)), "000000000000000000000102");
});

/** The vectors of a file, as they are committed. */
async function read(name: string): Promise<Vector[]> {
  return JSON.parse(await Deno.readTextFile(new URL(name, import.meta.url))).vectors;
}

/** The cryptography that the codec is tried with, and the suites that it has. */
const PROVIDERS: readonly { name: string; make: (core: Core) => Cryptography; suites: readonly Suite[] }[] = [
  { name: "the reference", make: (core) => referenceCryptography(core), suites: SUITES },
  { name: "the core", make: (core) => coreCryptography(core), suites: SUITES.filter(coreHas) },
];

/** How a codec of the suite goes on, with the vector's key in both directions. */
function handoffOf(suite: Suite, vector: Vector, sent: number, received: number): Handoff {
  const key = unhex(String(vector.key));
  return {
    cipher: suite.cipher,
    digest: suite.digest,
    keys: suite.keyed ? { send: key, receive: key } : null,
    sent,
    received,
  };
}

/** Writes the header that a vector describes, through the implementation. */
function writeHeader(memory: Memory, at: number, vector: Vector): void {
  const field = (name: string) => Number(vector[name]);
  wire.writeHeader(
    memory,
    at,
    field("type"),
    field("flags"),
    field("slot"),
    field("lane"),
    field("sequence"),
    field("offset"),
    field("length"),
    field("payload_bytes"),
    field("status"),
  );
}

/** What the header at the offset says, by the names that the vectors use. */
function fieldsAt(memory: Memory, at: number): Record<string, number> {
  return {
    type: wire.frameType(memory, at),
    flags: wire.frameFlags(memory, at),
    slot: wire.frameSlot(memory, at),
    lane: wire.frameLane(memory, at),
    sequence: wire.frameSequence(memory, at),
    offset: wire.frameOffset(memory, at),
    length: wire.frameLength(memory, at),
    payload_bytes: wire.framePayloadBytes(memory, at),
    status: wire.frameStatus(memory, at),
  };
}

for (const { name: provider, make, suites } of PROVIDERS) {
  Deno.test(`by ${provider}, the codec seals every frame to the bytes of the vectors`, async () => {
    const arena = makeArena(2 ** 21);
    const cryptography = make(arena);
    for (const suite of suites) {
      for (const vector of await read(`frames-${suite.name}.json`)) {
        // Prefix and payload lie apart, and nothing was zero before.
        const at = arena.freeFrom + 4096;
        const payloadAt = at + 8192;
        const toAt = payloadAt + 8192;
        const payloadBytes = Number(vector.payload_bytes);
        arena.bytes.fill(0xcc, arena.freeFrom);
        arena.bytes.set(unhex(String(vector.plain_payload)), payloadAt);
        writeHeader(arena, at, vector);
        const handoff = handoffOf(suite, vector, Number(vector.n), 0);
        const codec = new FrameCodec(arena, cryptography, arena.freeFrom, handoff);
        assert.ok(codec.seal(at, payloadAt, payloadBytes, toAt));
        const sealedAt = codec.encrypts ? toAt : payloadAt;
        const bytes = concat(
          arena.bytes.slice(at, at + codec.prefixBytes),
          arena.bytes.slice(sealedAt, sealedAt + payloadBytes),
        );
        assert.equal(hex(bytes), vector.frame, `${suite.name}: ${vector.name}, n = ${vector.n}`);
        assert.equal(hex(arena.bytes.slice(payloadAt, payloadAt + payloadBytes)), vector.plain_payload);
        assert.equal(codec.sent, Number(vector.n) + 1);
        codec.close();
      }
    }
  });

  Deno.test(`by ${provider}, the codec opens every frame of the vectors, and reads what it says`, async () => {
    const arena = makeArena(2 ** 21);
    const cryptography = make(arena);
    const at = arena.freeFrom + 4096;
    const place = (bytes: Uint8Array) => arena.bytes.set(bytes, at);
    for (const suite of suites) {
      for (const vector of await read(`frames-${suite.name}.json`)) {
        const name = `${suite.name}: ${vector.name}, n = ${vector.n}`;
        const frame = unhex(String(vector.frame));
        const open = (received: number) =>
          new FrameCodec(arena, cryptography, arena.freeFrom, handoffOf(suite, vector, 0, received));
        const codec = open(Number(vector.n));
        place(frame);
        assert.equal(codec.openPrefix(at), ProtocolError.NONE, name);
        for (const [field, value] of Object.entries(fieldsAt(arena, at))) {
          assert.equal(value, vector[field], `${name}: ${field}`);
        }
        assert.equal(codec.received, Number(vector.n) + 1);
        const payloadBytes = Number(vector.payload_bytes);
        const payloadAt = at + codec.prefixBytes;
        if (payloadBytes > 0) {
          assert.equal(codec.openPayload(payloadAt, payloadBytes), ProtocolError.NONE, name);
          assert.equal(hex(arena.bytes.slice(payloadAt, payloadAt + payloadBytes)), vector.plain_payload, name);
          if (suite.tagBytes === 0) continue;
          place(frame);
          arena.bytes[payloadAt + payloadBytes - 1] ^= 1;
          assert.equal(codec.openPayload(payloadAt, payloadBytes), ProtocolError.PAYLOAD_TAG, name);
        }
        // As another frame than it is: without a key its number says so, with one its tag is wrong already.
        place(frame);
        const another = suite.cipher === 0 && (!suite.keyed || Number(vector.n) + 1 !== 2 ** 20)
          ? ProtocolError.FRAME_NUMBER
          : ProtocolError.HEADER_TAG;
        assert.equal(open(Number(vector.n) + 1).openPrefix(at), another, name);
      }
    }
  });
}

for (const { name: provider, make, suites } of PROVIDERS) {
  Deno.test(`by ${provider}, the digests give the tags of the vectors`, async () => {
    const arena = makeArena(2 ** 21);
    const cryptography = make(arena);
    const tagAt = arena.freeFrom + 1024;
    const at = tagAt + 64;
    for (const vector of await read("digests.json")) {
      // An empty payload has no tag of its own.
      if (vector.bytes === 0) continue;
      arena.bytes.set(unhex(String(vector.message)), at);
      for (const { name, cipher, digest, keyed, tagBytes } of suites) {
        if (cipher !== 0 || digest === 0) continue;
        const guard = cryptography.makeGuard(cipher, digest, keyed, arena.freeFrom);
        if (keyed) guard.setKeys(new Uint8Array(32), unhex(String(vector.key)));
        guard.seal(tagAt - 8, at, at, Number(vector.bytes), tagAt);
        const expected = vector[name.replaceAll("-", "_")];
        assert.equal(hex(arena.bytes.subarray(tagAt, tagAt + tagBytes)), expected, `${name}, ${vector.bytes} bytes`);
        guard.close();
      }
    }
  });
}

Deno.test("every TLV of the vectors is written and read as it stands there", async () => {
  for (const vector of await read("tlvs.json")) {
    const value = unhex(String(vector.value));
    const type = Number(vector.type);
    assert.equal(hex(new TlvWriter().value(type, value, vector.flags === 1).bytes), vector.bytes, String(vector.name));
    const reader = new TlvReader(unhex(String(vector.bytes)), [type]);
    assert.equal(reader.status, 0);
    assert.equal(hex(reader.value(type)!), vector.value);
  }
});

Deno.test("a message of many TLVs is written whole, wherever the writer has to make room", () => {
  for (let first = 0; first <= 1024; first += 8) {
    const writer = new TlvWriter().value(5, pattern(first, 1)).uint64(32, 2 ** 40).value(38, pattern(700, 2));
    writer.uint32s(33, 1, 2, 3, 4).uint16s(2, [1, 2, 3], true).text(16, "ü".repeat(100)).empty(39);
    const expected = concat(
      tlv(5, pattern(first, 1)),
      tlv(32, unhex("0000000000010000")),
      tlv(38, pattern(700, 2)),
      tlv(33, unhex("01000000020000000300000004000000")),
      tlv(2, unhex("010002000300"), true),
      tlv(16, text("ü".repeat(100))),
      tlv(39, new Uint8Array(0)),
    );
    assert.equal(hex(writer.bytes), hex(expected), `after a value of ${first} bytes`);
  }
});
