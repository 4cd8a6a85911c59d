import assert from "node:assert/strict";
import { type BlockClient, Operation, RequestFlag } from "../engine/block.ts";
import { Transactions, TransactionState } from "./transactions.ts";

const client: BlockClient = { onComplete() {} };

/** Begins one for each slot, a second after the other. */
function begun(slots: readonly number[], operation: number = Operation.READ): Transactions {
  const transactions = new Transactions(8);
  for (const [i, slot] of slots.entries()) transactions.begin(slot, operation, 0, client, i * 1000);
  return transactions;
}

/** All that are ready, in order; takes them away. */
function ready(transactions: Transactions): number[] {
  const slots: number[] = [];
  while (transactions.readyCount > 0) {
    slots.push(transactions.firstReady);
    transactions.shiftReady();
  }
  return slots;
}

Deno.test("what is ready goes in order, round the end of the ring too", () => {
  const transactions = new Transactions(4);
  for (let round = 0; round < 10; round++) {
    for (const slot of [2, 0, 3]) {
      transactions.begin(slot, Operation.READ, 0, client, 0);
      transactions.pushReady(slot);
    }
    assert.equal(transactions.count, 3);
    assert.deepEqual(ready(transactions), [2, 0, 3]);
    for (const slot of [3, 2, 0]) assert.equal(transactions.end(slot), client);
    assert.equal(transactions.count, 0);
  }
});

Deno.test("a slot has one request at a time", () => {
  const transactions = begun([1]);
  assert.throws(() => transactions.begin(1, Operation.READ, 0, client, 0), /already/);
  assert.throws(() => transactions.end(2), /no request/);
});

Deno.test("what is blocked keeps its order, whichever becomes ready", () => {
  const transactions = begun([4, 1, 6, 3]);
  for (const slot of [4, 1, 6, 3]) transactions.block(slot);
  transactions.unblock(1);
  assert.deepEqual([0, 1, 2].map((index) => transactions.blockedAt(index)), [4, 6, 3]);
  transactions.unblock(2);
  assert.equal(transactions.blockedCount, 2);
  assert.deepEqual(ready(transactions), [1, 3]);
});

Deno.test("what was sent is ready again where it was submitted, before and between what waits", () => {
  const transactions = begun([5, 2, 7, 0, 1]);
  transactions.sent(7);
  transactions.sent(5);
  transactions.pushReady(0);
  transactions.pushReady(2);
  transactions.block(1);
  assert.equal(transactions.sentCount, 2);
  transactions.requeue();
  assert.equal(transactions.sentCount, 0);
  assert.deepEqual(ready(transactions), [5, 2, 7, 0]);
  assert.equal(transactions.stateOf(1), TransactionState.BLOCKED);
});

const LIMITS = { windowMs: 5000, tries: 3 };

Deno.test("a request expires so long after its submission, or after the last life where that was later", () => {
  const transactions = begun([3, 1, 2]);
  for (const slot of [3, 1, 2]) transactions.pushReady(slot);
  assert.deepEqual(transactions.expired(4999, 0, LIMITS), []);
  assert.deepEqual(transactions.expired(5000, 0, LIMITS), [3]);
  assert.deepEqual(transactions.expired(7000, 0, LIMITS), [3, 1, 2]);
  assert.deepEqual(transactions.expired(6499, 1500, LIMITS), []);
  assert.deepEqual(transactions.expired(6500, 1500, LIMITS), [3, 1]);
  assert.deepEqual(transactions.expired(1e12, 0, { windowMs: Infinity, tries: Infinity }), []);
});

Deno.test("what waits for another lane's fence has its time from when that is due, though its own lane is alive", () => {
  const transactions = begun([3, 1, 2]);
  transactions.block(3);
  transactions.sent(1);
  transactions.sent(2);
  transactions.operation[2] = Operation.WRITE;
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS), []);
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS, 4001), []);
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS, 4000), [3]);
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS, 4000, true), [3, 2]);
  // Where its own lane has no life either, that counts.
  assert.deepEqual(transactions.expired(9000, 4000, LIMITS, 8000), [3, 1, 2]);
});

Deno.test("life does not count for a request of which nothing has come on too many connections", () => {
  const transactions = begun([3, 1]);
  for (const slot of [3, 1]) transactions.sent(slot);
  transactions.tries[3] = 3;
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS), []);
  transactions.tries[3]++;
  assert.deepEqual(transactions.expired(4999, 9000, LIMITS), []);
  assert.deepEqual(transactions.expired(9000, 9000, LIMITS), [3]);
  transactions.end(3);
  transactions.begin(3, Operation.READ, 0, client, 0);
  assert.equal(transactions.tries[3], 0);
});

Deno.test("what is withdrawn leaves its queue, and the others stay in order", () => {
  const transactions = begun([0, 1, 2, 3, 4, 5]);
  for (const slot of [0, 1, 2]) transactions.pushReady(slot);
  for (const slot of [3, 4]) transactions.block(slot);
  transactions.sent(5);
  transactions.withdraw([1, 3, 5]);
  for (const slot of [1, 3, 5]) transactions.end(slot);
  assert.equal(transactions.count, 3);
  // A slot that is used again meanwhile is there once.
  transactions.begin(1, Operation.READ, 0, client, 0);
  transactions.pushReady(1);
  assert.deepEqual(ready(transactions), [0, 2, 1]);
  assert.deepEqual([transactions.blockedCount, transactions.blockedAt(0)], [1, 4]);
});

Deno.test("writers that wait are what would change the disk, or put that on stable storage, and was not sent", () => {
  const transactions = new Transactions(8);
  for (let operation: number = Operation.READ; operation <= Operation.BLOCK_STATUS; operation++) {
    transactions.begin(operation, operation, 0, client, 0);
  }
  transactions.sent(Operation.DISCARD);
  assert.deepEqual(transactions.waitingWriters(), [Operation.WRITE, Operation.FLUSH, Operation.WRITE_ZEROES]);
  assert.equal(transactions.all().length, 7);
});

Deno.test("a WRITE of which a part is done, and not yet on stable storage, is known", () => {
  const length = new Float64Array(8).fill(8192);
  for (
    const [operation, flags, left, expected] of [
      [Operation.WRITE, 0, 8192, false],
      [Operation.WRITE, 0, 4096, true],
      [Operation.WRITE, RequestFlag.FUA, 4096, false],
      [Operation.READ, 0, 4096, false],
    ] as const
  ) {
    const transactions = begun([2], operation);
    transactions.left[2] = left;
    transactions.flags[2] = flags;
    assert.equal(transactions.hasPartialWrite(length), expected);
  }
});
