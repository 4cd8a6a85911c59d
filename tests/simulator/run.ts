/**
 * Runs simulated worlds: one seed, or many.
 *
 *     deno run -A tests/simulator/run.ts --seed 17 --trace
 *     deno run -A tests/simulator/run.ts --from 0 --seeds 1000
 *     deno run -A tests/simulator/run.ts --seeds 1000 --without fence
 *
 * @module
 */
import { parseArgs } from "node:util";
import { Counters } from "./counters.ts";
import { watch } from "./instruments.ts";
import { type Mutation, MUTATIONS } from "./mutations.ts";
import { World } from "./world.ts";

/** Requests of one world. */
export const REQUESTS = 1000;

/** A seed that has found something. */
export interface Failure {
  readonly seed: number;
  readonly error: Error;
}

/** Runs one seed; answers what it has found. */
export function runSeed(
  seed: number,
  counters: Counters,
  { requests = REQUESTS, trace }: { readonly requests?: number; readonly trace?: (line: string) => void } = {},
): Failure | null {
  const world = new World({ seed, requests, trace });
  watch(world);
  try {
    world.run();
    return null;
  } catch (error) {
    return { seed, error: error as Error };
  } finally {
    watch(null);
    world.end();
    counters.add(world.counters);
  }
}

/** The command that runs a seed again, with everything that happens. */
export function commandOf(seed: number): string {
  return `deno run -A tests/simulator/run.ts --seed ${seed} --trace`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seed: { type: "string" },
      from: { type: "string", default: "0" },
      seeds: { type: "string", default: "100" },
      requests: { type: "string", default: String(REQUESTS) },
      trace: { type: "boolean", default: false },
      without: { type: "string" },
    },
  });
  if (values.without !== undefined) MUTATIONS[values.without as Mutation]();
  const counters = new Counters();
  const trace = values.trace ? (line: string) => console.log(line) : undefined;
  const from = Number(values.seed ?? values.from);
  const count = values.seed === undefined ? Number(values.seeds) : 1;
  const started = performance.now();
  let failures = 0;
  for (let seed = from; seed < from + count; seed++) {
    const failure = runSeed(seed, counters, { requests: Number(values.requests), trace });
    if (failure === null) continue;
    failures++;
    console.log(`seed ${seed}: ${trace === undefined ? failure.error.message : failure.error.stack}`);
    if (trace === undefined) console.log(`  ${commandOf(seed)}`);
  }
  const seconds = (performance.now() - started) / 1000;
  const requests = counters.of("requests");
  console.log(counters.toString());
  console.log(
    `${count} seeds, ${failures} failed, ${seconds.toFixed(1)} s, ${Math.round(requests / seconds)} requests/s`,
  );
  Deno.exit(failures === 0 ? 0 : 1);
}
