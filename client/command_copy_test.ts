import assert from "node:assert/strict";
import { progressLine } from "./command_copy.ts";

const MIB = 1024 * 1024;

Deno.test("the progress bar is empty at the start and full at the end", () => {
  const empty = "-".repeat(30);
  const full = "#".repeat(30);
  assert.equal(
    progressLine({ done: 0, total: 8 * MIB, moved: 0 }, 0),
    `[${empty}]   0%  0 bytes of 8 MiB  0 bytes/s`,
  );
  assert.equal(
    progressLine({ done: 8 * MIB, total: 8 * MIB, moved: 2 * MIB }, 2000),
    `[${full}] 100%  8 MiB of 8 MiB  1 MiB/s`,
  );
  assert.match(progressLine({ done: 0, total: 0, moved: 0 }, 5), /100%/);
});

Deno.test("where the size is not known there is no bar", () => {
  assert.equal(progressLine({ done: 3 * MIB, total: null, moved: 3 * MIB }, 1000), "3 MiB  3 MiB/s");
});
