/**
 * Thousands of random interleavings of honest and hostile clients over the exporter's real doors and lanes. Each is made
 * by a seed; `DST_SEED=N deno test -A tests/hostile/interleavings_test.ts` does one again.
 *
 * @module
 */
import assert from "node:assert/strict";
import { makeCryptography } from "../../engine/cryptography.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import { makeArena } from "../../wasm/core.ts";
import { randomOf } from "../protocol/bytes.ts";
import type { Algorithms } from "../protocol/channel.ts";
import { keyOf } from "../protocol/keys.ts";
import { HonestClient, REGION_BYTES } from "./honest.ts";
import { type Hostile, KINDS, type Scene } from "./attackers.ts";
import { rememberingNoise } from "./noise.ts";
import { Ground } from "./ground.ts";
import { type Below, LEASE_MS, World } from "./world.ts";

const SEEDS = Deno.env.get("DST_TEST_LONG") === "1" ? 100_000 : 10_000;
const MEMORY_BYTES = 4 * 1024 * 1024;
const ONE_SEED = Deno.env.get("DST_SEED");

const SUITES: readonly (Algorithms & { readonly keyed: boolean })[] = [
  { cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE, keyed: true },
  { cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE, keyed: true },
  { cipher: Cipher.AES_256_GCM, digest: Digest.NONE, keyed: true },
  { cipher: Cipher.NONE, digest: Digest.HMAC_SHA_256, keyed: true },
  { cipher: Cipher.NONE, digest: Digest.BLAKE2B_256, keyed: true },
  { cipher: Cipher.NONE, digest: Digest.BLAKE2B_256, keyed: false },
  { cipher: Cipher.NONE, digest: Digest.XXH64, keyed: false },
  { cipher: Cipher.NONE, digest: Digest.CRC32C, keyed: false },
];
/** Hostile clients at most, and honest ones. */
const HOSTILE_MOST = 4;
const HONEST_MOST = 2;
/** Requests that an honest client wants to have answered. */
const GOAL_MOST = 24;
/** Turns in which honest clients must come to their end, and after which the exporter must be empty again. */
const TURNS_MAX = 20_000;
const LAST_TURNS_MAX = 60;
/** From this turn on time goes faster, for whoever waits for a time to be over. */
const HURRY_TURN = 600;

const core = makeArena(MEMORY_BYTES);
const cryptography = makeCryptography(core, "auto");
const ground = new Ground(core, cryptography, rememberingNoise(cryptography.noise));
const suites = SUITES.filter(({ cipher }) => cipher === Cipher.NONE || cryptography.ciphers.includes(cipher));

/** The keys of the exporter. */
const HONEST_KEY = keyOf(new Uint8Array(32).fill(0x48));
const INSIDER_KEY = keyOf(new Uint8Array(32).fill(0x49));
const KEYS = new Map([HONEST_KEY, INSIDER_KEY].map(({ id, secret }) => [id.toHex(), secret]));

/** What happened, so that it is seen that enough did. */
interface Tally {
  answered: number;
  connections: number;
  turns: number;
  /** Protocol errors of connections, by their number. */
  errors: Map<number, number>;
}

/** One interleaving. Throws when anything is not as it must be. */
function play(seed: number, tally: Tally): void {
  const random = randomOf(seed);
  const below: Below = (limit) => Math.floor(random() * limit);
  const { keyed, ...algorithms } = suites[below(suites.length)];
  const world = new World(ground, {
    ciphers: keyed ? [algorithms.cipher] : [Cipher.NONE],
    digests: [algorithms.digest],
    keys: keyed ? KEYS : new Map(),
  }, below);
  const honestKey = keyed ? HONEST_KEY : null;
  const honest = Array.from(
    { length: 1 + below(HONEST_MOST) },
    (_, region) => new HonestClient(world, algorithms, honestKey, region, 1 + below(GOAL_MOST)),
  );
  const regionAt = HONEST_MOST * REGION_BYTES;
  const scene: Scene = {
    world,
    below,
    algorithms,
    honestKey,
    insiderKey: keyed ? INSIDER_KEY : null,
    honest,
    regionAt,
  };
  let hostile: Hostile[] = Array.from({ length: 1 + below(HOSTILE_MOST) }, () => KINDS[below(KINDS.length)](scene));

  while (hostile.length > 0 || honest.some(({ isDone }) => !isDone)) {
    assert.ok(world.turnNumber < TURNS_MAX, "everybody comes to an end");
    for (const client of honest) if (below(3) > 0) client.act();
    hostile = hostile.filter((one) => below(2) === 0 || !one.next().done);
    world.turn(world.turnNumber > HURRY_TURN ? 500 : below(10));
  }
  // Those who are silent are sent away, and everything that they had is given back.
  for (let turn = 0; turn < LAST_TURNS_MAX && !world.isEmpty; turn++) world.turn(LEASE_MS / 10, false);
  assert.ok(world.isEmpty && ground.isWhole, "nothing of anybody is left");
  for (const { regionAt, model } of honest) {
    assert.deepEqual(world.disk.subarray(regionAt, regionAt + REGION_BYTES), model, `the disk at ${regionAt}`);
  }
  for (let at = 0; at < world.disk.length; at++) {
    const isWritten = at < honest.length * REGION_BYTES || (at >= regionAt && at < regionAt + REGION_BYTES);
    if (!isWritten && world.disk[at] !== 0) assert.fail(`nobody may write at ${at}`);
  }
  tally.turns += world.turnNumber;
  for (const [error, count] of world.errors) tally.errors.set(error, (tally.errors.get(error) ?? 0) + count);
  for (const { answered, lines } of honest) {
    tally.answered += answered;
    tally.connections += lines.length;
  }
}

Deno.test(`${SEEDS} interleavings of honest and hostile clients leave everybody's data right, and nothing behind`, () => {
  const tally: Tally = { answered: 0, connections: 0, turns: 0, errors: new Map() };
  const seeds = ONE_SEED === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(ONE_SEED)];
  for (const seed of seeds) {
    try {
      play(seed, tally);
    } catch (error) {
      const again = `DST_SEED=${seed} deno test -A tests/hostile/interleavings_test.ts`;
      throw new Error(`Seed ${seed} failed; to see it again: ${again}`, { cause: error });
    }
  }
  console.log(`${seeds.length} seeds: ${tally.turns} turns, ${tally.connections} honest connections`);
  assert.ok(tally.answered >= seeds.length, "the honest clients had their requests answered");
});
