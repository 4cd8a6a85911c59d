/**
 * The program of `garbage_test.ts`: seals and opens frames with one kind of guard, first so many that V8 has optimized
 * all of it, then, between two pauses, those that count. Prints the milliseconds of its life at which those began and
 * ended. Arguments: the choice of who works, cipher, digest, frames to warm up, frames that count.
 *
 * @module
 */
import { type CryptoChoice, makeCryptography } from "../../engine/cryptography.ts";
import { KEY_BYTES, PIECE_BYTES } from "../../protocol/guard.ts";
import { makeArena } from "../../wasm/core.ts";

/** What tells the collections before and after from those among the frames. */
const PAUSE_MS = 300;
const PAYLOAD_BYTES = 512;
/** So many frames at a time have a payload in two pieces. */
const LONG_EVERY = 256;

const [choice, cipher, digest, warmUpFrames, frames] = Deno.args;
const core = makeArena(4 * 1024 * 1024);
const cryptography = makeCryptography(core, choice as CryptoChoice);
const guard = cryptography.makeGuard(Number(cipher), Number(digest), true, core.freeFrom);
guard.setKeys(new Uint8Array(KEY_BYTES).fill(1), new Uint8Array(KEY_BYTES).fill(2));

const nonceAt = core.freeFrom + 4096;
const headerAt = nonceAt + 64;
const payloadTagAt = headerAt + 48;
// Beyond 2 MiB, and not on a page, where an address or an offset is less likely to be a small number by luck.
const payloadAt = core.freeFrom + 2 * 1024 * 1024 + 64;
const sealedAt = payloadAt + 2 * PIECE_BYTES;
let n = 0;

function frame(): void {
  core.view.setUint32(nonceAt, n++, true);
  core.view.setUint32(nonceAt + 4, 0x8000_0000, true);
  const at = guard.encrypts ? sealedAt : payloadAt;
  let isOpen: boolean;
  if (n % LONG_EVERY === 0) {
    guard.begin(nonceAt);
    guard.sealPiece(payloadAt, sealedAt, PIECE_BYTES);
    guard.sealPiece(payloadAt + PIECE_BYTES, sealedAt + PIECE_BYTES, PAYLOAD_BYTES);
    guard.finishSeal(payloadTagAt);
    guard.begin(nonceAt);
    guard.openPiece(at, PIECE_BYTES);
    guard.openPiece(at + PIECE_BYTES, PAYLOAD_BYTES);
    isOpen = guard.finishOpen(payloadTagAt);
  } else {
    guard.seal(nonceAt, payloadAt, sealedAt, PAYLOAD_BYTES, payloadTagAt);
    isOpen = guard.open(nonceAt, at, PAYLOAD_BYTES, payloadTagAt);
  }
  guard.sealHeader(nonceAt, headerAt);
  if (!isOpen || !guard.openHeader(nonceAt, headerAt)) throw new Error(`Frame ${n} does not open`);
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

for (let i = 0; i < Number(warmUpFrames); i++) frame();
await pause();
const fromMs = performance.now() - PAUSE_MS / 2;
for (let i = 0; i < Number(frames); i++) frame();
const untilMs = performance.now() + PAUSE_MS / 2;
await pause();
cryptography.close();
console.log(`frames from ${fromMs} until ${untilMs} ms`);
