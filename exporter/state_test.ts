import assert from "node:assert/strict";
import { StateDirectory } from "./state.ts";

function inFolder(test: (path: string) => void): void {
  const path = Deno.makeTempDirSync();
  try {
    test(path);
  } finally {
    Deno.removeSync(path, { recursive: true });
  }
}

function onlyFile(path: string): string {
  const names = [...Deno.readDirSync(path)].map(({ name }) => name);
  assert.equal(names.length, 1, `one file in ${names}`);
  return `${path}/${names[0]}`;
}

Deno.test("a disk seen first gets a record that is there the next time", () =>
  inFolder((path) => {
    const record = new StateDirectory(`${path}/a/b`).load("file 1:2 3", 1_700_000_000_000);
    assert.equal(record.writeEpoch, 1_700_000_000_000_000);
    assert.match(record.storage, /^[0-9a-f]{32}$/);
    assert.equal(record.session, "");
    assert.deepEqual(new StateDirectory(`${path}/a/b`).load("file 1:2 3", 5), record);
  }));

Deno.test("a record of before failures were counted has none", () =>
  inFolder((path) => {
    const state = new StateDirectory(path);
    const record = state.load("a", 1);
    assert.equal(record.failures, 0);
    const { failures: _, ...before } = record;
    Deno.writeTextFileSync(onlyFile(path), JSON.stringify(before));
    assert.deepEqual(state.load("a", 1), record);
    state.save({ ...record, failures: 2 });
    assert.equal(state.load("a", 1).failures, 2);
  }));

Deno.test("different disks have different records", () =>
  inFolder((path) => {
    const state = new StateDirectory(path);
    assert.notEqual(state.load("a", 1).storage, state.load("b", 1).storage);
  }));

Deno.test("a saved record replaces the old one and leaves nothing else behind", () =>
  inFolder((path) => {
    const state = new StateDirectory(path);
    const changed = { ...state.load("a", 1), writeEpoch: 7777, session: "ab".repeat(16) };
    state.save(changed);
    assert.deepEqual(state.load("a", 1), changed);
    onlyFile(path);
  }));

for (const content of ["", "{}", "[1", '{"fingerprint":"a","storage":"x","writeEpoch":1,"session":""}']) {
  Deno.test(`a record that reads ${JSON.stringify(content)} is an error, and stays for a person to look at`, () =>
    inFolder((path) => {
      const state = new StateDirectory(path);
      state.load("a", 1);
      const file = onlyFile(path);
      Deno.writeTextFileSync(file, content);
      assert.throws(() => state.load("a", 1), /Cannot use the record/);
      assert.equal(Deno.readTextFileSync(file), content);
    }));
}

Deno.test("a state directory that is a file is one clear error", () =>
  inFolder((path) => {
    Deno.writeTextFileSync(`${path}/file`, "");
    assert.throws(() => new StateDirectory(`${path}/file`), /Cannot use the state directory .*--state-dir/);
  }));

Deno.test("a record that cannot be written is an error, and the old one stays", () =>
  inFolder((path) => {
    const state = new StateDirectory(path);
    const record = state.load("a", 1);
    Deno.mkdirSync(`${onlyFile(path)}.new`);
    assert.throws(() => state.save({ ...record, writeEpoch: 5 }), /Cannot write the record/);
    assert.deepEqual(state.load("a", 1), record);
  }));
