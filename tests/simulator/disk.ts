/**
 * The simulated disk: a file in a page cache over a device, which is slow, hangs, fails, and loses what was not synced
 * when the machine crashes.
 *
 * @module
 */
import type { Random } from "../../engine/random.ts";
import { FallocateMode, ReadWriteFlag, Seek } from "../../ffi/constants.ts";
import { Errno } from "../../ffi/errno.ts";
import type { Event, Events } from "./clock.ts";
import type { Counters } from "./counters.ts";

/** Bytes that a device writes whole or not at all. */
export const SECTOR_BYTES = 512;

const STUCK_MS = 30_000;

/** What the disk is like, for a while. Likelihoods are those of each operation. */
export interface DiskManner {
  /** The least time of a read or write, and how much more it may be, in ms. */
  delayMs: number;
  jitterMs: number;
  /** The same, of a sync. */
  syncMs: number;
  /** One that takes up to half a minute, while others go on. */
  stuck: number;
  /** A read or write that fails with EIO. */
  errors: number;
  /** A write that finds no space. */
  full: number;
  /** A read or write that does only a part. */
  short: number;
  /** Interrupted: EINTR or EAGAIN. */
  interrupted: number;
  /** A write-back that loses pages. */
  lost: number;
  /** A write after which the kernel writes some of the cache back by itself. */
  writeBack: number;
}

/** An open file description. */
export interface Description {
  /** How many failed write-backs it was told of. */
  errorsSeen: number;
}

export const DiskOperation = { READ: 0, WRITE: 1, SYNC: 2, FALLOCATE: 3, ADVISE: 4 } as const;

/** Whoever asked for an operation. */
export interface DiskCaller {
  /** The memory that a read fills and a write takes from. */
  readonly bytes: Uint8Array;
  complete(kind: number, tag: number, generation: number, result: number): void;
}

/** An operation under way. */
export class DiskRequest implements Event {
  /** The memory of a write whose process is gone. */
  snapshot: Uint8Array | null = null;
  isOrphan = false;
  startOrder = 0;

  constructor(
    readonly disk: Disk,
    readonly caller: DiskCaller,
    readonly description: Description,
    readonly operation: number,
    /** Arena offset; below 0 for zeroes. */
    readonly at: number,
    readonly bytes: number,
    readonly offset: number,
    readonly flags: number,
    readonly kind: number,
    readonly tag: number,
    readonly generation: number,
  ) {}

  fire(): void {
    this.disk.finish(this);
  }
}

/** A file on a disk. */
export class Disk {
  readonly size: number;
  readonly #sectors: number;
  readonly manner: DiskManner;
  readonly #events: Events;
  readonly #random: Random;
  readonly #counters: Counters;
  /** What is read. */
  readonly #cache: Uint8Array;
  /** What is left after a crash. */
  readonly #stable: Uint8Array;
  /** By sector: the number of the write whose bytes are not stable yet, or 0. */
  readonly #dirty: Uint32Array;
  /** Likewise, of the first write since it was stable. */
  readonly #dirtySince: Uint32Array;
  readonly #hole: Uint8Array;
  /** Sectors whose latest bytes were lost by a failed write-back: they count as clean. */
  readonly lost = new Set<number>();
  #order = 1;
  #errors = 0;
  #isErrorSeen = true;
  readonly #requests = new Set<DiskRequest>();
  #orphans = 0;
  #whenUnlocked: (() => void) | null = null;
  /** How often somebody was told of lost pages. */
  told = 0;
  /** Until when nothing completes. */
  hangsUntil = 0;
  /** FALLOC_FL_* modes that the file system does not have. */
  #unsupported = 0;

  constructor(size: number, events: Events, random: Random, counters: Counters, manner: DiskManner) {
    this.size = size;
    this.#sectors = size / SECTOR_BYTES;
    this.manner = manner;
    this.#events = events;
    this.#random = random;
    this.#counters = counters;
    this.#cache = new Uint8Array(size);
    this.#stable = new Uint8Array(size);
    this.#dirty = new Uint32Array(this.#sectors);
    this.#dirtySince = new Uint32Array(this.#sectors);
    this.#hole = new Uint8Array(this.#sectors).fill(1);
    if (random.below(8) === 0) this.#unsupported |= FallocateMode.PUNCH_HOLE;
    if (random.below(8) === 0) this.#unsupported |= FallocateMode.ZERO_RANGE;
  }

  /** Opens the file. */
  open(): Description {
    // A failure that nobody was told of yet is told to whoever comes.
    return { errorsSeen: this.#isErrorSeen ? this.#errors : this.#errors - 1 };
  }

  /** Begins an operation. */
  submit(request: DiskRequest): void {
    request.startOrder = this.#order;
    this.#requests.add(request);
    const { delayMs, jitterMs, syncMs } = this.manner;
    const isSync = request.operation === DiskOperation.SYNC || (request.flags & ReadWriteFlag.DSYNC) !== 0;
    let took = delayMs + this.#random.next() * jitterMs;
    if (isSync && request.operation !== DiskOperation.FALLOCATE) took += this.#random.next() * syncMs;
    if (this.#chance(this.manner.stuck)) took += this.#random.next() * STUCK_MS;
    this.#events.after(took, request);
  }

  /** @ignore by the event */
  finish(request: DiskRequest): void {
    if (!this.#requests.has(request)) return;
    if (this.#events.time < this.hangsUntil) {
      this.#events.at(this.hangsUntil + this.#random.next() * this.manner.jitterMs, request);
      return;
    }
    this.#requests.delete(request);
    const result = this.#execute(request);
    if (!request.isOrphan) {
      request.caller.complete(request.kind, request.tag, request.generation, result);
      return;
    }
    this.#counters.count("disk operations that landed after their process had died");
    this.#orphanGone();
  }

  /** The process with this memory has died. What it had begun may still be done, or not. */
  orphan(caller: DiskCaller): void {
    for (const request of this.#requests) {
      if (request.caller !== caller || request.isOrphan) continue;
      if (this.#random.below(3) === 0) {
        this.#requests.delete(request);
        continue;
      }
      request.isOrphan = true;
      if (request.operation === DiskOperation.WRITE && request.at >= 0) {
        request.snapshot = caller.bytes.slice(request.at, request.at + request.bytes);
      }
      this.#orphans++;
    }
  }

  /** Calls a function when nothing of dead processes is under way any more, now or later: as flock(2) does. */
  whenUnlocked(then: () => void): void {
    if (this.#orphans === 0) then();
    else this.#whenUnlocked = then;
  }

  /** The machine's power fails. */
  crash(): void {
    for (const request of this.#requests) this.#tear(request);
    this.#requests.clear();
    this.#orphans = 0;
    // The loop of the dead process's successor is gone with the machine.
    this.#whenUnlocked = null;
    this.hangsUntil = 0;
    const style = this.#random.below(4);
    /** What became of each write. */
    const fates = new Map<number, boolean>();
    let isTorn = false;
    let isLossy = false;
    for (let sector = 0; sector < this.#sectors; sector++) {
      const order = this.#dirty[sector];
      if (order === 0) continue;
      const before = fates.get(order);
      const keeps = style === 0 ? false : style === 1 && before !== undefined ? before : this.#random.below(2) === 0;
      if (before !== undefined && before !== keeps) isTorn = true;
      fates.set(order, keeps);
      if (keeps) this.#stabilize(sector);
      else isLossy = true;
    }
    this.#cache.set(this.#stable);
    this.#dirty.fill(0);
    this.#hole.fill(0);
    this.lost.clear();
    this.#isErrorSeen = true;
    if (isTorn) this.#counters.count("crashes that tore a write");
    if (isLossy) this.#counters.count("crashes that lost writes");
  }

  /** lseek(2) for data and holes. */
  seek(offset: number, whence: number): number {
    if (offset >= this.size) return -Errno.ENXIO;
    const wanted = whence === Seek.DATA ? 0 : 1;
    let sector = Math.floor(offset / SECTOR_BYTES);
    if (this.#hole[sector] === wanted) return offset;
    while (++sector < this.#sectors) if (this.#hole[sector] === wanted) return sector * SECTOR_BYTES;
    return wanted === 0 ? -Errno.ENXIO : this.size;
  }

  #orphanGone(): void {
    if (--this.#orphans > 0) return;
    const then = this.#whenUnlocked;
    this.#whenUnlocked = null;
    then?.();
  }

  #execute(request: DiskRequest): number {
    const { manner } = this;
    const { operation } = request;
    if (this.#chance(manner.interrupted)) return this.#random.below(2) === 0 ? -Errno.EINTR : -Errno.EAGAIN;
    switch (operation) {
      case DiskOperation.READ:
        return this.#read(request);
      case DiskOperation.WRITE:
        return this.#write(request);
      case DiskOperation.SYNC:
        this.#writeBack(0, this.#sectors, request.startOrder);
        return this.#takeError(request.description);
      case DiskOperation.FALLOCATE:
        return this.#zero(request);
      default:
        return 0;
    }
  }

  #read({ at, bytes, offset, caller, isOrphan }: DiskRequest): number {
    if (this.#chance(this.manner.errors)) {
      this.#counters.count("reads that failed");
      return -Errno.EIO;
    }
    const part = this.#chance(this.manner.short) ? 1 + this.#random.below(bytes) : bytes;
    const count = Math.min(part, this.size - offset);
    if (!isOrphan) caller.bytes.set(this.#cache.subarray(offset, offset + count), at);
    return count;
  }

  #write(request: DiskRequest): number {
    const { bytes, offset, flags, description } = request;
    if (this.#chance(this.manner.full)) {
      this.#counters.count("writes that found no space");
      return -Errno.ENOSPC;
    }
    const isFailing = this.#chance(this.manner.errors);
    const sectors = bytes / SECTOR_BYTES;
    // In whole sectors: a block that was written in part only could not be made whole after a crash by anybody.
    let count = bytes;
    if (isFailing) count = SECTOR_BYTES * this.#random.below(sectors + 1);
    else if (this.#chance(this.manner.short)) count = SECTOR_BYTES * (1 + this.#random.below(sectors));
    this.#put(request, 0, count);
    if (isFailing) {
      this.#counters.count("writes that failed");
      return -Errno.EIO;
    }
    if ((flags & ReadWriteFlag.DSYNC) !== 0) {
      const end = Math.ceil((offset + count) / SECTOR_BYTES);
      this.#writeBack(Math.floor(offset / SECTOR_BYTES), end, this.#order + 1);
      const error = this.#takeError(description);
      if (error !== 0) return error;
    } else if (this.#chance(this.manner.writeBack)) {
      for (let sector = 0; sector < this.#sectors; sector++) {
        if (this.#random.below(4) === 0) this.#writeBack(sector, sector + 1, this.#order + 1);
      }
    }
    return count;
  }

  #zero({ flags, offset, bytes }: DiskRequest): number {
    if ((flags & this.#unsupported) !== 0) return -Errno.EOPNOTSUPP;
    if (this.#chance(this.manner.errors)) return -Errno.EIO;
    const isHole = (flags & FallocateMode.PUNCH_HOLE) !== 0;
    const order = this.#order++;
    const end = Math.min(offset + bytes, this.size);
    for (let from = offset; from < end; from += SECTOR_BYTES) {
      const sector = from / SECTOR_BYTES;
      this.#cache.fill(0, from, from + SECTOR_BYTES);
      this.#touch(sector, order);
      if (isHole) this.#hole[sector] = 1;
    }
    return 0;
  }

  /** Bytes of a write reach the cache. */
  #put(request: DiskRequest, from: number, to: number): void {
    if (to <= from) return;
    const { at, offset, snapshot, caller } = request;
    const order = this.#order++;
    const first = Math.floor((offset + from) / SECTOR_BYTES);
    const last = Math.floor((offset + to - 1) / SECTOR_BYTES);
    for (let sector = first; sector <= last; sector++) {
      // The kernel may have written the older bytes back by now.
      if (this.#dirty[sector] !== 0 && this.#random.below(4) === 0) this.#stabilize(sector);
      this.#touch(sector, order);
    }
    if (at < 0) this.#cache.fill(0, offset + from, offset + to);
    else if (snapshot !== null) this.#cache.set(snapshot.subarray(from, to), offset + from);
    else this.#cache.set(caller.bytes.subarray(at + from, at + to), offset + from);
  }

  #touch(sector: number, order: number): void {
    if (this.#dirty[sector] === 0) this.#dirtySince[sector] = order;
    this.#dirty[sector] = order;
    this.#hole[sector] = 0;
    this.lost.delete(sector);
  }

  #stabilize(sector: number): void {
    const at = sector * SECTOR_BYTES;
    this.#stable.set(this.#cache.subarray(at, at + SECTOR_BYTES), at);
    this.#dirty[sector] = 0;
  }

  /** Writes dirty sectors back that were written before the order, and perhaps others; or loses some. */
  #writeBack(first: number, end: number, before: number): void {
    const isFailing = this.#chance(this.manner.lost);
    let hasLost = false;
    for (let sector = first; sector < end; sector++) {
      if (this.#dirty[sector] === 0) continue;
      if (this.#dirtySince[sector] >= before && this.#random.below(2) === 0) continue;
      if (isFailing && this.#random.below(3) > 0) {
        this.#dirty[sector] = 0;
        this.lost.add(sector);
        hasLost = true;
      } else {
        this.#stabilize(sector);
      }
    }
    if (!hasLost) return;
    this.#errors++;
    this.#isErrorSeen = false;
    this.#counters.count("write-backs that lost pages");
  }

  /** A failed write-back is told once to each description. */
  #takeError(description: Description): number {
    if (description.errorsSeen === this.#errors) return 0;
    description.errorsSeen = this.#errors;
    this.#isErrorSeen = true;
    this.told++;
    return -Errno.EIO;
  }

  /** Of what was under way when the power failed, any sectors are there. */
  #tear(request: DiskRequest): void {
    const { operation, bytes } = request;
    if (operation === DiskOperation.WRITE) {
      for (let from = 0; from < bytes; from += SECTOR_BYTES) {
        if (this.#random.below(2) === 0) this.#put(request, from, Math.min(from + SECTOR_BYTES, bytes));
      }
    } else if (operation === DiskOperation.FALLOCATE && this.#random.below(2) === 0) {
      this.#zero(request);
    } else if (operation === DiskOperation.SYNC) {
      for (let sector = 0; sector < this.#sectors; sector++) {
        if (this.#dirty[sector] !== 0 && this.#random.below(2) === 0) this.#stabilize(sector);
      }
    }
  }

  #chance(likelihood: number): boolean {
    return likelihood > 0 && this.#random.next() < likelihood;
  }
}
