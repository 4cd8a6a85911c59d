/**
 * A session whose process is gone, gone on with by another one, against a scripted exporter.
 *
 * @module
 */
import assert from "node:assert/strict";
import { LaneThreads } from "../../client/lane_threads.ts";
import { MutationLedger } from "../../client/ledger.ts";
import { resolveTarget } from "../../client/open.ts";
import { PATIENCE } from "../../client/patience.ts";
import { grantOf, recordedGrant } from "../../client/recovery_record.ts";
import { Errno } from "../../ffi/errno.ts";
import { Feature, type Grant } from "../../protocol/grant.ts";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Cipher, Digest, FrameType } from "../../protocol/wire.ts";
import { exportOf, startTestExporter, testEachLoop } from "./fixture.ts";
import type { GrantWish, ScriptedExporter } from "../protocol/scripted_exporter.ts";
import { greet, local, PatientLane, rejoin, scripted, SharedSession, silent, start, u32 } from "./patient.ts";

const CACHED: GrantWish = { features: Feature.VOLATILE_CACHE, lanes: 2 };

/** Opens a session whose process then dies; what another one knows of it. */
async function killed(exporter: ScriptedExporter): Promise<{ grant: Grant; shared: SharedSession }> {
  const before = new SharedSession();
  const [lane] = await start(exporter, { shared: before }, CACHED);
  const { grant } = lane.session;
  await lane[Symbol.asyncDispose]();
  return { grant, shared: new SharedSession(before.id) };
}

function recover(exporter: ScriptedExporter, grant: Grant, shared: SharedSession, lane = 0): Promise<PatientLane> {
  const [cipher, digest] = [Cipher.NONE, Digest.XXH64];
  const recovered = { grant, address: local(exporter.port), cipher, digest, generation: 70_000 };
  return PatientLane.open(exporter.port, { shared, lane, recovered });
}

async function recoverAlone(exporter: ScriptedExporter): Promise<PatientLane> {
  const { grant, shared } = await killed(exporter);
  new MutationLedger(shared.ledger).inherit(grant.identities.durability, 1, true);
  return await recover(exporter, grant, shared);
}

Deno.test("what is asked before there is a connection waits, and the lane is joined fresh, above all generations", async () => {
  using exporter = scripted();
  await using lane = await recoverAlone(exporter);
  const write = lane.write(0, 512, 1);
  assert.notEqual(lane.session.away, null);
  assert.equal(lane.session.inFlight, 1);
  const { visit, asked } = await rejoin(exporter, CACHED);
  assert.deepEqual([u32(asked, Tlv.LANE), u32(asked, Tlv.GENERATION), asked.has(Tlv.FRESH)], [0, 70_001, true]);
  const frame = await visit.take();
  assert.deepEqual([frame.sequence, frame.payload[0]], [1, 1]);
  await visit.reply(frame);
  assert.equal((await write).status, 0);
  assert.deepEqual(lane.told, ["back, 0 resent"]);
});

Deno.test("a session that the exporter has forgotten is opened again, with the identities that were recorded", async () => {
  using exporter = scripted();
  await using lane = await recoverAlone(exporter);
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  const asked = await visit.grant({ ...CACHED, identities: [9, 2, 3] });
  assert.deepEqual(asked.get(Tlv.RESUME)![0].subarray(0, 16), new Uint8Array(16).fill(3));
  assert.equal(asked.has(Tlv.STEAL), false);
  const write = lane.write(0, 512, 1);
  await visit.reply(await visit.take());
  assert.equal((await write).status, 0);
});

Deno.test("another client that has taken over ends it for good", async () => {
  using exporter = scripted();
  await using lane = await recoverAlone(exporter);
  const write = lane.write(0, 512, 1);
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.refuse(Status.EPOCH_CHANGED, "no");
  assert.equal((await write).status, -Errno.ESTALE);
  assert.match(lane.told[0], /lost: another client has taken over/);
});

Deno.test("another durability epoch fails writes for good, as nobody has copies; after a FLUSH in between it does not", async () => {
  for (const isFlushed of [false, true]) {
    using exporter = scripted();
    await using lane = await recoverAlone(exporter);
    const done = lane.submit(isFlushed ? Operation.FLUSH : Operation.READ, 0, isFlushed ? 0 : 512);
    const { visit } = await rejoin(exporter, CACHED);
    await visit.reply(await visit.take(), isFlushed ? undefined : new Uint8Array(512));
    assert.equal((await done).status, 0);
    visit.peer.close();
    const next = await greet(exporter);
    await next.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
    await next.grant({ ...CACHED, identities: [9, 8, 3] });
    const read = lane.read(0, 512);
    await next.reply(await next.take(), new Uint8Array(512));
    assert.equal((await read).status, 0);
    const write = lane.write(0, 512, 1);
    if (isFlushed) await next.reply(await next.take());
    assert.equal((await write).status, isFlushed ? 0 : -Errno.EIO);
  }
});

Deno.test("no lane changes anything before all are joined again: what was sent on each may still be executing", async () => {
  using exporter = scripted();
  const { grant, shared } = await killed(exporter);
  new MutationLedger(shared.ledger).inherit(grant.identities.durability, 2, true);
  await using one = await recover(exporter, grant, shared);
  const { visit: visitOfOne } = await rejoin(exporter, CACHED);
  const read = one.read(0, 512);
  await visitOfOne.reply(await visitOfOne.take(), new Uint8Array(512));
  assert.equal((await read).status, 0);
  const write = one.write(0, 512, 1);
  const later = await silent(visitOfOne);
  await using _two = await recover(exporter, grant, shared, 1);
  const { asked } = await rejoin(exporter, CACHED, 1);
  assert.deepEqual([u32(asked, Tlv.LANE), asked.has(Tlv.FRESH)], [1, true]);
  await visitOfOne.reply(await later());
  assert.equal((await write).status, 0);
});

testEachLoop(
  "the threads of a session that died are followed by others, with all lanes, and go on under its name",
  async (loop) => {
    await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:16M")], ["xxh64"], { workers: 2 });
    const target = await resolveTarget(exporter, { ciphers: ["none"], digests: ["xxh64"], key: null });
    const open = {
      target,
      name: "disk",
      readOnly: false,
      steal: false,
      depth: 16,
      holder: "a test",
      patience: PATIENCE,
    };
    const options = { open, lookUp: null, lanes: 2, frontend: "nbd", loop, crypto: "wasm" } as const;
    const before = await LaneThreads.open(options, new AbortController().signal);
    const { shape: { cipher, digest, address }, session } = before;
    const grant = grantOf(recordedGrant(before.grant!));
    // As the kernel does it, where a process is killed.
    before.abort("its process is dead");
    await before.status();
    before.end();
    const recovered = { session, grant, address, cipher, digest, generation: 65_537, failure: null };
    const threads = await LaneThreads.open({ ...options, recovered }, new AbortController().signal);
    assert.equal(threads.count, 2);
    const changes = Promise.withResolvers<void>();
    threads.onChange(async () => {
      if ((await threads.status()).connected) changes.resolve();
    });
    await changes.promise;
    const sessions = (await exporter.running.status()).exports[0].sessions;
    assert.deepEqual(sessions.map(({ lanes, access }) => [lanes, access]), [[2, "read-write"]]);
    assert.deepEqual(threads.grant!.identities, grant.identities);
    assert.equal(threads.failure, null);
    await threads.ask(1, { ask: "flush" });
    await threads.leave();
    assert.deepEqual((await exporter.running.status()).exports[0].sessions, []);
  },
);
