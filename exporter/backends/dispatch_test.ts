import assert from "node:assert/strict";
import { makeLoop } from "../../ffi/mod.ts";
import { SlotDispatch } from "./dispatch.ts";

Deno.test("a loop has one dispatch, for one number of slots", () => {
  const loop = makeLoop("poll");
  const first = SlotDispatch.of(loop, 4);
  assert.equal(SlotDispatch.of(loop, 4), first);
  assert.throws(() => SlotDispatch.of(loop, 5), /without sharing the slots/);
  loop.close();
});

Deno.test("each completion comes to who claimed the slot last", () => {
  const loop = makeLoop("poll");
  const dispatch = SlotDispatch.of(loop, 4);
  const seen: string[] = [];
  const owner = (name: string) => ({
    complete: (slot: number, generation: number, result: number) =>
      seen.push(`${name} ${slot} ${generation} ${result}`),
  });
  dispatch.claim(1, owner("a"));
  dispatch.claim(2, owner("b"));
  dispatch.complete(1, 7, 512);
  dispatch.complete(2, 8, -5);
  dispatch.claim(1, owner("c"));
  dispatch.complete(1, 9, 0);
  assert.deepEqual(seen, ["a 1 7 512", "b 2 8 -5", "c 1 9 0"]);
  loop.close();
});
