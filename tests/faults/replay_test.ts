/**
 * An exporter whose disk has a write cache that is gone with its process: killed under load, again and again.
 *
 * @module
 */
import assert from "node:assert/strict";
import { NbdDisk } from "../../client/demo_nbd.ts";
import type { DaemonChild } from "../../engine/control/child.ts";
import { Workplace } from "../cli/program.ts";
import { Workload } from "./workload.ts";

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
const BETWEEN = 300;
/** Half of what is written is on the disk at once: a part of what is not flushed is lost, here one write and there another. */
const SUBSET = "volatile:64M,through=0.5,seed=5";
const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);

/** The status of the one attachment. */
async function statusOf(place: Workplace) {
  return JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
}

for (
  const { what, lanes, rounds, cache, more } of [
    { what: "whole", lanes: 1, rounds: 5, cache: "volatile:64M", more: [] },
    { what: "in part", lanes: 3, rounds: 5, cache: SUBSET, more: [] },
    // The keeper's own flushes are all that makes room.
    { what: "whole", lanes: 2, rounds: 3, cache: "volatile:64M", more: ["--replay-buffer", "2M"] },
    { what: "in part", lanes: 1, rounds: 3, cache: SUBSET, more: ["--key", "test.key"] },
  ]
) {
  Deno.test(
    `with ${lanes} lane(s) ${more.join(" ")} nothing is missed that a killed exporter loses ${what}, ${rounds} times`,
    Workplace.test(async (place) => {
      console.log(`SEED=${seed}`);
      place.file("disk.img", SIZE);
      const channel = more[0] === "--key" ? more : [];
      if (channel.length > 0) await place.run("keygen", "test");
      const served = ["disk.img", "--layer", cache, ...channel];
      const first = await place.exporter(...served);
      let exporter: DaemonChild = first.daemon;
      const nbd = `${place.folder}/nbd.sock`;
      const lane = ["--lanes", String(lanes)];
      const daemon = place.daemon("attach", `${first.address}/disk.img`, "--nbd", `unix:${nbd}`, ...lane, ...more);
      await daemon.waitFor("attached");
      const load = await Workload.start(nbd, SIZE, 2 * lanes, seed);
      for (let round = 0; round < rounds; round++) {
        await load.progress(BETWEEN);
        await exporter.stop("SIGKILL");
        exporter = (await place.exporterAt(first.address, ...served)).daemon;
      }
      await load.progress(BETWEEN);
      await load.finish();
      const { replay, failure, connected } = await statusOf(place);
      assert.deepEqual([failure, connected, replay.replaying], [null, true, false]);
      assert.equal(replay.capacity, more[0] === "--replay-buffer" ? 2 * MIB : 64 * MIB - 64 * MIB % lanes * 1024);
      const { code, stderr } = await place.run("detach", `unix:${nbd}`);
      assert.equal(code, 0, stderr);
      const { stderr: said } = await daemon.result();
      assert.doesNotMatch(said, /error|fail/);
      const replays = said.match(/: replayed (\d+) writes? \([^)]+\) in [\d.]+ m?s/g) ?? [];
      console.log(replays.join("\n"));
      assert.ok(replays.length >= 1 && replays.length <= rounds, said);
    }),
  );
}

Deno.test(
  "without replay what a killed exporter loses is lost, and every flush after that says so",
  Workplace.test(async (place) => {
    place.file("disk.img", SIZE);
    const served = ["disk.img", "--layer", "volatile:8M"];
    const { daemon: exporter, address } = await place.exporter(...served);
    const nbd = `${place.folder}/nbd.sock`;
    const fail = ["--on-exporter-restart", "fail"];
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", `unix:${nbd}`, ...fail);
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(nbd);
    const block = (fill: number) => new Uint8Array(4096).fill(fill);
    await disk.write(0, block(1));
    await disk.flush();
    await disk.write(0, block(2));
    const found = block(0);
    await disk.read(0, found);
    assert.deepEqual(found, block(2));
    await exporter.stop("SIGKILL");
    await place.exporterAt(address, ...served);
    for (let i = 0; i < 3; i++) await assert.rejects(disk.flush(), /error/);
    await assert.rejects(disk.write(4096, block(3)), /error/);
    await disk.read(0, found);
    assert.deepEqual(found, block(1), "what was not flushed is gone");
    const { failure, replay } = await statusOf(place);
    assert.match(failure, /^what was written last and not flushed is lost/);
    assert.equal(replay, null);
    await disk.close();
    await place.run("detach", `unix:${nbd}`, "--force");
    assert.match(
      (await daemon.result()).stderr,
      /\[error\] client: What was written last and not flushed is lost[^\n]*reads go on/,
    );
  }),
);

Deno.test(
  "what cannot be written again is lost, and the log says why",
  Workplace.test(async (place) => {
    place.file("disk.img", SIZE);
    const { daemon: exporter, address } = await place.exporter("disk.img", "--layer", "volatile:8M");
    const nbd = `${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", `unix:${nbd}`, "--lanes", "2");
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(nbd);
    for (let i = 0; i < 8; i++) await disk.write(i * 65536, new Uint8Array(4096).fill(i));
    await exporter.stop("SIGKILL");
    const layers = ["--layer", "volatile:8M", "--layer", "error:write,offset=256K,length=4K,errno=ENOSPC"];
    await place.exporterAt(address, "disk.img", ...layers);
    for (let i = 0; i < 3; i++) await assert.rejects(disk.flush(), /error/);
    await disk.read(0, new Uint8Array(4096));
    const why = /has lost its memory, and the exporter could not (write|flush) it again: .*space/;
    assert.match((await statusOf(place)).failure, why);
    assert.match((await place.run("status")).stdout, why);
    await disk.close();
    await place.run("detach", `unix:${nbd}`, "--force");
    assert.match((await daemon.result()).stderr, why);
  }),
);
