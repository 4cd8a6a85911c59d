import assert from "node:assert/strict";
import { Random } from "./random.ts";
import { Timers } from "./timers.ts";

class Recorder {
  readonly tags: number[] = [];
  expire(tag: number): void {
    this.tags.push(tag);
  }
}

const still = { now: () => 0 };

Deno.test("timers expire by deadline, and in order of scheduling where deadlines are equal", () => {
  const timers = new Timers(8, still);
  const recorder = new Recorder();
  assert.equal(timers.nextDeadline(), Infinity);
  timers.schedule(recorder, 1, 30);
  timers.schedule(recorder, 2, 10);
  timers.schedule(recorder, 3, 20);
  timers.schedule(recorder, 4, 10);
  assert.equal(timers.nextDeadline(), 10);
  assert.equal(timers.expire(9.9), 0);
  assert.equal(timers.expire(20), 3);
  assert.deepEqual(recorder.tags, [2, 4, 3]);
  assert.equal(timers.nextDeadline(), 30);
  assert.equal(timers.expire(Infinity), 1);
  assert.equal(timers.count, 0);
});

Deno.test("a timer that a handler starts waits for the next call, even when it is due", () => {
  const timers = new Timers(3, still);
  const recorder = new Recorder();
  let calls = 0;
  const again = {
    expire(tag: number): void {
      calls++;
      timers.schedule(again, tag, 0);
    },
  };
  timers.schedule(again, 7, 0);
  timers.schedule(recorder, 8, 4);
  assert.equal(timers.expire(5), 2);
  assert.deepEqual(recorder.tags, [8]);
  assert.equal(timers.expire(5), 1);
  assert.equal(calls, 2);
  assert.equal(timers.count, 1);
});

Deno.test("one timer more than the capacity is a programmer's error", () => {
  const timers = new Timers(1, still);
  timers.schedule(new Recorder(), 0, 1);
  assert.throws(() => timers.schedule(new Recorder(), 0, 1), RangeError);
  assert.throws(() => new Timers(0, still), RangeError);
});

Deno.test("any mix of scheduling and expiring gives the order of a sorted list", () => {
  const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  const timers = new Timers(500, still);
  const recorder = new Recorder();
  let model: { deadline: number; tag: number }[] = [];
  const expected: number[] = [];
  let now = 0;
  for (let tag = 0; tag < 5000; tag++) {
    if (timers.count < 500) {
      const deadline = now + Math.floor(random.next() * 100);
      timers.schedule(recorder, tag, deadline);
      model.push({ deadline, tag });
    }
    if (random.next() < 0.2) {
      now += Math.floor(random.next() * 30);
      timers.expire(now);
      const due = model.filter((timer) => timer.deadline <= now);
      due.sort((a, b) => a.deadline - b.deadline || a.tag - b.tag);
      for (const timer of due) expected.push(timer.tag);
      model = model.filter((timer) => timer.deadline > now);
    }
  }
  assert.deepEqual(recorder.tags, expected, `replay with DST_SEED=${seed}`);
});
