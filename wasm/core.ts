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
/** The longest range: the core's lengths are signed 32-bit where it makes slices of them. */
const RANGE_BYTES_MAX = 2 ** 31 - 1;
/** User-space addresses end here on x86-64 (four-level page tables) and on aarch64 with 48-bit addresses and below. */
const ADDRESS_END = 2 ** 47;

/** How long {@link Core.warmUp} goes on: measured, until the slowest to be compiled is. */
const WARM_UP_ROUNDS = 300;
/** How many of the rounds each algorithm takes part in, by the numbers that the core knows them by: as it needs. */
const WARM_UP_ALGORITHMS: readonly (readonly [algorithm: number, rounds: number])[] = [
  [1, WARM_UP_ROUNDS],
  [2, WARM_UP_ROUNDS],
  [3, 60],
  [4, 30],
  [256 + 1, WARM_UP_ROUNDS],
];
/** Where warming up has what it works on, behind a guard's state: keys, a nonce, a tag, a prefix, a payload. */
const WarmUpAt = { KEYS: 960, NONCE: 1024, TAG: 1088, PREFIX: 1152, PAYLOAD: 1280 } as const;
/** A block of a disk, enough for every stage of a kernel but for CRC-32C's, which has one more from 20 KiB on. */
const WARM_UP_BYTES = 4096;
const WARM_UP_CRC32C_BYTES = 24576;

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
 * arena.warmUp();
 * arena.bytes.set(new TextEncoder().encode("anything"), arena.freeFrom);
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
   * Makes V8 compile the core with its optimizing compiler, which it does on a background thread after some
   * milliseconds of work; until then guards run at a tenth to a half of their speed. Takes about 12 ms the first time in
   * a process. To be called once a Worker, before the first I/O; the memory is left as it was.
   */
  warmUp(): void {
    const at = this.freeFrom;
    const end = at + WarmUpAt.PAYLOAD + WARM_UP_CRC32C_BYTES;
    if (end > this.size) return;
    const before = this.bytes.slice(at, end);
    for (let round = 0; round < WARM_UP_ROUNDS; round++) {
      for (let index = 0; index < WARM_UP_ALGORITHMS.length; index++) {
        const [algorithm, rounds] = WARM_UP_ALGORITHMS[index];
        if (round < rounds) this.#work(algorithm, at);
      }
    }
    this.bytes.set(before, at);
    this.exports.wipe_stack();
  }

  /** Seals and opens a frame, whatever the memory holds: tags that are wrong take as long. */
  #work(algorithm: number, at: number): void {
    const core = this.exports;
    const nonceAt = at + WarmUpAt.NONCE;
    const tagAt = at + WarmUpAt.TAG;
    const payloadAt = at + WarmUpAt.PAYLOAD;
    core.guard_set_keys(algorithm, at, at + WarmUpAt.KEYS);
    core.guard_seal(algorithm, at, nonceAt, payloadAt, payloadAt, WARM_UP_BYTES, tagAt);
    core.guard_seal_header(algorithm, at, nonceAt, at + WarmUpAt.PREFIX);
    core.guard_open_header(algorithm, at, nonceAt, at + WarmUpAt.PREFIX);
    core.guard_open(algorithm, at, nonceAt, payloadAt, WARM_UP_BYTES, tagAt);
    if (algorithm === 1) core.guard_open(algorithm, at, nonceAt, payloadAt, WARM_UP_CRC32C_BYTES, tagAt);
  }

  /**
   * Whether the bytes lie in the free area.
   *
   * @param at an offset, or any other number
   * @param length at most 2^31 - 1
   */
  holds(at: number, length: number): boolean {
    return at >= this.freeFrom && length >= 0 && length <= RANGE_BYTES_MAX && at + length <= this.size;
  }
}

/** A new instance of the core with a memory of its own of at least that many bytes: see {@link Core}. */
export function makeArena(bytes: number): Core {
  return new Core(bytes);
}
