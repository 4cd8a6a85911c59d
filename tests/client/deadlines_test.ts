/**
 * When requests of a patient session fail, and when they must not, against a scripted exporter.
 *
 * @module
 */
import assert from "node:assert/strict";
import { MutationLedger } from "../../client/ledger.ts";
import { Errno } from "../../ffi/errno.ts";
import { Operation } from "../../protocol/request.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, ProbeState, REPLY } from "../../protocol/wire.ts";
import type { Frame } from "../protocol/bytes.ts";
import { EndOfStream } from "../protocol/peer.ts";
import { grantTlvs, type ScriptedExporter, type Visit } from "../protocol/scripted_exporter.ts";
import { greet, PatientLane, rejoin, scripted, SharedSession, silent, start } from "./patient.ts";

/** Requests fail after 400 ms without life. */
const HASTY = { resendMs: 200, resends: 2, deadMs: 30_000 };

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The next request; until it comes all that was taken before executes. */
async function executing(visit: Visit): Promise<Frame> {
  visit.peer.answersPings = false;
  for (;;) {
    const frame = await visit.peer.receive();
    if (frame.type !== FrameType.PING) return frame;
    const { flags, slot, sequence, offset } = frame;
    const status = flags === 0 ? 0 : ProbeState.EXECUTING;
    await visit.peer.send({ type: FrameType.PING | REPLY, flags, slot, sequence, offset, status });
  }
}

/** Two lanes of a session, the second at another exporter, so that each is told something else. */
async function twoLanes(first: ScriptedExporter, second: ScriptedExporter, shared = new SharedSession()) {
  const [one, visitOfOne] = await start(first, { shared, patience: HASTY }, { lanes: 2 });
  const [two, { visit: visitOfTwo }] = await Promise.all([
    PatientLane.open(second.port, { shared, lane: 1, patience: HASTY }),
    rejoin(second, { lanes: 2 }, 1),
  ]);
  return { one, two, visitOfOne, visitOfTwo };
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

Deno.test("what waits on a lane in good health has its whole time from when another lane begins to owe a fence", async () => {
  using first = scripted();
  using second = scripted();
  const { one, two, visitOfOne, visitOfTwo } = await twoLanes(first, second);
  await using _one = one;
  await using _two = two;
  const lost = one.write(8192, 512, 1);
  await visitOfOne.take();
  const slow = two.write(0, 4096, 2);
  const frame = await visitOfTwo.take();
  const blocked = two.write(0, 512, 3);
  const next = executing(visitOfTwo);
  next.catch(() => {});
  await after(500);
  visitOfOne.peer.close();
  assert.equal((await lost).status, -Errno.ETIMEDOUT);
  await after(200);
  assert.equal((await rejoin(first, { lanes: 2 })).asked.has(Tlv.FRESH), true);
  assert.equal(two.session.inFlight, 2);
  await visitOfTwo.reply(frame);
  assert.equal((await slow).status, 0);
  await visitOfTwo.reply(await next);
  assert.equal((await blocked).status, 0);
  assert.deepEqual(two.told, []);
});

Deno.test("what a lane may not send again until another one is fenced fails in its time, and the lane is fenced too", async () => {
  using first = scripted();
  using second = scripted();
  const { one, two, visitOfOne, visitOfTwo } = await twoLanes(first, second);
  await using _one = one;
  await using _two = two;
  const lost = one.write(8192, 512, 1);
  const held = two.write(0, 512, 2);
  await visitOfOne.take();
  await visitOfTwo.take();
  const pings = executing(visitOfTwo).catch(() => null);
  visitOfOne.peer.close();
  assert.equal((await lost).status, -Errno.ETIMEDOUT);
  visitOfTwo.peer.close();
  await pings;
  const { visit, asked } = await rejoin(second, { lanes: 2 }, 1);
  assert.equal(asked.has(Tlv.FRESH), false);
  const nothing = executing(visit).catch(() => null);
  await after(1000);
  assert.equal(two.session.inFlight, 0);
  assert.equal((await held).status, -Errno.ETIMEDOUT);
  const { visit: third, asked: again } = await rejoin(second, { lanes: 2 }, 1);
  assert.equal(again.has(Tlv.FRESH), true);
  assert.equal(await nothing, null);
  // As soon as the other lane is fenced everything goes on.
  const late = two.write(0, 512, 3);
  assert.equal((await rejoin(first, { lanes: 2 })).asked.has(Tlv.FRESH), true);
  const frame = await executing(third);
  assert.deepEqual([frame.sequence, frame.payload[0]], [1, 3]);
  await third.reply(frame);
  assert.equal((await late).status, 0);
});

Deno.test("a request of which nothing comes on one connection after the other fails, though each is granted", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: { resendMs: 100, resends: 4 } });
  await using _ = lane;
  let isOver = false;
  const poison = lane.write(0, 512, 1).finally(() => isOver = true);
  await first.take();
  first.peer.close();
  let connections = 1;
  let waiting: Promise<Visit> | null = null;
  while (!isOver) {
    waiting = rejoin(exporter).then(({ visit }) => visit);
    const visit = await Promise.race([waiting, poison.then(() => null)]);
    if (visit === null) break;
    waiting = null;
    assert.ok(++connections < 20, "it never fails");
    // It may have failed just now: then the lane gives this connection up, to be joined fresh.
    const isGone = await visit.take().then(
      () => false,
      (error) => error instanceof EndOfStream || Promise.reject(error),
    );
    visit.peer.close();
    if (isGone) await poison;
  }
  assert.equal((await poison).status, -Errno.ETIMEDOUT);
  assert.ok(connections > 4, `${connections} connections`);
  const read = lane.read(0, 512);
  const visit = await (waiting ?? rejoin(exporter).then(({ visit }) => visit));
  await visit.reply(await visit.take(), new Uint8Array(512));
  assert.equal((await read).status, 0);
});

Deno.test("once something is lost, no write and no flush succeeds that was sent before", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [lane, first] = await start(exporter, { shared, depth: 3 }, { slots: 3 });
  await using _ = lane;
  const writers = [lane.write(0, 512, 1), lane.submit(Operation.FLUSH, 0, 0)];
  await first.take();
  await first.reply(await first.take());
  assert.equal((await writers[1]).status, 0);
  const flush = lane.submit(Operation.FLUSH, 0, 0);
  const frame = await first.take();
  const read = lane.read(0, 512);
  await first.take();
  new MutationLedger(shared.ledger).lose();
  await first.reply(frame);
  assert.equal((await flush).status, -Errno.EIO);
  first.peer.close();
  const { visit, asked } = await rejoin(exporter, { slots: 3 });
  assert.equal(asked.has(Tlv.FRESH), false);
  for (let i = 0; i < 2; i++) {
    const again = await visit.take();
    await visit.reply(again, new Uint8Array(again.type === Operation.READ ? 512 : 0));
  }
  assert.deepEqual([(await writers[0]).status, (await read).status], [-Errno.EIO, 0]);
  // No slot of the lane is lost by that.
  const reads = [lane.read(0, 512), lane.read(512, 512), lane.read(1024, 512)];
  for (const one of [await visit.take(), await visit.take(), await visit.take()]) {
    await visit.reply(one, new Uint8Array(512));
  }
  for (const one of reads) assert.equal((await one).status, 0);
});

Deno.test("time in which nobody here could do anything does not count", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, { patience: HASTY });
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await first.take();
  first.peer.close();
  // As of a process that is stopped, and goes on when the connection is long lost.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
  const { visit } = await rejoin(exporter);
  assert.equal(lane.session.inFlight, 1);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
});
