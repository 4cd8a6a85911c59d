import assert from "node:assert/strict";
import type { Endpoint } from "../../engine/control/address.ts";
import { Random } from "../../engine/random.ts";
import { openLocal } from "../../exporter/local.ts";
import { copy, type CopyOptions, type CopyProgress, type CopyResult } from "../../client/copy.ts";
import {
  exportOf,
  type LoopName,
  MIB,
  plainChannel,
  startTestExporter,
  testEachLoop,
  type TestExporter,
} from "./fixture.ts";
import { Workplace } from "../cli/program.ts";

/** A folder that is removed at the end of the scope. */
class Folder implements Disposable {
  readonly path = Deno.makeTempDirSync({ prefix: "dst-copy-" });

  file(name: string): string {
    return `${this.path}/${name}`;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

function path(path: string): Endpoint {
  return { kind: "path", path };
}

function remote({ host, port }: TestExporter, name: string): Endpoint {
  return { kind: "remote", host, port, name };
}

function copied(loop: LoopName, from: Endpoint, to: Endpoint, more: Partial<CopyOptions> = {}): Promise<CopyResult> {
  return copy(from, to, {
    depth: 32,
    ...plainChannel(loop),
    holder: "a test",
    verify: true,
    onProgress: null,
    signal: new AbortController().signal,
    ...more,
  }, openLocal);
}

/** Makes a file with data here and there. */
function makeSparse(file: string, size: number, pieces: readonly [number, number][], seed = 1): Uint8Array {
  const random = new Random(seed);
  const content = new Uint8Array(size);
  using opened = Deno.openSync(file, { write: true, create: true, truncate: true });
  opened.truncateSync(size);
  for (const [offset, bytes] of pieces) {
    const piece = content.subarray(offset, Math.min(offset + bytes, size));
    for (let i = 0; i < piece.length; i++) piece[i] = random.below(256);
    opened.seekSync(offset, Deno.SeekMode.Start);
    for (let written = 0; written < piece.length;) written += opened.writeSync(piece.subarray(written));
  }
  return content;
}

function allocated(file: string): number {
  return Deno.statSync(file).blocks! * 512;
}

testEachLoop("a sparse file goes to an export and back, over what was there, and stays sparse", async (loop) => {
  using folder = new Folder();
  const size = 32 * MIB;
  const content = makeSparse(folder.file("a"), size, [[0, 5000], [9 * MIB + 512, 700_000], [size - 512, 512]]);
  await using exporter = await startTestExporter(loop, [exportOf("disk", `mem:${size}`)]);
  makeSparse(folder.file("full"), size, [[0, size]], 2);
  assert.equal((await copied(loop, path(folder.file("full")), remote(exporter, "disk"))).moved, size);
  const seen: CopyProgress[] = [];
  const there = await copied(loop, path(folder.file("a")), remote(exporter, "disk"), {
    onProgress: (progress) => seen.push(progress),
  });
  assert.equal(there.size, size);
  assert(there.moved < 2 * MIB, `${there.moved} bytes were moved`);
  assert.deepEqual(seen.at(-1), { done: size, total: size, moved: there.moved });
  // A file that is there is replaced, whatever it was.
  makeSparse(folder.file("back"), 40 * MIB, [[0, 40 * MIB]], 3);
  const back = await copied(loop, remote(exporter, "disk"), path(folder.file("back")));
  assert.equal(back.digest, there.digest);
  assert.deepEqual(Deno.readFileSync(folder.file("back")), content);
  assert(allocated(folder.file("back")) < 2 * MIB);
});

testEachLoop("files of any size are copied to the byte", async (loop) => {
  using folder = new Folder();
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:4M")]);
  for (const size of [0, 1, 511, 512, 513, 1000, 262_144, 262_145, 1_000_001]) {
    const content = makeSparse(folder.file("a"), size, [[0, size]], size + 1);
    assert.equal((await copied(loop, path(folder.file("a")), path(folder.file("b")))).size, size);
    assert.deepEqual(Deno.readFileSync(folder.file("b")), content, `${size} bytes`);
    await copied(loop, path(folder.file("a")), remote(exporter, "disk"));
    await copied(loop, remote(exporter, "disk"), path(folder.file("c")));
    assert.deepEqual(Deno.readFileSync(folder.file("c")).subarray(0, size), content, `${size} bytes`);
  }
});

Deno.test("any layout of data and holes arrives, from one exporter to another", async () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  using folder = new Folder();
  await using one = await startTestExporter(
    "uring",
    [exportOf("disk", folder.file("one"))].map((each) => {
      makeSparse(each.path, 3 * MIB, [[0, 3 * MIB]]);
      return each;
    }),
  );
  await using two = await startTestExporter("poll", [exportOf("disk", "mem:3M")]);
  for (let round = 0; round < 8; round++) {
    const pieces = Array.from({ length: random.below(12) }, (): [number, number] => {
      return [random.below(3 * MIB), 1 + random.below(300_000)];
    });
    const content = makeSparse(folder.file("a"), 3 * MIB, pieces, seed + round);
    await copied("poll", path(folder.file("a")), remote(one, "disk"), { depth: 1 + random.below(20) });
    await copied("uring", remote(one, "disk"), remote(two, "disk"), { depth: 1 + random.below(20) });
    await copied("uring", remote(two, "disk"), path(folder.file("b")));
    assert.deepEqual(Deno.readFileSync(folder.file("b")), content, `seed ${seed}, round ${round}`);
  }
});

Deno.test("what cannot be copied is refused before anything is written", async () => {
  using folder = new Folder();
  const content = makeSparse(folder.file("a"), 2 * MIB, [[0, 2 * MIB]]);
  await using exporter = await startTestExporter("uring", [
    exportOf("small", "mem:1M"),
    exportOf("fixed", "mem:4M", { readOnly: true }),
    exportOf("file", folder.file("a")),
  ]);
  const fails = (from: Endpoint, to: Endpoint, message: RegExp) => assert.rejects(copied("uring", from, to), message);
  makeSparse(folder.file("b"), 2 * MIB, [[0, 2 * MIB]]);
  const b = path(folder.file("b"));
  await fails(b, remote(exporter, "small"), /has 1 MiB \(1048576 bytes\), and 2 MiB \(2097152 bytes\) are needed/);
  await fails(b, remote(exporter, "fixed"), /no permission to write/);
  await fails(b, remote(exporter, "none"), /there is no export "none"/);
  await fails(b, b, /same file/);
  await fails(b, path(folder.file("a")), /exported or copied by another process/);
  await fails(path(folder.file("a")), b, /exported by another process/);
  await fails(path(folder.file("none")), b, /no such file/);
  await fails(path(folder.path), b, /directory/);
  await fails(b, path(folder.path), /directory|neither/);
  await fails({ kind: "stdio" }, { kind: "stdio" }, /one side must be a disk/);
  assert.equal(Deno.statSync(folder.file("b")).size, 2 * MIB);
  assert.deepEqual(Deno.readFileSync(folder.file("a")), content);
});

Deno.test("a copy that is interrupted, or whose disk fails, says that what it has written is incomplete", async () => {
  using folder = new Folder();
  makeSparse(folder.file("a"), 8 * MIB, [[0, 8 * MIB]]);
  await using exporter = await startTestExporter("uring", [
    exportOf("slow", "mem:8M", { layers: ["delay:50"] }),
    exportOf("bad", "mem:8M", { layers: ["error:write,offset=4M,length=512,errno=ENOSPC"] }),
  ]);
  const abort = new AbortController();
  const aborting = copied("uring", path(folder.file("a")), remote(exporter, "slow"), {
    depth: 1,
    signal: abort.signal,
    onProgress: ({ moved }) => {
      if (moved > 0) abort.abort(new Error("SIGINT came"));
    },
  });
  await assert.rejects(aborting, /^Error: SIGINT came; 127\.0\.0\.1:\d+\/slow is incomplete$/);
  await assert.rejects(
    copied("uring", path(folder.file("a")), remote(exporter, "bad")),
    /writing failed at byte 4194304: no space left on device; .*\/bad is incomplete/,
  );
});

Deno.test("where the exporter cannot write zeroes they are written as data", async () => {
  using folder = new Folder();
  const layers = ["error:write-zeroes,errno=EOPNOTSUPP"];
  await using exporter = await startTestExporter("uring", [exportOf("disk", "mem:4M", { layers })]);
  makeSparse(folder.file("full"), 4 * MIB, [[0, 4 * MIB]]);
  await copied("uring", path(folder.file("full")), remote(exporter, "disk"));
  const content = makeSparse(folder.file("a"), 4 * MIB, [[MIB, 4096]], 4);
  await copied("uring", path(folder.file("a")), remote(exporter, "disk"));
  await copied("uring", remote(exporter, "disk"), path(folder.file("b")));
  assert.deepEqual(Deno.readFileSync(folder.file("b")), content);
});

Deno.test(
  "standard input and output are copied from and to, of any size",
  Workplace.test(async (place) => {
    const { address } = await place.exporter("disk=mem:3M");
    const shell = async (script: string): Promise<string> => {
      const program = new URL("../../main.ts", import.meta.url).pathname;
      const { success, stderr } = await new Deno.Command("bash", {
        args: ["-o", "pipefail", "-c", script],
        env: { DST: `${Deno.execPath()} run --quiet -A ${program}` },
        cwd: place.folder,
        stdin: "null",
        stdout: "null",
      }).output();
      const said = new TextDecoder().decode(stderr);
      return success ? said : `failed: ${said}`;
    };
    for (const size of [0, 700, 262_144, 2_000_003]) {
      const content = makeSparse(`${place.folder}/a`, size, [[0, 400_000], [1_500_000, MIB]], size);
      const said = await shell(`cat a | $DST copy - ${address}/disk --verify && $DST copy ${address}/disk - > b`);
      assert.doesNotMatch(said, /failed/);
      assert.deepEqual(Deno.readFileSync(`${place.folder}/b`).subarray(0, size), content, `${size} bytes`);
      assert.doesNotMatch(await shell("cat a | $DST copy - c --verify && $DST copy c - > d"), /failed/);
      assert.deepEqual(Deno.readFileSync(`${place.folder}/c`), content, `${size} bytes`);
      assert.deepEqual(Deno.readFileSync(`${place.folder}/d`), content, `${size} bytes`);
    }
    assert.match(
      await shell(`head -c 4M /dev/zero | $DST copy - ${address}/disk`),
      /more than that came; .*incomplete/,
    );
  }),
);
