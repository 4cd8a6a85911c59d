/**
 * A disk in a regular file, or in anything that takes the same system calls.
 *
 * @module
 */
import {
  type BlockClient,
  type BlockDevice,
  EXTENT_BYTES,
  ExtentFlag,
  Operation,
  PENDING,
} from "../../engine/block.ts";
import { type Geometry, RequestFlag } from "../../engine/block.ts";
import type { Slots } from "../../engine/slots.ts";
import { Advice, FallocateMode, Mapping, Protection, ReadWriteFlag, Seek } from "../../ffi/constants.ts";
import { check, Errno } from "../../ffi/errno.ts";
import { mmap } from "../../ffi/libc.ts";
import type { CompletionHandler, Loop } from "../../ffi/loop.ts";
import { SlotDispatch } from "./dispatch.ts";
import type { OpenedDisk } from "./disk.ts";
import { RETRIES_MAX, StickyFailure, type SyncClient, SyncGroup } from "./sync.ts";

/** What a slot is waiting for. */
const Phase = {
  IDLE: 0,
  READ: 1,
  WRITE: 2,
  /** A forced write has met ENOSPC: the same again, not forced, to learn where it came from. */
  REWRITE: 3,
  FALLOCATE: 4,
  /** Writing zeroes, where the file system has nothing better. */
  ZERO: 5,
  ADVISE: 6,
  SYNC: 7,
} as const;

const PUNCH = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE;
const ZERO_RANGE = FallocateMode.ZERO_RANGE | FallocateMode.KEEP_SIZE;

/** Zeroes written at a time: as a slot's payload, so that they take their turn with other requests. */
const ZERO_AREA_BYTES = 256 * 1024;
/** The longest fallocate or fadvise at a time, so that the poll loop, which waits for each, comes round in between. */
const PIECE_BYTES = 128 * 1024 * 1024;
/** Extents of one BLOCK_STATUS: each costs two lseek calls of about a microsecond on the spot. */
const EXTENTS_MAX = 128;

/**
 * A disk in a file. In a file system in memory, READ and WRITE are done on the spot; in all others everything that can
 * wait for a disk goes through the loop. The one exception is BLOCK_STATUS, for which the loop has no operation: lseek
 * may wait for the disk to read an extent map, and walks the pages of a file in memory.
 */
export class FileBackend implements BlockDevice, CompletionHandler, SyncClient {
  readonly geometry: Geometry;
  protected readonly slots: Slots;
  readonly #disk: OpenedDisk;
  readonly #fd: number;
  readonly #loop: Loop;
  readonly #dispatch: SlotDispatch;
  readonly #sticky: StickyFailure;
  /** None where nothing is ever synced: in memory. */
  readonly #syncs: SyncGroup | null;
  readonly #zeroAddress: number;
  readonly #phase: Uint8Array;
  readonly #operation: Uint8Array;
  readonly #flags: Uint8Array;
  readonly #mode: Uint8Array;
  readonly #retries: Uint8Array;
  readonly #generation: Uint32Array;
  /** Of a request: how far it is, and where it ends; in bytes of the disk. */
  readonly #position: Float64Array;
  readonly #end: Float64Array;
  readonly #extentBytes: Uint32Array;
  readonly #clients: (BlockClient | null)[];
  /** The file system has said EOPNOTSUPP once. */
  #punchUnsupported = false;
  #zeroRangeUnsupported = false;

  /**
   * @param disk stays open as long as the backend, and is not closed by it
   * @param loop all back-ends of a loop share one of its handlers
   * @param slots the Worker's slots
   * @param stickyWord shared by all Workers that serve the disk, see {@link StickyFailure}
   * @param onFailure is called when stable storage has failed for the first time, unless another Worker was told of it
   * @throws {SystemError} the disk cannot be opened once more, see {@link SyncGroup}
   */
  constructor(disk: OpenedDisk, loop: Loop, slots: Slots, stickyWord: Int32Array, onFailure?: () => void) {
    this.geometry = disk.geometry;
    this.slots = slots;
    this.#disk = disk;
    this.#fd = disk.fd;
    this.#loop = loop;
    this.#dispatch = SlotDispatch.of(loop, slots.count);
    this.#sticky = new StickyFailure(stickyWord, onFailure);
    this.#syncs = disk.inline ? null : new SyncGroup(disk.fd, loop, slots.count, this.#sticky, this);
    this.#zeroAddress = zeroAddress();
    this.#phase = new Uint8Array(slots.count);
    this.#operation = new Uint8Array(slots.count);
    this.#flags = new Uint8Array(slots.count);
    this.#mode = new Uint8Array(slots.count);
    this.#retries = new Uint8Array(slots.count);
    this.#generation = new Uint32Array(slots.count);
    this.#position = new Float64Array(slots.count);
    this.#end = new Float64Array(slots.count);
    this.#extentBytes = new Uint32Array(slots.count);
    this.#clients = new Array<BlockClient | null>(slots.count).fill(null);
  }

  submit(slot: number, operation: number, flags: number, client: BlockClient): number {
    if (this.#phase[slot] !== Phase.IDLE) throw new Error(`Slot ${slot} has a request already`);
    this.#operation[slot] = operation;
    this.#flags[slot] = flags;
    this.#position[slot] = this.slots.offset[slot];
    this.#end[slot] = this.slots.offset[slot] + this.slots.length[slot];
    this.#retries[slot] = 0;
    const status = this.#begin(slot, operation, flags);
    if (status === PENDING) this.#clients[slot] = client;
    return status;
  }

  extentBytes(slot: number): number {
    return this.#extentBytes[slot];
  }

  close(): void {
    this.#syncs?.close();
  }

  complete(slot: number, generation: number, result: number): void {
    if (generation !== this.#generation[slot]) throw new Error(`Slot ${slot} completed an operation twice`);
    if ((result === -Errno.EINTR || result === -Errno.EAGAIN) && this.#retries[slot] < RETRIES_MAX) {
      this.#retries[slot]++;
      this.#step(slot);
      return;
    }
    switch (this.#phase[slot]) {
      case Phase.FALLOCATE:
        this.#fallocated(slot, result);
        return;
      case Phase.ADVISE:
        // Advice that was not taken is no error.
        this.#advance(slot, PIECE_BYTES);
        return;
      case Phase.REWRITE:
        this.#rewritten(slot, result);
        return;
      default:
        this.#transferred(slot, result);
    }
  }

  onSynced(slot: number, status: number): void {
    this.#finish(slot, status);
  }

  /**
   * Describes the slot's range, from its start on, in extents in its payload area.
   *
   * @returns 0 or a negative errno
   */
  protected blockStatus(slot: number): number {
    const block = this.geometry.logicalBlock;
    let position = this.slots.offset[slot];
    const end = position + this.slots.length[slot];
    for (let count = 0; position < end && count < EXTENTS_MAX; count++) {
      const found = this.#loop.calls.lseek(this.#fd, position, Seek.DATA);
      // ENXIO: nothing but a hole from here on. EINVAL: the file system does not know; then all is data.
      const data = found === -Errno.ENXIO ? end : found === -Errno.EINVAL ? position : found;
      if (data < 0) return data;
      // A block that is partly data is data.
      const dataFrom = Math.min(end, data - data % block);
      if (dataFrom > position) {
        this.addExtent(slot, dataFrom - position, ExtentFlag.HOLE | ExtentFlag.ZERO);
        position = dataFrom;
        continue;
      }
      const hole = this.#loop.calls.lseek(this.#fd, position, Seek.HOLE);
      const dataEnd = hole < 0 ? end : Math.min(end, Math.max(position + block, Math.ceil(hole / block) * block));
      this.addExtent(slot, dataEnd - position, 0);
      position = dataEnd;
    }
    return 0;
  }

  /** Adds an extent to the slot's BLOCK_STATUS. */
  protected addExtent(slot: number, length: number, flags: number): void {
    const view = this.slots.arena.view;
    const at = this.slots.payloadAt(slot) + this.#extentBytes[slot];
    view.setUint32(at, length >>> 0, true);
    view.setUint32(at + 4, Math.floor(length / 2 ** 32), true);
    view.setUint32(at + 8, flags, true);
    view.setUint32(at + 12, 0, true);
    this.#extentBytes[slot] += EXTENT_BYTES;
  }

  #begin(slot: number, operation: number, flags: number): number {
    const length = this.slots.length[slot];
    const mutates = operation === Operation.WRITE || operation === Operation.DISCARD ||
      operation === Operation.WRITE_ZEROES;
    if (mutates && this.geometry.readOnly) return -Errno.EPERM;
    if (operation === Operation.FLUSH || mutates && (flags & RequestFlag.FUA) !== 0) {
      if (this.#sticky.status !== 0) return this.#sticky.status;
    }
    if (operation === Operation.FLUSH) {
      // In memory there is nothing to flush to.
      return this.#disk.inline ? 0 : this.#sync(slot);
    }
    if (operation === Operation.BLOCK_STATUS) {
      if (length === 0) return -Errno.EINVAL;
      this.#extentBytes[slot] = 0;
      return this.blockStatus(slot);
    }
    if (length === 0) return 0;
    switch (operation) {
      case Operation.READ:
        return this.#disk.inline ? this.#readNow(slot) : this.#queue(slot, Phase.READ);
      case Operation.WRITE:
        return this.#disk.inline ? this.#writeNow(slot) : this.#queue(slot, Phase.WRITE);
      case Operation.DISCARD:
        if (this.#punchUnsupported) return 0;
        this.#mode[slot] = PUNCH;
        return this.#queue(slot, Phase.FALLOCATE);
      case Operation.WRITE_ZEROES:
        return this.#chooseZeroes(slot) ? this.#queue(slot, this.#phase[slot]) : -Errno.EOPNOTSUPP;
      case Operation.CACHE:
        return this.#disk.inline ? 0 : this.#queue(slot, Phase.ADVISE);
      default:
        return -Errno.EINVAL;
    }
  }

  #queue(slot: number, phase: number): number {
    this.#phase[slot] = phase;
    this.#step(slot);
    return PENDING;
  }

  #readNow(slot: number): number {
    const offset = this.slots.offset[slot];
    const length = this.slots.length[slot];
    const at = this.slots.payloadAt(slot);
    for (let done = 0, retries = 0; done < length;) {
      const result = this.#loop.readNow(this.#fd, at + done, length - done, offset + done);
      if (result > 0) done += result;
      else if (result !== -Errno.EINTR || ++retries > RETRIES_MAX) return result === 0 ? -Errno.EIO : result;
    }
    return 0;
  }

  #writeNow(slot: number): number {
    const offset = this.slots.offset[slot];
    const length = this.slots.length[slot];
    const at = this.slots.payloadAt(slot);
    for (let done = 0, retries = 0; done < length;) {
      const result = this.#loop.writeNow(this.#fd, at + done, length - done, offset + done);
      if (result > 0) done += result;
      else if (result !== -Errno.EINTR || ++retries > RETRIES_MAX) return result === 0 ? -Errno.EIO : result;
    }
    return 0;
  }

  /** Chooses how the slot's range is zeroed and sets its phase; false: no way is fast enough. */
  #chooseZeroes(slot: number): boolean {
    const fast = (this.#flags[slot] & RequestFlag.FAST_ZERO) !== 0;
    const keep = (this.#flags[slot] & RequestFlag.NO_UNMAP) !== 0;
    if (!keep && !this.#punchUnsupported) {
      this.#mode[slot] = PUNCH;
      this.#phase[slot] = Phase.FALLOCATE;
    } else if (!this.#zeroRangeUnsupported && (!fast || this.#disk.fastAllocatedZero)) {
      this.#mode[slot] = ZERO_RANGE;
      this.#phase[slot] = Phase.FALLOCATE;
    } else if (!fast) {
      this.#phase[slot] = Phase.ZERO;
    } else {
      this.#phase[slot] = Phase.IDLE;
      return false;
    }
    return true;
  }

  /** Queues the next piece of the slot's request. */
  #step(slot: number): void {
    const generation = this.#generation[slot] = (this.#generation[slot] + 1) >>> 0;
    const position = this.#position[slot];
    const left = this.#end[slot] - position;
    const at = this.slots.payloadAt(slot) + position - this.slots.offset[slot];
    const kind = this.#dispatch.kind;
    this.#dispatch.claim(slot, this);
    switch (this.#phase[slot]) {
      case Phase.READ:
        this.#loop.read(this.#fd, at, left, position, kind, slot, generation);
        break;
      case Phase.WRITE: {
        const rwFlags = this.#isForced(slot) ? ReadWriteFlag.DSYNC : 0;
        this.#loop.write(this.#fd, at, left, position, rwFlags, kind, slot, generation);
        break;
      }
      case Phase.REWRITE:
        this.#loop.write(this.#fd, at, left, position, 0, kind, slot, generation);
        break;
      case Phase.ZERO: {
        const piece = Math.min(left, ZERO_AREA_BYTES);
        this.#loop.write(
          this.#fd,
          this.#zeroAddress - this.#loop.base,
          piece,
          position,
          0,
          kind,
          slot,
          generation,
        );
        break;
      }
      case Phase.FALLOCATE: {
        const piece = Math.min(left, PIECE_BYTES);
        this.#loop.fallocate(this.#fd, this.#mode[slot], position, piece, kind, slot, generation);
        break;
      }
      case Phase.ADVISE: {
        const piece = Math.min(left, PIECE_BYTES);
        this.#loop.fadvise(this.#fd, position, piece, Advice.WILLNEED, kind, slot, generation);
        break;
      }
      default:
        throw new Error(`Slot ${slot} has nothing to do`);
    }
  }

  /** A read or write of data or zeroes has ended. */
  #transferred(slot: number, result: number): void {
    const forced = this.#phase[slot] === Phase.WRITE && this.#isForced(slot);
    if (forced && (result === -Errno.ENOSPC || result === -Errno.EDQUOT)) {
      this.#phase[slot] = Phase.REWRITE;
      this.#step(slot);
      return;
    }
    // O_DIRECT goes on at a whole block only. Nothing transferred means that the file has become shorter.
    const whole = result - result % this.geometry.logicalBlock;
    if (whole > 0) {
      this.#advance(slot, whole);
      return;
    }
    const status = result < 0 ? result : -Errno.EIO;
    // The kernel may have added a flush, and that have failed.
    if (forced) this.#sticky.record(status);
    this.#finish(slot, status);
  }

  /**
   * A forced write met ENOSPC, and has been tried again as a plain one. If there is still no space, the write itself had
   * failed, before any flush: nothing that anybody relies on is lost, and once there is space all is well. But if it
   * goes now, the ENOSPC may have been that of a flush (a thin volume has run full), which is lost data.
   */
  #rewritten(slot: number, result: number): void {
    if (result < 0) {
      this.#finish(slot, result);
      return;
    }
    this.#sticky.record(-Errno.ENOSPC);
    this.#finish(slot, -Errno.ENOSPC);
  }

  #fallocated(slot: number, result: number): void {
    if (result === 0) {
      this.#advance(slot, PIECE_BYTES);
      return;
    }
    if (result !== -Errno.EOPNOTSUPP) {
      this.#finish(slot, result);
      return;
    }
    if (this.#mode[slot] === PUNCH) this.#punchUnsupported = true;
    else this.#zeroRangeUnsupported = true;
    if (this.#operation[slot] === Operation.DISCARD) this.#advance(slot, Infinity);
    else if (this.#chooseZeroes(slot)) this.#step(slot);
    else this.#finish(slot, -Errno.EOPNOTSUPP);
  }

  /** So many more bytes are done, or all that is left if that is less. */
  #advance(slot: number, bytes: number): void {
    this.#position[slot] += bytes;
    this.#retries[slot] = 0;
    if (this.#position[slot] < this.#end[slot]) {
      this.#step(slot);
      return;
    }
    if ((this.#flags[slot] & RequestFlag.FUA) === 0) {
      this.#finish(slot, 0);
      return;
    }
    switch (this.#operation[slot]) {
      case Operation.WRITE:
        if (this.#disk.forcesWrites) this.#finish(slot, this.#sticky.status);
        else this.#sync(slot);
        break;
      case Operation.DISCARD:
      case Operation.WRITE_ZEROES:
        if (this.#disk.inline) this.#finish(slot, 0);
        else this.#sync(slot);
        break;
      default:
        this.#finish(slot, 0);
    }
  }

  /** The slot's write is done with RWF_DSYNC. */
  #isForced(slot: number): boolean {
    return this.#disk.forcesWrites && (this.#flags[slot] & RequestFlag.FUA) !== 0;
  }

  #sync(slot: number): number {
    this.#phase[slot] = Phase.SYNC;
    this.#syncs!.request(slot);
    return PENDING;
  }

  #finish(slot: number, status: number): void {
    const client = this.#clients[slot]!;
    this.#clients[slot] = null;
    this.#phase[slot] = Phase.IDLE;
    client.onComplete(slot, status);
  }
}

/** Where the thread's area of zeroes is, once one was needed. All its back-ends use it, and nobody writes to it. */
let zeroArea = 0;

/** The absolute address of {@link ZERO_AREA_BYTES} of zeroes. Never written to, so all of it is the kernel's one page. */
function zeroAddress(): number {
  if (zeroArea === 0) {
    const mapping = Mapping.PRIVATE | Mapping.ANONYMOUS;
    zeroArea = check(mmap(ZERO_AREA_BYTES, Protection.READ, mapping, -1, 0), "map an area of zeroes");
  }
  return zeroArea;
}
