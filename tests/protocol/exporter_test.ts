/**
 * The conformance suite against this exporter: each loop and each back-end pairwise, with each digest, fed in each way.
 *
 * @module
 */
import { Digest } from "../../protocol/wire.ts";
import { type Backend, lacks, startProcess } from "./exporter_process.ts";
import type { Feeding } from "./peer.ts";
import { runSuite } from "./suite.ts";

const DIGESTS = { none: Digest.NONE, crc32c: Digest.CRC32C, xxh64: Digest.XXH64 } as const;

interface Row {
  readonly loop: "uring" | "poll";
  readonly backend: Backend;
  readonly digest: keyof typeof DIGESTS;
  readonly feeding: Feeding;
  readonly withSlowCases: boolean;
}

const ROWS: readonly Row[] = [
  { loop: "uring", backend: "memory", digest: "xxh64", feeding: "whole", withSlowCases: true },
  { loop: "poll", backend: "memory", digest: "crc32c", feeding: "bytes", withSlowCases: false },
  { loop: "uring", backend: "memory", digest: "crc32c", feeding: "pieces", withSlowCases: false },
  { loop: "poll", backend: "memory", digest: "xxh64", feeding: "trailing", withSlowCases: false },
  { loop: "poll", backend: "tmpfs", digest: "none", feeding: "whole", withSlowCases: true },
  { loop: "uring", backend: "tmpfs", digest: "xxh64", feeding: "trailing", withSlowCases: false },
  { loop: "uring", backend: "file", digest: "none", feeding: "pieces", withSlowCases: false },
  { loop: "poll", backend: "file", digest: "xxh64", feeding: "whole", withSlowCases: false },
  { loop: "uring", backend: "direct", digest: "crc32c", feeding: "whole", withSlowCases: false },
  { loop: "poll", backend: "direct", digest: "xxh64", feeding: "whole", withSlowCases: false },
  { loop: "uring", backend: "block", digest: "xxh64", feeding: "whole", withSlowCases: false },
  { loop: "poll", backend: "block", digest: "crc32c", feeding: "trailing", withSlowCases: false },
];

/** `deno task test:long`: every case in every row. */
const LONG = Deno.env.get("DST_TEST_LONG") === "1";

/** Further exports, some of them with the longest names: more than one answer to LIST names. */
const MANY = Array.from({ length: 220 }, (_, i) => `many ${i} `.padEnd(i % 3 === 0 ? 255 : 20, "x"));

for (const [index, row] of ROWS.entries()) {
  const name = `${row.loop}, ${row.backend}, ${row.digest}, ${row.feeding}`;
  const lacking = lacks(row.backend);
  if (lacking !== null) {
    // Where everything is to be checked, it is a failure.
    Deno.test(`${name} (left out: ${lacking})`, { ignore: Deno.env.get("CI") !== "true" }, () => {
      throw new Error(`Cannot run the suite: ${lacking}`);
    });
    continue;
  }
  runSuite({
    name,
    digest: DIGESTS[row.digest],
    feeding: row.feeding,
    seed: index + 1,
    // They do not depend on the back-end nor on how the exporter is fed, so that once for each loop is enough.
    brief: !row.withSlowCases && !LONG,
    start: () => startProcess({ loop: row.loop, backend: row.backend, more: index === 0 ? MANY : [] }),
  });
}
