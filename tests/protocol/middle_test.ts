import assert from "node:assert/strict";
import { randomBytes } from "./bytes.ts";
import { showsAny } from "./middle.ts";

Deno.test("sixteen bytes in a row are found wherever they stand, and fifteen are not", () => {
  const content = randomBytes(1, 1000);
  for (const [from, at] of [[0, 0], [984, 484], [500, 101], [333, 77]]) {
    const stream = randomBytes(2, 500);
    assert.ok(!showsAny(stream, content));
    stream.set(content.subarray(from, from + 15), at);
    // So that it is not sixteen by chance.
    stream[at + 15] = content[from + 15] ^ 1;
    if (at > 0) stream[at - 1] = content[from - 1] ^ 1;
    assert.ok(!showsAny(stream, content), `15 bytes at ${at}`);
    stream.set(content.subarray(from, from + 16), at);
    assert.ok(showsAny(stream, content), `16 bytes at ${at}`);
  }
});
