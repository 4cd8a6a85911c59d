/**
 * Completions of all back-ends of one loop: they share a handler, of which a loop has few.
 *
 * @module
 */
import type { CompletionHandler, Loop } from "../../ffi/loop.ts";

/** Brings each completion to whom the slot in its tag belongs at present. */
export class SlotDispatch implements CompletionHandler {
  /** The kind for the loop's operations, whose tag must be a slot. */
  readonly kind: number;
  readonly #owners: (CompletionHandler | null)[];

  private constructor(loop: Loop, slotCount: number) {
    this.kind = loop.register(this);
    this.#owners = new Array<CompletionHandler | null>(slotCount).fill(null);
  }

  /** The one of this loop; all who ask must have the same slots. */
  static of(loop: Loop, slotCount: number): SlotDispatch {
    let dispatch = dispatches.get(loop);
    if (dispatch === undefined) {
      dispatch = new SlotDispatch(loop, slotCount);
      dispatches.set(loop, dispatch);
    }
    if (dispatch.#owners.length !== slotCount) throw new RangeError("Cannot share a loop without sharing the slots");
    return dispatch;
  }

  /** Says who gets the completion of the operation that is queued next for the slot. */
  claim(slot: number, owner: CompletionHandler): void {
    this.#owners[slot] = owner;
  }

  complete(slot: number, generation: number, result: number): void {
    this.#owners[slot]!.complete(slot, generation, result);
  }
}

const dispatches = new WeakMap<Loop, SlotDispatch>();
