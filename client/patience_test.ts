import assert from "node:assert/strict";
import { lastsMs, leaseMs, pingMs, windowMs } from "./patience.ts";

const USUAL = { resendMs: 5000, resends: 20, connectMs: 5000, pingIdleMs: 1000, deadMs: 15_000 };

Deno.test("the exporter is asked to keep the export for longer than any request lives, and never for more than a day", () => {
  assert.equal(windowMs(USUAL), 100_000);
  assert(leaseMs(USUAL) > windowMs(USUAL) + USUAL.deadMs);
  assert.equal(leaseMs({ ...USUAL, resends: Infinity }), 86_400_000);
  assert.equal(leaseMs({ ...USUAL, resends: 1e6 }), 86_400_000);
});

Deno.test("no connection outlives the requests on it", () => {
  assert.equal(lastsMs(USUAL), 15_000);
  assert.equal(lastsMs({ ...USUAL, resends: 2 }), 10_000);
  assert.equal(lastsMs({ ...USUAL, resends: Infinity }), 15_000);
});

Deno.test("every connection is pinged before it is given up", () => {
  assert.equal(pingMs(USUAL), 1000);
  assert.equal(pingMs({ ...USUAL, resends: Infinity, deadMs: 1001 }), 1000);
  assert.equal(pingMs({ ...USUAL, resendMs: 100, resends: 6 }), 200);
});
