import assert from "node:assert/strict";
import { Access, Feature, type OpenRequest } from "../protocol/grant.ts";
import { LANES_MAX, LEASE_MS_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { bytesOfHex, hexOf, type OpenDecision, type RegisteredExport, Registry } from "./registry.ts";
import { newRecord } from "./state.ts";

const ADDRESS = "192.0.2.1:1000";

function id(number: number): Uint8Array {
  return new Uint8Array(16).fill(number);
}

function anExport(name: string, index: number, features = 0): RegisteredExport {
  const shape = { size: 1 << 20, logicalBlock: 512, physicalBlock: 4096, optimalIo: 4096, discardGranularity: 512 };
  return { index, name, shape, features, durability: id(9), oneWorker: false, record: newRecord("", 1000) };
}

function registry(...exports: RegisteredExport[]): Registry {
  return new Registry(id(1), exports);
}

function wish(session: number, more: Partial<OpenRequest> = {}): OpenRequest {
  return {
    export: "disk",
    session: id(session),
    access: Access.READ_WRITE,
    holder: `client ${session}`,
    leaseMs: null,
    depth: null,
    maxPayload: null,
    lanes: null,
    steal: false,
    resume: null,
    ...more,
  };
}

function refusedBy(decision: { kind: string }): { status: number; text: string; current: { text: string } | null } {
  assert.equal(decision.kind, "refused");
  return decision as unknown as { status: number; text: string; current: { text: string } | null };
}

function granted(of: Registry, decision: OpenDecision) {
  assert.equal(decision.kind, "granted");
  if (decision.kind !== "granted") throw new Error("unreachable");
  of.begin(decision.session, decision.record);
  return decision;
}

Deno.test("an unknown export is not found", () => {
  const refusal = refusedBy(registry(anExport("disk", 0)).open(wish(1, { export: "other" }), ADDRESS));
  assert.equal(refusal.status, Status.NOT_FOUND);
});

Deno.test("a read-only export is denied to writers and given to readers", () => {
  const of = registry(anExport("disk", 0, Feature.READ_ONLY));
  assert.equal(refusedBy(of.open(wish(1), ADDRESS)).status, Status.DENIED);
  assert.equal(granted(of, of.open(wish(1, { access: Access.READ }), ADDRESS)).record, null);
});

Deno.test("a second writer is refused and told who the first is; readers always come in", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), ADDRESS));
  const refusal = refusedBy(of.open(wish(2), "192.0.2.2:2"));
  assert.equal(refusal.status, Status.BUSY);
  assert.equal(refusal.current?.text, `client 1 at ${ADDRESS}`);
  granted(of, of.open(wish(3, { access: Access.READ }), ADDRESS));
});

Deno.test("a shared export takes several writers and keeps its write epoch", () => {
  const one = anExport("disk", 0, Feature.SHARED);
  const of = registry(one);
  const before = one.record.writeEpoch;
  assert.equal(granted(of, of.open(wish(1), ADDRESS)).record, null);
  assert.equal(granted(of, of.open(wish(2), ADDRESS)).record, null);
  assert.equal(one.record.writeEpoch, before);
});

Deno.test("the write epoch grows for another session and stays for the same", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  const before = one.record.writeEpoch;
  const first = granted(of, of.open(wish(1), ADDRESS));
  assert.equal(first.record?.writeEpoch, before + 1);
  of.end(first.session);
  const again = granted(of, of.open(wish(1), ADDRESS));
  assert.equal(again.record, null);
  of.end(again.session);
  assert.equal(granted(of, of.open(wish(2), ADDRESS)).record?.writeEpoch, before + 2);
});

Deno.test("stealing ends the holder first", () => {
  const of = registry(anExport("disk", 0));
  const first = granted(of, of.open(wish(1), ADDRESS)).session;
  const decision = of.open(wish(2, { steal: true }), ADDRESS);
  assert.equal(decision.kind, "end first");
  if (decision.kind === "end first") assert.equal(decision.session, first);
  of.end(first);
  granted(of, of.open(wish(2, { steal: true }), ADDRESS));
});

Deno.test("whoever comes while the holder is ending waits for the end", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), ADDRESS)).session.ending = true;
  assert.equal(of.open(wish(2), ADDRESS).kind, "end first");
});

Deno.test("an existing session cannot be opened again", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), ADDRESS));
  assert.equal(refusedBy(of.open(wish(1), ADDRESS)).status, Status.SESSION_EXISTS);
});

Deno.test("resuming needs the same storage, the same write epoch and the recorded session", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  const session = granted(of, of.open(wish(1), ADDRESS)).session;
  of.end(session);
  const { storage, durability, writeEpoch } = of.identities(one);
  const resume = { storage, durability, writeEpoch };
  const other = { ...resume, storage: id(77) };
  assert.equal(refusedBy(of.open(wish(1, { resume: other }), ADDRESS)).status, Status.STORAGE_CHANGED);
  const old = { ...resume, writeEpoch: writeEpoch - 1 };
  assert.equal(refusedBy(of.open(wish(1, { resume: old }), ADDRESS)).status, Status.EPOCH_CHANGED);
  assert.equal(refusedBy(of.open(wish(2, { resume }), ADDRESS)).status, Status.EPOCH_CHANGED);
  const otherDurability = { ...resume, durability: id(78) };
  granted(of, of.open(wish(1, { resume: otherDurability }), ADDRESS));
});

Deno.test("a refused resume leaves the write epoch as it was", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  of.end(granted(of, of.open(wish(1), ADDRESS)).session);
  const { storage, durability, writeEpoch } = of.identities(one);
  of.end(granted(of, of.open(wish(2), ADDRESS)).session);
  const epoch = one.record.writeEpoch;
  refusedBy(of.open(wish(1, { resume: { storage, durability, writeEpoch } }), ADDRESS));
  assert.equal(one.record.writeEpoch, epoch);
});

Deno.test("a lane is joined only with a higher generation, in a session that is there", () => {
  const of = registry(anExport("disk", 0));
  const session = granted(of, of.open(wish(1), ADDRESS)).session;
  session.lanes.set(0, { generation: 1, connected: true });
  const join = (lane: number, generation: number, of_ = 1) =>
    of.join({ session: id(of_), lane, generation, depth: null, maxPayload: null, fresh: false });
  assert.equal(refusedBy(join(0, 1)).status, Status.OLD_GENERATION);
  assert.equal(join(0, 2).kind, "granted");
  assert.equal(refusedBy(join(0, 2, 5)).status, Status.NO_SESSION);
  assert.equal(refusedBy(join(1, 1)).status, Status.BAD_REQUEST);
  session.ending = true;
  assert.equal(refusedBy(join(0, 3)).status, Status.NO_SESSION);
});

Deno.test("NBD clients hold an export like a session, and are nobody who could resume", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  const before = one.record.writeEpoch;
  const first = granted(of, of.openNbd(one, "nbd:0", "this machine"));
  assert.deepEqual([first.record?.writeEpoch, first.record?.session], [before + 1, ""]);
  assert.equal(refusedBy(of.open(wish(1), ADDRESS)).status, Status.BUSY);
  of.end(first.session);
  assert.equal(granted(of, of.openNbd(one, "nbd:0", "this machine")).record?.writeEpoch, before + 2);
});

Deno.test("LIST is sorted by bytes and paged", () => {
  const names = ["b", "a", "ä", "B", "aa"];
  const of = registry(...names.map((name, i) => anExport(name, i)));
  const first = of.list("", 2);
  assert.deepEqual([first.entries.map(({ name }) => name), first.more], [["B", "a"], true]);
  const rest = of.list("a", 10);
  assert.deepEqual([rest.entries.map(({ name }) => name), rest.more], [["aa", "b", "ä"], false]);
  assert.deepEqual(of.list("ä", 10), { entries: [], more: false });
});

Deno.test("lanes are what was wished for, at least one, up to the limit", () => {
  const of = new Registry(id(1), [anExport("disk", 0, Feature.SHARED)], 4);
  const lanes = (session: number, wished: number | null) =>
    granted(of, of.open(wish(session, { lanes: wished }), ADDRESS)).session.lanesGranted;
  assert.deepEqual([lanes(1, null), lanes(2, 0), lanes(3, 3), lanes(4, 4), lanes(5, 5)], [1, 1, 3, 4, 4]);
  const all = registry(anExport("disk", 0));
  assert.equal(granted(all, all.open(wish(1, { lanes: 1000 }), ADDRESS)).session.lanesGranted, LANES_MAX);
});

Deno.test("any lane that was granted is joined with any generation first", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1, { lanes: 3 }), ADDRESS)).session.lanes.set(0, { generation: 1, connected: true });
  const join = (lane: number, generation: number) =>
    of.join({ session: id(1), lane, generation, depth: null, maxPayload: null, fresh: false });
  assert.equal(join(1, 1).kind, "granted");
  assert.equal(join(2, 0xffff_ffff).kind, "granted");
  assert.equal(refusedBy(join(3, 1)).status, Status.BAD_REQUEST);
});

Deno.test("a lease is what was wished for, up to its limit", () => {
  const of = registry(anExport("disk", 0, Feature.SHARED));
  assert.equal(granted(of, of.open(wish(1), ADDRESS)).session.leaseMs, 0);
  assert.equal(granted(of, of.open(wish(2, { leaseMs: 5000 }), ADDRESS)).session.leaseMs, 5000);
  assert.equal(granted(of, of.open(wish(3, { leaseMs: 2 ** 32 - 1 }), ADDRESS)).session.leaseMs, LEASE_MS_MAX);
});

Deno.test("DESCRIBE names the writer", () => {
  const of = registry(anExport("disk", 0));
  assert.equal(of.describe("other"), null);
  assert.equal(of.describe("disk")?.current, null);
  granted(of, of.open(wish(1), ADDRESS));
  assert.equal(of.describe("disk")?.current?.text, `client 1 at ${ADDRESS}`);
});

Deno.test("hexadecimal digits and bytes are each other's inverse", () => {
  const bytes = Uint8Array.from({ length: 16 }, (_, i) => i * 17);
  assert.deepEqual(bytesOfHex(hexOf(bytes)), bytes);
});
