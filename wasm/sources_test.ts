import assert from "node:assert/strict";
import { CRATE, makeRecord, RECORD, sourceFiles } from "./sources.ts";

Deno.test("the committed module was made from the sources beside it", async () => {
  const recorded = await Deno.readTextFile(new URL(RECORD, CRATE));
  assert.equal(recorded, await makeRecord(CRATE), "run deno task build:wasm and commit wasm/pkg/");
});

Deno.test("every Rust source and every setting of the build counts as a source", () => {
  const files = sourceFiles(CRATE);
  for (const path of ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo/config.toml", "src/lib.rs"]) {
    assert.ok(files.includes(path), path);
  }
  assert.deepEqual(files, [...new Set(files)].sort());
});

Deno.test("the committed module imports nothing and tells nothing of the machine that made it", async () => {
  const bytes = await Deno.readFile(new URL("pkg/dst_core_bg.wasm", CRATE));
  assert.deepEqual(WebAssembly.Module.imports(new WebAssembly.Module(bytes)), []);
  const text = new TextDecoder("latin1").decode(bytes);
  for (const folder of ["/home/", "/root/", "/tmp/", "/Users/", "/rustc/", ".cargo", ".rustup"]) {
    assert.ok(!text.includes(folder), `it contains ${folder}`);
  }
});
