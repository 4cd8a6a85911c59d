import assert from "node:assert/strict";
import { formatDuration, parseDuration, writeDuration } from "./duration.ts";

const DAY_MS = 86_400_000;

Deno.test("a duration is a number of seconds, or has a unit", () => {
  const durations: [string, number][] = [
    ["5", 5000],
    ["0.25", 250],
    ["500ms", 500],
    ["1ms", 1],
    ["1.5s", 1500],
    ["2 m", 120_000],
    ["24h", DAY_MS],
    ["0.6ms", 1],
  ];
  for (const [text, ms] of durations) assert.equal(parseDuration(text, DAY_MS), ms, text);
});

Deno.test("what is no duration, or beyond the bounds, is refused with what can be", () => {
  for (const text of ["", "s", "-1", "1d", "1e3", "five", "1s2", "0x10"]) {
    assert.throws(() => parseDuration(text, DAY_MS), /Cannot read the duration ".*": expected a number of seconds/);
  }
  for (const text of ["0", "0ms", "0.4ms"]) assert.throws(() => parseDuration(text, DAY_MS), /at least 1 ms/);
  assert.throws(() => parseDuration("25h", DAY_MS), /at most 24 h can be/);
  assert.throws(() => parseDuration("11", 10_000), /at most 10 s can be/);
});

Deno.test("a duration is written with what matters of it", () => {
  const texts: [number, string][] = [
    [0, "0.0 s"],
    [49, "0.0 s"],
    [51, "0.1 s"],
    [3200, "3.2 s"],
    [9949, "9.9 s"],
    [9950, "10 s"],
    [119_400, "119 s"],
    [120_000, "2 min"],
    [7_199_999, "120 min"],
    [5_400_000 * 2, "3 h"],
    [DAY_MS * 1.5, "36 h"],
  ];
  for (const [ms, text] of texts) assert.equal(formatDuration(ms), text);
});

Deno.test("a duration is written so that it can be read again", () => {
  const texts: [number, string][] = [[1, "1ms"], [1500, "1500ms"], [5000, "5s"], [90_000, "90s"], [120_000, "2m"]];
  for (const [ms, text] of [...texts, [DAY_MS, "24h"] as const]) {
    assert.equal(writeDuration(ms), text);
    assert.equal(parseDuration(text, DAY_MS), ms);
  }
});
