import assert from "node:assert/strict";
import { parseDigests } from "./digests.ts";

Deno.test("a list of digests keeps its order", () => {
  assert.deepEqual(parseDigests("crc32c"), ["crc32c"]);
  assert.deepEqual(parseDigests("none, xxh64"), ["none", "xxh64"]);
});

Deno.test("a digest that is unknown or repeated is refused", () => {
  assert.throws(() => parseDigests("xxh46"), /"xxh46" is not one of .*did you mean xxh64/);
  assert.throws(() => parseDigests("none,none"), /given twice/);
  assert.throws(() => parseDigests(""), /not one of/);
});
