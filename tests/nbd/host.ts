/**
 * For the tests: a host with a sparse disk in memory and a stream, both of which do things as late and as out of order
 * as a real one may; and the client's half of the protocol. It checks what a host relies on: that a slot has one owner,
 * that nothing uses a slot that was given back, and that verdicts are those of the contract.
 *
 * @module
 */
import assert from "node:assert/strict";
import { HEADER_BYTES_MAX, Verdict } from "../../protocol/consumer.ts";
import { EXTENT_BYTES, ExtentFlag, Operation, PENDING } from "../../protocol/request.ts";
import {
  NBD_PREFIX_BYTES,
  type NbdExport,
  type NbdHost,
  type NbdRefusal,
  OPEN_PENDING,
} from "../../protocol/nbd/host.ts";
import { NBD_SCRATCH_BYTES, NbdServer } from "../../protocol/nbd/server.ts";
import { OptionReply } from "../../protocol/nbd/wire.ts";

/** Small slots, so that long requests have many parts. */
export const SLOT_BYTES = 65536;
const DISK_BLOCK = 65536;

/** A small random generator (mulberry32): numbers in [0, 1) from a 32-bit seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 0x100000000;
  };
}

/** A disk that only keeps what was written. */
export class SparseDisk {
  readonly #blocks = new Map<number, Uint8Array>();

  write(offset: number, data: Uint8Array): void {
    for (let done = 0; done < data.length;) {
      const index = Math.floor((offset + done) / DISK_BLOCK);
      const at = offset + done - index * DISK_BLOCK;
      const bytes = Math.min(DISK_BLOCK - at, data.length - done);
      let block = this.#blocks.get(index);
      if (block === undefined) this.#blocks.set(index, block = new Uint8Array(DISK_BLOCK));
      block.set(data.subarray(done, done + bytes), at);
      done += bytes;
    }
  }

  read(offset: number, bytes: number): Uint8Array {
    const data = new Uint8Array(bytes);
    for (let done = 0; done < bytes;) {
      const index = Math.floor((offset + done) / DISK_BLOCK);
      const at = offset + done - index * DISK_BLOCK;
      const part = Math.min(DISK_BLOCK - at, bytes - done);
      const block = this.#blocks.get(index);
      if (block !== undefined) data.set(block.subarray(at, at + part), done);
      done += part;
    }
    return data;
  }
}

/** One request as the disk saw it. */
export interface Executed {
  readonly operation: number;
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
}

/** How the host behaves. */
export interface TestHostOptions {
  readonly exported?: Partial<NbdExport>;
  readonly slots?: number;
  /** Requests end, and sends finish, later and in random order (of this seed). Without: at once. */
  readonly seed?: number;
  /** A status for a request instead of doing it. */
  readonly fault?: (request: Executed) => number;
  /** What BLOCK_STATUS says: lengths and flags. Without: one extent of data as long as asked. */
  readonly extents?: readonly (readonly [length: number, flags: number])[];
  readonly openPending?: boolean;
  readonly exports?: readonly { readonly name: string; readonly description: string }[];
}

/** Host, disk and stream of one connection, with the server on it. */
export class TestHost implements NbdHost {
  readonly server: NbdServer;
  readonly disk = new SparseDisk();
  readonly executed: Executed[] = [];
  readonly opens: { name: string; enter: boolean }[] = [];
  readonly exported: NbdExport;
  /** The server has closed (after its last words), or cut, the connection. */
  closed = false;
  cut = false;
  /** While true nothing is sent: slots and replies stay where they are. */
  peerStalls = false;
  readonly slots: number;

  readonly #options: TestHostOptions;
  readonly #random: (() => number) | null;
  readonly #memory: { bytes: Uint8Array; view: DataView };
  readonly #free: number[] = [];
  readonly #pending: { slot: number; request: Executed }[] = [];
  readonly #extentBytes: number[] = [];
  readonly #queue: { at: number; bytes: number; slot: number }[] = [];
  readonly #output: Uint8Array[] = [];
  #input = new Uint8Array(0);
  #payloadLeft = -1;
  #opening: string | null = null;

  constructor(options: TestHostOptions = {}) {
    this.#options = options;
    this.#random = options.seed === undefined ? null : randomFrom(options.seed);
    this.slots = options.slots ?? 4;
    const bytes = HEADER_BYTES_MAX + NBD_SCRATCH_BYTES + this.slots * (NBD_PREFIX_BYTES + SLOT_BYTES);
    const buffer = new ArrayBuffer(bytes);
    this.#memory = { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    for (let slot = 0; slot < this.slots; slot++) this.#free.push(slot);
    this.exported = {
      name: "disk",
      description: "",
      size: 1 << 20,
      minimumBlock: 1,
      preferredBlock: 4096,
      readOnly: false,
      canTrim: true,
      fastZero: true,
      multiConn: true,
      ...options.exported,
    };
    const scratchAt = HEADER_BYTES_MAX;
    this.server = new NbdServer({
      memory: this.#memory,
      host: this,
      slots: this.slots,
      slotBytes: SLOT_BYTES,
      scratchAt,
    });
    this.server.start();
    this.run();
  }

  // ---- NbdHost ----

  listExports(): readonly { readonly name: string; readonly description: string }[] {
    return this.#options.exports ?? [this.exported];
  }

  openExport(name: string, enter: boolean): NbdExport | NbdRefusal | typeof OPEN_PENDING {
    this.opens.push({ name, enter });
    if (this.#options.openPending !== true) return this.#find(name);
    this.#opening = name;
    return OPEN_PENDING;
  }

  transmit(at: number, bytes: number, slot: number): void {
    assert(bytes > 0 && at >= HEADER_BYTES_MAX && at + bytes <= this.#memory.bytes.length);
    if (slot >= 0) {
      assert(!this.#free.includes(slot), "a transmitted slot is taken");
      assert(!this.#pending.some((entry) => entry.slot === slot), "a transmitted slot does not execute");
      assert(at >= this.payloadAt(slot) - NBD_PREFIX_BYTES && at + bytes <= this.payloadAt(slot) + SLOT_BYTES);
    }
    this.#queue.push({ at, bytes, slot });
  }

  takeSlot(): number {
    return this.#free.pop() ?? -1;
  }

  releaseSlot(slot: number): void {
    assert(slot >= 0 && slot < this.slots && !this.#free.includes(slot), "a slot is given back once");
    assert(!this.#pending.some((entry) => entry.slot === slot), "a slot that executes is not given back");
    assert(!this.#queue.some((entry) => entry.slot === slot), "a slot that is being sent is not given back");
    const at = this.payloadAt(slot);
    this.#memory.bytes.fill(0xee, at - NBD_PREFIX_BYTES, at + SLOT_BYTES);
    this.#free.push(slot);
  }

  payloadAt(slot: number): number {
    return HEADER_BYTES_MAX + NBD_SCRATCH_BYTES + slot * (NBD_PREFIX_BYTES + SLOT_BYTES) + NBD_PREFIX_BYTES;
  }

  execute(slot: number, operation: number, offset: number, length: number, flags: number): number {
    assert(!this.#free.includes(slot), "an executing slot is taken");
    assert(offset >= 0 && offset + length <= this.exported.size);
    const request = { operation, offset, length, flags };
    this.executed.push(request);
    if (this.#random === null || this.#random() < 0.3) return this.#do(slot, request);
    this.#pending.push({ slot, request });
    return PENDING;
  }

  extentBytes(slot: number): number {
    return this.#extentBytes[slot];
  }

  disconnect(): void {
    this.cut = true;
  }

  // ---- Driving it ----

  /** Slots that are free. */
  get freeSlots(): number {
    return this.#free.length;
  }

  /** Whether bytes of the client are left that the server has not taken. */
  get hasInput(): boolean {
    return this.#input.length > 0;
  }

  /** Whether the server has something to take that it does not take. Never, once everything that can happen has. */
  get isStuck(): boolean {
    if (this.closed || this.cut) return false;
    return this.#payloadLeft === 0 || (this.#payloadLeft < 0 && this.#input.length >= this.server.headerBytes);
  }

  /** All that the server has sent since the last call. */
  takeOutput(): Uint8Array {
    return concat(...this.#output.splice(0));
  }

  /** Gives the server bytes in pieces of the given size (0: random sizes, by the seed 1) and lets everything happen. */
  feed(bytes: Uint8Array, piece = bytes.length): void {
    const random = randomFrom(1);
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + (piece > 0 ? piece : 1 + Math.floor(random() * 200)));
      this.#input = concat(this.#input, bytes.subarray(at, end));
      at = end;
      this.run();
    }
  }

  /** Gives the server bytes, and only lets some things happen. */
  feedWithoutCompleting(bytes: Uint8Array): void {
    this.#input = concat(this.#input, bytes);
    for (let i = 0; i < 3; i++) {
      this.#feedAll();
      if (!this.peerStalls) this.#sendSome();
    }
  }

  /** Lets everything happen that can. */
  run(): void {
    for (;;) {
      this.#feedAll();
      if (this.#pending.length === 0 && (this.#queue.length === 0 || this.peerStalls) && this.#opening === null) return;
      this.#completeSome();
      if (!this.peerStalls) this.#sendSome();
      if (this.#opening !== null) {
        this.server.opened(this.#find(this.#opening));
        this.#opening = null;
      }
    }
  }

  /** The client is gone: afterwards every slot must be free again. */
  hangUp(): void {
    this.cut = true;
    this.server.abandon();
    for (const { slot } of this.#queue.splice(0)) if (slot >= 0) this.releaseSlot(slot);
    assert.equal(this.server.executing, this.#pending.length);
    while (this.#pending.length > 0) this.#completeSome();
    assert.equal(this.server.executing, 0);
    assert.equal(this.#free.length, this.slots);
  }

  #find(name: string): NbdExport | NbdRefusal {
    if (name === "" || name === this.exported.name) return this.exported;
    if (name === "held") return { refused: OptionReply.ERR_POLICY, message: "held by another" };
    return { refused: OptionReply.ERR_UNKNOWN, message: `there is no export "${name}"` };
  }

  #feedAll(): void {
    while (!this.closed && !this.cut && this.#step());
  }

  #step(): boolean {
    let verdict: Verdict;
    if (this.#payloadLeft >= 0) {
      const { payloadAt, payloadBytes } = this.server;
      const bytes = Math.min(this.#payloadLeft, this.#input.length);
      if (payloadAt >= 0) {
        this.#memory.bytes.set(this.#input.subarray(0, bytes), payloadAt + payloadBytes - this.#payloadLeft);
      }
      this.#input = this.#input.subarray(bytes);
      this.#payloadLeft -= bytes;
      if (this.#payloadLeft > 0) return false;
      verdict = this.server.onPayload();
      assert.notEqual(verdict, Verdict.PAYLOAD);
      if (verdict === Verdict.WAIT) return false;
      this.#payloadLeft = -1;
    } else {
      const headerBytes = this.server.headerBytes;
      assert(headerBytes >= 1 && headerBytes <= HEADER_BYTES_MAX);
      if (this.#input.length < headerBytes) return false;
      this.#memory.bytes.set(this.#input.subarray(0, headerBytes), 0);
      verdict = this.server.onHeader(0);
      this.#memory.bytes.fill(0xdd, 0, HEADER_BYTES_MAX);
      if (verdict === Verdict.WAIT) return false;
      this.#input = this.#input.subarray(headerBytes);
      if (verdict === Verdict.PAYLOAD) {
        this.#payloadLeft = this.server.payloadBytes;
        assert(Number.isInteger(this.#payloadLeft) && this.#payloadLeft >= 1);
      }
    }
    assert([Verdict.NEXT, Verdict.PAYLOAD, Verdict.CLOSE].includes(verdict as never));
    if (verdict === Verdict.CLOSE) this.closed = true;
    return true;
  }

  #completeSome(): void {
    let count = Math.min(this.#pending.length, 1 + Math.floor(this.#random === null ? 0 : this.#random() * 3));
    while (count-- > 0) {
      const index = this.#random === null ? 0 : Math.floor(this.#random() * this.#pending.length);
      const { slot, request } = this.#pending.splice(index, 1)[0];
      this.server.complete(slot, this.#do(slot, request));
    }
  }

  #sendSome(): void {
    let count = this.#random === null ? this.#queue.length : Math.ceil(this.#random() * this.#queue.length);
    while (count-- > 0 && !this.cut) {
      const { at, bytes, slot } = this.#queue.shift()!;
      this.#output.push(this.#memory.bytes.slice(at, at + bytes));
      if (slot >= 0) this.releaseSlot(slot);
      else this.server.sent();
    }
    // What was queued on a connection that was cut is never sent.
    if (this.cut) { for (const { slot } of this.#queue.splice(0)) if (slot >= 0) this.releaseSlot(slot); }
  }

  #do(slot: number, request: Executed): number {
    const status = this.#options.fault?.(request) ?? 0;
    if (status !== 0) return status;
    const { operation, offset, length } = request;
    const at = this.payloadAt(slot);
    if (operation === Operation.READ) this.#memory.bytes.set(this.disk.read(offset, length), at);
    if (operation === Operation.WRITE) this.disk.write(offset, this.#memory.bytes.slice(at, at + length));
    if (operation === Operation.WRITE_ZEROES) this.disk.write(offset, new Uint8Array(Math.min(length, 1 << 20)));
    if (operation === Operation.BLOCK_STATUS) this.#writeExtents(slot, at, length);
    return 0;
  }

  #writeExtents(slot: number, at: number, length: number): void {
    const extents = this.#options.extents ?? [[length, 0]];
    extents.forEach(([bytes, flags], index) => {
      const view = this.#memory.view;
      view.setUint32(at + index * EXTENT_BYTES, bytes >>> 0, true);
      view.setUint32(at + index * EXTENT_BYTES + 4, Math.floor(bytes / 0x100000000), true);
      view.setUint32(at + index * EXTENT_BYTES + 8, flags & (ExtentFlag.HOLE | ExtentFlag.ZERO), true);
      view.setUint32(at + index * EXTENT_BYTES + 12, 0, true);
    });
    this.#extentBytes[slot] = extents.length * EXTENT_BYTES;
  }
}

/** The pieces one after the other. */
export function concat(...pieces: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Bytes from hexadecimal; spaces don't count. */
export function fromHex(hex: string): Uint8Array {
  const digits = hex.replace(/\s+/g, "");
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

/** Bytes as lowercase hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
