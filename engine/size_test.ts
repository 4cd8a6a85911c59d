import assert from "node:assert/strict";
import { formatSize, parseSize } from "./size.ts";

Deno.test("a size is read as bytes or with a binary prefix", () => {
  const cases: [string, number][] = [
    ["0", 0],
    ["512", 512],
    ["512B", 512],
    ["1k", 1024],
    ["64M", 64 * 1024 ** 2],
    ["1G", 1024 ** 3],
    ["10GiB", 10 * 1024 ** 3],
    ["10 GiB", 10 * 1024 ** 3],
    ["2tib", 2 * 1024 ** 4],
    ["7P", 7 * 1024 ** 5],
    ["1.5K", 1536],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});

Deno.test("what is not a size is refused with the text in the message", () => {
  for (const text of ["", "M", "-1", "1KB", "1X", "0x10", "1e3", "1.3", "1..5K", "9P", "64M,"]) {
    assert.throws(() => parseSize(text), (error) => error instanceof RangeError && error.message.includes(`"${text}"`));
  }
});

Deno.test("a size is written with the prefix that suits it", () => {
  const cases: [number, string][] = [
    [0, "0 bytes"],
    [1, "1 byte"],
    [1023, "1023 bytes"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [1024 ** 2 - 1, "1 MiB"],
    [64 * 1024 ** 2, "64 MiB"],
    [10 * 1024 ** 3, "10 GiB"],
    [8 * 1024 ** 5 - 1, "8 PiB"],
  ];
  for (const [bytes, text] of cases) assert.equal(formatSize(bytes), text);
});
