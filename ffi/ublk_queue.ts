/**
 * One queue of a ublk device, served through a {@link Ring}. A tag is a request's place: it has a buffer, and is either
 * with the driver (waiting for a request) or held by the server (working on one).
 *
 * @module
 */
import { mmap, munmap, pageBytes, viewOf } from "./libc.ts";
import { Mapping, Protection } from "./constants.ts";
import { Errno, SystemError } from "./errno.ts";
import type { CompletionHandler } from "./loop.ts";
import type { Ring } from "./ring.ts";
import {
  descriptorsBytes,
  descriptorsOffset,
  SECTOR_BYTES,
  UBLK_DEPTH_MAX,
  UBLK_DESCRIPTOR_BYTES,
  UblkQueueCommand,
} from "./ublk_wire.ts";

/** Who works on the requests. */
export interface UblkQueueHandler {
  /**
   * A request has come; for a write its data is in the tag's buffer. Answer with {@link UblkQueue.commit}, now or
   * later.
   *
   * @param operation a `UblkOperation`; other values are possible and are to be refused with -EOPNOTSUPP
   * @param flags `UblkFlag`s and others; the low eight bits are 0
   * @param offset in bytes
   * @param length in bytes; exceeds the buffer for discards and writes of zeroes; 0 for a flush
   */
  onRequest(tag: number, operation: number, flags: number, offset: number, length: number): void;
  /**
   * Every tag has come back for good: the device was stopped. Called once.
   *
   * @param error 0, or the negative errno with which the driver refused a command, when it was not the device's end
   */
  onEnded(error: number): void;
}

/** Whose a tag is. */
const Holder = { DRIVER: 0, SERVER: 1, NOBODY: 2 } as const;

/** Words of a `struct ublksrv_io_desc`: op_flags, nr_sectors, start_sector (low, high), addr (low, high). */
const DESCRIPTOR_WORDS = UBLK_DESCRIPTOR_BYTES / 4;

const HIGH = 0x1_0000_0000;

/** A queue. Everything happens on the thread of its ring: the driver insists. */
export class UblkQueue implements CompletionHandler {
  readonly #ring: Ring;
  readonly #fd: number;
  readonly #handler: UblkQueueHandler;
  readonly #kind: number;
  readonly #queueId: number;
  /** The driver's memory, read-only. */
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #descriptorsAddress: number;
  /** Each tag's buffer address, as two words. */
  readonly #bufferWords: Uint32Array;
  readonly #holders: Uint8Array;
  #live: number;
  #error = 0;
  #closed = false;

  /**
   * Maps the queue and fetches all tags; the ring's next turn submits that.
   *
   * @param ring the thread's loop
   * @param charDeviceFd /dev/ublkcN; the caller's to close, after the queue has ended
   * @param queueId 0 to the device's queues - 1
   * @param depth the device's queue depth
   * @param bufferAddress where the data of a tag goes: memory of the device's largest request that outlives the queue
   * @throws {SystemError} where the descriptors cannot be mapped
   */
  constructor(
    ring: Ring,
    charDeviceFd: number,
    queueId: number,
    depth: number,
    bufferAddress: (tag: number) => number,
    handler: UblkQueueHandler,
  ) {
    if (!(depth >= 1 && depth <= UBLK_DEPTH_MAX)) throw new RangeError(`Cannot serve a ublk queue of depth ${depth}`);
    this.#ring = ring;
    this.#fd = charDeviceFd;
    this.#queueId = queueId;
    this.#handler = handler;
    this.#live = depth;
    this.#holders = new Uint8Array(depth);
    this.#bufferWords = new Uint32Array(2 * depth);
    const page = pageBytes();
    const bytes = descriptorsBytes(depth, page);
    const mapping = Mapping.SHARED | Mapping.POPULATE;
    const address = mmap(bytes, Protection.READ, mapping, charDeviceFd, descriptorsOffset(queueId, page));
    if (address < 0) throw new SystemError("map the descriptors of a ublk queue", address);
    this.#descriptorsAddress = address;
    this.#descriptors = new Uint32Array(viewOf(address, bytes));
    this.#kind = ring.register(this);
    for (let tag = 0; tag < depth; tag++) {
      const buffer = bufferAddress(tag);
      this.#bufferWords[2 * tag] = buffer;
      this.#bufferWords[2 * tag + 1] = buffer / HIGH;
      this.#command(UblkQueueCommand.FETCH, tag, 0);
    }
  }

  /** How many tags are with the driver or held; 0 after the end. */
  get live(): number {
    return this.#live;
  }

  /** Whether the tag carries a request that waits for its {@link commit}. */
  held(tag: number): boolean {
    return this.#holders[tag] === Holder.SERVER;
  }

  /**
   * Answers the request of a tag and gives the tag back to the driver. For a read the data is in the tag's buffer.
   *
   * @param result the number of bytes for a read or write (fewer, and the rest comes as another request), 0 for others,
   * or a negative errno
   */
  commit(tag: number, result: number): void {
    if (this.#holders[tag] !== Holder.SERVER) throw new Error(`Cannot answer tag ${tag}: it carries no request`);
    this.#holders[tag] = Holder.DRIVER;
    this.#command(UblkQueueCommand.COMMIT_AND_FETCH, tag, result);
  }

  complete(tag: number, _generation: number, result: number): void {
    if (this.#closed) return;
    if (result < 0) {
      this.#end(tag, result);
      return;
    }
    this.#holders[tag] = Holder.SERVER;
    const at = tag * DESCRIPTOR_WORDS;
    const descriptors = this.#descriptors;
    const operationFlags = descriptors[at];
    const sector = descriptors[at + 2] + descriptors[at + 3] * HIGH;
    this.#handler.onRequest(
      tag,
      operationFlags & 0xff,
      (operationFlags & ~0xff) >>> 0,
      sector * SECTOR_BYTES,
      descriptors[at + 1] * SECTOR_BYTES,
    );
  }

  /** Gives the mapping back, after {@link UblkQueueHandler.onEnded} or when the ring is about to be closed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    munmap(this.#descriptorsAddress, this.#descriptors.byteLength);
  }

  #end(tag: number, result: number): void {
    this.#holders[tag] = Holder.NOBODY;
    this.#live--;
    // UBLK_IO_RES_ABORT is -ENODEV: the device is being stopped. Anything else is a refusal, and the first tells most.
    if (result !== -Errno.ENODEV && this.#error === 0) this.#error = result;
    if (this.#live === 0) this.#handler.onEnded(this.#error);
  }

  /** Queues a command with its `struct ublksrv_io_cmd`: queue and tag (16 bits each), result, buffer address. */
  #command(command: number, tag: number, result: number): void {
    this.#ring.uringCmd(
      this.#fd,
      command,
      this.#queueId | tag << 16,
      result,
      this.#bufferWords[2 * tag],
      this.#bufferWords[2 * tag + 1],
      this.#kind,
      tag,
      0,
    );
  }
}
