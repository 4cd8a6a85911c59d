/**
 * Cases of sessions with several lanes, which may live in several threads of the exporter (SPEC.md, sections 1, 5.1, 6.3
 * and 6.4).
 *
 * @module
 */
import assert from "node:assert/strict";
import { DEPTH_MAX, LANES_MAX } from "../../protocol/limits.ts";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { join, tlv32 } from "./bytes.ts";
import { joinTlvs } from "./door_messages.ts";
import { Peer } from "./peer.ts";
import { answerOf, ask, Session } from "./session.ts";
import { isGone, joins } from "./suite_ownership.ts";
import type { Case, Register } from "./suite.ts";

const { READ, WRITE, FLUSH } = Operation;
/** A lease, and the end of whoever a failed test left behind. */
const LEASE = { leaseMs: 60_000, steal: true };
const LANES = 4;
const KIB = 1024;

/** Makes a test of a function that gets a session's lanes, which it need not give back. */
function onLanes(
  name: "disk" | "slow" | "stalled",
  work: (lanes: Session[], context: Case) => Promise<void>,
  count = LANES,
): (context: Case) => Promise<void> {
  return async (context) => {
    const lanes = await Session.openLanes(context.options, context.exports[name], count, LEASE);
    try {
      await work(lanes, context);
    } finally {
      for (const lane of lanes) lane.peer.close();
    }
  };
}

/** Whether the lane's request executes at the moment. */
async function executes(lane: Session, slot = 0): Promise<boolean> {
  const { sequences, peer } = lane;
  const { status } = await peer.call({ type: FrameType.PING, flags: 1, slot, sequence: sequences[slot] });
  return status === 1;
}

/** A block with this content. */
function filled(value: number, bytes = 4 * KIB): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes).fill(value);
}

/** Registers them. */
export function registerLaneCases(test: Register): void {
  test("OPEN grants the lanes that were wished for, within the limits", async (context) => {
    for (const [wish, granted] of [[undefined, 1], [0, 1], [1, 1], [5, 5], [LANES_MAX, LANES_MAX], [1000, LANES_MAX]]) {
      using session = await Session.open(context.options, context.exports.disk, { access: 0, lanes: wish });
      assert.equal(session.grant.lanes, granted, `with a wish of ${wish}`);
      assert.equal(await joins(context, session.id, 1, granted), Status.BAD_REQUEST);
      await session.close();
    }
  });

  test(
    "JOIN of a lane is answered as OPEN was, whatever its first generation",
    onLanes("disk", async ([first], context) => {
      const second = await first.join(2, 0x8000_0000);
      assert.deepEqual(second.grant, first.grant);
      assert.equal(await joins(context, first.id, 0x8000_0000, 2), Status.OLD_GENERATION);
      assert.equal((await second.read(0, 4 * KIB)).length, 4 * KIB);
      second.peer.close();
      await first.close();
    }),
  );

  test(
    "what one lane wrote every lane reads",
    onLanes("disk", async (lanes) => {
      for (const [i, lane] of lanes.entries()) {
        await lane.write(i * 4 * KIB, filled(i + 1));
        const others = lanes.map((other) => other.read(i * 4 * KIB, 4 * KIB, 1));
        for (const seen of await Promise.all(others)) assert.deepEqual(seen, filled(i + 1));
      }
      await lanes[0].close();
    }),
  );

  test(
    "lanes have slots and sequences of their own",
    onLanes("disk", async (lanes) => {
      for (const [i, lane] of lanes.entries()) {
        for (let round = 0; round <= i; round++) await lane.read(0, 4 * KIB, 3);
        assert.equal(lane.sequences[3], i + 1);
      }
      // The same slot and sequence on another lane is another request.
      await lanes[1].write(0, filled(0x11), 0, 5);
      await lanes[2].write(0, filled(0x22), 0, 5);
      assert.equal((await lanes[1].resend(WRITE, 0, 4 * KIB, { slot: 5, payload: filled(0x33) })).status, Status.OK);
      assert.deepEqual(await lanes[3].read(0, 4 * KIB), filled(0x22), "the resend was not executed");
      await lanes[0].close();
    }),
  );

  test(
    "a frame that names another lane ends the connection, and no other lane's",
    onLanes("disk", async (lanes) => {
      const wrong = lanes[1].peer.next({ type: READ, lane: 2, sequence: 1, length: 4 * KIB });
      await lanes[1].peer.write(wrong);
      await lanes[1].peer.ended();
      for (const lane of [lanes[0], lanes[2], lanes[3]]) await lane.read(0, 4 * KIB);
      await lanes[1].rejoin();
      await lanes[1].read(0, 4 * KIB);
      await lanes[0].close();
    }),
  );

  test(
    "a lane that is joined again ends its old connection, and no other lane's",
    onLanes("disk", async (lanes) => {
      const old = lanes[3].peer;
      await lanes[3].write(0, filled(7));
      await lanes[3].rejoin();
      await old.ended();
      assert.equal((await lanes[3].resend(WRITE, 0, 4 * KIB, { payload: filled(8) })).status, Status.OK);
      for (const lane of lanes) assert.deepEqual(await lane.read(0, 4 * KIB), filled(7));
      await lanes[3].rejoin(true);
      assert.deepEqual(lanes[3].sequences[0], 0);
      for (const lane of lanes) await lane.read(0, 4 * KIB);
      await lanes[0].close();
    }),
  );

  test(
    "FLUSH on any lane is answered, with mutations under way on all of them",
    onLanes("disk", async (lanes) => {
      for (const [i, lane] of lanes.entries()) {
        for (let slot = 0; slot < 4; slot++) {
          await lane.send(WRITE, (i * 4 + slot) * 64 * KIB, 64 * KIB, { slot, payload: filled(i, 64 * KIB) });
        }
      }
      const flushes = lanes.map(async (lane) => {
        await lane.send(FLUSH, 0, 0, { slot: 9 });
        for (let left = 5; left > 0; left--) assert.equal((await lane.peer.receive()).status, Status.OK);
      });
      await Promise.all(flushes);
      await lanes[0].close();
    }),
  );

  test(
    "a session lives as long as one of its lanes is connected",
    async (context) => {
      const lanes = await Session.openLanes(context.options, context.exports.disk, 3, { leaseMs: 0, steal: true });
      const [first, second, third] = lanes;
      first.peer.close();
      third.peer.close();
      await second.write(0, filled(3));
      // The ends are noticed in any order, and change nothing.
      await first.rejoin();
      assert.deepEqual(await first.read(0, 4 * KIB), filled(3));
      first.peer.close();
      second.peer.close();
      await isGone(context, first.id);
    },
  );

  test(
    "CLOSE on any lane ends the session and all its lanes",
    async (context) => {
      for (const closing of [0, 1, 2]) {
        const lanes = await Session.openLanes(context.options, context.exports.disk, 3, LEASE);
        for (const lane of lanes) await lane.write(0, filled(1));
        await lanes[closing].close();
        for (const [i, lane] of lanes.entries()) if (i !== closing) await lane.peer.ended();
        for (const lane of [0, 1, 2]) assert.equal(await joins(context, lanes[0].id, 9, lane), Status.NO_SESSION);
        using next = await Session.open(context.options, context.exports.disk, { session: lanes[0].id });
        await next.close();
      }
    },
  );

  test(
    "CLOSE waits for what executes on other lanes, and their replies are sent",
    onLanes("slow", async (lanes, context) => {
      await lanes[1].send(WRITE, 0, 4 * KIB, { payload: filled(0x71) });
      await lanes[2].send(WRITE, 4 * KIB, 4 * KIB, { payload: filled(0x72) });
      assert.ok(await executes(lanes[1]) && await executes(lanes[2]));
      await lanes[0].peer.send({ type: FrameType.CLOSE });
      const reply = await lanes[0].peer.receive();
      assert.deepEqual([reply.type, reply.status], [FrameType.CLOSE | REPLY, Status.OK]);
      using after = await Session.open(context.options, context.exports.slow, { access: 0 });
      assert.deepEqual(await after.read(0, 4 * KIB), filled(0x71));
      assert.deepEqual(await after.read(4 * KIB, 4 * KIB), filled(0x72));
      for (const lane of [lanes[1], lanes[2]]) {
        assert.equal((await lane.reply(WRITE)).status, Status.OK);
        await lane.peer.ended();
      }
      await lanes[3].peer.ended();
      await after.close();
    }),
  );

  test(
    "STEAL ends all lanes of the holder, each of which is told FENCED",
    onLanes("disk", async (lanes, context) => {
      for (const lane of lanes) await lane.write(0, filled(9));
      lanes[2].peer.close();
      using thief = await Session.open(context.options, context.exports.disk, { steal: true });
      for (const [i, lane] of lanes.entries()) {
        if (i === 2) continue;
        assert.equal((await lane.peer.receive()).type, FrameType.FENCED);
        await lane.peer.ended();
        assert.equal(await joins(context, lane.id, 9, i), Status.NO_SESSION);
      }
      assert.deepEqual(await thief.read(0, 4 * KIB), filled(9));
      await thief.close();
    }),
  );

  test(
    "STEAL waits for what executes on any lane, and counts all of it",
    onLanes("stalled", async (lanes, context) => {
      for (const [i, lane] of lanes.entries()) {
        await lane.send(WRITE, i * 4 * KIB, 4 * KIB, { payload: filled(i + 1) });
        assert.ok(await executes(lane));
      }
      using thief = await Session.open(context.options, context.exports.stalled, { steal: true });
      assert.equal(thief.fencing[0]?.length, LANES, "FENCING says how many requests execute");
      const seen = await thief.read(0, LANES * 4 * KIB);
      for (const i of lanes.keys()) assert.deepEqual(seen.slice(i * 4 * KIB, (i + 1) * 4 * KIB), filled(i + 1));
      await thief.close();
    }),
  );

  test(
    "a JOIN waits for what executes on its lane, and for no other's",
    onLanes("slow", async (lanes) => {
      await lanes[1].send(WRITE, 0, 4 * KIB, { payload: filled(1) });
      assert.ok(await executes(lanes[1]));
      await lanes[0].rejoin();
      assert.ok(await executes(lanes[1]), "the other lane was joined in less time than its request takes");
      lanes[1].peer.close();
      await lanes[1].rejoin();
      assert.equal((await lanes[1].resend(WRITE, 0, 4 * KIB, { payload: filled(2) })).status, Status.OK);
      assert.deepEqual(await lanes[0].read(0, 4 * KIB), filled(1));
      await lanes[0].close();
    }),
  );

  test(
    "a JOIN that waits is refused when another lane closes the session",
    onLanes("slow", async (lanes, context) => {
      await lanes[1].send(WRITE, 0, 4 * KIB, { payload: filled(1) });
      assert.ok(await executes(lanes[1]));
      using joining = await Peer.greet(context.options);
      await joining.send({ type: FrameType.JOIN, payload: joinTlvs(lanes[0].id, { lane: 1, generation: 2 }) });
      // Its old connection ends when the JOIN has been taken.
      await lanes[1].peer.ended();
      await lanes[0].close();
      assert.equal((await answerOf(joining, FrameType.JOIN)).answer.status, Status.NO_SESSION);
    }),
  );

  test("all lanes of many sessions work at once", async (context) => {
    const sessions = await Promise.all(
      Array.from({ length: 3 }, () => Session.openLanes(context.options, context.exports.shared, 3)),
    );
    const lanes = sessions.flat();
    await Promise.all(lanes.map(async (lane, i) => {
      for (let round = 0; round < 20; round++) {
        await lane.write(i * 8 * KIB, filled(i * 20 + round, 8 * KIB), 0, round % 3);
        assert.deepEqual(await lane.read(i * 8 * KIB, 8 * KIB, 3), filled(i * 20 + round, 8 * KIB));
      }
    }));
    for (const [first] of sessions) await first.close();
    for (const [, ...rest] of sessions) for (const lane of rest) await lane.peer.ended();
  });

  test("a lane that cannot be reserved is NO_RESOURCES, and those of its session stay", async (context) => {
    using first = await Session.open(context.options, context.exports.disk, { ...LEASE, lanes: LANES_MAX, depth: 1 });
    try {
      // Joined with the deepest wish until the exporter has no more; what it has is not ours to know.
      for (let lane = 1; lane < LANES_MAX; lane++) {
        using peer = await Peer.greet(context.options);
        const tlvs = joinTlvs(first.id, { lane, generation: 1 });
        const { answer } = await ask(peer, FrameType.JOIN, join(tlvs, tlv32(Tlv.DEPTH, [DEPTH_MAX])));
        if (answer.status === Status.NO_RESOURCES) {
          // It is as if it had not been asked for: its generation was not used up, and the session goes on.
          const again = join(tlvs, tlv32(Tlv.DEPTH, [1]));
          assert.equal((await ask(peer, FrameType.JOIN, again)).answer.status, Status.OK);
          break;
        }
        assert.equal(answer.status, Status.OK);
      }
      assert.equal((await first.read(0, 4 * KIB)).length, 4 * KIB);
    } finally {
      await first.close();
    }
  });
}
