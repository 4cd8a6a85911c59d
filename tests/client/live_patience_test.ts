/**
 * A session whose patience changes while it lives, against a scripted exporter.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { FrameType } from "../../protocol/wire.ts";
import { rejoin, scripted, silent, start } from "./patient.ts";

const LONG = { resendMs: 60_000, resends: 10, deadMs: 600_000, pingIdleMs: 60_000 };

Deno.test("a shorter time fails what waits already for a connection", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter, { patience: LONG });
  await using _ = lane;
  const sent = lane.write(0, 512, 1);
  await visit.take();
  visit.peer.close();
  const waiting = lane.read(8192, 512);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(lane.session.inFlight, 2);
  lane.setPatience({ resendMs: 10, resends: 2 });
  const outcomes = await Promise.all([sent, waiting]);
  assert.deepEqual(outcomes.map(({ status }) => status), [-Errno.ETIMEDOUT, -Errno.ETIMEDOUT]);
});

Deno.test("a longer time saves what would have failed, and it is sent again", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 300, resends: 2, deadMs: 60_000 } });
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await first.take();
  first.peer.close();
  lane.setPatience({ resends: Infinity });
  await new Promise((resolve) => setTimeout(resolve, 900));
  assert.equal(lane.session.inFlight, 1);
  const { visit } = await rejoin(exporter);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
  assert(!lane.told.some((text) => text.includes("expired")), lane.told.join("; "));
});

Deno.test("a shorter ping interval has a silent exporter pinged at once, and a shorter dead time gives it up", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter, { patience: LONG });
  await using _ = lane;
  visit.peer.answersPings = false;
  const next = await silent(visit, 100);
  lane.setPatience({ pingIdleMs: 10 });
  assert.equal((await next()).type, FrameType.PING);
  assert.deepEqual(lane.told, []);
  lane.setPatience({ deadMs: 20 });
  await rejoin(exporter);
  assert.match(lane.told.join("; "), /^away: .*/);
});
