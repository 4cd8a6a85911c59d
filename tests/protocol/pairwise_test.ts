import assert from "node:assert/strict";
import { pairsOf, pairwise, product } from "./pairwise.ts";

Deno.test("every pair that may meet meets, and rows that may not be are not", () => {
  const factors = { letter: ["a", "b", "c", "d", "e"], digit: [1, 2, 3], sign: ["+", "-"] };
  const allows = (row: { letter: string; digit: number }) => !(row.letter === "a" && row.digit === 3);
  const rows = pairwise(factors, allows);
  const met = new Set(rows.flatMap(pairsOf));
  for (const row of product(factors)) {
    for (const pair of pairsOf(row)) assert.equal(met.has(pair), pair !== "letter=a digit=3", pair);
  }
  assert.ok(rows.every(allows));
  assert.ok(rows.length < product(factors).length);
});

Deno.test("the rows are the same each time", () => {
  const factors = { one: [1, 2, 3], other: ["x", "y", "z"], third: ["p", "q"] };
  assert.deepEqual(pairwise(factors, () => true), pairwise(factors, () => true));
});
