import assert from "node:assert/strict";
import { formatTable, median } from "./table.ts";

Deno.test("the median is the middle value, or the mean of the middle two", () => {
  assert.equal(median([3]), 3);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.throws(() => median([]), RangeError);
});

Deno.test("columns of a table are as wide as their widest cell", () => {
  assert.equal(formatTable([["", "a"], ["long", "10"]]), "       a\nlong  10");
});
