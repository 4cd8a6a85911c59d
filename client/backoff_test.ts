import assert from "node:assert/strict";
import { Backoff } from "./backoff.ts";

Deno.test("the first try is made at once, and each later one after twice the wait, up to 2 s", () => {
  const backoff = new Backoff();
  const waits = Array.from({ length: 10 }, () => backoff.next(0, false));
  assert.deepEqual(waits, [0, 50, 100, 200, 400, 800, 1600, 2000, 2000, 2000]);
  // However long the outage.
  for (let i = 0; i < 5000; i++) assert.equal(backoff.next(0, false), 2000);
});

Deno.test("an exporter that keeps refusing is asked less often", () => {
  const backoff = new Backoff();
  const waits = Array.from({ length: 12 }, () => backoff.next(0, true));
  assert.deepEqual(waits, [0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
  assert.equal(backoff.next(0, false), 2000);
});

Deno.test("a wait is shortened at random by up to a half", () => {
  for (const [random, wait] of [[0, 50], [0.5, 37.5], [1 - 2 ** -20, 25]]) {
    const backoff = new Backoff();
    assert.equal(backoff.next(random, false), 0);
    assert.equal(Math.round(backoff.next(random, false) * 10) / 10, wait);
  }
});

Deno.test("after a reset the next try is made at once again", () => {
  const backoff = new Backoff();
  for (let i = 0; i < 5; i++) backoff.next(0, false);
  backoff.reset();
  assert.deepEqual([backoff.next(0, false), backoff.next(0, false)], [0, 50]);
});
