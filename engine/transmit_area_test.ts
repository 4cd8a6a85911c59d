import assert from "node:assert/strict";
import { arenaBytes } from "./engine.ts";
import { makeArena } from "../wasm/core.ts";
import { PREFIX_BYTES_MAX } from "../protocol/wire.ts";
import { SLOT_PAYLOAD_BYTES, SLOT_PREFIX_BYTES, SLOT_STRIDE_BYTES, Slots } from "./slots.ts";
import { TransmitArea, transmitSlots } from "./transmit_area.ts";

function makeArea(count: number): { area: TransmitArea; slots: Slots } {
  const slots = new Slots(makeArena(arenaBytes(count + 1)));
  // Slots that are not neighbours in memory's order.
  return { area: new TransmitArea(slots, slots.reserve(count)!), slots };
}

Deno.test("payloads of a slot's size fill the area, one in each slot, and come back in order", () => {
  const { area, slots } = makeArea(3);
  const places = [0, 1, 2].map(() => area.take(SLOT_PAYLOAD_BYTES));
  assert.deepEqual(places, Array.from(area.slots, (slot) => slots.payloadAt(slot)));
  assert.equal(area.take(1), -1);
  area.giveBack();
  assert.equal(area.take(SLOT_PAYLOAD_BYTES), places[0]);
  assert.equal(area.take(1), -1);
});

Deno.test("random payloads lie on pages of their own, with room for a prefix, and never over one another", () => {
  const seed = Number(Deno.env.get("DST_SEED") ?? 4711);
  let state = seed;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
  const { area, slots } = makeArea(4);
  const inSlot = (at: number) =>
    area.slots.findIndex((slot) => {
      const from = slots.payloadAt(slot) - SLOT_PREFIX_BYTES;
      return at >= from && at < from + SLOT_STRIDE_BYTES;
    });
  const taken: { at: number; bytes: number }[] = [];
  let refused = 0;
  for (let step = 0; step < 20_000; step++) {
    if (random(2) === 0 && taken.length > 0) {
      taken.shift();
      area.giveBack();
      continue;
    }
    const bytes = 1 + random([1, 4096, 4097, 65_536, SLOT_PAYLOAD_BYTES][random(5)]);
    const at = area.take(bytes);
    if (at < 0) {
      refused++;
      // A slot's worth at least is in use, or else there would have been room.
      assert.ok(taken.length > 0, `seed ${seed}`);
      continue;
    }
    assert.equal(at % 4096, 0, `seed ${seed}`);
    const first = inSlot(at - PREFIX_BYTES_MAX);
    assert.ok(first >= 0 && first === inSlot(at + bytes - 1), `seed ${seed}: within one slot`);
    for (const other of taken) {
      const isApart = at + bytes <= other.at - PREFIX_BYTES_MAX || other.at + other.bytes <= at - PREFIX_BYTES_MAX;
      assert.ok(isApart, `seed ${seed}`);
    }
    taken.push({ at, bytes });
  }
  assert.ok(refused > 100, `seed ${seed}`);
});

Deno.test("an area that is empty begins anew, and giving back what was not taken is a programmer's error", () => {
  const { area } = makeArea(2);
  const first = area.take(4096);
  area.take(4096);
  area.giveBack();
  area.giveBack();
  assert.equal(area.take(4096), first);
  area.clear();
  assert.equal(area.take(SLOT_PAYLOAD_BYTES), first);
  area.giveBack();
  assert.throws(() => area.giveBack(), /none is taken/);
  assert.throws(() => area.take(SLOT_PAYLOAD_BYTES + 1), /a slot is smaller/);
});

Deno.test("a small payload takes two pages, so a slot has room for 32", () => {
  const { area } = makeArea(2);
  for (let i = 0; i < 64; i++) assert.ok(area.take(1 + i * 64) >= 0);
  assert.equal(area.take(1), -1);
});

Deno.test("an area has two slots at least, and eight at most", () => {
  assert.deepEqual([1, 2, 5, 8, 128, 1024].map(transmitSlots), [2, 2, 5, 8, 8, 8]);
});
