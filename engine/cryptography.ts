/**
 * Who does the cryptography of a thread: the WebAssembly core, which is always there, or the system's libcrypto.
 *
 * @module
 */
import { type Libcrypto, libcrypto, LIBCRYPTO_FILE } from "../ffi/libcrypto.ts";
import { assert } from "../protocol/assert.ts";
import { type Cryptography, type FrameGuard, GUARD_SCRATCH_BYTES, KEY_BYTES } from "../protocol/guard.ts";
import { Cipher, Digest } from "../protocol/wire.ts";
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
/** Frames between two looks at the clock. */
const SAMPLE_FRAMES = 32;
/** How long a provider runs before it counts, so that V8 has compiled what calls it; and then how long it counts. */
const WARM_UP_MS = 4;
const SAMPLE_MS = 2;
/** The memory of the comparison: what the core itself needs, a guard's scratch, a frame. */
const SAMPLE_MEMORY_BYTES = 1024 * 1024;

/** The system's library, or why there is none. */
type MaybeLibcrypto = Libcrypto | string;

/**
 * The ciphers that a thread can have, by number: what is to be known before one is started.
 *
 * @throws {Error} a line for the user, where OpenSSL is asked for and not there
 */
export function availableCiphers(choice: CryptoChoice, library: MaybeLibcrypto = libraryFor(choice)): number[] {
  return usable(choice, library) === null ? [Cipher.CHACHA20_POLY1305] : [Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM];
}

/**
 * Makes the cryptography of the calling thread. With "auto" and "openssl" the first call of a thread takes some 20 ms,
 * for it measures who is faster.
 *
 * @param core the memory on which guards work
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
    ciphers: ciphersBySpeed(openssl, cipherProvider),
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
  const isFaster = frameTime("openssl", openssl, cipher, digest) < frameTime("wasm", openssl, cipher, digest);
  return isFaster ? "openssl" : "wasm";
}

/** The ciphers that there are, the fastest first. */
function ciphersBySpeed(openssl: Libcrypto | null, chacha: Provider): number[] {
  if (openssl === null) return [Cipher.CHACHA20_POLY1305];
  const aesTime = frameTime("openssl", openssl, Cipher.AES_256_GCM, Digest.NONE);
  const chachaTime = frameTime(chacha, openssl, Cipher.CHACHA20_POLY1305, Digest.NONE);
  return aesTime < chachaTime
    ? [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305]
    : [Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM];
}

/** What has been measured on this thread. */
const frameTimes = new Map<string, number>();
/** Memory of its own for the measuring, so that the thread's is left alone. */
let sampleCore: Core | undefined;

/** Milliseconds of {@link SAMPLE_FRAMES} frames of {@link SAMPLE_BYTES}, measured once: the fastest of the samples. */
function frameTime(provider: Provider, openssl: Libcrypto, cipher: number, digest: number): number {
  const name = `${provider} ${cipher} ${digest}`;
  let time = frameTimes.get(name);
  if (time === undefined) {
    sampleCore ??= makeArena(SAMPLE_MEMORY_BYTES);
    if (provider === "wasm") sampleCore.warmUp();
    const scratchAt = sampleCore.freeFrom;
    const guard = provider === "wasm"
      ? makeWasmGuard(sampleCore, cipher, digest, true, scratchAt)
      : makeOpenSslGuard(openssl, sampleCore, cipher, digest, scratchAt);
    // What the bytes are makes no difference to the time, by design.
    guard.setKeys(new Uint8Array(KEY_BYTES), new Uint8Array(KEY_BYTES));
    sample(guard, sampleCore, WARM_UP_MS);
    time = sample(guard, sampleCore, SAMPLE_MS);
    guard.close();
    frameTimes.set(name, time);
  }
  return time;
}

/** Seals frames for so long; answers the milliseconds of the fastest {@link SAMPLE_FRAMES}. */
function sample(guard: FrameGuard, core: Core, durationMs: number): number {
  const headerAt = core.freeFrom + 2 * GUARD_SCRATCH_BYTES;
  const payloadAt = core.freeFrom + SAMPLE_BYTES;
  const nonceAt = core.freeFrom + GUARD_SCRATCH_BYTES;
  const started = performance.now();
  let before = started;
  let fastest = Infinity;
  while (before - started < durationMs) {
    for (let i = 0; i < SAMPLE_FRAMES; i++) {
      guard.seal(nonceAt, payloadAt, payloadAt + SAMPLE_BYTES, SAMPLE_BYTES, headerAt + 48);
      guard.sealHeader(nonceAt, headerAt);
    }
    const now = performance.now();
    fastest = Math.min(fastest, now - before);
    before = now;
  }
  return fastest;
}
