/**
 * What the fuzzing of both ends shares: messages by a grammar, and what somebody on the way makes of them.
 *
 * @module
 */
import fc from "fast-check";
import { makeCryptography } from "../../engine/cryptography.ts";
import { Cipher } from "../../protocol/wire.ts";
import { makeArena } from "../../wasm/core.ts";
import type { FrameFields } from "../protocol/bytes.ts";
import { Ground } from "./ground.ts";
import { rememberingNoise } from "./noise.ts";
import { SUITES } from "../protocol/rows.ts";

/** What is done to one message on its way. */
export interface Harm {
  /** Which of the messages of its direction, from 0. */
  readonly message: number;
  readonly kind: "flip" | "cut" | "insert" | "repeat";
  /** Where, modulo the message's length; from its beginning, or from its end. */
  readonly at: number;
  readonly mask: number;
  readonly bytes: Uint8Array;
}

const MEMORY_BYTES = 4 * 1024 * 1024;
const core = makeArena(MEMORY_BYTES);
const cryptography = makeCryptography(core, "auto");

/** The memory and the cryptography of all machines that are fuzzed. */
export const ground = new Ground(core, cryptography, rememberingNoise(cryptography.noise));

/** The suites that this machine has; none is left out where there is no tag, for there is no telling then. */
export const fuzzedSuites = Object.entries(SUITES)
  .filter(([, { cipher }]) => cipher === Cipher.NONE || cryptography.ciphers.includes(cipher))
  .map(([name, suite]) => ({ name, ...suite }));

export const harm: fc.Arbitrary<Harm> = fc.record({
  message: fc.nat(9),
  kind: fc.constantFrom("flip", "flip", "flip", "cut", "insert", "repeat"),
  at: fc.integer({ min: -200, max: 200 }),
  mask: fc.integer({ min: 1, max: 255 }),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
});

/** The message after what was done to it. */
export function harmed(message: Uint8Array<ArrayBuffer>, { kind, at, mask, bytes }: Harm): Uint8Array<ArrayBuffer> {
  const place = ((at % message.length) + message.length) % message.length;
  if (kind === "repeat") return Uint8Array.of(...message, ...message);
  if (kind === "insert") return Uint8Array.of(...message.subarray(0, place), ...bytes, ...message.subarray(place));
  if (kind === "cut") return Uint8Array.of(...message.subarray(0, place), ...message.subarray(place + bytes.length));
  message[place] ^= mask;
  return message;
}

/** Numbers that matter in a field: small ones mostly, and the edges. */
export function field(bits: bigint): fc.Arbitrary<bigint> {
  const edges = [0n, 1n, 511n, 512n, 2n ** 16n - 1n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 64n - 1n];
  const fitting = edges.filter((edge) => edge < 2n ** bits);
  return fc.oneof(fc.constantFrom(...fitting), fc.bigInt(0n, 2n ** bits - 1n), fc.bigInt(0n, 8n));
}

const small = (bits: bigint) => field(bits).map(Number);
/** Mostly as it should be. */
const mostly = (usual: number, other: fc.Arbitrary<number>) =>
  fc.oneof({ weight: 8, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: other });

/** Any frame whatever, well sealed. */
export const anyFrame: fc.Arbitrary<FrameFields> = fc.record({
  type: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constantFrom(0x10, 0x90, 0x24, 0x22, 0x33), fc.nat(255)),
  zero: mostly(0, fc.constant(1)),
  flags: mostly(0, small(16n)),
  slot: fc.oneof(fc.nat(3), small(16n)),
  lane: mostly(0, fc.nat(2)),
  sequence: fc.oneof(fc.nat(4), small(32n)),
  offset: field(64n),
  length: field(64n),
  status: mostly(0, small(32n)),
  payload: fc.uint8Array({ maxLength: 700 }),
  magic: mostly(0x31545344, fc.constant(0x31545345)),
});

/** TLVs that are almost such: types that exist, lengths that do not fit, and anything at all. */
export const tlvs: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.uint8Array({ maxLength: 80 }),
  fc.array(
    fc.tuple(fc.integer({ min: 1, max: 42 }), fc.uint8Array({ maxLength: 60 }), fc.nat(1), mostly(0, fc.nat(20))),
    { maxLength: 8 },
  ).map((entries) => {
    const bytes: number[] = [];
    for (const [type, value, flags, tooMuch] of entries) {
      const length = value.length + tooMuch;
      bytes.push(type & 255, type >> 8, flags, 0, length & 255, length >> 8, 0, 0, ...value);
      while (bytes.length % 8 !== 0) bytes.push(0);
    }
    return Uint8Array.from(bytes);
  }),
);
