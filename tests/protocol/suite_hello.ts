/**
 * Cases of the hello (SPEC.md, sections 2 and 3).
 *
 * @module
 */
import assert from "node:assert/strict";
import { HELLO_BODY_BYTES_MAX } from "../../protocol/limits.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Digest, FrameType } from "../../protocol/wire.ts";
import { hello, join, tlv, tlv16 } from "./bytes.ts";
import { helloBody, Peer } from "./peer.ts";
import { ask } from "./session.ts";
import type { Case, Register } from "./suite.ts";

/** Says the hello, and expects this status, and the end of the connection unless it is OK. */
async function answers(context: Case, bytes: Uint8Array, status: number) {
  using peer = await Peer.connect(context.options);
  await peer.write(bytes);
  const answer = await peer.helloAnswer();
  assert.equal(answer.status, status);
  if (status !== Status.OK) await peer.ended();
  return answer;
}

const CIPHERS = tlv16(Tlv.CIPHERS, [0], 1);
const DIGESTS = tlv16(Tlv.DIGESTS, [Digest.XXH64], 1);

/** Registers them. */
export function registerHelloCases(test: Register): void {
  test("the first digest of the client's list that the exporter has is chosen", async (context) => {
    const lists = [
      [[Digest.XXH64, Digest.CRC32C], Digest.XXH64],
      [[Digest.CRC32C, Digest.XXH64, Digest.NONE], Digest.CRC32C],
      [[Digest.NONE], Digest.NONE],
      [[77, Digest.HMAC_SHA_256, Digest.NONE], Digest.NONE],
    ] as const;
    for (const [offered, chosen] of lists) {
      const body = join(CIPHERS, tlv16(Tlv.DIGESTS, offered, 1));
      const answer = await answers(context, hello(body), Status.OK);
      assert.deepEqual([answer.version, answer.ciphers, answer.digests], [1, [0], [chosen]]);
    }
  });

  test("a range of versions that holds 1 is agreed, the order of TLVs is free", async (context) => {
    await answers(context, hello(helloBody(Digest.XXH64), 0, 9), Status.OK);
    await answers(context, hello(join(DIGESTS, CIPHERS)), Status.OK);
  });

  test("versions without 1 are VERSION, whatever the body says", async (context) => {
    for (const [low, high, body] of [[2, 7, helloBody(2)], [0, 0, helloBody(2)], [2, 2, new Uint8Array(8)]] as const) {
      const answer = await answers(context, hello(body, low, high), Status.VERSION);
      assert.equal(answer.version, 0);
    }
  });

  test("versions in the wrong order are BAD_REQUEST", async (context) => {
    await answers(context, hello(helloBody(2), 2, 1), Status.BAD_REQUEST);
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
    const base = helloBody(Digest.XXH64);
    const filler = tlv(999, new Uint8Array(HELLO_BODY_BYTES_MAX - base.length - 8));
    await answers(context, hello(join(base, filler)), Status.OK);
  });

  test("another magic ends the connection without an answer", async (context) => {
    for (const magic of ["DSTREPLY", "GET / HT", "\0\0\0\0\0\0\0\0"]) {
      using peer = await Peer.connect(context.options);
      await peer.write(hello(helloBody(2), 1, 1, magic));
      await peer.ended();
    }
  });

  test("an unknown TLV is skipped, or refused when it is required", async (context) => {
    const base = helloBody(Digest.XXH64);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3]))), Status.OK);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3], 0xfffe))), Status.OK);
    await answers(context, hello(join(base, tlv(999, [1, 2, 3], 1))), Status.UNKNOWN_REQUIRED);
  });

  test("malformed TLVs are BAD_REQUEST, before UNKNOWN_REQUIRED", async (context) => {
    const base = helloBody(Digest.XXH64);
    const padding = tlv(999, [1, 2, 3]);
    padding[15] = 1;
    const tooLong = tlv(999, new Uint8Array(8));
    tooLong[4] = 9;
    const bodies = [
      new Uint8Array(0),
      CIPHERS,
      DIGESTS,
      join(base, CIPHERS),
      join(base, new Uint8Array(4)),
      join(base, padding),
      join(base, tooLong),
      join(tlv(Tlv.CIPHERS, [0], 1), DIGESTS),
      join(base, tlv(999, [], 1), padding),
      join(base, tlv(Tlv.KEY_ID, new Uint8Array(15), 1)),
    ];
    for (const body of bodies) await answers(context, hello(body), Status.BAD_REQUEST);
  });

  test("nothing in common is NO_COMMON_ALGORITHM with what there is", async (context) => {
    const none = hello(join(CIPHERS, tlv16(Tlv.DIGESTS, [77], 1)));
    const answer = await answers(context, none, Status.NO_COMMON_ALGORITHM);
    assert.ok(answer.digests!.includes(context.options.digest));
    assert.ok(answer.ciphers!.includes(0));
    await answers(context, hello(join(tlv16(Tlv.CIPHERS, [77], 1), DIGESTS)), Status.NO_COMMON_ALGORITHM);
    await answers(context, hello(join(tlv16(Tlv.CIPHERS, [], 1), DIGESTS)), Status.NO_COMMON_ALGORITHM);
  });

  test("a peer that leaves in the middle of its hello harms nobody", async (context) => {
    const bytes = hello(helloBody(Digest.XXH64));
    for (const length of [0, 1, 15, 16, 17, bytes.length - 1]) {
      using peer = await Peer.connect(context.options);
      await peer.write(bytes.slice(0, length));
    }
    using peer = await Peer.greet(context.options);
    const { answer } = await ask(peer, FrameType.LIST, new Uint8Array(0));
    assert.equal(answer.status, Status.OK);
  });
}
