/**
 * The conformance suite's other half: a scripted exporter against a client. Every rule of `protocol/SPEC.md` that a
 * client has to keep, and everything an exporter may or must not do to it.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import type { Frame } from "./bytes.ts";
import { registerClientChannelCases } from "./client_suite_channel.ts";
import { registerClientDoorCases } from "./client_suite_door.ts";
import { registerClientLaneCases } from "./client_suite_lane.ts";
import type { PresharedKey } from "./channel.ts";
import type { Manner } from "./peer.ts";
import { type GrantWish, ScriptedExporter, type Visit } from "./scripted_exporter.ts";

/** A request's outcome. */
export interface Outcome {
  /** 0 or a negative errno. */
  readonly status: number;
  /** Of a successful READ its data, of a BLOCK_STATUS its extents. */
  readonly payload: Uint8Array;
}

/** A remote disk at the client. */
export interface RemoteDisk {
  submit(operation: number, offset: number, length: number, flags?: number, payload?: Uint8Array): Promise<Outcome>;
  /** Ends the session; whether the exporter has confirmed it. */
  leave(): Promise<boolean>;
  /** Gives back what it holds, when it has left or is lost. */
  close(): void;
  /** Resolves with the reason when the session is over otherwise. */
  readonly lost: Promise<string>;
  /** What the exporter has announced: `shutting down`, `resized SIZE`. */
  readonly events: readonly string[];
}

/** How to attach, under the suite's key. What is not given: read-write, and all algorithms that suit it. */
export interface AttachOptions {
  readonly readOnly?: boolean;
  readonly steal?: boolean;
  readonly ciphers?: readonly number[];
  readonly digests?: readonly number[];
}

/** A client to be tested. */
export interface ClientUnderTest {
  /** Opens the export `disk`; rejects with the reason. */
  attach(port: number, options: AttachOptions): Promise<RemoteDisk>;
  /** Gives everything back. */
  end(): Promise<void>;
}

/** What the suite runs against. */
export interface ClientSuite {
  readonly name: string;
  readonly start: () => ClientUnderTest;
  readonly manner: Manner;
  readonly key: PresharedKey | null;
  /** All that the client can do under that key. */
  readonly ciphers: readonly number[];
  /** Without {@link SLOW_CASES}, which another row has. */
  readonly brief?: boolean;
  readonly skip?: readonly { readonly reason: string; readonly tests: readonly string[] }[];
}

/** What cases are registered with. */
export interface ClientCases {
  readonly manner: Manner;
  readonly key: PresharedKey | null;
  readonly ciphers: readonly number[];
  test(name: string, body: (client: ClientUnderTest, exporter: ScriptedExporter) => Promise<void>): void;
  /** A test with a session that was granted. */
  sessionTest(name: string, wish: GrantWish, body: (disk: RemoteDisk, visit: Visit) => Promise<void>): void;
  /** What the exporter does to a READ of 8 KiB must end the session, and the READ with EIO. */
  losesRead(
    exporter: ScriptedExporter,
    client: ClientUnderTest,
    harm: (visit: Visit, request: Frame) => Promise<void>,
    what: string,
  ): Promise<void>;
}

const EIO = -5;
/** Cases that wait for seconds. */
const SLOW_CASES: readonly string[] = ["an idle exporter is pinged, and its PONG is taken"];

/** Registers the suite's tests. */
export function runClientSuite(suite: ClientSuite): void {
  const skipped = new Map((suite.skip ?? []).flatMap(({ reason, tests }) => tests.map((test) => [test, reason])));
  const { manner, key, ciphers } = suite;

  const test: ClientCases["test"] = (name, body) => {
    if (suite.brief && SLOW_CASES.includes(name)) return;
    const reason = skipped.get(name);
    skipped.delete(name);
    Deno.test({
      name: `${suite.name}: ${name}${reason === undefined ? "" : ` (left out: ${reason})`}`,
      ignore: reason !== undefined,
      async fn() {
        using exporter = new ScriptedExporter(manner, key);
        const client = suite.start();
        try {
          await body(client, exporter);
        } finally {
          await client.end();
        }
      },
    });
  };

  const cases: ClientCases = {
    manner,
    key,
    ciphers,
    test,
    sessionTest: (name, wish, body) =>
      test(name, async (client, exporter) => {
        const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve(wish)]);
        await body(disk, visit);
      }),
    losesRead: async (exporter, client, harm, what) => {
      const [disk, visit] = await Promise.all([client.attach(exporter.port, {}), exporter.serve()]);
      const read = disk.submit(Operation.READ, 4096, 8192);
      await harm(visit, await visit.take());
      assert.equal((await read).status, EIO, what);
      assert.notEqual(await disk.lost, "", what);
      assert.equal((await disk.submit(Operation.READ, 0, 512)).status, EIO, what);
      disk.close();
      await visit.peer.ended();
    },
  };
  registerClientDoorCases(cases);
  registerClientLaneCases(cases);
  if (key !== null) registerClientChannelCases(cases, key);
  if (skipped.size > 0) throw new Error(`There are no such tests to skip: ${[...skipped.keys()].join(", ")}`);
}
