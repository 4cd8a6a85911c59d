/**
 * Many worlds at once: as many processes as there are processors, each with its share of the seeds.
 *
 * @module
 */
import { TextLineStream } from "../vm/lines.ts";
import { Counters } from "./counters.ts";
import type { Mutation } from "./mutations.ts";

/** What a process says on each line. */
export type FleetLine =
  | { readonly failure: FoundFailure }
  | { readonly counts: readonly (readonly [string, number])[] };

/** A seed that has found something. */
export interface FoundFailure {
  readonly seed: number;
  readonly message: string;
}

/** What came of many worlds. */
export interface FleetResult {
  readonly counters: Counters;
  readonly failures: FoundFailure[];
}

/**
 * Runs the seeds from 0 on.
 *
 * @param seeds how many
 * @param without the safeguard that is switched off; then the first seed that finds it ends the run
 */
export async function runFleet(seeds: number, without?: Mutation): Promise<FleetResult> {
  const processes = Math.min(navigator.hardwareConcurrency, seeds);
  const result: FleetResult = { counters: new Counters(), failures: [] };
  const children = Array.from({ length: processes }, (_, index) => {
    const args = ["run", "-A", new URL("run.ts", import.meta.url).pathname, "--lines"];
    args.push("--from", `${index}`, "--step", `${processes}`, "--seeds", `${Math.ceil((seeds - index) / processes)}`);
    if (without !== undefined) args.push("--without", without);
    return new Deno.Command(Deno.execPath(), { args, stdin: "null", stdout: "piped" }).spawn();
  });
  await Promise.all(children.map(async (child) => {
    for await (const line of child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
      const said = JSON.parse(line) as FleetLine;
      if ("failure" in said) result.failures.push(said.failure);
      else for (const [what, times] of said.counts) result.counters.count(what, times);
      if (without === undefined || result.failures.length === 0) continue;
      for (const one of children) end(one);
    }
    const { success } = await child.status;
    if (!success && result.failures.length === 0) throw new Error("a process of the simulator has ended badly");
  }));
  result.failures.sort((a, b) => a.seed - b.seed);
  return result;
}

function end(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
