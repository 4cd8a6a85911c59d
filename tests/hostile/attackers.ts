/**
 * Hostile clients of a {@link World}: strangers, insiders that have a key, and somebody on the way between the exporter and
 * an honest client. Each is a generator that does one thing after the other.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { type Frame, type FrameFields, headerOf, hello, join, tlv } from "../protocol/bytes.ts";
import type { Algorithms, PresharedKey } from "../protocol/channel.ts";
import { joinTlvs, openTlvs } from "../protocol/door_messages.ts";
import { helloBody } from "../protocol/peer.ts";
import { type HonestClient, REGION_BYTES } from "./honest.ts";
import { Speaker } from "./speaker.ts";
import type { Line } from "./stream.ts";
import { BLOCK_BYTES, DEPTH } from "./ground.ts";
import { type Below, EXPORT_NAME, type World } from "./world.ts";

/** Whom they meet, and what they have. */
export interface Scene {
  readonly world: World;
  readonly below: Below;
  readonly algorithms: Algorithms;
  /** A key of the exporter that is not the honest clients', or null where there are no keys. */
  readonly insiderKey: PresharedKey | null;
  readonly honestKey: PresharedKey | null;
  readonly honest: readonly HonestClient[];
  /** The part of the disk that insiders may write to. */
  readonly regionAt: number;
}

/** One hostile client. Each step is one act; it is over when the generator ends. */
export type Hostile = Generator<void, void>;
type Kind = (scene: Scene) => Hostile;

/** Steps that somebody waits for an answer before giving up. */
const PATIENCE = 60;
/** More than the exporter keeps unsent. */
const FLOOD = 700;

function bytesOf(below: Below, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => below(256));
}

/** One of them. */
function choose<T>(below: Below, values: readonly T[]): T {
  return values[below(values.length)];
}

/** Flips some bits. */
function flipped(below: Below, bytes: Uint8Array<ArrayBuffer>, most = 3): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  for (let left = 1 + below(most); left > 0; left--) if (copy.length > 0) copy[below(copy.length)] ^= 1 << below(8);
  return copy;
}

/** A connection, as soon as the door has room. */
function* connects({ world }: Scene): Generator<void, Line> {
  for (;;) {
    const line = world.connect();
    if (line !== null) return line;
    yield;
  }
}

/** Writes in pieces, and goes or stays silent. */
function* says({ below }: Scene, line: Line, bytes: Uint8Array): Generator<void, void> {
  for (let at = 0; at < bytes.length;) {
    const count = 1 + below(below(2) === 0 ? 40 : bytes.length);
    line.write(bytes.subarray(at, at + count));
    at += count;
    yield;
  }
  if (below(2) === 0) line.close();
}

/** Bytes that are nothing at all. */
function* noise(scene: Scene): Hostile {
  const line = yield* connects(scene);
  yield* says(scene, line, bytesOf(scene.below, 1 + scene.below(600)));
}

/** A hello that ends somewhere, or goes on with nonsense. */
function* halfHello(scene: Scene): Hostile {
  const { below, algorithms, honestKey } = scene;
  const line = yield* connects(scene);
  const whole = hello(helloBody({ ...algorithms, key: honestKey }));
  const start = whole.slice(0, below(whole.length + 1));
  yield* says(scene, line, below(2) === 0 ? start : join(start, bytesOf(below, below(300))));
}

/** A hello in which bits are other ones, and something in the place of the handshake. */
function* mangledHello(scene: Scene): Hostile {
  const { below, algorithms, honestKey } = scene;
  const line = yield* connects(scene);
  const whole = flipped(below, Uint8Array.from(hello(helloBody({ ...algorithms, key: honestKey }))));
  yield* says(scene, line, join(whole, bytesOf(below, below(3) * 48)));
}

/** The whole handshake, under a key that is not the exporter's, or an id that is of no key. */
function* wrongKey(scene: Scene): Hostile {
  const { below, algorithms, honestKey } = scene;
  if (honestKey === null) return;
  const line = yield* connects(scene);
  const id = below(2) === 0 ? honestKey.id : bytesOf(below, 16);
  const speaker = new Speaker(line, algorithms, { id, secret: bytesOf(below, 32) }, new Uint8Array(32).fill(9));
  for (let i = 0; i < PATIENCE && !line.isOver; i++) {
    assert.deepEqual(speaker.poll(), [], "nothing is said to a wrong key");
    yield;
  }
  assert.ok(!speaker.isReady, "a wrong key never comes to speak");
  line.close();
}

/** What an honest client has said on one of its connections, or a part of it, once more. */
function* replay(scene: Scene): Hostile {
  const { below, honest, honestKey } = scene;
  // Without a key a recorded session is as good as a new one: that is what keys are for.
  if (honestKey === null) return;
  yield* waits(below);
  const lines = honest.flatMap(({ lines }) => lines);
  if (lines.length === 0) return;
  const recorded = join(...choose(below, lines).recorded);
  const line = yield* connects(scene);
  const from = below(3) === 0 ? below(recorded.length) : 0;
  const until = below(3) === 0 ? from + below(recorded.length - from) : recorded.length;
  yield* says(scene, line, recorded.subarray(from, until));
}

/** Has a key, and asks the door for what makes no sense, or is not its own. */
function* doorCrasher(scene: Scene): Hostile {
  const { below, honest, insiderKey } = scene;
  const speaker = yield* speaks(scene);
  if (speaker === null) return;
  for (let left = 1 + below(12); left > 0; left--) {
    const type = choose(below, [FrameType.LIST, FrameType.DESCRIBE, FrameType.OPEN, FrameType.JOIN, below(256)]);
    const steals = type === FrameType.JOIN && insiderKey !== null && below(2) === 0;
    const payload = steals
      ? joinTlvs(choose(below, honest).id, { generation: 1 + below(9), lane: below(2), fresh: below(2) === 0 })
      : below(2) === 0
      ? bytesOf(below, below(200))
      : join(tlv(16 + below(24), bytesOf(below, below(30)), below(2)), tlv(16 + below(24), bytesOf(below, 4)));
    speaker.send({ type, payload, ...choose(below, [{}, {}, {}, { slot: 1 }, { lane: 3 }, { offset: 7 }]) });
    for (let wait = below(20); wait > 0 && !speaker.line.isOver; wait--) {
      for (const frame of polled(speaker)) {
        if (steals && frame.type === (FrameType.JOIN | REPLY)) {
          assert.notEqual(frame.status, Status.OK, "a stolen lane");
        }
      }
      yield;
    }
  }
  if (below(2) === 0) speaker.line.close();
}

/** Has a key and a session of its own, behaves for a while, and then does not. */
function* insider(scene: Scene): Hostile {
  const { below, regionAt } = scene;
  const speaker = yield* speaks(scene);
  if (speaker === null) return;
  const session = bytesOf(below, 16);
  session[0] = 0xff;
  speaker.send({ type: FrameType.OPEN, payload: openTlvs(EXPORT_NAME, { session, holder: "an insider" }) });
  let granted = false;
  for (let i = 0; i < PATIENCE && !granted; i++) {
    granted = polled(speaker).some(({ type, status }) => type === (FrameType.OPEN | REPLY) && status === Status.OK);
    yield;
  }
  if (!granted) return speaker.line.close();
  const write = (slot: number, sequence: number): FrameFields => {
    const length = BLOCK_BYTES * (1 + below(4));
    const offset = regionAt + BLOCK_BYTES * below(REGION_BYTES / BLOCK_BYTES - 4);
    return { type: Operation.WRITE, slot, sequence, offset, length, payload: bytesOf(below, length) };
  };
  const good = below(4);
  for (let i = 1; i <= good; i++) {
    speaker.send(write(0, i));
    for (let wait = 0; wait < PATIENCE && polled(speaker).length === 0; wait++) yield;
  }
  yield* choose(below, MISDEEDS)(scene, speaker, write(0, good + 1));
  if (below(2) === 0) speaker.line.close();
}

/** What an insider does in its lane. */
const MISDEEDS: readonly ((scene: Scene, speaker: Speaker, write: FrameFields) => Generator<void, void>)[] = [
  function* changesBits({ below }, speaker, write) {
    speaker.line.write(flipped(below, speaker.next(write)));
    yield;
  },
  function* leavesOut(_scene, speaker, write) {
    speaker.sent++;
    speaker.send(write);
    yield;
  },
  function* repeats(_scene, speaker, write) {
    const bytes = speaker.next(write);
    speaker.line.write(bytes);
    yield;
    speaker.line.write(bytes);
    yield;
  },
  function* swaps(_scene, speaker, write) {
    const [first, second] = [speaker.next(write), speaker.next({ ...write, slot: 1, sequence: 1 })];
    speaker.line.write(second);
    yield;
    speaker.line.write(first);
  },
  function* cuts({ below }, speaker, write) {
    const bytes = speaker.next(write);
    speaker.line.write(bytes.slice(0, below(bytes.length)));
    if (below(2) === 0) speaker.line.close();
    yield;
  },
  function* cutsAndGoesOn({ below }, speaker, write) {
    const bytes = speaker.next(write);
    speaker.line.write(bytes.slice(0, below(bytes.length)));
    yield;
    for (let i = 0; i < 3; i++) speaker.send(write);
    yield;
  },
  function* talksNonsense({ below }, speaker, write) {
    for (let i = 0; i < 6; i++) {
      const any = (values: number[]) => choose(below, [0, 0, ...values, below(2 ** 16)]);
      speaker.send({
        // Where a WRITE is allowed, it is no nonsense.
        type: choose(below, [1, 3, 4, 5, 6, 7, 8, 15, 0x10, 0x20, 0x22, 0x24, 0x30, 0x81, 0x90, below(256)]) || 1,
        zero: below(10) === 0 ? 1 : 0,
        flags: any([1, 2, 4, 8]),
        slot: any([1, DEPTH - 1, DEPTH]),
        sequence: any([1, 2, write.sequence!]),
        offset: any([write.offset as number, 2 ** 32, 2 ** 53 - 1]),
        // None of these is a mutation of somebody else's part.
        length: choose(below, [0, 1, 2 ** 32, 2 ** 53, below(BLOCK_BYTES)]),
        payload: below(2) === 0 ? bytesOf(below, below(100)) : undefined,
        payloadBytes: below(3) === 0 ? any([1, 4096, 2 ** 20, 0xffff_ffff]) : undefined,
        status: below(4) === 0 ? 1 : 0,
        magic: below(20) === 0 ? 0x32545344 : undefined,
        number: below(20) === 0 ? below(9) : undefined,
      });
      yield;
    }
  },
  function* sealsAround({ below }, speaker, write) {
    const number = speaker.sent++;
    const payload = below(2) === 0 ? new Uint8Array(0) : bytesOf(below, write.length as number);
    const tag = bytesOf(below, speaker.sender.tagBytes);
    const header = headerOf(number, payload.length === 0 ? { type: FrameType.PING } : { ...write, payload });
    speaker.line.write(speaker.sender.sealAround(number, header, tag, payload));
    yield;
  },
  function* usesTheOtherKey(_scene, speaker, write) {
    speaker.sender = speaker.receiver;
    speaker.send({ ...write, type: Operation.FLUSH, offset: 0, length: 0, payload: undefined });
    yield;
  },
  function* floods({ below }, speaker) {
    for (let i = 0; i < FLOOD; i++) {
      speaker.send({ type: FrameType.PING, offset: i });
      if (below(50) === 0) yield;
    }
  },
  function* asksForMoreThanItReads({ below, regionAt }, speaker, write) {
    for (let i = 0; i < 20; i++) {
      const sequence = write.sequence! + i;
      speaker.send({ type: Operation.READ, sequence, offset: regionAt, length: 4096 });
      if (below(3) === 0) yield;
    }
  },
];

/** Somebody on the way to an honest client who changes, drops or repeats some of what passes. */
function* tamperer(scene: Scene): Hostile {
  const { below, honest } = scene;
  yield* waits(below);
  const line = choose(below, honest).speaker?.line;
  if (line === undefined) return;
  const tampers = choose(below, [
    (bytes: Uint8Array<ArrayBuffer>) => flipped(below, bytes, 1),
    (bytes: Uint8Array<ArrayBuffer>) => bytes.slice(0, below(bytes.length)),
    (bytes: Uint8Array<ArrayBuffer>) => bytes.slice(below(bytes.length)),
    (bytes: Uint8Array<ArrayBuffer>) => Uint8Array.from(join(bytes, bytes)),
    (bytes: Uint8Array<ArrayBuffer>) => Uint8Array.from(join(bytesOf(below, 1 + below(60)), bytes)),
  ]);
  if (below(2) === 0) line.tampersUp = tampers;
  else line.tampersDown = tampers;
  for (let i = 0; i < 4; i++) yield;
  line.tampersUp = line.tampersDown = null;
}

/** A connection that has shaken hands under the insider's key, or null: it was not let in. */
function* speaks({ world, algorithms, insiderKey }: Scene): Generator<void, Speaker | null> {
  for (let i = 0; i < PATIENCE; i++) {
    const line = world.connect();
    if (line === null) {
      yield;
      continue;
    }
    const speaker = new Speaker(line, algorithms, insiderKey, new Uint8Array(32).fill(5));
    for (let wait = 0; wait < PATIENCE && !speaker.isReady; wait++) {
      polled(speaker);
      yield;
    }
    if (speaker.isReady) return speaker;
    line.close();
    return null;
  }
  return null;
}

/** What has come. Who does not wait for answers has no claim to understand them. */
function polled(speaker: Speaker): Frame[] {
  try {
    return speaker.poll();
  } catch {
    speaker.line.close();
    return [];
  }
}

/** Lets others go first. */
function* waits(below: Below): Generator<void, void> {
  for (let left = below(PATIENCE); left > 0; left--) yield;
}

/** All kinds. */
export const KINDS: readonly Kind[] = [
  noise,
  halfHello,
  mangledHello,
  wrongKey,
  replay,
  doorCrasher,
  insider,
  insider,
  insider,
  tamperer,
];
