/**
 *   engine of the test ── ClientSession ── 127.0.0.1 ──▶ exporter (threads of this process)
 *
 * @module
 */
import assert from "node:assert/strict";
import { type BlockClient, Operation, PENDING } from "../../engine/block.ts";
import type { Engine } from "../../engine/engine.ts";
import type { HostPort } from "../../engine/control/address.ts";
import type { Key } from "../../engine/control/key_file.ts";
import type { CryptoChoice } from "../../engine/cryptography.ts";
import { LIMIT_DEFAULTS } from "../../exporter/config_security.ts";
import {
  type ExporterOptions,
  type ExportOptions,
  type RunningExporter,
  startExporter,
} from "../../exporter/exporter.ts";
import { Connector } from "../../client/connector.ts";
import { makeLocalEngine, turnUntil } from "../../client/local_engine.ts";
import { joinLane, type OpenedSession, openSession, resolveTarget } from "../../client/open.ts";
import type { ChannelOptions } from "../../client/options.ts";
import type { ClientSession, SessionOwner } from "../../client/session.ts";

export const MIB = 1024 * 1024;
export const LOOPS = ["uring", "poll"] as const;
export type LoopName = (typeof LOOPS)[number];
/** Slots of the test's engine. */
const SLOTS = 160;

/** An exporter of a test. */
export interface TestExporter extends HostPort, AsyncDisposable {
  readonly running: RunningExporter;
  stop(): Promise<void>;
}

/** An export with what is usual. */
export function exportOf(name: string, path: string, more: Partial<ExportOptions> = {}): ExportOptions {
  const open = { allow: null, permissions: null };
  return { name, path, readOnly: false, shared: false, direct: false, layers: [], ...open, ...more };
}

/** Starts an exporter on a free port. */
export async function startTestExporter(
  loop: LoopName,
  exports: readonly ExportOptions[],
  digests: readonly string[] = ["xxh64", "crc32c", "none"],
  more: Partial<ExporterOptions> = {},
): Promise<TestExporter> {
  const stateDir = Deno.makeTempDirSync({ prefix: "dst-client-test-" });
  const running = await startExporter({
    exports,
    listen: { host: "127.0.0.1", port: 0 },
    nbd: null,
    loop,
    stateDir,
    digests,
    workers: 1,
    keys: [],
    allow: null,
    limits: LIMIT_DEFAULTS,
    insecure: false,
    ciphers: ["none"],
    crypto: "wasm",
    ...more,
  });
  let isStopped = false;
  const stop = async () => {
    if (isStopped) return;
    isStopped = true;
    await running.stop();
    Deno.removeSync(stateDir, { recursive: true });
  };
  const port = Number(running.listening[0].address.split(":").at(-1));
  return { host: "127.0.0.1", port, running, stop, [Symbol.asyncDispose]: stop };
}

/** How a session of a test is opened. */
export interface TestOpen {
  readonly name?: string;
  readonly readOnly?: boolean;
  readonly steal?: boolean;
  readonly depth?: number;
  readonly digests?: readonly string[];
  /** Names of ciphers; the key is left as it is. */
  readonly ciphers?: readonly string[];
  readonly key?: Key | null;
  readonly holder?: string;
  readonly lanes?: number;
  /** The session's id; another each time where it is left out. */
  readonly session?: Uint8Array;
  readonly ledger?: SharedArrayBuffer;
  /** Join this lane of a session instead of opening one. */
  readonly lane?: number;
  readonly answerMs?: number;
}

/** A client in the test's own thread. Its slots 0 to 127 are the test's. */
export class TestClient implements AsyncDisposable, SessionOwner, BlockClient {
  readonly engine: Engine;
  readonly slots: Uint32Array;
  /** What the session has told its owner. */
  readonly told: string[] = [];
  /** How often each slot has completed, and its last status. */
  readonly completions: Uint32Array;
  readonly statuses: Int32Array;
  session: ClientSession | null = null;
  cipher = -1;
  digest = -1;
  readonly #connector: Connector;

  constructor(loop: LoopName, crypto: CryptoChoice = "wasm") {
    this.engine = makeLocalEngine(loop, SLOTS, crypto);
    this.#connector = new Connector(this.engine);
    this.slots = this.engine.slots.reserve(128)!;
    this.completions = new Uint32Array(this.engine.slots.count);
    this.statuses = new Int32Array(this.engine.slots.count);
  }

  /** Opens a session; rejects with the reason. */
  async open(exporter: HostPort, options: TestOpen = {}): Promise<ClientSession> {
    let reason: string | null = null;
    const { answerMs, ciphers = ["none"], digests = ["xxh64"], key = null } = options;
    const target = await resolveTarget(exporter, { ciphers, digests, key });
    const session = options.session ?? crypto.getRandomValues(new Uint8Array(16));
    const open = {
      target: answerMs === undefined ? target : { ...target, answerMs },
      name: options.name ?? "disk",
      readOnly: options.readOnly ?? false,
      steal: options.steal ?? false,
      depth: options.depth ?? 32,
      holder: options.holder ?? "a test",
      lanes: options.lanes,
      session,
      ledger: options.ledger,
    };
    const opened = (result: OpenedSession) => {
      this.session = result.session;
      this.cipher = result.cipher;
      this.digest = result.digest;
    };
    const failed = (text: string) => reason = text;
    if (options.lane === undefined) openSession(this.#connector, open, this, opened, failed);
    else joinLane(this.#connector, open, options.lane, this, opened, failed);
    await turnUntil(this.engine, () => this.session !== null || reason !== null);
    if (reason !== null) throw new Error(reason);
    return this.session!;
  }

  onLost(reason: string): void {
    this.told.push(`lost: ${reason}`);
  }

  onShuttingDown(): void {
    this.told.push("shutting down");
  }

  onResized(size: number): void {
    this.told.push(`resized: ${size}`);
  }

  onComplete(slot: number, status: number): void {
    this.completions[slot]++;
    this.statuses[slot] = status;
  }

  /** The bytes of a slot's payload area. */
  payload(index: number, bytes: number): Uint8Array {
    const at = this.engine.slots.payloadAt(this.slots[index]);
    return this.engine.arena.bytes.subarray(at, at + bytes);
  }

  /** Begins a request in a slot of the test's. */
  begin(index: number, operation: number, offset: number, length: number, flags = 0): void {
    const slot = this.slots[index];
    this.engine.slots.setRange(slot, offset, length);
    const status = this.session!.submit(slot, operation, flags, this);
    if (status !== PENDING) this.onComplete(slot, status);
  }

  /** Turns until a condition holds. */
  until(isDone: () => boolean): Promise<void> {
    return turnUntil(this.engine, isDone);
  }

  /** Makes a request in the first slot, or another, and waits for it. */
  async ask(operation: number, offset: number, length: number, flags = 0, index = 0): Promise<number> {
    const slot = this.slots[index];
    const before = this.completions[slot];
    this.begin(index, operation, offset, length, flags);
    await this.until(() => this.completions[slot] > before);
    assert.equal(this.completions[slot], before + 1);
    return this.statuses[slot];
  }

  async write(offset: number, data: Uint8Array, flags = 0): Promise<number> {
    this.payload(0, data.length).set(data);
    return await this.ask(Operation.WRITE, offset, data.length, flags);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.payload(0, length).fill(0xee);
    assert.equal(await this.ask(Operation.READ, offset, length), 0);
    return this.payload(0, length).slice();
  }

  /** Ends the session as it should be ended; whether the exporter has confirmed it. */
  async leave(): Promise<boolean> {
    let clean: boolean | null = null;
    this.session!.leave((confirmed) => clean = confirmed);
    await this.until(() => clean !== null);
    return clean!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.session !== null) {
      this.session.close();
      await turnUntil(this.engine, () => !this.session!.isConnected);
    }
    this.engine.close();
  }
}

/** Registers a test for each loop, at both ends. */
export function testEachLoop(name: string, run: (loop: LoopName) => Promise<void>, ignore = false): void {
  for (const loop of LOOPS) Deno.test({ name: `${loop}: ${name}`, ignore, fn: () => run(loop) });
}

/** Bytes that differ from place to place. */
export function pattern(bytes: number, seed: number): Uint8Array {
  const data = new Uint8Array(bytes);
  let state = seed | 1;
  for (let i = 0; i < bytes; i++) {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    data[i] = state >>> 24;
  }
  return data;
}

/** How a client of a test speaks where it has no key. */
export function plainChannel(loop: LoopName): ChannelOptions {
  return { key: null, ciphers: ["none"], digests: ["xxh64"], crypto: "wasm", loop };
}
