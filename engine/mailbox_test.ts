import assert from "node:assert/strict";
import { close, eventfd } from "../ffi/libc.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine } from "./engine.ts";
import { Mailbox, post } from "./mailbox.ts";

for (const loop of ["uring", "poll"] as const) {
  const makeEngine = () => new Engine(makeLoop(loop), makeArena(arenaBytes(2)));

  Deno.test(`${loop}: messages arrive in order, however they are announced`, async () => {
    const engine = makeEngine();
    const wakeFd = eventfd();
    const { port1, port2 } = new MessageChannel();
    const other = new MessageChannel();
    const mailbox = new Mailbox(engine, wakeFd);
    const seen: unknown[] = [];
    mailbox.listen(port2, (message) => seen.push(message));
    mailbox.listen(other.port2, (message) => seen.push(message));
    for (let i = 0; i < 100; i++) post({ port: port1, wakePeer: wakeFd }, i);
    post({ port: other.port1, wakePeer: wakeFd }, "from elsewhere");
    engine.timers.schedule({ expire: () => engine.stop() }, 0, engine.now + 50);
    await engine.run();
    assert.deepEqual(seen.filter((message) => typeof message === "number"), Array.from({ length: 100 }, (_, i) => i));
    assert.ok(seen.includes("from elsewhere"));
    for (const port of [port1, port2, other.port1, other.port2]) port.close();
    engine.close();
    close(wakeFd);
  });

  Deno.test(`${loop}: what is posted from within a message is delivered too`, async () => {
    const engine = makeEngine();
    const wakeFd = eventfd();
    const { port1, port2 } = new MessageChannel();
    const mailbox = new Mailbox(engine, wakeFd);
    let count = 0;
    mailbox.listen(port2, () => {
      if (++count < 10) post({ port: port1, wakePeer: wakeFd }, count);
      else engine.stop();
    });
    post({ port: port1, wakePeer: wakeFd }, 0);
    await engine.run();
    assert.equal(count, 10);
    port1.close();
    port2.close();
    engine.close();
    close(wakeFd);
  });
}
