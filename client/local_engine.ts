/**
 * An engine in the calling thread, for commands that do one thing and end.
 *
 * @module
 */
import { arenaBytes, Engine } from "../engine/engine.ts";
import type { LoopChoice } from "../engine/thread.ts";
import { type CryptoChoice, makeCryptography } from "../engine/cryptography.ts";
import { makeLoop } from "../ffi/mod.ts";
import { makeArena } from "../wasm/core.ts";

/** The longest wait in the kernel: afterwards signals and timers of the thread are looked at. */
const TURN_MS = 50;

/**
 * Makes an engine.
 *
 * @param slots how many slots it has
 * @param crypto who does its cryptography
 * @throws {Error} where the loop, or who is to do the cryptography, cannot be had
 */
export function makeLocalEngine(loop: LoopChoice, slots: number, crypto: CryptoChoice = "wasm"): Engine {
  const core = makeArena(arenaBytes(slots));
  core.warmUp();
  return new Engine(makeLoop(loop), core, makeCryptography(core, crypto));
}

/**
 * Turns the engine until the condition holds. Signals and timers of the thread come through now and then.
 *
 * @param isDone is asked after each turn
 * @param signal ends the waiting
 * @throws the signal's reason
 */
export async function turnUntil(engine: Engine, isDone: () => boolean, signal?: AbortSignal): Promise<void> {
  let lastMs = performance.now();
  while (!isDone()) {
    signal?.throwIfAborted();
    engine.turn(TURN_MS);
    const nowMs = performance.now();
    if (nowMs - lastMs < TURN_MS) continue;
    lastMs = nowMs;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}
