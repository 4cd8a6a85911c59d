/**
 * Somebody else's load and comparison, through one fault after the other: fio writes, reads back and compares, and must not
 * notice a thing.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { DaemonChild } from "../../engine/control/child.ts";
import { Workplace } from "../cli/program.ts";
import { clientTest, fioVerifies, run } from "../nbd/tools.ts";
import { FaultyLink, type ProxyOrder } from "./proxy.ts";

const MIB = 1024 * 1024;
const JOBS = 3;
const MIB_EACH = 16;
/** How long fio is at work, in seconds. */
const RUNTIME_S = Deno.env.get("DST_TEST_LONG") === "1" ? 40 : 20;
const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);

const FAULTS: readonly (readonly [ProxyOrder, number])[] = [
  [{ do: "cut" }, 0],
  [{ do: "reset", withinBytes: 300_000 }, 300],
  [{ do: "refuse" }, 500],
  [{ do: "stall" }, 900],
  [{ do: "halfOpen" }, 0],
  [{ do: "corrupt", everyBytes: 3_000_000 }, 500],
  [{ do: "slow", bytesPerSecond: 2_000_000 }, 500],
  [{ do: "lose", delayMs: 100, lossPercent: 1 }, 1000],
];

for (const [lanes, channel] of [[1, []], [3, []], [2, ["--key", "test.key"]]] as const) {
  clientTest(
    `fio verifies through every fault of a link, and kills of the exporter: ${lanes} lane(s) ${channel.join(" ")}`,
    Workplace.test(async (place) => {
      console.log(`SEED=${seed}`);
      place.file("disk.img", JOBS * MIB_EACH * MIB);
      if (channel.length > 0) await place.run("keygen", "test");
      const served = ["disk.img", "--workers", "2", ...channel];
      const first = await place.exporter(...served);
      let exporter: DaemonChild = first.daemon;
      using link = await FaultyLink.to(first.address, seed);
      const nbd = `${place.folder}/nbd.sock`;
      const options = ["--lanes", String(lanes), "--ping-interval", "200ms", "--dead-after", "700ms", ...channel];
      const daemon = place.daemon("attach", `127.0.0.1:${link.port}/disk.img`, "--nbd", `unix:${nbd}`, ...options);
      await daemon.waitFor("attached");
      const load = [...fioVerifies(`nbd+unix:///?socket=${nbd}`, JOBS, MIB_EACH), "--time_based"];
      const working = run("fio", ...load, `--runtime=${RUNTIME_S}`);
      let isEnded = false;
      working.then(() => isEnded = true);
      let faults = 0;
      while (!isEnded) {
        const [order, forMs] = FAULTS[faults % FAULTS.length];
        await link.do(order);
        await sleep(forMs);
        await link.do({ do: "pass" });
        await sleep(400);
        if (++faults % 4 !== 0) continue;
        await exporter.stop("SIGKILL");
        exporter = (await place.exporterAt(first.address, ...served)).daemon;
        await sleep(400);
      }
      const { code, stdout, stderr } = await working;
      assert.equal(code, 0, stdout + stderr);
      console.log(`fio saw nothing of ${faults} faults`);
      while (!JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status.connected);
      const detached = await place.run("detach", `unix:${nbd}`);
      assert.equal(detached.code, 0, detached.stderr);
      assert.doesNotMatch((await daemon.result()).stderr, /\[error\]|fail/);
    }),
  );
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
