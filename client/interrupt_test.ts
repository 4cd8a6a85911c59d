import assert from "node:assert/strict";
import { unlessInterrupted } from "./interrupt.ts";

Deno.test("work that is not interrupted ends as it would alone", async () => {
  const { signal } = new AbortController();
  assert.equal(await unlessInterrupted(Promise.resolve(5), signal), 5);
  await assert.rejects(unlessInterrupted(Promise.reject(new Error("broken")), signal), /broken/);
});

Deno.test("an interrupt ends the waiting, and what the work does then is nobody's concern", async () => {
  for (const isEarly of [false, true]) {
    const interrupt = new AbortController();
    const { promise, reject } = Promise.withResolvers<number>();
    if (isEarly) interrupt.abort(new Error("no more"));
    const waiting = unlessInterrupted(promise, interrupt.signal);
    if (!isEarly) interrupt.abort(new Error("no more"));
    await assert.rejects(waiting, /no more/);
    reject(new Error("too late"));
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
});
