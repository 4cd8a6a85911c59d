/**
 * The conformance suite against this exporter: each cipher and digest, each back-end, each loop, each way to feed it, each
 * provider of cryptography and one or more Workers, pairwise.
 *
 * @module
 */
import { lacks, startProcess } from "./exporter_process.ts";
import { pairwise } from "./pairwise.ts";
import { canDo, hasOpenssl, leaveOut, NO_OPENSSL, type SuiteName, SUITES } from "./rows.ts";
import { runSuite } from "./suite.ts";

const ROWS = pairwise({
  suite: Object.keys(SUITES) as SuiteName[],
  backend: ["memory", "tmpfs", "file", "direct", "block"],
  loop: ["uring", "poll"],
  feeding: ["whole", "bytes", "pieces", "trailing"],
  crypto: ["wasm", "openssl"],
  workers: [1, 2],
}, canDo);

/** `deno task test:long`: every case in every row. */
const LONG = Deno.env.get("DST_TEST_LONG") === "1";

/** Further exports, some of them with the longest names: more than one answer to LIST names. */
const MANY = Array.from({ length: 220 }, (_, i) => `many ${i} `.padEnd(i % 3 === 0 ? 255 : 20, "x"));

/** The rows with the slow cases, one for each loop, one of them with a key: such cases do not depend on the back-end, nor
 * on how the exporter is fed, nor on how exactly frames are sealed. */
const SLOW_ROWS = [
  ROWS.findIndex(({ loop, suite }) => loop === "uring" && !SUITES[suite].keyed),
  ROWS.findIndex(({ loop, suite }) => loop === "poll" && SUITES[suite].keyed),
];

for (const [index, row] of ROWS.entries()) {
  const { backend, crypto, feeding, loop, workers } = row;
  const { cipher, digest, keyed } = SUITES[row.suite];
  const name = Object.values(row).join(", ");
  const lacking = lacks(backend) ?? (crypto === "openssl" && !hasOpenssl ? NO_OPENSSL : null);
  if (lacking !== null) {
    leaveOut(name, lacking);
    continue;
  }
  runSuite({
    name,
    cipher,
    digest,
    keyed,
    feeding,
    seed: index + 1,
    brief: !SLOW_ROWS.includes(index) && !LONG,
    start: () => startProcess({ loop, backend, keyed, crypto, workers, more: index === 0 ? MANY : [] }),
  });
}
