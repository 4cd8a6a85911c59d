import assert from "node:assert/strict";
import { ClientPing } from "./client_ping.ts";

Deno.test("how long a silence may last can change while it lasts", () => {
  const liveness = { pingIdleMs: 100, deadMs: 1000 };
  let sent = 0;
  const ping = new ClientPing(1, liveness, () => sent++);
  const sequences = new Uint32Array(1);
  ping.reset(0);
  assert.equal(ping.tick(20, sequences), 80);
  liveness.pingIdleMs = 50;
  assert.equal(ping.tick(40, sequences), 10);
  assert.equal(ping.tick(50, sequences), 950);
  assert.equal(sent, 1);
  liveness.deadMs = 2000;
  assert.equal(ping.tick(1500, sequences), 500);
  liveness.deadMs = 1500;
  assert.equal(ping.tick(1500, sequences), 0);
});
