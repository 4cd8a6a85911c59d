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
import type { FleetLine } from "./fleet.ts";
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

/** The command that runs a seed again, with everything that happens; perhaps without a safeguard. */
export function commandOf(seed: number, without?: string): string {
  const command = `deno run -A tests/simulator/run.ts --seed ${seed} --trace`;
  return without === undefined ? command : `${command} --without "${without}"`;
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
      step: { type: "string", default: "1" },
      lines: { type: "boolean", default: false },
    },
  });
  if (values.without !== undefined) MUTATIONS[values.without as Mutation]();
  const counters = new Counters();
  const trace = values.trace ? (line: string) => console.log(line) : undefined;
  const from = Number(values.seed ?? values.from);
  const count = values.seed === undefined ? Number(values.seeds) : 1;
  const say = (line: FleetLine) => console.log(JSON.stringify(line));
  const started = performance.now();
  let failures = 0;
  for (let i = 0; i < count; i++) {
    const seed = from + i * Number(values.step);
    const failure = runSeed(seed, counters, { requests: Number(values.requests), trace });
    if (failure === null) continue;
    failures++;
    const { message, stack } = failure.error;
    if (values.lines) say({ failure: { seed, message } });
    else {console.log(
        `seed ${seed}: ${trace === undefined ? `${message}\n  ${commandOf(seed, values.without)}` : stack}`,
      );}
  }
  const seconds = (performance.now() - started) / 1000;
  const requests = counters.of("requests");
  const rate = Math.round(requests / seconds);
  if (values.lines) say({ counts: counters.entries() });
  else console.log(`${counters}\n${count} seeds, ${failures} failed, ${seconds.toFixed(1)} s, ${rate} requests/s`);
  Deno.exit(failures === 0 ? 0 : 1);
}
