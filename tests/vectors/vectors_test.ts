import assert from "node:assert/strict";
import { createCRC32, createXXHash64 } from "hash-wasm";
import { type Digests, FrameCodec } from "../../protocol/codec.ts";
import type { Memory } from "../../protocol/consumer.ts";
import { ProtocolError } from "../../protocol/error.ts";
import { TlvReader, TlvWriter } from "../../protocol/tlv.ts";
import * as wire from "../../protocol/wire.ts";
import { makeArena } from "../../wasm/core.ts";
import { SUITES } from "./frames.ts";
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

/** The suites whose frames the codec has. */
const PLAIN_SUITES = SUITES.filter((suite) => suite.cipher === 0 && suite.digest <= 2);

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

Deno.test("the codec seals every frame to the bytes of the vectors", async () => {
  const arena: Memory & Digests & { freeFrom: number } = makeArena(2 ** 21);
  for (const suite of PLAIN_SUITES) {
    for (const vector of await read(`frames-${suite.name}.json`)) {
      // Prefix and payload lie apart, and nothing was zero before.
      const at = arena.freeFrom + 4096;
      const payloadAt = at + 8192;
      arena.bytes.fill(0xcc, arena.freeFrom);
      arena.bytes.set(unhex(String(vector.plain_payload)), payloadAt);
      writeHeader(arena, at, vector);
      const codec = new FrameCodec(arena, arena, arena.freeFrom, suite.digest, Number(vector.n), 0);
      codec.seal(at, payloadAt, Number(vector.payload_bytes));
      const bytes = concat(
        arena.bytes.slice(at, at + codec.prefixBytes),
        arena.bytes.slice(payloadAt, payloadAt + Number(vector.payload_bytes)),
      );
      assert.equal(hex(bytes), vector.frame, `${suite.name}: ${vector.name}, n = ${vector.n}`);
      assert.equal(codec.sent, Number(vector.n) + 1);
    }
  }
});

Deno.test("the codec opens every frame of the vectors, and reads what it says", async () => {
  const arena = makeArena(2 ** 21);
  const at = arena.freeFrom + 4096;
  for (const suite of PLAIN_SUITES) {
    for (const vector of await read(`frames-${suite.name}.json`)) {
      const name = `${suite.name}: ${vector.name}, n = ${vector.n}`;
      const bytes = unhex(String(vector.frame));
      arena.bytes.set(bytes, at);
      const codec = new FrameCodec(arena, arena, arena.freeFrom, suite.digest, 0, Number(vector.n));
      assert.equal(codec.openPrefix(at), ProtocolError.NONE, name);
      const found = {
        type: wire.frameType(arena, at),
        flags: wire.frameFlags(arena, at),
        slot: wire.frameSlot(arena, at),
        lane: wire.frameLane(arena, at),
        sequence: wire.frameSequence(arena, at),
        offset: wire.frameOffset(arena, at),
        length: wire.frameLength(arena, at),
        payload_bytes: wire.framePayloadBytes(arena, at),
        status: wire.frameStatus(arena, at),
      };
      for (const [field, value] of Object.entries(found)) assert.equal(value, vector[field], `${name}: ${field}`);
      assert.equal(codec.received, Number(vector.n) + 1);
      const payloadBytes = Number(vector.payload_bytes);
      if (payloadBytes > 0) {
        assert.equal(codec.openPayload(at + codec.prefixBytes, payloadBytes), ProtocolError.NONE, name);
        if (suite.tagBytes === 0) continue;
        arena.bytes[at + codec.prefixBytes + payloadBytes - 1] ^= 1;
        assert.equal(codec.openPayload(at + codec.prefixBytes, payloadBytes), ProtocolError.PAYLOAD_TAG, name);
      }
      const other = new FrameCodec(arena, arena, arena.freeFrom, suite.digest, 0, Number(vector.n) + 1);
      assert.equal(other.openPrefix(at), ProtocolError.FRAME_NUMBER, name);
    }
  }
});

Deno.test("the core's digests give the tags of the vectors", async () => {
  const arena = makeArena(2 ** 21);
  for (const vector of await read("digests.json")) {
    const at = arena.freeFrom + 64;
    arena.bytes.set(unhex(String(vector.message)), at);
    arena.crc32c(at, Number(vector.bytes), arena.freeFrom);
    assert.equal(hex(arena.bytes.subarray(arena.freeFrom, arena.freeFrom + 8)), vector.crc32c);
    arena.xxh64(at, Number(vector.bytes), arena.freeFrom);
    assert.equal(hex(arena.bytes.subarray(arena.freeFrom, arena.freeFrom + 8)), vector.xxh64);
  }
});

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
