import assert from "node:assert/strict";
import { Errno } from "../ffi/errno.ts";
import { close, duplicate } from "../ffi/libc.ts";
import { makeLoop } from "../ffi/mod.ts";
import { peerAddress } from "../ffi/socket.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine } from "./engine.ts";
import { listenTcp } from "./listen.ts";
import { Listener } from "./listener.ts";

const LOOPBACK = { host: "127.0.0.1", port: 0 };

/** Turns the engine, and the thread's own event loop, until the condition holds. */
async function until(engine: Engine, condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 2000, "what is waited for does not happen");
    engine.turn(2);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

for (const loop of ["uring", "poll"] as const) {
  const makeEngine = () => new Engine(makeLoop(loop), makeArena(arenaBytes(2)));

  Deno.test(`${loop}: every connection is accepted once`, async () => {
    const engine = makeEngine();
    const { fd, address } = await listenTcp(LOOPBACK);
    const port = Number(address.split(":")[1]);
    const accepted: number[] = [];
    const listener = new Listener(engine, fd, (connected) => accepted.push(connected));
    const peers = await Promise.all(
      Array.from({ length: 20 }, () => Deno.connect({ hostname: LOOPBACK.host, port })),
    );
    await until(engine, () => accepted.length === 20);
    const ports = accepted.map((connected) => {
      const peer = peerAddress(connected);
      return peer?.family === "ipv4" ? peer.port : null;
    });
    const expected = peers.map(({ localAddr }) => (localAddr as Deno.NetAddr).port);
    assert.deepEqual(ports.toSorted(), expected.toSorted());
    for (const peer of peers) peer.close();
    for (const connected of accepted) close(connected);
    listener.close();
    listener.close();
    await until(engine, () => engine.loop.pending === 0);
    await assert.rejects(Deno.connect({ hostname: LOOPBACK.host, port }), Deno.errors.ConnectionRefused);
    engine.close();
  });

  Deno.test(`${loop}: a listener that is closed from its own accept takes nobody more`, async () => {
    const engine = makeEngine();
    const { fd, address } = await listenTcp(LOOPBACK);
    const port = Number(address.split(":")[1]);
    let accepted = 0;
    const accept = (connected: number) => {
      accepted++;
      close(connected);
      listener.close();
    };
    const listener = new Listener(engine, fd, accept);
    const peers = await Promise.all([1, 2, 3].map(() => Deno.connect({ hostname: LOOPBACK.host, port })));
    await until(engine, () => accepted > 0 && engine.loop.pending === 0);
    assert.equal(accepted, 1);
    for (const peer of peers) peer.close();
    engine.close();
  });

  Deno.test(`${loop}: of several that share a socket one gets each connection, and all end with the first`, async () => {
    const engines = [makeEngine(), makeEngine()];
    const { fd, address } = await listenTcp(LOOPBACK);
    const port = Number(address.split(":")[1]);
    const accepted = [0, 0];
    const listeners = [fd, duplicate(fd)].map((own, i) =>
      new Listener(engines[i], own, (connected) => {
        accepted[i]++;
        close(connected);
      })
    );
    const both = (condition: () => boolean) =>
      until(engines[0], () => {
        engines[1].turn(0);
        return condition();
      });
    const peers = await Promise.all(
      Array.from({ length: 20 }, () => Deno.connect({ hostname: LOOPBACK.host, port })),
    );
    await both(() => accepted[0] + accepted[1] === 20);
    listeners[0].close();
    // The other asks no more, though nobody has told it.
    await both(() => engines.every((engine) => engine.loop.pending === 0));
    await assert.rejects(Deno.connect({ hostname: LOOPBACK.host, port }), Deno.errors.ConnectionRefused);
    listeners[1].close();
    assert.equal(close(fd), -Errno.EBADF);
    for (const peer of peers) peer.close();
    for (const engine of engines) engine.close();
  });

  Deno.test(`${loop}: a port that is taken cannot be listened on, and is named`, async () => {
    const { fd, address } = await listenTcp(LOOPBACK);
    const port = Number(address.split(":")[1]);
    await assert.rejects(listenTcp({ host: LOOPBACK.host, port }), new RegExp(`Cannot listen on 127.0.0.1:${port}: `));
    close(fd);
  });
}
