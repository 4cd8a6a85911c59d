/**
 * One connection at the exporter's door, from its first byte until it is a lane or ends.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import type { Engine } from "../engine/engine.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import { protocolErrorText } from "../protocol/error.ts";
import { ExporterDoor } from "../protocol/exporter_door.ts";
import { FENCING_INTERVAL_MS, HANDSHAKE_TIME_MS } from "../protocol/limits.ts";
import { Cipher } from "../protocol/wire.ts";
import type { Door } from "./door.ts";
import type { Caller } from "./coordinator.ts";
import type { Refusal, Session } from "./registry.ts";

/** One connection at the door. */
export class Visitor implements StreamOwner, Caller {
  readonly address: string;
  machine!: ExporterDoor;
  token = 0;
  session: Session | null = null;
  lane = 0;
  generation = 0;
  answerType = 0;
  depth = 0;
  maxPayload = 0;
  readonly #door: Door;
  readonly #engine: Engine;
  readonly #digests: readonly number[];
  #stream: Stream | null = null;
  #isPrepared = false;
  #executing = 0;
  /** The time of its latest request, of the answer to it, or of the latest FENCING. Single bytes do not count. */
  #sinceMs: number;

  constructor(door: Door, engine: Engine, address: string, digests: readonly number[]) {
    this.#door = door;
    this.#engine = engine;
    this.address = address;
    this.#digests = digests;
    this.#sinceMs = engine.now;
  }

  /** Whether it still waits for the answer to its OPEN or JOIN. */
  get isWaiting(): boolean {
    return this.#stream !== null && this.#stream.isOpen && this.machine.isPending;
  }

  /** Begins to listen to it. */
  start(stream: Stream): void {
    this.#stream = stream;
    const config = { ciphers: [Cipher.NONE], digests: [...this.#digests], keyRequired: false };
    this.machine = new ExporterDoor(this.#engine.arena, this.#engine.cryptography, stream.scratchAt, config, {
      transmit: (at, bytes) => stream.transmit(at, bytes),
      keyOf: () => null,
      randomBytes: (count) => randomBytes(count),
      list: (after) => {
        this.#sinceMs = this.#engine.now;
        return this.#door.list(after);
      },
      describe: (name) => {
        this.#sinceMs = this.#engine.now;
        return this.#door.describe(name);
      },
      open: (request) => {
        this.#sinceMs = this.#engine.now;
        this.#door.coordinator.open(this, request);
      },
      join: (request) => {
        this.#sinceMs = this.#engine.now;
        this.#door.coordinator.join(this, request);
      },
    });
    stream.start(this.machine);
  }

  refuse(refusal: Refusal): void {
    this.#isPrepared = false;
    if (!this.isWaiting) return;
    this.#door.log("info", `Refused ${this.address}: ${refusal.text}`);
    this.machine.refuse(refusal.status, refusal.text, refusal.current);
    this.#sinceMs = this.#engine.now;
    this.#stream!.resume();
  }

  fencing(executing: number): void {
    this.#executing = executing;
  }

  prepared(depth: number, maxPayload: number): void {
    this.depth = depth;
    this.maxPayload = maxPayload;
    this.#isPrepared = true;
    this.#handOver();
  }

  /** Ends the connection. */
  dismiss(): void {
    this.#stream?.close();
  }

  onHeard(): void {}

  onSent(): void {}

  onDrained(): void {
    if (this.#isPrepared) this.#handOver();
  }

  onClosed(): void {
    const error = this.machine.error;
    if (error !== 0) this.#door.log("warning", `${this.address} was sent away: ${protocolErrorText(error)}`);
    this.#stream = null;
    this.#door.left(this);
  }

  #handOver(): void {
    if (!this.isWaiting) return;
    if (this.#stream!.hasMore) {
      this.#door.log("warning", `${this.address} was sent away: it did not wait for the answer to its request`);
      this.#stream!.close();
      return;
    }
    const fd = this.#stream!.detach();
    // A FENCING frame is still being sent: again when it is.
    if (fd < 0) return;
    this.#stream = null;
    this.#door.connect(this, fd);
  }

  /** @ignore by the door, several times a second: says FENCING while it waits, and ends what takes too long. */
  watch(): void {
    if (this.#stream === null) return;
    const sinceMs = this.#engine.now - this.#sinceMs;
    if (this.isWaiting) {
      if (this.#isPrepared || sinceMs < FENCING_INTERVAL_MS) return;
      this.#sinceMs = this.#engine.now;
      this.machine.fencing(this.#executing);
    } else if (sinceMs >= HANDSHAKE_TIME_MS) {
      this.#door.log("info", `${this.address} was sent away: it asked for nothing for ${HANDSHAKE_TIME_MS / 1000} s`);
      this.#stream.close();
    }
  }
}
