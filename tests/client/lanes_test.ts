/**
 *   engine ── lane 0 ──▶
 *   engine ── lane 1 ──▶ exporter with two Workers
 *   engine ── lane 2 ──▶
 *
 * @module
 */
import assert from "node:assert/strict";
import { LaneThreads } from "../../client/lane_threads.ts";
import { LEDGER_BYTES, MutationLedger } from "../../client/ledger.ts";
import { resolveTarget } from "../../client/open.ts";
import { Operation, RequestFlag } from "../../engine/block.ts";
import { LIMIT_DEFAULTS } from "../../exporter/config_security.ts";
import { Errno } from "../../ffi/errno.ts";
import {
  exportOf,
  type LoopName,
  LOOPS,
  MIB,
  plainChannel,
  startTestExporter,
  TestClient,
  testEachLoop,
  type TestExporter,
} from "./fixture.ts";

const DIGESTS = ["xxh64", "crc32c", "none"];

function exporterOf(loop: LoopName, layers: readonly string[] = []): Promise<TestExporter> {
  return startTestExporter(loop, [exportOf("disk", "mem:16M", { layers })], DIGESTS, { workers: 2 });
}

/** A session over so many lanes, each with an engine of its own. */
class TestSession implements AsyncDisposable {
  readonly memory = new SharedArrayBuffer(LEDGER_BYTES);
  readonly ledger = new MutationLedger(this.memory);

  private constructor(readonly lanes: readonly TestClient[]) {}

  static async open(loop: LoopName, exporter: TestExporter, lanes: number): Promise<TestSession> {
    const opened = new TestSession(Array.from({ length: lanes }, () => new TestClient(loop)));
    const session = crypto.getRandomValues(new Uint8Array(16));
    const options = { session, lanes, ledger: opened.memory };
    for (const [lane, client] of opened.lanes.entries()) {
      await client.open(exporter, lane === 0 ? options : { ...options, lane });
    }
    return opened;
  }

  /** Turns all engines until the condition holds. */
  async until(isDone: () => boolean): Promise<void> {
    await this.lanes[0].until(() => {
      for (const client of this.lanes.slice(1)) client.engine.turn(0);
      return isDone();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.lanes) await client[Symbol.asyncDispose]();
  }
}

testEachLoop("what is written on one lane is read on every other", async (loop) => {
  await using exporter = await exporterOf(loop);
  await using session = await TestSession.open(loop, exporter, 3);
  for (const [lane, client] of session.lanes.entries()) {
    assert.equal(client.session!.grant.lanes, 3);
    assert.equal(await client.write(lane * MIB, new Uint8Array(4096).fill(lane + 1)), 0);
  }
  for (const client of session.lanes) {
    for (const lane of session.lanes.keys()) {
      assert.deepEqual(await client.read(lane * MIB, 4096), new Uint8Array(4096).fill(lane + 1));
    }
  }
});

testEachLoop("a flush on any lane covers what was acknowledged on every lane", async (loop) => {
  await using exporter = await exporterOf(loop, ["volatile:8M"]);
  await using session = await TestSession.open(loop, exporter, 2);
  const { ledger, lanes: [one, two] } = session;
  assert(ledger.isCovered);
  const mutations = [Operation.WRITE, Operation.WRITE_ZEROES, Operation.DISCARD];
  for (const operation of mutations) {
    assert.equal(await two.ask(operation, 0, 4096), 0);
    assert(!ledger.isCovered);
    assert.equal(await one.ask(Operation.FLUSH, 0, 0), 0);
    assert(ledger.isCovered);
  }
  // On stable storage by itself; and what has failed nobody counts on.
  for (const operation of mutations) assert.equal(await two.ask(operation, 0, 4096, RequestFlag.FUA), 0);
  assert(!ledger.hasFailed);
  assert.equal(await two.ask(Operation.WRITE, 16 * MIB, 4096), -Errno.ENOSPC);
  assert.equal(await two.ask(Operation.READ, 0, 4096), 0);
  assert(ledger.isCovered && ledger.hasFailed);
});

testEachLoop("what needs no flush is not counted, and what is asked for too late has failed", async (loop) => {
  await using exporter = await exporterOf(loop);
  await using session = await TestSession.open(loop, exporter, 2);
  const { ledger, lanes: [one, two] } = session;
  assert.equal(one.session!.geometry.volatileCache, false);
  assert.equal(await one.ask(Operation.WRITE, 0, 4096), 0);
  assert(ledger.isCovered);
  two.session!.abort("the test is over");
  await session.until(() => two.told.length > 0);
  assert.deepEqual(two.told, ["lost: the test is over"]);
  assert.equal(await two.ask(Operation.READ, 0, 4096), -Errno.EIO);
  assert.equal(await two.ask(Operation.FLUSH, 0, 0), -Errno.EIO);
  assert(!ledger.hasFailed);
  assert.equal(await two.ask(Operation.WRITE, 0, 4096), -Errno.EIO);
  assert(ledger.hasFailed);
});

testEachLoop("a flush does not cover what was acknowledged while it was under way", async (loop) => {
  await using exporter = await exporterOf(loop, ["volatile:8M", "delay:flush=100"]);
  await using session = await TestSession.open(loop, exporter, 2);
  const { ledger, lanes: [one, two] } = session;
  one.begin(1, Operation.FLUSH, 0, 0);
  one.engine.turn(0);
  assert.equal(await two.ask(Operation.WRITE, 0, 4096), 0);
  assert.equal(one.completions[one.slots[1]], 0, "the flush is under way");
  await session.until(() => one.completions[one.slots[1]] === 1);
  assert(!ledger.isCovered);
  assert.equal(await one.ask(Operation.FLUSH, 0, 0), 0);
  assert(ledger.isCovered);
});

testEachLoop("closing on lane 0 ends all lanes, and none of them calls that a loss", async (loop) => {
  await using exporter = await exporterOf(loop);
  await using session = await TestSession.open(loop, exporter, 3);
  const left: string[] = [];
  for (const lane of [2, 1, 0]) {
    session.lanes[lane].session!.leave((clean) => left.push(`${lane} ${clean}`));
  }
  await session.until(() => left.length === 3);
  assert.deepEqual(left.sort(), ["0 true", "1 false", "2 false"]);
  for (const client of session.lanes) assert.deepEqual(client.told, []);
  await using next = new TestClient(loop);
  await next.open(exporter);
});

testEachLoop("a lane that was not granted, or of a session that is not there, is refused", async (loop) => {
  await using exporter = await exporterOf(loop);
  await using first = new TestClient(loop);
  await using second = new TestClient(loop);
  const session = crypto.getRandomValues(new Uint8Array(16));
  await assert.rejects(second.open(exporter, { session, lane: 1 }), /has ended the session meanwhile/);
  await first.open(exporter, { session, lanes: 2 });
  await assert.rejects(second.open(exporter, { session, lane: 2 }), /refuses: /);
  await second.open(exporter, { session, lane: 1 });
});

/** The threads of an attachment over NBD. */
async function openThreads(loop: LoopName, exporter: TestExporter, lanes: number, signal?: AbortSignal) {
  const target = await resolveTarget(exporter, plainChannel(loop));
  const open = { target, name: "disk", readOnly: false, steal: false, depth: 16, holder: "a test" };
  const options = { open, lookUp: null, lanes, frontend: "nbd", loop, crypto: "wasm" } as const;
  return await LaneThreads.open(options, signal ?? new AbortController().signal);
}

for (const loop of LOOPS) {
  Deno.test(`${loop}: a thread for each lane, that leave together`, async () => {
    await using exporter = await exporterOf(loop);
    const threads = await openThreads(loop, exporter, 4);
    assert.deepEqual([threads.count, threads.shape.lanes, threads.loop], [4, 4, loop]);
    assert.deepEqual(await threads.status(), {
      connected: true,
      inFlight: 0,
      clients: 0,
      reconnecting: null,
      isFirstAway: false,
    });
    assert.equal((await exporter.running.status()).exports[0].sessions[0].lanes, 4);
    await threads.leave();
    assert.equal(threads.failure, null);
    assert.deepEqual((await exporter.running.status()).exports[0].sessions, []);
  });

  Deno.test(`${loop}: there are as many lanes as the exporter grants`, async () => {
    const limits = { ...LIMIT_DEFAULTS, lanes: 2 };
    await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M")], DIGESTS, { limits });
    for (const [wished, granted] of [[1, 1], [2, 2], [3, 2], [64, 2]]) {
      const threads = await openThreads(loop, exporter, wished);
      assert.equal(threads.count, granted);
      assert.equal((await exporter.running.status()).exports[0].sessions[0].lanes, granted);
      await threads.leave();
    }
  });

  Deno.test(`${loop}: lanes that are dropped are all lost, for the reason that was first`, async () => {
    await using exporter = await exporterOf(loop);
    const threads = await openThreads(loop, exporter, 2);
    await threads.ask(1, { ask: "abort", reason: "the second lane is of no use" });
    while ((await threads.status()).connected || threads.failure === null) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.equal(threads.failure, "the second lane is of no use");
    await assert.rejects(threads.ask(0, { ask: "flush" }), /input\/output error/);
    await threads.leave();
  });

  Deno.test(`${loop}: threads whose opening is interrupted leave nothing behind`, async () => {
    await using exporter = await exporterOf(loop);
    const before = new AbortController();
    before.abort(new Error("not now"));
    await assert.rejects(openThreads(loop, exporter, 2, before.signal), /not now/);
    const during = new AbortController();
    const opening = openThreads(loop, exporter, 2, during.signal);
    setTimeout(() => during.abort(new Error("not any more")), 100);
    // It may have been faster.
    await opening.then((threads) => threads.leave(), (error) => assert.match(error.message, /not any more/));
    while ((await exporter.running.status()).exports[0].sessions.length > 0);
  });
}
