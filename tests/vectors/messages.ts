/**
 * The bytes of hellos, TLVs and door messages, built from `protocol/SPEC.md` alone.
 *
 * @module
 */
import { type Bytes, concat, le, pattern, text } from "./primitives.ts";

/** A TLV of SPEC.md section 3. */
export function tlv(type: number, value: Uint8Array, required = false): Bytes {
  return concat(
    le(type, 2),
    le(required ? 1 : 0, 2),
    le(value.length, 4),
    value,
    new Uint8Array((8 - value.length % 8) % 8),
  );
}

/** A value of several u16. */
const u16s = (...values: number[]) => concat(...values.map((value) => le(value, 2)));
/** A value of several u32. */
export const u32s = (...values: number[]) => concat(...values.map((value) => le(value, 4)));

/** The hello of either side (SPEC.md section 2): magic, two u16, the body's length, the body. */
function hello(magic: string, first: number, second: number, body: Uint8Array): Bytes {
  return concat(text(magic), le(first, 2), le(second, 2), le(body.length, 4), body);
}

/** Status numbers (SPEC.md section 8) that the vectors use. */
export const Status = {
  OK: 0,
  IO: 1,
  INVALID: 3,
  SHUTTING_DOWN: 9,
  NOT_FOUND: 32,
  BUSY: 34,
  OLD_GENERATION: 39,
  BAD_REQUEST: 41,
  VERSION: 43,
  NO_COMMON_ALGORITHM: 44,
  KEY_REQUIRED: 45,
  TOO_MANY: 46,
} as const;

/** A hello, and what it says. */
export interface HelloVector {
  name: string;
  /** Who sends it. */
  from: "client" | "exporter";
  /** client: lowest version; exporter: chosen version. */
  version: number;
  /** client: highest version; exporter: zero. */
  highest: number;
  /** Comma-separated numbers, empty where the TLV is absent. */
  ciphers: string;
  digests: string;
  /** Hexadecimal, empty where absent. */
  keyId: string;
  /** exporter only; 0 otherwise. */
  status: number;
  /** exporter only, empty where absent. */
  text: string;
  bytes: Bytes;
}

function clientHello(name: string, ciphers: number[], digests: number[], keyId?: Uint8Array, highest = 1): HelloVector {
  const body = concat(
    tlv(1, u16s(...ciphers), true),
    tlv(2, u16s(...digests), true),
    ...(keyId ? [tlv(3, keyId, true)] : []),
  );
  return {
    name,
    from: "client",
    version: 1,
    highest,
    ciphers: ciphers.join(),
    digests: digests.join(),
    keyId: keyId ? Array.from(keyId, (byte) => byte.toString(16).padStart(2, "0")).join("") : "",
    status: 0,
    text: "",
    bytes: hello("DSTHELLO", 1, highest, body),
  };
}

function exporterHello(
  name: string,
  version: number,
  status: number,
  ciphers: number[],
  digests: number[],
  words = "",
): HelloVector {
  const body = concat(
    ...(ciphers.length > 0 ? [tlv(1, u16s(...ciphers))] : []),
    ...(digests.length > 0 ? [tlv(2, u16s(...digests))] : []),
    tlv(4, le(status, 4)),
    ...(words ? [tlv(5, text(words))] : []),
  );
  return {
    name,
    from: "exporter",
    version,
    highest: 0,
    ciphers: ciphers.join(),
    digests: digests.join(),
    keyId: "",
    status,
    text: words,
    bytes: hello("DSTREPLY", version, 0, body),
  };
}

/** Hellos of both sides, with every status. The first two client hellos are the plain and the keyed one. */
export function hellos(keyId: Uint8Array): HelloVector[] {
  return [
    clientHello("client without key", [0], [2, 1, 0]),
    clientHello("client with key", [1, 2, 0], [3, 4], keyId),
    clientHello("client with one digest", [0], [1]),
    clientHello("client of a later version", [0], [2], undefined, 7),
    exporterHello("exporter chose none and xxh64", 1, Status.OK, [0], [2]),
    exporterHello("exporter chose none and crc32c", 1, Status.OK, [0], [1]),
    exporterHello("exporter chose none and no digest", 1, Status.OK, [0], [0]),
    exporterHello("exporter chose none and blake2b-256", 1, Status.OK, [0], [3]),
    exporterHello("exporter chose none and hmac-sha256", 1, Status.OK, [0], [4]),
    exporterHello("exporter chose chacha20-poly1305", 1, Status.OK, [1], [0]),
    exporterHello("exporter chose aes-256-gcm", 1, Status.OK, [2], [0]),
    exporterHello("exporter has no version in common", 0, Status.VERSION, [], []),
    exporterHello("exporter has no algorithm in common", 1, Status.NO_COMMON_ALGORITHM, [1, 2], [3, 4]),
    exporterHello("exporter wants a key", 1, Status.KEY_REQUIRED, [], [], "This exporter wants a key: add --key FILE"),
    exporterHello("exporter could not read the hello", 1, Status.BAD_REQUEST, [], [], "Cannot read the hello"),
    exporterHello("exporter is full", 1, Status.TOO_MANY, [], [], "Too many connections"),
  ];
}

const SESSION = pattern(16, 1);
const INSTANCE = pattern(16, 2);
const DURABILITY = pattern(16, 3);
const STORAGE = pattern(16, 4);
const WRITE_EPOCH = 1_700_000_000_000_000;

/** A TLV by itself, with what it says. */
export interface TlvVector {
  name: string;
  type: number;
  required: boolean;
  value: Bytes;
  /** The value in words, for people. */
  meaning: string;
}

const entry = (size: number, access: number, features: number, name: string) =>
  concat(le(size, 8), u32s(access, features), text(name));

const TLVS = {
  ciphers: [1, u16s(1, 2, 0), "chacha20-poly1305, aes-256-gcm, none", true],
  digests: [2, u16s(2, 1, 0), "xxh64, crc32c, none", true],
  keyId: [3, pattern(16, 5), "key id", true],
  status: [4, le(44, 4), "NO_COMMON_ALGORITHM", false],
  text: [5, text("No such export: dïsk"), "No such export: dïsk", false],
  export: [16, text("disk.img"), "disk.img", false],
  session: [17, SESSION, "session id", false],
  readAccess: [18, le(0, 4), "read", false],
  access: [18, le(1, 4), "read-write", false],
  holder: [19, text("client.example pid 4711"), "client.example pid 4711", false],
  lease: [20, le(120_000, 4), "120 000 ms", false],
  depth: [21, le(128, 4), "128 slots", false],
  payload: [22, le(262_144, 4), "256 KiB", false],
  lanes: [23, le(4, 4), "4 lanes", false],
  steal: [24, new Uint8Array(0), "end the present holder", true],
  resume: [25, concat(STORAGE, DURABILITY, le(WRITE_EPOCH, 8)), "storage, durability epoch, write epoch", true],
  lane: [26, le(3, 4), "lane 3", false],
  generation: [27, le(2, 4), "generation 2", false],
  fresh: [28, new Uint8Array(0), "clear the slot table", true],
  after: [29, text("disk.img"), "names after disk.img", false],
  size: [32, le(5 * 2 ** 40 + 512, 8), "5 TiB and one block", false],
  blocks: [33, u32s(512, 4096, 262_144, 4096), "logical 512, physical 4096, optimal 262144, discard 4096", false],
  credits: [34, concat(u32s(128, 262_144), le(128 * 262_144, 8)), "128 slots, 256 KiB, 32 MiB", false],
  identities: [
    35,
    concat(INSTANCE, DURABILITY, STORAGE, le(WRITE_EPOCH, 8)),
    "instance, durability epoch, storage, write epoch",
    false,
  ],
  features: [36, le(1 | 2 | 4 | 8 | 16 | 32, 8), "all but shared and read-only", false],
  current: [37, concat(u32s(1, 0), text("other.example at 192.0.2.7:40112")), "who holds it", false],
  entry: [38, entry(2 ** 30, 1, 63, "a"), "a: 1 GiB, read-write", false],
  otherEntry: [38, entry(4096, 0, 128, "naïve-ß"), "naïve-ß: 4 KiB, read", false],
  more: [39, new Uint8Array(0), "more entries after these", false],
  unknown: [0x7fff, text("later"), "a TLV of a later version", false],
} as const satisfies Record<string, readonly [number, Bytes, string, boolean]>;

/** Every TLV by itself. */
export function tlvs(): TlvVector[] {
  return Object.entries(TLVS).map(([name, [type, value, meaning, required]]) => ({
    name,
    type,
    required,
    value: value as Bytes,
    meaning,
  }));
}

/** The payload of a door message: TLVs by the names of the table above. */
export const door = (...names: (keyof typeof TLVS)[]) =>
  concat(...names.map((name) => tlv(TLVS[name][0], TLVS[name][1], TLVS[name][3])));

/** What a successful OPEN or JOIN is answered with. */
export const GRANT = ["size", "blocks", "access", "features", "identities", "credits", "lease", "lanes"] as const;
