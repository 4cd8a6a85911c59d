/**
 * Cases of a client's lane phase (SPEC.md, sections 4, 5, 7 and 8).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { errnoOfStatus, Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { type Frame, type FrameFields, HEADER, randomBytes, randomOf } from "./bytes.ts";
import { tagBytes } from "./channel.ts";
import type { ClientCases } from "./client_suite.ts";
import { extents, replyTo } from "./scripted_exporter.ts";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS } = Operation;
const EIO = -5;
const ESTALE = -116;

/** Registers them. */
export function registerClientLaneCases({ test, sessionTest, losesRead, manner }: ClientCases): void {
  const { seed } = manner;

  sessionTest("requests have their fields, their payload, and sequences of their slots", {}, async (disk, visit) => {
    const payload = randomBytes(seed, 8192);
    const expected: [number, number, number, number, Uint8Array | undefined][] = [
      [READ, 4096, 8192, 0, undefined],
      [WRITE, 512, 8192, 1, payload],
      [WRITE, 0, 512, 0, payload.slice(0, 512)],
      [FLUSH, 0, 0, 0, undefined],
      [DISCARD, 0, 1048576, 0, undefined],
      [WRITE_ZEROES, 1024, 4096, 7, undefined],
      [CACHE, 0, 4096, 0, undefined],
      [BLOCK_STATUS, 0, 4096, 0, undefined],
      [READ, 1048064, 512, 0, undefined],
    ];
    const sequences = new Map<number, number>();
    for (const [type, offset, length, flags, data] of expected) {
      const done = disk.submit(type, offset, length, flags, data);
      const request = await visit.take();
      assert.deepEqual(
        [request.type, request.offset, request.length, request.flags],
        [type, offset, length, flags],
      );
      assert.deepEqual(request.payload, data ?? new Uint8Array(0));
      assert.ok(request.slot < 8);
      assert.equal(request.sequence, (sequences.get(request.slot) ?? 0) + 1);
      sequences.set(request.slot, request.sequence);
      const answer = type === READ
        ? randomBytes(seed + offset, length)
        : type === BLOCK_STATUS
        ? extents([4096, 0])
        : undefined;
      await visit.reply(request, answer);
      const outcome = await done;
      assert.equal(outcome.status, 0, `type ${type}`);
      if (answer !== undefined) assert.deepEqual(outcome.payload, answer);
    }
    await Promise.all([disk.leave(), visit.close()]);
  });

  sessionTest("replies may come in any order", {}, async (disk, visit) => {
    const reads = Array.from({ length: 8 }, (_, i) => disk.submit(READ, i * 4096, 4096));
    const requests: Frame[] = [];
    while (requests.length < 8) requests.push(await visit.take());
    assert.equal(new Set(requests.map(({ slot }) => slot)).size, 8);
    for (const request of requests.toReversed()) await visit.reply(request, randomBytes(request.offset, 4096));
    for (const [i, read] of reads.entries()) {
      assert.deepEqual((await read).payload, randomBytes(i * 4096, 4096));
    }
    await Promise.all([disk.leave(), visit.close()]);
  });

  sessionTest("no more slots and bytes are used than were granted", {
    slots: 4,
    maxPayload: 8192,
    payloadBytes: 20_480,
  }, async (disk, visit) => {
    const reads = Array.from({ length: 12 }, (_, i) => disk.submit(READ, i * 8192, 8192));
    const mixed = [disk.submit(FLUSH, 0, 0), disk.submit(WRITE, 0, 4096, 0, new Uint8Array(4096))];
    const open = new Map<number, Frame>();
    // When everything that fits is sent, nothing more comes until something is answered.
    for (let answered = 0; answered < 14; answered++) {
      for (;;) {
        const bytes = [...open.values()].reduce((sum, { type, length }) => sum + (type <= WRITE ? length : 0), 0);
        assert.ok(bytes <= 20_480, `${bytes} bytes are under way`);
        if (answered + open.size === 14 || open.size === 2) break;
        const request = await visit.take();
        assert.ok(request.slot < 4 && !open.has(request.slot));
        open.set(request.slot, request);
      }
      const [slot, request] = [...open][answered % open.size];
      open.delete(slot);
      await visit.reply(request, request.type === READ ? new Uint8Array(request.length) : undefined);
    }
    for (const done of [...reads, ...mixed]) assert.equal((await done).status, 0);
    await Promise.all([disk.leave(), visit.close()]);
  });

  sessionTest(
    "a request longer than the maximum payload becomes several",
    { maxPayload: 4096 },
    async (disk, visit) => {
      const payload = randomBytes(seed, 10_240);
      const writing = disk.submit(WRITE, 2048, 10_240, 0, payload);
      const reading = disk.submit(READ, 65536, 10_240);
      const written = new Uint8Array(10_240);
      const data = randomBytes(seed + 1, 10_240);
      for (let left = 2 * 10_240; left > 0;) {
        const request = await visit.take();
        assert.ok(request.length <= 4096);
        left -= request.length;
        if (request.type === WRITE) written.set(request.payload, request.offset - 2048);
        const at = request.offset - 65536;
        await visit.reply(request, request.type === READ ? data.slice(at, at + request.length) : undefined);
      }
      assert.equal((await writing).status, 0);
      assert.deepEqual(written, payload);
      assert.deepEqual((await reading).payload, data);
      await Promise.all([disk.leave(), visit.close()]);
    },
  );

  sessionTest("each status is the errno of the table", {}, async (disk, visit) => {
    for (const status of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 36, 63, 200, 0xffff_ffff]) {
      for (const type of [READ, WRITE, FLUSH]) {
        const length = type === FLUSH ? 0 : 512;
        const done = disk.submit(type, 0, length, 0, type === WRITE ? new Uint8Array(512) : undefined);
        await visit.reply(await visit.take(), undefined, status);
        assert.equal((await done).status, errnoOfStatus(status, type === WRITE), `status ${status} of type ${type}`);
      }
    }
    await Promise.all([disk.leave(), visit.close()]);
  });

  test("a reply that was corrupted never reaches the application", async (client, exporter) => {
    const tagLength = tagBytes(manner);
    if (tagLength === 0) return;
    const prefix = HEADER + 2 * tagLength;
    const random = randomOf(seed);
    const places = [0, 4, 8, 12, 32, 36, 40, HEADER, HEADER + tagLength, prefix, prefix + 4000, prefix + 8191];
    for (let i = 0; i < 4; i++) places.push(Math.floor(random() * prefix));
    for (const at of places) {
      await losesRead(exporter, client, async ({ peer }, request) => {
        const bytes = peer.next(replyTo(request, { payload: new Uint8Array(8192) }));
        bytes[at] ^= 0x10;
        await peer.write(bytes);
      }, `byte ${at}, seed ${seed}`);
    }
  });

  test("a reply that suits no request ends the session", async (client, exporter) => {
    const payload = new Uint8Array(8192);
    const wrong: Partial<FrameFields>[] = [
      { sequence: 2 },
      { sequence: 0 },
      { slot: 7 },
      { slot: 8 },
      { slot: 0xffff },
      { type: WRITE | REPLY, payload: new Uint8Array(0) },
      { lane: 1 },
      { offset: 4096 },
      { length: 8192 },
      { flags: 1 },
      { zero: 1 },
      { magic: 0x32545344 },
      { payload: new Uint8Array(8191) },
      { payload: new Uint8Array(8193) },
      { payload: new Uint8Array(0) },
      { status: Status.IO },
      { payloadBytes: 0xffff_ffff },
    ];
    for (const fields of wrong) {
      await losesRead(exporter, client, async ({ peer }, request) => {
        await peer.write(peer.next(replyTo(request, { payload, ...fields })));
      }, JSON.stringify(fields, (_, value) => value instanceof Uint8Array ? value.length : value));
    }
  });

  test("a frame that comes twice, or is missing, ends the session", async (client, exporter) => {
    for (const step of [1, -1]) {
      await losesRead(exporter, client, async ({ peer }, request) => {
        peer.sent += step;
        await peer.write(peer.next(replyTo(request, { payload: new Uint8Array(8192) })));
      }, `${step}`);
    }
  });

  test("a type that is no exporter's ends the session", async (client, exporter) => {
    const types = [0x00, READ, WRITE, 0x0f, 0x11, FrameType.LIST, FrameType.OPEN, FrameType.CLOSE, 0x34, 0x7f];
    types.push(0x88, FrameType.PING | REPLY, FrameType.CLOSE | REPLY, FrameType.FENCING, FrameType.OPEN | REPLY, 0xff);
    for (const type of types) {
      await losesRead(exporter, client, ({ peer }) => peer.write(peer.next({ type })), `type ${type}`);
    }
  });

  test("a second reply to the same request ends the session", async (client, exporter) => {
    const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve()]);
    const read = disk.submit(READ, 0, 512);
    const request = await visit.take();
    await visit.reply(request, new Uint8Array(512));
    assert.equal((await read).status, 0);
    await visit.peer.write(visit.peer.next(replyTo(request, { payload: new Uint8Array(512) })));
    await disk.lost;
    await visit.peer.ended();
  });

  test("extents that do not describe the range end the session", async (client, exporter) => {
    const reserved = extents([4096, 0]);
    reserved[12] = 1;
    const answers = [
      new Uint8Array(0),
      extents([4096, 0]).slice(0, 15),
      extents([4608, 0]),
      extents([2048, 0], [4096, 1]),
      extents([0, 0]),
      extents([256, 0]),
      extents([4096, 4]),
      reserved,
    ];
    for (const [index, payload] of answers.entries()) {
      const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve()]);
      const asked = disk.submit(BLOCK_STATUS, 0, 4096);
      await visit.reply(await visit.take(), payload);
      assert.equal((await asked).status, EIO, `answer ${index}`);
      await disk.lost;
      disk.close();
      await visit.peer.ended();
    }
  });

  test("a connection that ends anywhere fails what is under way, and nothing hangs", async (client, exporter) => {
    for (const cut of [0, 1, 47, HEADER + 2 * tagBytes(manner) + 100]) {
      await losesRead(exporter, client, async ({ peer }, request) => {
        await peer.write(peer.next(replyTo(request, { payload: new Uint8Array(8192) })).slice(0, cut));
        await peer.connection.closeWrite();
      }, `a cut after ${cut} bytes`);
    }
  });

  sessionTest("a PING is answered with its token, also while requests execute", {}, async (disk, visit) => {
    const read = disk.submit(READ, 0, 512);
    const request = await visit.take();
    for (const offset of [0, 1, 2 ** 53 - 1]) {
      const pong = await visit.peer.call({ type: FrameType.PING, offset });
      assert.deepEqual([pong.type, pong.offset, pong.flags], [FrameType.PING | REPLY, offset, 0]);
    }
    await visit.reply(request, new Uint8Array(512));
    assert.equal((await read).status, 0);
    await Promise.all([disk.leave(), visit.close()]);
  });

  sessionTest("an idle exporter is pinged, and its PONG is taken", {}, async (disk, visit) => {
    visit.peer.answersPings = false;
    const ping = await visit.peer.receive();
    assert.deepEqual([ping.type, ping.status, ping.length, ping.lane], [FrameType.PING, 0, 0, 0]);
    const { flags, slot, sequence, offset } = ping;
    await visit.peer.send({ type: FrameType.PING | REPLY, flags, slot, sequence, offset });
    visit.peer.answersPings = true;
    await Promise.all([disk.leave(), visit.close()]);
  });

  sessionTest("RESIZED and SHUTTING_DOWN are told, and requests go on until the end", {}, async (disk, visit) => {
    await visit.peer.send({ type: FrameType.RESIZED, offset: 2097152 });
    await visit.peer.send({ type: FrameType.SHUTTING_DOWN });
    const read = disk.submit(READ, 0, 512);
    await visit.reply(await visit.take(), undefined, Status.SHUTTING_DOWN);
    assert.equal((await read).status, errnoOfStatus(Status.SHUTTING_DOWN, false));
    assert.deepEqual(disk.events, ["resized 2097152", "shutting down"]);
    await visit.peer.flush();
    visit.peer.close();
    assert.match(await disk.lost, /stopped|ending|closed/);
  });

  sessionTest("after FENCED every request fails for good", {}, async (disk, visit) => {
    const pending = disk.submit(READ, 0, 512);
    await visit.take();
    await visit.peer.send({ type: FrameType.FENCED });
    await visit.peer.flush();
    visit.peer.close();
    assert.equal((await pending).status, ESTALE);
    assert.match(await disk.lost, /taken over/);
    assert.equal((await disk.submit(WRITE, 0, 512, 0, new Uint8Array(512))).status, ESTALE);
  });

  sessionTest("CLOSE ends the session, after everything else", {}, async (disk, visit) => {
    const flush = disk.submit(FLUSH, 0, 0);
    await visit.reply(await visit.take());
    assert.equal((await flush).status, 0);
    const [isClean] = await Promise.all([disk.leave(), visit.close()]);
    assert.ok(isClean);
  });

  sessionTest("an exporter that ends the connection at CLOSE has not confirmed it", {}, async (disk, visit) => {
    const left = disk.leave();
    assert.equal((await visit.peer.receive()).type, FrameType.CLOSE);
    visit.peer.close();
    assert.equal(await left, false);
  });

  test("what the export cannot do is not asked of it", async (client, exporter) => {
    const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve({ features: 0 })]);
    for (const type of [DISCARD, WRITE_ZEROES]) assert.equal((await disk.submit(type, 0, 4096)).status, -95);
    await Promise.all([disk.leave(), visit.close()]);
  });
}
