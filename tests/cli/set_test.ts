import assert from "node:assert/strict";
import { Workplace } from "./program.ts";

Deno.test(
  "an attachment is as patient as its file, the command line and dst set say, and dst status shows it",
  Workplace.test(async (place) => {
    const { address } = await place.exporter("disk=mem:4M");
    const nbd = `unix:${place.folder}/nbd.sock`;
    Deno.writeTextFileSync(
      `${place.folder}/client.toml`,
      `resends = 7\nping_interval = "2s"\n[[attachments]]\nremote = "${address}/disk"\nresends = 9\nlanes = 2\n`,
    );
    const file = ["--config", "client.toml", "--resend-interval", "3"];
    const daemon = place.daemon("attach", `${address}/disk`, "--nbd", nbd, ...file);
    await daemon.waitFor("attached");
    const statusOf = async () => JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
    const atFirst = await statusOf();
    assert.equal(atFirst.lanes, 2);
    assert.deepEqual(atFirst.patience, {
      resendIntervalMs: 3000,
      resends: 9,
      connectTimeoutMs: 5000,
      pingIntervalMs: 2000,
      deadAfterMs: 15_000,
    });
    const { code, stdout, stderr } = await place.run("set", nbd, "--resends", "forever", "--dead-after=2500ms");
    assert.equal(code, 0, stderr);
    assert.equal(
      stdout,
      `${nbd}: resend interval 3s, resends forever, connect timeout 5s, ping interval 2s, dead after 2500ms\n`,
    );
    const expected = { ...atFirst.patience, resends: "forever", deadAfterMs: 2500 };
    assert.deepEqual((await statusOf()).patience, expected);
    assert.match((await place.run("status")).stdout, /^ID +RESEND INTERVAL[^]*\n\S+ +3s +forever +5s +2s +2500ms$/m);
    await place.fails(1, /^dst: Nothing is set: a connection that is given up after/, "set", nbd, "--dead-after", "2");
    assert.deepEqual((await statusOf()).patience, expected);
    const event = JSON.parse((await place.run("set", nbd, "--resends=5", "--json")).stdout);
    assert.deepEqual([event.event, event.nbd, event.resends], ["set", nbd, 5]);
    await place.fails(1, /"\/dev\/ublkb7" is not attached here/, "set", "/dev/ublkb7", "--resends", "5");
  }),
);
