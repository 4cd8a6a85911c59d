/**
 * What the tests of the loops work with.
 *
 * @module
 */
import assert from "node:assert/strict";
import * as libc from "../../ffi/libc.ts";
import { OpenFlag } from "../../ffi/constants.ts";
import type { CompletionHandler, Loop } from "../../ffi/loop.ts";
import type { SocketAddress } from "../../ffi/sockaddr.ts";
import * as socket from "../../ffi/socket.ts";

/** A completion as it was handed out. */
export interface Completion {
  readonly tag: number;
  readonly generation: number;
  readonly result: number;
}

/** Remembers completions, and may do more on each. */
export class Recorder implements CompletionHandler {
  readonly seen: Completion[] = [];
  then: ((completion: Completion) => void) | null = null;

  complete(tag: number, generation: number, result: number): void {
    const completion = { tag, generation, result };
    this.seen.push(completion);
    this.then?.(completion);
  }
}

/** Memory for the kernel to work on. */
export class Buffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly address: number;

  constructor(length: number, fill?: (index: number) => number) {
    this.bytes = new Uint8Array(new ArrayBuffer(length));
    if (fill) this.bytes.forEach((_, index) => this.bytes[index] = fill(index));
    this.address = libc.addressOf(this.bytes);
  }
}

/** A `struct msghdr` (linux/socket.h, 56 bytes) over pieces of memory. */
export class Message {
  readonly #memory = new Buffer(56 + 16 * 8);
  readonly address = this.#memory.address;

  constructor(...pieces: { address: number; bytes: number }[]) {
    const view = new DataView(this.#memory.bytes.buffer);
    view.setBigUint64(16, BigInt(this.address + 56), true);
    view.setBigUint64(24, BigInt(pieces.length), true);
    pieces.forEach((piece, i) => {
      view.setBigUint64(56 + 16 * i, BigInt(piece.address), true);
      view.setBigUint64(64 + 16 * i, BigInt(piece.bytes), true);
    });
  }
}

/** What a test works with. */
export interface Fixture {
  readonly loop: Loop;
  readonly recorder: Recorder;
  readonly kind: number;
  /** Turns the loop until so many completions were seen in all. */
  until(count: number): Completion[];
  /** Turns once and expects exactly one completion; answers its result. */
  one(): number;
  /** A descriptor that is closed after the test. */
  keep(fd: number): number;
  /** An empty temporary file, open for reading and writing. */
  file(): number;
  /** A pair of connected sockets. */
  pair(): [number, number];
}

/** Bytes that differ from their neighbours and from those a page away. */
export function pattern(index: number): number {
  return (index * 7 + (index >> 8)) & 0xff;
}

/** A port of the kernel's choice. */
export const LOOPBACK: SocketAddress = { family: "ipv4", host: "127.0.0.1", port: 0 };

/** A loop to be tested. */
export interface LoopUnderTest {
  /** Goes before each test's name. */
  readonly name: string;
  /** Makes a loop, with room for so many operations. */
  readonly start: (pendingMax?: number) => Loop;
}

/** Registers one test; the loop may be made with room for few operations. */
export type RegisterTest = (
  name: string,
  body: (fixture: Fixture) => void | Promise<void>,
  pendingMax?: number,
) => void;

/** Answers what registers tests of a loop: each with a fresh one, and with all that it used given back after. */
export function testsOf(suite: LoopUnderTest): RegisterTest {
  return test;

  function test(name: string, body: (fixture: Fixture) => void | Promise<void>, pendingMax?: number): void {
    Deno.test(`${suite.name}: ${name}`, async () => {
      const loop = suite.start(pendingMax);
      const recorder = new Recorder();
      const descriptors: number[] = [];
      const directory = Deno.makeTempDirSync();
      const fixture: Fixture = {
        loop,
        recorder,
        kind: loop.register(recorder),
        until(count) {
          for (let turns = 0; recorder.seen.length < count; turns++) {
            assert.ok(turns < 10_000, `${recorder.seen.length} of ${count} completions after ${turns} turns`);
            loop.turn(1000);
          }
          assert.equal(recorder.seen.length, count);
          return recorder.seen;
        },
        one() {
          const before = recorder.seen.length;
          fixture.until(before + 1);
          return recorder.seen[before].result;
        },
        keep(fd) {
          assert.ok(fd >= 0, `errno ${-fd}`);
          descriptors.push(fd);
          return fd;
        },
        file() {
          return fixture.keep(libc.open(`${directory}/file`, OpenFlag.READ_WRITE | OpenFlag.CREATE));
        },
        pair() {
          const pair = socket.socketPair();
          assert.ok(typeof pair !== "number");
          fixture.keep(pair[0]);
          fixture.keep(pair[1]);
          return pair;
        },
      };
      try {
        await body(fixture);
      } finally {
        loop.close();
        for (const fd of descriptors) libc.close(fd);
        Deno.removeSync(directory, { recursive: true });
      }
    });
  }
}
