/**
 * The ublk front-end: the kernel's block requests, served by a block device. A tag is a slot.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, Operation, PENDING, RequestFlag } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { Errno } from "../ffi/errno.ts";
import type { Ring } from "../ffi/ring.ts";
import { UblkQueue, type UblkQueueHandler } from "../ffi/ublk_queue.ts";
import { UblkFlag, UblkOperation } from "../ffi/ublk_wire.ts";

/**
 * The errnos that reach the application. The kernel makes a status of its own of the driver's errno (`blk_errors` in
 * block/blk-core.c); what it has none for arrives as EIO anyway, and some that it has would mean something else to it:
 * ENOMEM and EAGAIN "the same again later", EBADE and others what only their own transports say. So all but these are
 * EIO here.
 */
const ERRNOS_PASSED: readonly number[] = [
  // No such operation: the kernel writes zeroes itself where WRITE_ZEROES is not to be had.
  Errno.EOPNOTSUPP,
  // Filesystems tell "full" from "broken".
  Errno.ENOSPC,
  Errno.ETIMEDOUT,
  // A medium error: RAID reads the block elsewhere and writes it anew.
  Errno.ENODATA,
  // The integrity check below the exporter failed.
  Errno.EILSEQ,
];

const isPassed = new Uint8Array(256);
for (const errno of ERRNOS_PASSED) isPassed[errno] = 1;

/**
 * What the driver is told.
 *
 * @param status a negative errno
 */
export function ublkErrno(status: number): number {
  return isPassed[0 - status] === 1 ? status : -Errno.EIO;
}

/** The {@link Operation} for a `UblkOperation`; 0: there is none. */
const operationOf = new Uint8Array(256);
operationOf[UblkOperation.READ] = Operation.READ;
operationOf[UblkOperation.WRITE] = Operation.WRITE;
operationOf[UblkOperation.FLUSH] = Operation.FLUSH;
operationOf[UblkOperation.DISCARD] = Operation.DISCARD;
operationOf[UblkOperation.WRITE_ZEROES] = Operation.WRITE_ZEROES;

/** Serves one queue of a device from one block device, on the engine's ring. */
export class UblkFrontend implements UblkQueueHandler, BlockClient {
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #slots: Uint32Array;
  readonly #tagOf: Uint16Array;
  /** What each tag's request answers when it succeeds: the bytes of a read or write, else 0. */
  readonly #results: Uint32Array;
  readonly #queue: UblkQueue;
  readonly #onEnded: (error: number) => void;
  #ended = false;

  /**
   * Begins to serve; the engine's next turn tells the driver.
   *
   * @param charDeviceFd /dev/ublkcN; the caller's to close, after the end
   * @param queueId which of the device's queues, from 0
   * @param depth the device's queue depth; as many slots are taken
   * @param onEnded is called when every tag is back for good, with 0 or the negative errno that was not expected
   * @throws {Error} without room, or without io_uring
   */
  constructor(
    engine: Engine,
    device: BlockDevice,
    charDeviceFd: number,
    queueId: number,
    depth: number,
    onEnded: (error: number) => void,
  ) {
    if (engine.loop.name !== "uring") throw new Error("ublk needs io_uring");
    const slots = engine.slots.reserve(depth);
    if (slots === null) throw new Error(`there is no memory for a queue of depth ${depth}`);
    this.#engine = engine;
    this.#device = device;
    this.#slots = slots;
    this.#onEnded = onEnded;
    this.#results = new Uint32Array(depth);
    this.#tagOf = new Uint16Array(engine.slots.count);
    for (let tag = 0; tag < depth; tag++) this.#tagOf[slots[tag]] = tag;
    const addressOf = (tag: number) => engine.slots.payloadAddress(slots[tag]);
    try {
      this.#queue = new UblkQueue(engine.loop as Ring, charDeviceFd, queueId, depth, addressOf, this);
    } catch (error) {
      engine.slots.release(slots);
      throw error;
    }
  }

  /** Whether the driver has taken every tag back. */
  get isEnded(): boolean {
    return this.#ended;
  }

  onRequest(tag: number, operation: number, flags: number, offset: number, length: number): void {
    const asked = operationOf[operation];
    if (asked === 0) {
      this.#queue.commit(tag, -Errno.EOPNOTSUPP);
      return;
    }
    let requestFlags = 0;
    if ((flags & UblkFlag.FUA) !== 0 && asked !== Operation.READ && asked !== Operation.FLUSH) {
      requestFlags |= RequestFlag.FUA;
    }
    if ((flags & UblkFlag.NO_UNMAP) !== 0 && asked === Operation.WRITE_ZEROES) requestFlags |= RequestFlag.NO_UNMAP;
    const slot = this.#slots[tag];
    this.#engine.slots.setRange(slot, offset, length);
    this.#results[tag] = asked === Operation.READ || asked === Operation.WRITE ? length : 0;
    const status = this.#device.submit(slot, asked, requestFlags, this);
    if (status !== PENDING) this.#commit(tag, status);
  }

  onEnded(error: number): void {
    this.#ended = true;
    this.#queue.close();
    this.#engine.slots.release(this.#slots);
    this.#onEnded(error);
  }

  onComplete(slot: number, status: number): void {
    this.#commit(this.#tagOf[slot], status);
  }

  #commit(tag: number, status: number): void {
    this.#queue.commit(tag, status < 0 ? ublkErrno(status) : this.#results[tag]);
  }
}
