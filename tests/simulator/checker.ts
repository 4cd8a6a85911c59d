/**
 * What the disk may hold. The checker keeps every legal value of every block, and finds fault with what is read.
 *
 * A value is the number of the mutation that wrote it; 0 is zeroes. A mutation is *pending* from its submission until it
 * is acknowledged, has failed, or is known never to land any more (*settled*): as long as it is pending it may land at any
 * moment. An acknowledged one replaces everything that had ended before it began. What is replaced may come back when the
 * exporter's machine crashes, until a FLUSH that was sent after the replacement's acknowledgement has succeeded.
 *
 * A writer that *keeps copies* writes again what was lost, and sees nothing of the crash: before that it reads nothing, and
 * afterwards nothing that its acknowledged mutations had replaced is there for anybody. While it does so others may see
 * any of them.
 *
 * @module
 */

/** Bytes of a block. */
export const BLOCK_BYTES = 512;
const BLOCK_WORDS = BLOCK_BYTES / 4;

/** What the world's rules forbid has happened. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** One WRITE, WRITE_ZEROES or DISCARD. */
export interface Mutation {
  /** What it writes. */
  readonly value: number;
  readonly first: number;
  readonly blocks: number;
  /** Who has asked: names the session, and the client's process with it. */
  readonly writer: number;
  readonly fua: boolean;
  /** A DISCARD, which may leave everything as it is. */
  readonly optional: boolean;
  readonly startedAt: number;
  /** It cannot land any more, except in what it has written already. */
  isOver: boolean;
  /** When it was given up; Infinity as long as it was not. */
  expiredAt: number;
}

/** A read that is under way. */
export interface Reading {
  readonly first: number;
  readonly blocks: number;
  readonly startedAt: number;
}

interface Value {
  readonly value: number;
  /** When its mutation ended, or a crash brought it back. */
  readonly endedAt: number;
  /** When its mutation ended. */
  readonly since: number;
  /** Whose mutation it was that was acknowledged; 0 where it was not. */
  readonly by: number;
  /** It may never have been written: a DISCARD. */
  readonly isAdvice: boolean;
}

interface OldValue extends Value {
  /** When an acknowledged mutation had replaced it: Infinity while none has for certain. */
  replacedAt: number;
}

class Block {
  /** What it may hold, beside what is pending. */
  values: Value[] = [{ value: 0, endedAt: 0, since: 0, by: 0, isAdvice: false }];
  /** What it held and may hold again after a crash. */
  old: OldValue[] = [];
  /** What may have come back in a crash. */
  revived: Value[] = [];
  /** What it held since the first of the present reads began. */
  recent: { readonly value: number; readonly replacedAt: number; readonly lostBy: number }[] = [];
  /** What may be written again, of those that keep copies. */
  copies: Value[] = [];
  readonly pending: Mutation[] = [];
  readers = 0;
  /** When somebody began to use it who was not told that the disk had lost it; 0: it was not lost, or written since. */
  taintedAt = 0;
  isRecorded = false;
  /** What the latest read has found, and when that had ended. */
  seen = 0;
  seenAt = 0;
  /** What was found, and then something else: each mutation is executed once, so that it cannot come back. */
  gone: { readonly value: number; readonly goneAt: number }[] = [];
}

/** The legal values of one disk. */
export class Checker {
  readonly #blocks: Block[];
  #moment = 1;
  #nextValue = 1;
  #crashedAt = 0;
  /** Writers that another has taken over from. */
  readonly #superseded = new Set<number>();
  readonly #hasWritten = new Set<number>();
  readonly #pending = new Set<Mutation>();
  /** Mutations that were given up. */
  readonly #expired = new Set<Mutation>();
  /** Whoever was granted the disk. */
  readonly #writers = new Set<number>();
  /** Those who keep copies, with the moment at which all was written again last. */
  readonly #keepers = new Map<number, number>();
  /** One of them writes again what was lost, or has stopped halfway. */
  #isReplaying = false;
  readonly #isShared: boolean;

  /**
   * @param blocks the disk's size
   * @param isShared whether several may write: then what one of them sends again may be done again after another's
   */
  constructor(blocks: number, isShared = false) {
    this.#isShared = isShared;
    this.#blocks = Array.from({ length: blocks }, () => new Block());
  }

  /** How many mutations may still land. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Fills blocks with what a mutation writes. */
  static fill(words: Uint32Array, at: number, { value, first, blocks }: Mutation): void {
    for (let i = 0; i < blocks; i++) {
      const from = at / 4 + i * BLOCK_WORDS;
      words[from] = value;
      words[from + 1] = first + i;
      for (let word = 2; word < BLOCK_WORDS; word++) words[from + word] = wordOf(value, first + i, word);
    }
  }

  /** A mutation is submitted. */
  begin(
    first: number,
    blocks: number,
    writer: number,
    { zeroes = false, optional = false, fua = false } = {},
  ): Mutation {
    const value = zeroes || optional ? 0 : this.#nextValue++;
    const startedAt = this.#moment++;
    this.#hasWritten.add(writer);
    // Whoever was taken over from is not to change anything any more.
    const isOver = this.#superseded.has(writer);
    const mutation: Mutation = { value, first, blocks, writer, fua, optional, startedAt, isOver, expiredAt: Infinity };
    if (isOver) return mutation;
    this.#pending.add(mutation);
    for (let i = 0; i < blocks; i++) this.#blocks[first + i].pending.push(mutation);
    return mutation;
  }

  /** A mutation was acknowledged. */
  acknowledge(mutation: Mutation): void {
    if (mutation.isOver) return;
    const { value, first, blocks, startedAt, optional, fua } = mutation;
    this.#settleExpired(mutation);
    const { writer } = mutation;
    const now = this.#end(mutation);
    const wholeAt = this.#keepers.get(writer);
    // Its acknowledgement may be from before the crash, in which it may be lost.
    const mayBeLost = startedAt < this.#crashedAt &&
      (wholeAt === undefined ? !fua : wholeAt < this.#crashedAt);
    const ended: Value = { value, endedAt: now, since: now, by: writer, isAdvice: optional };
    for (let i = first; i < first + blocks; i++) {
      const block = this.#blocks[i];
      if (wholeAt !== undefined) block.copies.push(ended);
      if (optional) {
        block.values.push(ended);
        continue;
      }
      const kept: Value[] = [];
      for (const one of block.values) {
        if (one.endedAt > startedAt) {
          kept.push(one);
          continue;
        }
        if (block.readers > 0) block.recent.push({ value: one.value, replacedAt: now, lostBy: 0 });
        if (mayBeLost) block.revived.push(one);
        else if (!fua) block.old.push({ ...one, replacedAt: startedAt > block.taintedAt ? now : Infinity });
      }
      kept.push(ended);
      block.values = kept;
      if (startedAt > block.taintedAt && !mayBeLost) block.taintedAt = 0;
      if (block.revived.length > 0 && !mayBeLost) {
        if (!fua) { for (const one of block.revived) block.old.push({ ...one, replacedAt: now }); }
        for (const one of block.revived) block.recent.push({ value: one.value, replacedAt: now, lostBy: 0 });
        block.revived = [];
      }
      if (block.old.length === 0) continue;
      if (fua) block.old = block.old.filter((one) => one.endedAt > startedAt);
      else if (block.taintedAt === 0) {
        for (const one of block.old) if (one.endedAt < startedAt && one.replacedAt > now) one.replacedAt = now;
      }
    }
  }

  /** A mutation has failed for good, or is known never to land any more: each block has the old or the new content. */
  settle(mutation: Mutation): void {
    if (!mutation.isOver) this.#settleAt(mutation, this.#end(mutation));
  }

  /**
   * A mutation was given up. It may land at any time, but not once a mutation was sent that was asked for later: before
   * that, the lane is fenced.
   */
  expire(mutation: Mutation): void {
    if (mutation.isOver) return;
    mutation.expiredAt = this.#moment++;
    this.#expired.add(mutation);
  }

  /** Somebody's later mutation was acknowledged: nothing that he had given up before will land after it. */
  #settleExpired({ writer, startedAt }: Mutation): void {
    for (const one of this.#expired) {
      if (one.writer !== writer || one.expiredAt > startedAt) continue;
      this.#expired.delete(one);
      if (one.isOver) continue;
      this.#end(one);
      this.#settleAt(one, one.expiredAt);
    }
  }

  #settleAt(mutation: Mutation, endedAt: number): void {
    const { value, first, blocks } = mutation;
    const ended: Value = { value, endedAt, since: endedAt, by: 0, isAdvice: mutation.optional };
    for (let i = first; i < first + blocks; i++) this.#blocks[i].values.push(ended);
  }

  /** A writer was granted the disk alone: nothing of any other can land any more. */
  granted(writer: number): void {
    if (this.#superseded.has(writer) && this.#hasWritten.has(writer)) {
      throw new Violation(`session ${writer} goes on although another has taken over from it`);
    }
    this.#superseded.delete(writer);
    for (const mutation of [...this.#pending]) {
      if (mutation.writer === writer) continue;
      this.#superseded.add(mutation.writer);
      this.settle(mutation);
    }
    for (const other of this.#writers) if (other !== writer) this.#superseded.add(other);
    this.#writers.add(writer);
    if (!this.#keepers.has(writer)) this.#isReplaying = false;
    for (const block of this.#blocks) {
      if (block.copies.length > 0) block.copies = block.copies.filter((one) => one.by === writer);
    }
  }

  /** A writer keeps copies of what it writes, until a FLUSH has covered it. */
  keepsCopies(writer: number): void {
    this.#keepers.set(writer, 0);
  }

  /** Whoever keeps copies begins to write them again: until that is done any of them may be there. */
  replaying(): void {
    const now = this.#moment++;
    this.#isReplaying = true;
    for (const block of this.#blocks) {
      if (block.copies.length === 0) continue;
      const known = new Set([...block.values, ...block.revived].map((one) => one.since));
      for (const one of block.copies) if (!known.has(one.since)) block.revived.push({ ...one, endedAt: now });
      block.gone = [];
      block.seen = 0;
    }
  }

  /** Of a writer that keeps copies: all that it was told is done, and may be lost, is written again and flushed. */
  replayed(writer: number): void {
    const now = this.#moment++;
    this.#keepers.set(writer, now);
    this.#isReplaying = false;
    for (const block of this.#blocks) {
      if (block.copies.length > 0) {
        block.copies = block.copies.filter((one) => one.by !== writer);
        // What was under way, and was there already, is sent again.
        block.gone = [];
        block.seen = 0;
      }
      const since = lastOf(block, writer);
      if (since === 0 || block.revived.length === 0) continue;
      const kept: Value[] = [];
      for (const one of block.revived) {
        if (one.since >= since) kept.push(one);
        else if (block.readers > 0) block.recent.push({ value: one.value, replacedAt: now, lostBy: writer });
      }
      block.revived = kept;
    }
  }

  /** A read is submitted. */
  beginReading(first: number, blocks: number): Reading {
    for (let i = first; i < first + blocks; i++) this.#blocks[i].readers++;
    return { first, blocks, startedAt: this.#moment++ };
  }

  /** A read has failed: nothing was learned. */
  failReading(reading: Reading): void {
    for (let i = reading.first; i < reading.first + reading.blocks; i++) this.#leave(this.#blocks[i]);
  }

  /**
   * A read has succeeded.
   *
   * @param words the bytes that were read, from `at` (in bytes) on
   * @param keeper who has read, if that is somebody who keeps copies and has not lost them; else 0
   * @throws {Violation} when they cannot have been on the disk
   */
  endReading(reading: Reading, words: Uint32Array, at: number, keeper = 0): void {
    const { first, blocks } = reading;
    this.#moment++;
    for (let i = 0; i < blocks; i++) {
      this.#observe(first + i, valueAt(words, at / 4 + i * BLOCK_WORDS, first + i), reading.startedAt, keeper);
    }
  }

  /** A part of a read's range was described as zeroes, which it must have been then. */
  observeZeroes(reading: Reading, first: number, blocks: number): void {
    for (let i = first; i < first + blocks; i++) this.#verify(i, 0, reading.startedAt, 0);
  }

  /** A FLUSH is submitted: what {@link flushed} is to be given. */
  beginFlush(): number {
    return this.#moment++;
  }

  /**
   * A FLUSH has succeeded: nothing is lost of what its session was told is done. One that has outlived a crash vouches for
   * what it had written before.
   */
  flushed(startedAt: number, writer: number): void {
    const vouches = startedAt > this.#crashedAt;
    const isKeeper = this.#keepers.has(writer);
    for (const block of this.#blocks) {
      if (isKeeper && block.copies.length > 0) {
        block.copies = block.copies.filter((one) => one.by !== writer || one.since > startedAt);
      }
      if (block.old.length > 0) block.old = block.old.filter((one) => one.replacedAt > startedAt);
      if (block.taintedAt > 0 && block.isRecorded && block.taintedAt < startedAt && isMine(block, writer, startedAt)) {
        block.old = [];
        block.taintedAt = 0;
      }
      if (!vouches || block.revived.length === 0) continue;
      if (block.taintedAt > 0 || !isMine(block, writer, startedAt)) {
        continue;
      }
      for (const { value } of block.revived) block.recent.push({ value, replacedAt: this.#moment, lostBy: 0 });
      block.revived = [];
    }
  }

  /**
   * The exporter's disk has lost the latest content of these blocks, has said so, and is used on by one who was not told:
   * what they held before may come back until they are written again.
   *
   * @param isRecorded whether a session that goes on knows, and vouches for all of it if a FLUSH succeeds
   */
  taint(blocks: Iterable<number>, isRecorded: boolean): void {
    const now = this.#moment++;
    for (const i of blocks) {
      const block = this.#blocks[i];
      block.taintedAt = now;
      block.isRecorded = isRecorded;
      for (const one of block.old) one.replacedAt = Infinity;
    }
  }

  /** The exporter's machine has crashed, and nobody makes up for what was not flushed. */
  crashed(): void {
    const now = this.#moment++;
    this.#crashedAt = now;
    for (const block of this.#blocks) {
      for (const one of block.old) block.revived.push({ ...one, endedAt: now });
      // What is there is there on stable storage, but nobody knows which.
      block.old = [];
      block.gone = [];
      block.seen = 0;
    }
  }

  #end(mutation: Mutation): number {
    mutation.isOver = true;
    this.#pending.delete(mutation);
    for (let i = mutation.first; i < mutation.first + mutation.blocks; i++) {
      const { pending } = this.#blocks[i];
      pending.splice(pending.indexOf(mutation), 1);
    }
    return this.#moment++;
  }

  #leave(block: Block): void {
    if (--block.readers === 0 && block.recent.length > 0) block.recent = [];
  }

  #verify(i: number, value: number, startedAt: number, keeper: number): void {
    const block = this.#blocks[i];
    for (const one of block.values) if (one.value === value) return;
    for (const one of block.pending) if (one.value === value) return;
    const since = keeper === 0 ? 0 : lastOf(block, keeper);
    const revived = block.revived.filter((one) => one.since >= since);
    for (const one of revived) if (one.value === value) return;
    for (const one of block.recent) {
      if (one.value === value && one.replacedAt > startedAt && (keeper === 0 || one.lostBy !== keeper)) return;
    }
    const legal = [
      ...block.values.map((one) => `${one.value}`),
      ...revived.map((one) => `${one.value} (from before the crash)`),
      ...block.pending.map((one) => `${one.value} (pending)`),
    ];
    throw new Violation(`block ${i} holds ${value}, and may hold ${legal.join(", ")}`);
  }

  /** Remembers what was found; zeroes are nobody's in particular. */
  #see(block: Block, i: number, value: number, startedAt: number): void {
    if (block.gone.some((one) => one.value === value && one.goneAt < startedAt)) {
      throw new Violation(`block ${i} holds ${value} again, after it had held ${block.seen}`);
    }
    if (block.seen !== value && block.seen !== 0 && block.seenAt < startedAt) {
      // Without anybody who may still write only one value is legal.
      if (block.pending.length + block.revived.length === 0 && block.values.length === 1) block.gone = [];
      // What is written again comes back in the order in which it came.
      else if (this.#isShared || this.#isReplaying || (block.revived.length > 0 && this.#keepers.size > 0)) {
        block.gone = [];
      } else block.gone.push({ value: block.seen, goneAt: this.#moment++ });
    }
    block.seen = value;
    block.seenAt = this.#moment++;
  }

  /** A read has found a value: where nothing is under way, it is the one. */
  #observe(i: number, value: number, startedAt: number, keeper: number): void {
    this.#verify(i, value, startedAt, keeper);
    const block = this.#blocks[i];
    this.#see(block, i, value, startedAt);
    const isSettled = block.pending.length + block.revived.length === 0 && !this.#isReplaying;
    if (block.values.length > 1 && isSettled && startedAt > this.#crashedAt) {
      const found = block.values.findLast((one) => one.value === value);
      // Whatever ended after the read began may have come after what it has found.
      if (found !== undefined && block.values.every((one) => one.endedAt < startedAt)) {
        for (const one of block.values) {
          if (one.value === value) continue;
          block.old.push({ ...one, replacedAt: Infinity });
          block.recent.push({ value: one.value, replacedAt: this.#moment, lostBy: 0 });
        }
        block.values = [found];
      }
    }
    this.#leave(block);
  }
}

/** When the last mutation ended that was acknowledged to a writer and has written a block; 0: there is none. */
function lastOf({ values, revived }: Block, writer: number): number {
  let since = 0;
  for (const one of values) if (one.by === writer && !one.isAdvice) since = Math.max(since, one.since);
  for (const one of revived) if (one.by === writer && !one.isAdvice) since = Math.max(since, one.since);
  return since;
}

/** Whether all that a block may hold was acknowledged to one writer by then. */
function isMine({ values, pending }: Block, writer: number, by: number): boolean {
  return pending.length === 0 && values.every((one) => one.by === writer && one.endedAt < by);
}

function wordOf(value: number, block: number, word: number): number {
  return (Math.imul(value, 0x9e3779b1) + Math.imul(word, 0x85ebca6b) + block) >>> 0;
}

/** Which mutation wrote a block. */
function valueAt(words: Uint32Array, from: number, block: number): number {
  const value = words[from];
  if (value === 0) {
    for (let word = 1; word < BLOCK_WORDS; word++) {
      if (words[from + word] !== 0) throw new Violation(`block ${block} is neither zeroes nor written by anybody`);
    }
    return 0;
  }
  if (words[from + 1] !== block) {
    throw new Violation(`block ${block} has the content of block ${words[from + 1]}, by mutation ${value}`);
  }
  for (let word = 2; word < BLOCK_WORDS; word++) {
    if (words[from + word] !== wordOf(value, block, word)) {
      throw new Violation(`block ${block} is torn: it begins as mutation ${value} has it, and does not go on so`);
    }
  }
  return value;
}
