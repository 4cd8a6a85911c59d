/**
 * The conformance suite's other half: a scripted exporter against a client. Every rule of `protocol/SPEC.md` that a
 * client has to keep, and everything an exporter may or must not do to it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { errnoOfStatus, Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Digest, FrameType, REPLY } from "../../protocol/wire.ts";
import { type Frame, type FrameFields, HEADER, join, randomBytes, tagBytes, tlv, tlv16, tlvText } from "./bytes.ts";
import type { Feeding } from "./peer.ts";
import {
  chosen,
  extents,
  grantTlvs,
  type GrantWish,
  helloRefusal,
  replyTo,
  ScriptedExporter,
  type Visit,
} from "./scripted_exporter.ts";

/** A request's outcome. */
export interface Outcome {
  /** 0 or a negative errno. */
  readonly status: number;
  /** Of a successful READ its data, of a BLOCK_STATUS its extents. */
  readonly payload: Uint8Array;
}

/** A remote disk at the client. */
export interface RemoteDisk {
  submit(operation: number, offset: number, length: number, flags?: number, payload?: Uint8Array): Promise<Outcome>;
  /** Ends the session; whether the exporter has confirmed it. */
  leave(): Promise<boolean>;
  /** Resolves with the reason when the session is over otherwise. */
  readonly lost: Promise<string>;
  /** What the exporter has announced: `shutting down`, `resized SIZE`. */
  readonly events: readonly string[];
}

/** A client to be tested. */
export interface ClientUnderTest {
  /** Opens the export `disk` with all digests acceptable but for those left out; rejects with the reason. */
  attach(
    port: number,
    options: { readOnly?: boolean; steal?: boolean; digests?: readonly number[] },
  ): Promise<RemoteDisk>;
  /** Gives everything back. */
  end(): Promise<void>;
}

/** What the suite runs against. */
export interface ClientSuite {
  readonly name: string;
  readonly start: () => ClientUnderTest;
  readonly digest: number;
  readonly feeding: Feeding;
  readonly seed: number;
  readonly skip?: readonly { readonly reason: string; readonly tests: readonly string[] }[];
}

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, BLOCK_STATUS } = Operation;
const EIO = -5;
const ESTALE = -116;

/** Registers the suite's tests. */
export function runClientSuite(suite: ClientSuite): void {
  const skipped = new Set((suite.skip ?? []).flatMap(({ tests }) => tests));
  const { digest, feeding, seed } = suite;

  const test = (name: string, body: (client: ClientUnderTest, exporter: ScriptedExporter) => Promise<void>) =>
    Deno.test({
      name: `${suite.name}: ${name}`,
      ignore: skipped.delete(name),
      async fn() {
        using exporter = new ScriptedExporter(digest, feeding, seed);
        const client = suite.start();
        try {
          await body(client, exporter);
        } finally {
          await client.end();
        }
      },
    });

  /** A test with a session that was granted. */
  const sessionTest = (
    name: string,
    wish: GrantWish,
    body: (disk: RemoteDisk, visit: Visit) => Promise<void>,
  ) =>
    test(name, async (client, exporter) => {
      const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve(wish)]);
      await body(disk, visit);
    });

  /** What the exporter does to a READ must end the session, and the READ with EIO. */
  const losesRead = async (
    exporter: ScriptedExporter,
    client: ClientUnderTest,
    harm: (visit: Visit, request: Frame) => Promise<void>,
    what: string,
  ) => {
    const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve()]);
    const read = disk.submit(READ, 4096, 8192);
    await harm(visit, await visit.take());
    assert.equal((await read).status, EIO, what);
    assert.notEqual(await disk.lost, "", what);
    assert.equal((await disk.submit(READ, 0, 512)).status, EIO, what);
    await visit.peer.ended();
  };

  test("the hello offers version 1, no cipher, and the digests in order of preference", async (client, exporter) => {
    const digests = [digest, ...[Digest.XXH64, Digest.CRC32C, Digest.NONE].filter((other) => other !== digest)];
    const attached = client.attach(exporter.port, { digests });
    const visit = await exporter.accept();
    const { low, high, tlvs } = await visit.hello();
    assert.deepEqual([low, high], [1, 1]);
    assert.deepEqual([...new Uint16Array(tlvs.get(Tlv.CIPHERS)![0].slice().buffer)], [0]);
    assert.deepEqual([...new Uint16Array(tlvs.get(Tlv.DIGESTS)![0].slice().buffer)], digests);
    assert.ok(!tlvs.has(Tlv.KEY_ID));
    await visit.answerHello(join(tlv(999, [1, 2, 3]), chosen(0, digest)));
    await visit.grant();
    const disk = await attached;
    await Promise.all([disk.leave(), visit.close()]);
  });

  test("a hello that is refused is told in the exporter's words", async (client, exporter) => {
    const refusals: [number, Uint8Array, RegExp][] = [
      [0, helloRefusal(Status.VERSION, "only version 9"), /version/],
      [
        1,
        helloRefusal(Status.NO_COMMON_ALGORITHM, "none", tlv16(Tlv.CIPHERS, [0]), tlv16(Tlv.DIGESTS, [3])),
        /blake2b-256|checksum|digest/,
      ],
      [1, helloRefusal(Status.TOO_MANY, "full up\u0007\nto the brim"), /full up.*to the brim/],
      [1, helloRefusal(Status.KEY_REQUIRED, "bring a key"), /bring a key/],
    ];
    for (const [version, body, expected] of refusals) {
      const attached = assert.rejects(client.attach(exporter.port, {}), expected);
      const visit = await exporter.accept();
      await visit.hello();
      await visit.answerHello(body, version);
      await attached;
      await visit.peer.ended();
    }
  });

  test("an answer to the hello that makes no sense ends the connection", async (client, exporter) => {
    const answers: ((visit: Visit) => Promise<void>)[] = [
      (visit) => visit.answerHello(chosen(0, digest), 1, "HTTP/1.1"),
      (visit) => visit.answerHello(chosen(0, digest), 2),
      (visit) => visit.answerHello(chosen(0, 77)),
      (visit) => visit.answerHello(chosen(1, digest)),
      (visit) => visit.answerHello(new Uint8Array(0)),
      (visit) => visit.answerHello(chosen(0, digest).slice(0, -8)),
      (visit) => visit.answerHello(join(chosen(0, digest), tlv(999, [1], 1))),
      (visit) => visit.answerHello(join(chosen(0, digest), tlv16(Tlv.DIGESTS, [digest]))),
    ];
    for (const answer of answers) {
      const attached = assert.rejects(client.attach(exporter.port, {}));
      const visit = await exporter.accept();
      await visit.hello();
      await answer(visit);
      await attached;
      await visit.peer.ended();
    }
  });

  test("OPEN says which export, who asks, and for what", async (client, exporter) => {
    const text = (value: Uint8Array[] | undefined) => new TextDecoder().decode(value?.[0]);
    for (const options of [{}, { readOnly: true }, { steal: true }]) {
      const attached = client.attach(exporter.port, options);
      const visit = await exporter.accept();
      await visit.greet();
      const tlvs = await visit.grant({ access: "readOnly" in options ? 0 : 1 });
      assert.equal(text(tlvs.get(Tlv.EXPORT)), "disk");
      assert.equal(tlvs.get(Tlv.SESSION)![0].length, 16);
      assert.ok(tlvs.get(Tlv.SESSION)![0].some((byte) => byte !== 0));
      assert.notEqual(text(tlvs.get(Tlv.HOLDER)), "");
      assert.equal(tlvs.get(Tlv.ACCESS)![0][0], "readOnly" in options ? 0 : 1);
      assert.equal(tlvs.has(Tlv.STEAL), "steal" in options);
      assert.ok(!tlvs.has(Tlv.RESUME));
      const disk = await attached;
      const [isClean] = await Promise.all([disk.leave(), visit.close()]);
      assert.ok(isClean);
    }
  });

  test("a refused OPEN is told, with the holder's name", async (client, exporter) => {
    const current = tlv(
      Tlv.CURRENT,
      join(new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), new TextEncoder().encode("ann at home")),
    );
    const refusals: [number, Uint8Array[], RegExp][] = [
      [Status.NOT_FOUND, [], /no export/],
      [Status.BUSY, [current], /ann at home/],
      [Status.DENIED, [], /permi/],
      [Status.NO_RESOURCES, [], /room|memory/],
      [99, [], /because of the weather/],
    ];
    for (const [status, more, expected] of refusals) {
      const attached = assert.rejects(client.attach(exporter.port, {}), expected);
      const visit = await exporter.accept();
      await visit.greet();
      await visit.refuse(status, "because of the weather", ...more);
      await attached;
      await visit.peer.ended();
    }
  });

  test("FENCING while OPEN waits is patience, not an error", async (client, exporter) => {
    const attached = client.attach(exporter.port, {});
    const visit = await exporter.accept();
    await visit.greet();
    await visit.request(FrameType.OPEN);
    for (let i = 3; i > 0; i--) await visit.peer.send({ type: FrameType.FENCING, length: i });
    await visit.peer.send({ type: FrameType.OPEN | REPLY, payload: grantTlvs() });
    visit.peer.enterLane(0);
    const disk = await attached;
    await Promise.all([disk.leave(), visit.close()]);
  });

  test("a grant outside its limits, or without one of its TLVs, ends the connection", async (client, exporter) => {
    const wishes: GrantWish[] = [
      { without: Tlv.SIZE },
      { without: Tlv.CREDITS },
      { without: Tlv.IDENTITIES },
      { slots: 0 },
      { slots: 1025 },
      { maxPayload: 4095 },
      { maxPayload: 1048577 },
      { payloadBytes: 1024 },
      { size: 1048577 },
      { blocks: [0, 4096, 4096, 0] },
      { blocks: [768, 4096, 4096, 0] },
      { blocks: [131072, 131072, 131072, 0] },
      { access: 2 },
      { lanes: 0 },
      { lanes: 65 },
      { leaseMs: 86_400_001 },
    ];
    for (const wish of wishes) {
      const attached = assert.rejects(client.attach(exporter.port, {}), `${JSON.stringify(wish)} must be refused`);
      const [visit] = await Promise.all([exporter.serve(wish), attached]);
      await visit.peer.ended();
    }
  });

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
    if (digest === Digest.NONE) return;
    const tagLength = tagBytes(digest);
    const prefix = HEADER + 2 * tagLength;
    for (const at of [0, 4, 8, 12, 32, 36, 40, HEADER, HEADER + tagLength, prefix, prefix + 4000, prefix + 8191]) {
      await losesRead(exporter, client, async ({ peer }, request) => {
        const bytes = peer.next(replyTo(request, { payload: new Uint8Array(8192) }));
        bytes[at] ^= 0x10;
        await peer.write(bytes);
      }, `byte ${at}`);
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
      await visit.peer.ended();
    }
  });

  test("a connection that ends anywhere fails what is under way, and nothing hangs", async (client, exporter) => {
    for (const cut of [0, 1, 47, HEADER + 2 * tagBytes(digest) + 100]) {
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

  test("an unknown TLV in a grant is skipped, a required one ends the connection", async (client, exporter) => {
    for (const flags of [0, 1]) {
      const attached = client.attach(exporter.port, {});
      const rejected = flags === 1 ? assert.rejects(attached) : null;
      const visit = await exporter.accept();
      await visit.greet();
      await visit.request(FrameType.OPEN);
      const payload = join(tlvText(999, "later", flags), grantTlvs());
      await visit.peer.send({ type: FrameType.OPEN | REPLY, payload });
      visit.peer.enterLane(0);
      if (rejected !== null) {
        await rejected;
        await visit.peer.ended();
        continue;
      }
      const disk = await attached;
      await Promise.all([disk.leave(), visit.close()]);
    }
  });

  if (skipped.size > 0) throw new Error(`There are no such tests to skip: ${[...skipped].join(", ")}`);
}
