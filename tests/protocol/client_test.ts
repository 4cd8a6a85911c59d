/**
 * The client's half of the conformance suite against this client's session: each cipher and digest, each loop and each
 * provider of cryptography, pairwise, fed in all ways.
 *
 * @module
 */
import { Connector } from "../../client/connector.ts";
import { makeLocalEngine } from "../../client/local_engine.ts";
import { openSession } from "../../client/open.ts";
import type { BlockClient } from "../../engine/block.ts";
import { Operation } from "../../protocol/request.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import type { PresharedKey } from "./channel.ts";
import { type ClientUnderTest, type Outcome, type RemoteDisk, runClientSuite } from "./client_suite.ts";
import { makeKey } from "./keys.ts";
import { pairwise } from "./pairwise.ts";
import type { Feeding } from "./peer.ts";
import { canDo, hasOpenssl, leaveOut, NO_OPENSSL, type SuiteName, SUITES } from "./rows.ts";

/** Slots of the engine: those of requests, and a few for connections and sessions. */
const SLOTS = 48;
/** All digests that suit a client without a key, and one with a key. */
const PLAIN_DIGESTS = [Digest.XXH64, Digest.CRC32C, Digest.BLAKE2B_256, Digest.NONE];
const KEYED_DIGESTS = [Digest.BLAKE2B_256, Digest.HMAC_SHA_256];

/** The session of `client/`, on an engine that turns as long as the test runs. */
function startClient(
  loop: "uring" | "poll",
  crypto: "wasm" | "openssl",
  ownKey: PresharedKey | null,
  allCiphers: readonly number[],
): ClientUnderTest {
  const engine = makeLocalEngine(loop, SLOTS, crypto);
  const allDigests = ownKey === null ? PLAIN_DIGESTS : KEYED_DIGESTS;
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
    attach: (port, { readOnly = false, steal = false, ciphers = allCiphers, digests = allDigests }) =>
      new Promise<RemoteDisk>((resolve, reject) => {
        const events: string[] = [];
        const { promise: lost, resolve: lose } = Promise.withResolvers<string>();
        const where = `127.0.0.1:${port}`;
        openSession(
          connector,
          {
            target: {
              where,
              addresses: [{ family: "ipv4", host: "127.0.0.1", port }],
              ciphers,
              digests,
              key: ownKey === null ? null : {
                name: "suite",
                id: Uint8Array.from(ownKey.id),
                secret: Uint8Array.from(ownKey.secret),
              },
            },
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
              close: () => session.close(),
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

const ROWS = pairwise({
  suite: Object.keys(SUITES) as SuiteName[],
  loop: ["uring", "poll"],
  crypto: ["wasm", "openssl"],
}, canDo);
const FEEDINGS: readonly Feeding[] = ["whole", "bytes", "pieces", "trailing"];

const KEY = makeKey();

for (const [index, row] of ROWS.entries()) {
  const { cipher, digest, keyed } = SUITES[row.suite];
  const feeding = FEEDINGS[index % FEEDINGS.length];
  const name = `client, ${Object.values(row).join(", ")}, ${feeding}`;
  if (row.crypto === "openssl" && !hasOpenssl) {
    leaveOut(name, NO_OPENSSL);
    continue;
  }
  const key = keyed ? KEY : null;
  const ciphers: number[] = [Cipher.NONE];
  if (keyed) ciphers.unshift(Cipher.CHACHA20_POLY1305);
  if (keyed && row.crypto === "openssl") ciphers.unshift(Cipher.AES_256_GCM);
  runClientSuite({
    name,
    start: () => startClient(row.loop, row.crypto, key, ciphers),
    manner: { cipher, digest, feeding, seed: index + 1 },
    key,
    ciphers,
    // Once for each loop.
    brief: index !== ROWS.findIndex(({ loop }) => loop === row.loop),
  });
}
