/**
 * Copying from standard input, whose size is known only at its end.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { formatSize } from "../engine/size.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import { errnoMessage } from "../ffi/errno.ts";
import { turnDuring } from "./copy_stream.ts";
import { turnUntil } from "./local_engine.ts";

/** How to copy from standard input. */
export interface InputOptions {
  readonly engine: Engine;
  /** A disk, or the path of an empty file. */
  readonly destination: string | { readonly name: string; readonly device: BlockDevice; readonly size: number };
  /** Writes at a time: as many slots are taken. */
  readonly depth: number;
  readonly signal: AbortSignal;
  /** Gets all bytes, in order. They are only valid during the call. */
  onBytes(bytes: Uint8Array): void;
  /** @param done bytes that were read */
  onProgress(done: number): void;
}

/** What came. */
export interface InputResult {
  /** In bytes. */
  readonly size: number;
  /** Bytes that were written: pieces of zeroes make holes in a file. */
  readonly moved: number;
  /** The last bytes, which are no whole block of the disk and not written yet. */
  readonly tail: Uint8Array;
}

/** A piece of zeroes, to compare with. */
const zeroes = new Uint8Array(SLOT_PAYLOAD_BYTES);

/**
 * Copies standard input to its end.
 *
 * @throws {Error} why it could not be written; the signal's reason
 */
export function copyFromInput(options: InputOptions): Promise<InputResult> {
  return typeof options.destination === "string" ? toFile(options, options.destination) : toDisk(options);
}

async function toFile(options: InputOptions, path: string): Promise<InputResult> {
  const piece = new Uint8Array(SLOT_PAYLOAD_BYTES);
  using file = await Deno.open(path, { write: true });
  let size = 0;
  let moved = 0;
  for (;;) {
    const bytes = await fill(options, piece);
    if (bytes === 0) break;
    const whole = piece.subarray(0, bytes);
    options.onBytes(whole);
    if (Buffer.compare(whole, zeroes.subarray(0, bytes)) !== 0) {
      await file.seek(size, Deno.SeekMode.Start);
      for (let written = 0; written < bytes;) written += await file.write(whole.subarray(written));
      moved += bytes;
    }
    size += bytes;
    options.onProgress(size);
    if (bytes < piece.length) break;
  }
  // A hole at the end is made by the size.
  await file.truncate(size);
  await file.sync();
  return { size, moved, tail: new Uint8Array(0) };
}

async function toDisk(options: InputOptions): Promise<InputResult> {
  const { engine, depth } = options;
  const { name, device, size: room } = options.destination as Exclude<InputOptions["destination"], string>;
  const writes = new Writes(engine, device, depth);
  const block = device.geometry.logicalBlock;
  const chunk = SLOT_PAYLOAD_BYTES - SLOT_PAYLOAD_BYTES % block;
  let size = 0;
  try {
    for (;;) {
      await turnUntil(engine, () => writes.hasRoom || writes.failure < 0, options.signal);
      if (writes.failure < 0) break;
      const slot = writes.take();
      const at = engine.slots.payloadAt(slot);
      const piece = engine.arena.bytes.subarray(at, at + chunk);
      const bytes = await fill(options, piece);
      options.onBytes(piece.subarray(0, bytes));
      if (size + bytes > room) {
        throw new Error(
          `Cannot copy standard input to ${name}: it has ${formatSize(room)} (${room} bytes), and more than that came`,
        );
      }
      const whole = bytes - bytes % block;
      const tail = piece.slice(whole, bytes);
      writes.write(slot, size, whole);
      size += bytes;
      options.onProgress(size);
      if (bytes < chunk) {
        await turnUntil(engine, () => writes.isIdle);
        if (writes.failure < 0) break;
        return { size, moved: size, tail };
      }
    }
    throw new Error(`Cannot write ${name}: ${errnoMessage(writes.failure)}`);
  } finally {
    await turnUntil(engine, () => writes.isIdle);
    writes.close();
  }
}

/** Reads until the piece is full or the input has ended. */
async function fill({ engine, signal }: InputOptions, piece: Uint8Array): Promise<number> {
  let filled = 0;
  while (filled < piece.length) {
    signal.throwIfAborted();
    const count = await turnDuring(engine, Promise.race([Deno.stdin.read(piece.subarray(filled)), aborted(signal)]));
    if (count === null) break;
    filled += count;
  }
  return filled;
}

/** Rejects when the signal comes. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Writes under way. */
class Writes implements BlockClient {
  /** The first negative errno, or 0. */
  failure = 0;
  readonly #engine: Engine;
  readonly #device: BlockDevice;
  readonly #slots: Uint32Array;
  readonly #free: number[];
  #busy = 0;

  constructor(engine: Engine, device: BlockDevice, depth: number) {
    const slots = engine.slots.reserve(depth);
    if (slots === null) throw new RangeError(`Cannot copy: there are no ${depth} slots`);
    this.#engine = engine;
    this.#device = device;
    this.#slots = slots;
    this.#free = [...slots];
  }

  get hasRoom(): boolean {
    return this.#free.length > 0;
  }

  get isIdle(): boolean {
    return this.#busy === 0;
  }

  take(): number {
    return this.#free.pop()!;
  }

  write(slot: number, offset: number, length: number): void {
    let status = 0;
    if (length > 0) {
      this.#engine.slots.setRange(slot, offset, length);
      status = this.#device.submit(slot, Operation.WRITE, 0, this);
    }
    if (status === PENDING) this.#busy++;
    else this.#end(slot, status);
  }

  onComplete(slot: number, status: number): void {
    this.#busy--;
    this.#end(slot, status);
  }

  close(): void {
    this.#engine.slots.release(this.#slots);
  }

  #end(slot: number, status: number): void {
    if (status < 0 && this.failure === 0) this.failure = status;
    this.#free.push(slot);
  }
}
