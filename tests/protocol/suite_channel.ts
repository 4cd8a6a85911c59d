/**
 * Cases of the channel under a key: who may speak, and what becomes of bytes that somebody on the way has changed, kept,
 * moved or read (SPEC.md, 4.2 to 4.4, and 6).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Cipher, FrameType } from "../../protocol/wire.ts";
import { type FrameFields, hello, join, randomBytes, randomOf, readTlvs, tlv, tlv16 } from "./bytes.ts";
import { NOISE_MESSAGE, NoiseClient, type PresharedKey } from "./channel.ts";
import { REKEY_FRAMES } from "../vectors/frames.ts";
import { makeKey } from "./keys.ts";
import { type Harm, Middle, showsAny } from "./middle.ts";
import { joinTlvs, openTlvs } from "./door_messages.ts";
import { helloBody, Peer, type PeerOptions, Silence } from "./peer.ts";
import { ask, Session } from "./session.ts";
import { isGone } from "./suite_ownership.ts";
import type { Case, Register } from "./suite.ts";

/** Where the cases below try to write, and must not. */
const AT = 2 * 1024 * 1024;
const BYTES = 8192;
/** Bytes that are written, read back and looked for in what went over the wire. */
const KNOWN_BYTES = 256 * 1024;
/** Where the length of a hello's body stands. */
const LENGTH_AT = 12;
const HELLO_HEAD = 16;
/** Requests at once that flood an exporter, each in a slot of its own. */
const FLOOD = 512;
/** A request type of a later version, which costs neither side more than its frame. */
const UNKNOWN_REQUEST = 0x08;

/** A WRITE of what must never be on the disk. */
function write(fields: Partial<FrameFields> = {}): FrameFields {
  const payload = new Uint8Array(BYTES).fill(0xbd);
  return { type: Operation.WRITE, sequence: 1, offset: AT, length: BYTES, payload, ...fields };
}

/** A hello that offers everything that suits a key. */
function offersAll({ cipher, digest }: PeerOptions, key: PresharedKey): Uint8Array {
  const ciphers = [cipher, ...[1, 2, 0].filter((other) => other !== cipher)];
  const digests = [digest, ...[3, 4, 0].filter((other) => other !== digest)];
  return hello(join(tlv16(Tlv.CIPHERS, ciphers, 1), tlv16(Tlv.DIGESTS, digests, 1), tlv(Tlv.KEY_ID, key.id, 1)));
}

/**
 * A hello that offers everything, and a handshake over whatever the answer chooses: a client that leaves it to the
 * handshake to find out what somebody has changed. Whether it came to speak with the exporter.
 */
async function speaks(options: PeerOptions, key: PresharedKey): Promise<boolean> {
  using peer = await Peer.connect({ ...options, feeding: "whole" });
  const said = offersAll(options, key);
  await peer.write(said);
  try {
    const answer = await peer.helloAnswer();
    // Fields that say nothing about the algorithms are taken as they come.
    const algorithms = { cipher: answer.ciphers![0], digest: answer.digests![0] };
    const noise = new NoiseClient(join(said, answer.bytes), key.secret);
    await peer.write(noise.message());
    const keys = noise.finish(await peer.take(NOISE_MESSAGE));
    if (keys === null) return false;
    const speaking = new Peer(peer.connection, { ...options, ...algorithms, feeding: "whole" });
    speaking.secure(keys.client, keys.exporter);
    const { answer: list } = await ask(speaking, FrameType.LIST, new Uint8Array(0));
    return list.status === Status.OK;
  } catch (error) {
    if (error instanceof Silence) throw error;
    return false;
  }
}

/**
 * How an attempt to shake hands looks to the one who made it: the answer to the hello, what came after, and the end.
 *
 * @param harm the byte of the handshake's message that is changed; -1: none
 * @param most so many bytes are enough
 */
async function attempt(options: PeerOptions, key: PresharedKey, harm = -1, most = Infinity) {
  const connection = await Deno.connect({ hostname: options.host, port: options.port });
  const read = async () => {
    const pieces: Uint8Array[] = [];
    const bytes = new Uint8Array(4096);
    try {
      for (let count, sum = 0; sum < most && (count = await connection.read(bytes)) !== null; sum += count) {
        pieces.push(bytes.slice(0, count));
      }
    } catch (error) {
      return { bytes: join(...pieces), end: (error as Error).name };
    }
    return { bytes: join(...pieces), end: "closed" };
  };
  try {
    const peer = new Peer(connection, { ...options, feeding: "whole" });
    const said = hello(helloBody({ ...options, key }));
    await peer.write(said);
    const answer = await peer.helloAnswer();
    const message = new NoiseClient(join(said, answer.bytes), key.secret).message();
    if (harm >= 0) message[harm] ^= 1;
    await peer.write(message);
    const { bytes, end } = await read();
    return { answer: answer.bytes, bytes, end };
  } finally {
    connection.close();
  }
}

/** Lets `harm` do something forbidden in a session, and expects the end of its connection and an unchanged disk. */
async function ends(context: Case, harm: (session: Session) => Promise<void>, what: string): Promise<void> {
  using session = await Session.open(context.options, context.exports.disk);
  const before = await session.read(AT, BYTES, 5);
  await harm(session);
  await session.peer.ended();
  await isGone(context, session.id);
  using reader = await Session.open(context.options, context.exports.disk, { access: 0 });
  assert.deepEqual(await reader.read(AT, BYTES), before, `the disk after ${what}`);
  await reader.close();
}

/** The status of an OPEN under a key. */
async function opens(context: Case, key: PresharedKey, name: string, fields = {}): Promise<number> {
  using peer = await Peer.greet({ ...context.options, key });
  const { answer } = await ask(peer, FrameType.OPEN, openTlvs(name, fields));
  return answer.status;
}

/** Registers them. */
export function registerChannelCases(test: Register): void {
  test("a man in the middle who changes any byte of hello, answer or handshake is found out", async (context) => {
    const { options, seed } = context;
    const key = options.key!;
    using middle = new Middle(options);
    const through = { ...options, port: middle.port };
    assert.ok(await speaks(through, key), "he may listen");
    const random = randomOf(seed);
    const harms: Harm[] = [];
    for (const way of ["up", "down"] as const) {
      const stream = middle.captured(way);
      const greeting = HELLO_HEAD + new DataView(stream.buffer).getUint32(LENGTH_AT, true);
      assert.ok(stream.length > greeting + NOISE_MESSAGE);
      for (let at = 0; at < greeting + NOISE_MESSAGE; at++) {
        if (context.brief && random() < 0.8) continue;
        const isLength = at >= LENGTH_AT && at < HELLO_HEAD;
        harms.push({ way, at, mask: 1 << Math.floor(random() * 8), ...isLength ? { endsAfter: greeting } : {} });
      }
    }
    for (const harm of harms) {
      middle.harm = harm;
      const what = `${harm.way}, byte ${harm.at}, mask ${harm.mask}, seed ${seed}`;
      assert.equal(await speaks(through, key), false, what);
    }
    middle.harm = null;
    assert.ok(await speaks(through, key), "and nobody else is harmed");
  });

  test("an unknown key, a wrong key and one that may use nothing look alike", async (context) => {
    const { main, idle } = context.target.keys!;
    const stranger = makeKey();
    const known = await attempt(context.options, main, -1, NOISE_MESSAGE);
    assert.equal(known.bytes.length, NOISE_MESSAGE, "the right key is answered");
    const attempts = [
      await attempt(context.options, stranger),
      await attempt(context.options, { id: main.id, secret: stranger.secret }),
      await attempt(context.options, { id: stranger.id, secret: main.secret }),
      await attempt(context.options, { id: idle.id, secret: stranger.secret }),
      await attempt(context.options, idle),
      await attempt(context.options, main, 0),
      await attempt(context.options, main, 31),
      await attempt(context.options, main, 47),
    ];
    for (const [index, { answer, bytes, end }] of attempts.entries()) {
      assert.deepEqual(answer, known.answer, `the answer to hello ${index}`);
      assert.deepEqual(bytes, new Uint8Array(0), `what follows it, ${index}`);
      assert.equal(end, attempts[0].end, `how ${index} ends`);
    }
  });

  test("a handshake that is cut anywhere ends its connection, and harms nobody", async (context) => {
    const { options } = context;
    for (const length of [0, 1, 31, 32, 47]) {
      using peer = await Peer.connect(options);
      const said = hello(helloBody(options));
      await peer.write(said);
      const answer = await peer.helloAnswer();
      const message = new NoiseClient(join(said, answer.bytes), options.key!.secret).message();
      await peer.write(message.slice(0, length));
      await peer.connection.closeWrite();
      await peer.ended();
    }
    assert.equal(await opens(context, options.key!, context.exports.disk, { access: 0 }), Status.OK);
  });

  test("frames in the place of the handshake, and before its answer, end the connection", async (context) => {
    const { options } = context;
    const madeUp = randomBytes(context.seed, 32);
    using early = await Peer.connect(options);
    await early.write(hello(helloBody(options)));
    await early.helloAnswer();
    early.secure(madeUp, madeUp);
    await early.write(early.next({ type: FrameType.LIST }));
    await early.connection.closeWrite();
    await early.ended();

    using late = await Peer.greet(options);
    late.secure(madeUp, madeUp);
    await late.write(late.next({ type: FrameType.LIST }));
    await late.ended();
  });

  test("a key sees and uses what it may, and nothing else", async (context) => {
    const { target: { keys }, exports, options } = context;
    const { reader, main } = keys!;
    assert.equal(await opens(context, reader, exports.disk, { access: 0 }), Status.OK);
    assert.equal(await opens(context, reader, exports.disk, { access: 1 }), Status.DENIED);
    assert.equal(await opens(context, reader, exports.disk, { access: 1, steal: true }), Status.DENIED);
    for (const name of [exports.big, exports.shared, exports.readOnly, "nothing of that name"]) {
      for (const access of [0, 1]) assert.equal(await opens(context, reader, name, { access }), Status.NOT_FOUND, name);
    }
    using peer = await Peer.greet({ ...options, key: reader });
    const list = await ask(peer, FrameType.LIST, new Uint8Array(0));
    const entries = readTlvs(list.answer.payload).get(Tlv.ENTRY)!;
    assert.equal(entries.length, 1);
    assert.equal(new TextDecoder().decode(entries[0].subarray(16)), exports.disk);
    assert.equal(new DataView(entries[0].buffer, entries[0].byteOffset).getUint32(8, true), 0, "the access it has");
    const describe = (name: string) => ask(peer, FrameType.DESCRIBE, join(tlvName(name)));
    assert.equal((await describe(exports.disk)).answer.status, Status.OK);
    const hidden = (await describe(exports.big)).answer;
    const absent = (await describe("nothing of that name")).answer;
    assert.deepEqual([hidden.status, absent.status], [Status.NOT_FOUND, Status.NOT_FOUND]);
    assert.deepEqual(hidden.payload, absent.payload, "what is hidden looks like what is not there");

    using session = await Session.open({ ...options, key: reader }, exports.disk, { access: 0 });
    const before = await session.read(AT, BYTES);
    const { status } = await session.request(Operation.WRITE, AT, BYTES, { payload: new Uint8Array(BYTES).fill(9) });
    assert.equal(status, Status.READ_ONLY);
    using writer = await Session.open({ ...options, key: main }, exports.disk);
    assert.deepEqual(await writer.read(AT, BYTES), before);
    await writer.close();
    await session.close();
  });

  test("a session belongs to the key that opened it", async (context) => {
    const { options, exports, target: { keys } } = context;
    const { main, second, reader } = keys!;
    using holder = await Session.open(options, exports.disk, { leaseMs: 60_000 });
    await holder.write(AT, new Uint8Array(BYTES).fill(0x21));
    for (const key of [second, reader]) {
      using peer = await Peer.greet({ ...options, key });
      for (const lane of [0, 1]) {
        const { answer } = await ask(peer, FrameType.JOIN, joinTlvs(holder.id, { generation: 9, lane }));
        assert.equal(answer.status, Status.NO_SESSION);
      }
    }
    assert.equal(await opens(context, second, exports.disk), Status.BUSY);
    // It was not disturbed, and its own key may.
    assert.deepEqual(await holder.read(AT, BYTES), new Uint8Array(BYTES).fill(0x21));
    await holder.rejoin();
    // Stealing needs no more than the permission to write.
    using thief = await Session.open({ ...options, key: second }, exports.disk, { steal: true });
    assert.equal((await holder.peer.receive()).type, FrameType.FENCED);
    await holder.peer.ended();
    assert.equal(thief.grant.writeEpoch, holder.grant.writeEpoch + 1n);
    await thief.close();
    using next = await Session.open({ ...options, key: main }, exports.disk);
    await next.close();
  });

  test("a frame that was sealed for the other direction ends the connection", (context) =>
    ends(context, async ({ peer }) => {
      peer.sender = peer.receiver;
      await peer.write(peer.next(write()));
    }, "a frame under the exporter's key"));

  test("what the exporter sent, sent back to it, ends the connection", (context) =>
    ends(context, async ({ peer }) => {
      await peer.write(peer.next({ type: Operation.READ, sequence: 1, offset: AT, length: BYTES }));
      await peer.write(await peer.takeFrame());
    }, "an echo"));

  test("frames of another connection of the same session are worth nothing", async (context) => {
    const { options, exports } = context;
    using session = await Session.open(options, exports.disk, { leaseMs: 60_000 });
    // In the old connection it is frame 1, right after OPEN; so it will be in the new one.
    const recorded = session.peer.next(write());
    session.peer.sent--;
    const before = await session.read(AT, BYTES, 5);
    await session.rejoin();
    await session.peer.write(recorded);
    await session.peer.ended();
    await session.rejoin();
    assert.deepEqual(await session.read(AT, BYTES, 5), before);
    // Nor are those of another session.
    using other = await Session.open(options, exports.shared, { access: 0 });
    await session.peer.write(other.peer.next(write({ sequence: 1 })));
    other.peer.sent--;
    await session.peer.ended();
    await session.rejoin();
    assert.deepEqual(await session.read(AT, BYTES, 5), before);
    await session.close();
    await other.close();
  });

  test("frames of another lane of the same session are worth nothing", async (context) => {
    const { options, exports } = context;
    const [first, second] = await Session.openLanes(options, exports.disk, 2, { leaseMs: 60_000, steal: true });
    // Both are at the same frame, and it names the lane on which it comes: only the key is the other one's.
    assert.equal(first.peer.sent, second.peer.sent);
    const recorded = second.peer.next(write({ lane: 0 }));
    second.peer.sent--;
    await first.peer.write(recorded);
    await first.peer.ended();
    await first.rejoin();
    assert.ok((await first.read(AT, BYTES)).every((byte) => byte !== 0xbd), "it is not on the disk");
    await second.read(AT, BYTES);
    await first.close();
    second.peer.close();
  });

  test("a WRITE that was recorded and sent again is not executed again, nor are frames in another order", async (context) => {
    await ends(context, async (session) => {
      const { peer } = session;
      const before = await session.read(AT, BYTES, 4);
      const recorded = peer.next(write({ slot: 1 }));
      await peer.write(recorded);
      assert.equal((await peer.receive()).status, Status.OK);
      await session.write(AT, before, 0, 2);
      await peer.write(recorded);
    }, "a replay");
    await ends(context, async ({ peer }) => {
      const first = peer.next({ type: Operation.READ, sequence: 1, offset: AT, length: BYTES });
      await peer.write(join(peer.next(write({ slot: 1 })), first));
    }, "two frames in the wrong order");
    await ends(context, async ({ peer }) => {
      peer.next({ type: Operation.READ, sequence: 1, offset: AT, length: BYTES });
      await peer.write(peer.next(write({ slot: 1 })));
    }, "a frame that was dropped");
    await ends(context, async ({ peer }) => {
      const cut = peer.next(write());
      await peer.write(join(cut.slice(0, cut.length - 16), peer.next(write({ slot: 1 }))));
    }, "a frame that was cut, and another behind it");
    await ends(context, async ({ peer }) => {
      const payload = new Uint8Array(BYTES).fill(0xbe);
      const [one, other] = [peer.next(write()), peer.next(write({ slot: 1, payload }))];
      const prefix = peer.prefixBytes;
      await peer.write(join(one.slice(0, prefix), other.slice(prefix)));
    }, "the payload of another frame");
  });

  test("somebody who reads along sees nothing of a disk's content under a cipher, and all of it without", async (context) => {
    const { options, exports, seed } = context;
    using middle = new Middle(options);
    const content = randomBytes(seed, KNOWN_BYTES);
    const holder = seed.toString(16).padStart(16, "secretive name: ");
    using session = await Session.open({ ...options, port: middle.port }, exports.disk, { holder });
    const piece = Math.min(session.grant.maxPayload, KNOWN_BYTES);
    for (let at = 0; at < KNOWN_BYTES; at += piece) await session.write(at, content.slice(at, at + piece));
    for (let at = 0; at < KNOWN_BYTES; at += piece) {
      assert.deepEqual(await session.read(at, piece), content.slice(at, at + piece));
    }
    await session.close();
    for (const way of ["up", "down"] as const) {
      const stream = middle.captured(way);
      assert.ok(stream.length > KNOWN_BYTES, "he has got all of it");
      assert.equal(showsAny(stream, content), options.cipher === Cipher.NONE, way);
    }
    const name = new TextEncoder().encode(holder);
    assert.equal(showsAny(middle.captured("up"), name), options.cipher === Cipher.NONE, "names are secret too");
  });

  test("keys change in the middle of a session, in both directions", async (context) => {
    const { options, exports, seed } = context;
    using session = await Session.open({ ...options, feeding: "whole" }, exports.disk, { depth: FLOOD });
    const { peer, sequences } = session;
    const content = randomBytes(seed, BYTES);
    const check = async (epoch: number) => {
      await session.write(AT, content.slice(0, BYTES));
      assert.deepEqual(await session.read(AT, BYTES), content, `the data, ${epoch}`);
    };
    assert.ok(session.grant.slots >= FLOOD, "there is room for the flood");
    while (peer.sent < REKEY_FRAMES + 2 * FLOOD) {
      // Once just before, once with the change between the two frames, and once after.
      if (Math.abs(peer.sent - REKEY_FRAMES) < 2 * FLOOD) await check(peer.sent);
      const frames: Uint8Array[] = [];
      for (let slot = 0; slot < FLOOD; slot++) {
        frames.push(peer.next({ type: UNKNOWN_REQUEST, slot, sequence: ++sequences[slot] }));
      }
      await peer.write(join(...frames));
      for (let slot = 0; slot < FLOOD; slot++) assert.equal((await peer.receive()).status, Status.NOT_SUPPORTED);
    }
    assert.ok(peer.received > REKEY_FRAMES);
    await check(peer.sent);
    await session.close();
  });
}

/** EXPORT with this name. */
function tlvName(name: string): Uint8Array {
  return tlv(Tlv.EXPORT, new TextEncoder().encode(name));
}
