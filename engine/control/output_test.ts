import assert from "node:assert/strict";
import { messageOf } from "./failure.ts";
import { lineOf, table } from "./output.ts";
import { printable } from "./printable.ts";

Deno.test("an announcement is a line of text, or an object on one line", () => {
  const announcement = { json: { event: "x", text: "a\nb" }, text: "hello" };
  assert.equal(lineOf(announcement, false), "hello\n");
  assert.equal(lineOf(announcement, true), '{"event":"x","text":"a\\nb"}\n');
});

Deno.test("the columns of a table are as wide as their widest cell", () => {
  assert.equal(
    table([["A", "SIZE", "B"], ["long", "1", "x"], ["", "22222", ""]], [1]),
    [
      "A      SIZE  B",
      "long      1  x",
      "      22222",
      "",
    ].join("\n"),
  );
});

Deno.test("control characters of others do not reach the terminal", () => {
  assert.equal(printable("a\u001b[31m\nü"), "a?[31m?ü");
});

Deno.test("anything thrown has a message of one line", () => {
  assert.equal(messageOf(new Error("a\n  b")), "a b");
  assert.equal(messageOf(new TypeError()), "TypeError");
  assert.equal(messageOf("text"), "text");
});
