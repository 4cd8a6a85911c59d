import assert from "node:assert/strict";
import { type DaemonSelf, isRunning, processStartOf, removeIfThere, RuntimeDirectory } from "./runtime.ts";

function withDirectory(work: (runtime: RuntimeDirectory) => void | Promise<void>) {
  return async () => {
    const folder = Deno.makeTempDirSync();
    try {
      await work(RuntimeDirectory.open(`${folder}/dst`));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

const self: DaemonSelf = { kind: "export", id: "7", log: null, attachment: null, listening: [] };

Deno.test(
  "a record is written, listed and removed",
  withDirectory((runtime) => {
    assert.deepEqual(runtime.list(), []);
    const record = runtime.register({ ...self, listening: [{ protocol: "dst", address: "127.0.0.1:7700" }] });
    assert.equal(record.pid, Deno.pid);
    assert.deepEqual(runtime.list(), [record]);
    runtime.unregister("export", "7");
    assert.deepEqual(runtime.list(), []);
    assert.deepEqual([...Deno.readDirSync(runtime.path)], []);
    runtime.unregister("export", "7");
  }),
);

Deno.test(
  "records are sorted by kind and number",
  withDirectory((runtime) => {
    for (const id of ["10", "9", "nbd-3"]) runtime.register({ ...self, id });
    const attachment = { remote: "h:1/x", device: "/dev/ublkb0", nbd: null, size: 4096, readOnly: false };
    runtime.register({ ...self, kind: "attach", id: "0", attachment });
    assert.deepEqual(runtime.list().map(({ kind, id }) => `${kind} ${id}`), [
      "attach 0",
      "export 9",
      "export 10",
      "export nbd-3",
    ]);
  }),
);

Deno.test(
  "the record of a process that is gone is removed with its socket",
  withDirectory(async (runtime) => {
    const record = runtime.register({ ...self });
    const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
    const processStart = processStartOf(child.pid)!;
    const path = `${runtime.path}/export-7.json`;
    Deno.writeTextFileSync(path, JSON.stringify({ ...record, pid: child.pid, processStart }));
    Deno.writeTextFileSync(runtime.socketPath("export", "7"), "");
    assert.equal(runtime.list().length, 1);
    child.kill("SIGKILL");
    await child.status;
    assert.deepEqual(runtime.list(), []);
    assert.deepEqual([...Deno.readDirSync(runtime.path)], []);
  }),
);

Deno.test(
  "a process that got the pid of another, or runs after another boot, is not it",
  withDirectory((runtime) => {
    const record = runtime.register({ ...self });
    assert(isRunning(record));
    assert(!isRunning({ ...record, processStart: "1" }));
    assert(!isRunning({ ...record, bootId: "another" }));
    assert(!isRunning({ ...record, pid: 0x3fffffff }));
  }),
);

Deno.test(
  "what is no record is passed over",
  withDirectory((runtime) => {
    Deno.writeTextFileSync(`${runtime.path}/export-1.json`, "{");
    Deno.writeTextFileSync(`${runtime.path}/export-2.json`, '{"version":2}');
    Deno.writeTextFileSync(`${runtime.path}/other.json`, "null");
    assert.deepEqual(runtime.list(), []);
  }),
);

Deno.test(
  "an id from elsewhere stays within the directory",
  withDirectory((runtime) => {
    assert.equal(runtime.socketPath("attach", "../x/y"), `${runtime.path}/attach-.._x_y.sock`);
    assert.throws(() => runtime.socketPath("attach", "x".repeat(40)), RangeError);
  }),
);

Deno.test("the directory is its user's alone, and one that others may write is refused", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const { path } = RuntimeDirectory.open(`${folder}/dst`);
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o700);
    Deno.chmodSync(path, 0o777);
    assert.throws(() => RuntimeDirectory.open(path), /only its user may write/);
    Deno.symlinkSync(folder, `${folder}/link`);
    assert.throws(() => RuntimeDirectory.open(`${folder}/link`), /only its user may write/);
    Deno.writeTextFileSync(`${folder}/file`, "");
    assert.throws(() => RuntimeDirectory.open(`${folder}/file`), /Cannot (make|use) the runtime directory/);
    assert.throws(() => RuntimeDirectory.open(`/tmp/${"x".repeat(70)}`), /too long/);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("removing what is not there is no error", () => {
  removeIfThere("/nonexistent/file");
});
