import assert from "node:assert/strict";
import { Operation, RequestFlag } from "../engine/block.ts";
import { Errno } from "../ffi/errno.ts";
import { isDoubt, LEDGER_BYTES, MutationLedger } from "./ledger.ts";

Deno.test("where nothing was written nothing can be lost", () => {
  const ledger = new MutationLedger();
  assert(ledger.isCovered);
  ledger.cover(ledger.mark());
  assert(ledger.isCovered);
});

Deno.test("a flush covers what was acknowledged before it was sent, and nothing else", () => {
  const ledger = new MutationLedger();
  ledger.acknowledge();
  const first = ledger.mark();
  assert(!ledger.isCovered);
  ledger.acknowledge();
  ledger.cover(first);
  assert(!ledger.isCovered);
  ledger.cover(ledger.mark());
  assert(ledger.isCovered);
});

Deno.test("a flush that ends after a later one takes nothing back", () => {
  const ledger = new MutationLedger();
  ledger.acknowledge();
  const first = ledger.mark();
  ledger.acknowledge();
  const second = ledger.mark();
  ledger.cover(second);
  ledger.cover(first);
  assert(ledger.isCovered);
});

Deno.test("the lanes of a session keep one ledger", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  const [one, two] = [new MutationLedger(memory), new MutationLedger(memory)];
  one.acknowledge();
  assert(!two.isCovered);
  two.cover(two.mark());
  assert(one.isCovered);
});

Deno.test("the counts go round", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  for (const before of [0x7fff_ffff, -1]) {
    const words = new Int32Array(memory);
    words.fill(before, 0, 2);
    // The last one that may be lost.
    words[8] = before;
    const ledger = new MutationLedger(memory);
    assert(ledger.isCovered);
    const early = ledger.mark();
    ledger.acknowledge();
    const late = ledger.mark();
    ledger.cover(early);
    assert(!ledger.isCovered);
    ledger.cover(late);
    assert(ledger.isCovered);
    ledger.cover(early);
    assert(ledger.isCovered);
  }
});

Deno.test("a failure is not forgotten, on whichever lane it was", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  const [one, two] = [new MutationLedger(memory), new MutationLedger(memory)];
  assert(!one.hasFailed);
  two.fail();
  one.cover(one.mark());
  assert(one.hasFailed && one.isCovered);
});

const EPOCHS = [1, 2, 3].map((fill) => new Uint8Array(16).fill(fill));

Deno.test("another durability epoch loses what was acknowledged and not covered, and nothing else", () => {
  const ledger = new MutationLedger();
  assert.equal(ledger.meet(EPOCHS[0]), 1);
  ledger.acknowledge();
  // The same exporter again.
  assert.equal(ledger.meet(EPOCHS[0]), 1);
  assert(!ledger.isLost);
  ledger.cover(ledger.mark());
  assert.equal(ledger.meet(EPOCHS[1]), 2);
  assert(!ledger.isLost);
  ledger.acknowledge();
  assert.equal(ledger.meet(EPOCHS[2]), 3);
  assert(ledger.isLost);
});

Deno.test("what is lost stays so, also when a flush succeeds; and only the first lane that comes back judges", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  const [one, two] = [new MutationLedger(memory), new MutationLedger(memory)];
  one.meet(EPOCHS[0]);
  assert.equal(one.meet(EPOCHS[1]), 2);
  one.acknowledge();
  // It was acknowledged in the new epoch, which the second lane is told of only now.
  assert.equal(two.meet(EPOCHS[1]), 2);
  assert(!two.isLost);
  two.lose();
  one.cover(one.mark());
  assert(one.isLost && two.isLost);
});

Deno.test("as long as any lane owes a fence, all are told", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  const [one, two] = [new MutationLedger(memory), new MutationLedger(memory)];
  assert(!two.isFencing);
  one.oweFence();
  two.oweFence();
  one.fenced();
  assert(one.isFencing && two.isFencing);
  two.fenced();
  assert(!one.isFencing);
});

/** Copies of which each is there, or not. */
function copiesOf(lane: number, isWhole = true) {
  return { lane, freeze: () => isWhole };
}

Deno.test("what is durable by itself has its place in the order, and is nothing to lose", () => {
  const ledger = new MutationLedger();
  assert.deepEqual([ledger.acknowledge(true), ledger.isCovered], [1, true]);
  assert.deepEqual([ledger.acknowledge(), ledger.isCovered], [2, false]);
  assert.equal(ledger.acknowledge(true), 3);
  ledger.cover(2);
  assert.deepEqual([ledger.isCovered, ledger.covered, ledger.mark()], [true, 2, 3]);
});

Deno.test("with copies the first lane that meets another durability epoch writes again what is lost", () => {
  const memory = new SharedArrayBuffer(LEDGER_BYTES);
  const [one, two] = [new MutationLedger(memory), new MutationLedger(memory)];
  one.meet(EPOCHS[0], copiesOf(0));
  two.meet(EPOCHS[0], copiesOf(1));
  two.acknowledge();
  let replayedBefore = false;
  two.meet(EPOCHS[1], {
    lane: 1,
    freeze() {
      // Whoever knows of the epoch knows of the replay.
      replayedBefore = one.isReplaying && one.epochs === 2;
      return true;
    },
  });
  assert(replayedBefore && two.isReplayer(1) && !two.isLost);
  one.meet(EPOCHS[1], copiesOf(0));
  assert(!one.isReplayer(0) && one.isReplaying);
  const { beats } = one;
  two.beat();
  assert.notEqual(one.beats, beats);
  // Another epoch: what was written again is lost, too, and the same lane begins again.
  assert.equal(one.meet(EPOCHS[2], copiesOf(0)), 3);
  assert(!two.replayed(2) && one.isReplayer(1) && !one.isCovered);
  assert(two.replayed(3) && !one.isReplaying && one.isCovered);
});

Deno.test("copies that are not whole are of no use, and without anything at stake nothing is written again", () => {
  for (const isWhole of [true, false]) {
    const ledger = new MutationLedger();
    ledger.meet(EPOCHS[0]);
    ledger.acknowledge(true);
    ledger.meet(EPOCHS[1], copiesOf(0, isWhole));
    assert(!ledger.isReplaying && !ledger.isLost);
    ledger.acknowledge();
    ledger.meet(EPOCHS[2], copiesOf(0, isWhole));
    assert.deepEqual([ledger.isReplaying, ledger.isLost], [isWhole, !isWhole]);
  }
});

Deno.test("what another process has left uncovered is lost with the epoch, whatever there are copies of", () => {
  const ledger = new MutationLedger();
  ledger.inherit(EPOCHS[0], 1, true);
  assert(!ledger.isCovered);
  ledger.meet(EPOCHS[1], copiesOf(0, !ledger.hasInherited));
  assert(ledger.isLost && !ledger.isReplaying);
});

Deno.test("after a doubt another process begins another epoch, unless a FLUSH has succeeded since", () => {
  const epoch = new Uint8Array(16).fill(7);
  const ledger = new MutationLedger();
  assert.equal(ledger.meet(epoch), 1);
  ledger.acknowledge();
  assert.equal(ledger.meet(epoch, null, true), 1);
  ledger.doubt();
  assert.equal(ledger.meet(epoch, null, false), 1);
  ledger.cover(ledger.mark());
  ledger.acknowledge();
  assert.equal(ledger.meet(epoch, null, true), 1);
  ledger.doubt();
  assert.equal(ledger.meet(epoch, null, true), 2);
  assert.equal(ledger.isLost, true);
  assert.equal(ledger.meet(epoch, null, true), 2);
});

Deno.test("only what failed when something was to be put on stable storage is a reason to doubt", () => {
  assert.equal(isDoubt(Operation.FLUSH, 0, -Errno.EIO), true);
  assert.equal(isDoubt(Operation.WRITE, RequestFlag.FUA, -Errno.ENOSPC), true);
  assert.equal(isDoubt(Operation.WRITE, 0, -Errno.EIO), false);
  assert.equal(isDoubt(Operation.READ, 0, -Errno.EIO), false);
  assert.equal(isDoubt(Operation.DISCARD, RequestFlag.FUA, -Errno.EOPNOTSUPP), false);
  assert.equal(isDoubt(Operation.FLUSH, 0, -Errno.ESHUTDOWN), false);
});
