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
  readonly client: "plain" | "patient" | "resending";
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
  const digest = some<number>(Digest.CRC32C, Digest.CRC32C, Digest.XXH64);
  return {
    blocks: some(32, 64, 64, 128, 256),
    workers: some(1, 2, 2),
    lanes: some(1, 1, 2, 3),
    depth: some(1, 2, 4, 8),
    digest,
    shortTransfers: some(0, 0, 0.05, 0.5),
    client: some("plain", "patient", "patient", "resending"),
    patience: {
      resendMs: some(1000, 5000),
      resends: some(1, 3, 20, Infinity),
      connectMs: some(1000, 5000),
      pingIdleMs: 1000,
      deadMs: some(3000, 30_000),
    },
    hasReader: random.below(4) === 0,
    faults: FAULTS.filter(() => random.below(2) === 0),
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
}
