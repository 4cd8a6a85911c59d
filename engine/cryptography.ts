/**
 * Who does the cryptography of a thread: the WebAssembly core, which is always there, or the system's libcrypto.
 *
 * @module
 */
import { type Libcrypto, libcrypto, LIBCRYPTO_FILE } from "../ffi/libcrypto.ts";
import { assert } from "../protocol/assert.ts";
import { type Cryptography, type FrameGuard, GUARD_SCRATCH_BYTES, KEY_BYTES } from "../protocol/guard.ts";
import { Cipher, Digest, HEADER_BYTES } from "../protocol/wire.ts";
import { type Core, makeArena } from "../wasm/core.ts";
import { makeWasmGuard } from "../wasm/guard.ts";
import { noisePrimitives } from "./noise_primitives.ts";
import { makeOpenSslGuard } from "./openssl_guard.ts";

/** What a user may ask for, as it is written: "auto" is the faster of the two for each cipher and digest. */
export const CRYPTO_CHOICES = ["auto", "wasm", "openssl"] as const;
export type CryptoChoice = (typeof CRYPTO_CHOICES)[number];

/** Who works. */
export type Provider = "wasm" | "openssl";

/** All cryptography of one thread, and who does it. */
export interface ThreadCryptography extends Cryptography {
  /** Who does this cipher, or with cipher NONE this digest. */
  providerOf(cipher: number, digest: number): Provider;
  /** Closes the guards that hold memory of the system's library and that nobody has closed. */
  close(): void;
}

/** Bytes of the payloads by which the providers are compared: the commonest block of file systems. */
const SAMPLE_BYTES = 4096;
/**
 * Frames that are sealed before those that count, so short that the calls are all there is to them. V8 compiles what is
 * called often, and until the last of these a call of a library takes some 100 ns more (measured). The core is warm.
 */
const WARM_UP_FRAMES = 16_000;
const WARM_UP_BYTES = 64;
/** Frames that a provider seals in its turn, and how long each is measured. */
const SAMPLE_FRAMES = 16;
const SAMPLE_MS = 2;
/** The memory of the comparison: what the core itself needs, the guards' scratches, a frame. */
const SAMPLE_MEMORY_BYTES = 1024 * 1024;

/** The system's library, or why there is none. */
type MaybeLibcrypto = Libcrypto | string;

/**
 * The ciphers that a thread can have, by number: what is to be known before one is started.
 *
 * @throws {Error} a line for the user, where OpenSSL is asked for and not there
 */
export function availableCiphers(choice: CryptoChoice, library: MaybeLibcrypto = libraryFor(choice)): number[] {
  return ciphersOf(usable(choice, library));
}

/**
 * Makes the cryptography of the calling thread. With "auto", where OpenSSL is there, the first call of a thread takes about
 * a tenth of a second, for it measures who is faster.
 *
 * @param core the memory on which guards work, warmed up: what V8 has compiled by then serves all cores of a thread
 * @param library the system's library, for tests
 * @throws {Error} a line for the user, where OpenSSL is asked for and not there
 */
export function makeCryptography(
  core: Core,
  choice: CryptoChoice,
  library: MaybeLibcrypto = libraryFor(choice),
): ThreadCryptography {
  const openssl = usable(choice, library);
  const digestProvider = choose(choice, openssl, Cipher.NONE, Digest.HMAC_SHA_256);
  const cipherProvider = choose(choice, openssl, Cipher.CHACHA20_POLY1305, Digest.NONE);
  const open = new Set<FrameGuard>();

  function providerOf(cipher: number, digest: number): Provider {
    if (cipher === Cipher.AES_256_GCM) {
      if (openssl === null) throw new RangeError("Cannot use aes-256-gcm: only OpenSSL has it");
      return "openssl";
    }
    if (cipher === Cipher.CHACHA20_POLY1305) return cipherProvider;
    return cipher === Cipher.NONE && digest === Digest.HMAC_SHA_256 ? digestProvider : "wasm";
  }

  return {
    ciphers: ciphersOf(openssl),
    noise: noisePrimitives,
    providerOf,
    makeGuard(cipher, digest, keyed, scratchAt) {
      if (providerOf(cipher, digest) === "wasm") return makeWasmGuard(core, cipher, digest, keyed, scratchAt);
      assert(openssl !== null, "who is to work is there");
      assert(keyed, "what goes through OpenSSL has a key");
      const guard = makeOpenSslGuard(openssl, core, cipher, digest, scratchAt, (closed) => open.delete(closed));
      open.add(guard);
      return guard;
    },
    close() {
      for (const guard of open) guard.close();
    },
  };
}

/** With "wasm" the library is not even opened. */
function libraryFor(choice: CryptoChoice): MaybeLibcrypto {
  return choice === "wasm" ? "" : libcrypto();
}

/** The library, where the choice allows it and it is there. */
function usable(choice: CryptoChoice, library: MaybeLibcrypto): Libcrypto | null {
  if (choice === "wasm") return null;
  if (typeof library !== "string") return library;
  if (choice === "auto") return null;
  throw new Error(`Cannot use OpenSSL: ${library}; install OpenSSL 3 (${LIBCRYPTO_FILE}), or use --crypto wasm`);
}

function choose(choice: CryptoChoice, openssl: Libcrypto | null, cipher: number, digest: number): Provider {
  if (openssl === null) return "wasm";
  if (choice === "openssl") return "openssl";
  const times = frameTimes(openssl);
  return times[nameOf("openssl", cipher, digest)] < times[nameOf("wasm", cipher, digest)] ? "openssl" : "wasm";
}

function ciphersOf(openssl: Libcrypto | null): number[] {
  return openssl === null ? [Cipher.CHACHA20_POLY1305] : [Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM];
}

/** What both providers can be asked for. */
const CONTENDERS = [
  ["wasm", Cipher.NONE, Digest.HMAC_SHA_256],
  ["openssl", Cipher.NONE, Digest.HMAC_SHA_256],
  ["wasm", Cipher.CHACHA20_POLY1305, Digest.NONE],
  ["openssl", Cipher.CHACHA20_POLY1305, Digest.NONE],
] as const;

function nameOf(provider: Provider, cipher: number, digest: number): string {
  return `${provider} ${cipher} ${digest}`;
}

/** What has been measured on this thread. */
let measured: Record<string, number> | undefined;

/**
 * Milliseconds of the fastest {@link SAMPLE_FRAMES} frames of each contender, by {@link nameOf}; measured once a thread.
 * They take turns, and the fastest turn counts, so that a busy machine slows all of them alike.
 */
function frameTimes(openssl: Libcrypto): Record<string, number> {
  if (measured !== undefined) return measured;
  // Memory of its own, so that the thread's is left alone.
  const core = makeArena(SAMPLE_MEMORY_BYTES);
  const guards = CONTENDERS.map(([provider, cipher, digest], index) => {
    const scratchAt = core.freeFrom + index * GUARD_SCRATCH_BYTES;
    const guard = provider === "wasm"
      ? makeWasmGuard(core, cipher, digest, true, scratchAt)
      : makeOpenSslGuard(openssl, core, cipher, digest, scratchAt);
    // What the bytes are makes no difference to the time, by design.
    guard.setKeys(new Uint8Array(KEY_BYTES), new Uint8Array(KEY_BYTES));
    return guard;
  });
  CONTENDERS.forEach(([provider], index) => {
    if (provider === "wasm") return;
    for (let i = 0; i < WARM_UP_FRAMES / SAMPLE_FRAMES; i++) sampleTime(guards[index], core, WARM_UP_BYTES);
  });
  const times = guards.map(() => Infinity);
  const end = performance.now() + guards.length * SAMPLE_MS;
  while (performance.now() < end) {
    for (let i = 0; i < guards.length; i++) times[i] = Math.min(times[i], sampleTime(guards[i], core, SAMPLE_BYTES));
  }
  for (const guard of guards) guard.close();
  measured = {};
  CONTENDERS.forEach(([provider, cipher, digest], index) => {
    measured![nameOf(provider, cipher, digest)] = times[index];
  });
  return measured;
}

/** Milliseconds in which the guard seals {@link SAMPLE_FRAMES} frames with payloads of so many bytes. */
function sampleTime(guard: FrameGuard, core: Core, bytes: number): number {
  const nonceAt = core.freeFrom + CONTENDERS.length * GUARD_SCRATCH_BYTES;
  const headerAt = nonceAt + 64;
  const payloadAt = core.freeFrom + 16 * 1024;
  const started = performance.now();
  for (let i = 0; i < SAMPLE_FRAMES; i++) {
    guard.seal(nonceAt, payloadAt, payloadAt + SAMPLE_BYTES, bytes, headerAt + HEADER_BYTES);
    guard.sealHeader(nonceAt, headerAt);
  }
  return performance.now() - started;
}
