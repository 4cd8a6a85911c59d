/**
 * When requests of a patient session fail, and when they must not, against a scripted exporter.
 *
 * @module
 */
import assert from "node:assert/strict";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { grantTlvs } from "../protocol/scripted_exporter.ts";
import { greet, scripted, silent, start } from "./patient.ts";

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

Deno.test("an idle connection is pinged before it is given up, however soon requests fail", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter, { patience: { resendMs: 100, resends: 3 } });
  await using _ = lane;
  await silent(visit, 1000);
  assert.deepEqual(lane.told, []);
});

Deno.test("an exporter that finishes what was sent before has time to say so, however soon it has to be reached", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 5000, connectMs: 200 } });
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await first.take();
  first.peer.close();
  const visit = await greet(exporter);
  await visit.request(FrameType.JOIN);
  // As long as that takes an exporter.
  await after(1200);
  await visit.peer.send({ type: FrameType.FENCING, length: 1 });
  await visit.peer.send({ type: FrameType.JOIN | REPLY, payload: grantTlvs() });
  visit.peer.enterLane(0);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
});
