/**
 * Hostile clients against a real exporter, with real sockets, while honest ones work: it stays up, honest clients notice
 * nothing, and nothing of the hostile ones is left behind. What they do is drawn from a seed: `DST_SEED=N` draws another.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { Cipher, Digest, FrameType, REPLY } from "../../protocol/wire.ts";
import { hello, join, randomBytes, randomOf, tlv } from "../protocol/bytes.ts";
import type { PresharedKey } from "../protocol/channel.ts";
import { startProcess } from "../protocol/exporter_process.ts";
import { makeKey } from "../protocol/keys.ts";
import { Middle } from "../protocol/middle.ts";
import { joinTlvs, openTlvs } from "../protocol/door_messages.ts";
import { helloBody, Peer, type PeerOptions } from "../protocol/peer.ts";
import { Session } from "../protocol/session.ts";
import type { TargetKeys } from "../protocol/suite.ts";

const SEED = Number(Deno.env.get("DST_SEED") ?? 20_08);
/** How long they attack: `deno task test:long` much longer. */
const ATTACK_MS = Deno.env.get("DST_TEST_LONG") === "1" ? 120_000 : 10_000;
/** How long they attack before anything is measured: memory that is used once stays with the process. */
const WARM_UP_MS = 4000;
/** Hostile clients at a time. */
const HOSTILE = 10;
/** Connections at once that say nothing. */
const STORM = 300;
/** What the exporter's memory may grow by in the thousands of attacks: V8 lets tens of megabytes pile up before it collects
 * garbage, inside its heap and outside. */
const GROWTH_BYTES_MAX = 128 * 1024 * 1024;
/** How long the exporter may take to notice that connections are gone. Not a claim about speed. */
const PATIENCE_MS = 20_000;
/** The part of the disk that an honest client uses. */
const REGION_BYTES = 256 * 1024;

type Below = (limit: number) => number;
/** Whom they attack, and what they have. */
interface Aim {
  readonly options: PeerOptions;
  readonly keys: TargetKeys;
  readonly disk: string;
  /** What an honest client has said, and its session. */
  readonly recorded: () => Uint8Array;
  readonly session: Uint8Array;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Writes and reads within its own part until it is told to end, and loses its connection now and then. */
async function work(options: PeerOptions, name: string, seed: number, isOver: () => boolean, id: Uint8Array) {
  const random = randomOf(seed);
  const below: Below = (limit) => Math.floor(random() * limit);
  using session = await Session.open(options, name, { session: id, leaseMs: 60_000 });
  const model = await session.read(0, REGION_BYTES);
  let requests = 0;
  for (; !isOver(); requests++) {
    const length = 4096 * (1 + below(16));
    const at = 4096 * below((REGION_BYTES - length) / 4096);
    if (below(2) === 0) {
      const payload = randomBytes(seed + requests, length);
      await session.write(at, payload, 0, below(8));
      model.set(payload, at);
    } else {
      assert.deepEqual(await session.read(at, length, below(8)), model.slice(at, at + length), `the data at ${at}`);
    }
    if (below(300) === 0) await session.rejoin();
  }
  assert.deepEqual(await session.read(0, REGION_BYTES), model);
  await session.close();
  return requests;
}

/** What hostile clients do. What the exporter answers is none of their business, and it may end them at any time. */
const ATTACKS: readonly ((aim: Aim, below: Below) => Promise<void>)[] = [
  async function noise({ options }, below) {
    using peer = await Peer.connect(options);
    await peer.write(randomBytes(below(2 ** 30), 1 + below(3000)));
    await pause(below(30));
  },
  async function halfHello({ options, keys }, below) {
    using peer = await Peer.connect(options);
    const whole = hello(helloBody({ ...options, key: keys.main }));
    await peer.write(whole.slice(0, below(whole.length)));
    await pause(below(300));
  },
  async function mangledHello({ options, keys }, below) {
    using peer = await Peer.connect(options);
    const whole = hello(helloBody({ ...options, key: keys.main }));
    whole[below(whole.length)] ^= 1 << below(8);
    await peer.write(join(whole, randomBytes(below(2 ** 30), below(200))));
    await pause(below(20));
  },
  async function wrongKey({ options, keys }, below) {
    const stranger = makeKey();
    const key: PresharedKey = below(2) === 0 ? stranger : { id: keys.main.id, secret: stranger.secret };
    await assert.rejects(Peer.greet({ ...options, key }), "a wrong key is let in");
  },
  async function replay({ options, recorded }, below) {
    using peer = await Peer.connect(options);
    const bytes = recorded();
    const from = below(3) === 0 ? below(bytes.length) : 0;
    await peer.write(bytes.slice(from, from + 1 + below(20_000)));
    await pause(below(30));
  },
  async function doorNonsense({ options, keys, session }, below) {
    using peer = await Peer.greet({ ...options, key: below(2) === 0 ? keys.reader : keys.second });
    for (let left = below(20); left > 0; left--) {
      const type = [FrameType.LIST, FrameType.DESCRIBE, FrameType.OPEN, FrameType.JOIN][below(4)];
      const isTheft = type === FrameType.JOIN && below(2) === 0;
      const payload = isTheft
        ? joinTlvs(session, { generation: 2 ** 31, fresh: true })
        : below(2) === 0
        ? randomBytes(below(2 ** 30), below(500))
        : tlv(Tlv.TEXT + below(40), randomBytes(below(2 ** 30), below(40)), below(2));
      const answer = await peer.call({ type, payload });
      if (isTheft) assert.equal(answer.status, Status.NO_SESSION, "a lane is stolen");
    }
  },
  async function laneNonsense({ options, keys, disk }, below) {
    using peer = await openReader(options, keys, disk);
    for (let left = 1 + below(5); left > 0; left--) {
      await peer.send({
        type: below(256),
        flags: below(3) * below(2 ** 16),
        slot: below(20),
        sequence: below(3),
        offset: below(2 ** 31) * 4096,
        length: below(3) === 0 ? below(2 ** 31) * 4096 : 4096,
        payload: randomBytes(below(2 ** 30), below(2) * below(9000)),
        status: below(2),
      });
    }
    await pause(below(20));
  },
  async function cutFrame({ options, keys, disk }, below) {
    using peer = await openReader(options, keys, disk);
    const bytes = peer.next({ type: 2, sequence: 1, length: 65536, payload: new Uint8Array(65536) });
    if (below(2) === 0) bytes[below(peer.prefixBytes)] ^= 1 << below(8);
    await peer.write(bytes.slice(0, below(bytes.length)));
    await pause(below(200));
  },
  async function readsNothing({ options, keys, disk }, below) {
    using peer = await openReader(options, keys, disk);
    for (let slot = 0; slot < 16; slot++) {
      await peer.write(peer.next({ type: 1, slot, sequence: 1, offset: slot * 2 ** 20, length: 2 ** 20 }));
    }
    await pause(below(200));
  },
  async function floods({ options, keys, disk }, below) {
    using peer = await openReader(options, keys, disk);
    const frames = Array.from({ length: below(2000) }, (_, offset) => peer.next({ type: FrameType.PING, offset }));
    await Promise.race([peer.write(join(...frames)), pause(100)]);
  },
];

/** A session under the reader's key, in its lane. */
async function openReader(options: PeerOptions, keys: TargetKeys, disk: string): Promise<Peer> {
  const peer = await Peer.greet({ ...options, key: keys.reader });
  const answer = await peer.call({ type: FrameType.OPEN, payload: openTlvs(disk, { access: 0, depth: 16 }) });
  assert.deepEqual([answer.type, answer.status], [FrameType.OPEN | REPLY, Status.OK]);
  peer.enterLane(0);
  return peer;
}

/** Hostile clients attack for so long; how many attacks there were. */
async function attack(aim: Aim, seed: number, forMs: number): Promise<number> {
  const until = performance.now() + forMs;
  let attacks = 0;
  const attackers = Array.from({ length: HOSTILE }, async (_, i) => {
    const random = randomOf(seed * HOSTILE + i);
    const below: Below = (limit) => Math.floor(random() * limit);
    for (; performance.now() < until; attacks++) {
      const one = ATTACKS[below(ATTACKS.length)];
      try {
        await one(aim, below);
      } catch (error) {
        // That it is sent away is what it has to expect; that it gets what it must not have, or that nobody listens, not.
        const isExpected = ["EndOfStream", "BrokenPipe", "ConnectionReset"].includes((error as Error).name);
        if (!isExpected) throw new Error(`the attack ${one.name}, seed ${seed}`, { cause: error });
      }
    }
  });
  await Promise.all(attackers);
  return attacks;
}

/** Bytes of the process in memory, and descriptors that it has open. */
function usageOf(pid: number): { bytes: number; descriptors: number } {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const kib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]);
  return { bytes: kib * 1024, descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length };
}

/** Waits until the process has no more descriptors open than this. */
async function settles(pid: number, descriptors: number): Promise<{ bytes: number; descriptors: number }> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const usage = usageOf(pid);
    if (usage.descriptors <= descriptors || performance.now() > until) return usage;
    await pause(50);
  }
}

const SUITES = {
  uring: { cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE },
  poll: { cipher: Cipher.NONE, digest: Digest.BLAKE2B_256 },
} as const;

for (const loop of ["uring", "poll"] as const) {
  Deno.test(`${loop}: hostile clients neither stop the exporter nor disturb honest ones (seed ${SEED})`, async () => {
    const exporter = await startProcess({ loop, backend: "memory", keyed: true, crypto: "auto", workers: 2 });
    try {
      const { host, port, pid } = exporter;
      const keys = exporter.keys!;
      const algorithms = SUITES[loop];
      const options: PeerOptions = { host, port, ...algorithms, key: keys.main, feeding: "whole", seed: SEED };
      using middle = new Middle(exporter);
      const quiet = usageOf(pid).descriptors;
      const session = crypto.getRandomValues(new Uint8Array(16));
      let isOver = false;
      const honest = Promise.all([
        work({ ...options, port: middle.port }, exporter.exports.disk, SEED, () => isOver, session),
        work({ ...options, key: keys.second }, exporter.exports.big, SEED + 1, () => isOver, makeKey().id),
      ]);
      // A failure of theirs ends the attack too.
      honest.catch(() => isOver = true);
      while (!isOver && middle.captured("up").length < 100_000) await pause(10);
      const recording = middle.captured("up");
      const aim: Aim = { options, keys, disk: exporter.exports.disk, recorded: () => recording, session };
      await attack(aim, SEED, WARM_UP_MS);
      const before = await settles(pid, quiet + 2);
      const attacks = await attack(aim, SEED + 1, ATTACK_MS);
      const after = await settles(pid, before.descriptors);
      isOver = true;
      const requests = await honest;
      const growth = Math.round((after.bytes - before.bytes) / 2 ** 20);
      console.log(`${attacks} attacks, ${requests.join(" and ")} honest requests, ${growth} MiB more memory`);
      assert.ok(
        after.descriptors <= before.descriptors,
        `${after.descriptors} descriptors, ${before.descriptors} before`,
      );
      assert.ok(after.bytes <= before.bytes + GROWTH_BYTES_MAX, `${growth} MiB more memory`);

      // So many at once that there is no room for them all: when they have gone, there is room again.
      const storm = await Promise.all(Array.from({ length: STORM }, () => Peer.connect(options).catch(() => null)));
      for (const peer of storm) peer?.close();
      assert.ok((await settles(pid, quiet)).descriptors <= quiet, "nothing of them is left");
      using next = await Session.open(options, exporter.exports.disk, { access: 0 });
      await next.close();
    } finally {
      await exporter.stop();
    }
  });
}
