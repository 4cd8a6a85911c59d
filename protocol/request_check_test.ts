import assert from "node:assert/strict";
import { Operation } from "./request.ts";
import { checkRequest, isMutation, type RequestBounds } from "./request_check.ts";
import { Status } from "./status.ts";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS } = Operation;
const BOUNDS: RequestBounds = { size: 2 ** 33, logicalBlock: 512, maxPayload: 65_536, readOnly: false };
/** The check with a range written out. */
function check(bounds: RequestBounds, type: number, flags: number, offset: number, length: number): number {
  return checkRequest(bounds, type, flags, Float64Array.of(offset, length));
}

const RANGED = [READ, WRITE, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS];

Deno.test("exactly the flags of a type are allowed", () => {
  const allowed = new Map([[READ, 8], [WRITE, 1], [FLUSH, 0], [DISCARD, 1], [WRITE_ZEROES, 7], [CACHE, 0], [
    BLOCK_STATUS,
    0,
  ]]);
  for (const [type, flags] of allowed) {
    const length = type === FLUSH ? 0 : 512;
    for (let bit = 0; bit < 16; bit++) {
      const expected = (flags & (1 << bit)) !== 0 ? Status.OK : Status.INVALID;
      assert.equal(check(BOUNDS, type, 1 << bit, 0, length), expected, `type ${type}, bit ${bit}`);
    }
    assert.equal(check(BOUNDS, type, flags, 0, length), Status.OK);
    assert.equal(check(BOUNDS, type, 0, 0, length), Status.OK);
  }
});

Deno.test("types of later versions are not supported, whatever else they say", () => {
  for (let type = 8; type <= 15; type++) {
    assert.equal(check(BOUNDS, type, 0xffff, -1, -1), Status.NOT_SUPPORTED);
  }
});

Deno.test("a FLUSH has neither offset nor length", () => {
  assert.equal(check(BOUNDS, FLUSH, 0, 0, 0), Status.OK);
  for (const [offset, length] of [[512, 0], [0, 512], [-1, 0], [0, -1]]) {
    assert.equal(check(BOUNDS, FLUSH, 0, offset, length), Status.INVALID);
  }
});

Deno.test("the last block can be reached and nothing behind it, also around 4 GiB", () => {
  for (const size of [512, 4096, 2 ** 32 - 512, 2 ** 32, 2 ** 32 + 512, 2 ** 52]) {
    const bounds = { ...BOUNDS, size };
    for (const type of RANGED) {
      assert.equal(check(bounds, type, 0, size - 512, 512), Status.OK);
      assert.equal(check(bounds, type, 0, size, 512), Status.OUT_OF_RANGE);
      assert.equal(check(bounds, type, 0, size - 512, 1024), Status.OUT_OF_RANGE);
    }
    assert.equal(check(bounds, DISCARD, 0, 0, size), Status.OK);
    assert.equal(check(bounds, DISCARD, 0, 512, size), Status.OUT_OF_RANGE);
  }
});

Deno.test("an offset and a length whose sum is no safe integer are out of range", () => {
  const largest = Number.MAX_SAFE_INTEGER;
  const bounds = { ...BOUNDS, size: largest, logicalBlock: 1 };
  assert.equal(check(bounds, DISCARD, 0, 0, largest), Status.OK);
  assert.equal(check(bounds, DISCARD, 0, largest - 1, 1), Status.OK);
  assert.equal(check(bounds, DISCARD, 0, 1, largest), Status.OUT_OF_RANGE);
  assert.equal(check(bounds, DISCARD, 0, largest, largest), Status.OUT_OF_RANGE);
  assert.equal(check(bounds, DISCARD, 0, -1, 1), Status.OUT_OF_RANGE);
  assert.equal(check(bounds, DISCARD, 0, 0, -1), Status.INVALID);
});

Deno.test("a length of zero and one above the maximum payload are invalid", () => {
  for (const type of RANGED) assert.equal(check(BOUNDS, type, 0, 0, 0), Status.INVALID);
  for (const type of [READ, WRITE]) {
    assert.equal(check(BOUNDS, type, 0, 0, 65_536), Status.OK);
    assert.equal(check(BOUNDS, type, 0, 0, 65_536 + 512), Status.INVALID);
  }
  for (const type of [DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS]) {
    assert.equal(check(BOUNDS, type, 0, 0, 2 ** 33), Status.OK);
  }
});

Deno.test("offset and length are whole blocks, also above 2^31 and 2^32", () => {
  for (const base of [0, 2 ** 31, 2 ** 32, 2 ** 32 + 2 ** 31]) {
    for (const logicalBlock of [512, 4096, 65_536]) {
      const bounds = { ...BOUNDS, logicalBlock };
      for (const type of RANGED) {
        assert.equal(check(bounds, type, 0, base, logicalBlock), Status.OK);
        assert.equal(check(bounds, type, 0, base + logicalBlock / 2, logicalBlock), Status.INVALID);
        assert.equal(check(bounds, type, 0, base, logicalBlock / 2), Status.INVALID);
        assert.equal(check(bounds, type, 0, base, logicalBlock - 1), Status.INVALID);
      }
    }
  }
  assert.equal(check({ ...BOUNDS, logicalBlock: 1 }, READ, 0, 3, 5), Status.OK);
});

Deno.test("a read-only session refuses mutations and nothing else", () => {
  const bounds = { ...BOUNDS, readOnly: true };
  for (const type of RANGED) {
    assert.equal(check(bounds, type, 0, 0, 512), isMutation(type) ? Status.READ_ONLY : Status.OK);
  }
  assert.equal(check(bounds, FLUSH, 0, 0, 0), Status.OK);
});

Deno.test("the first broken rule gives the status", () => {
  const bounds = { ...BOUNDS, readOnly: true };
  assert.equal(check(bounds, WRITE, 2, -1, 0), Status.INVALID);
  assert.equal(check(bounds, WRITE, 0, -1, 0), Status.READ_ONLY);
  assert.equal(check(BOUNDS, WRITE, 0, -1, 0), Status.INVALID);
  assert.equal(check(BOUNDS, WRITE, 0, 2 ** 33 + 1, 1), Status.OUT_OF_RANGE);
  assert.equal(check(BOUNDS, WRITE, 0, 1, 512), Status.INVALID);
});
