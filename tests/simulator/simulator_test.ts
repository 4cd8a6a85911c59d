/**
 * The simulated worlds (`world.ts`): many of them, with everything as it is, and then with each safeguard switched off.
 *
 * `DST_SIM_SEEDS` says how many; where `CI` is `true` they are ten thousand.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Counters } from "./counters.ts";
import { runFleet } from "./fleet.ts";
import { type Mutation, MUTATIONS } from "./mutations.ts";
import { commandOf, runSeed } from "./run.ts";

/** A minute or so. */
const SEEDS_DEFAULT = 1500;
const SEEDS_CI = 10_000;
const SEEDS = Number(Deno.env.get("DST_SIM_SEEDS") ?? (Deno.env.get("CI") === "true" ? SEEDS_CI : SEEDS_DEFAULT));
/** In how many seeds a switched-off safeguard has to be found; the first that does ends the search. */
const SEEDS_OF_MUTATION = SEEDS_CI;

/** What a thousand worlds have to meet at least: about a third of what they do. */
const MINIMUMS: readonly (readonly [string, number])[] = [
  ["requests that succeeded", 800_000],
  ["duplicates answered from the slot table", 3000],
  ["fences that waited", 700],
  ["ends of sessions that waited", 700],
  ["sessions fenced", 40],
  ["sessions resumed", 150],
  ["sessions that came back", 1200],
  ["sessions that lost what was acknowledged", 40],
  ["mutations of which nobody knows", 1500],
  ["mutations that expired", 900],
  ["refused: EPOCH_CHANGED", 10],
  ["refused: NO_SESSION", 200],
  ["steals", 500],
  ["replays", 100],
  ["replays that began again", 5],
  ["mutations written again", 1000],
  ["attachments that lost data", 70],
  ["sticky failures", 150],
  ["crashes that lost writes", 200],
  ["crashes that tore a write", 80],
  ["disk operations that landed after their process had died", 200],
  ["segments corrupted", 1000],
];

Deno.test("one seed is one world, however often it is made", () => {
  for (const seed of [1, 2, 3]) {
    const [first, second] = [1, 2].map(() => {
      const lines: string[] = [];
      runSeed(seed, new Counters(), { requests: 300, trace: (line) => lines.push(line) });
      return lines.join("\n");
    });
    assert.ok(first.length > 10_000);
    assert.equal(first, second);
  }
});

Deno.test(`in ${SEEDS} worlds each transaction ends once, and the disk holds what it was told to`, async () => {
  const { counters, failures } = await runFleet(SEEDS);
  console.log(`${counters}`);
  const found = failures.map(({ seed, message }) => `seed ${seed}: ${message}\n  ${commandOf(seed)}`);
  assert.deepEqual(found, []);
  const missing = MINIMUMS.filter(([what, least]) => counters.of(what) < Math.floor(least * SEEDS / 1000));
  assert.deepEqual(
    missing.map(([what, least]) => `${what}: ${counters.of(what)}, and not ${least} in 1000 worlds`),
    [],
  );
});

for (const mutation of Object.keys(MUTATIONS) as Mutation[]) {
  Deno.test(`without this safeguard the simulator finds fault: ${mutation}`, async () => {
    const { failures } = await runFleet(SEEDS_OF_MUTATION, mutation);
    assert.ok(failures.length > 0, "nothing was found");
    console.log(`${failures[0].message}\n  ${commandOf(failures[0].seed, mutation)}`);
  });
}
