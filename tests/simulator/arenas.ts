/**
 * Memories for engines, used again from one world to the next: making a WebAssembly memory takes longer than a process of
 * a simulation lives.
 *
 * @module
 */
import { makeCryptography, type ThreadCryptography } from "../../engine/cryptography.ts";
import { arenaBytes } from "../../engine/engine.ts";
import { SLOT_PREFIX_BYTES, SLOT_STRIDE_BYTES } from "../../engine/slots.ts";
import { STAGING_BYTES } from "../../engine/stream.ts";
import { type Core, makeArena } from "../../wasm/core.ts";

/** Bytes at the beginning of a slot's payload area, and of a stream's scratch area, that anything may be left in. */
const USED_BYTES = 16 * 1024;

/** A memory, and the cryptography on it. */
export interface SimArena {
  readonly core: Core;
  readonly cryptography: ThreadCryptography;
  readonly slots: number;
}

const free = new Map<number, SimArena[]>();

/** A memory with so many slots, as good as new. */
export function takeArena(slots: number): SimArena {
  const arena = free.get(slots)?.pop();
  if (arena === undefined) {
    const core = makeArena(arenaBytes(slots));
    core.warmUp();
    return { core, cryptography: makeCryptography(core, "wasm"), slots };
  }
  const { bytes, freeFrom } = arena.core;
  for (let slot = 0; slot < slots; slot++) {
    const at = freeFrom + slot * SLOT_STRIDE_BYTES;
    const payloadAt = at + SLOT_PREFIX_BYTES;
    bytes.fill(0, at, payloadAt + USED_BYTES);
    bytes.fill(0, payloadAt + STAGING_BYTES, payloadAt + STAGING_BYTES + USED_BYTES);
  }
  return arena;
}

/** Nobody uses the memory any more. */
export function giveArenaBack(arena: SimArena): void {
  const others = free.get(arena.slots);
  if (others === undefined) free.set(arena.slots, [arena]);
  else others.push(arena);
}
