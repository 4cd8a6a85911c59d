/**
 * What is made at the start is what the sums in `engine/limits.ts` say, and requests take nothing more.
 *
 * @module
 */
import assert from "node:assert/strict";
import { attachmentSlots } from "../../client/attachment.ts";
import { KEEPER_SLOTS } from "../../client/keeper.ts";
import { residenceOf } from "../../client/lane_threads.ts";
import { type BlockClient, Operation } from "../../engine/block.ts";
import { exporterLaneSlots, SPARE_SLOTS, threadBytes } from "../../engine/limits.ts";
import { NBD_SLOTS } from "../../engine/nbd_frontend.ts";
import { SLOT_STRIDE_BYTES, Slots } from "../../engine/slots.ts";
import { transmitSlots } from "../../engine/transmit_area.ts";
import { DATA_SLOTS } from "../../exporter/data.ts";
import { DOOR_SLOTS } from "../../exporter/door.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import { makeArena } from "../../wasm/core.ts";
import { BothEnds } from "./both_ends.ts";

const MIB = 2 ** 20;

function mebibytes(bytes: number): number {
  return Math.round(bytes / MIB);
}

Deno.test("the sums are those that the comment says", () => {
  const thread = (slots: number) => [slots, mebibytes(threadBytes(slots))];
  assert.deepEqual(thread(attachmentSlots("ublk", 128)), [128 + 8 + 9 + 6, 39]);
  assert.deepEqual(thread(attachmentSlots("nbd", 128)), [32 * (64 + 1) + 8 + 9 + 6, 535]);
  assert.deepEqual(thread(DATA_SLOTS), [4096, 1041]);
  assert.deepEqual(thread(DOOR_SLOTS), [512 + 64 + 448, 261]);
  assert.equal(mebibytes(exporterLaneSlots(128) * SLOT_STRIDE_BYTES), 33);
  assert.equal(Math.floor(DATA_SLOTS / (exporterLaneSlots(128) + 1)), 31);
  assert.equal(Math.floor(DATA_SLOTS / (NBD_SLOTS + 1)), 63);
});

Deno.test("a thread has the slots that it was made for, and few more", () => {
  for (const slots of [1, 2, 17, 151]) {
    const core = makeArena(threadBytes(slots));
    const { count } = new Slots(core);
    assert(count >= slots && count <= slots + SPARE_SLOTS, `${count} of ${slots}`);
    assert(core.size - threadBytes(slots) < 65_536, "memory comes in pages of 64 KiB");
  }
});

Deno.test("all of a block device's memory is there from the start, unless that is too much", () => {
  const residence = (frontend: "nbd" | "ublk", lanes: number, depth: number) =>
    residenceOf({ frontend, lanes, open: { depth } as Parameters<typeof residenceOf>[0]["open"] });
  assert.equal(residence("ublk", 26, 128), "all");
  assert.equal(residence("ublk", 27, 128), "used");
  assert.equal(residence("ublk", 3, 1024), "all");
  assert.equal(residence("ublk", 4, 1024), "used");
  assert.equal(residence("nbd", 1, 1), "used");
});

for (const cipher of [Cipher.NONE, Cipher.CHACHA20_POLY1305]) {
  for (const replayBytes of [undefined, 4 * MIB]) {
    const what = `${cipher === Cipher.NONE ? "" : "encrypted, "}${
      replayBytes === undefined ? "without" : "with"
    } copies`;
    Deno.test(`both ends of a lane take the slots of the sums, and requests no more (${what})`, () => {
      const depth = 16;
      const keyed = cipher !== Cipher.NONE;
      const digest = keyed ? Digest.NONE : Digest.XXH64;
      const options = { loop: "poll", crypto: "wasm", cipher, digest, keyed, depth } as const;
      const ends = new BothEnds({ ...options, maxPayload: 65_536, path: "mem:8M", replayBytes });
      try {
        const { slots } = ends.engine;
        const taken = () => slots.count - slots.freeCount;
        const exporter = exporterLaneSlots(depth) + 1;
        const client = 1 + 1 + (keyed ? transmitSlots(depth) : 0) + (replayBytes === undefined ? 0 : KEEPER_SLOTS);
        assert.equal(taken(), exporter + client);
        const own = slots.reserve(depth)!;
        let left = 0;
        const asker: BlockClient = {
          onComplete: (_slot, status) => {
            assert.equal(status, 0);
            left--;
          },
        };
        for (const operation of [Operation.WRITE, Operation.READ, Operation.FLUSH]) {
          for (const [index, slot] of own.entries()) {
            slots.setRange(slot, index * 65_536, operation === Operation.FLUSH ? 0 : 65_536);
            left++;
            ends.session.submit(slot, operation, 0, asker);
          }
          ends.until(() => left === 0);
        }
        assert.equal(taken(), exporter + client + depth);
        slots.release(own);
      } finally {
        ends.close();
      }
    });
  }
}
