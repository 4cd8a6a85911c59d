/**
 * Cases of the hello (SPEC.md, sections 2 and 3).
 *
 * @module
 */
import assert from "node:assert/strict";
import { HELLO_BODY_BYTES_MAX } from "../../protocol/limits.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Cipher, Digest, FrameType } from "../../protocol/wire.ts";
import { hello, join, tlv, tlv16 } from "./bytes.ts";
import { helloBody, Peer } from "./peer.ts";
import { ask } from "./session.ts";
import type { Case, Register } from "./suite.ts";

/** Says the hello, and expects this status, and the end of the connection unless it is OK. */
async function answers(context: Case, bytes: Uint8Array, status: number, what = "") {
  using peer = await Peer.connect(context.options);
  await peer.write(bytes);
  const answer = await peer.helloAnswer();
  assert.equal(answer.status, status, what);
  if (status !== Status.OK) await peer.ended();
  return answer;
}

/** A body that offers these, under the suite's key. */
function offer(context: Case, ciphers: readonly number[], digests: readonly number[]): Uint8Array {
  const { key } = context.options;
  const keyId = key === null ? new Uint8Array(0) : tlv(Tlv.KEY_ID, key.id, 1);
  return join(tlv16(Tlv.CIPHERS, ciphers, 1), tlv16(Tlv.DIGESTS, digests, 1), keyId);
}

/** The offers of a peer without a key, and what is to be chosen. */
const PLAIN_OFFERS = [
  [[0], [Digest.XXH64, Digest.CRC32C], 0, Digest.XXH64],
  [[0], [Digest.CRC32C, Digest.XXH64, Digest.NONE], 0, Digest.CRC32C],
  [[0], [Digest.BLAKE2B_256, Digest.XXH64], 0, Digest.BLAKE2B_256],
  [[0], [Digest.NONE], 0, Digest.NONE],
  [[77, 2, 1, 0], [77, Digest.HMAC_SHA_256, Digest.NONE], 0, Digest.NONE],
] as const;

/** Those of a peer with one. */
const KEYED_OFFERS = [
  [[1, 2, 0], [Digest.BLAKE2B_256], 1, Digest.NONE],
  [[77, 2, 1], [Digest.NONE], 2, Digest.NONE],
  [[1], [77], 1, Digest.NONE],
  [[2], [], 2, Digest.NONE],
  [[0, 1], [Digest.HMAC_SHA_256, Digest.BLAKE2B_256], 0, Digest.HMAC_SHA_256],
  [[0], [77, Digest.XXH64, Digest.CRC32C, Digest.NONE, Digest.BLAKE2B_256], 0, Digest.BLAKE2B_256],
] as const;

/** Registers them. */
export function registerHelloCases(test: Register): void {
  test("the first cipher and digest of the client's lists that the exporter has are chosen", async (context) => {
    const { ciphers } = context.target;
    const offers = context.options.key === null ? PLAIN_OFFERS : KEYED_OFFERS;
    for (const [offeredCiphers, offeredDigests, cipher, digest] of offers) {
      // Not every machine has every cipher.
      if (!ciphers.includes(cipher)) continue;
      const what = `${offeredCiphers}; ${offeredDigests}`;
      const answer = await answers(context, hello(offer(context, offeredCiphers, offeredDigests)), Status.OK, what);
      assert.deepEqual([answer.version, answer.ciphers, answer.digests], [1, [cipher], [digest]], what);
    }
  });

  test("a range of versions that holds 1 is agreed, the order of TLVs is free", async (context) => {
    const base = helloBody(context.options);
    await answers(context, hello(base, 0, 9), Status.OK);
    const { cipher, digest, key } = context.options;
    const pieces = [tlv16(Tlv.DIGESTS, [digest], 1), tlv16(Tlv.CIPHERS, [cipher], 1)];
    if (key !== null) pieces.unshift(tlv(Tlv.KEY_ID, key.id, 1));
    await answers(context, hello(join(...pieces)), Status.OK);
  });

  test("versions without 1 are VERSION, whatever the body says", async (context) => {
    const base = helloBody(context.options);
    for (const [low, high, body] of [[2, 7, base], [0, 0, base], [2, 2, new Uint8Array(8)]] as const) {
      const answer = await answers(context, hello(body, low, high), Status.VERSION);
      assert.equal(answer.version, 0);
    }
  });

  test("versions in the wrong order are BAD_REQUEST", async (context) => {
    await answers(context, hello(helloBody(context.options), 2, 1), Status.BAD_REQUEST);
  });

  test("a body that is too long is BAD_REQUEST, and is not waited for", async (context) => {
    const bytes = hello(new Uint8Array(0), 1, 1, "DSTHELLO", HELLO_BODY_BYTES_MAX + 1);
    await answers(context, bytes, Status.BAD_REQUEST);
    await answers(context, hello(new Uint8Array(0), 1, 1, "DSTHELLO", 0xffff_ffff), Status.BAD_REQUEST);
    // Nor does it spoil the answer when it comes all the same.
    const long = hello(new Uint8Array(HELLO_BODY_BYTES_MAX + 8));
    await answers(context, long, Status.BAD_REQUEST);
  });

  test("a body of the longest length is taken", async (context) => {
    const base = helloBody(context.options);
    const filler = tlv(999, new Uint8Array(HELLO_BODY_BYTES_MAX - base.length - 8));
    await answers(context, hello(join(base, filler)), Status.OK);
  });

  test("another magic ends the connection without an answer", async (context) => {
    for (const magic of ["DSTREPLY", "GET / HT", "\0\0\0\0\0\0\0\0"]) {
      using peer = await Peer.connect(context.options);
      await peer.write(hello(helloBody(context.options), 1, 1, magic));
      await peer.ended();
    }
  });

  test("an unknown TLV is skipped, or refused when it is required", async (context) => {
    const base = helloBody(context.options);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3]))), Status.OK);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3], 0xfffe))), Status.OK);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3], 1))), Status.UNKNOWN_REQUIRED);
  });

  test("malformed TLVs are BAD_REQUEST, before UNKNOWN_REQUIRED", async (context) => {
    const base = helloBody(context.options);
    const ciphers = tlv16(Tlv.CIPHERS, [context.options.cipher], 1);
    const digests = tlv16(Tlv.DIGESTS, [context.options.digest], 1);
    const keyId = tlv(Tlv.KEY_ID, new Uint8Array(16), 1);
    const padding = tlv(999, [1, 2, 3]);
    padding[15] = 1;
    const tooLong = tlv(999, new Uint8Array(8));
    tooLong[4] = 9;
    const bodies = [
      new Uint8Array(0),
      ciphers,
      digests,
      join(ciphers, keyId),
      join(digests, keyId),
      join(base, ciphers),
      join(base, new Uint8Array(4)),
      join(base, padding),
      join(base, tooLong),
      join(tlv(Tlv.CIPHERS, [0], 1), digests),
      join(base, tlv(999, [], 1), padding),
      join(ciphers, digests, tlv(Tlv.KEY_ID, new Uint8Array(15), 1)),
      join(ciphers, digests, tlv(Tlv.KEY_ID, new Uint8Array(17), 1)),
      join(ciphers, digests, keyId, keyId),
    ];
    for (const [index, body] of bodies.entries()) {
      await answers(context, hello(body), Status.BAD_REQUEST, `body ${index}`);
    }
  });

  test("nothing in common is NO_COMMON_ALGORITHM with all that there is", async (context) => {
    const { cipher, digest, key } = context.options;
    const offers: [number[], number[]][] = [[[0], [77]], [[77], [digest]], [[], [digest]], [[0], []]];
    // Weak digests do not suit a key.
    if (key !== null) offers.push([[0], [Digest.XXH64, Digest.CRC32C, Digest.NONE]]);
    for (const [ciphers, digests] of offers) {
      const answer = await answers(context, hello(offer(context, ciphers, digests)), Status.NO_COMMON_ALGORITHM);
      assert.deepEqual(answer.ciphers!.toSorted(), context.target.ciphers.toSorted());
      assert.deepEqual(answer.digests!.toSorted(), context.target.digests.toSorted());
      assert.ok(answer.ciphers!.includes(cipher));
      if (cipher === Cipher.NONE) assert.ok(answer.digests!.includes(digest));
    }
  });

  test("a peer without the key that is asked for is KEY_REQUIRED, whatever else it offers", async (context) => {
    const { target, options } = context;
    if (target.keys === null) {
      // Here it is the other way round: what needs a key cannot be had.
      for (const cipher of [Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM]) {
        const body = helloBody({ cipher, digest: Digest.NONE, key: null });
        await answers(context, hello(body), Status.NO_COMMON_ALGORITHM);
      }
      return;
    }
    const offers: [number[], number[]][] = [[[options.cipher], [options.digest]], [[0, 1, 2], [1, 2, 3, 4]]];
    offers.push([[0], [Digest.BLAKE2B_256]], [[0], [Digest.HMAC_SHA_256]], [[1], [Digest.NONE]]);
    offers.push([[77], [Digest.BLAKE2B_256]], [[0], [77]], [[], []]);
    const bare = { ...context, options: { ...options, key: null } };
    for (const [ciphers, digests] of offers) {
      const what = `${ciphers}; ${digests}`;
      const answer = await answers(bare, hello(offer(bare, ciphers, digests)), Status.KEY_REQUIRED, what);
      assert.notEqual(answer.text, "");
    }
  });

  test("a peer that leaves in the middle of its hello harms nobody", async (context) => {
    const bytes = hello(helloBody(context.options));
    for (const length of [0, 1, 15, 16, 17, bytes.length - 1, bytes.length]) {
      using peer = await Peer.connect(context.options);
      await peer.write(bytes.slice(0, length));
    }
    using peer = await Peer.greet(context.options);
    const { answer } = await ask(peer, FrameType.LIST, new Uint8Array(0));
    assert.equal(answer.status, Status.OK);
  });
}
