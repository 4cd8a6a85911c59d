/**
 * A session whose exporter loses its memory, against a scripted one: what is written again, in which order, and what becomes
 * of everything else meanwhile.
 *
 * @module
 */
import assert from "node:assert/strict";
import { MutationLedger } from "../../client/ledger.ts";
import { ReplayMemory } from "../../client/replay_log.ts";
import { Errno } from "../../ffi/errno.ts";
import { Operation, RequestFlag } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType } from "../../protocol/wire.ts";
import type { Frame } from "../protocol/bytes.ts";
import type { GrantWish, ScriptedExporter, Visit } from "../protocol/scripted_exporter.ts";
import { greet, PatientLane, rejoin, scripted, SharedSession, silent, start } from "./patient.ts";

/** Volatile cache, DISCARD, WRITE_ZEROES, FAST_ZERO, BLOCK_STATUS and CACHE. */
const CACHED: GrantWish = { features: 1 | 2 | 4 | 8 | 16 | 32 };
const SHARED: GrantWish = { features: CACHED.features! | 64 };
const SMALL = { pingIdleMs: 10_000 };

/** Opens a session that keeps copies. */
function keeping(exporter: ScriptedExporter, wish: GrantWish = {}, options: Parameters<typeof start>[1] = {}) {
  return start(exporter, { replays: true, ...options, patience: { ...SMALL, ...options.patience } }, {
    ...CACHED,
    ...wish,
  });
}

/** The exporter comes back as another process, in the durability epoch of that number. */
async function restarted(exporter: ScriptedExporter, epoch: number, wish: GrantWish = {}): Promise<Visit> {
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.grant({ ...CACHED, ...wish, identities: [100 + epoch, epoch, 3] });
  return visit;
}

/** Takes the next request and answers it; what it was. */
async function serve(visit: Visit, status: number = Status.OK): Promise<Frame> {
  const frame = await visit.take();
  await visit.reply(frame, frame.type === Operation.READ ? new Uint8Array(frame.length) : undefined, status);
  return frame;
}

/** Has a request done. */
async function done(visit: Visit, request: Promise<{ status: number }>): Promise<void> {
  await serve(visit);
  assert.equal((await request).status, 0);
}

/** What was asked for, in short. */
function shown({ type, offset, length, flags, payload }: Frame): unknown[] {
  return [type, offset, length, flags, payload[0]];
}

async function shownOf(visit: Visit, count: number): Promise<unknown[]> {
  const frames: unknown[] = [];
  for (let i = 0; i < count; i++) frames.push(shown(await serve(visit)));
  return frames;
}

const { WRITE, FLUSH, DISCARD, WRITE_ZEROES, READ } = Operation;
const FLUSHED = [FLUSH, 0, 0, 0, undefined];

Deno.test("all that was acknowledged and not covered is written again in its order, then flushed, then all goes on", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  await done(first, lane.write(65536, 512, 9));
  await done(first, lane.submit(FLUSH, 0, 0));
  await done(first, lane.write(0, 4096, 1));
  await done(first, lane.submit(WRITE_ZEROES, 0, 1024, undefined, RequestFlag.FAST_ZERO | RequestFlag.NO_UNMAP));
  await done(first, lane.write(512, 1024, 2, RequestFlag.FUA));
  await done(first, lane.submit(DISCARD, 2 ** 19, 2 ** 18));
  const pending = [lane.write(0, 512, 3), lane.read(0, 512), lane.submit(FLUSH, 0, 0)];
  for (let i = 0; i < 3; i++) await first.take();
  first.peer.close();
  const visit = await restarted(exporter, 8);
  const one = await visit.take();
  assert.deepEqual(shown(one), [WRITE, 0, 4096, 0, 1]);
  // What overlaps it waits, and so does all behind that.
  const next = await silent(visit);
  await visit.reply(one);
  const two = await next();
  assert.deepEqual(shown(two), [WRITE_ZEROES, 0, 1024, RequestFlag.NO_UNMAP, undefined]);
  await visit.reply(two);
  const [three, four] = [await visit.take(), await visit.take()];
  assert.deepEqual([three, four].map(shown), [[WRITE, 512, 1024, 0, 2], [DISCARD, 2 ** 19, 2 ** 18, 0, undefined]]);
  await visit.reply(four);
  const flush = await silent(visit);
  await visit.reply(three);
  const last = await flush();
  assert.deepEqual(shown(last), FLUSHED);
  const rest = await silent(visit);
  assert.equal(lane.session.inFlight, 3);
  await visit.reply(last);
  const frames = [await rest(), await visit.take(), await visit.take()];
  assert.deepEqual(frames.map(({ type }) => type).sort(), [READ, WRITE, FLUSH]);
  for (const frame of frames) await visit.reply(frame, new Uint8Array(frame.type === READ ? 512 : 0));
  for (const request of pending) assert.equal((await request).status, 0);
  assert.deepEqual(lane.told.slice(1), ["back, 3 resent", "replayed 4 (5120 bytes)"]);
});

Deno.test("what a FLUSH has covered is not written again, and without anything else there is no replay", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  await done(first, lane.write(0, 4096, 1));
  await done(first, lane.submit(FLUSH, 0, 0));
  await done(first, lane.write(8192, 4096, 2, RequestFlag.FUA));
  first.peer.close();
  const visit = await restarted(exporter, 8);
  await done(visit, lane.read(0, 512));
  assert.deepEqual(lane.told.slice(1), ["back, 0 resent"]);
});

Deno.test("a replay that loses its connection goes on, and one that meets another epoch begins again", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  for (let i = 0; i < 3; i++) await done(first, lane.write(i * 4096, 4096, i + 1));
  first.peer.close();
  const second = await restarted(exporter, 8);
  const frames = [await second.take(), await second.take(), await second.take()];
  await second.reply(frames[0]);
  await second.reply(frames[1]);
  await second.peer.flush();
  const read = lane.read(0, 512);
  second.peer.close();
  const { visit: third } = await rejoin(exporter, { ...CACHED, identities: [108, 8, 3] });
  // What was answered on the connection before is done; but a reply may have been lost with it.
  let frame = await third.take();
  const again: unknown[] = [];
  while (frame.type === WRITE) {
    again.push(frame.offset);
    await third.reply(frame);
    frame = await third.take();
  }
  assert.equal(again.at(-1), 8192);
  assert.deepEqual(shown(frame), FLUSHED);
  third.peer.close();
  const fourth = await restarted(exporter, 9);
  assert.deepEqual(await shownOf(fourth, 4), [
    [WRITE, 0, 4096, 0, 1],
    [WRITE, 4096, 4096, 0, 2],
    [WRITE, 8192, 4096, 0, 3],
    FLUSHED,
  ]);
  await serve(fourth);
  assert.equal((await read).status, 0);
  assert.deepEqual(lane.told.filter((text) => text.startsWith("replayed")), ["replayed 3 (12288 bytes)"]);
});

Deno.test("one lane writes again what was written on all, in one order, and the others wait for it", async () => {
  using first = scripted();
  using second = scripted();
  const shared = new SharedSession();
  const [one, visitOfOne] = await keeping(first, { lanes: 2 }, { shared });
  const [two, { visit: visitOfTwo }] = await Promise.all([
    PatientLane.open(second.port, { shared, lane: 1, replays: true, patience: SMALL }),
    rejoin(second, { ...CACHED, lanes: 2 }, 1),
  ]);
  await using _one = one;
  await using _two = two;
  await done(visitOfOne, one.write(0, 4096, 1));
  await done(visitOfTwo, two.write(0, 2048, 2));
  await done(visitOfOne, one.write(0, 1024, 3));
  await done(visitOfTwo, two.write(0, 512, 4));
  const late = one.write(16384, 512, 5);
  await visitOfOne.take();
  visitOfTwo.peer.close();
  const visit = await greet(second);
  await visit.grant({ ...CACHED, lanes: 2, identities: [108, 8, 3] }, FrameType.JOIN, 1);
  const replayed = await visit.take();
  assert.deepEqual(shown(replayed), [WRITE, 0, 4096, 0, 1]);
  // The other lane sends nothing, and its old connection is of no use any more.
  const read = one.read(0, 512);
  await silent(visitOfOne);
  visitOfOne.peer.close();
  const { visit: back } = await rejoin(first, { ...CACHED, lanes: 2, identities: [108, 8, 3] });
  const next = await silent(back);
  await visit.reply(replayed);
  assert.deepEqual(await shownOf(visit, 4), [
    [WRITE, 0, 2048, 0, 2],
    [WRITE, 0, 1024, 0, 3],
    [WRITE, 0, 512, 0, 4],
    FLUSHED,
  ]);
  const frames = [await next(), await back.take()];
  assert.deepEqual(frames.map(({ type }) => type).sort(), [READ, WRITE]);
  for (const frame of frames) await back.reply(frame, new Uint8Array(frame.type === READ ? 512 : 0));
  assert.deepEqual([(await late).status, (await read).status], [0, 0]);
  assert.deepEqual(two.told.filter((text) => text.startsWith("replayed")), ["replayed 4 (7680 bytes)"]);
  assert.deepEqual(one.told.filter((text) => text.startsWith("replayed")), []);
});

Deno.test("what an epoch that is over has acknowledged is not taken for done", async () => {
  using first = scripted();
  using second = scripted();
  const shared = new SharedSession();
  const [one, visitOfOne] = await keeping(first, { lanes: 2 }, { shared });
  const [two, { visit: visitOfTwo }] = await Promise.all([
    PatientLane.open(second.port, { shared, lane: 1, replays: true, patience: SMALL }),
    rejoin(second, { ...CACHED, lanes: 2 }, 1),
  ]);
  await using _one = one;
  await using _two = two;
  const pending = [one.write(0, 512, 1), one.submit(FLUSH, 0, 0)];
  const frames = [await visitOfOne.take(), await visitOfOne.take()];
  visitOfTwo.peer.close();
  await rejoin(second, { ...CACHED, lanes: 2, identities: [108, 8, 3] }, 1);
  while (two.told.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  await visitOfOne.reply(frames[1]);
  await visitOfOne.reply(frames[0]);
  const back = await restarted(first, 8, { lanes: 2 });
  const again = [await serve(back), await serve(back)];
  assert.deepEqual(again.map(({ type }) => type).sort(), [WRITE, FLUSH]);
  for (const request of pending) assert.equal((await request).status, 0);
});

Deno.test("a WRITE in parts is kept part by part, and goes on with the others after the replay", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter, { maxPayload: 4096 });
  await using _ = lane;
  const payload = new Uint8Array(12288).map((_, i) => 1 + Math.floor(i / 4096));
  const write = lane.submit(WRITE, 0, 12288, payload);
  assert.deepEqual(shown(await serve(first)), [WRITE, 0, 4096, 0, 1]);
  await first.take();
  first.peer.close();
  const visit = await restarted(exporter, 8, { maxPayload: 4096 });
  const first4096 = await serve(visit);
  assert.deepEqual(shown(first4096), [WRITE, 0, 4096, 0, 1]);
  assert.deepEqual(first4096.payload, new Uint8Array(4096).fill(1));
  assert.deepEqual(await shownOf(visit, 3), [FLUSHED, [WRITE, 4096, 4096, 0, 2], [WRITE, 8192, 4096, 0, 3]]);
  assert.equal((await write).status, 0);
});

Deno.test("what was written whole is written again in parts where the exporter takes no more", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  const payload = new Uint8Array(12288).map((_, i) => 1 + Math.floor(i / 4096));
  const written = lane.submit(WRITE, 4096, 12288, payload);
  await done(first, written);
  first.peer.close();
  const visit = await restarted(exporter, 8, { maxPayload: 4096, slots: 1 });
  assert.deepEqual(await shownOf(visit, 4), [
    [WRITE, 4096, 4096, 0, 1],
    [WRITE, 8192, 4096, 0, 2],
    [WRITE, 12288, 4096, 0, 3],
    FLUSHED,
  ]);
});

Deno.test("at half of its room a lane has the exporter flush, and without room writes wait until it has", async () => {
  using exporter = scripted();
  const [lane, visit] = await keeping(exporter, { maxPayload: 65536, size: 2 ** 30 });
  await using _ = lane;
  const memory = new ReplayMemory(new SharedSession().replay);
  assert.equal(memory.bytesOfLane, 2 ** 20);
  for (let i = 0; i < 7; i++) await done(visit, lane.write(i * 65536, 65536, i));
  const eighth = lane.write(7 * 65536, 65536, 7);
  await serve(visit);
  const flush = await visit.take();
  assert.equal(flush.type, FLUSH);
  assert.equal((await eighth).status, 0);
  // The other half is left, and no more.
  for (let i = 8; i < 16; i++) await done(visit, lane.write(i * 65536, 65536, i));
  const waiting = lane.write(16 * 65536, 65536, 16);
  const behind = lane.write(17 * 65536, 512, 17);
  await done(visit, lane.read(0, 512));
  const next = await silent(visit);
  await visit.reply(flush);
  const frames = [await next(), await visit.take(), await visit.take()];
  // There is much more than half again, so that the next FLUSH is due.
  assert.deepEqual(frames.map(({ type }) => type).sort(), [WRITE, WRITE, FLUSH]);
  for (const frame of frames) await visit.reply(frame);
  assert.deepEqual([(await waiting).status, (await behind).status], [0, 0]);
  assert.deepEqual(lane.told, []);
});

Deno.test("small writes are many: entries are flushed before they are short, too", async () => {
  using exporter = scripted();
  const [lane, visit] = await keeping(exporter);
  await using _ = lane;
  let flushes = 0;
  for (let i = 0; i < 540; i++) {
    const write = lane.write((i % 16) * 512, 512, i % 256);
    let frame = await serve(visit);
    if (frame.type === FLUSH) {
      flushes++;
      frame = await serve(visit);
    }
    assert.equal((await write).status, 0);
  }
  assert.equal(flushes, 1);
});

Deno.test("a FLUSH of its own that fails means that something may be lost: nothing is written any more, and nothing waits", async () => {
  using exporter = scripted();
  const [lane, visit] = await keeping(exporter);
  await using _ = lane;
  let flush: Frame | null = null;
  for (let i = 0; i < 16; i++) {
    const write = lane.write(i * 65536 % 2 ** 20, 65536, i);
    await visit.reply(await visit.take());
    assert.equal((await write).status, 0);
    if (i === 7) flush = await visit.take();
  }
  const waiting = lane.write(0, 65536, 17);
  await visit.reply(flush!, undefined, Status.IO);
  assert.equal((await waiting).status, -Errno.EIO);
  assert.equal((await lane.submit(FLUSH, 0, 0)).status, -Errno.EIO);
  await done(visit, lane.read(0, 512));
  assert.deepEqual(lane.told, [
    "data lost: what was written last may be lost, as the exporter could not flush it: input/output error",
  ]);
});

for (
  const { what, status, operation, isLost } of [
    { what: "a WRITE that fails", status: Status.NO_SPACE, operation: WRITE, isLost: true },
    {
      what: "a DISCARD that is not supported any more",
      status: Status.NOT_SUPPORTED,
      operation: DISCARD,
      isLost: false,
    },
    {
      what: "a WRITE_ZEROES that is not supported",
      status: Status.NOT_SUPPORTED,
      operation: WRITE_ZEROES,
      isLost: true,
    },
    { what: "a FLUSH that fails", status: Status.IO, operation: FLUSH, isLost: true },
  ]
) {
  Deno.test(`in a replay ${what} ${isLost ? "loses everything for good" : "is no harm"}`, async () => {
    using exporter = scripted();
    const [lane, first] = await keeping(exporter);
    await using _ = lane;
    const asked = operation === FLUSH ? WRITE : operation;
    await done(first, lane.submit(asked, 0, 4096, asked === WRITE ? new Uint8Array(4096) : undefined));
    first.peer.close();
    const write = lane.write(0, 512, 1);
    const read = lane.read(0, 512);
    const visit = await restarted(exporter, 8);
    let frame = await visit.take();
    while (frame.type !== operation) {
      await visit.reply(frame);
      frame = await visit.take();
    }
    await visit.reply(frame, undefined, status);
    if (!isLost) assert.equal((await serve(visit)).type, FLUSH);
    const rest = [await serve(visit)];
    if (!isLost) rest.push(await serve(visit));
    assert.deepEqual(rest.map(({ type }) => type).sort(), isLost ? [READ] : [READ, WRITE]);
    assert.deepEqual([(await write).status, (await read).status], [isLost ? -Errno.EIO : 0, 0]);
    const said = lane.told.at(-1)!;
    assert.match(said, isLost ? /^data lost: .* has lost its memory, and the exporter could not/ : /^replayed 1/);
    const flush = lane.submit(FLUSH, 0, 0);
    if (isLost) assert.equal((await flush).status, -Errno.EIO);
    else await done(visit, flush);
  });
}

Deno.test("where there are not copies of all, nothing is written again", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [lane, first] = await keeping(exporter, {}, { shared });
  await using _ = lane;
  await done(first, lane.write(0, 512, 1));
  // Somebody's acknowledgement of which there is no copy.
  new MutationLedger(shared.ledger).acknowledge();
  first.peer.close();
  const write = lane.write(0, 512, 1);
  const visit = await restarted(exporter, 8);
  assert.equal((await write).status, -Errno.EIO);
  await done(visit, lane.read(0, 512));
  assert.match(lane.told[1], /^data lost: .*, and there are no copies of all of it$/);
});

Deno.test("where the export is shared from the beginning, nothing is kept", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter, SHARED);
  await using _ = lane;
  await done(first, lane.write(0, 512, 1));
  first.peer.close();
  const visit = await restarted(exporter, 8, SHARED);
  assert.equal((await lane.write(0, 512, 1)).status, -Errno.EIO);
  await done(visit, lane.read(0, 512));
  assert.match(lane.told[1], /^data lost: .* has lost its memory$/);
});

Deno.test("requests that wait for a replay of which nothing comes fail in their time", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter, {}, { patience: { resendMs: 200, resends: 2, deadMs: 30_000 } });
  await using _ = lane;
  await done(first, lane.write(0, 512, 1));
  first.peer.close();
  const read = lane.read(0, 512);
  let isOver = false;
  read.then(() => isOver = true);
  let waiting: Promise<Visit> | null = null;
  let isFirst = true;
  while (!isOver) {
    waiting = isFirst
      ? restarted(exporter, 8)
      : rejoin(exporter, { ...CACHED, identities: [108, 8, 3] }).then((one) => one.visit);
    isFirst = false;
    const visit = await Promise.race([waiting, read.then(() => null)]);
    if (visit === null) break;
    waiting = null;
    await visit.take();
    visit.peer.close();
  }
  assert.equal((await read).status, -Errno.ETIMEDOUT);
  // It goes on all the same, and so does everything when it has succeeded.
  const visit = await (waiting ?? rejoin(exporter, { ...CACHED, identities: [108, 8, 3] }).then((one) => one.visit));
  assert.deepEqual(await shownOf(visit, 2), [[WRITE, 0, 512, 0, 1], FLUSHED]);
  await done(visit, lane.read(0, 512));
});

Deno.test("what an exporter could not flush is written again to its next process, whatever that knows of it", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  await done(first, lane.write(0, 4096, 1));
  const flush = lane.submit(FLUSH, 0, 0);
  await serve(first, Status.IO);
  assert.equal((await flush).status, -Errno.EIO);
  // A connection alone changes nothing.
  first.peer.close();
  const { visit: second } = await rejoin(exporter, CACHED);
  await done(second, lane.read(0, 512));
  second.peer.close();
  // As it was not able to record that its stable storage has failed.
  const third = await greet(exporter);
  await third.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await third.grant({ ...CACHED, identities: [9, 2, 3] });
  assert.deepEqual(await shownOf(third, 2), [[WRITE, 0, 4096, 0, 1], FLUSHED]);
  await done(third, lane.write(4096, 512, 2));
  third.peer.close();
  // That was enough.
  const fourth = await greet(exporter);
  await fourth.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await fourth.grant({ ...CACHED, identities: [10, 2, 3] });
  await done(fourth, lane.read(0, 512));
});

Deno.test("a FLUSH that succeeds after one that failed dispels the doubt", async () => {
  using exporter = scripted();
  const [lane, first] = await keeping(exporter);
  await using _ = lane;
  await done(first, lane.write(0, 4096, 1));
  const flush = lane.submit(FLUSH, 0, 0);
  await serve(first, Status.NO_MEMORY);
  assert.equal((await flush).status, -Errno.ENOMEM);
  await done(first, lane.submit(FLUSH, 0, 0));
  await done(first, lane.write(8192, 512, 2));
  first.peer.close();
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.grant({ ...CACHED, identities: [9, 2, 3] });
  await done(visit, lane.read(0, 512));
});

Deno.test("without copies what could not be flushed is lost when the exporter starts again", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter, {}, CACHED);
  await using _ = lane;
  await done(first, lane.write(0, 4096, 1));
  const write = lane.write(4096, 512, 1, RequestFlag.FUA);
  await serve(first, Status.IO);
  assert.equal((await write).status, -Errno.EIO);
  first.peer.close();
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.grant({ ...CACHED, identities: [9, 2, 3] });
  await done(visit, lane.read(0, 512));
  assert.equal((await lane.submit(FLUSH, 0, 0)).status, -Errno.EIO);
});
