/**
 * Looks into the product's own parts while a world runs, to count what they meet.
 *
 * @module
 */
import { StickyFailure } from "../../exporter/backends/sync.ts";
import { Arrival, SlotTable } from "../../protocol/slot_table.ts";
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

const { record } = StickyFailure.prototype;
StickyFailure.prototype.record = function (status) {
  if (this.status === 0) present?.count("sticky failures");
  record.call(this, status);
};
