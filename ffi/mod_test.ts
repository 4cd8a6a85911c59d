import assert from "node:assert/strict";
import { makeLoop } from "./mod.ts";
import { uringAvailable } from "./uring.ts";

Deno.test("the automatic choice is io_uring where it can be had, and asking for it elsewhere says why not", () => {
  const reason = uringAvailable();
  const automatic = makeLoop("auto");
  assert.equal(automatic.name, reason === null ? "uring" : "poll");
  automatic.close();
  if (reason === null) {
    const ring = makeLoop("uring");
    assert.equal(ring.name, "uring");
    ring.close();
  } else {
    assert.throws(() => makeLoop("uring"), { message: `Cannot use io_uring: ${reason}; use --loop poll` });
  }
});

Deno.test("the poll loop is had for the asking", () => {
  const loop = makeLoop("poll", 16);
  assert.equal(loop.name, "poll");
  loop.close();
});
