/**
 * The conformance suite: every rule of `protocol/SPEC.md` that an exporter has to keep, checked over TCP by raw peers.
 * One suite for every exporter there is: each loop, each back-end, each digest, each way to feed it, and the kernel's.
 *
 * @module
 */
import { registerDoorCases } from "./suite_door.ts";
import { registerFenceCases } from "./suite_fence.ts";
import { registerFrameCases } from "./suite_frames.ts";
import { registerHelloCases } from "./suite_hello.ts";
import { registerOwnershipCases } from "./suite_ownership.ts";
import { registerRequestCases } from "./suite_requests.ts";
import { registerSlotCases } from "./suite_slots.ts";
import { registerLivenessCases } from "./suite_liveness.ts";
import type { Feeding, PeerOptions } from "./peer.ts";

/** The exports that a target serves. Their content at the start is zeroes. */
export interface TargetExports {
  /** {@link DISK_BYTES}, read-write. */
  readonly disk: string;
  /** {@link BIG_BYTES}, sparse, read-write. */
  readonly big: string;
  /** {@link SMALL_BYTES}, read-only. */
  readonly readOnly: string;
  /** {@link SMALL_BYTES}; several may write. */
  readonly shared: string;
  /** {@link SMALL_BYTES}; a WRITE takes {@link SLOW_MS}. */
  readonly slow: string;
  /** {@link SMALL_BYTES}; every request takes {@link STALLED_MS}. */
  readonly stalled: string;
  /** {@link SMALL_BYTES}; WRITEs to the first {@link FAILING_BYTES} are ENOSPC, READs of them EIO. */
  readonly failing: string;
}

export const DISK_BYTES = 64 * 1024 * 1024;
export const BIG_BYTES = 5 * 1024 * 1024 * 1024;
export const SMALL_BYTES = 1024 * 1024;
export const FAILING_BYTES = 64 * 1024;
/** Longer than FENCING_INTERVAL, so that a fence that waits for it is told of. */
export const SLOW_MS = 1300;
export const STALLED_MS = 2000;

/** An exporter that runs. */
export interface Target {
  readonly host: string;
  readonly port: number;
  readonly exports: TargetExports;
  /** The names of all that it exports. */
  readonly names: readonly string[];
  /** Ends it as its user would; resolves when it has ended, and rejects when it did not end well. */
  stop(): Promise<void>;
}

/** What the suite runs against. */
export interface Suite {
  /** Goes before each test's name. */
  readonly name: string;
  readonly start: () => Promise<Target>;
  /** A number of `Digest`: `none`, `crc32c` or `xxh64`. */
  readonly digest: number;
  readonly feeding?: Feeding;
  readonly seed?: number;
  /** Without {@link SLOW_CASES}, which another row of the same exporter has. */
  readonly brief?: boolean;
  /** Tests that are left out, each with the reason. A name that no test has is an error. */
  readonly skip?: readonly { readonly reason: string; readonly tests: readonly string[] }[];
}

/** What a case works with. */
export interface Case {
  readonly target: Target;
  readonly exports: TargetExports;
  /** How to connect. */
  readonly options: PeerOptions;
  readonly seed: number;
}

/** Registers a case. */
export type Register = (name: string, body: (context: Case) => Promise<void>) => void;

/** Cases that wait for seconds. One row of each kind of exporter has them, the others are {@link Suite.brief}. */
const SLOW_CASES: readonly string[] = [
  "a request that executes while the lane is joined again happens once, and FENCING says so",
  "a JOIN that waits is refused when a later one comes",
  "a JOIN that waits is refused when its session is stolen",
  "STEAL waits for what executes",
  "CLOSE waits for what executes",
  "a disk that stalls holds up nobody else",
  "an idle client is pinged, and its PONG is taken",
  "a PROBE tells what became of a request",
  "a lease that runs out ends the session",
  "an exporter that stops tells its clients, and finishes what executes",
];

/** Registers the suite's tests. */
export function runSuite(suite: Suite): void {
  const skipped = new Map((suite.skip ?? []).flatMap(({ reason, tests }) => tests.map((test) => [test, reason])));
  const digest = suite.digest;
  const feeding = suite.feeding ?? "whole";
  const seed = suite.seed ?? 1;
  let running: Promise<Target> | null = null;

  const register: Register = (name, body) => {
    if (suite.brief && SLOW_CASES.includes(name)) return;
    const reason = skipped.get(name);
    skipped.delete(name);
    Deno.test({
      name: `${suite.name}: ${name}${reason === undefined ? "" : ` (left out: ${reason})`}`,
      ignore: reason !== undefined,
      // The target outlives the test that needed it first.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn() {
        running ??= suite.start();
        const target = await running.catch((error) => {
          running = null;
          throw error;
        });
        const options = { host: target.host, port: target.port, digest, feeding, seed };
        await body({ target, exports: target.exports, options, seed });
      },
    });
  };

  registerHelloCases(register);
  registerDoorCases(register);
  registerOwnershipCases(register);
  registerFrameCases(register);
  registerRequestCases(register);
  registerSlotCases(register);
  registerFenceCases(register);
  registerLivenessCases(register, async () => {
    const target = await running!;
    running = null;
    return target;
  });
  if (skipped.size > 0) throw new Error(`There are no such tests to skip: ${[...skipped.keys()].join(", ")}`);
  Deno.test.afterAll(async () => {
    if (running !== null) await (await running).stop();
  });
}
