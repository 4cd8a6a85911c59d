/**
 * Cases of frames that are corrupted, cut, out of order, or not allowed at all (SPEC.md, sections 4 and 5). Each must
 * end its connection, leave the disk as it was, and harm nobody else.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { type FrameFields, HEADER, headerOf, randomBytes, randomOf } from "./bytes.ts";
import { tagBytes } from "./channel.ts";
import type { Peer } from "./peer.ts";
import { Session } from "./session.ts";
import { isGone } from "./suite_ownership.ts";
import type { Case, Register } from "./suite.ts";

/** Where the cases below try to write, and must not. */
const AT = 1024 * 1024;
const BYTES = 8192;

/** A WRITE of what must never be on the disk. */
function write(fields: Partial<FrameFields> = {}): FrameFields {
  const payload = new Uint8Array(BYTES).fill(0xbd);
  return { type: Operation.WRITE, sequence: 1, offset: AT, length: BYTES, payload, ...fields };
}

/** Opens the disk, lets `harm` do something forbidden, and expects the end of the connection and an unchanged disk. */
async function ends(context: Case, harm: (peer: Peer, session: Session) => Promise<void>, what = ""): Promise<void> {
  using session = await Session.open(context.options, context.exports.disk);
  const before = await session.read(AT, BYTES, 5);
  await harm(session.peer, session);
  await session.peer.ended();
  await isGone(context, session.id);
  using reader = await Session.open(context.options, context.exports.disk, { access: 0 });
  assert.deepEqual(await reader.read(AT, BYTES), before, `the disk after ${what}`);
  await reader.close();
}

/** Sends a frame in which one byte is another one. */
async function sendFlipped(peer: Peer, fields: FrameFields, at: number, bit: number): Promise<void> {
  const bytes = peer.next(fields);
  bytes[at] ^= 1 << bit;
  await peer.write(bytes);
}

/** Registers them. */
export function registerFrameCases(test: Register): void {
  test("a header, a payload or a tag that was corrupted ends the connection", async (context) => {
    const { seed } = context.options;
    const tagLength = tagBytes(context.options);
    // Without a tag there is no telling.
    if (tagLength === 0) return;
    const random = randomOf(seed);
    const prefix = HEADER + 2 * tagLength;
    const places = [0, 4, 5, 6, 8, 10, 12, 16, 23, 24, 31, 36, 40, 47, HEADER, HEADER + tagLength, prefix - 1];
    places.push(prefix, prefix + 1, prefix + BYTES - 1);
    // All rows together come to every place; the thorough ones each by themselves.
    if (!context.brief) places.push(...Array.from({ length: prefix }, (_, at) => at));
    for (let i = 0; i < 6; i++) places.push(Math.floor(random() * prefix), prefix + Math.floor(random() * BYTES));
    for (const at of places) {
      const bit = Math.floor(random() * 8);
      await ends(context, (peer) => sendFlipped(peer, write(), at, bit), `bit ${bit} of byte ${at}, seed ${seed}`);
    }
  });

  test("a payload's tag where there is no payload ends the connection", async (context) => {
    const bytes = tagBytes(context.options);
    if (bytes === 0) return;
    for (const at of [0, bytes - 1]) {
      await ends(context, (peer) => sendFlipped(peer, { type: FrameType.PING }, HEADER + at, 0));
      // The same, but the header's tag is right.
      await ends(context, async (peer) => {
        const number = peer.sent++;
        const tag = new Uint8Array(bytes);
        tag[at] = 1;
        const header = headerOf(number, { type: FrameType.PING });
        await peer.write(peer.sender.sealAround(number, header, tag, new Uint8Array(0)));
      }, `a payload's tag of which byte ${at} is not zero`);
    }
  });

  test("a frame that is missing or comes twice ends the connection", async (context) => {
    await ends(context, async (peer) => {
      peer.sent++;
      await peer.write(peer.next(write()));
    });
    await ends(context, async (peer) => {
      peer.sent--;
      await peer.write(peer.next(write()));
    });
    await ends(context, async (peer) => {
      peer.sent += 2 ** 32;
      await peer.write(peer.next(write()));
    });
    // Sealed as what it should be, but named otherwise.
    for (const step of [-1, 1, 2 ** 32]) {
      await ends(
        context,
        (peer) => peer.write(peer.next(write({ number: BigInt.asUintN(64, BigInt(peer.sent + step)) }))),
      );
    }
  });

  test("a magic, a zero byte or a lane that is another one ends the connection", async (context) => {
    for (const fields of [{ magic: 0x32545344 }, { zero: 1 }, { lane: 1 }, { lane: 0xffff }]) {
      await ends(context, (peer) => peer.write(peer.next(write(fields))), JSON.stringify(fields));
    }
  });

  test("a type that does not exist, or not in this direction, ends the connection", async (context) => {
    const types = [0x00, 0x11, 0x1f, 0x25, FrameType.RESIZED, FrameType.SHUTTING_DOWN, FrameType.FENCED];
    types.push(FrameType.FENCING, 0x34, 0x7f, 0x81, 0x82, 0xa2, FrameType.CLOSE | REPLY, FrameType.PING | REPLY, 0xff);
    for (const type of types) await ends(context, (peer) => peer.write(peer.next({ type })), `type ${type}`);
  });

  test("a type of the door phase is BAD_REQUEST, and the connection ends", async (context) => {
    for (const type of [FrameType.LIST, FrameType.DESCRIBE, FrameType.OPEN, FrameType.JOIN]) {
      await ends(context, async (peer) => {
        const reply = await peer.call({ type });
        assert.deepEqual([reply.type, reply.status], [type | REPLY, Status.BAD_REQUEST]);
      });
    }
  });

  test("a field that its type does not have ends the connection", async (context) => {
    const frames: FrameFields[] = [
      write({ status: 1 }),
      { type: Operation.FLUSH, sequence: 1, status: 1 },
      { type: FrameType.PING, flags: 2 },
      { type: FrameType.PING, slot: 1 },
      { type: FrameType.PING, sequence: 1 },
      { type: FrameType.PING, length: 1 },
      { type: FrameType.PING, status: 1 },
      { type: FrameType.PING, offset: 2n ** 53n },
      { type: FrameType.PING, flags: 1, length: 2n ** 63n },
      { type: FrameType.PING, payload: new Uint8Array(8) },
      { type: FrameType.CLOSE, flags: 1 },
      { type: FrameType.CLOSE, offset: 1 },
      { type: FrameType.CLOSE, payload: new Uint8Array(1) },
    ];
    for (const fields of frames) {
      await ends(context, (peer) => peer.write(peer.next(fields)), `a frame of type ${fields.type}`);
    }
  });

  test("a payload of another length than its type's ends the connection", async (context) => {
    const payload = new Uint8Array(BYTES);
    const frames: FrameFields[] = [
      write({ length: BYTES * 2 }),
      write({ length: BYTES / 2 }),
      write({ length: 0 }),
      write({ payload: new Uint8Array(0) }),
      write({ length: 2n ** 32n + BigInt(BYTES) }),
      { type: Operation.READ, sequence: 1, length: BYTES, payload },
      { type: Operation.FLUSH, sequence: 1, payload },
      { type: Operation.DISCARD, sequence: 1, length: BYTES, payload },
      { type: Operation.WRITE_ZEROES, sequence: 1, offset: AT, length: BYTES, payload },
      { type: Operation.CACHE, sequence: 1, length: BYTES, payload },
      { type: Operation.BLOCK_STATUS, sequence: 1, length: BYTES, payload },
    ];
    for (const fields of frames) {
      await ends(context, (peer) => peer.write(peer.next(fields)), `a frame of type ${fields.type}`);
    }
  });

  test("a payload above the maximum ends the connection before it is there", async (context) => {
    for (const payloadBytes of [1, 2 ** 20, 0xffff_ffff]) {
      await ends(context, (peer, session) => {
        const tooLong = Math.min(session.grant.maxPayload + payloadBytes, 0xffff_ffff);
        return peer.write(peer.next(write({ length: tooLong, payload: new Uint8Array(0), payloadBytes: tooLong })));
      });
    }
    await ends(context, (peer, session) => {
      const payloadBytes = session.grant.maxPayload + 1;
      return peer.write(peer.next({ type: 0x0f, sequence: 1, payloadBytes }));
    });
  });

  test("a frame that is cut anywhere is never executed", async (context) => {
    const prefix = HEADER + 2 * tagBytes(context.options);
    const cuts = [1, 4, HEADER - 1, HEADER, prefix - 1, prefix, prefix + 1, prefix + BYTES / 2, prefix + BYTES - 1];
    for (const cut of cuts) {
      await ends(context, async (peer) => {
        await peer.write(peer.next(write()).slice(0, cut));
        await peer.connection.closeWrite();
      }, `a cut after ${cut} bytes`);
    }
  });

  test("random bytes in the place of a frame end the connection", async (context) => {
    const { seed } = context.options;
    for (let i = 0; i < 8; i++) {
      await ends(context, async (peer) => {
        await peer.write(randomBytes(seed * 100 + i, 1 + i * 97));
        await peer.connection.closeWrite();
      }, `noise, seed ${seed}`);
    }
  });
}
