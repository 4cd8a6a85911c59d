import assert from "node:assert/strict";
import { encodeHelloReply, type HelloConfig, negotiate } from "./exporter_hello.ts";
import { concat, tlv, uint16s } from "./harness_test.ts";
import { Status } from "./status.ts";

const { NO_COMMON_ALGORITHM, KEY_REQUIRED, TOO_MANY, VERSION, BAD_REQUEST, UNKNOWN_REQUIRED } = Status;
const KEY_ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
/** An exporter that has every algorithm, and no keys. */
const EVERYTHING: HelloConfig = { ciphers: [0, 1, 2], digests: [0, 1, 2, 3, 4], keyRequired: false };

function bodyOf(ciphers: number[], digests: number[], hasKey: boolean): Uint8Array {
  const lists = concat(tlv(1, uint16s(...ciphers), 1), tlv(2, uint16s(...digests), 1));
  return hasKey ? concat(lists, tlv(3, KEY_ID, 1)) : lists;
}

/** What comes of a hello: cipher and digest, or the status. */
function outcome(ciphers: number[], digests: number[], hasKey: boolean, config: Partial<HelloConfig> = {}) {
  const { status, cipher, digest, keyId, offered } = negotiate(1, 1, bodyOf(ciphers, digests, hasKey), {
    ...EVERYTHING,
    ...config,
  });
  assert.deepEqual(keyId, hasKey ? KEY_ID : null);
  assert.deepEqual(offered, { ciphers, digests });
  return status === Status.OK ? [cipher, digest] : status;
}

Deno.test("a cipher needs a key, and takes the digest's place", () => {
  assert.deepEqual(outcome([1, 0], [2], true), [1, 0]);
  assert.deepEqual(outcome([2, 1], [], true), [2, 0]);
  assert.deepEqual(outcome([1, 0], [2], false), [0, 2]);
  assert.equal(outcome([1, 2], [2], false), KEY_REQUIRED);
});

Deno.test("a key without a cipher takes a digest that can be keyed", () => {
  assert.deepEqual(outcome([0], [2, 3, 4], true), [0, 3]);
  assert.deepEqual(outcome([0], [4, 3], true), [0, 4]);
  assert.equal(outcome([0], [0, 1, 2], true), NO_COMMON_ALGORITHM);
});

Deno.test("the cipher none for which no digest will do is passed over like any that is not accepted", () => {
  assert.deepEqual(outcome([0, 1], [1], true), [1, 0]);
  assert.deepEqual(outcome([0, 2, 1], [], true), [2, 0]);
  assert.deepEqual(outcome([0, 1], [1, 3], true), [0, 3]);
  assert.deepEqual(outcome([0, 2, 1], [3], true, { ciphers: [0, 1], digests: [4] }), [1, 0]);
  assert.equal(outcome([0, 2], [1], true, { ciphers: [0, 1] }), NO_COMMON_ALGORITHM);
});

Deno.test("without a key there is no HMAC", () => {
  assert.deepEqual(outcome([0], [4, 3], false), [0, 3]);
  assert.equal(outcome([0], [4], false), KEY_REQUIRED);
});

Deno.test("what the exporter does not accept is passed over", () => {
  const accepted = { ciphers: [2], digests: [1] };
  assert.deepEqual(outcome([1, 2], [], true, accepted), [2, 0]);
  assert.equal(outcome([0], [1], false, accepted), NO_COMMON_ALGORITHM);
  assert.equal(outcome([0, 2], [1], false, accepted), KEY_REQUIRED);
  assert.deepEqual(outcome([0, 1], [3], true, { ciphers: [1] }), [1, 0]);
});

Deno.test("the client's order decides, not the exporter's", () => {
  for (const [ciphers, digests] of [[[0, 1, 2], [0, 1, 2, 3, 4]], [[2, 1, 0], [4, 3, 2, 1, 0]]]) {
    assert.deepEqual(outcome([1, 2], [], true, { ciphers, digests }), [1, 0]);
    assert.deepEqual(outcome([2, 1], [], true, { ciphers, digests }), [2, 0]);
    assert.deepEqual(outcome([0], [4, 3], true, { ciphers, digests }), [0, 4]);
    assert.deepEqual(outcome([0], [1, 2], false, { ciphers, digests }), [0, 1]);
  }
});

Deno.test("whoever could agree with a key is told so, for the pair and not for each list by itself", () => {
  // The digests have nothing in common, but with a key the cipher would be 1, and need none.
  assert.equal(outcome([1, 0], [2], false, { digests: [1] }), KEY_REQUIRED);
  // With a key none would have no digest that can be keyed, and the next cipher needs none.
  assert.equal(outcome([0, 1], [2], false, { digests: [1] }), KEY_REQUIRED);
  // A key would find a cipher in common, but no digest for it.
  assert.equal(outcome([0], [4], false, { digests: [2, 3] }), NO_COMMON_ALGORITHM);
});

Deno.test("an exporter that admits only peers with a key says so, whatever else is offered", () => {
  const config = { keyRequired: true };
  assert.equal(outcome([0], [2], false, config), KEY_REQUIRED);
  assert.equal(outcome([9], [9], false, config), KEY_REQUIRED);
  assert.equal(outcome([], [], false, config), KEY_REQUIRED);
  assert.deepEqual(outcome([1], [], true, config), [1, 0]);
  assert.equal(outcome([9], [9], true, config), NO_COMMON_ALGORITHM);
});

Deno.test("the decisions come in the order of SPEC.md", () => {
  const good = bodyOf([0], [2], false);
  const none = bodyOf([9], [9], false);
  const config: HelloConfig = { ...EVERYTHING, keyRequired: true, full: true };
  const decide = (low: number, high: number, body: Uint8Array, changes: Partial<HelloConfig> = {}) =>
    negotiate(low, high, body, { ...config, ...changes }).status;
  assert.equal(decide(2, 1, Uint8Array.of(1)), BAD_REQUEST);
  assert.equal(decide(2, 3, Uint8Array.of(1)), VERSION);
  assert.equal(decide(1, 1, Uint8Array.of(1)), BAD_REQUEST);
  assert.equal(decide(1, 1, concat(good, tlv(99, [], 1))), UNKNOWN_REQUIRED);
  assert.equal(decide(1, 1, concat(good, tlv(99, [], 1), Uint8Array.of(1))), BAD_REQUEST);
  assert.equal(decide(1, 1, concat(good, tlv(3, KEY_ID.subarray(1), 1))), BAD_REQUEST);
  assert.equal(decide(1, 1, none), TOO_MANY);
  assert.equal(decide(1, 1, none, { full: false }), KEY_REQUIRED);
  assert.equal(decide(1, 1, none, { full: false, keyRequired: false }), NO_COMMON_ALGORITHM);
  assert.equal(decide(1, 1, good, { full: false, keyRequired: false }), Status.OK);
});

Deno.test("of a hello that makes no sense nothing is known", () => {
  for (const [low, high, body] of [[2, 1, bodyOf([0], [2], true)], [2, 2, bodyOf([0], [2], true)]] as const) {
    const { keyId, offered } = negotiate(low, high, body, EVERYTHING);
    assert.deepEqual([keyId, offered], [null, null]);
  }
  const { keyId, offered } = negotiate(1, 1, concat(bodyOf([0], [2], true), Uint8Array.of(0)), EVERYTHING);
  assert.deepEqual([keyId, offered], [null, null]);
});

Deno.test("what is in common does not depend on how many others are offered", () => {
  // As many as a hello holds: 240 numbers of two bytes, twice 8 bytes around them.
  const others = Array.from({ length: 100 }, (_, i) => 100 + i);
  assert.deepEqual(outcome([...others, 1], [...others, 3], true), [1, 0]);
  assert.deepEqual(outcome([...others, 0], [...others, 3], true), [0, 3]);
});

Deno.test("the answer without an algorithm in common names all that the exporter accepts", () => {
  const config: HelloConfig = { ciphers: [1, 2], digests: [3, 4], keyRequired: true };
  const result = negotiate(1, 1, bodyOf([0], [1, 2], true), config);
  assert.equal(result.status, NO_COMMON_ALGORITHM);
  const reply = encodeHelloReply(result, config);
  assert.deepEqual(reply.slice(16, 48), concat(tlv(1, uint16s(1, 2)), tlv(2, uint16s(3, 4))));
  // The other refusals name nothing.
  const other = encodeHelloReply(negotiate(1, 1, bodyOf([0], [1, 2], false), config), config);
  assert.deepEqual(other.slice(16, 18), Uint8Array.of(4, 0));
});
