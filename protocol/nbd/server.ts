/**
 * The NBD server of one connection, without I/O: fixed newstyle handshake, then simple or structured replies, as the
 * public specification has it (`doc/proto.md` of NetworkBlockDevice/nbd). Whatever bytes come in, it answers them as
 * specified or closes the connection.
 *
 * The host makes it, calls {@link NbdServer.start}, and feeds it from a stream. The end of a connection, whatever the
 * cause, is: {@link NbdServer.abandon}, then wait until {@link NbdServer.executing} is 0.
 *
 * @module
 */
import { assert } from "../assert.ts";
import type { Memory, StreamConsumer, Verdict } from "../consumer.ts";
import { Handshake, HANDSHAKE_SCRATCH_BYTES } from "./handshake.ts";
import type { NbdExport, NbdHost, NbdRefusal } from "./host.ts";
import { Transmission } from "./transmission.ts";
import { MINIMUM_BLOCK_BYTES_MAX } from "./wire.ts";

/** Bytes of the arena that a server needs besides its slots. */
export const NBD_SCRATCH_BYTES = HANDSHAKE_SCRATCH_BYTES;

/** What an {@link NbdServer} is made of. */
export interface NbdServerOptions {
  /** The arena. */
  readonly memory: Memory;
  readonly host: NbdHost;
  /** How many slots `host.takeSlot` can give: indices 0 to `slots - 1`, at least 1, at most 65534. */
  readonly slots: number;
  /** The payload area of each slot, in bytes: a multiple of 65536, so that parts of aligned requests are aligned. */
  readonly slotBytes: number;
  /** Arena offset of {@link NBD_SCRATCH_BYTES} bytes that are the server's own. */
  readonly scratchAt: number;
}

/** One connection of an NBD client. */
export class NbdServer implements StreamConsumer {
  readonly #options: NbdServerOptions;
  readonly #handshake: Handshake;
  #transmission: Transmission | null = null;
  #phase: Handshake | Transmission;
  #shuttingDown = false;
  #abandoned = false;

  constructor(options: NbdServerOptions) {
    assert(options.slots >= 1 && options.slots <= 65534, "an NBD server has 1 to 65534 slots");
    assert(
      options.slotBytes > 0 && options.slotBytes % MINIMUM_BLOCK_BYTES_MAX === 0,
      "a slot holds whole blocks of any size that may be advertised",
    );
    this.#options = options;
    this.#handshake = new Handshake(options.memory, options.host, options.scratchAt);
    this.#phase = this.#handshake;
  }

  /** Sends the greeting. Once, before the first byte is fed. */
  start(): void {
    this.#handshake.start();
  }

  get headerBytes(): number {
    return this.#phase.headerBytes;
  }

  get payloadAt(): number {
    return this.#phase.payloadAt;
  }

  get payloadBytes(): number {
    return this.#phase.payloadBytes;
  }

  onHeader(at: number): Verdict {
    const verdict = this.#phase.onHeader(at);
    if (this.#transmission === null) this.#enter();
    return verdict;
  }

  onPayload(): Verdict {
    const verdict = this.#phase.onPayload();
    if (this.#transmission === null) this.#enter();
    return verdict;
  }

  /** The export that the client works with; null before transmission. */
  get exported(): NbdExport | null {
    return this.#handshake.agreement?.exported ?? null;
  }

  /** How many requests are executing: {@link NbdServer.complete} will be called as often. */
  get executing(): number {
    return this.#transmission === null ? 0 : this.#transmission.executing;
  }

  /** Bytes that `host.transmit` was given without a slot (-1) are sent; once per such call. The stream is then resumed. */
  sent(): void {
    this.#handshake.sent();
  }

  /** What came of an `openExport` that was pending. The stream is then resumed. */
  opened(outcome: NbdExport | NbdRefusal): void {
    this.#handshake.opened(outcome);
  }

  /**
   * A request that `host.execute` had left pending has ended.
   *
   * @param status 0 or a negative errno of Linux
   */
  complete(slot: number, status: number): void {
    assert(this.#transmission !== null, "a request ends only after it was executed");
    this.#transmission.complete(slot, status);
  }

  /** From now on new requests and options are refused with the "shutting down" errors; what executes is answered. */
  shutDown(): void {
    this.#shuttingDown = true;
    this.#handshake.shuttingDown = true;
    if (this.#transmission !== null) this.#transmission.shuttingDown = true;
  }

  /**
   * The connection is gone. Slots that are not executing come back to the host at once, the others when they complete;
   * those given to `host.transmit` are the host's already. May be called again.
   */
  abandon(): void {
    this.#abandoned = true;
    this.#transmission?.abandon();
  }

  #enter(): void {
    const agreement = this.#handshake.agreement;
    if (agreement === null) return;
    const { memory, host, slots, slotBytes } = this.#options;
    this.#transmission = new Transmission(memory, host, slots, slotBytes, agreement);
    this.#transmission.shuttingDown = this.#shuttingDown;
    if (this.#abandoned) this.#transmission.abandon();
    this.#phase = this.#transmission;
  }
}
