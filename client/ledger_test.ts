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
