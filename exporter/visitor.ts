/**
 * One connection at the exporter's door, from its first byte until it is a lane or ends.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { cipherName, digestName } from "../engine/control/algorithms.ts";
import type { Engine } from "../engine/engine.ts";
import type { Stream, StreamOwner } from "../engine/stream.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import { ProtocolError, protocolErrorText } from "../protocol/error.ts";
import { ExporterDoor } from "../protocol/exporter_door.ts";
import type { Description } from "../protocol/grant.ts";
import { FENCING_INTERVAL_MS, HANDSHAKE_TIME_MS } from "../protocol/limits.ts";
import type { Access } from "./admission.ts";
import type { Caller } from "./coordinator.ts";
import type { Door } from "./door.ts";
import { hexOf, type Refusal, type Session } from "./registry.ts";

/** How long one has to say hello that is told then that there is no room for it, in milliseconds: it holds up others. */
const SURPLUS_TIME_MS = 2000;

/** One connection at the door. */
export class Visitor implements StreamOwner, Caller {
  readonly socketAddress: SocketAddress | null;
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
  /** What was accepted when it came. */
  readonly #access: Access;
  /** What it counts as; null once it has proved who it is, or has gone. */
  #counted: "stranger" | "surplus" | null;
  /** It has tried to prove that it has a key. */
  #hasTried = false;
  /** Why its key did not help it. */
  #keyRefusal = "";
  #stream: Stream | null = null;
  #isPrepared = false;
  #executing = 0;
  /** The time of its latest request, of the answer to it, or of the latest FENCING. Single bytes do not count. */
  #sinceMs: number;

  constructor(
    door: Door,
    engine: Engine,
    socketAddress: SocketAddress | null,
    address: string,
    counted: "stranger" | "surplus",
  ) {
    this.#door = door;
    this.#engine = engine;
    this.socketAddress = socketAddress;
    this.address = address;
    this.#access = door.admission.access;
    this.#counted = counted;
    this.#sinceMs = engine.now;
  }

  /** The key that it has proved to have. */
  get keyId(): string | null {
    const { keyId } = this.machine;
    return keyId === null ? null : hexOf(keyId);
  }

  /** Whether it still waits for the answer to its OPEN or JOIN. */
  get isWaiting(): boolean {
    return this.#stream !== null && this.#stream.isOpen && this.machine.isPending;
  }

  /** Begins to listen to it. */
  start(stream: Stream): void {
    this.#stream = stream;
    const config = {
      ciphers: this.#access.ciphers,
      digests: this.#access.digests,
      keyRequired: this.#access.rules.keys.length > 0,
      full: this.#counted === "surplus",
    };
    this.machine = new ExporterDoor(this.#engine.arena, this.#engine.cryptography, stream.scratchAt, config, {
      transmit: (at, bytes) => stream.transmit(at, bytes),
      keyOf: (id) => this.#keyOf(hexOf(id)),
      randomBytes: (count) => randomBytes(count),
      list: (after) => {
        this.#asks();
        return this.#door.list(after, this);
      },
      describe: (name) => {
        this.#asks();
        return this.#describe(name);
      },
      open: (request) => {
        this.#asks();
        this.#door.coordinator.open(this, request);
      },
      join: (request) => {
        this.#asks();
        this.#door.coordinator.join(this, request);
      },
    });
    stream.start(this.machine);
  }

  refuse(refusal: Refusal): void {
    this.#isPrepared = false;
    if (!this.isWaiting) return;
    this.#log(`Refused ${this.address}: ${refusal.logText ?? refusal.text}`);
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

  /** The rules have changed: ends the connection of one that has come in and would not now. */
  review(): void {
    if (this.#counted !== null || this.#door.admission.permissions.admits(this.keyId, this.socketAddress)) return;
    this.#log(`${this.address} was sent away: its rights have changed`);
    this.dismiss();
  }

  onHeard(): void {}

  onSent(): void {}

  onDrained(): void {
    if (this.#isPrepared) this.#handOver();
  }

  onClosed(): void {
    const { error, claimedKeyId } = this.machine;
    // Its first frame proves it; without one, or with a wrong one, it may have sent a copy of another's handshake.
    const hasFailed = this.#hasTried && this.machine.keyId === null;
    if (hasFailed) this.#door.admission.failed(this.socketAddress, this.#engine.now);
    const isSaid = error === ProtocolError.NONE || this.#counted === "surplus";
    if (hasFailed) this.#log(`Refused ${this.address}: ${this.#failureText(claimedKeyId!)}`);
    else if (!isSaid) this.#log(`${this.address} was sent away: ${this.#errorText()}`);
    this.#stream = null;
    this.machine.close();
    this.#count();
    this.#door.left(this);
  }

  #keyOf(id: string): Uint8Array | null {
    this.#hasTried = true;
    const answer = this.#door.admission.keyFor(id, this.socketAddress);
    if (typeof answer !== "string") return answer;
    this.#keyRefusal = answer;
    return null;
  }

  /** A request at the door: nobody gets so far who has to prove something and has not. */
  #asks(): void {
    this.#sinceMs = this.#engine.now;
    this.#count();
  }

  /** It counts no more as one of those that are limited in number. */
  #count(): void {
    if (this.#counted !== null) this.#door.admission.gone(this.#counted, this.socketAddress);
    this.#counted = null;
  }

  #describe(name: string): Description | null {
    const description = this.#door.describe(name, this);
    if (description === null) this.#log(`Refused ${this.address}: ${this.#door.whyNotFound(name, this)}`);
    return description;
  }

  #failureText(claimedKeyId: Uint8Array): string {
    if (this.#keyRefusal !== "") return this.#keyRefusal;
    const name = this.#door.admission.permissions.nameOf(hexOf(claimedKeyId));
    if (this.machine.authentication === "wrong key") return `it does not have the key "${name}", which it named`;
    return `it has not proved that it has the key "${name}"`;
  }

  #errorText(): string {
    const { error, offered, claimedKeyId } = this.machine;
    if (error !== ProtocolError.REFUSED || offered === null) return protocolErrorText(error);
    if (claimedKeyId === null && this.#access.rules.keys.length > 0) return "it named no key";
    const wants = listOf(offered.ciphers, offered.digests);
    return `nothing in common: it offers ${wants}; accepted are ${listOf(this.#access.ciphers, this.#access.digests)}`;
  }

  #log(text: string): void {
    this.#door.admission.log(text, this.#engine.now);
  }

  #handOver(): void {
    if (!this.isWaiting) return;
    if (this.#stream!.hasMore) {
      this.#log(`${this.address} was sent away: it did not wait for the answer to its request`);
      this.#stream!.close();
      return;
    }
    const fd = this.#stream!.detach();
    // A FENCING frame is still being sent: again when it is.
    if (fd < 0) return;
    this.#stream = null;
    this.#door.connect(this, fd);
    this.machine.close();
  }

  /** @ignore by the door, several times a second: says FENCING while it waits, and ends what takes too long. */
  watch(): void {
    if (this.#stream === null) return;
    const sinceMs = this.#engine.now - this.#sinceMs;
    if (this.isWaiting) {
      if (this.#isPrepared || sinceMs < FENCING_INTERVAL_MS) return;
      this.#sinceMs = this.#engine.now;
      this.machine.fencing(this.#executing);
    } else if (this.#counted === "surplus") {
      if (sinceMs >= SURPLUS_TIME_MS) this.#stream.close();
    } else if (sinceMs >= HANDSHAKE_TIME_MS) {
      this.#log(`${this.address} was sent away: it asked for nothing for ${HANDSHAKE_TIME_MS / 1000} s`);
      this.#stream.close();
    }
  }
}

/** Ciphers and digests by name, for the log. What a stranger offers is no longer than its hello. */
function listOf(ciphers: readonly number[], digests: readonly number[]): string {
  return `the ciphers ${ciphers.map(cipherName).join(", ")} and the digests ${digests.map(digestName).join(", ")}`;
}
