/**
 * Cases of slots, sequences and resends on one connection (SPEC.md, section 7).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import type { FrameFields } from "./bytes.ts";
import { Session } from "./session.ts";
import { FAILING_BYTES, type Register } from "./suite.ts";

const { READ, WRITE, FLUSH, BLOCK_STATUS } = Operation;

/** Registers them. */
export function registerSlotCases(test: Register): void {
  test("a sequence that is neither the present nor the next ends the connection", async (context) => {
    const histories: [number, number][] = [[0, 0], [0, 2], [0, 0xffff_ffff], [3, 2], [3, 0], [3, 5], [3, 0x8000_0003]];
    for (const [done, sequence] of histories) {
      using session = await Session.open(context.options, context.exports.disk, { access: 0, depth: 2 });
      for (let i = 0; i < done; i++) await session.read(0, 4096, 1);
      const { peer } = session;
      await peer.write(peer.next({ type: READ, slot: 1, sequence, length: 4096 }));
      await peer.ended();
    }
  });

  test("a slot at or beyond the depth ends the connection", async (context) => {
    for (const slot of [2, 3, 0xffff]) {
      using session = await Session.open(context.options, context.exports.disk, { access: 0, depth: 2 });
      await session.read(0, 4096, 1);
      await session.peer.write(session.peer.next({ type: READ, slot, sequence: 1, length: 4096 }));
      await session.peer.ended();
    }
  });

  test("slots have sequences of their own", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { access: 0, depth: 4 });
    for (const slot of [3, 3, 0, 3, 1, 0]) await session.read(0, 4096, slot);
    assert.deepEqual(session.sequences, [2, 1, 0, 3]);
    await session.close();
  });

  test("a refused request uses up its sequence", async (context) => {
    using session = await Session.open(context.options, context.exports.disk, { access: 0 });
    for (let i = 0; i < 3; i++) {
      assert.equal((await session.request(READ, 2 ** 40, 4096)).status, Status.OUT_OF_RANGE);
      assert.equal((await session.request(WRITE, 0, 4096, { payload: new Uint8Array(4096) })).status, Status.READ_ONLY);
    }
    await session.close();
  });

  test("a WRITE that is sent again is answered again, and not executed again", async (context) => {
    using session = await Session.open(context.options, context.exports.disk);
    const first = new Uint8Array(8192).fill(0xa1);
    await session.write(0, first);
    // Only an exporter that executes it, or takes its payload, lets the other bytes reach the disk.
    const payload = new Uint8Array(8192).fill(0xb2);
    assert.equal((await session.resend(WRITE, 0, 8192, { payload })).status, Status.OK);
    assert.deepEqual(await session.read(0, 8192, 1), first);
    await session.write(0, payload);
    assert.deepEqual(await session.read(0, 8192, 1), payload);
    await session.close();
  });

  test("the payload of a resend may be longer than a page, and is dropped whole", async (context) => {
    using session = await Session.open(context.options, context.exports.disk);
    const length = session.grant.maxPayload;
    await session.write(0, new Uint8Array(length).fill(1));
    for (let i = 0; i < 3; i++) {
      const { status } = await session.resend(WRITE, 0, length, { payload: new Uint8Array(length).fill(2) });
      assert.equal(status, Status.OK);
    }
    assert.deepEqual(await session.read(0, length, 1), new Uint8Array(length).fill(1));
    await session.close();
  });

  test("a READ, BLOCK_STATUS or FLUSH that is sent again is executed again", async (context) => {
    using session = await Session.open(context.options, context.exports.disk);
    await session.write(0, new Uint8Array(8192).fill(1), 0, 1);
    assert.deepEqual(await session.read(0, 8192), new Uint8Array(8192).fill(1));
    await session.write(0, new Uint8Array(8192).fill(2), 0, 1);
    const again = await session.resend(READ, 0, 8192);
    assert.equal(again.status, Status.OK);
    assert.deepEqual(again.payload, new Uint8Array(8192).fill(2));
    await session.request(BLOCK_STATUS, 0, 8192);
    assert.ok((await session.resend(BLOCK_STATUS, 0, 8192)).payload.length >= 16);
    await session.request(FLUSH, 0, 0);
    assert.equal((await session.resend(FLUSH, 0, 0)).status, Status.OK);
    await session.close();
  });

  test("a request that failed is not executed again: its status is sent again", async (context) => {
    using session = await Session.open(context.options, context.exports.failing);
    assert.equal((await session.request(READ, 0, 4096)).status, Status.IO);
    assert.equal((await session.resend(READ, 0, 4096)).status, Status.IO);
    const payload = new Uint8Array(4096);
    assert.equal((await session.request(WRITE, 0, 4096, { payload })).status, Status.NO_SPACE);
    assert.equal((await session.resend(WRITE, 0, 4096, { payload })).status, Status.NO_SPACE);
    assert.equal((await session.request(READ, 2 ** 40, 4096)).status, Status.OUT_OF_RANGE);
    assert.equal((await session.resend(READ, 2 ** 40, 4096)).status, Status.OUT_OF_RANGE);
    assert.equal((await session.read(FAILING_BYTES, 4096)).length, 4096);
    await session.close();
  });

  test("a resend that asks for something else ends the connection", async (context) => {
    const others: Partial<FrameFields>[] = [
      { offset: 8192 },
      { length: 8192 },
      { type: BLOCK_STATUS },
      { type: WRITE, payload: new Uint8Array(4096) },
    ];
    for (const other of others) {
      using session = await Session.open(context.options, context.exports.disk, { access: 0 });
      await session.read(0, 4096);
      await session.peer.write(session.peer.next({ type: READ, sequence: 1, length: 4096, ...other }));
      await session.peer.ended();
    }
  });

  test("a slot whose request executes takes no other one", async (context) => {
    using session = await Session.open(context.options, context.exports.stalled, { access: 0 });
    await session.send(READ, 0, 4096);
    await session.peer.write(session.peer.next({ type: READ, sequence: 2, length: 4096 }));
    await session.peer.ended();
  });

  test("a request that is sent again while it executes is answered once", async (context) => {
    using session = await Session.open(context.options, context.exports.slow);
    const payload = new Uint8Array(8192).fill(5);
    await session.send(WRITE, 0, 8192, { payload });
    await session.peer.send({ type: WRITE, sequence: 1, length: 8192, payload: new Uint8Array(8192).fill(6) });
    assert.equal((await session.reply(WRITE)).status, Status.OK);
    // What comes next is the reply to what is sent next.
    assert.deepEqual(await session.read(0, 8192), payload);
    await session.close();
  });
}
