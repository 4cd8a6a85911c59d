import assert from "node:assert/strict";
import { libcrypto } from "../ffi/libcrypto.ts";
import { Cipher } from "../protocol/wire.ts";
import type { CryptoChoice } from "./cryptography.ts";
import { makeWakeFd, Thread } from "./thread.ts";

/** What the thread of these tests is asked. */
type Question = { say: string } | { throw: string } | { later: number } | { events: number } | { crash: true } | {
  end: true;
} | { providerOf: number };

/** The module of that thread: no file of its own, since it is of no use elsewhere. */
const source = `
  import { serveThread } from ${JSON.stringify(import.meta.resolve("./thread.ts"))};
  serveThread(({ engine, init, tell }) => {
    if (init.fail) throw new Error("Cannot set up: " + init.fail);
    return (question, reply) => {
      if ("say" in question) return reply.answer(init.prefix + question.say);
      if ("throw" in question) throw new Error(question.throw);
      if ("later" in question) {
        const expire = () => reply.answer(question.later);
        return engine.timers.schedule({ expire }, 0, engine.now + question.later);
      }
      if ("events" in question) {
        for (let i = 0; i < question.events; i++) tell(i);
        return reply.answer();
      }
      if ("crash" in question) {
        return engine.timers.schedule({ expire: () => { throw new Error("out of the loop") } }, 0, engine.now);
      }
      if ("providerOf" in question) return reply.answer(engine.cryptography.providerOf(question.providerOf, 0));
      reply.answer("goodbye");
      engine.stop();
    };
  });`;

for (const loop of ["uring", "poll"] as const) {
  const test = (
    name: string,
    init: Record<string, string>,
    body: (start: (crypto?: CryptoChoice) => Promise<Thread<Question, number>>, events: number[]) => Promise<void>,
  ) =>
    Deno.test(`${loop}: ${name}`, async () => {
      const url = URL.createObjectURL(new Blob([source], { type: "application/javascript" }));
      const wakeFd = makeWakeFd();
      const events: number[] = [];
      let thread: Thread<Question, number> | null = null;
      try {
        await body(async (crypto) => {
          const options = { loop, slots: 2, crypto, wakeFd, init };
          thread = await Thread.start<Record<string, string>, Question, number>(
            new URL(url),
            options,
            (event) => events.push(event),
          );
          return thread;
        }, events);
      } finally {
        (thread as Thread<Question, number> | null)?.end();
        URL.revokeObjectURL(url);
        // The eventfd stays open: the ended thread may be about to wait for it once more, by its number, which would
        // then be that of the next test's.
      }
    });

  test("a thread answers questions while it waits in its loop", { prefix: "it was said: " }, async (start) => {
    const thread = await start();
    assert.equal(thread.loop, loop);
    assert.equal(await thread.ask({ say: "hello" }), "it was said: hello");
    const many = await Promise.all(Array.from({ length: 100 }, (_, i) => thread.ask({ say: String(i) })));
    assert.deepEqual(many, Array.from({ length: 100 }, (_, i) => `it was said: ${i}`));
  });

  test("an answer may come from a later turn, and be overtaken", { prefix: "" }, async (start) => {
    const thread = await start();
    const order: unknown[] = [];
    await Promise.all([
      thread.ask({ later: 30 }).then((answer) => order.push(answer)),
      thread.ask({ say: "at once" }).then((answer) => order.push(answer)),
    ]);
    assert.deepEqual(order, ["at once", 30]);
  });

  test("what a question throws is its refusal, and the thread goes on", { prefix: "" }, async (start) => {
    const thread = await start();
    await assert.rejects(thread.ask({ throw: "not today" }), /^Error: not today$/);
    assert.equal(await thread.ask({ say: "still here" }), "still here");
  });

  test("events arrive in order", { prefix: "" }, async (start, events) => {
    const thread = await start();
    await thread.ask({ events: 50 });
    assert.deepEqual(events, Array.from({ length: 50 }, (_, i) => i));
  });

  test("what the set-up throws is the answer to the start", { fail: "for a reason" }, async (start) => {
    await assert.rejects(start(), /^Error: Cannot set up: for a reason$/);
  });

  test("a thread that dies says so, and refuses what it was and is asked", { prefix: "" }, async (start) => {
    const thread = await start();
    const asked = thread.ask({ later: 60_000 });
    const crash = thread.ask({ crash: true });
    await assert.rejects(asked, /out of the loop/);
    await assert.rejects(crash, /out of the loop/);
    assert.match((await thread.failed).message, /out of the loop/);
    await assert.rejects(thread.ask({ say: "anybody?" }), /out of the loop/);
  });

  for (const crypto of ["wasm", "openssl"] as const) {
    const isThere = crypto === "wasm" || typeof libcrypto() !== "string";
    test(`a thread's cryptography is done by whom it was started with: ${crypto}`, { prefix: "" }, async (start) => {
      if (!isThere) return await assert.rejects(start(crypto), /Cannot use OpenSSL/);
      const thread = await start(crypto);
      assert.equal(await thread.ask({ providerOf: Cipher.CHACHA20_POLY1305 }), crypto);
    });
  }

  test("a thread ends when its engine is stopped, after its last answer", { prefix: "" }, async (start) => {
    const thread = await start();
    assert.equal(await thread.ask({ end: true }), "goodbye");
  });
}
