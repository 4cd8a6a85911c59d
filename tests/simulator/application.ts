/**
 * What uses a disk: asks for this and that in random order, and has everything checked.
 *
 * @module
 */
import {
  type BlockClient,
  type BlockDevice,
  EXTENT_BYTES,
  ExtentFlag,
  Operation,
  PENDING,
  RequestFlag,
} from "../../engine/block.ts";
import type { Attachment, AttachmentMaker, AttachmentOwner } from "./attachment.ts";
import { BLOCK_BYTES, Checker, type Mutation, type Reading, Violation } from "./checker.ts";
import type { ClientMachine } from "./client_machine.ts";
import { Errno } from "../../ffi/errno.ts";
import type { SimThread } from "./kernel.ts";
import { Connector } from "../../client/connector.ts";
import type { World } from "./world.ts";

/** The longest request. */
const BLOCKS_MAX = 16;
/** So many failures in a row are enough. */
const FAILURES_MAX = 12;
/** How long to wait before attaching again, at most, in ms. */
const AGAIN_MS = 1500;

/** One of the application's requests. */
interface Use {
  readonly slot: number;
  readonly lane: number;
  operation: number;
  first: number;
  blocks: number;
  mutation: Mutation | null;
  reading: Reading | null;
  flushAt: number;
  isBusy: boolean;
}

/** What is asked for in order, instead of at random. */
export interface Script {
  /** The next request, or null at the end: then the application leaves. */
  next(): { readonly operation: number; readonly first: number; readonly blocks: number } | null;
  /** All of it is done. */
  done(): void;
}

/** How an application uses the disk. */
export interface ApplicationOptions {
  readonly make: AttachmentMaker;
  readonly readOnly: boolean;
  /** Takes the disk from whoever has it, from the beginning. */
  readonly steals: boolean;
  readonly depth: number;
  readonly lanes: number;
  /** After so many requests it leaves for good. */
  readonly requests: number;
  readonly script?: Script;
}

/** The application of one client's process. */
export class Application implements BlockClient, AttachmentOwner {
  readonly #world: World;
  readonly #machine: ClientMachine;
  readonly #thread: SimThread;
  readonly #connector: Connector;
  readonly #options: ApplicationOptions;
  readonly #uses: Use[] = [];
  readonly #useOf: (Use | null)[];
  readonly #words: Uint32Array;
  #attachment: Attachment | null = null;
  #devices: readonly BlockDevice[] = [];
  #writer = 0;
  #submitted = 0;
  #busy = 0;
  #steals: boolean;
  #isLeaving = false;
  /** Requests that have failed in a row. */
  #failures = 0;
  #isRenewing = false;
  #isEndingSoon = false;
  /** It uses the disk no more. */
  isDone = false;

  constructor(machine: ClientMachine, thread: SimThread, options: ApplicationOptions) {
    this.#world = machine.world;
    this.#machine = machine;
    this.#thread = thread;
    this.#connector = new Connector(thread.engine);
    this.#options = options;
    this.#steals = options.steals;
    const { slots, arena } = thread.engine;
    this.#words = new Uint32Array(arena.bytes.buffer);
    this.#useOf = new Array<Use | null>(slots.count).fill(null);
    for (let lane = 0; lane < options.lanes; lane++) {
      for (const slot of slots.reserve(options.depth)!) {
        const use: Use = {
          slot,
          lane,
          operation: 0,
          first: 0,
          blocks: 0,
          mutation: null,
          reading: null,
          flushAt: 0,
          isBusy: false,
        };
        this.#uses.push(use);
        this.#useOf[slot] = use;
      }
    }
    this.#attach();
  }

  /** Requests under way. */
  get busy(): number {
    return this.#busy;
  }

  /** Whether it uses a disk at present. */
  get isAttached(): boolean {
    return this.#devices.length > 0;
  }

  /** Something happens to its session. */
  disturb(): void {
    if (this.#devices.length > 0) this.#attachment?.disturb(this.#world.random);
    this.#thread.wake();
  }

  /** Submits nothing more, and ends its session when all is answered. */
  leave(): void {
    this.#isLeaving = true;
    this.#leaveIfIdle();
    this.#thread.wake();
  }

  /** Its process has died: what was under way may still land. */
  die(): void {
    for (const use of this.#uses) if (use.isBusy && use.reading !== null) this.#world.checker.failReading(use.reading);
    this.isDone = true;
  }

  attached(lanes: readonly BlockDevice[]): void {
    this.#world.trace(() => `${this.#machine.name}: attached with ${lanes.length} lanes`);
    this.#world.counters.count("attachments");
    this.#devices = lanes;
    for (const use of this.#uses) if (use.lane < lanes.length) this.#next(use);
    this.#leaveIfIdle();
  }

  lost(reason: string): void {
    this.#world.trace(() => `${this.#machine.name}: lost: ${reason}`);
    if (this.#busy > 0) throw new Violation(`an attachment was lost with ${this.#busy} requests unanswered`);
    this.#attachment = null;
    this.#devices = [];
    this.#isRenewing = false;
    this.#failures = 0;
    if (this.#isLeaving && this.#options.script === undefined) {
      this.isDone = true;
      return;
    }
    const { random, isEnding } = this.#world;
    // Whoever finds the disk taken may take it back, for its own ghost has it.
    this.#steals = this.#options.script !== undefined || random.below(isEnding ? 2 : 4) === 0;
    this.#world.events.after(random.next() * AGAIN_MS, {
      fire: () => {
        if (this.isDone || !this.#thread.process.isAlive) return;
        if (this.#isLeaving && this.#options.script === undefined) this.isDone = true;
        else this.#attach();
        this.#thread.wake();
      },
    });
  }

  /** Whoever operates the application finds that nothing succeeds any more, and attaches the disk anew. */
  #renewIfIdle(): void {
    if (!this.#isRenewing || this.#busy > 0 || this.#devices.length === 0 || this.#isEndingSoon) return;
    this.#world.renew();
    this.#leaveSoon();
  }

  onComplete(slot: number, status: number): void {
    const use = this.#useOf[slot];
    if (use === null || !use.isBusy) throw new Violation(`a request was answered twice, by ${status}`);
    this.#busy--;
    use.isBusy = false;
    this.#judge(use, status);
    this.#world.completed(status);
    this.#count(status);
    if (this.#busy === 0) this.#leaveIfIdle();
    const { random } = this.#world;
    if (random.below(4) > 0) this.#next(use);
    else this.#nextLater(use, random.next() * 2);
  }

  #attach(): void {
    const { world, thread } = { world: this.#world, thread: this.#thread };
    const session = world.bytes16();
    this.#writer = world.nextWriter(session);
    const { make, readOnly, depth, lanes } = this.#options;
    const wish = {
      writer: this.#writer,
      session,
      readOnly,
      steal: this.#steals && !readOnly,
      depth,
      lanes,
      holder: this.#machine.name,
    };
    this.#attachment = make({ world, thread, connector: this.#connector }, wish, this);
  }

  #leaveIfIdle(): void {
    if (!this.#isLeaving || this.#busy > 0 || this.isDone) return;
    if (this.#attachment === null) this.isDone = this.#options.script === undefined;
    else if (this.#devices.length > 0) this.#leaveSoon();
  }

  /** Ends the session from another turn than the one that has ended the last request. */
  #leaveSoon(): void {
    if (this.#isEndingSoon) return;
    this.#isEndingSoon = true;
    this.#world.events.after(0.1, {
      fire: () => {
        if (!this.#thread.process.isAlive) return;
        this.#isEndingSoon = false;
        if (this.#devices.length === 0) return;
        this.#devices = [];
        this.#attachment!.leave();
        this.#thread.wake();
      },
    });
  }

  #count(status: number): void {
    this.#failures = status === 0 ? 0 : this.#failures + 1;
    if (this.#failures >= FAILURES_MAX && this.#options.script === undefined) this.#isRenewing = true;
    this.#renewIfIdle();
  }

  #nextLater(use: Use, delayMs: number): void {
    this.#world.events.after(delayMs, {
      fire: () => {
        if (!this.#thread.process.isAlive || use.isBusy) return;
        this.#next(use);
        this.#thread.wake();
      },
    });
  }

  #next(use: Use): void {
    if (
      use.isBusy || use.lane >= this.#devices.length || this.#isLeaving || this.#isRenewing || this.#isEndingSoon ||
      this.#attachment === null
    ) {
      return;
    }
    if (this.#attachment.isLost(use.lane)) return;
    const { script } = this.#options;
    if (script === undefined) {
      if (this.#world.isEnding || this.#submitted >= this.#options.requests) return this.leave();
      this.#choose(use);
    } else {
      const step = script.next();
      if (step === null) {
        if (this.#busy === 0) script.done();
        return;
      }
      use.operation = step.operation;
      use.first = step.first;
      use.blocks = step.blocks;
      this.#submit(use, 0);
    }
  }

  #choose(use: Use): void {
    const { random, scenario } = this.#world;
    use.blocks = 1 + random.below(random.below(3) === 0 ? BLOCKS_MAX : 4);
    use.first = random.below(scenario.blocks - use.blocks + 1);
    const what = this.#options.readOnly ? random.below(40) : random.below(100);
    let flags = 0;
    if (what < 36) use.operation = Operation.READ;
    else if (what < 39) use.operation = Operation.BLOCK_STATUS;
    else if (what < 40) use.operation = Operation.CACHE;
    else if (what < 46) use.operation = Operation.FLUSH;
    else {
      // What a range reads as that was discarded may change while that is in the exporter's own cache.
      const discards = what >= 94 && !scenario.volatile;
      use.operation = what < 88 ? Operation.WRITE : discards ? Operation.DISCARD : Operation.WRITE_ZEROES;
      if (random.below(8) === 0) flags |= RequestFlag.FUA;
      if (use.operation === Operation.WRITE_ZEROES) {
        if (random.below(3) === 0) flags |= RequestFlag.NO_UNMAP;
        if (random.below(3) === 0) flags |= RequestFlag.FAST_ZERO;
      }
      if (!this.#attachment!.takesOverlaps && this.#overlaps(use)) {
        use.operation = Operation.READ;
        flags = 0;
      }
    }
    this.#submit(use, flags);
  }

  #overlaps({ first, blocks }: Use): boolean {
    for (const { mutation } of this.#uses) {
      if (mutation !== null && first < mutation.first + mutation.blocks && mutation.first < first + blocks) return true;
    }
    return false;
  }

  #submit(use: Use, flags: number): void {
    const { checker } = this.#world;
    const { slots } = this.#thread.engine;
    const { slot, operation, first, blocks } = use;
    use.mutation = null;
    use.reading = null;
    const at = slots.payloadAt(slot);
    switch (operation) {
      case Operation.READ:
      case Operation.BLOCK_STATUS:
        use.reading = checker.beginReading(first, blocks);
        // What is not put there is not to be found there.
        for (let i = 0; i < blocks; i++) {
          this.#words.fill(0xdead_beef, (at + i * BLOCK_BYTES) / 4, (at + i * BLOCK_BYTES) / 4 + 4);
        }
        break;
      case Operation.FLUSH:
        use.flushAt = checker.beginFlush();
        break;
      case Operation.CACHE:
        break;
      default: {
        const fua = (flags & RequestFlag.FUA) !== 0;
        const zeroes = operation === Operation.WRITE_ZEROES;
        const optional = operation === Operation.DISCARD;
        use.mutation = checker.begin(first, blocks, this.#writer, { zeroes, optional, fua });
        if (operation === Operation.WRITE) Checker.fill(this.#words, at, use.mutation);
      }
    }
    this.#submitted++;
    this.#busy++;
    use.isBusy = true;
    if (operation === Operation.FLUSH) slots.setRange(slot, 0, 0);
    else slots.setRange(slot, first * BLOCK_BYTES, blocks * BLOCK_BYTES);
    this.#world.submitted();
    this.#say(use, () => `submitted, flags ${flags}`);
    const status = this.#devices[use.lane].submit(slot, operation, flags, this);
    if (status === PENDING) return;
    this.#busy--;
    use.isBusy = false;
    this.#judge(use, status);
    this.#world.completed(status);
    this.#count(status);
    // Not at once, or a session that fails everything would keep the thread for ever.
    this.#nextLater(use, 0.5);
  }

  /** A request has ended: what that means for what the disk holds. */
  #judge(use: Use, status: number): void {
    const { checker, counters } = this.#world;
    const { operation, reading, mutation } = use;
    use.reading = null;
    use.mutation = null;
    const at = this.#thread.engine.slots.payloadAt(use.slot);
    this.#say({ ...use, mutation }, () => `ended by ${status}`);
    if (reading !== null) {
      if (status < 0) return checker.failReading(reading);
      const keeper = this.#attachment!.keepsCopies ? this.#writer : 0;
      if (operation === Operation.READ) checker.endReading(reading, this.#words, at, keeper);
      else this.#judgeExtents(use, reading, at);
      return;
    }
    if (status === 0 && this.#attachment!.hasLost && (operation === Operation.FLUSH || mutation !== null)) {
      throw new Violation("a request succeeds although what was acknowledged before it is lost");
    }
    if (operation === Operation.FLUSH) {
      if (status === 0) checker.flushed(use.flushAt, this.#writer);
      else counters.count("flushes that failed");
      return;
    }
    if (mutation === null) return;
    if (status === 0) checker.acknowledge(mutation);
    else if (!this.#attachment!.isLost(use.lane)) {
      if (status !== -Errno.ETIMEDOUT) return checker.settle(mutation);
      counters.count("mutations that expired");
      checker.expire(mutation);
    } else counters.count("mutations of which nobody knows");
  }

  #judgeExtents(use: Use, reading: Reading, at: number): void {
    const { checker } = this.#world;
    const bytes = this.#devices[use.lane].extentBytes(use.slot);
    let first = use.first;
    for (let from = at; from < at + bytes; from += EXTENT_BYTES) {
      const blocks = this.#words[from / 4] / BLOCK_BYTES;
      if (!Number.isInteger(blocks) || first + blocks > use.first + use.blocks) {
        throw new Violation("an extent is wrong");
      }
      if ((this.#words[from / 4 + 2] & ExtentFlag.ZERO) !== 0) checker.observeZeroes(reading, first, blocks);
      first += blocks;
    }
    if (first === use.first) throw new Violation("there are no extents");
    checker.failReading(reading);
  }

  #say({ operation, first, blocks, lane, slot, mutation }: Use, what: () => string): void {
    if (!this.#world.isTracing) return;
    const name = Object.keys(Operation).find((key) => Operation[key as keyof typeof Operation] === operation);
    const which = mutation === null ? "" : ` (mutation ${mutation.value})`;
    this.#world.trace(() => `${this.#machine.name}: ${lane}/${slot} ${name} ${first}+${blocks}${which} ${what()}`);
  }
}
