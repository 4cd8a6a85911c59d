import assert from "node:assert/strict";
import { BLOCK_BYTES, Checker, type Mutation, Violation } from "./checker.ts";

const WRITER = 1;
const OTHER = 2;

/** A disk of four blocks that holds what the test wants, and a checker of it. */
class Bench {
  readonly checker = new Checker(4);
  readonly words = new Uint32Array(4 * BLOCK_BYTES / 4);

  constructor() {
    this.checker.granted(WRITER);
  }

  begin(first: number, blocks = 1, options = {}, writer = WRITER): Mutation {
    return this.checker.begin(first, blocks, writer, options);
  }

  /** The disk holds what the mutation writes. */
  land(mutation: Mutation): void {
    Checker.fill(this.words, mutation.first * BLOCK_BYTES, mutation);
  }

  write(first: number, options = {}): Mutation {
    const mutation = this.begin(first, 1, options);
    this.land(mutation);
    this.checker.acknowledge(mutation);
    return mutation;
  }

  read(first: number): void {
    this.checker.endReading(this.checker.beginReading(first, 1), this.words, first * BLOCK_BYTES);
  }

  flush(writer = WRITER): void {
    this.checker.flushed(this.checker.beginFlush(), writer);
  }

  refuses(first: number): void {
    assert.throws(() => this.read(first), Violation);
  }
}

Deno.test("before anything is written a block holds zeroes", () => {
  const bench = new Bench();
  bench.read(0);
  bench.words[0] = 7;
  bench.refuses(0);
});

Deno.test("what was acknowledged is there, and nothing else", () => {
  const bench = new Bench();
  const first = bench.write(1);
  bench.read(1);
  bench.write(1);
  bench.read(1);
  bench.land(first);
  bench.refuses(1);
});

Deno.test("a block that is torn, or another's, is neither the old nor the new", () => {
  const bench = new Bench();
  bench.write(1);
  bench.words[BLOCK_BYTES / 4 + 100] ^= 1;
  bench.refuses(1);
  const other = bench.write(2);
  bench.words.copyWithin(3 * BLOCK_BYTES / 4, 2 * BLOCK_BYTES / 4, 3 * BLOCK_BYTES / 4);
  bench.begin(3);
  assert.equal(other.first, 2);
  bench.refuses(3);
});

Deno.test("while a write is under way a block holds the old or the new, and once it was the new not the old again", () => {
  const bench = new Bench();
  const first = bench.write(0);
  const second = bench.begin(0);
  bench.read(0);
  bench.land(second);
  bench.read(0);
  bench.land(first);
  bench.refuses(0);
});

Deno.test("a write that has failed leaves the old or the new, and the first read tells which", () => {
  const bench = new Bench();
  const first = bench.write(0);
  const second = bench.begin(0);
  bench.checker.settle(second);
  bench.read(0);
  bench.land(second);
  bench.refuses(0);
  bench.land(first);
  bench.read(0);
});

Deno.test("a write of which nobody knows may land until somebody else is granted the disk", () => {
  const bench = new Bench();
  const lost = bench.begin(0);
  bench.checker.granted(OTHER);
  const mine = bench.begin(0, 1, {}, OTHER);
  bench.land(mine);
  bench.checker.acknowledge(mine);
  bench.read(0);
  bench.land(lost);
  bench.refuses(0);
});

Deno.test("a session that has written does not go on after another was granted the disk", () => {
  const bench = new Bench();
  bench.write(0);
  bench.checker.granted(OTHER);
  assert.throws(() => bench.checker.granted(WRITER), Violation);
});

Deno.test("a write that was given up may land until a later one is acknowledged", () => {
  const bench = new Bench();
  const lost = bench.begin(0);
  bench.checker.expire(lost);
  bench.land(lost);
  bench.read(0);
  bench.write(0);
  bench.read(0);
  bench.land(lost);
  bench.refuses(0);
});

Deno.test("a crash brings back what no flush has covered, and nothing else", () => {
  const bench = new Bench();
  const first = bench.write(0);
  bench.write(0);
  bench.write(1);
  bench.flush();
  const third = bench.write(1);
  bench.checker.crashed();
  bench.read(0);
  bench.words.fill(0, BLOCK_BYTES / 4, 2 * BLOCK_BYTES / 4);
  bench.refuses(1);
  bench.land(third);
  bench.read(1);
  bench.land(first);
  bench.refuses(0);
});

Deno.test("a crash does not bring back what was there before a FUA write", () => {
  const bench = new Bench();
  const first = bench.write(0);
  bench.write(0, { fua: true });
  bench.checker.crashed();
  bench.land(first);
  bench.refuses(0);
});

Deno.test("a session whose flush succeeds after a crash has lost nothing", () => {
  const bench = new Bench();
  const first = bench.write(0);
  bench.write(0);
  bench.checker.crashed();
  bench.land(first);
  bench.read(0);
  bench.flush(OTHER);
  bench.read(0);
  bench.flush();
  bench.refuses(0);
});

Deno.test("of a disk that has lost pages and said so, a later flush proves nothing", () => {
  const bench = new Bench();
  const first = bench.write(0);
  bench.write(0);
  bench.checker.taint([0], false);
  bench.flush();
  bench.checker.crashed();
  bench.land(first);
  bench.read(0);
});

Deno.test("what is described as zeroes has to be allowed to be zeroes", () => {
  const bench = new Bench();
  bench.checker.observeZeroes(bench.checker.beginReading(0, 1), 0, 1);
  bench.write(0);
  const reading = bench.checker.beginReading(0, 1);
  assert.throws(() => bench.checker.observeZeroes(reading, 0, 1), Violation);
});

Deno.test("who keeps copies sees nothing of a crash, and once it has written again what was lost, nobody does", () => {
  const bench = new Bench();
  bench.checker.keepsCopies(WRITER);
  const [first, second] = [bench.write(0), bench.write(0)];
  bench.checker.crashed();
  bench.land(first);
  bench.read(0);
  const reading = bench.checker.beginReading(0, 1);
  assert.throws(() => bench.checker.endReading(reading, bench.words, 0, WRITER), Violation);
  bench.checker.replaying();
  bench.read(0);
  bench.checker.replayed(WRITER);
  bench.refuses(0);
  bench.land(second);
  bench.read(0);
});

Deno.test("what is written again may be seen meanwhile, and what came after it is there in the end", () => {
  const bench = new Bench();
  bench.checker.keepsCopies(WRITER);
  const first = bench.write(0);
  const second = bench.write(0, { fua: true });
  bench.checker.crashed();
  bench.land(first);
  bench.refuses(0);
  bench.checker.replaying();
  bench.read(0);
  bench.checker.replayed(WRITER);
  bench.refuses(0);
  bench.land(second);
  bench.read(0);
});

Deno.test("what was flushed is not written again, and neither is another's", () => {
  const bench = new Bench();
  bench.checker.keepsCopies(WRITER);
  const flushed = bench.write(0);
  bench.flush();
  bench.write(0);
  const lost = bench.write(1);
  bench.checker.granted(OTHER);
  bench.checker.crashed();
  bench.checker.replaying();
  bench.land(flushed);
  bench.read(0);
  bench.land(bench.begin(1, 1, {}, OTHER));
  bench.read(1);
  bench.land(lost);
  bench.read(1);
});
