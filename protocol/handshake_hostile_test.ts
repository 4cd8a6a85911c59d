import assert from "node:assert/strict";
import { noisePrimitives } from "../engine/noise_primitives.ts";
import { concat, pattern, text } from "../tests/vectors/primitives.ts";
import { ProtocolError } from "./error.ts";
import type { Cryptography } from "./guard.ts";
import {
  assertNothingDone,
  CLIENT,
  type From,
  KEY,
  Loopback,
  type LoopbackOptions,
  OPEN,
} from "./handshake_support_test.ts";
import { tlv, uint16s, uint32s } from "./harness_test.ts";
import { HELLO_BODY_BYTES_MAX } from "./limits.ts";

Deno.test("a bit that flips in either hello or either message of the handshake is found out", () => {
  // The exporter takes everything, with and without a key, and the client whatever goes with its key: what holds them
  // to the best that both have is the handshake alone.
  const honest = new Loopback().start();
  assert.deepEqual(honest.events, ["ready"]);
  const lengths = {
    client: honest.sent.client.map((m) => m.length),
    exporter: honest.sent.exporter.map((m) => m.length),
  };
  honest.close();
  assert.deepEqual(lengths, { client: [16 + 16 + 16 + 24, 48], exporter: [16 + 16 + 16 + 16, 48] });
  const endings = new Map<string, number>();
  for (const side of ["client", "exporter"] as const) {
    for (const [message, bytes] of lengths[side].entries()) {
      for (let bit = 0; bit < bytes * 8; bit++) {
        const what = `message ${message} of the ${side}, byte ${bit >> 3}, bit ${bit & 7}`;
        const loopback = new Loopback({
          tamper: (from, n, bytes) => {
            if (from === side && n === message) bytes[bit >> 3] ^= 1 << (bit & 7);
            return bytes;
          },
        });
        loopback.onReady = () => loopback.client.open(OPEN);
        loopback.start();
        const ending = loopback.clientFeed.isClosed
          ? `the client: ${loopback.client.error}`
          : `the exporter: ${loopback.exporter.error}`;
        endings.set(ending, (endings.get(ending) ?? 0) + 1);
        assertNothingDone(loopback, what);
      }
    }
  }
  // All of these happen, or the test does not do what it says.
  for (const error of [ProtocolError.AUTHENTICATION, ProtocolError.REFUSED, ProtocolError.ALGORITHM]) {
    assert.ok(endings.has(`the client: ${error}`), `${error}: ${[...endings.keys()]}`);
  }
  assert.ok(endings.has(`the exporter: ${ProtocolError.AUTHENTICATION}`));
});

/** A hello as the client of `CLIENT` sends it, with other lists. */
function helloWith(ciphers: number[], digests: number[], hasKey: boolean): Uint8Array {
  const lists = concat(tlv(1, uint16s(...ciphers), 1), tlv(2, uint16s(...digests), 1));
  const body = hasKey ? concat(lists, tlv(3, KEY.id, 1)) : lists;
  return concat(text("DSTHELLO"), Uint8Array.from([...uint16s(1, 1), ...uint32s(body.length)]), body);
}

function answerWith(cipher: number, digest: number): Uint8Array {
  const body = concat(tlv(1, uint16s(cipher)), tlv(2, uint16s(digest)), tlv(4, uint32s(0)));
  return concat(text("DSTREPLY"), Uint8Array.from([...uint16s(1, 0), ...uint32s(body.length)]), body);
}

Deno.test("nobody on the way can talk both sides into something weaker", () => {
  const ends: [string, Uint8Array, Uint8Array | null][] = [
    ["no cipher", helloWith([0], [3, 4, 2], true), null],
    ["the other cipher", helloWith([2, 1, 0], [3, 4, 2], true), null],
    ["the other digest", helloWith([0], [4], true), null],
    ["no key", helloWith([0], [2], false), null],
    ["no key, and the key's digest", helloWith([0], [3], false), null],
    // Each side is told what it would like to hear.
    ["no cipher, and the client is told that there is one", helloWith([0], [3], true), answerWith(1, 0)],
    ["a cipher, and the client is told that there is none", helloWith([1], [], true), answerWith(0, 3)],
    ["no key, and the client is told of a keyed digest", helloWith([0], [3], false), answerWith(0, 3)],
    ["the same choice in other words", concat(helloWith([1, 0], [3, 4, 2], true)), null],
  ];
  for (const [what, hello, answer] of ends) {
    const loopback = new Loopback({
      tamper: (from, n, bytes) => n > 0 ? bytes : from === "client" ? hello : answer ?? bytes,
    });
    loopback.onReady = () => loopback.client.open(OPEN);
    loopback.start();
    assertNothingDone(loopback, what);
  }
});

Deno.test("a man in the middle who has another key is found out by both", () => {
  // He speaks to each side with what he has; neither has it.
  const other = { id: KEY.id, secret: pattern(32, 99) };
  const withClient = new Loopback({ keys: [other] });
  withClient.start();
  assert.equal(withClient.exporter.authentication, "wrong key");
  assertNothingDone(withClient, "the exporter has another key");
  const withExporter = new Loopback({ client: { key: other } });
  withExporter.start();
  assert.equal(withExporter.exporter.authentication, "wrong key");
  assertNothingDone(withExporter, "the client has another key");
});

/** Noise primitives that keep count of what they are asked for. */
function counted(): { noise: Cryptography["noise"]; counts: Record<string, number> } {
  const counts: Record<string, number> = {};
  const noise = Object.fromEntries(
    Object.entries(noisePrimitives).map(([name, primitive]) => [name, (...what: unknown[]) => {
      counts[name] = (counts[name] ?? 0) + 1;
      return (primitive as (...what: unknown[]) => unknown)(...what);
    }]),
  ) as unknown as Cryptography["noise"];
  return { noise, counts };
}

Deno.test("an unknown key and a wrong one get the same answer, none, after the same work", () => {
  const work = [];
  for (
    const [keys, reason] of [
      [[], "unknown key"],
      [[{ id: pattern(16, 5), secret: KEY.secret }], "unknown key"],
      [[{ id: KEY.id, secret: pattern(32, 6) }], "wrong key"],
    ] as const
  ) {
    const { noise, counts } = counted();
    const loopback = new Loopback({ keys, exporterNoise: noise }).start();
    const { exporter } = loopback;
    assert.equal(exporter.authentication, reason);
    assert.deepEqual(exporter.claimedKeyId, KEY.id);
    assert.deepEqual([exporter.error, loopback.exporterFeed.isClosed], [ProtocolError.AUTHENTICATION, true]);
    // The answer to the hello, which is the same as for everybody.
    assert.equal(loopback.sent.exporter.length, 1);
    work.push({ counts, random: loopback.randomDrawn });
    assertNothingDone(loopback, reason);
  }
  assert.deepEqual(work[1], work[0]);
  assert.deepEqual(work[2], work[0]);
  // A stranger costs no multiplication on the curve.
  assert.deepEqual([work[0].counts.publicKey, work[0].counts.sharedSecret], [undefined, undefined]);
});

Deno.test("not even who foretells the key that stands in for an unknown one gets in", () => {
  const random = pattern(64, 55);
  const foretold = { id: pattern(16, 5), secret: random.slice(32) };
  const loopback = new Loopback({ client: { key: foretold }, random: () => random.slice() }).start();
  assert.equal(loopback.exporter.authentication, "unknown key");
  assert.equal(loopback.sent.exporter.length, 1);
  assertNothingDone(loopback, "a key that was foretold");
});

Deno.test("a client that does not wait for the answer to its hello cannot change what the exporter still has to send", () => {
  const loopback = new Loopback().start();
  assert.deepEqual(loopback.sent.exporter.map((message) => message.length), [64, 48]);
  // Neither needs to have been sent yet.
  for (const n of [0, 1]) assert.deepEqual(loopback.queued(n), loopback.sent.exporter[n]);
  loopback.close();
});

Deno.test("a peer that has the key, and makes the shared secret known to everybody, is refused", () => {
  // Its public key is the neutral element, with which every secret is zero, and its tag fits that: only who has the
  // pre-shared key can do so.
  const dishonest = { ...noisePrimitives, publicKey: () => new Uint8Array(32), sharedSecret: () => new Uint8Array(32) };
  const exporter = new Loopback({ exporterNoise: dishonest }).start();
  assert.equal(exporter.sent.exporter.length, 2);
  assert.equal(exporter.client.error, ProtocolError.AUTHENTICATION);
  assertNothingDone(exporter, "the exporter");
  const client = new Loopback({ clientNoise: dishonest }).start();
  assert.equal(client.sent.exporter.length, 1);
  assert.deepEqual([client.exporter.error, client.exporter.authentication], [
    ProtocolError.AUTHENTICATION,
    "wrong key",
  ]);
  assertNothingDone(client, "the client");
  // Both together agree, so it is not for another reason that each of them fails.
  const both = new Loopback({ clientNoise: dishonest, exporterNoise: dishonest }).start();
  assert.deepEqual(both.events, ["ready"]);
  both.close();
});

Deno.test("a client that waits for the exporter's part of the handshake can tell so when the connection ends", () => {
  const loopback = new Loopback({ keys: [] });
  assert.equal(loopback.client.isAuthenticating, false);
  loopback.start();
  assert.equal(loopback.client.isAuthenticating, true);
  assert.deepEqual(loopback.events, []);
  loopback.close();
  assert.equal(loopback.client.isAuthenticating, false);

  const honest = new Loopback().start();
  assert.equal(honest.client.isAuthenticating, false);
  honest.close();
});

Deno.test("a client tells an exporter that does not authenticate itself from every other failure", () => {
  const loopback = new Loopback({
    tamper: (from, n, bytes) => from === "exporter" && n === 1 ? pattern(48, 8) : bytes,
  }).start();
  assert.equal(loopback.client.error, ProtocolError.AUTHENTICATION);
  assert.deepEqual(loopback.events, ["failed 0 the peer does not prove that it has the same key"]);
  assert.ok(loopback.clientFeed.isClosed);
  assertNothingDone(loopback, "the exporter's message is somebody else's");
});

Deno.test("a connection that was recorded and is played again gets as far as its own messages, and nothing is done", () => {
  const recorded = new Loopback();
  recorded.onReady = () => recorded.client.open(OPEN);
  recorded.start();
  assert.deepEqual(recorded.calls.length, 1);
  recorded.close();
  const [hello, noise, open] = recorded.sent.client;

  const again = new Loopback();
  again.inject(hello).inject(noise);
  // The message of the handshake is as good as it was, so the exporter answers. That proves nothing of who sent it.
  assert.equal(again.sent.exporter.length, 2);
  assert.notDeepEqual(again.sent.exporter[1], recorded.sent.exporter[1]);
  assert.equal(again.exporter.keyId, null);
  again.inject(open);
  assert.deepEqual([again.exporterFeed.isClosed, again.exporter.error], [true, ProtocolError.HEADER_TAG]);
  assertNothingDone(again, "the recording");
});

Deno.test("frames in the place of the handshake, or a handshake in the place of frames, end the connection", () => {
  const keyed = new Loopback();
  keyed.inject(helloWith([1, 2, 0], [3, 4, 2], true)).inject(concat(text("DST1"), new Uint8Array(44)));
  assert.equal(keyed.exporter.error, ProtocolError.AUTHENTICATION);
  assertNothingDone(keyed, "a frame");
  const keyless = new Loopback();
  keyless.inject(helloWith([0], [2], false)).inject(concat(pattern(48, 1), pattern(16, 2)));
  assert.equal(keyless.exporter.error, ProtocolError.MAGIC);
  assertNothingDone(keyless, "a handshake");
});

Deno.test("a stranger makes the exporter wait for 512 bytes of hello and 48 of handshake at most", () => {
  const body = concat(helloWith([1], [3], true).slice(16), tlv(99, new Uint8Array(HELLO_BODY_BYTES_MAX - 64)));
  assert.equal(body.length, HELLO_BODY_BYTES_MAX);
  const start = concat(text("DSTHELLO"), Uint8Array.from([...uint16s(1, 1), ...uint32s(body.length)]));
  const loopback = new Loopback();
  assert.equal(loopback.exporter.headerBytes, 16);
  loopback.inject(start);
  assert.equal(loopback.exporter.payloadBytes, HELLO_BODY_BYTES_MAX);
  loopback.inject(body);
  assert.equal(loopback.sent.exporter.length, 1);
  assert.ok(loopback.sent.exporter[0].length <= 512);
  assert.equal(loopback.exporter.headerBytes, 48);
  loopback.inject(new Uint8Array(47));
  assert.deepEqual([loopback.randomDrawn, loopback.exporterFeed.isClosed], [[], false]);
  loopback.inject(new Uint8Array(1000));
  // What comes after the handshake that failed is not looked at.
  assert.equal(loopback.exporterFeed.pendingBytes, 999);
  assert.ok(loopback.exporterFeed.isClosed);
  assertNothingDone(loopback, "zeroes");
});

Deno.test("a choice that the client did not offer, or that does not suit its key, ends the connection", () => {
  const all = { ciphers: [0, 1], digests: [0, 1, 2, 3, 4] };
  const keyless = { ciphers: [0], digests: [0, 1, 2, 3, 4], key: null };
  const cases: [string, LoopbackOptions["client"], number, number, boolean][] = [
    ["a cipher", all, 1, 0, true],
    ["a digest that is keyed", all, 0, 3, true],
    ["another one", all, 0, 4, true],
    ["a cipher that was not offered", all, 2, 0, false],
    ["a cipher that does not exist", all, 9, 0, false],
    ["a cipher and a digest", all, 1, 3, false],
    ["a digest that cannot be keyed", all, 0, 2, false],
    ["no digest at all", all, 0, 0, false],
    ["a digest that does not exist", all, 0, 5, false],
    ["no cipher, though one is a must", { ciphers: [1], digests: [3] }, 0, 3, false],
    ["a digest that was not offered", { ciphers: [0], digests: [3] }, 0, 4, false],
    ["a digest without a key", keyless, 0, 2, true],
    ["no digest without a key", keyless, 0, 0, true],
    ["a MAC without a key", keyless, 0, 4, false],
    ["a cipher without a key", keyless, 1, 0, false],
  ];
  for (const [what, client, cipher, digest, isRight] of cases) {
    const loopback = new Loopback({
      client,
      tamper: (from, n, bytes) => from === "exporter" && n === 0 ? answerWith(cipher, digest) : bytes,
    }).start();
    assert.equal(loopback.client.error === ProtocolError.ALGORITHM, !isRight, what);
    assert.equal(
      loopback.clientFeed.isClosed && loopback.client.error !== ProtocolError.AUTHENTICATION,
      !isRight,
      what,
    );
    if (!isRight) assert.equal(loopback.sent.client.length, 1, what);
    loopback.close();
  }
});

Deno.test("whoever sends what, and in whatever pieces, a door with keys answers or ends the connection", () => {
  // Everything that goes over the wire is cut short, doubled or swapped at each message.
  const changes: [string, (bytes: Uint8Array) => Uint8Array][] = [
    ["nothing", () => new Uint8Array(0)],
    ["half of it", (bytes) => bytes.slice(0, bytes.length >> 1)],
    ["all but the last byte", (bytes) => bytes.slice(0, -1)],
    ["one byte more", (bytes) => concat(bytes, Uint8Array.of(0))],
    ["twice", (bytes) => concat(bytes, bytes)],
    ["backwards", (bytes) => bytes.slice().reverse()],
  ];
  for (const side of ["client", "exporter"] as From[]) {
    for (const message of [0, 1]) {
      for (const [what, change] of changes) {
        for (const pieceBytes of [2 ** 20, 1]) {
          const loopback = new Loopback({
            pieceBytes,
            tamper: (from, n, bytes) => from === side && n === message ? change(bytes) : bytes,
          });
          loopback.onReady = () => loopback.client.open(OPEN);
          loopback.start();
          const name = `${what} of message ${message} of the ${side}`;
          const isMore = message === 1 && (what === "one byte more" || what === "twice");
          if (!isMore) {
            assertNothingDone(loopback, name);
            continue;
          }
          // What comes too much behind the handshake stands where the sender's first frame has to, and that is refused.
          assert.ok(loopback.isReady, name);
          assert.deepEqual(loopback.calls, side === "client" ? [] : [`open ${OPEN.export}`], name);
          if (side === "client") assert.equal(loopback.exporter.error, ProtocolError.HEADER_TAG, name);
          else assert.equal(loopback.grant, null, name);
          loopback.close();
        }
      }
    }
  }
  assert.deepEqual(CLIENT.key, KEY);
});
