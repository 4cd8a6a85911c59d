import assert from "node:assert/strict";
import { makeStickyWord, StickyFailure } from "./sync.ts";

Deno.test("of all failures of a disk, in all its Workers, the first is kept, and told once", () => {
  const word = makeStickyWord();
  const told: string[] = [];
  const one = new StickyFailure(word, () => told.push("one"));
  const other = new StickyFailure(word, () => told.push("other"));
  assert.equal(one.status, 0);
  other.record(-5);
  one.record(-28);
  other.record(-28);
  assert.equal(one.status, -5);
  assert.equal(other.status, -5);
  assert.deepEqual(told, ["other"]);
});
