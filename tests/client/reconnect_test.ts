/**
 * A session that loses its connection, against a scripted exporter: what it says when it comes back, in which order it
 * sends what, and when it gives up.
 *
 * @module
 */
import assert from "node:assert/strict";
import { GENERATION_STEP } from "../../client/reconnect.ts";
import { Errno } from "../../ffi/errno.ts";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { greet, local, PatientLane, placeOf, rejoin, scripted, SharedSession, silent, start, u32 } from "./patient.ts";

/** Volatile cache, DISCARD, WRITE_ZEROES, FAST_ZERO, BLOCK_STATUS and CACHE. */
const CACHED = 1 | 2 | 4 | 8 | 16 | 32;

Deno.test("what has no answer is sent again with its sequence and bytes, on a lane of a higher generation", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  for (let i = 0; i < 3; i++) {
    const done = lane.write(0, 512, i);
    await first.reply(await first.take());
    await done;
  }
  const write = lane.write(4096, 1024, 7);
  const read = lane.read(8192, 512);
  const sent = [await first.take(), await first.take()];
  first.peer.close();
  const { visit, asked } = await rejoin(exporter);
  assert.deepEqual([u32(asked, Tlv.LANE), u32(asked, Tlv.GENERATION), asked.has(Tlv.FRESH)], [0, 2, false]);
  const again = [await visit.take(), await visit.take()].sort((a, b) => a.type - b.type);
  assert.deepEqual(again.map(placeOf), sent.sort((a, b) => a.type - b.type).map(placeOf));
  assert.deepEqual(again[1].payload, new Uint8Array(1024).fill(7));
  await visit.reply(again[1]);
  await visit.reply(again[0], new Uint8Array(512).fill(9));
  assert.deepEqual([(await write).status, (await read).status], [0, 0]);
  assert.deepEqual((await read).payload, new Uint8Array(512).fill(9));
  assert.match(lane.told[0], /^away: the (exporter closed the connection|connection was lost)/);
  assert.deepEqual(lane.told.slice(1), ["back, 2 resent"]);
});

Deno.test("each try has a higher generation, and requests made meanwhile wait", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  first.peer.close();
  const write = lane.write(0, 512, 1);
  const generations: number[] = [];
  for (const status of [Status.TOO_MANY, Status.OLD_GENERATION, Status.BUSY]) {
    const visit = await greet(exporter);
    generations.push(u32(await visit.refuseType(FrameType.JOIN, status, "not now"), Tlv.GENERATION));
    await visit.peer.ended();
  }
  assert.equal(lane.session.away!.reason.includes("not now"), true);
  assert.equal(lane.session.inFlight, 1);
  const { visit, asked } = await rejoin(exporter);
  generations.push(u32(asked, Tlv.GENERATION));
  // Somebody else may have used some of those: it goes ahead.
  assert.deepEqual(generations, [2, 3, GENERATION_STEP + 4, GENERATION_STEP + 5]);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
  assert.equal(lane.session.away, null);
});

Deno.test("where the exporter has no session any more, it is opened again with its identities, and all is new", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [lane, first] = await start(exporter, { shared });
  await using _ = lane;
  for (let i = 0; i < 2; i++) {
    const done = lane.write(0, 512, i);
    await first.reply(await first.take());
    await done;
  }
  const writes = [lane.write(0, 4096, 1), lane.write(8192, 4096, 2), lane.write(16384, 4096, 3)];
  for (let i = 0; i < 3; i++) await first.take();
  first.peer.close();
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  const asked = await visit.grant({ identities: [9, 2, 3], slots: 2, maxPayload: 4096 });
  assert.deepEqual(asked.get(Tlv.SESSION)![0], shared.id);
  assert.deepEqual([asked.has(Tlv.STEAL), u32(asked, Tlv.ACCESS), u32(asked, Tlv.LANES)], [false, 1, 2]);
  assert.ok(u32(asked, Tlv.LEASE) >= 600_000);
  const resume = asked.get(Tlv.RESUME)![0];
  assert.deepEqual(resume.subarray(0, 16), new Uint8Array(16).fill(3));
  assert.deepEqual(resume.subarray(16, 32), new Uint8Array(16).fill(2));
  assert.equal(new DataView(resume.slice().buffer).getBigUint64(32, true), 77n);
  // In the order in which they were asked for, no more than are granted.
  const [one, two] = [await visit.take(), await visit.take()];
  assert.deepEqual([one, two].map(({ sequence, offset }) => [sequence, offset]), [[1, 0], [1, 8192]]);
  const later = await silent(visit);
  await visit.reply(one);
  const three = await later();
  assert.deepEqual([three.slot, three.sequence, three.offset], [one.slot, 2, 16384]);
  await visit.reply(three);
  await visit.reply(two);
  for (const write of writes) assert.equal((await write).status, 0);
});

Deno.test("a smaller maximum payload makes parts of what was sent whole", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  const write = lane.write(0, 8192, 5);
  assert.equal((await first.take()).length, 8192);
  first.peer.close();
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.grant({ identities: [9, 2, 3], maxPayload: 4096 });
  for (const offset of [0, 4096]) {
    const frame = await visit.take();
    assert.deepEqual([frame.offset, frame.length], [offset, 4096]);
    assert.deepEqual(frame.payload, new Uint8Array(4096).fill(5));
    await visit.reply(frame);
  }
  assert.equal((await write).status, 0);
});

for (
  const { what, status, identities, reason } of [
    { what: "another writer", status: Status.EPOCH_CHANGED, identities: null, reason: /taken over/ },
    { what: "another disk", status: Status.STORAGE_CHANGED, identities: null, reason: /another disk/ },
    { what: "an answer with another disk", status: Status.OK, identities: [9, 2, 8] as const, reason: /another disk/ },
  ]
) {
  Deno.test(`${what} ends the session for good`, async () => {
    using exporter = scripted();
    const [lane, first] = await start(exporter);
    await using _ = lane;
    const write = lane.write(0, 512, 1);
    await first.take();
    first.peer.close();
    const visit = await greet(exporter);
    await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
    if (identities === null) await visit.refuse(status, "no");
    else await visit.grant({ identities });
    assert.equal((await write).status, -Errno.ESTALE);
    await visit.peer.ended();
    assert.equal((await lane.read(0, 512)).status, -Errno.ESTALE);
    assert.match(lane.told.at(-1)!, reason);
    assert.match(lane.session.failure!, reason);
  });
}

Deno.test("a lost durability epoch fails writes and flushes for good where something was not flushed; reads go on", async () => {
  for (const isFlushed of [false, true]) {
    using exporter = scripted();
    const [lane, first] = await start(exporter, {}, { features: CACHED });
    await using _ = lane;
    const done = lane.write(0, 512, 1);
    await first.reply(await first.take());
    await done;
    if (isFlushed) {
      const flush = lane.submit(Operation.FLUSH, 0, 0);
      await first.reply(await first.take());
      assert.equal((await flush).status, 0);
    }
    const pending = [lane.write(4096, 512, 2), lane.submit(Operation.FLUSH, 0, 0)];
    const read = lane.read(0, 512);
    for (let i = 0; i < 3; i++) await first.take();
    first.peer.close();
    const visit = await greet(exporter);
    await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
    await visit.grant({ identities: [9, 8, 3], features: CACHED });
    for (let i = isFlushed ? 3 : 1; i > 0; i--) {
      const frame = await visit.take();
      await visit.reply(frame, frame.type === Operation.READ ? new Uint8Array(512) : undefined);
    }
    assert.equal((await read).status, 0);
    const expected = isFlushed ? 0 : -Errno.EIO;
    for (const one of pending) assert.equal((await one).status, expected);
    if (isFlushed) continue;
    assert.equal((await lane.write(0, 512, 3)).status, -Errno.EIO);
    assert.equal((await lane.submit(Operation.FLUSH, 0, 0)).status, -Errno.EIO);
    assert.equal(lane.session.failure, null);
  }
});

Deno.test("a lane whose session lane 0 has opened again is joined fresh", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [one, firstOfOne] = await start(exporter, { shared }, { lanes: 2 });
  await using _one = one;
  const [two, { visit: firstOfTwo }] = await Promise.all([
    PatientLane.open(exporter.port, { shared, lane: 1 }),
    rejoin(exporter, { lanes: 2 }, 1),
  ]);
  await using _two = two;
  for (let i = 0; i < 2; i++) {
    const done = two.read(0, 512);
    await firstOfTwo.reply(await firstOfTwo.take(), new Uint8Array(512));
    await done;
  }
  const read = two.read(0, 512);
  assert.equal((await firstOfTwo.take()).sequence, 3);
  // The same process of the exporter, whose patience was at its end.
  firstOfOne.peer.close();
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.grant({ lanes: 2 });
  while (one.session.away !== null) await new Promise((resolve) => setTimeout(resolve, 5));
  firstOfTwo.peer.close();
  const { visit: next, asked } = await rejoin(exporter, { lanes: 2 }, 1);
  assert.equal(asked.has(Tlv.FRESH), true);
  const frame = await next.take();
  assert.equal(frame.sequence, 1);
  await next.reply(frame, new Uint8Array(512));
  assert.equal((await read).status, 0);
});

Deno.test("an overdue request is asked after, and as long as it executes nothing is sent again", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter, { patience: { resendMs: 100, resends: 3, deadMs: 60_000 } });
  await using _ = lane;
  visit.peer.answersPings = false;
  const write = lane.write(0, 512, 1);
  const frame = await visit.take();
  for (let probes = 0; probes < 6;) {
    const { type, slot, sequence, flags, offset } = await visit.peer.receive();
    const isProbe = flags !== 0;
    // It may be asked for life alone, too.
    assert.deepEqual([type, slot, sequence], [FrameType.PING, isProbe ? frame.slot : 0, isProbe ? frame.sequence : 0]);
    await visit.peer.send({ type: FrameType.PING | REPLY, flags, slot, sequence, offset, status: isProbe ? 1 : 0 });
    if (isProbe) probes++;
  }
  await visit.reply(frame);
  assert.equal((await write).status, 0);
  assert.deepEqual(lane.told, []);
});

for (
  const { state, probes, what } of [
    { state: 0, probes: 1, what: "does not know" },
    { state: 2, probes: 3, what: "says again and again that it is done with" },
  ]
) {
  Deno.test(`a request that the exporter ${what} is sent again on another connection`, async () => {
    using exporter = scripted();
    const [lane, visit] = await start(exporter, { patience: { resendMs: 50 } });
    await using _ = lane;
    visit.peer.answersPings = false;
    const write = lane.write(0, 512, 1);
    await visit.take();
    for (let i = 0; i < probes; i++) {
      const { slot, sequence, flags, offset } = await visit.peer.receive();
      await visit.peer.send({ type: FrameType.PING | REPLY, flags, slot, sequence, offset, status: state });
    }
    const { visit: next } = await rejoin(exporter);
    next.peer.answersPings = true;
    await next.reply(await next.take());
    assert.equal((await write).status, 0);
  });
}

Deno.test("what an exporter that ends does not take any more waits for the next one", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter);
  await using _ = lane;
  const writes = [lane.write(0, 512, 1), lane.write(4096, 512, 2)];
  const [one, two] = [await visit.take(), await visit.take()];
  await visit.peer.send({ type: FrameType.SHUTTING_DOWN });
  await visit.reply(two, undefined, Status.SHUTTING_DOWN);
  await visit.reply(one);
  assert.equal((await writes[0]).status, 0);
  const read = lane.read(0, 512);
  await silent(visit);
  assert.equal(lane.session.inFlight, 2);
  visit.peer.close();
  const { visit: next } = await rejoin(exporter);
  const frames = [await next.take(), await next.take()].sort((a, b) => a.type - b.type);
  assert.deepEqual(frames.map(({ type, offset }) => [type, offset]), [[1, 0], [2, 4096]]);
  await next.reply(frames[0], new Uint8Array(512));
  await next.reply(frames[1]);
  assert.deepEqual([(await read).status, (await writes[1]).status], [0, 0]);
  assert.equal(lane.told[0], "shutting down");
});

Deno.test("FENCED ends the session at once, also one that is patient", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter);
  await using _ = lane;
  const write = lane.write(0, 512, 1);
  await visit.take();
  await visit.peer.send({ type: FrameType.FENCED });
  await visit.peer.flush();
  visit.peer.close();
  assert.equal((await write).status, -Errno.ESTALE);
  assert.deepEqual(lane.told, ["lost: another client has taken over the export"]);
});

Deno.test("a silent exporter is given up, and what it has is sent again on another connection", async () => {
  using exporter = scripted();
  const [lane, visit] = await start(exporter, { patience: { pingIdleMs: 100, deadMs: 300 } });
  await using _ = lane;
  visit.peer.answersPings = false;
  const read = lane.read(0, 512);
  await visit.take();
  const { visit: next } = await rejoin(exporter);
  await next.reply(await next.take(), new Uint8Array(512));
  assert.equal((await read).status, 0);
  assert.match(lane.told[0], /^away: .*silent for too long/);
});

Deno.test("the name is looked up again each time, and when that takes too long the known addresses do", async () => {
  using first = scripted();
  using second = scripted();
  let answer: number | null = second.port;
  const around = {
    random: () => 0,
    lookup: (found: (addresses: readonly ReturnType<typeof local>[]) => void) => {
      if (answer !== null) found([local(answer)]);
    },
  };
  const [lane, visit] = await Promise.all([PatientLane.open(first.port, {}, around), first.serve()]);
  await using _ = lane;
  visit.peer.close();
  const { visit: moved } = await rejoin(second);
  answer = null;
  moved.peer.close();
  await rejoin(second);
});

Deno.test("when nothing comes of what is sent again, it is sent as new", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  const read = lane.read(0, 512);
  await first.take();
  first.peer.close();
  const { visit, asked } = await rejoin(exporter);
  assert.equal(asked.has(Tlv.FRESH), false);
  await visit.take();
  // As one does that knows another sequence of that slot.
  visit.peer.close();
  const { visit: next, asked: again } = await rejoin(exporter);
  assert.equal(again.has(Tlv.FRESH), true);
  const frame = await next.take();
  assert.equal(frame.sequence, 1);
  await next.reply(frame, new Uint8Array(512));
  assert.equal((await read).status, 0);
});

Deno.test("of two machines of one name the other one has no say as long as the right one is out of reach", async () => {
  using right = scripted();
  using wrong = scripted();
  const around = {
    random: () => 0,
    lookup: (found: (addresses: readonly ReturnType<typeof local>[]) => void) => {
      found([local(wrong.port), local(right.port)]);
    },
  };
  const [lane, visit] = await Promise.all([PatientLane.open(right.port, {}, around), right.serve()]);
  await using _ = lane;
  const read = lane.read(0, 512);
  await visit.take();
  visit.peer.close();
  // It is tried first, and is busy.
  const busy = await greet(right);
  await busy.refuseType(FrameType.JOIN, Status.TOO_MANY, "not now");
  const stranger = await greet(wrong);
  await stranger.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await stranger.refuse(Status.STORAGE_CHANGED, "not the same disk");
  const { visit: next } = await rejoin(right);
  await next.reply(await next.take(), new Uint8Array(512));
  assert.equal((await read).status, 0);
});
