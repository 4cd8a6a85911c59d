import assert from "node:assert/strict";
import { newestRelease } from "./packages.ts";
import { judge, parseResult, stages } from "./run.ts";
import { loadOrder } from "./vm/boot.ts";
import { TextLineStream } from "./vm/lines.ts";

Deno.test("the result line of a test run is understood in all its forms", () => {
  const cases: [string, number, number, number][] = [
    ["ok | 12 passed | 0 failed (3s)", 12, 0, 0],
    ["FAILED | 9 passed | 1 failed (4s)", 9, 1, 0],
    ["ok | 2 passed (5 steps) | 0 failed | 3 ignored (1m2s)", 2, 0, 3],
    ["FAILED | 1 passed (2 steps) | 1 failed (1 step) | 1 ignored | 4 filtered out (4s)", 1, 1, 1],
    ["\x1b[0m\x1b[32mok\x1b[0m | 7 passed | 0 failed \x1b[90m(907ms)\x1b[0m", 7, 0, 0],
    ["ok | 0 passed | 0 failed (0ms)", 0, 0, 0],
  ];
  for (const [line, passed, failed, ignored] of cases) {
    assert.deepEqual(parseResult(line), { passed, failed, ignored }, line);
  }
});

Deno.test("other lines are no result", () => {
  for (const line of ["", "a test ... ok (3ms)", "ok", "12 passed, 0 failed", "  ok | 1 passed | 0 failed"]) {
    assert.equal(parseResult(line), null, line);
  }
});

Deno.test("a bad exit status is a failure even where no test failed", () => {
  const none = { passed: 0, failed: 0, ignored: 0 };
  assert.deepEqual(judge(none, 0, true), { passed: 1, failed: 0, ignored: 0 });
  assert.deepEqual(judge(none, 0, false), { passed: 0, failed: 1, ignored: 0 });
  assert.deepEqual(judge(none, 1, true), { passed: 0, failed: 0, ignored: 0 });
  assert.deepEqual(judge({ passed: 5, failed: 0, ignored: 1 }, 1, false), { passed: 5, failed: 1, ignored: 1 });
  assert.deepEqual(judge({ passed: 5, failed: 2, ignored: 0 }, 1, false), { passed: 5, failed: 2, ignored: 0 });
});

Deno.test("the unit tests are the first stage and the VM is the last", () => {
  const names = stages(false).map((stage) => stage.name);
  assert.equal(names[0], "format, lint, types, unit tests");
  assert.equal(names.at(-1), "vm");
  assert.equal(new Set(names).size, names.length);
});

Deno.test("the newest kernel is chosen by number, and only the plain flavour", () => {
  const offered = [
    "6.12.99+deb12-amd64",
    "6.12.117+deb12-amd64",
    "6.12.200+deb12-cloud-amd64",
    "6.1.0-40-amd64",
    ".unpack-x",
  ];
  assert.equal(newestRelease(offered), "6.12.117+deb12-amd64");
  assert.equal(newestRelease([]), null);
});

Deno.test("kernel modules are loaded after what they depend on, each once", () => {
  const dependencies = [
    "kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz",
    "kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz",
    "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz",
    "kernel/fs/netfs/netfs.ko.xz:",
    "",
  ].join("\n");
  const names = loadOrder(dependencies, ["9pnet_virtio", "9p"]).map((path) => path.replace(/.*\//, ""));
  assert.deepEqual(names, ["netfs.ko.xz", "9pnet.ko.xz", "9pnet_virtio.ko.xz", "9p.ko"]);
  assert.throws(() => loadOrder(dependencies, ["absent"]), /no module absent/);
});

Deno.test("text is cut into the same lines wherever its pieces are cut", async () => {
  const text = "one\r\ntwo\n\nthree";
  for (let cut = 0; cut <= text.length; cut++) {
    const pieces = ReadableStream.from([text.slice(0, cut), text.slice(cut)]);
    const lines = await Array.fromAsync(pieces.pipeThrough(new TextLineStream()));
    assert.deepEqual(lines, ["one", "two", "", "three"]);
  }
});
