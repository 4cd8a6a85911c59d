import assert from "node:assert/strict";
import { noisePrimitives as noise } from "../engine/noise_primitives.ts";
import { hex, pattern, unhex } from "../tests/vectors/primitives.ts";
import { macKeys, nextKey } from "./key_schedule.ts";
import { REKEY_FRAMES } from "./limits.ts";

Deno.test("the keys of a direction are those of the golden vectors", async () => {
  const file = new URL("../tests/vectors/schedule.json", import.meta.url);
  const { vectors } = JSON.parse(await Deno.readTextFile(file)) as { vectors: Record<string, string | number>[] };
  assert.ok(vectors.some((vector) => Number(vector.i) > 1));
  for (const vector of vectors) {
    let key = unhex(String(vector.k0));
    for (let i = 0; i < Number(vector.i); i++) key = nextKey(noise, key) as Uint8Array<ArrayBuffer>;
    assert.equal(hex(key), vector.key, `K${vector.i}`);
    const { header, payload } = macKeys(noise, key);
    assert.equal(hex(header), vector.mac_header_key, `K${vector.i}`);
    assert.equal(hex(payload), vector.mac_payload_key, `K${vector.i}`);
    assert.equal(Number(vector.i) * REKEY_FRAMES, vector.first_frame);
  }
});

Deno.test("a key is left as it is, and what is derived from it is all different", () => {
  const key = pattern(32, 1);
  const next = nextKey(noise, key);
  const { header, payload } = macKeys(noise, key);
  assert.deepEqual(key, pattern(32, 1));
  assert.equal(new Set([key, next, header, payload].map(hex)).size, 4);
});

Deno.test("a key of another length is a mistake", () => {
  assert.throws(() => nextKey(noise, pattern(31, 1)), /32 bytes/);
  assert.throws(() => macKeys(noise, pattern(33, 1)), /32 bytes/);
});
