import assert from "node:assert/strict";
import { findAttachment } from "./command_status.ts";
import type { DaemonRecord } from "./runtime.ts";

function record(id: string, device: string | null, nbd: string | null): DaemonRecord {
  const attachment = { remote: "server:7700/x", device, nbd, size: 4096, readOnly: false };
  return {
    version: 1,
    kind: "attach",
    id,
    pid: 1,
    processStart: "1",
    bootId: "",
    startedAt: "",
    log: null,
    attachment,
    listening: [],
  };
}

Deno.test("an attachment is found by its id, its device in either form, or its NBD address or socket", () => {
  const records = [
    { ...record("0", null, null), kind: "export" as const, attachment: null },
    record("0", "/dev/ublkb0", null),
    record("nbd-9", null, "unix:/run/x.sock"),
  ];
  for (const text of ["0", "/dev/ublkb0", "ublkb0"]) assert.equal(findAttachment(records, text), records[1]);
  for (const text of ["nbd-9", "unix:/run/x.sock", "/run/x.sock"]) {
    assert.equal(findAttachment(records, text), records[2]);
  }
  assert.throws(() => findAttachment(records, "1"), /"1" is not attached here; there is \/dev\/ublkb0, unix:/);
  assert.throws(() => findAttachment([], "1"), /nothing is/);
});
