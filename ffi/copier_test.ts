import assert from "node:assert/strict";
import { Copier } from "./copier.ts";

Deno.test("bytes are copied from a thread's memory to one that threads share, and back", () => {
  const own = new Uint8Array(65536);
  const shared = new Uint8Array(new SharedArrayBuffer(4096));
  const [out, back] = [new Copier(shared, own), new Copier(own, shared)];
  for (let i = 0; i < 300; i++) own[5003 + i] = i;
  out.copy(11, 5003, 300);
  assert.deepEqual(shared.slice(10, 312), Uint8Array.of(0, ...Array.from({ length: 300 }, (_, i) => i % 256), 0));
  back.copy(9000, 11, 256);
  assert.deepEqual(own.slice(8999, 9257), Uint8Array.of(0, ...Array(256).keys(), 0));
  out.copy(0, 5004, 0);
  assert.equal(shared[0], 0);
});
