/**
 *                                                             kill -9
 *   /dev/ublkbN ── dst attach ══════════▶ dst export: volatile cache ──▶ file
 *                  has copies of what     loses a part of what
 *                  is not flushed         is not flushed
 *
 * @module
 */
import assert from "node:assert/strict";
import { attempt, KILL_ROUNDS, scratchFolder, shell } from "../guest_tools.ts";
import { makeDiskFile, startAttach, startExport } from "../disk.ts";
import { killExporterUnderLoad } from "../kill_rounds.ts";

const CHUNK_BYTES = 64 * 1024;
const CHUNKS = 48;
const seed = Number(Deno.env.get("DST_TEST_SEED") ?? Date.now() % 2 ** 31);

/** A cache in which a half of what is not flushed is lost at a kill, another half each time. */
function volatileCache(nth: number): string[] {
  return ["--layer", `volatile:16M,through=0.5,seed=${(seed + nth) % 2 ** 31}`];
}

Deno.test(`an exporter that loses a part of its cache ${KILL_ROUNDS} times under load is missed by nobody`, () => {
  console.log(`replay with DST_TEST_SEED=${seed}`);
  return killExporterUnderLoad(volatileCache, ["--on-exporter-restart", "replay", "--lanes", "2"]);
});

for (const mode of ["replay", "fail"] as const) {
  const what = mode === "replay"
    ? "is written again by an attachment that replays"
    : "fails every write and flush of an attachment that does not replay, and is there to be seen";
  Deno.test(`what was not flushed and is lost with the exporter ${what}`, async () => {
    console.log(`replay with DST_TEST_SEED=${seed}`);
    using folder = scratchFolder();
    const file = await makeDiskFile(folder.path);
    let exported = await startExport(folder.path, [...volatileCache(0), file]);
    const { address } = exported;
    try {
      await using attached = await startAttach(`${address}/disk.img`, ["--on-exporter-restart", mode]);
      const { device } = attached;
      await shell(`head -c ${CHUNKS * CHUNK_BYTES} /dev/zero | tr '\\0' '\\377' >${folder.path}/data`);
      const write = `dd if=${folder.path}/data of=${device} bs=${CHUNK_BYTES} oflag=direct conv=notrunc status=none`;
      await shell(write);
      exported.daemon.signal("SIGKILL");
      await exported.daemon.wait();
      const kept = chunksOf(file);
      assert(kept > 0 && kept < CHUNKS, `the file has ${kept} of ${CHUNKS} chunks: a part is lost, and not all of it`);
      exported = await startExport(folder.path, [...volatileCache(1), file], address);
      if (mode === "replay") {
        assert.equal(await chunksOn(device), CHUNKS);
        await shell(`sync ${device}`);
        assert.equal(chunksOf(file), CHUNKS);
        await attached.leave();
        assert.match(attached.daemon.log, /replayed \d+ writes/i);
      } else {
        for (let i = 0; i < 3; i++) {
          const synced = await attempt([
            "dd",
            "if=/dev/zero",
            `of=${device}`,
            "bs=4096",
            "count=0",
            "conv=notrunc,fsync",
          ]);
          assert.match(synced.stderr, /Input\/output error/, `flush ${i}`);
          assert.match((await attempt(["sh", "-c", write])).stderr, /Input\/output error/, `write ${i}`);
        }
        assert.equal(await chunksOn(device), kept, "reads go on, and show what is left");
        assert.equal(await attached.daemon.stop(), 1, "what is lost is no success");
      }
      assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
    } finally {
      await exported.daemon[Symbol.asyncDispose]();
    }
  });
}

/** How many chunks the device shows. */
async function chunksOn(device: string): Promise<number> {
  const copy = Deno.makeTempFileSync();
  await shell(`dd if=${device} of=${copy} bs=${CHUNK_BYTES} count=${CHUNKS} iflag=direct status=none`);
  return chunksOf(copy);
}

/** How many chunks have been written, of those that there may be. */
function chunksOf(path: string): number {
  const bytes = new Uint8Array(CHUNKS * CHUNK_BYTES);
  using file = Deno.openSync(path, { read: true });
  assert.equal(file.readSync(bytes), bytes.length);
  const chunks = Array.from({ length: CHUNKS }, (_, i) => bytes.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES));
  for (const chunk of chunks) assert(chunk.every((byte) => byte === chunk[0]), "a chunk is there or not");
  return chunks.filter((chunk) => chunk[0] === 0xff).length;
}
