import assert from "node:assert/strict";
import { withoutBackground } from "./background.ts";

Deno.test("the child is started without --background, whatever else is given", () => {
  assert.deepEqual(withoutBackground(["export", "--background", "a", "--json"]), ["export", "a", "--json"]);
  assert.deepEqual(withoutBackground(["export", "--", "--background"]), ["export", "--", "--background"]);
  assert.deepEqual(withoutBackground([]), []);
});
