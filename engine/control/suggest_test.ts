import assert from "node:assert/strict";
import { nearest, suggestion } from "./suggest.ts";

const words = ["export", "attach", "detach", "status", "list", "info", "copy"];

Deno.test("the nearest word is found through one wrong, missing, added or swapped letter", () => {
  for (
    const [typed, word] of [
      ["exprot", "export"],
      ["atach", "attach"],
      ["dettach", "detach"],
      ["stetus", "status"],
      ["lst", "list"],
      ["stat", "status"],
    ]
  ) assert.equal(nearest(typed, words), word);
});

Deno.test("nothing is suggested when no word is near", () => {
  for (const typed of ["", "x", "zzzzzz", "mount"]) assert.equal(nearest(typed, words), null);
  assert.equal(suggestion("mount", words), "");
  assert.equal(suggestion("coyp", words), "; did you mean copy?");
  assert.equal(nearest("copy", []), null);
});
