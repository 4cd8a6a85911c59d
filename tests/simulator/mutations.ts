/**
 * Switches one of the product's safeguards off, by changing its classes from outside, so that a run can show that the
 * simulator finds what it is there for. The product itself knows nothing of this.
 *
 * @module
 */
import { MutationLedger } from "../../client/ledger.ts";
import { OverlapTable } from "../../client/overlap.ts";
import { ReplayLog, ReplayMemory } from "../../client/replay_log.ts";
import { RequestFlag } from "../../engine/block.ts";
import { FileBackend } from "../../exporter/backends/file.ts";
import { StickyFailure } from "../../exporter/backends/sync.ts";
import { Door } from "../../exporter/door.ts";
import { Lane } from "../../exporter/lane.ts";
import { Registry } from "../../exporter/registry.ts";
import { Arrival, SlotTable } from "../../protocol/slot_table.ts";

/** Puts a method or accessor in the place of another; answers what puts it back. */
function replace<T extends object>(target: T, name: keyof T, descriptor: PropertyDescriptor): () => void {
  const before = Object.getOwnPropertyDescriptor(target, name)!;
  Object.defineProperty(target, name, { ...before, ...descriptor });
  return () => Object.defineProperty(target, name, before);
}

/** The safeguards, each with what switches it off; that answers what switches it on again. */
export const MUTATIONS = {
  /** A lane that is joined again does not wait for what still executes. */
  fence: () =>
    replace(Lane.prototype, "isIdle", {
      get(this: Lane) {
        return !this.isConnected;
      },
    }),

  /** A request that was done already is executed again. */
  "slot sequence": () => {
    const { classify } = SlotTable.prototype;
    return replace(SlotTable.prototype, "classify", {
      value(this: SlotTable, ...request: Parameters<SlotTable["classify"]>) {
        const arrival = classify.apply(this, request);
        return arrival === Arrival.DONE ? Arrival.NEW : arrival;
      },
    });
  },

  /** A failed sync fails those who asked for it, and nobody after them. */
  "sticky flush": () => {
    const failures = new Set<StickyFailure>();
    const { record } = StickyFailure.prototype;
    const words = new WeakMap<StickyFailure, number>();
    const status = Object.getOwnPropertyDescriptor(StickyFailure.prototype, "status")!;
    const restore = [
      replace(StickyFailure.prototype, "record", {
        value(this: StickyFailure, errno: number) {
          record.call(this, errno);
          failures.add(this);
          words.set(this, errno);
        },
      }),
      replace(StickyFailure.prototype, "status", {
        get(this: StickyFailure) {
          return words.has(this) ? words.get(this) : status.get!.call(this) * 0;
        },
      }),
    ];
    const { submit } = FileBackend.prototype;
    restore.push(replace(FileBackend.prototype, "submit", {
      value(this: FileBackend, ...request: Parameters<FileBackend["submit"]>) {
        for (const failure of failures) words.delete(failure);
        failures.clear();
        return submit.apply(this, request);
      },
    }));
    return () => restore.forEach((undo) => undo());
  },

  /** Whoever exports a disk after its storage has failed does not know of that. */
  "failure record": () => {
    const { hear } = Door.prototype;
    return replace(Door.prototype, "hear", {
      value(this: Door, ...[worker, message]: Parameters<Door["hear"]>) {
        if (message.say !== "failed") hear.call(this, worker, message);
      },
    });
  },

  /** A session is resumed although another has written meanwhile. */
  "write epoch": () => {
    const { open } = Registry.prototype;
    return replace(Registry.prototype, "open", {
      value(this: Registry, ...[request, peer]: Parameters<Registry["open"]>) {
        return open.call(this, { ...request, resume: null }, peer);
      },
    });
  },

  /** Mutations that overlap are under way at the same time. */
  "overlap rule": () => {
    const { enter } = OverlapTable.prototype;
    const restore = [
      replace(OverlapTable.prototype, "enter", {
        value(this: OverlapTable, ...request: Parameters<OverlapTable["enter"]>) {
          enter.apply(this, request);
          return true;
        },
      }),
      replace(OverlapTable.prototype, "isClear", { value: () => true }),
    ];
    return () => restore.forEach((undo) => undo());
  },

  /** After a request was given up, other lanes go on before its own is fenced. */
  "expiry fence": () => {
    const restore = [
      replace(MutationLedger.prototype, "oweFence", { value: () => {} }),
      replace(MutationLedger.prototype, "fenced", { value: () => {} }),
    ];
    return () => restore.forEach((undo) => undo());
  },

  /** What is lost is written again in any order. */
  "replay order": () =>
    replace(ReplayMemory.prototype, "inOrder", { value: (places: Uint32Array) => places.reverse() }),

  /** What was on stable storage by itself is not written again after what it had replaced. */
  "FUA in the replay": () =>
    replace(ReplayLog.prototype, "keeps", { value: (flags: number) => (flags & RequestFlag.FUA) === 0 }),

  /** Each lane judges by its own mutations whether a FLUSH has covered all. */
  "flush across lanes": () => {
    const { acknowledge } = MutationLedger.prototype;
    const losable = new WeakMap<MutationLedger, number>();
    const restore = [
      replace(MutationLedger.prototype, "acknowledge", {
        value(this: MutationLedger, isDurable?: boolean) {
          const order = acknowledge.call(this, isDurable);
          if (isDurable !== true) losable.set(this, order);
          return order;
        },
      }),
      replace(MutationLedger.prototype, "isCovered", {
        get(this: MutationLedger) {
          return ((this.covered - (losable.get(this) ?? this.covered)) | 0) >= 0;
        },
      }),
    ];
    return () => restore.forEach((undo) => undo());
  },

  /** A FLUSH covers what was acknowledged while it was under way. */
  "flush mark": () => {
    const { cover } = MutationLedger.prototype;
    return replace(MutationLedger.prototype, "cover", {
      value(this: MutationLedger) {
        cover.call(this, this.mark());
      },
    });
  },

  /** A session goes on although what it was acknowledged is lost. */
  "sticky loss": () => replace(MutationLedger.prototype, "lose", { value: () => {} }),
} satisfies Record<string, () => () => void>;

/** The name of a safeguard. */
export type Mutation = keyof typeof MUTATIONS;
