/**
 * Writes the golden vectors: `deno run -A tests/vectors/make.ts`. What is in the files comes from `protocol/SPEC.md` and
 * the noble libraries; the implementation has no part in it, so that each can prove the other wrong.
 *
 * Every file is one JSON object: `about`, and `vectors`, an array of flat objects of numbers and strings. Byte strings
 * are hexadecimal. Names are those of the specification, words joined by `_`, so that a reader in C needs no more than a
 * scanner for `"name": value`.
 *
 * @module
 */
import { argon2id } from "@noble/hashes/argon2.js";
import { x25519 } from "@noble/curves/ed25519.js";
import {
  digest,
  type Frame,
  FRAMES,
  headerOf,
  macKeys,
  REKEY_FRAMES,
  rekeyed,
  seal,
  type Suite,
  SUITES,
} from "./frames.ts";
import { hellos, tlv, tlvs } from "./messages.ts";
import { blake2b256, concat, hex, noiseNNpsk0, pattern, text } from "./primitives.ts";

/** A vector: flat, so that it can be read without a JSON library. */
export type Vector = Record<string, string | number>;

const KEY = pattern(32, 20);
const KEY_NAME = "backup-2";
const CLIENT_KEY = pattern(32, 21);
const EXPORTER_KEY = pattern(32, 22);
/** The frame numbers that matter: the first two, and both sides of the first change of keys. */
const NUMBERS = [0, 1, REKEY_FRAMES - 1, REKEY_FRAMES];

/** The first 16 bytes of BLAKE2b-256(words ‖ rest). */
const short = (words: string, rest: Uint8Array) => blake2b256(concat(text(words), rest)).slice(0, 16);
const keyId = short("DST1 key id", KEY);

function digestVectors(): Vector[] {
  const lengths = [
    0,
    1,
    3,
    4,
    7,
    8,
    12,
    15,
    16,
    31,
    32,
    33,
    48,
    56,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
    511,
    1024,
    1031,
  ];
  return lengths.map((length) => {
    const bytes = pattern(length, length);
    return {
      bytes: length,
      message: hex(bytes),
      crc32c: hex(digest(1, bytes)),
      xxh64: hex(digest(2, bytes)),
      blake2b_256: hex(digest(3, bytes)),
      key: hex(KEY),
      blake2b_256_keyed: hex(digest(3, bytes, KEY)),
      hmac_sha256: hex(digest(4, bytes, KEY)),
    };
  });
}

function helloVectors(): Vector[] {
  return hellos(keyId).map((hello) => ({
    name: hello.name,
    from: hello.from,
    version: hello.version,
    highest_version: hello.highest,
    ciphers: hello.ciphers,
    digests: hello.digests,
    key_id: hello.keyId,
    status: hello.status,
    text: hello.text,
    bytes: hex(hello.bytes),
  }));
}

function tlvVectors(): Vector[] {
  return tlvs().map(({ name, type, required, value, meaning }) => ({
    name,
    type,
    flags: required ? 1 : 0,
    value_bytes: value.length,
    value: hex(value),
    meaning,
    bytes: hex(tlv(type, value, required)),
  }));
}

function frameVector(suite: Suite, frame: Frame, n: number): Vector {
  const key = frame.from === "client" ? CLIENT_KEY : EXPORTER_KEY;
  const sealed = seal(suite, key, frame, n);
  return {
    name: frame.name,
    from: frame.from,
    key: suite.keyed ? hex(key) : "",
    n,
    type: frame.type,
    flags: frame.flags ?? 0,
    slot: frame.slot ?? 0,
    lane: frame.lane ?? 0,
    sequence: frame.sequence ?? 0,
    offset: frame.offset ?? 0,
    length: frame.length ?? 0,
    payload_bytes: frame.payload?.length ?? 0,
    status: frame.status ?? 0,
    plain_header: hex(headerOf(frame, n)),
    plain_payload: hex(frame.payload ?? new Uint8Array(0)),
    payload_tag: hex(sealed.payloadTag),
    header_tag: hex(sealed.headerTag),
    frame: hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload)),
  };
}

/** Every frame at one number each, and those of the commonest types at all numbers. */
function frameVectors(suite: Suite): Vector[] {
  const everyNumber = ["READ", "READ reply", "WRITE", "WRITE reply", "FENCING", "OPEN, all", "OPEN answer"];
  return FRAMES.flatMap((frame, i) =>
    (everyNumber.includes(frame.name) ? NUMBERS : [NUMBERS[i % NUMBERS.length]]).map((n) =>
      frameVector(suite, frame, n)
    )
  );
}

function noiseVectors(): Vector[] {
  const [plain, keyed] = hellos(keyId).filter((hello) => hello.from === "client");
  const answers = hellos(keyId).filter((hello) => hello.from === "exporter" && hello.status === 0);
  const cases = [
    { name: "keyed hello, chacha20-poly1305", hello: keyed, answer: answers[5] },
    { name: "keyed hello, aes-256-gcm", hello: keyed, answer: answers[6] },
    { name: "keyed hello, blake2b-256", hello: keyed, answer: answers[3] },
    { name: "another prologue", hello: plain, answer: answers[0] },
  ];
  return cases.map(({ name, hello, answer }, i) => {
    const initiator = pattern(32, 30 + 2 * i);
    const responder = pattern(32, 31 + 2 * i);
    const prologue = concat(hello.bytes, answer.bytes);
    const nothing = new Uint8Array(0);
    const result = noiseNNpsk0({ prologue, psk: KEY, initiator, responder, payloads: [nothing, nothing] });
    return {
      name,
      psk: hex(KEY),
      prologue: hex(prologue),
      client_ephemeral: hex(initiator),
      client_ephemeral_public: hex(x25519.getPublicKey(initiator)),
      exporter_ephemeral: hex(responder),
      exporter_ephemeral_public: hex(x25519.getPublicKey(responder)),
      client_message: hex(result.first),
      exporter_message: hex(result.second),
      handshake_hash: hex(result.hash),
      client_key: hex(result.k1),
      exporter_key: hex(result.k2),
    };
  });
}

function scheduleVectors(): Vector[] {
  return [0, 1, 2, 3, 8].map((i) => {
    const key = rekeyed(CLIENT_KEY, i);
    const [headerKey, payloadKey] = macKeys(key);
    return {
      k0: hex(CLIENT_KEY),
      i,
      first_frame: i * REKEY_FRAMES,
      key: hex(key),
      mac_header_key: hex(headerKey),
      mac_payload_key: hex(payloadKey),
    };
  });
}

function keyFileVectors(): Vector[] {
  return [["backup-2", KEY], ["A", new Uint8Array(32)], ["x._-".repeat(16), pattern(32, 23)]].map((pair) => {
    const [name, key] = pair as [string, Uint8Array];
    const id = hex(short("DST1 key id", key));
    const file = `DST-KEY 1\nname: ${name}\nid: ${id}\nkey: ${hex(key)}\n`;
    return { name, key: hex(key), id, file: hex(text(file)) };
  });
}

function passphraseVectors(): Vector[] {
  // The second and third are the same letters, composed and decomposed: one key.
  const cases = [[KEY_NAME, "correct horse battery staple"], ["nas", "caf\u00e9 \u212b"], [
    "nas",
    "cafe\u0301 A\u030a",
  ]];
  return cases.map(([name, passphrase]) => {
    const salt = short("DST1 salt", text(name));
    const normal = text(passphrase.normalize("NFC"));
    const key = argon2id(normal, salt, { t: 3, m: 65536, p: 1, dkLen: 32 });
    return {
      name,
      passphrase: hex(text(passphrase)),
      normalized: hex(normal),
      salt: hex(salt),
      key: hex(key),
      id: hex(short("DST1 key id", key)),
    };
  });
}

/** All files: name, and text as it is committed. */
export function makeVectors(): Map<string, string> {
  const files = new Map<string, string>();
  const add = (name: string, about: string, vectors: Vector[]) => {
    const lines = vectors.map((vector) => `    ${JSON.stringify(vector)}`).join(",\n");
    files.set(`${name}.json`, `{\n  "about": ${JSON.stringify(about)},\n  "vectors": [\n${lines}\n  ]\n}\n`);
  };
  add("digests", "Digests and MACs as they stand in a tag (SPEC.md 4.1, 4.3)", digestVectors());
  add("hello", "Hellos of both sides (SPEC.md 2)", helloVectors());
  add("tlvs", "Every TLV by itself (SPEC.md 2, 3, 6)", tlvVectors());
  for (const suite of SUITES) {
    const about = `Frames (SPEC.md 4 to 6), cipher ${suite.cipher}, digest ${suite.digest}, ` +
      `tags of ${suite.tagBytes} bytes, ${suite.keyed ? "keyed: key is K0 of the direction" : "without a key"}`;
    add(`frames-${suite.name}`, about, frameVectors(suite));
  }
  add("noise", "Handshakes with fixed ephemeral keys, and Split (SPEC.md 4.2)", noiseVectors());
  add("schedule", "Key schedule (SPEC.md 4.3)", scheduleVectors());
  add("keyfile", "Key ids and key files (SPEC.md 4.4)", keyFileVectors());
  add("passphrase", "Keys from passphrases (SPEC.md 4.4)", passphraseVectors());
  return files;
}

if (import.meta.main) {
  for (const [name, content] of makeVectors()) {
    await Deno.writeTextFile(new URL(name, import.meta.url), content);
    console.log(`${name}: ${content.length} bytes`);
  }
}
