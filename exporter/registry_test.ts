import assert from "node:assert/strict";
import { parseRange } from "../engine/control/cidr.ts";
import { Access, Feature, type OpenRequest } from "../protocol/grant.ts";
import { LANES_MAX, LEASE_MS_MAX } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { type AccessRules, type ExportRule, Permissions } from "./permissions.ts";
import { bytesOfHex, hexOf, type OpenDecision, type Peer, type RegisteredExport, Registry } from "./registry.ts";
import { newRecord } from "./state.ts";

/** A peer without a key. */
function peer(host = "192.0.2.1", keyId: string | null = null): Peer {
  return { keyId, socketAddress: { family: "ipv4", host, port: 1000 }, address: `${host}:1000` };
}

const PEER = peer();
const ADDRESS = PEER.address;
const LIMITS = { sessions: 100, lanes: LANES_MAX };
const ALICE = "a1".repeat(16);
const BOB = "b0".repeat(16);

function id(number: number): Uint8Array {
  return new Uint8Array(16).fill(number);
}

function anExport(name: string, index: number, features = 0): RegisteredExport {
  const shape = { size: 1 << 20, logicalBlock: 512, physicalBlock: 4096, optimalIo: 4096, discardGranularity: 512 };
  return { index, name, shape, features, durability: id(9), oneWorker: false, record: newRecord("", 1000) };
}

/** Without a key everybody may use everything. */
function rules(exports: readonly RegisteredExport[], more: Partial<AccessRules> = {}): Permissions {
  const all = exports.map(({ name }) => ({ name, allow: null, permissions: null }));
  return new Permissions({ allow: null, keys: [], exports: all, ...more });
}

function registry(...exports: RegisteredExport[]): Registry {
  return new Registry(id(1), exports, rules(exports), LIMITS);
}

/** "disk" is Alice's to write and Bob's to read, "other" Alice's alone. */
const TWO_KEYS: AccessRules = {
  allow: null,
  keys: [{ id: ALICE, name: "alice", allow: null }, { id: BOB, name: "bob", allow: null }],
  exports: [
    { name: "disk", allow: null, permissions: { alice: "read-write", bob: "read" } },
    { name: "other", allow: null, permissions: { alice: "read-write" } },
  ],
};

function registryOf(more: Partial<AccessRules> = {}): Registry {
  const exports = [anExport("disk", 0), anExport("other", 1)];
  return new Registry(id(1), exports, new Permissions({ ...TWO_KEYS, ...more }), LIMITS);
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

function lane(generation: number, host = "192.0.2.1") {
  return { generation, connected: true, socketAddress: peer(host).socketAddress };
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
  const refusal = refusedBy(registry(anExport("disk", 0)).open(wish(1, { export: "other" }), PEER));
  assert.equal(refusal.status, Status.NOT_FOUND);
});

Deno.test("a read-only export is denied to writers and given to readers", () => {
  const of = registry(anExport("disk", 0, Feature.READ_ONLY));
  assert.equal(refusedBy(of.open(wish(1), PEER)).status, Status.DENIED);
  assert.equal(granted(of, of.open(wish(1, { access: Access.READ }), PEER)).record, null);
});

Deno.test("a second writer is refused and told who the first is; readers always come in", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), PEER));
  const refusal = refusedBy(of.open(wish(2), peer("192.0.2.2")));
  assert.equal(refusal.status, Status.BUSY);
  assert.equal(refusal.current?.text, `client 1 at ${ADDRESS}`);
  granted(of, of.open(wish(3, { access: Access.READ }), PEER));
});

Deno.test("a shared export takes several writers and keeps its write epoch", () => {
  const one = anExport("disk", 0, Feature.SHARED);
  const of = registry(one);
  const before = one.record.writeEpoch;
  assert.equal(granted(of, of.open(wish(1), PEER)).record, null);
  assert.equal(granted(of, of.open(wish(2), PEER)).record, null);
  assert.equal(one.record.writeEpoch, before);
});

Deno.test("the write epoch grows for another session and stays for the same", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  const before = one.record.writeEpoch;
  const first = granted(of, of.open(wish(1), PEER));
  assert.equal(first.record?.writeEpoch, before + 1);
  of.end(first.session);
  const again = granted(of, of.open(wish(1), PEER));
  assert.equal(again.record, null);
  of.end(again.session);
  assert.equal(granted(of, of.open(wish(2), PEER)).record?.writeEpoch, before + 2);
});

Deno.test("stealing ends the holder first", () => {
  const of = registry(anExport("disk", 0));
  const first = granted(of, of.open(wish(1), PEER)).session;
  const decision = of.open(wish(2, { steal: true }), PEER);
  assert.equal(decision.kind, "end first");
  if (decision.kind === "end first") assert.equal(decision.session, first);
  of.end(first);
  granted(of, of.open(wish(2, { steal: true }), PEER));
});

Deno.test("whoever comes while the holder is ending waits for the end", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), PEER)).session.ending = true;
  assert.equal(of.open(wish(2), PEER).kind, "end first");
});

Deno.test("an existing session cannot be opened again", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1), PEER));
  assert.equal(refusedBy(of.open(wish(1), PEER)).status, Status.SESSION_EXISTS);
});

Deno.test("resuming needs the same storage, the same write epoch and the recorded session", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  const session = granted(of, of.open(wish(1), PEER)).session;
  of.end(session);
  const { storage, durability, writeEpoch } = of.identities(one);
  const resume = { storage, durability, writeEpoch };
  const other = { ...resume, storage: id(77) };
  assert.equal(refusedBy(of.open(wish(1, { resume: other }), PEER)).status, Status.STORAGE_CHANGED);
  const old = { ...resume, writeEpoch: writeEpoch - 1 };
  assert.equal(refusedBy(of.open(wish(1, { resume: old }), PEER)).status, Status.EPOCH_CHANGED);
  assert.equal(refusedBy(of.open(wish(2, { resume }), PEER)).status, Status.EPOCH_CHANGED);
  const otherDurability = { ...resume, durability: id(78) };
  granted(of, of.open(wish(1, { resume: otherDurability }), PEER));
});

Deno.test("a refused resume leaves the write epoch as it was", () => {
  const one = anExport("disk", 0);
  const of = registry(one);
  of.end(granted(of, of.open(wish(1), PEER)).session);
  const { storage, durability, writeEpoch } = of.identities(one);
  of.end(granted(of, of.open(wish(2), PEER)).session);
  const epoch = one.record.writeEpoch;
  refusedBy(of.open(wish(1, { resume: { storage, durability, writeEpoch } }), PEER));
  assert.equal(one.record.writeEpoch, epoch);
});

Deno.test("a lane is joined only with a higher generation, in a session that is there", () => {
  const of = registry(anExport("disk", 0));
  const session = granted(of, of.open(wish(1), PEER)).session;
  session.lanes.set(0, lane(1));
  const join = (lane: number, generation: number, of_ = 1) =>
    of.join({ session: id(of_), lane, generation, depth: null, maxPayload: null, fresh: false }, PEER);
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
  assert.equal(refusedBy(of.open(wish(1), PEER)).status, Status.BUSY);
  of.end(first.session);
  assert.equal(granted(of, of.openNbd(one, "nbd:0", "this machine")).record?.writeEpoch, before + 2);
});

Deno.test("LIST is sorted by bytes and paged", () => {
  const names = ["b", "a", "ä", "B", "aa"];
  const of = registry(...names.map((name, i) => anExport(name, i)));
  const first = of.list("", 2, PEER);
  assert.deepEqual([first.entries.map(({ name }) => name), first.more], [["B", "a"], true]);
  const rest = of.list("a", 10, PEER);
  assert.deepEqual([rest.entries.map(({ name }) => name), rest.more], [["aa", "b", "ä"], false]);
  assert.deepEqual(of.list("ä", 10, PEER), { entries: [], more: false });
});

Deno.test("lanes are what was wished for, at least one, up to the limit", () => {
  const shared = [anExport("disk", 0, Feature.SHARED)];
  const of = new Registry(id(1), shared, rules(shared), { ...LIMITS, lanes: 4 });
  const lanes = (session: number, wished: number | null) =>
    granted(of, of.open(wish(session, { lanes: wished }), PEER)).session.lanesGranted;
  assert.deepEqual([lanes(1, null), lanes(2, 0), lanes(3, 3), lanes(4, 4), lanes(5, 5)], [1, 1, 3, 4, 4]);
  const all = registry(anExport("disk", 0));
  assert.equal(granted(all, all.open(wish(1, { lanes: 1000 }), PEER)).session.lanesGranted, LANES_MAX);
});

Deno.test("any lane that was granted is joined with any generation first", () => {
  const of = registry(anExport("disk", 0));
  granted(of, of.open(wish(1, { lanes: 3 }), PEER)).session.lanes.set(0, lane(1));
  const join = (lane: number, generation: number) =>
    of.join({ session: id(1), lane, generation, depth: null, maxPayload: null, fresh: false }, PEER);
  assert.equal(join(1, 1).kind, "granted");
  assert.equal(join(2, 0xffff_ffff).kind, "granted");
  assert.equal(refusedBy(join(3, 1)).status, Status.BAD_REQUEST);
});

Deno.test("a lease is what was wished for, up to its limit", () => {
  const of = registry(anExport("disk", 0, Feature.SHARED));
  assert.equal(granted(of, of.open(wish(1), PEER)).session.leaseMs, 0);
  assert.equal(granted(of, of.open(wish(2, { leaseMs: 5000 }), PEER)).session.leaseMs, 5000);
  assert.equal(granted(of, of.open(wish(3, { leaseMs: 2 ** 32 - 1 }), PEER)).session.leaseMs, LEASE_MS_MAX);
});

Deno.test("DESCRIBE names the writer", () => {
  const of = registry(anExport("disk", 0));
  assert.equal(of.describe("other", PEER), null);
  assert.equal(of.describe("disk", PEER)?.current, null);
  granted(of, of.open(wish(1), PEER));
  assert.equal(of.describe("disk", PEER)?.current?.text, `client 1 at ${ADDRESS}`);
});

Deno.test("hexadecimal digits and bytes are each other's inverse", () => {
  const bytes = Uint8Array.from({ length: 16 }, (_, i) => i * 17);
  assert.deepEqual(bytesOfHex(hexOf(bytes)), bytes);
});

Deno.test("an export that a key may not use is not there for it, and one that it may only read is read-only", () => {
  const of = registryOf();
  const [alice, bob] = [peer("192.0.2.1", ALICE), peer("192.0.2.2", BOB)];
  const seenBy = (one: Peer) => of.list("", 10, one).entries.map(({ name, access }) => [name, access]);
  assert.deepEqual(seenBy(alice), [["disk", Access.READ_WRITE], ["other", Access.READ_WRITE]]);
  assert.deepEqual(seenBy(bob), [["disk", Access.READ]]);
  assert.deepEqual(seenBy(peer("192.0.2.3", "cc".repeat(16))), []);
  assert.deepEqual(seenBy(PEER), []);
  assert.equal(of.describe("other", alice)?.access, Access.READ_WRITE);
  assert.equal(of.describe("disk", bob)?.access, Access.READ);
  assert.equal(of.describe("other", bob), null);
  assert.equal(refusedBy(of.open(wish(1), bob)).status, Status.DENIED);
  const hidden = refusedBy(of.open(wish(1, { export: "other" }), bob));
  const absent = refusedBy(of.open(wish(1, { export: "nothing" }), bob));
  assert.deepEqual([hidden.status, hidden.text.replace("other", "nothing")], [absent.status, absent.text]);
  granted(of, of.open(wish(1, { access: Access.READ }), bob));
  granted(of, of.open(wish(2), alice));
});

Deno.test("pages of LIST hold what the peer may see alone", () => {
  const exports = Array.from({ length: 10 }, (_, i) => anExport(`e${i}`, i));
  const some = exports.map(({ name }, i): ExportRule => ({
    name,
    allow: null,
    permissions: i % 3 === 0 ? { bob: "read" } : {},
  }));
  const of = new Registry(id(1), exports, new Permissions({ ...TWO_KEYS, exports: some }), LIMITS);
  const bob = peer("192.0.2.2", BOB);
  const first = of.list("", 2, bob);
  assert.deepEqual([first.entries.map(({ name }) => name), first.more], [["e0", "e3"], true]);
  const second = of.list("e3", 2, bob);
  assert.deepEqual([second.entries.map(({ name }) => name), second.more], [["e6", "e9"], false]);
});

Deno.test("a session is joined under the key that opened it, and no other", () => {
  const of = registryOf();
  const alice = peer("192.0.2.1", ALICE);
  const { session } = granted(of, of.open(wish(1, { lanes: 2 }), alice));
  assert.deepEqual([session.keyId, session.keyName], [ALICE, "alice"]);
  const join = (one: Peer) =>
    of.join({ session: id(1), lane: 1, generation: 1, depth: null, maxPayload: null, fresh: false }, one);
  const refusal = refusedBy(join(peer("192.0.2.1", BOB)));
  assert.equal(refusal.status, Status.NO_SESSION);
  assert.equal(refusedBy(join(PEER)).text, refusal.text);
  assert.equal(join(peer("192.0.2.9", ALICE)).kind, "granted");
});

Deno.test("only who may write steals, under whatever key", () => {
  const of = registryOf();
  const { session } = granted(of, of.open(wish(1), peer("192.0.2.1", ALICE)));
  assert.equal(refusedBy(of.open(wish(2, { steal: true }), peer("192.0.2.2", BOB))).status, Status.DENIED);
  of.replace(
    new Permissions({
      ...TWO_KEYS,
      exports: [{ name: "disk", allow: null, permissions: { "*": "read-write" } }],
    }),
    LIMITS,
  );
  const decision = of.open(wish(2, { steal: true }), peer("192.0.2.2", BOB));
  assert.equal(decision.kind === "end first" && decision.session, session);
});

Deno.test("other rules end the sessions whose rights are gone, and no others", () => {
  const of = registryOf();
  const writer = granted(of, of.open(wish(1), peer("192.0.2.1", ALICE))).session;
  const reader = granted(of, of.open(wish(2, { access: Access.READ }), peer("192.0.2.1", ALICE))).session;
  const bob = granted(of, of.open(wish(3, { access: Access.READ }), peer("192.0.2.2", BOB))).session;
  for (const session of [writer, reader]) session.lanes.set(0, lane(1));
  bob.lanes.set(0, lane(1, "192.0.2.2"));
  const ended = (more: Partial<AccessRules>) => of.replace(new Permissions({ ...TWO_KEYS, ...more }), LIMITS);
  const disk = (permissions: Record<string, "read" | "read-write">, allow: AccessRules["allow"] = null) => ({
    exports: [{ name: "disk", allow, permissions }],
  });
  assert.deepEqual(ended({}), []);
  assert.deepEqual(ended(disk({ alice: "read-write", bob: "read-write" })), []);
  assert.deepEqual(ended(disk({ alice: "read", bob: "read" })), [writer]);
  assert.deepEqual(ended(disk({ bob: "read" })), [writer, reader]);
  assert.deepEqual(ended({ keys: [TWO_KEYS.keys[1]] }), [writer, reader]);
  assert.deepEqual(ended({ allow: [parseRange("192.0.2.2")] }), [writer, reader]);
  assert.deepEqual(ended({ keys: [TWO_KEYS.keys[0], { ...TWO_KEYS.keys[1], allow: [] }] }), [bob]);
  assert.deepEqual(ended({ exports: [] }), [writer, reader, bob]);
  writer.ending = true;
  assert.deepEqual(ended({ exports: [] }), [reader, bob], "one that ends already is not ended twice");
});

Deno.test("a lane from an address that the rules do not have any more ends its session", () => {
  const of = registryOf();
  const { session } = granted(of, of.open(wish(1, { lanes: 2 }), peer("192.0.2.1", ALICE)));
  session.lanes.set(0, lane(1, "192.0.2.1"));
  session.lanes.set(1, lane(1, "192.0.2.77"));
  const allow = [parseRange("192.0.2.0/26")];
  assert.deepEqual(of.replace(new Permissions({ ...TWO_KEYS, allow }), LIMITS), [session]);
  session.lanes.set(1, lane(2, "192.0.2.2"));
  assert.deepEqual(of.replace(new Permissions({ ...TWO_KEYS, allow }), LIMITS), []);
});

Deno.test("NBD clients have no rights to lose, and are no sessions that count", () => {
  const of = registryOf();
  const [one] = of.exports;
  granted(of, of.openNbd(one, "nbd:0", "this machine"));
  assert.deepEqual(of.replace(new Permissions({ ...TWO_KEYS, exports: [] }), { sessions: 1, lanes: 1 }), []);
  of.replace(new Permissions(TWO_KEYS), { sessions: 1, lanes: 1 });
  const alice = peer("192.0.2.1", ALICE);
  granted(of, of.open(wish(1, { access: Access.READ }), alice));
  assert.equal(refusedBy(of.open(wish(2, { access: Access.READ }), alice)).status, Status.TOO_MANY);
});

Deno.test("an export that is added is there, and one that is removed is not, whatever its sessions still do", () => {
  const [one, other] = [anExport("disk", 0), anExport("other", 1)];
  const of = registry(one);
  of.add(other);
  of.replace(rules([one, other]), LIMITS);
  assert.deepEqual(of.list("", 10, PEER).entries.map(({ name }) => name), ["disk", "other"]);
  const { session } = granted(of, of.open(wish(1), PEER));
  const ending = granted(of, of.open(wish(2, { access: Access.READ }), PEER)).session;
  ending.ending = true;
  granted(of, of.open(wish(3, { export: "other" }), PEER));
  assert.deepEqual(of.remove(0), [session]);
  assert.deepEqual(of.list("", 10, PEER).entries.map(({ name }) => name), ["other"]);
  assert.equal(of.describe("disk", PEER), null);
  assert.equal(refusedBy(of.open(wish(4), PEER)).status, Status.NOT_FOUND);
  assert.equal(refusedBy(of.openNbd(one, "nbd:0", "this machine")).status, Status.NOT_FOUND);
  assert.equal(of.exportOf(0), one, "its sessions still end");
  // Another of that name is another.
  const again = anExport("disk", 2);
  of.add(again);
  assert.equal(granted(of, of.open(wish(4), PEER)).session.export, again);
  assert.deepEqual(of.sessionsOf(one).length, 2);
});

Deno.test("the log tells an export that is not there from one that a peer may not use; the peer is told the same", () => {
  const own = (name: string) => ({ name, allow: [parseRange("198.51.100.0/24")], permissions: null });
  const of = registryOf({ exports: [TWO_KEYS.exports[0], own("other")] });
  const [alice, bob] = [peer("192.0.2.1", ALICE), peer("192.0.2.2", BOB)];
  const refusalOf = (name: string, one: Peer, by = of) => {
    const refusal = by.open(wish(1, { export: name, access: Access.READ }), one);
    if (refusal.kind !== "refused") throw new Error(refusal.kind);
    assert.equal(by.describe(name, one), null);
    assert.equal(by.whyNotFound(name, one), refusal.logText);
    return [refusal.status, refusal.text.replaceAll(name, "NAME"), refusal.logText];
  };
  const told = [Status.NOT_FOUND, 'There is no export "NAME"'];
  assert.deepEqual(refusalOf("none", bob), [...told, 'there is no export "none"']);
  assert.deepEqual(refusalOf("other", alice), [...told, 'the export "other" may not be used from there']);
  assert.deepEqual(refusalOf("other", bob, registryOf()), [...told, 'the key "bob" may not use the export "other"']);
  assert.deepEqual(refusalOf("disk", peer("192.0.2.2", "cc".repeat(16))), [
    ...told,
    'a key that is gone may not use the export "disk"',
  ]);
  const denied = of.open(wish(1), bob);
  assert.equal(denied.kind === "refused" && denied.text, 'You may only read the export "disk"');
  assert.equal(denied.kind === "refused" && denied.logText, 'the key "bob" may only read the export "disk"');
});
