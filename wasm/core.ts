/**
 * The loader of the Rust core. A {@link Core} is one instance of it with one memory, which is all the memory of a
 * Worker's data path: the kernel, the digests and the protocol work on the same bytes.
 *
 * @module
 */
import type * as Generated from "./pkg/dst_core_bg.wasm.d.ts";

/** Bytes of a WebAssembly page: memories are multiples of it. */
const PAGE_BYTES = 65536;
/**
 * The largest memory: one page below the 4 GiB that 32-bit addresses reach, so that the end of every range is itself an
 * unsigned 32-bit number.
 */
export const MEMORY_BYTES_MAX = 2 ** 32 - PAGE_BYTES;
/** The most bytes of one digest: the core's lengths are signed 32-bit where it makes slices of them. */
export const DIGEST_INPUT_BYTES_MAX = 2 ** 31 - 1;
/** What a digest writes: CRC-32C is followed by four zero bytes, so that all digests that fit have one size. */
export const DIGEST_BYTES = 8;
/** User-space addresses end here on x86-64 (four-level page tables) and on aarch64 with 48-bit addresses and below. */
const ADDRESS_END = 2 ** 47;

/** How often {@link Core.warmUp} digests each of its lengths: measured, the double of what it takes. */
const WARM_UP_ROUNDS = 200;
/** A header, a block, and a payload large enough for every stage of a kernel. */
const WARM_UP_LENGTHS = [64, 4096, 65536] as const;

/** Compiled once per isolate; V8 shares the machine code among the isolates of a process. */
let compiled: WebAssembly.Module | undefined;

function instantiate(): typeof Generated {
  compiled ??= new WebAssembly.Module(Deno.readFileSync(new URL("./pkg/dst_core_bg.wasm", import.meta.url)));
  return new WebAssembly.Instance(compiled).exports as unknown as typeof Generated;
}

/**
 * One instance of the core, alone with its memory; fits `Arena` of `engine/slots.ts`. All offsets are in the memory,
 * and the core itself lives below {@link freeFrom}.
 *
 * Keep it reachable for as long as anything uses the memory. The kernel's use does not count: a memory that nothing in
 * JavaScript refers to is unmapped by the garbage collector, also while a system call or a ring writes to it.
 *
 * @example
 * ```ts
 * import { makeArena } from "./core.ts";
 *
 * const arena = makeArena(16 * 1024 * 1024);
 * const at = arena.freeFrom;
 * arena.bytes.set(new TextEncoder().encode("123456789"), at + 8);
 * arena.crc32c(at + 8, 9, at);
 * console.log(arena.view.getUint32(at, true).toString(16)); // e3069283
 * ```
 */
export class Core {
  /**
   * The whole memory in bytes. Ask this, not `bytes.length` or `view.byteLength`, wherever the memory may be larger
   * than 2 GiB: in code that V8 15.0 has compiled with its middle compiler (Maglev) those come out 2^32 too small then.
   * Elements and DataView accesses are right at every offset.
   */
  readonly size: number;
  /** The whole memory. Never grows, so it and {@link view} stay valid. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same bytes, for numbers on the wire. */
  readonly view: DataView<ArrayBuffer>;
  /** The absolute address of offset 0: page-aligned, below 2^47. */
  readonly address: number;
  /** Offset of the first byte that the core itself does not use, a multiple of 4096. */
  readonly freeFrom: number;
  /**
   * What the core exports, for the modules beside this one. It trusts its arguments: a wrong one overwrites the core's
   * own tables. Ask {@link holds} before.
   */
  readonly exports: typeof Generated;

  /**
   * Makes the instance and its memory.
   *
   * @param bytes how large the whole memory is to be at least; rounded up to 64 KiB
   * @throws RangeError if that is no length, more than {@link MEMORY_BYTES_MAX}, too little for the core itself, or
   * more than the machine gives
   */
  constructor(bytes: number) {
    if (!Number.isSafeInteger(bytes) || bytes < 1 || bytes > MEMORY_BYTES_MAX) {
      throw new RangeError(`Cannot make a memory of ${bytes} bytes: it must have 1 to ${MEMORY_BYTES_MAX}`);
    }
    this.exports = instantiate();
    const { memory } = this.exports;
    this.freeFrom = this.exports.free_from();
    const pages = Math.ceil(bytes / PAGE_BYTES);
    const ownPages = memory.buffer.byteLength / PAGE_BYTES;
    if (pages < ownPages) {
      const least = (ownPages - 1) * PAGE_BYTES + 1;
      throw new RangeError(`Cannot make a memory of ${bytes} bytes: the core itself needs it to have ${least}`);
    }
    try {
      // The one time that it grows: it may move here, and every view made before would be empty afterwards.
      memory.grow(pages - ownPages);
    } catch (error) {
      throw new RangeError(`Cannot make a memory of ${bytes} bytes: the machine does not give it`, { cause: error });
    }
    this.size = pages * PAGE_BYTES;
    this.bytes = new Uint8Array(memory.buffer as ArrayBuffer);
    this.view = new DataView(this.bytes.buffer);
    this.address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.bytes)));
    if (this.address % 4096 !== 0 || this.address >= ADDRESS_END) {
      throw new RangeError(`Cannot use a memory at address ${this.address}: it must be page-aligned and below 2^47`);
    }
  }

  /**
   * CRC-32C (RFC 3720) of the bytes: four bytes little-endian, then four of zero.
   *
   * @param at offset of the bytes
   * @param length how many, at most {@link DIGEST_INPUT_BYTES_MAX}
   * @param outAt offset of the {@link DIGEST_BYTES} written, which may overlap the input
   * @throws RangeError if one of the ranges is not in the free area
   */
  crc32c(at: number, length: number, outAt: number): void {
    this.#check(at, length, outAt);
    this.exports.crc32c(at, length, outAt);
  }

  /** {@link crc32c} by the same kernel without SIMD, to be compared with. */
  crc32cPortable(at: number, length: number, outAt: number): void {
    this.#check(at, length, outAt);
    this.exports.crc32c_portable(at, length, outAt);
  }

  /**
   * XXH64 with seed 0 of the bytes: eight bytes little-endian.
   *
   * @param at offset of the bytes
   * @param length how many, at most {@link DIGEST_INPUT_BYTES_MAX}
   * @param outAt offset of the {@link DIGEST_BYTES} written, which may overlap the input
   * @throws RangeError if one of the ranges is not in the free area
   */
  xxh64(at: number, length: number, outAt: number): void {
    this.#check(at, length, outAt);
    this.exports.xxh64(at, length, outAt);
  }

  /**
   * Makes V8 compile the core with its optimizing compiler, which it does on a background thread after some
   * milliseconds of work; until then digests run at a tenth to a half of their speed. Takes about 6 ms. To be called
   * once a Worker, before the first I/O; the memory is left as it was.
   */
  warmUp(): void {
    const at = this.freeFrom;
    if (at + DIGEST_BYTES > this.size) return;
    const free = this.size - at;
    const before = this.view.getBigUint64(at, true);
    for (let round = 0; round < WARM_UP_ROUNDS; round++) {
      for (let index = 0; index < WARM_UP_LENGTHS.length; index++) {
        const length = Math.min(WARM_UP_LENGTHS[index], free);
        this.crc32c(at, length, at);
        this.xxh64(at, length, at);
      }
    }
    this.view.setBigUint64(at, before, true);
  }

  /**
   * Whether the bytes lie in the free area.
   *
   * @param at an offset, or any other number
   * @param length at most {@link DIGEST_INPUT_BYTES_MAX}
   */
  holds(at: number, length: number): boolean {
    return at >= this.freeFrom && length >= 0 && length <= DIGEST_INPUT_BYTES_MAX && at + length <= this.size;
  }

  #check(at: number, length: number, outAt: number): void {
    if (!this.holds(at, length) || !this.holds(outAt, DIGEST_BYTES)) {
      throw new RangeError(
        `Cannot digest ${length} bytes at ${at} to ${outAt}: the free area is from ${this.freeFrom} to ${this.size}`,
      );
    }
  }
}

/** A new instance of the core with a memory of its own of at least that many bytes: see {@link Core}. */
export function makeArena(bytes: number): Core {
  return new Core(bytes);
}
