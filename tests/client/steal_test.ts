/**
 * Several clients that take an export at the same time: one has it in the end, and the others are told.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { Operation } from "../../protocol/request.ts";
import { exportOf, startTestExporter, TestClient } from "./fixture.ts";

Deno.test("of several clients that take an export at once one has it in the end, and all others are told so", async () => {
  await using exporter = await startTestExporter("uring", [
    exportOf("disk", "mem:1M", { layers: ["delay:write=200"] }),
  ]);
  await using holder = new TestClient("uring");
  await holder.open(exporter);
  // What it has begun is finished before anybody else writes.
  holder.begin(1, Operation.WRITE, 0, 4096);
  assert.equal(await holder.ask(Operation.READ, 8192, 512), 0);
  await using one = new TestClient("uring");
  await using two = new TestClient("poll");
  await using three = new TestClient("uring");
  const thieves = [one, two, three];
  const opened = await Promise.allSettled(thieves.map((client) => client.open(exporter, { steal: true })));
  const reasons = opened.flatMap((one) => one.status === "rejected" ? [one.reason.message] : []);
  // Whoever is stolen from before it was told that it has the export.
  for (const reason of reasons) assert.match(reason, /taken the export meanwhile$|has ended the session meanwhile/);
  const all = [holder, ...thieves].filter(({ session }) => session !== null);
  const lost = () => all.filter(({ told }) => told.includes("lost: another client has taken over the export"));
  const isOver = () => lost().length === all.length - 1;
  await Promise.all(all.map((client) => client.until(() => client.told.length > 0 || isOver())));
  assert.ok(isOver());
  assert.ok(lost().includes(holder));
  assert.equal(holder.completions[holder.slots[1]], 1);
  for (const client of all) {
    const status = await client.write(4096, new Uint8Array(512).fill(7));
    assert.equal(status, lost().includes(client) ? -Errno.ESTALE : 0);
  }
});
