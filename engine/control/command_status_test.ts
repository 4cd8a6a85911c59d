import assert from "node:assert/strict";
import { channelOf, findAttachment, healthOf } from "./command_status.ts";
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

Deno.test("how an attachment speaks to its exporter is said in a few words", () => {
  const plain = { cipher: "none", digest: "xxh64", crypto: "wasm", key: null, lanes: 1 };
  assert.equal(channelOf(plain), "xxh64");
  assert.equal(channelOf({ ...plain, digest: "none", lanes: 4 }), "none, 4 lanes");
  const keyed = { ...plain, digest: "blake2b-256", key: "backup" };
  assert.equal(channelOf(keyed), "blake2b-256 (wasm), key backup");
  const sealed = { ...keyed, cipher: "aes-256-gcm", digest: "none", crypto: "openssl", lanes: 2 };
  assert.equal(channelOf(sealed), "aes-256-gcm (openssl), key backup, 2 lanes");
  assert.equal(channelOf({ ...sealed, crypto: undefined, lanes: 1 }), "aes-256-gcm, key backup");
  assert.equal(channelOf(null), "?");
});

Deno.test("while an exporter is given back what it had lost, that is how an attachment is", () => {
  const replay = { bytes: 4096, capacity: 8192, replaying: false };
  assert.equal(healthOf({ connected: true, failure: null, reconnecting: null, replay }), "connected");
  const status = { connected: true, failure: null, reconnecting: null, replay: { ...replay, replaying: true } };
  assert.equal(healthOf(status), "connected, writing again what the exporter had lost");
  assert.equal(healthOf({ ...status, failure: "something" }), "failed: something");
});
