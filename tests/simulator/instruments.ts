/**
 * Looks into the product's own parts while a world runs, to count what they meet.
 *
 * @module
 */
import { StickyFailure } from "../../exporter/backends/sync.ts";
import { Replayer } from "../../client/replay.ts";
import { Registry, type Session } from "../../exporter/registry.ts";
import { Arrival, SlotTable } from "../../protocol/slot_table.ts";
import { Violation } from "./checker.ts";
import type { Counters } from "./counters.ts";

/** Who is told of what is seen. */
export interface Watcher {
  readonly counters: Counters;
  /** A session begins at the exporter: nothing of those before it executes any more. */
  begun(session: Session): void;
  /** Somebody begins to write again what the exporter has lost. */
  replaying(): void;
}

let present: Watcher | null = null;

/** Tells somebody from now on, or nobody. */
export function watch(watcher: Watcher | null): void {
  present = watcher;
}

function count(what: string): void {
  present?.counters.count(what);
}

const { classify } = SlotTable.prototype;
SlotTable.prototype.classify = function (slot, sequence, type, range) {
  const arrival = classify.call(this, slot, sequence, type, range);
  if (arrival === Arrival.DONE) count("duplicates answered from the slot table");
  return arrival;
};

/** By table: the sequence that each slot has executed last. */
const executed = new WeakMap<SlotTable, Map<number, number>>();

const { begin, clear } = SlotTable.prototype;
SlotTable.prototype.begin = function (slot, sequence, type, range) {
  let sequences = executed.get(this);
  if (sequences === undefined) executed.set(this, sequences = new Map());
  if (sequences.get(slot) === sequence) throw new Violation(`request ${sequence} of slot ${slot} is executed twice`);
  sequences.set(slot, sequence);
  begin.call(this, slot, sequence, type, range);
};
SlotTable.prototype.clear = function () {
  executed.delete(this);
  clear.call(this);
};

const registry = { begin: Registry.prototype.begin, open: Registry.prototype.open };
Registry.prototype.open = function (request, peer) {
  const decision = registry.open.call(this, request, peer);
  if (decision.kind === "end first") count("steals");
  return decision;
};
Registry.prototype.begin = function (session, record) {
  registry.begin.call(this, session, record);
  present?.begun(session);
};

const replay = { begin: Replayer.prototype.begin };
Replayer.prototype.begin = function (epochs) {
  if (this.isActive) count("replays that began again");
  replay.begin.call(this, epochs);
  present?.replaying();
};

const { record } = StickyFailure.prototype;
StickyFailure.prototype.record = function (status) {
  if (this.status === 0) count("sticky failures");
  record.call(this, status);
};
