import assert from "node:assert/strict";
import { negotiate } from "./exporter_hello.ts";
import { concat, tlv, uint16s } from "./harness_test.ts";
import { Status } from "./status.ts";

/** What comes of a hello at an exporter that has every algorithm: cipher and digest, or the status. */
function outcome(
  ciphers: number[],
  digests: number[],
  hasKey: boolean,
  accepted = { ciphers: [0, 1, 2], digests: [0, 1, 2, 3, 4] },
) {
  const lists = concat(tlv(1, uint16s(...ciphers), 1), tlv(2, uint16s(...digests), 1));
  const body = hasKey ? concat(lists, tlv(3, new Uint8Array(16), 1)) : lists;
  const { status, cipher, digest } = negotiate(1, 1, body, accepted);
  return status === Status.OK ? [cipher, digest] : status;
}

Deno.test("a cipher needs a key, and takes the digest's place", () => {
  assert.deepEqual(outcome([1, 0], [2], true), [1, 0]);
  assert.deepEqual(outcome([2, 1], [], true), [2, 0]);
  assert.deepEqual(outcome([1, 0], [2], false), [0, 2]);
  assert.equal(outcome([1, 2], [2], false), Status.KEY_REQUIRED);
});

Deno.test("a key without a cipher takes a digest that can be keyed", () => {
  assert.deepEqual(outcome([0], [2, 3, 4], true), [0, 3]);
  assert.deepEqual(outcome([0], [4, 3], true), [0, 4]);
  assert.equal(outcome([0], [0, 1, 2], true), Status.NO_COMMON_ALGORITHM);
});

Deno.test("without a key there is no HMAC", () => {
  assert.deepEqual(outcome([0], [4, 3], false), [0, 3]);
  assert.equal(outcome([0], [4], false), Status.KEY_REQUIRED);
});

Deno.test("what the exporter does not accept is passed over", () => {
  const accepted = { ciphers: [2], digests: [1] };
  assert.deepEqual(outcome([1, 2], [], true, accepted), [2, 0]);
  assert.equal(outcome([0], [1], false, accepted), Status.NO_COMMON_ALGORITHM);
  assert.equal(outcome([0, 2], [1], false, accepted), Status.KEY_REQUIRED);
});
