/**
 * What a session holds back, against a scripted exporter: mutations that overlap, what waits for a fence, and what has
 * waited for too long.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { Operation } from "../../protocol/request.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { grantTlvs } from "../protocol/scripted_exporter.ts";
import { greet, PatientLane, rejoin, scripted, SharedSession, silent, start } from "./patient.ts";

Deno.test("a mutation waits for those before it that it overlaps, and for nothing else", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  const writes = [lane.write(0, 1024, 1), lane.write(512, 1024, 2), lane.write(1024, 512, 3), lane.write(4096, 512, 4)];
  const read = lane.read(0, 512);
  const started = [await first.take(), await first.take(), await first.take()];
  assert.deepEqual(started.map(({ type, offset }) => [type, offset]), [[2, 0], [2, 4096], [1, 0]]);
  const later = await silent(first);
  first.peer.close();
  await later().catch(() => {});
  // On the next connection the same holds.
  const { visit } = await rejoin(exporter);
  const again = [await visit.take(), await visit.take(), await visit.take()];
  assert.deepEqual(again.map(({ offset }) => offset).sort((a, b) => a - b), [0, 0, 4096]);
  const second = await silent(visit);
  await visit.reply(again.find(({ type, offset }) => type === Operation.WRITE && offset === 0)!);
  const frame = await second();
  assert.deepEqual([frame.offset, frame.payload[0]], [512, 2]);
  const third = await silent(visit);
  await visit.reply(frame);
  await visit.reply(await third());
  for (const one of again) {
    if (one.type === Operation.READ) await visit.reply(one, new Uint8Array(512));
    else if (one.offset === 4096) await visit.reply(one);
  }
  for (const write of [...writes, read]) assert.equal((await write).status, 0);
});

Deno.test("what expires fails alone; then the lane is joined fresh, and the rest is sent as new", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 400, resends: 2, deadMs: 30_000 } });
  await using _ = lane;
  const early = [lane.write(0, 512, 1), lane.write(0, 512, 2), lane.read(4096, 512)];
  await first.take();
  await first.take();
  first.peer.close();
  const visit = await greet(exporter);
  // It is reached, but says nothing that is of use.
  const asked = await visit.request(FrameType.JOIN);
  assert.equal(asked.has(Tlv.FRESH), false);
  await new Promise((resolve) => setTimeout(resolve, 600));
  const late = lane.write(0, 512, 3);
  for (const one of early) assert.equal((await one).status, -Errno.ETIMEDOUT);
  assert.equal(lane.session.inFlight, 1);
  visit.peer.close();
  const { visit: next, asked: again } = await rejoin(exporter);
  assert.equal(again.has(Tlv.FRESH), true);
  const frame = await next.take();
  assert.deepEqual([frame.sequence, frame.payload[0]], [1, 3]);
  await next.reply(frame);
  assert.equal((await late).status, 0);
  assert.ok(lane.told.includes("3 expired"));
});

Deno.test("a lane that was asked for before something expired is asked for once more", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 300, resends: 2 } });
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await first.take();
  first.peer.close();
  const visit = await greet(exporter);
  await visit.request(FrameType.JOIN);
  assert.equal((await write).status, -Errno.ETIMEDOUT);
  await visit.peer.send({ type: FrameType.JOIN | REPLY, payload: grantTlvs() });
  await visit.peer.flush();
  const { asked } = await rejoin(exporter);
  assert.equal(asked.has(Tlv.FRESH), true);
});

Deno.test("FENCING is life: nothing expires while the exporter finishes what was sent before", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 300, resends: 2, connectMs: 10_000 } });
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await first.take();
  first.peer.close();
  const visit = await greet(exporter);
  await visit.request(FrameType.JOIN);
  for (let i = 0; i < 6; i++) {
    await visit.peer.send({ type: FrameType.FENCING, length: 1 });
    await visit.peer.flush();
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.equal(lane.session.inFlight, 1);
  await visit.peer.send({ type: FrameType.JOIN | REPLY, payload: grantTlvs() });
  visit.peer.enterLane(0);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
});

Deno.test("while a lane owes a fence no lane sends a mutation, and reads go on", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [one, firstOfOne] = await start(exporter, { shared, patience: { resendMs: 200, resends: 2 } }, { lanes: 2 });
  await using _one = one;
  const [two, { visit: firstOfTwo }] = await Promise.all([
    PatientLane.open(exporter.port, { shared, lane: 1 }),
    rejoin(exporter, { lanes: 2 }, 1),
  ]);
  await using _two = two;
  const lost = one.write(0, 512, 1);
  await firstOfOne.take();
  const blocked = two.write(0, 512, 2);
  firstOfOne.peer.close();
  assert.equal((await lost).status, -Errno.ETIMEDOUT);
  const other = two.write(8192, 512, 3);
  const read = two.read(0, 512);
  const frame = await firstOfTwo.take();
  assert.equal(frame.type, Operation.READ);
  await firstOfTwo.reply(frame, new Uint8Array(512));
  await read;
  const later = await silent(firstOfTwo);
  const { asked } = await rejoin(exporter, { lanes: 2 });
  assert.equal(asked.has(Tlv.FRESH), true);
  for (const frame of [await later(), await firstOfTwo.take()]) await firstOfTwo.reply(frame);
  assert.deepEqual([(await blocked).status, (await other).status], [0, 0]);
});

Deno.test("lanes never send what overlaps at the same time, and go on when the other is done", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [one, firstOfOne] = await start(exporter, { shared }, { lanes: 2 });
  await using _one = one;
  const [two, { visit: firstOfTwo }] = await Promise.all([
    PatientLane.open(exporter.port, { shared, lane: 1 }),
    rejoin(exporter, { lanes: 2 }, 1),
  ]);
  await using _two = two;
  const first = one.write(0, 4096, 1);
  const frame = await firstOfOne.take();
  const second = two.write(512, 512, 2);
  const later = await silent(firstOfTwo);
  await firstOfOne.reply(frame);
  await firstOfTwo.reply(await later());
  assert.deepEqual([(await first).status, (await second).status], [0, 0]);
});
