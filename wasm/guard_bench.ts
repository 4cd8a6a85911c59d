/**
 * How fast the core's guards are, beside others that do the same, in one run: `deno run -A wasm/guard_bench.ts`. GB/s
 * of one thread. All take turns, and the median of the rounds counts, so that a busy machine slows all of them. The
 * last column is what the ratio is to be at least.
 *
 * Payloads as the codec has them: up to 64 KiB in one call, larger ones in pieces of 64 KiB.
 *
 * @module
 */
import { createBLAKE2b, createCRC32, createHMAC, createSHA256, createXXHash64, type IHasher } from "hash-wasm";
import { Buffer } from "node:buffer";
import { createCipheriv } from "node:crypto";
import { makeArena } from "./core.ts";
import { GUARD_SCRATCH_BYTES, makeWasmGuard, type WasmGuard } from "./guard.ts";

const SIZES = [4096, 131072];
const PIECE_BYTES = 65536;
const HEADER_BYTES = 48;
const ROUNDS = 25;
/** How long one contender runs in one round: long enough for the garbage that it makes to be collected within. */
const SAMPLE_MS = 10;
/** How long before it counts: V8 optimizes in the background. */
const WARM_UP_MS = 40;
/** Bytes between two looks at the clock. */
const STRETCH_BYTES = 131072;
/** EVP_CTRL_AEAD_GET_TAG of openssl/evp.h. */
const GET_TAG = 0x10;

/** Works on a payload of that many bytes. */
type Work = (bytes: number) => void;

const core = makeArena(2 * 1024 * 1024);
const nonceAt = core.freeFrom;
const tagAt = nonceAt + 128;
/** What is sealed, and where to: as a slot and a frame in a transmit area are to each other. */
const fromAt = core.freeFrom + 65536;
const toAt = fromAt + 2 * 131072 + 112;
crypto.getRandomValues(core.bytes.subarray(fromAt, fromAt + 65536));
core.bytes.copyWithin(fromAt + 65536, fromAt, fromAt + 65536);
core.warmUp();

let scratchAt = core.freeFrom + 4096;
const key = crypto.getRandomValues(new Uint8Array(32));
const inputs = new Map(SIZES.map((size) => [size, core.bytes.slice(fromAt, fromAt + size)]));

function guardOf(cipher: number, digest: number, keyed: boolean) {
  const guard = makeWasmGuard(core, cipher, digest, keyed, scratchAt);
  scratchAt += GUARD_SCRATCH_BYTES;
  if (keyed) guard.setKeys(key, key);
  return guard;
}

function sealPayload(guard: WasmGuard, bytes: number): void {
  if (bytes <= PIECE_BYTES) return guard.seal(nonceAt, fromAt, toAt, bytes, tagAt);
  guard.begin(nonceAt);
  for (let at = 0; at < bytes; at += PIECE_BYTES) guard.sealPiece(fromAt + at, toAt + at, PIECE_BYTES);
  guard.finishSeal(tagAt);
}

function sealing(cipher: number, digest: number, keyed = false): Work {
  const guard = guardOf(cipher, digest, keyed);
  return (bytes) => sealPayload(guard, bytes);
}

/** Payload and header, as every frame has them. */
function sealingFrames(cipher: number): Work {
  const guard = guardOf(cipher, 0, true);
  return (bytes) => {
    sealPayload(guard, bytes);
    guard.sealHeader(nonceAt, tagAt - HEADER_BYTES);
  };
}

/** In place, over and over: what comes out does not matter for the time that it takes. */
function opening(cipher: number, digest: number, keyed = false): Work {
  const guard = guardOf(cipher, digest, keyed);
  return (bytes) => {
    if (bytes <= PIECE_BYTES) return void guard.open(nonceAt, toAt, bytes, tagAt);
    guard.begin(nonceAt);
    for (let at = 0; at < bytes; at += PIECE_BYTES) guard.openPiece(toAt + at, PIECE_BYTES);
    guard.finishOpen(tagAt);
  };
}

/** hash-wasm as it is used: it copies the input, and gives the digest as new bytes. */
function byHashWasm(hasher: IHasher): Work {
  return (bytes) => void hasher.init().update(inputs.get(bytes)!).digest("binary");
}

/** node:crypto as it is used: a new object for each message, and a new buffer for the ciphertext. */
function byNode(frames: boolean): Work {
  const nonce = Buffer.alloc(12);
  const header = new Uint8Array(HEADER_BYTES);
  return (bytes) => {
    const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
    cipher.update(inputs.get(bytes)!);
    cipher.final();
    const tag = cipher.getAuthTag();
    if (!frames) return;
    const headerCipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 });
    headerCipher.setAAD(tag, { plaintextLength: HEADER_BYTES });
    headerCipher.update(header);
    headerCipher.final();
    headerCipher.getAuthTag();
  };
}

/** libcrypto's native code through FFI as it is fastest: one context, from buffer to buffer. Null if it is missing. */
function byLibcrypto(frames: boolean): Work | null {
  let library;
  try {
    library = Deno.dlopen("libcrypto.so.3", {
      EVP_CIPHER_CTX_new: { parameters: [], result: "pointer" },
      EVP_chacha20_poly1305: { parameters: [], result: "pointer" },
      EVP_EncryptInit_ex: { parameters: ["pointer", "pointer", "pointer", "buffer", "buffer"], result: "i32" },
      EVP_EncryptUpdate: { parameters: ["pointer", "buffer", "buffer", "buffer", "i32"], result: "i32" },
      EVP_EncryptFinal_ex: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
      EVP_CIPHER_CTX_ctrl: { parameters: ["pointer", "i32", "i32", "buffer"], result: "i32" },
    }).symbols;
  } catch {
    return null;
  }
  const { EVP_EncryptInit_ex, EVP_EncryptUpdate, EVP_EncryptFinal_ex, EVP_CIPHER_CTX_ctrl } = library;
  const context = library.EVP_CIPHER_CTX_new();
  const nonce = new Uint8Array(12);
  const written = new Uint8Array(4);
  const tag = new Uint8Array(16);
  const header = new Uint8Array(HEADER_BYTES);
  const output = new Uint8Array(SIZES[1]);
  if (EVP_EncryptInit_ex(context, library.EVP_chacha20_poly1305(), null, key, nonce) !== 1) return null;
  return (bytes) => {
    EVP_EncryptInit_ex(context, null, null, null, nonce);
    EVP_EncryptUpdate(context, output, written, inputs.get(bytes)!, bytes);
    EVP_EncryptFinal_ex(context, output, written);
    EVP_CIPHER_CTX_ctrl(context, GET_TAG, tag.length, tag);
    if (!frames) return;
    EVP_EncryptInit_ex(context, null, null, null, nonce);
    EVP_EncryptUpdate(context, null, written, tag, tag.length);
    EVP_EncryptUpdate(context, output, written, header, HEADER_BYTES);
    EVP_EncryptFinal_ex(context, output, written);
    EVP_CIPHER_CTX_ctrl(context, GET_TAG, tag.length, tag);
  };
}

/** GB/s of one sample. */
function sample(work: Work, bytes: number, sampleMs = SAMPLE_MS): number {
  const started = performance.now();
  let done = 0;
  let elapsedMs = 0;
  while (elapsedMs < sampleMs) {
    for (let at = 0; at < STRETCH_BYTES; at += bytes) work(bytes);
    done += STRETCH_BYTES;
    elapsedMs = performance.now() - started;
  }
  return done / elapsedMs / 1e6;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

interface Comparison {
  readonly name: string;
  readonly own: Work;
  readonly by: string;
  readonly other: Work;
  /** The least ratio at each of the sizes, where one is wanted. */
  readonly targets?: readonly number[];
}

const seal = sealing(1, 0, true);
const open = opening(1, 0, true);
const frame = sealingFrames(1);
const comparisons: Comparison[] = [
  {
    name: "crc32c",
    own: sealing(0, 1),
    by: "hash-wasm",
    // The Castagnoli polynomial, bits reflected.
    other: byHashWasm(await createCRC32(0x82f63b78)),
    targets: [5, 6],
  },
  {
    name: "xxh64",
    own: sealing(0, 2),
    by: "hash-wasm",
    other: byHashWasm(await createXXHash64()),
    targets: [2.5, 1.3],
  },
  {
    name: "blake2b-256",
    own: sealing(0, 3),
    by: "hash-wasm",
    other: byHashWasm(await createBLAKE2b(256)),
    targets: [1.2, 1],
  },
  {
    name: "hmac-sha256",
    own: sealing(0, 4, true),
    by: "hash-wasm",
    other: byHashWasm(await createHMAC(createSHA256(), key)),
  },
  { name: "chacha20-poly1305 seal", own: seal, by: "node:crypto", other: byNode(false), targets: [2.5, 0.95] },
  { name: "chacha20-poly1305 frame", own: frame, by: "node:crypto", other: byNode(true) },
];
const native = byLibcrypto(false);
const nativeFrames = byLibcrypto(true);
if (native === null || nativeFrames === null) {
  console.log("there is no libcrypto.so.3 here: nothing is compared with it");
} else {
  comparisons.push(
    { name: "chacha20-poly1305 seal", own: seal, by: "libcrypto", other: native, targets: [0.3, 0.3] },
    { name: "chacha20-poly1305 open", own: open, by: "libcrypto", other: native, targets: [0.3, 0.3] },
    { name: "chacha20-poly1305 frame", own: frame, by: "libcrypto", other: nativeFrames },
  );
}

function row(...columns: string[]): string {
  const [name, bytes, own, by, other, ratio, target] = columns;
  return `${name.padEnd(24)}${bytes.padStart(7)}${own.padStart(7)}  ${by.padEnd(12)}${other.padStart(6)}` +
    `${ratio.padStart(7)}${target.padStart(8)}`;
}

/** GB/s of each contender at each size, in rounds in which all of them take turns. */
function measure(works: readonly Work[]): Map<Work, number[]> {
  const samples = new Map(works.map((work) => [work, SIZES.map((): number[] => [])]));
  for (const work of works) for (const bytes of SIZES) sample(work, bytes, WARM_UP_MS);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, bytes] of SIZES.entries()) {
      for (const work of works) samples.get(work)![index].push(sample(work, bytes));
    }
  }
  return new Map(works.map((work) => [work, samples.get(work)!.map(median)]));
}

const measured = measure([...new Set(comparisons.flatMap(({ own, other }) => [own, other]))]);
console.log(row("GB/s", "bytes", "own", "beside", "", "ratio", "target"));
for (const { name, own, by, other, targets } of comparisons) {
  for (const [index, bytes] of SIZES.entries()) {
    const [a, b] = [measured.get(own)![index], measured.get(other)![index]];
    const target = targets?.[index].toFixed(2) ?? "";
    console.log(row(name, `${bytes}`, a.toFixed(2), by, b.toFixed(2), (a / b).toFixed(2), target));
  }
}
