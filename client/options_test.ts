import assert from "node:assert/strict";
import { parseArguments } from "../engine/control/arguments.ts";
import { command } from "./command_attach.ts";
import { holderOf, sessionOptions } from "./options.ts";

Deno.test("a session has a depth, digests and a loop where none are given", () => {
  const options = sessionOptions(parseArguments(command.spec, ["h/x"])!);
  assert.equal(options.depth, 128);
  assert.deepEqual(options.digests, ["xxh64", "crc32c", "none"]);
  assert.equal(options.loop, "auto");
  assert.match(options.holder, / \(pid \d+\)$/);
});

Deno.test("a session has the depth, digests and loop that are given", () => {
  const args = ["h/x", "--depth=1024", "--digest=none", "--loop=poll"];
  const { depth, digests, loop } = sessionOptions(parseArguments(command.spec, args)!);
  assert.deepEqual({ depth, digests, loop }, { depth: 1024, digests: ["none"], loop: "poll" });
});

Deno.test("a holder has at most 255 bytes, and its process id in any case", () => {
  const holder = holderOf("x".repeat(300), 4194304);
  assert.equal(holder.length, 255);
  assert.match(holder, /x \(pid 4194304\)$/);
});
