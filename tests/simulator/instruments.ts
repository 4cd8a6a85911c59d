/**
 * Looks into the product's own parts while a world runs, to count what they meet.
 *
 * @module
 */
import { StickyFailure } from "../../exporter/backends/sync.ts";
import { Arrival, SlotTable } from "../../protocol/slot_table.ts";
import { Violation } from "./checker.ts";
import type { Counters } from "./counters.ts";

let present: Counters | null = null;

/** Counts what happens from now on. */
export function watch(counters: Counters | null): void {
  present = counters;
}

const { classify } = SlotTable.prototype;
SlotTable.prototype.classify = function (slot, sequence, type, range) {
  const arrival = classify.call(this, slot, sequence, type, range);
  if (arrival === Arrival.DONE) present?.count("duplicates answered from the slot table");
  else if (arrival === Arrival.EXECUTING) present?.count("duplicates of what executes");
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

const { record } = StickyFailure.prototype;
StickyFailure.prototype.record = function (status) {
  if (this.status === 0) present?.count("sticky failures");
  record.call(this, status);
};
