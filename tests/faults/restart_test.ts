/**
 * An exporter that is killed, stopped, or comes back with something else, under load.
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
const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);

/** The status of the one attachment. */
async function statusOf(place: Workplace) {
  return JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
}

for (
  const { signal, lanes, rounds, channel } of [
    { signal: "SIGKILL", lanes: 1, rounds: 10, channel: [] },
    { signal: "SIGKILL", lanes: 3, rounds: 5, channel: [] },
    { signal: "SIGKILL", lanes: 2, rounds: 3, channel: ["--key", "test.key"] },
    { signal: "SIGTERM", lanes: 1, rounds: 3, channel: [] },
    { signal: "SIGTERM", lanes: 3, rounds: 3, channel: [] },
  ] as const
) {
  Deno.test(
    `an exporter that ${signal} ends and that is started again, ${rounds} times, ${lanes} lane(s) ${channel.join(" ")}`,
    Workplace.test(async (place) => {
      console.log(`SEED=${seed}`);
      place.file("disk.img", SIZE);
      if (channel.length > 0) await place.run("keygen", "test");
      const served = ["disk.img", "--workers", "2", ...channel];
      const first = await place.exporter(...served);
      let exporter: DaemonChild = first.daemon;
      const nbd = `${place.folder}/nbd.sock`;
      const lane = ["--lanes", String(lanes)];
      const daemon = place.daemon("attach", `${first.address}/disk.img`, "--nbd", `unix:${nbd}`, ...lane, ...channel);
      await daemon.waitFor("attached");
      const load = await Workload.start(nbd, SIZE, 2 * lanes, seed);
      for (let round = 0; round < rounds; round++) {
        await load.progress(BETWEEN);
        await exporter.stop(signal);
        exporter = (await place.exporterAt(first.address, ...served)).daemon;
        const restartedMs = performance.now();
        await load.progress(1);
        const ms = Math.round(performance.now() - restartedMs);
        console.log(
          `${signal}, ${lanes} lane(s), round ${round + 1}: ${ms} ms from the start to the first completed I/O`,
        );
      }
      await load.progress(BETWEEN);
      await load.finish();
      while (!(await statusOf(place)).connected);
      const { code, stderr } = await place.run("detach", `unix:${nbd}`);
      assert.equal(code, 0, stderr);
      const { stderr: said } = await daemon.result();
      assert.doesNotMatch(said, /error|fail/);
      const outages = said.match(/; requests wait until/g)!.length;
      assert.equal(said.match(/Connected again after/g)!.length, outages, said);
      // A lane that is not back when the next round begins has one long outage.
      assert(lanes === 1 ? outages === rounds : outages <= rounds, said);
    }),
  );
}

Deno.test(
  "exactly the requests that waited for too long fail, and the device goes on when the exporter is there again",
  Workplace.test(async (place) => {
    place.file("disk.img", SIZE);
    const { daemon: exporter, address } = await place.exporter("disk.img");
    const nbd = `${place.folder}/nbd.sock`;
    // What is asked for late has six seconds left when the others fail: a busy machine needs some to start an exporter.
    const patience = ["--resend-interval", "2s", "--resends", "4"];
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", `unix:${nbd}`, ...patience);
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(nbd);
    const block = (fill: number) => new Uint8Array(4096).fill(fill);
    await disk.write(0, block(1));
    exporter.signal("SIGSTOP");
    // It is sent, and nobody executes it; the next one waits for it.
    const early = [disk.write(0, block(2)), disk.write(0, block(3)), disk.read(8192, block(0))];
    await new Promise((resolve) => setTimeout(resolve, 6000));
    exporter.signal("SIGKILL");
    await exporter.result();
    const late = disk.write(4096, block(4));
    late.catch(() => "it is awaited below");
    await Promise.all(early.map((one) => assert.rejects(one, /error/)));
    const { connected, reconnecting } = await statusOf(place);
    assert.deepEqual([connected, reconnecting.waiting, reconnecting.lanes], [false, 1, 1]);
    assert.match(
      (await place.run("status")).stdout,
      /reconnecting, [\d.]+ s, 1 transaction waiting, (next try|trying)/,
    );
    await place.exporterAt(address, "disk.img");
    await late;
    const found = block(0);
    await disk.read(4096, found);
    assert.deepEqual(found, block(4));
    await disk.write(0, block(5));
    await disk.read(0, found);
    assert.deepEqual(found, block(5));
    await disk.flush();
    await disk.close();
    const { code, stderr } = await place.run("detach", `unix:${nbd}`);
    assert.equal(code, 0, stderr);
    const said = (await daemon.result()).stderr;
    assert.match(said, /\[warning\] [^\n]* Requests fail from now on/);
    assert.match(said, /Connected again after [\d.]+ s; \d requests? sent again, 3 requests had failed/);
  }),
);

Deno.test(
  "an exporter that comes back with another disk under the name is not written to",
  Workplace.test(async (place) => {
    place.file("disk.img", SIZE);
    const { daemon: exporter, address } = await place.exporter("disk=disk.img");
    const nbd = `${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk`, "--nbd", `unix:${nbd}`, "--lanes", "2");
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(nbd);
    await disk.write(0, new Uint8Array(4096).fill(1));
    await exporter.stop("SIGKILL");
    const other = place.file("other.img", SIZE);
    await place.exporterAt(address, "disk=other.img");
    for (let i = 0; i < 2; i++) await assert.rejects(disk.write(0, new Uint8Array(4096).fill(2)), /error/);
    assert.match((await statusOf(place)).failure, /another disk under that name/);
    assert.match((await place.run("status")).stdout, /failed: the exporter has another disk under that name/);
    assert.equal(Deno.readFileSync(other).findIndex((byte) => byte !== 0), -1);
    await disk.close();
    await place.run("detach", `unix:${nbd}`, "--force");
    assert.match((await daemon.result()).stderr, /\[error\] client: The disk is lost: [^\n]*another disk/);
  }),
);

Deno.test(
  "whoever finds that another client has written meanwhile writes nothing",
  Workplace.test(async (place) => {
    place.file("disk.img", SIZE);
    const { daemon: exporter, address } = await place.exporter("disk.img");
    const attached = async (name: string) => {
      const nbd = `${place.folder}/${name}`;
      const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", `unix:${nbd}`);
      await daemon.waitFor("attached");
      return { daemon, disk: await NbdDisk.connect(nbd) };
    };
    const { daemon, disk } = await attached("one");
    await disk.write(0, new Uint8Array(4096).fill(1));
    daemon.signal("SIGSTOP");
    await exporter.stop("SIGKILL");
    await place.exporterAt(address, "disk.img");
    const second = await attached("two");
    await second.disk.write(0, new Uint8Array(4096).fill(2));
    daemon.signal("SIGCONT");
    await assert.rejects(disk.write(0, new Uint8Array(4096).fill(3)), /error/);
    const found = new Uint8Array(4096);
    await second.disk.read(0, found);
    assert.deepEqual(found, new Uint8Array(4096).fill(2));
    const { attachments } = JSON.parse((await place.run("status", "--json")).stdout);
    const failures = attachments.map(({ status }: { status: { failure: string | null } }) => status.failure);
    assert.equal(failures.filter((failure: string | null) => failure === null).length, 1);
    assert.match(failures.find((failure: string | null) => failure !== null), /another client has taken over/);
    await disk.close();
    await second.disk.close();
  }),
);
