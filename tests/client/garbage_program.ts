/**
 * Drives a session and the lane that it is on, both in this thread, for the test that counts V8's collections. The I/Os
 * that count lie between two groups of collections that it asks for.
 *
 *     deno run -A --v8-flags=--trace-gc,--expose-gc garbage_program.ts LOOP CRYPTO CIPHER DIGEST KEYED WARM-UP IOS
 *
 * @module
 */
import { type BlockClient, Operation, PENDING } from "../../engine/block.ts";
import type { CryptoChoice } from "../../engine/cryptography.ts";
import { BothEnds } from "./both_ends.ts";

const DEPTH = 32;
/** Copies go round in it some hundred times. */
const REPLAY_BYTES = 8 * 1024 * 1024;
const BLOCK = 4096;
/** Offsets beyond 4 GiB are no small integers. */
const DISK_BYTES = 6 * 1024 ** 3;
/** Where each slot has a region of its own, so that no two WRITEs in flight overlap. */
const REGIONS_AT = 5 * 1024 ** 3;
const REGION_BLOCKS = 256;
/** Collections in a group: as many as do not come by themselves. */
const GROUP = 4;

/** Keeps all slots busy: half READs, half WRITEs of a block. */
class Driver implements BlockClient {
  done = 0;
  #limit = 0;
  #underWay = 0;
  #state = 1;

  constructor(readonly ends: BothEnds, readonly slots: Uint32Array) {}

  run(ios: number): void {
    this.#limit = this.done + ios;
    for (const slot of this.slots) this.#next(slot);
    while (this.#underWay > 0) {
      if (this.ends.reasons.length > 0) throw new Error(this.ends.reasons.join());
      this.ends.engine.turn(1000);
    }
  }

  onComplete(slot: number, status: number): void {
    if (status !== 0) throw new Error(`A request has failed: ${status}`);
    this.#underWay--;
    this.done++;
    this.#next(slot);
  }

  #next(slot: number): void {
    if (this.done + this.#underWay >= this.#limit) return;
    this.#underWay++;
    this.#state = (Math.imul(this.#state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    const { slots } = this.ends.engine;
    slots.offset[slot] = REGIONS_AT + (slot * REGION_BLOCKS + (this.#state >> 8) % REGION_BLOCKS) * BLOCK;
    slots.length[slot] = BLOCK;
    const operation = (this.#state & 0x4000) === 0 ? Operation.READ : Operation.WRITE;
    if (this.ends.session.submit(slot, operation, 0, this) !== PENDING) throw new Error("A request was refused");
  }
}

const [loop, crypto, cipher, digest, keyed, warmUp, ios] = Deno.args;
const ends = new BothEnds({
  loop: loop as "uring" | "poll",
  crypto: crypto as CryptoChoice,
  cipher: Number(cipher),
  digest: Number(digest),
  keyed: keyed === "true",
  depth: DEPTH,
  maxPayload: BLOCK,
  replayBytes: REPLAY_BYTES,
  path: `mem:${DISK_BYTES}`,
});
const driver = new Driver(ends, ends.engine.slots.reserve(DEPTH)!);
const { gc } = globalThis as unknown as { gc: () => void };
driver.run(Number(warmUp));
for (let i = 0; i < GROUP; i++) gc();
driver.run(Number(ios));
for (let i = 0; i < GROUP; i++) gc();
if (ends.ledger.covered === 0) throw new Error("Nothing was copied, or flushed");
ends.close();
