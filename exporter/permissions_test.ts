import assert from "node:assert/strict";
import { parseRange } from "../engine/control/cidr.ts";
import { ipAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import { type AccessRules, type KeyRule, type Permission, Permissions, type UsedRight } from "./permissions.ts";

const ALICE = "a".repeat(32);
const BOB = "b".repeat(32);
const EVE = "e".repeat(32);

function address(host: string): SocketAddress {
  const found = ipAddress(host, 40_000);
  assert.ok(found !== null, host);
  return found;
}

function ranges(...texts: string[]) {
  return texts.map(parseRange);
}

function key(id: string, name: string, ...allow: string[]): KeyRule {
  return { id, name, allow: allow.length === 0 ? null : ranges(...allow) };
}

function rules(changes: Partial<AccessRules> = {}): AccessRules {
  return { allow: null, keys: [], exports: [{ name: "disk", allow: null, permissions: null }], ...changes };
}

const HERE = address("127.0.0.1");

Deno.test("without keys and rules everybody may do everything with what there is", () => {
  const permissions = new Permissions(rules());
  assert.ok(!permissions.needsKey);
  assert.ok(permissions.admits(null, HERE));
  assert.equal(permissions.accessTo("disk", null, HERE), "read-write");
  assert.equal(permissions.accessTo("disk", null, null), "read-write");
  assert.equal(permissions.accessTo("other", null, HERE), null);
});

Deno.test("with keys nobody comes in without one of them", () => {
  const permissions = new Permissions(rules({ keys: [key(ALICE, "alice"), key(BOB, "bob")] }));
  assert.ok(permissions.needsKey);
  for (const id of [ALICE, BOB]) assert.equal(permissions.accessTo("disk", id, HERE), "read-write");
  for (const id of [null, EVE, "", "alice"]) {
    assert.ok(!permissions.admits(id, HERE));
    assert.equal(permissions.accessTo("disk", id, HERE), null);
  }
  // An unknown key does not open what needs none either.
  assert.ok(!new Permissions(rules()).admits(EVE, HERE));
});

Deno.test("an export with permissions is there for the keys that it names, as far as it says", () => {
  const permissions = new Permissions(rules({
    keys: [key(ALICE, "alice"), key(BOB, "bob"), key(EVE, "eve")],
    exports: [
      { name: "disk", allow: null, permissions: { alice: "read-write", bob: "read" } },
      { name: "public", allow: null, permissions: { alice: "read-write", "*": "read" } },
      { name: "shut", allow: null, permissions: {} },
    ],
  }));
  const access = (name: string) => [ALICE, BOB, EVE].map((id) => permissions.accessTo(name, id, HERE));
  assert.deepEqual(access("disk"), ["read-write", "read", null]);
  assert.deepEqual(access("public"), ["read-write", "read", "read"]);
  assert.deepEqual(access("shut"), [null, null, null]);
});

Deno.test("a key that may use nothing, or nothing from where it comes, does not come in", () => {
  const permissions = new Permissions(rules({
    keys: [key(ALICE, "alice"), key(BOB, "bob"), key(EVE, "eve", "10.0.0.0/8")],
    exports: [
      { name: "disk", allow: null, permissions: { bob: "read", eve: "read" } },
      { name: "near", allow: ranges("10.0.0.0/8"), permissions: { alice: "read" } },
    ],
  }));
  const admitted = (id: string) => [address("10.0.0.1"), HERE].map((from) => permissions.admits(id, from));
  assert.deepEqual(admitted(ALICE), [true, false]);
  assert.deepEqual(admitted(BOB), [true, true]);
  assert.deepEqual(admitted(EVE), [true, false]);
  assert.ok(!new Permissions(rules({ keys: [key(BOB, "bob")], exports: [] })).admits(BOB, HERE));
});

Deno.test("a key that has the name of what every object has gets no permission from it", () => {
  const permissions = new Permissions(rules({
    keys: [key(ALICE, "constructor"), key(BOB, "__proto__"), key(EVE, "toString")],
    exports: [{ name: "disk", allow: null, permissions: { dave: "read" } }],
  }));
  for (const id of [ALICE, BOB, EVE]) assert.equal(permissions.accessTo("disk", id, HERE), null);
});

Deno.test("without keys an export's permissions are those of everybody", () => {
  const permissions = new Permissions(
    rules({ exports: [{ name: "disk", allow: null, permissions: { "*": "read" } }] }),
  );
  assert.equal(permissions.accessTo("disk", null, HERE), "read");
});

Deno.test("addresses are checked for all, for the key and for the export, and each can only take away", () => {
  const permissions = new Permissions({
    allow: ranges("10.0.0.0/8", "2001:db8::/32"),
    keys: [key(ALICE, "alice", "10.1.0.0/16"), key(BOB, "bob")],
    exports: [
      { name: "disk", allow: null, permissions: null },
      { name: "near", allow: ranges("10.1.2.0/24", "10.2.0.0/16"), permissions: null },
    ],
  });
  const access = (name: string, id: string, host: string) => permissions.accessTo(name, id, address(host));
  assert.ok(permissions.admitsAddress(address("10.9.9.9")) && permissions.admitsAddress(address("2001:db8::1")));
  assert.ok(permissions.admitsAddress(address("::ffff:10.9.9.9")));
  assert.ok(!permissions.admitsAddress(address("11.0.0.1")) && !permissions.admitsAddress(null));
  assert.ok(permissions.admits(BOB, address("10.9.9.9")) && !permissions.admits(BOB, address("11.0.0.1")));
  assert.ok(permissions.admits(ALICE, address("10.1.9.9")) && !permissions.admits(ALICE, address("10.9.9.9")));
  assert.equal(access("disk", ALICE, "10.1.9.9"), "read-write");
  assert.equal(access("near", ALICE, "10.1.9.9"), null);
  assert.equal(access("near", ALICE, "10.1.2.9"), "read-write");
  assert.equal(access("near", ALICE, "10.2.0.1"), null);
  assert.equal(access("near", BOB, "10.2.0.1"), "read-write");
  assert.equal(access("near", BOB, "2001:db8::1"), null);
});

Deno.test("a list of addresses that is empty admits no address, and no list admits all", () => {
  assert.ok(!new Permissions(rules({ allow: [] })).admitsAddress(HERE));
  assert.ok(new Permissions(rules({ allow: null })).admitsAddress(null));
});

Deno.test("who came through a unix socket has been let in by its file", () => {
  const unix: SocketAddress = { family: "unix", path: "" };
  const permissions = new Permissions(rules({
    allow: ranges("10.0.0.0/8"),
    exports: [{ name: "disk", allow: ranges("10.0.0.0/8"), permissions: null }],
  }));
  assert.equal(permissions.accessTo("disk", null, unix), "read-write");
});

Deno.test("new rules end those whose rights they take, and nobody else", () => {
  const right = (id: string | null, access: Permission, host = "10.0.0.1", name = "disk"): UsedRight => ({
    export: name,
    keyId: id,
    address: address(host),
    access,
  });
  const rights = [
    right(ALICE, "read-write"),
    right(ALICE, "read"),
    right(BOB, "read"),
    right(ALICE, "read", "10.9.0.1"),
  ];
  const ended = (changes: Partial<AccessRules>) => {
    const permissions = new Permissions(rules({ keys: [key(ALICE, "alice"), key(BOB, "bob")], ...changes }));
    return rights.flatMap((one, index) => permissions.permits(one) ? [] : [index]);
  };
  const disk = (permissions: Record<string, Permission> | null, ...allow: string[]) => [
    { name: "disk", allow: allow.length === 0 ? null : ranges(...allow), permissions },
  ];
  assert.deepEqual(ended({}), []);
  assert.deepEqual(ended({ exports: disk({ alice: "read-write", bob: "read" }) }), []);
  // Bob's right grew: he goes on with what he has.
  assert.deepEqual(ended({ exports: disk({ alice: "read-write", bob: "read-write" }) }), []);
  assert.deepEqual(ended({ exports: disk({ alice: "read", bob: "read" }) }), [0]);
  assert.deepEqual(ended({ exports: disk({ alice: "read-write" }) }), [2]);
  assert.deepEqual(ended({ exports: disk(null, "10.0.0.0/16") }), [3]);
  assert.deepEqual(ended({ allow: ranges("10.0.0.0/16") }), [3]);
  assert.deepEqual(ended({ keys: [key(ALICE, "alice")] }), [2]);
  assert.deepEqual(ended({ keys: [key(ALICE, "alice", "10.9.0.0/16"), key(BOB, "bob")] }), [0, 1]);
  // The same name with another key is somebody else.
  assert.deepEqual(ended({ keys: [key(EVE, "alice"), key(BOB, "bob")] }), [0, 1, 3]);
  assert.deepEqual(ended({ exports: [] }), [0, 1, 2, 3]);
  // A key is needed from now on, and the other way round.
  assert.ok(!new Permissions(rules({ keys: [key(BOB, "bob")] })).permits(right(null, "read")));
  assert.deepEqual(ended({ keys: [] }), [0, 1, 2, 3]);
});

Deno.test("the log says why somebody does not come in", () => {
  const permissions = new Permissions(rules({
    allow: ranges("10.0.0.0/8"),
    keys: [key(ALICE, "alice", "10.1.0.0/16"), key(BOB, "bob")],
    exports: [{ name: "disk", allow: null, permissions: { alice: "read" } }],
  }));
  const here = address("10.1.0.1");
  assert.equal(permissions.whyNot(ALICE, here), null);
  assert.equal(permissions.whyNot(ALICE, address("10.2.0.1")), 'the key "alice" may not be used from there');
  assert.equal(permissions.whyNot(BOB, here), 'the key "bob" may use no export');
  assert.equal(permissions.whyNot(EVE, here), "its key is not known");
  assert.equal(permissions.whyNot(null, here), "it named no key");
  for (const id of [ALICE, null]) {
    assert.equal(permissions.whyNot(id, address("192.0.2.1")), "nobody may connect from there");
  }
  assert.deepEqual([ALICE, EVE, null].map((id) => permissions.nameOf(id)), ["alice", null, null]);
});

Deno.test("who has no key at all is judged by its address alone", () => {
  const permissions = new Permissions(rules({
    allow: ranges("10.0.0.0/8"),
    keys: [key(ALICE, "alice")],
    exports: [
      { name: "disk", allow: ranges("10.1.0.0/16"), permissions: { alice: "read" } },
      { name: "open", allow: null, permissions: null },
    ],
  }));
  const [inside, other, outside] = ["10.1.0.1", "10.2.0.1", "192.0.2.1"].map(address);
  assert.deepEqual([inside, other, outside].map((from) => permissions.admitsTo("disk", from)), [true, false, false]);
  assert.deepEqual([inside, other, outside].map((from) => permissions.admitsTo("open", from)), [true, true, false]);
  assert.ok(!permissions.admitsTo("nothing", inside));
  assert.ok(permissions.admitsTo("disk", { family: "unix", path: "" }));
});

Deno.test("rules survive being sent to another thread", () => {
  const sent = structuredClone(rules({ allow: ranges("10.0.0.0/8"), keys: [key(ALICE, "alice", "10.1.0.0/16")] }));
  const permissions = new Permissions(sent);
  assert.ok(permissions.admits(ALICE, address("10.1.0.1")) && !permissions.admits(ALICE, address("10.2.0.1")));
});
