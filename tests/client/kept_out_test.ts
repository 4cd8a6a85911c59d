/**
 * A patient session whose exporter is there and does not let it back in, against a scripted exporter.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Status } from "../../protocol/status.ts";
import { Tlv } from "../../protocol/tlv.ts";
import { FrameType } from "../../protocol/wire.ts";
import { helloRefusal } from "../protocol/scripted_exporter.ts";
import { greet, PatientLane, rejoin, scripted, SharedSession, start } from "./patient.ts";

Deno.test("a reason that stays is told of once, after several tries, and it goes on trying", async () => {
  using exporter = scripted();
  const [lane, first] = await start(exporter);
  await using _ = lane;
  first.peer.close();
  for (let i = 0; i < 7; i++) {
    const visit = await greet(exporter);
    await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
    await visit.refuse(Status.DENIED, "You may only read it");
    await visit.peer.ended();
    assert.equal(lane.told.length, i < 5 ? 1 : 2);
  }
  assert.match(lane.told[1], /^kept out: 127\.0\.0\.1:\d+ refuses: You may only read it$/);
  assert.equal(lane.session.away!.reason, lane.told[1].slice("kept out: ".length));
  const visit = await greet(exporter);
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  const asked = await visit.grant();
  assert.equal(asked.has(Tlv.RESUME), true);
  const read = lane.read(0, 512);
  await visit.reply(await visit.take(), new Uint8Array(512));
  assert.equal((await read).status, 0);
  assert.deepEqual(lane.told.slice(2), ["back, 0 resent"]);
});

Deno.test("so is a hello that is refused, and not what passes by itself", async () => {
  for (const [status, isTold] of [[Status.KEY_REQUIRED, true], [Status.TOO_MANY, false]] as const) {
    using exporter = scripted();
    const [lane, first] = await start(exporter);
    await using _ = lane;
    first.peer.close();
    for (let i = 0; i < 7; i++) {
      const visit = await exporter.accept();
      await visit.hello();
      await visit.answerHello(helloRefusal(status, "no"));
      visit.peer.close();
    }
    assert.equal(lane.told.some((text) => text.startsWith("kept out: ")), isTold);
  }
});

Deno.test("a lane that asks too early, while another one finds the way back, asks again at once", async () => {
  using exporter = scripted();
  const shared = new SharedSession();
  const [one] = await start(exporter, { shared }, { lanes: 2 });
  await using _one = one;
  const [two, { visit: first }] = await Promise.all([
    PatientLane.open(exporter.port, { shared, lane: 1 }),
    rejoin(exporter, { lanes: 2 }, 1),
  ]);
  await using _two = two;
  first.peer.close();
  for (let i = 0; i < 4; i++) {
    const visit = await greet(exporter);
    await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
    await visit.peer.ended();
  }
  const visit = await greet(exporter);
  two.session.hurry();
  await visit.refuseType(FrameType.JOIN, Status.NO_SESSION, "no such session");
  await visit.peer.ended();
  assert.equal(two.session.away!.nextMs, 0);
  await rejoin(exporter, { lanes: 2 }, 1);
});
