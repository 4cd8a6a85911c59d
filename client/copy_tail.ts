/**
 * What is left of a disk beyond the last block that both sides of a copy have whole: less than a block.
 *
 * @module
 */
import { type BlockClient, type BlockDevice, Operation, PENDING } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { errnoMessage } from "../ffi/errno.ts";
import type { Side } from "./copy_side.ts";
import { turnDuring } from "./copy_stream.ts";
import { turnUntil } from "./local_engine.ts";

/** One request, waited for. */
class Once implements BlockClient {
  status: number = PENDING;

  onComplete(_slot: number, status: number): void {
    this.status = status;
  }
}

/**
 * Makes one request and waits for it.
 *
 * @param data what a WRITE writes, or where the data of a READ goes: `length` bytes, which fit a slot; else null
 * @returns 0 or a negative errno
 */
export async function submitOnce(
  engine: Engine,
  device: BlockDevice,
  operation: number,
  offset: number,
  length: number,
  data: Uint8Array | null,
): Promise<number> {
  const slots = engine.slots.reserve(1);
  if (slots === null) throw new RangeError("Cannot copy: there is no slot for a request");
  const slot = slots[0];
  const at = engine.slots.payloadAt(slot);
  if (operation === Operation.WRITE) engine.arena.bytes.set(data!, at);
  engine.slots.setRange(slot, offset, length);
  const once = new Once();
  once.status = device.submit(slot, operation, 0, once);
  await turnUntil(engine, () => once.status !== PENDING);
  if (operation === Operation.READ && once.status === 0) data!.set(engine.arena.bytes.subarray(at, at + length));
  engine.slots.release(slots);
  return once.status;
}

/**
 * Reads what a side has between the beginning of a block and a size: less than a block.
 *
 * @throws {Error} why it could not be read
 */
export async function readTail(engine: Engine, side: Side, offset: number, size: number): Promise<Uint8Array> {
  if (side.path !== null) return await turnDuring(engine, readPiece(side.path, offset, size - offset));
  const piece = new Uint8Array(wholeBlocks(side.device!, size - offset));
  const status = await submitOnce(engine, side.device!, Operation.READ, offset, piece.length, piece);
  if (status < 0) throw new Error(`Cannot read ${side.name}: ${errnoMessage(status)}`);
  return piece.subarray(0, size - offset);
}

/**
 * Writes less than a block at a block's beginning; the rest of the block stays as it is.
 *
 * @throws {Error} why it could not be written
 */
export async function writeTail(engine: Engine, side: Side, offset: number, bytes: Uint8Array): Promise<void> {
  if (side.path !== null) return await turnDuring(engine, writePiece(side.path, offset, bytes));
  const piece = new Uint8Array(wholeBlocks(side.device!, bytes.length));
  let status = await submitOnce(engine, side.device!, Operation.READ, offset, piece.length, piece);
  piece.set(bytes);
  if (status === 0) status = await submitOnce(engine, side.device!, Operation.WRITE, offset, piece.length, piece);
  if (status < 0) throw new Error(`Cannot write ${side.name}: ${errnoMessage(status)}`);
}

function wholeBlocks({ geometry }: BlockDevice, bytes: number): number {
  return Math.ceil(bytes / geometry.logicalBlock) * geometry.logicalBlock;
}

async function readPiece(path: string, offset: number, bytes: number): Promise<Uint8Array> {
  using file = await Deno.open(path, { read: true });
  await file.seek(offset, Deno.SeekMode.Start);
  const piece = new Uint8Array(bytes);
  for (let filled = 0; filled < bytes;) {
    const count = await file.read(piece.subarray(filled));
    if (count === null) throw new Error(`Cannot read ${path}: it has become shorter`);
    filled += count;
  }
  return piece;
}

async function writePiece(path: string, offset: number, piece: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(offset, Deno.SeekMode.Start);
  for (let written = 0; written < piece.length;) written += await file.write(piece.subarray(written));
  await file.sync();
}
