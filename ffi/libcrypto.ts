/**
 * The one binding of OpenSSL's libcrypto: authenticated ciphers and SHA-256, on bytes where they lie. The library is
 * opened when it is first asked for, and need not be there.
 *
 * Places are given as offsets from a base, which keeps them small integers; how they get to a call without leaving V8's
 * fast path or allocating is said in `libc.ts`. An address costs 2 ns so, at any alignment.
 *
 * @module
 */
import { args, argWords } from "./libc.ts";

/** The file of OpenSSL 3, whose binary interface is the same in all its versions. */
export const LIBCRYPTO_FILE = "libcrypto.so.3";

/** Bytes of a nonce of the ciphers here. */
export const NONCE_BYTES = 12;
/** Bytes of a tag of the ciphers here. */
export const AEAD_TAG_BYTES = 16;
/** Bytes of the scratch of a {@link CipherContext}; a multiple of 4 from its start on. */
export const CIPHER_SCRATCH_BYTES = 32;
/** Bytes of SHA-256's state: `SHA256_CTX` of openssl/sha.h, 28 words. */
export const SHA256_STATE_BYTES = 112;
/** Bytes of a digest of SHA-256. */
export const SHA256_BYTES = 32;

/**
 * OPENSSL_INIT_NO_ATEXIT and OPENSSL_INIT_NO_LOAD_CONFIG of openssl/crypto.h. Without the first the library takes itself
 * apart when the process exits, while other threads still use it. Without the second a file that the environment names
 * may have it load code.
 */
const INIT_OPTIONS = 0x0008_0000n | 0x0000_0080n;
/** EVP_CTRL_AEAD_GET_TAG and EVP_CTRL_AEAD_SET_TAG of openssl/evp.h. */
const GET_TAG = 0x10;
const SET_TAG = 0x11;
/** In a cipher's scratch: where the nonce is, and where the library writes how much it has written. */
const LENGTH_AT = 16;
/** 2^32: one step of the high half. */
const HIGH = 0x1_0000_0000;

/** Pointers are u64, so that they are BigInts which exist once instead of objects made for each call. */
const SYMBOLS = {
  OPENSSL_init_crypto: { parameters: ["u64", "u64"], result: "i32" },
  EVP_CIPHER_fetch: { parameters: ["u64", "buffer", "u64"], result: "u64" },
  EVP_CIPHER_CTX_new: { parameters: [], result: "u64" },
  EVP_CIPHER_CTX_free: { parameters: ["u64"], result: "void" },
  EVP_CIPHER_CTX_ctrl: { parameters: ["u64", "i32", "i32", "u64"], result: "i32" },
  EVP_CipherInit_ex: { parameters: ["u64", "u64", "u64", "u64", "u64", "i32"], result: "i32" },
  EVP_CipherUpdate: { parameters: ["u64", "u64", "u64", "u64", "i32"], result: "i32" },
  EVP_CipherFinal_ex: { parameters: ["u64", "u64", "u64"], result: "i32" },
  // Deprecated in favour of EVP, but the only ones whose state is plain bytes: copied, and wiped, without the library's
  // heap. Two thirds of the time of EVP_MAC for a header.
  SHA256_Init: { parameters: ["u64"], result: "i32" },
  SHA256_Update: { parameters: ["u64", "u64", "u64"], result: "i32" },
  SHA256_Final: { parameters: ["u64", "u64"], result: "i32" },
  CRYPTO_memcmp: { parameters: ["u64", "u64", "u64"], result: "i32" },
} as const;

type Calls = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** The library, opened. */
export interface Libcrypto {
  readonly calls: Calls;
  /** `EVP_CIPHER *` of each cipher. */
  readonly chacha20Poly1305: bigint;
  readonly aes256Gcm: bigint;
}

/**
 * Opens the library anew: see {@link libcrypto}.
 *
 * @param file where it is, or its name where the system looks for libraries
 * @returns the library, or why there is none, with the file's name
 */
export function openLibcrypto(file: string): Libcrypto | string {
  let calls: Calls;
  try {
    calls = Deno.dlopen(file, SYMBOLS).symbols;
  } catch (error) {
    // What the system's loader says, which names the file, without what Deno puts before it.
    return (error as Error).message.split("\n")[0].replace(/^.*(?:open library|from the library): /, "");
  }
  if (calls.OPENSSL_init_crypto(INIT_OPTIONS, 0n) !== 1) return `${file}: it does not start`;
  const chacha20Poly1305 = calls.EVP_CIPHER_fetch(0n, new TextEncoder().encode("ChaCha20-Poly1305\0"), 0n);
  const aes256Gcm = calls.EVP_CIPHER_fetch(0n, new TextEncoder().encode("AES-256-GCM\0"), 0n);
  if (chacha20Poly1305 === 0n || aes256Gcm === 0n) return `${file}: it does not have the ciphers`;
  return { calls, chacha20Poly1305, aes256Gcm };
}

let opened: Libcrypto | string | undefined;

/** The system's library, opened once a thread and never closed; or why there is none, with the file's name. */
export function libcrypto(): Libcrypto | string {
  return opened ??= openLibcrypto(LIBCRYPTO_FILE);
}

/** Answers that can only mean that a call was wrong, or that there is no memory. */
function demand(result: number, call: string): void {
  if (result !== 1) throw new Error(`Cannot use libcrypto: ${call} failed`);
}

/** Makes the number base + at parameter `index` of a call that follows. */
function setAddress(index: number, base: number, at: number): void {
  const address = base + at;
  argWords[2 * index] = address;
  argWords[2 * index + 1] = address / HIGH;
}

/**
 * An authenticated cipher with its key (`EVP_CIPHER_CTX`), for one message at a time: `begin`, then `associate`, then
 * `update`, each as often as needed, then `tag` or `isTag`. Nothing is allocated but by the constructor.
 */
export class CipherContext {
  readonly #calls: Calls;
  readonly #base: number;
  readonly #nonce: bigint;
  readonly #length: bigint;
  #context: bigint;

  /**
   * @param cipher one of the library's `EVP_CIPHER *`
   * @param base absolute address from which all places are counted
   * @param scratchAt where {@link CIPHER_SCRATCH_BYTES} are its own. The first {@link NONCE_BYTES} of them are the
   * nonce, which the caller writes before {@link begin}
   * @throws {Error} where there is no memory
   */
  constructor(library: Libcrypto, cipher: bigint, base: number, scratchAt: number) {
    this.#calls = library.calls;
    this.#base = base;
    this.#nonce = BigInt(base + scratchAt);
    this.#length = BigInt(base + scratchAt + LENGTH_AT);
    this.#context = this.#calls.EVP_CIPHER_CTX_new();
    if (this.#context === 0n) throw new Error("Cannot use libcrypto: there is no memory");
    demand(this.#calls.EVP_CipherInit_ex(this.#context, cipher, 0n, 0n, 0n, 1), "EVP_CipherInit_ex");
  }

  /** Makes the 32 bytes the key, of which the library takes a copy. */
  setKey(at: number): void {
    setAddress(0, this.#base, at);
    demand(this.#calls.EVP_CipherInit_ex(this.#context, 0n, 0n, args[0], 0n, 1), "EVP_CipherInit_ex");
  }

  /** Begins a message under the nonce that is in the scratch. The key must be set. */
  begin(isSealing: boolean): void {
    const result = this.#calls.EVP_CipherInit_ex(this.#context, 0n, 0n, 0n, this.#nonce, isSealing ? 1 : 0);
    demand(result, "EVP_CipherInit_ex");
  }

  /** Associates bytes, at most 2^31 - 1, with the message. */
  associate(at: number, bytes: number): void {
    setAddress(0, this.#base, at);
    demand(this.#calls.EVP_CipherUpdate(this.#context, 0n, this.#length, args[0], bytes), "EVP_CipherUpdate");
  }

  /** Seals or opens the message's next bytes, at most 2^31 - 1, to `toAt`: the same place, or a range apart. */
  update(at: number, toAt: number, bytes: number): void {
    setAddress(0, this.#base, toAt);
    setAddress(1, this.#base, at);
    demand(this.#calls.EVP_CipherUpdate(this.#context, args[0], this.#length, args[1], bytes), "EVP_CipherUpdate");
  }

  /** Ends a message that was sealed: writes its tag of {@link AEAD_TAG_BYTES}. */
  tag(at: number): void {
    demand(this.#calls.EVP_CipherFinal_ex(this.#context, this.#length, this.#length), "EVP_CipherFinal_ex");
    setAddress(0, this.#base, at);
    const result = this.#calls.EVP_CIPHER_CTX_ctrl(this.#context, GET_TAG, AEAD_TAG_BYTES, args[0]);
    demand(result, "EVP_CIPHER_CTX_ctrl");
  }

  /** Ends a message that was opened: whether that is its tag, compared in constant time. */
  isTag(at: number): boolean {
    setAddress(0, this.#base, at);
    const result = this.#calls.EVP_CIPHER_CTX_ctrl(this.#context, SET_TAG, AEAD_TAG_BYTES, args[0]);
    demand(result, "EVP_CIPHER_CTX_ctrl");
    return this.#calls.EVP_CipherFinal_ex(this.#context, this.#length, this.#length) === 1;
  }

  /** Gives the library's memory back, the key wiped. No other call may follow but this one. */
  close(): void {
    // EVP_CIPHER_CTX_free does nothing for a null pointer.
    this.#calls.EVP_CIPHER_CTX_free(this.#context);
    this.#context = 0n;
  }
}

/** SHA-256 whose state of {@link SHA256_STATE_BYTES} is the caller's: a copy of it continues where it was copied. */
export class Sha256 {
  readonly #calls: Calls;
  readonly #base: number;

  /** @param base absolute address from which all places are counted */
  constructor(library: Libcrypto, base: number) {
    this.#calls = library.calls;
    this.#base = base;
  }

  /** Begins a digest with the state at `stateAt`, a multiple of 4. */
  init(stateAt: number): void {
    setAddress(0, this.#base, stateAt);
    demand(this.#calls.SHA256_Init(args[0]), "SHA256_Init");
  }

  /** Digests the next bytes. */
  update(stateAt: number, at: number, bytes: number): void {
    setAddress(0, this.#base, stateAt);
    setAddress(1, this.#base, at);
    setAddress(2, 0, bytes);
    demand(this.#calls.SHA256_Update(args[0], args[1], args[2]), "SHA256_Update");
  }

  /** Writes the {@link SHA256_BYTES} of the digest; the state is used up. */
  final(stateAt: number, outAt: number): void {
    setAddress(0, this.#base, outAt);
    setAddress(1, this.#base, stateAt);
    demand(this.#calls.SHA256_Final(args[0], args[1]), "SHA256_Final");
  }

  /** Whether two digests are the same, in constant time. */
  isEqual(at: number, otherAt: number): boolean {
    setAddress(0, this.#base, at);
    setAddress(1, this.#base, otherAt);
    setAddress(2, 0, SHA256_BYTES);
    return this.#calls.CRYPTO_memcmp(args[0], args[1], args[2]) === 0;
  }
}
