/**
 * For the tests: a patient session whose engine turns by itself, against an exporter that says what the test wants.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Connector } from "../../client/connector.ts";
import { LEDGER_BYTES } from "../../client/ledger.ts";
import { makeLocalEngine } from "../../client/local_engine.ts";
import {
  joinLane,
  type OpenedSession,
  type OpenOptions,
  openSession,
  type RecoveredSession,
  recoverLane,
  type Surroundings,
} from "../../client/open.ts";
import { overlapBytes } from "../../client/overlap.ts";
import type { Patience } from "../../client/patience.ts";
import { makeReplayRoom } from "../../client/replay_log.ts";
import type { ClientSession, SessionOwner } from "../../client/session.ts";
import type { BlockClient } from "../../engine/block.ts";
import type { SocketAddress } from "../../ffi/sockaddr.ts";
import { Operation } from "../../protocol/request.ts";
import { Cipher, Digest, FrameType } from "../../protocol/wire.ts";
import type { Frame } from "../protocol/bytes.ts";
import { type GrantWish, ScriptedExporter, type Visit } from "../protocol/scripted_exporter.ts";

const SLOTS = 40;

/** Long enough for whatever a test does, and short enough to be waited for. */
export const PATIENCE: Patience = {
  resendMs: 60_000,
  resends: 10,
  connectMs: 5000,
  pingIdleMs: 10_000,
  deadMs: 30_000,
};

/** What the lanes of one session share. */
export class SharedSession {
  constructor(readonly id = crypto.getRandomValues(new Uint8Array(16))) {}

  readonly ledger = new SharedArrayBuffer(LEDGER_BYTES);
  /** For two lanes. */
  readonly replay = makeReplayRoom(2, 2 ** 21);
  readonly overlaps = { memory: new SharedArrayBuffer(overlapBytes(4 * 2 * SLOTS)), slotsOfLane: 2 * SLOTS };
}

/** What came of a request. */
export interface Outcome {
  readonly status: number;
  readonly payload: Uint8Array;
}

/** One lane. */
export class PatientLane implements SessionOwner, AsyncDisposable {
  readonly told: string[] = [];
  session!: ClientSession;
  #patience!: Patience;
  readonly #engine = makeLocalEngine("poll", SLOTS);
  readonly #connector = new Connector(this.#engine);
  readonly #turning: Promise<void>;
  #isEnded = false;

  private constructor() {
    this.#turning = this.#turn();
  }

  /** Opens the export `disk`, or joins a lane of a session. */
  static async open(
    port: number,
    options: {
      patience?: Partial<Patience>;
      depth?: number;
      lane?: number;
      shared?: SharedSession;
      readOnly?: boolean;
      /** The session is that of a process that is gone. */
      recovered?: RecoveredSession;
      replays?: boolean;
    } = {},
    around?: Surroundings,
  ): Promise<PatientLane> {
    const opened = new PatientLane();
    const { random } = Math;
    const { patience = {}, depth = 8, lane = 0, shared = new SharedSession(), readOnly = false, replays = false } =
      options;
    const open: OpenOptions & { session: Uint8Array } = {
      target: { where: `127.0.0.1:${port}`, addresses: [local(port)], ciphers: [Cipher.NONE], digests: [Digest.XXH64] },
      name: "disk",
      readOnly,
      steal: false,
      depth,
      holder: "a test",
      lanes: 2,
      session: shared.id,
      ledger: shared.ledger,
      overlaps: shared.overlaps,
      replay: replays ? shared.replay : undefined,
      patience: { ...PATIENCE, ...patience },
    };
    opened.#patience = open.patience!;
    await new Promise<void>((resolve, reject) => {
      const done = ({ session }: OpenedSession) => {
        opened.session = session;
        resolve();
      };
      const failed = (reason: string) => reject(new Error(reason));
      if (options.recovered !== undefined) {
        const { recovered } = options;
        const session = recoverLane(
          opened.#connector,
          open,
          lane,
          recovered,
          opened,
          around ?? { lookup: null, random },
        );
        done({ ...recovered, session });
      } else if (lane === 0) openSession(opened.#connector, open, opened, done, failed, around);
      else joinLane(opened.#connector, open, lane, opened, done, failed, around);
    });
    return opened;
  }

  submit(operation: number, offset: number, length: number, payload?: Uint8Array, flags = 0): Promise<Outcome> {
    const { slots, arena } = this.#engine;
    const [slot] = slots.reserve(1)!;
    const at = slots.payloadAt(slot);
    if (payload !== undefined) arena.bytes.set(payload, at);
    slots.setRange(slot, offset, length);
    return new Promise((resolve) => {
      const client: BlockClient = {
        onComplete: (_slot, status) => {
          const bytes = operation === Operation.READ && status === 0 ? length : 0;
          slots.release(Uint32Array.of(slot));
          resolve({ status, payload: arena.bytes.slice(at, at + bytes) });
        },
      };
      const status = this.session.submit(slot, operation, flags, client);
      if (status <= 0) client.onComplete(slot, status);
    });
  }

  /** Makes it more or less patient while it lives. */
  setPatience(change: Partial<Patience>): void {
    Object.assign(this.#patience, change);
    this.session.patienceChanged();
  }

  /** What its engine has in use. */
  get resources(): { slots: number; operations: number; timers: number } {
    const { slots, loop, timers } = this.#engine;
    return { slots: slots.count - slots.freeCount, operations: loop.pending, timers: timers.count };
  }

  /** A WRITE of one byte all over. */
  write(offset: number, length: number, fill: number, flags = 0): Promise<Outcome> {
    return this.submit(Operation.WRITE, offset, length, new Uint8Array(length).fill(fill), flags);
  }

  read(offset: number, length: number): Promise<Outcome> {
    return this.submit(Operation.READ, offset, length);
  }

  onLost(reason: string): void {
    this.told.push(`lost: ${reason}`);
  }

  onShuttingDown(): void {
    this.told.push("shutting down");
  }

  onResized(size: number): void {
    this.told.push(`resized ${size}`);
  }

  onAway(reason: string): void {
    this.told.push(`away: ${reason}`);
  }

  onBack(_awayMs: number, resent: number): void {
    this.told.push(`back, ${resent} resent`);
  }

  onReplayed(count: number, bytes: number): void {
    this.told.push(`replayed ${count} (${bytes} bytes)`);
  }

  onDataLost(reason: string): void {
    this.told.push(`data lost: ${reason}`);
  }

  onExpired(count: number): void {
    this.told.push(`${count} expired`);
  }

  onKeptOut(reason: string): void {
    this.told.push(`kept out: ${reason}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.session?.abort();
    this.session?.close();
    this.#isEnded = true;
    await this.#turning;
  }

  async #turn(): Promise<void> {
    while (!this.#isEnded || this.#engine.loop.pending > 0) {
      this.#engine.turn(1);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    this.#engine.close();
  }
}

/** A port of this machine. */
export function local(port: number): SocketAddress {
  return { family: "ipv4", host: "127.0.0.1", port };
}

/** An exporter that says what the test wants. */
export function scripted(): ScriptedExporter {
  return new ScriptedExporter({ cipher: Cipher.NONE, digest: Digest.XXH64, feeding: "whole", seed: 1 }, null);
}

/** Opens a session. */
export async function start(
  exporter: ScriptedExporter,
  options: Parameters<typeof PatientLane.open>[1] = {},
  wish: GrantWish = {},
): Promise<[PatientLane, Visit]> {
  return await Promise.all([PatientLane.open(exporter.port, options), exporter.serve(wish)]);
}

/** Takes the next connection, up to the door. */
export async function greet(exporter: ScriptedExporter): Promise<Visit> {
  const visit = await exporter.accept();
  await visit.greet();
  return visit;
}

/** Lets a lane join again; what it asked for. */
export async function rejoin(exporter: ScriptedExporter, wish: GrantWish = {}, lane = 0) {
  const visit = await greet(exporter);
  return { visit, asked: await visit.grant(wish, FrameType.JOIN, lane) };
}

/** The first word of a TLV. */
export function u32(tlvs: Map<number, Uint8Array[]>, type: number): number {
  return new DataView(tlvs.get(type)![0].slice().buffer).getUint32(0, true);
}

/** What names a request, and its range. */
export function placeOf({ type, slot, sequence, offset, length }: Frame): number[] {
  return [type, slot, sequence, offset, length];
}

/** Ensures that no frame comes within a while, PINGs apart. */
export async function silent(visit: Visit, ms = 150): Promise<() => Promise<Frame>> {
  const next = visit.peer.receive();
  let came: Frame | null = null;
  next.then((frame) => came = frame, () => {});
  await new Promise((resolve) => setTimeout(resolve, ms));
  assert.equal(came, null);
  return () => next;
}
