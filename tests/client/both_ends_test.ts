import assert from "node:assert/strict";
import { Operation } from "../../engine/block.ts";
import { availableCiphers } from "../../engine/cryptography.ts";
import { SLOT_PAYLOAD_BYTES } from "../../engine/slots.ts";
import { PIECE_BYTES } from "../../protocol/guard.ts";
import { coreHas } from "../../protocol/guard_support_test.ts";
import { Cipher } from "../../protocol/wire.ts";
import { type Suite, SUITES } from "../vectors/frames.ts";
import { pattern } from "../vectors/primitives.ts";
import { BothEnds } from "./both_ends.ts";

const available = availableCiphers("auto");
/** Whether somebody on this machine does a suite. */
const isThere = (suite: Suite) => suite.cipher !== Cipher.NONE ? available.includes(suite.cipher) : coreHas(suite);

/** The longest payload of a frame: of a whole slot, or less, so that large requests go in parts. */
const PAYLOADS = [["uring", SLOT_PAYLOAD_BYTES], ["poll", SLOT_PAYLOAD_BYTES], ["uring", 16_384]] as const;

for (const suite of SUITES.filter(isThere)) {
  for (const [loop, maxPayload] of PAYLOADS) {
    const name = `${loop}, ${suite.name}, payloads of ${maxPayload}`;
    Deno.test(`${name}: what is written in slots of any size is read back`, () => {
      const { cipher, digest, keyed } = suite;
      const depth = 16;
      const options = { cipher, digest, keyed, depth, crypto: "auto", path: "mem:64M" } as const;
      const ends = new BothEnds({ ...options, loop, maxPayload });
      const { engine, session } = ends;
      const slots = engine.slots.reserve(depth)!;
      const statuses: number[] = [];
      const client = { onComplete: (_slot: number, status: number) => statuses.push(status) };
      const lengths = Array.from(slots, (_, i) => [512, 4096, 65_536, 66_048, SLOT_PAYLOAD_BYTES][i % 5]);
      for (const round of [0, 1, 2]) {
        for (const operation of [Operation.WRITE, Operation.READ]) {
          for (const [i, slot] of slots.entries()) {
            const at = engine.slots.payloadAt(slot);
            if (operation === Operation.WRITE) engine.arena.bytes.set(pattern(lengths[i], 16 * round + i), at);
            else engine.arena.bytes.fill(0, at, at + lengths[i]);
            engine.slots.setRange(slot, i * SLOT_PAYLOAD_BYTES, lengths[i]);
            session.submit(slot, operation, 0, client);
          }
          ends.until(() => statuses.length === depth);
          assert.deepEqual(statuses.splice(0), new Array(depth).fill(0));
          // A WRITE in parts leaves prefixes in its slot.
          if (operation === Operation.WRITE) continue;
          for (const [i, slot] of slots.entries()) {
            const at = engine.slots.payloadAt(slot);
            const found = engine.arena.bytes.subarray(at, at + lengths[i]);
            assert.deepEqual(found, pattern(lengths[i], 16 * round + i), `slot ${i}`);
          }
        }
      }
      ends.close();
    });
  }
}

Deno.test("no turn works on more than a piece of any direction, whatever there is to do", () => {
  const suite = SUITES.find((one) => one.cipher !== Cipher.NONE && isThere(one))!;
  const depth = 16;
  const most = new Map<string, number>();
  const ends = new BothEnds({
    cipher: suite.cipher,
    digest: suite.digest,
    keyed: true,
    depth,
    crypto: "auto",
    path: "mem:64M",
    loop: "poll",
    maxPayload: SLOT_PAYLOAD_BYTES,
    worked: (guard, turn, bytes) => most.set(`${guard} ${turn}`, (most.get(`${guard} ${turn}`) ?? 0) + bytes),
  });
  const slots = ends.engine.slots.reserve(depth)!;
  let done = 0;
  const client = { onComplete: (_slot: number, status: number) => (assert.equal(status, 0), done++) };
  for (const operation of [Operation.WRITE, Operation.READ]) {
    for (const [i, slot] of slots.entries()) {
      ends.engine.slots.setRange(slot, i * SLOT_PAYLOAD_BYTES, i % 2 === 0 ? SLOT_PAYLOAD_BYTES : 4096);
      ends.session.submit(slot, operation, 0, client);
    }
    const expected = done + depth;
    ends.until(() => done === expected);
  }
  const worked = [...most.values()];
  assert.ok(worked.reduce((sum, bytes) => sum + bytes, 0) >= 4 * depth / 2 * SLOT_PAYLOAD_BYTES);
  assert.ok(Math.max(...worked) <= PIECE_BYTES, `${Math.max(...worked)} bytes in one turn`);
  ends.close();
});
