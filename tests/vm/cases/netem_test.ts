/**
 *                          100 ms and 1 % lost each way, and cuts
 *   fio on /dev/ublkbN ── dst attach ~~~~~~~~~~~~~~~~▶ dst export ──▶ file
 *                                   (netem on lo)
 *
 * @module
 */
import assert from "node:assert/strict";
import { run, scratchFolder } from "../guest_tools.ts";
import { makeDiskFile, startAttach, startExport } from "../disk.ts";
import { progress, VerifyingLoad } from "../load.ts";

const MIB = 1024 * 1024;
const FAR = ["delay", "100ms", "loss", "1%"];
/** A connection that is silent for 4 s is given up: some cuts are shorter, some longer. */
const LIVENESS = ["--ping-interval", "500ms", "--dead-after", "4s"];

function netem(...what: string[]) {
  return run(["tc", "qdisc", "replace", "dev", "lo", "root", "netem", ...what]);
}

function setLink(state: "up" | "down") {
  return run(["ip", "link", "set", "lo", state]);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What is done to the link, for how many milliseconds, and how it is undone. */
const CUTS = [
  { name: "nothing passes", ms: 1000, cut: () => netem("loss", "100%"), mend: () => netem(...FAR) },
  { name: "nothing passes", ms: 7000, cut: () => netem("loss", "100%"), mend: () => netem(...FAR) },
  { name: "the link is down", ms: 2000, cut: () => setLink("down"), mend: () => setLink("up") },
  { name: "the link is down", ms: 6000, cut: () => setLink("down"), mend: () => setLink("up") },
];

Deno.test("fio verifies over a slow and lossy link that is cut now and then", async () => {
  using folder = scratchFolder();
  await using exported = await startExport(folder.path, [await makeDiskFile(folder.path)]);
  const options = ["--lanes", "2", ...LIVENESS];
  await using attached = await startAttach(`${exported.address}/disk.img`, options);
  const { device } = attached;
  await netem(...FAR);
  try {
    await using load = new VerifyingLoad(device, { bytes: 3 * MIB, blockSizes: "4k/60:16k/30:64k/10", depth: 32 });
    for (const { name, ms, cut, mend } of CUTS) {
      await progress(device, 64, load);
      await cut();
      await sleep(ms);
      await mend();
      const afterMs = await progress(device, 1, load);
      console.log(`${name} for ${ms} ms: first completed request ${afterMs} ms after the link was restored`);
    }
    await load.stop();
    console.log(`${load.runs} runs of fio`);
  } finally {
    await setLink("up");
    await run(["tc", "qdisc", "del", "dev", "lo", "root"]);
  }
  await attached.leave();
  assert.doesNotMatch(attached.daemon.log, /\[error\]|had failed/);
  assert.equal(await exported.daemon.stop(), 0, exported.daemon.log);
});
