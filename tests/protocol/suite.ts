/**
 * The conformance suite: every rule of `protocol/SPEC.md` that an exporter has to keep, checked over TCP by raw peers.
 * One suite for every exporter there is: each loop, each back-end, each digest, each way to feed it, and the kernel's.
 *
 * @module
 */
import { registerChannelCases } from "./suite_channel.ts";
import { registerDoorCases } from "./suite_door.ts";
import { registerFenceCases } from "./suite_fence.ts";
import { registerFrameCases } from "./suite_frames.ts";
import { registerHelloCases } from "./suite_hello.ts";
import { registerOwnershipCases } from "./suite_ownership.ts";
import { registerRequestCases } from "./suite_requests.ts";
import { registerSlotCases } from "./suite_slots.ts";
import { registerLaneCases } from "./suite_lanes.ts";
import { registerLivenessCases } from "./suite_liveness.ts";
import type { PresharedKey } from "./channel.ts";
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

/** The keys of a target that asks for one. */
export interface TargetKeys {
  /** May write everywhere. */
  readonly main: PresharedKey;
  /** May write everywhere. */
  readonly second: PresharedKey;
  /** May read {@link TargetExports.disk}, and nothing else. */
  readonly reader: PresharedKey;
  /** The exporter has it, but it may use nothing. */
  readonly idle: PresharedKey;
}

/** An exporter that runs. */
export interface Target {
  readonly host: string;
  readonly port: number;
  readonly exports: TargetExports;
  /** The names of all that it exports. */
  readonly names: readonly string[];
  /** Null: it serves whoever comes. */
  readonly keys: TargetKeys | null;
  /** What it accepts, the order aside. */
  readonly ciphers: readonly number[];
  readonly digests: readonly number[];
  /** Ends it as its user would; resolves when it has ended, and rejects when it did not end well. */
  stop(): Promise<void>;
}

/** What the suite runs against. */
export interface Suite {
  /** Goes before each test's name. */
  readonly name: string;
  readonly start: () => Promise<Target>;
  /** With what the peers talk: numbers of `Cipher` and `Digest`. With a cipher the digest is none. */
  readonly cipher: number;
  readonly digest: number;
  /** Whether the exporter asks for a key: then there are the cases of a secure channel. */
  readonly keyed: boolean;
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
  /** Whether a sample is enough, where a case tries many places. */
  readonly brief: boolean;
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
  "CLOSE waits for what executes on other lanes, and their replies are sent",
  "STEAL waits for what executes on any lane, and counts all of it",
  "a JOIN waits for what executes on its lane, and for no other's",
  "a JOIN that waits is refused when another lane closes the session",
  "a disk that stalls holds up nobody else",
  "an idle client is pinged, and its PONG is taken",
  "a PROBE tells what became of a request",
  "a lease that runs out ends the session",
  "a PONG that repeats another token ends the connection",
  "a request that is sent again while it executes is answered once",
  "a peer that leaves while its JOIN waits changes nothing",
  "keys change in the middle of a session, in both directions",
  "an exporter that stops tells its clients, and finishes what executes",
];

/** Exporters on their way to their end: what came of it, null for a good one. */
const ending: Promise<Error | null>[] = [];

/** Registers the suite's tests. */
export function runSuite(suite: Suite): void {
  const skipped = new Map((suite.skip ?? []).flatMap(({ reason, tests }) => tests.map((test) => [test, reason])));
  const { cipher, digest } = suite;
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
        const { host, port } = target;
        const options = { host, port, cipher, digest, key: target.keys?.main ?? null, feeding, seed };
        await body({ target, exports: target.exports, options, seed, brief: suite.brief ?? false });
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
  registerLaneCases(register);
  if (suite.keyed) registerChannelCases(register);
  const take = async () => {
    const target = await running!;
    running = null;
    return target;
  };
  registerLivenessCases(register, take);
  // So that not all rows' exporters run until the last row's end, and none is waited for while there is more to do.
  if (suite.brief) {
    register("an exporter is told to end", async () => {
      const target = await take();
      ending.push(target.stop().then(() => null, (error) => new Error(suite.name, { cause: error })));
    });
  }
  if (skipped.size > 0) throw new Error(`There are no such tests to skip: ${[...skipped.keys()].join(", ")}`);
  Deno.test.afterAll(async () => {
    if (running !== null) await (await running).stop();
    for (const error of await Promise.all(ending.splice(0))) if (error !== null) throw error;
  });
}
