import assert from "node:assert/strict";
import fc from "fast-check";
import { ProtocolError } from "./error.ts";
import { type From, Loopback, OPEN } from "./handshake_support_test.ts";
import { concat } from "./harness_test.ts";

/** Fixed, so that every run is the same; fast-check prints what replays a failure. */
const SEED = 20_08_10;
const RUNS = 1500;
const ERRORS: readonly number[] = Object.values(ProtocolError);

/** What is done to one message. */
type Harm =
  | { do: "flip"; at: number; mask: number }
  | { do: "cut" | "insert"; at: number; bytes: Uint8Array }
  | { do: "replace"; bytes: Uint8Array };

const bytes = fc.uint8Array({ minLength: 1, maxLength: 80 });
const harm: fc.Arbitrary<Harm> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("flip" as const), at: fc.nat(255), mask: fc.integer({ min: 1, max: 255 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("cut" as const, "insert" as const), at: fc.nat(255), bytes }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("replace" as const), bytes }) },
);

/** The message after the harm; places count from its end again. */
function harmed(message: Uint8Array, what: Harm): Uint8Array {
  if (what.do === "replace") return what.bytes;
  const at = what.at % message.length;
  if (what.do === "flip") {
    message[at] ^= what.mask;
    return message;
  }
  const rest = message.subarray(what.do === "cut" ? Math.min(message.length, at + what.bytes.length) : at);
  return concat(message.subarray(0, at), what.do === "cut" ? new Uint8Array(0) : what.bytes, rest);
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

Deno.test("whatever is done to messages on the way, nothing is executed that was not asked for", () => {
  const suites = fc.constantFrom(
    { ciphers: [1, 2, 0], digests: [3, 4] },
    { ciphers: [2, 1], digests: [] },
    { ciphers: [0], digests: [4, 3] },
  );
  const harms = fc.array(fc.record({ from: fc.constantFrom<From>("client", "exporter"), n: fc.nat(3), harm }), {
    minLength: 1,
    maxLength: 3,
  });
  let unharmed = 0;
  let failed = 0;
  const property = fc.property(
    suites,
    harms,
    fc.constantFrom(1, 5, 2 ** 20),
    fc.boolean(),
    (client, harms, pieceBytes, keyed) => {
      let isHarmed = false;
      const loopback = new Loopback({
        client,
        exporter: { keyRequired: keyed },
        pieceBytes,
        tamper: (from, n, message) => {
          let changed = message.slice();
          for (const each of harms) {
            if (each.from === from && each.n === n) changed = harmed(changed, each.harm) as typeof changed;
          }
          isHarmed ||= n < 2 && !isEqual(changed, message);
          return changed;
        },
      });
      loopback.onReady = () => loopback.client.list("");
      loopback.start();
      // Only after the answer to LIST the client asks for more.
      if (loopback.events.includes("listed disk false") && !loopback.clientFeed.isClosed) {
        loopback.client.open(OPEN);
        loopback.run();
      }
      const { client: clientDoor, exporter } = loopback;
      assert.ok(ERRORS.includes(clientDoor.error) && ERRORS.includes(exporter.error));
      assert.equal(loopback.clientFeed.isClosed, clientDoor.error !== 0);
      assert.equal(loopback.exporterFeed.isClosed, exporter.error !== 0);
      // What is asked for arrives in its order and as it was said, or not at all.
      const asked = ["list", `open ${OPEN.export}`];
      assert.deepEqual(loopback.calls, asked.slice(0, loopback.calls.length));
      if (loopback.calls.length > 0) assert.notEqual(exporter.keyId, null);
      if (isHarmed) assert.deepEqual(loopback.calls, [], "a handshake that was harmed came to an end");
      if (isHarmed) failed++;
      else if (loopback.calls.length === 2) unharmed++;
      loopback.close();
    },
  );
  fc.assert(property, { seed: SEED, numRuns: RUNS });
  assert.ok(unharmed > 20 && failed > RUNS / 2, `${unharmed} unharmed, ${failed} harmed`);
});
