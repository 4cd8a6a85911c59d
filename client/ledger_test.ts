import assert from "node:assert/strict";
import { LEDGER_BYTES, MutationLedger } from "./ledger.ts";

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
    new Int32Array(memory).fill(before, 0, 2);
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
