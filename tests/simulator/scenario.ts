/**
 * What a world is like, drawn from its seed.
 *
 * @module
 */
import type { Random } from "../../engine/random.ts";
import type { Patience } from "../../client/patience.ts";
import { Digest } from "../../protocol/wire.ts";
import type { DiskManner } from "./disk.ts";
import type { NetworkManner } from "./network.ts";

/** What can go wrong. */
export const FAULTS = [
  "reset",
  "cut short",
  "half-open",
  "stall",
  "a lane is away",
  "partition",
  "slow network",
  "corruption",
  "slow disk",
  "disk hangs",
  "disk errors",
  "disk loses pages",
  "disk full",
  "records full",
  "exporter killed",
  "exporter stopped",
  "exporter's machine crashes",
  "client killed",
  "client's machine crashes",
  "rival",
  "client leaves",
  "disturbance",
] as const;
export type Fault = (typeof FAULTS)[number];

/** What a cache that has acknowledged a mutation finds out when it writes it back: then that is gone at once. */
const SEEN_AT_ONCE: readonly Fault[] = ["disk errors", "disk full"];

/** Where several may write, which session is over is decided by its lease alone. */
const SHARED_RESENDS_MAX = 20;

/** One world. */
export interface Scenario {
  /** Of the disk, 512 bytes each. */
  readonly blocks: number;
  /** Data-path threads of the exporter. */
  readonly workers: number;
  readonly lanes: number;
  readonly depth: number;
  readonly digest: number;
  readonly shortTransfers: number;
  readonly client: "plain" | "patient" | "keeping" | "resending";
  /** Room for copies of what an exporter may lose, of all lanes of a keeping client, in bytes. */
  readonly copiesBytes: number;
  /** Several may write at once. */
  readonly shared: boolean;
  /** The exporter has a cache of its own that its process loses. */
  readonly volatile: boolean;
  /** Of patient clients. */
  readonly patience: Patience;
  readonly hasReader: boolean;
  readonly faults: readonly Fault[];
  /** Requests from one fault to the next, on the average. */
  readonly requestsPerFault: number;
  /** How many requests there are. */
  readonly requests: number;
  readonly network: NetworkManner;
  readonly disk: DiskManner;
}

/** Draws a scenario. */
export function drawScenario(random: Random, requests: number): Scenario {
  const some = <T>(...values: readonly T[]): T => values[random.below(values.length)];
  const isVolatile = random.below(5) === 0;
  const digest = some<number>(Digest.CRC32C, Digest.CRC32C, Digest.XXH64);
  const scenario: Scenario = {
    blocks: some(32, 64, 64, 128, 256),
    workers: some(1, 2, 2),
    lanes: some(1, 2, 2, 3),
    depth: some(1, 2, 4, 8),
    digest,
    shortTransfers: some(0, 0, 0.05, 0.5),
    client: some("plain", "patient", "keeping", "keeping", "resending"),
    copiesBytes: some(16, 64, 1024) * 1024,
    shared: random.below(10) === 0,
    volatile: isVolatile,
    patience: {
      resendMs: some(1000, 5000),
      resends: some(1, 3, 20, Infinity),
      connectMs: some(1000, 5000),
      pingIdleMs: 1000,
      deadMs: some(3000, 30_000),
    },
    hasReader: random.below(4) === 0,
    faults: FAULTS.filter((fault) => random.below(2) === 0 && !(isVolatile && SEEN_AT_ONCE.includes(fault))),
    requestsPerFault: some(40, 80, 150, 300),
    requests,
    network: {
      delayMs: some(0.02, 0.1, 0.1, 1),
      jitterMs: some(0.02, 0.1, 0.5, 3),
      bytesPerMs: some(100_000, 1_000_000),
      corruption: 0,
    },
    disk: {
      delayMs: some(0.01, 0.05, 0.2),
      jitterMs: some(0.05, 0.2, 1, 5),
      syncMs: some(0.5, 2, 10),
      stuck: 0,
      errors: 0,
      full: 0,
      short: some(0, 0, 0.05),
      interrupted: some(0, 0, 0.02),
      lost: 0,
      writeBack: some(0, 0.05, 0.3),
    },
  };
  // Whoever has died there is not taken over from: his session is there until its lease is over.
  const { patience, shared } = scenario;
  if (!shared) return scenario;
  return { ...scenario, patience: { ...patience, resends: Math.min(patience.resends, SHARED_RESENDS_MAX) } };
}
