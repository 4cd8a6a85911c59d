/**
 * The client's half of the conformance suite against this client's session, with each loop.
 *
 * @module
 */
import { Connector } from "../../client/connector.ts";
import { makeLocalEngine } from "../../client/local_engine.ts";
import { openSession } from "../../client/open.ts";
import type { BlockClient } from "../../engine/block.ts";
import { Operation } from "../../protocol/request.ts";
import { Digest } from "../../protocol/wire.ts";
import { type ClientUnderTest, type Outcome, type RemoteDisk, runClientSuite } from "./client_suite.ts";
import type { Feeding } from "./peer.ts";

/** Slots of the engine: those of requests, and a few for connections and sessions. */
const SLOTS = 48;
const ALL_DIGESTS = [Digest.XXH64, Digest.CRC32C, Digest.NONE];

/** The session of `client/`, on an engine that turns as long as the test runs. */
function startClient(loop: "uring" | "poll"): ClientUnderTest {
  const engine = makeLocalEngine(loop, SLOTS);
  const connector = new Connector(engine);
  const sessions: { abort(): void; close(): void }[] = [];
  let ended = false;
  const running = (async () => {
    while (!ended || engine.loop.pending > 0) {
      engine.turn(0);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    engine.close();
  })();
  return {
    attach: (port, { readOnly = false, steal = false, digests = ALL_DIGESTS }) =>
      new Promise<RemoteDisk>((resolve, reject) => {
        const events: string[] = [];
        const { promise: lost, resolve: lose } = Promise.withResolvers<string>();
        const where = `127.0.0.1:${port}`;
        openSession(
          connector,
          {
            target: { where, addresses: [{ family: "ipv4", host: "127.0.0.1", port }], digests },
            name: "disk",
            readOnly,
            steal,
            depth: 8,
            holder: "the suite",
          },
          {
            onLost: lose,
            onShuttingDown: () => events.push("shutting down"),
            onResized: (size) => events.push(`resized ${size}`),
          },
          ({ session }) => {
            sessions.push(session);
            resolve({
              lost,
              events,
              submit: (operation, offset, length, flags = 0, payload) =>
                new Promise<Outcome>((done) => {
                  const slots = engine.slots.reserve(1)!;
                  const at = engine.slots.payloadAt(slots[0]);
                  if (payload !== undefined) engine.arena.bytes.set(payload, at);
                  const client: BlockClient = {
                    onComplete(slot, status) {
                      const bytes = operation === Operation.READ
                        ? length
                        : operation === Operation.BLOCK_STATUS
                        ? session.extentBytes(slot)
                        : 0;
                      done({ status, payload: engine.arena.bytes.slice(at, at + bytes) });
                      engine.slots.release(slots);
                    },
                  };
                  engine.slots.setRange(slots[0], offset, length);
                  const status = session.submit(slots[0], operation, flags, client);
                  if (status <= 0) client.onComplete(slots[0], status);
                }),
              leave: () => new Promise<boolean>((left) => session.leave(left)),
            });
          },
          (reason) => reject(new Error(reason)),
        );
      }),
    async end() {
      for (const session of sessions) session.close();
      ended = true;
      await running;
    },
  };
}

const ROWS: readonly { loop: "uring" | "poll"; digest: number; feeding: Feeding }[] = [
  { loop: "uring", digest: Digest.XXH64, feeding: "whole" },
  { loop: "poll", digest: Digest.CRC32C, feeding: "bytes" },
  { loop: "uring", digest: Digest.CRC32C, feeding: "pieces" },
  { loop: "poll", digest: Digest.NONE, feeding: "trailing" },
  { loop: "uring", digest: Digest.NONE, feeding: "bytes" },
  { loop: "poll", digest: Digest.XXH64, feeding: "pieces" },
];

for (const [index, { loop, digest, feeding }] of ROWS.entries()) {
  runClientSuite({
    name: `client, ${loop}, digest ${digest}, ${feeding}`,
    start: () => startClient(loop),
    digest,
    feeding,
    seed: index + 1,
  });
}
