import assert from "node:assert/strict";
import { CHUNK_BYTES, FileDisk, fillPattern, verifyPattern, writePattern } from "./demo_disk.ts";

Deno.test("the pattern differs between seeds and chunks, and is the same each time", () => {
  const seen = new Set<string>();
  for (const [seed, index] of [[0, 0], [0, 1], [1, 0], [1, 1], [0xffffffff, 511]]) {
    const chunk = new Uint32Array(64);
    const again = new Uint32Array(64);
    fillPattern(chunk, seed, index);
    fillPattern(again, seed, index);
    assert.deepEqual(chunk, again);
    assert.equal(new Set(chunk).size, 64);
    seen.add(chunk.join());
  }
  assert.equal(seen.size, 5);
});

Deno.test("what was written to a file is verified, and one wrong byte is found", async () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.truncateSync(path, 5 * CHUNK_BYTES);
    const disk = FileDisk.open(path);
    assert.equal(disk.size, 5 * CHUNK_BYTES);
    await writePattern(disk, 4 * CHUNK_BYTES, 7);
    await disk.dropCache();
    await verifyPattern(disk, 4 * CHUNK_BYTES, 7);
    await assert.rejects(verifyPattern(disk, 4 * CHUNK_BYTES, 8), /differs from what was written at byte 0$/);
    const byte = new Uint8Array(1);
    await disk.read(3 * CHUNK_BYTES + 9, byte);
    byte[0] ^= 1;
    await disk.write(3 * CHUNK_BYTES + 9, byte);
    await assert.rejects(verifyPattern(disk, 4 * CHUNK_BYTES, 7), new RegExp(`at byte ${3 * CHUNK_BYTES + 8}$`));
    await assert.rejects(disk.read(5 * CHUNK_BYTES - 1, new Uint8Array(2)), /ends at/);
    await disk.close();
  } finally {
    Deno.removeSync(path);
  }
});
