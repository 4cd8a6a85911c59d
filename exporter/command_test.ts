import assert from "node:assert/strict";
import { parseArguments } from "../engine/control/arguments.ts";
import { command, exporterOptions } from "./command.ts";

function options(...args: string[]) {
  return exporterOptions(parseArguments(command.spec, args)!);
}

Deno.test("an export has safe defaults", () => {
  const { exports, listen, nbd, loop, digests, stateDir, workers } = options("disk.img");
  assert.deepEqual(exports, [
    {
      name: "disk.img",
      path: "disk.img",
      readOnly: false,
      shared: false,
      direct: false,
      layers: [],
      allow: null,
      permissions: null,
    },
  ]);
  assert.deepEqual(listen, { host: "127.0.0.1", port: 7700 });
  assert.equal(nbd, null);
  assert.equal(loop, "auto");
  assert.equal(workers, 1);
  assert.equal(digests[0], "xxh64");
  assert.match(stateDir, /\/dst$/);
});

Deno.test("switches speak of every disk", () => {
  const { exports } = options("a=x", "y", "--read-only", "--direct", "--layer", "delay:1", "--layer=error:write");
  assert.deepEqual(exports.map(({ name, readOnly, direct }) => [name, readOnly, direct]), [
    ["a", true, true],
    ["y", true, true],
  ]);
  assert.deepEqual(exports[0].layers, ["delay:1", "error:write"]);
});

Deno.test("what the command line says goes before the file, and its disks are added", () => {
  const path = Deno.makeTempFileSync({ suffix: ".toml" });
  try {
    Deno.writeTextFileSync(path, 'listen = "::1"\nloop = "poll"\n[[exports]]\npath = "/b"\n');
    const { exports, listen, loop } = options("/a", "--config", path, "--loop", "uring", "--read-only");
    assert.deepEqual(exports.map(({ path, readOnly }) => [path, readOnly]), [["/a", true], ["/b", true]]);
    assert.deepEqual(listen, { host: "::1", port: 7700 });
    assert.equal(loop, "uring");
    assert.equal(options("--config", path).exports.length, 1);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("exports that cannot be told apart, or none at all, are refused", () => {
  assert.throws(() => options("a/x", "b/x"), /Two exports have the name "x"/);
  assert.throws(() => options(), /Nothing to export/);
  assert.throws(() => options("a", "b", "--name", "c"), /--name needs exactly one PATH/);
  assert.equal(options("a", "--name", "c").exports[0].name, "c");
  assert.throws(() => options("a", "--name", "c\n"), /control characters/);
});

Deno.test("workers are counted", () => {
  assert.equal(options("disk.img", "--workers", "64").workers, 64);
  for (const count of ["0", "65", "two", "1.5"]) {
    assert.throws(() => options("disk.img", "--workers", count), /--workers: expected a whole number from 1 to 64/);
  }
});
