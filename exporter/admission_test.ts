import assert from "node:assert/strict";
import { parseRange } from "../engine/control/cidr.ts";
import type { SocketAddress } from "../ffi/sockaddr.ts";
import { type Access, Admission, SURPLUS_MAX } from "./admission.ts";
import { LIMIT_DEFAULTS, type Limits } from "./config_security.ts";
import type { AccessRules } from "./permissions.ts";

const ALICE = "a1".repeat(16);
const BOB = "b0".repeat(16);

function at(host: string): SocketAddress {
  return host.includes(":") ? { family: "ipv6", host, port: 1, scopeId: 0 } : { family: "ipv4", host, port: 1 };
}

function access(limits: Partial<Limits> = {}, rules: Partial<AccessRules> = {}): Access {
  return {
    rules: {
      allow: null,
      keys: [
        { id: ALICE, name: "alice", allow: null },
        { id: BOB, name: "bob", allow: [parseRange("10.0.0.0/8")] },
      ],
      exports: [{ name: "disk", allow: null, permissions: { alice: "read", bob: "read" } }],
      ...rules,
    },
    secrets: [ALICE, BOB].map((id, i) => ({ id, secret: new Uint8Array(32).fill(i + 1) })),
    ciphers: [1],
    digests: [3],
    limits: { ...LIMIT_DEFAULTS, ...limits },
  };
}

function admission(of: Access): { of: Admission; lines: string[] } {
  const lines: string[] = [];
  return { of: new Admission(of, (text) => lines.push(text)), lines };
}

Deno.test("strangers of one address are limited, and do not shut out others", () => {
  const { of } = admission(access({ connections: 10, connectionsPerAddress: 4 }));
  for (let i = 0; i < 4; i++) assert.equal(of.receive(at("192.0.2.1"), 0).kind, "stranger");
  const fifth = of.receive(at("192.0.2.1"), 0);
  assert.equal(fifth.kind, "surplus");
  assert.match(fifth.kind === "surplus" ? fifth.reason : "", /^4 connections from there/);
  assert.equal(of.receive(at("192.0.2.2"), 0).kind, "stranger");
  // One proves who it is: there is room for the next.
  of.gone("stranger", at("192.0.2.1"));
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "stranger");
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "surplus");
});

Deno.test("a subscriber's IPv6 addresses count as one", () => {
  const { of } = admission(access({ connectionsPerAddress: 2 }));
  assert.equal(of.receive(at("2001:db8::1"), 0).kind, "stranger");
  assert.equal(of.receive(at("2001:db8::ffff:2"), 0).kind, "stranger");
  assert.equal(of.receive(at("2001:db8::3"), 0).kind, "surplus");
  assert.equal(of.receive(at("2001:db8:0:1::3"), 0).kind, "stranger");
});

Deno.test("all strangers together are limited, those of unknown addresses too", () => {
  const { of } = admission(access({ connections: 3, connectionsPerAddress: 3 }));
  for (const address of [at("192.0.2.1"), null, null]) assert.equal(of.receive(address, 0).kind, "stranger");
  for (const address of [at("192.0.2.2"), null]) assert.equal(of.receive(address, 0).kind, "surplus");
  of.gone("stranger", null);
  assert.equal(of.receive(at("192.0.2.2"), 0).kind, "stranger");
});

Deno.test("who is told that there is no room is limited too, and beyond it nobody is told", () => {
  const { of } = admission(access({ connections: 1 }));
  of.receive(null, 0);
  for (let i = 0; i < SURPLUS_MAX; i++) assert.equal(of.receive(at("192.0.2.1"), 0).kind, "surplus");
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "closed");
  of.gone("surplus", at("192.0.2.1"));
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "surplus");
});

Deno.test("an address that has failed too often has to wait, and others need not", () => {
  const { of } = admission(access({ attempts: { burst: 3, perMinute: 6 } }));
  for (let i = 0; i < 3; i++) {
    assert.equal(of.receive(at("192.0.2.1"), 0).kind, "stranger");
    of.failed(at("192.0.2.1"), 0);
    of.gone("stranger", at("192.0.2.1"));
  }
  assert.equal(of.receive(at("192.0.2.1"), 9999).kind, "surplus");
  assert.equal(of.receive(at("192.0.2.2"), 9999).kind, "stranger");
  assert.equal(of.receive(at("192.0.2.1"), 10_000).kind, "stranger");
});

Deno.test("attempts that do not fail never count", () => {
  const { of } = admission(access({ attempts: { burst: 1, perMinute: 1 } }));
  for (let i = 0; i < 100; i++) {
    assert.equal(of.receive(at("192.0.2.1"), 0).kind, "stranger");
    of.gone("stranger", at("192.0.2.1"));
  }
});

Deno.test("an address that nobody may connect from is not even told so", () => {
  const { of } = admission(access({}, { allow: [parseRange("10.0.0.0/8")] }));
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "closed");
  assert.equal(of.receive(null, 0).kind, "closed");
  assert.equal(of.receive(at("10.1.2.3"), 0).kind, "stranger");
});

Deno.test("a key is given out only where it helps, and the log knows why not", () => {
  const { of } = admission(access());
  assert.deepEqual(of.keyFor(ALICE, at("192.0.2.1")), new Uint8Array(32).fill(1));
  assert.deepEqual(of.keyFor(BOB, at("10.0.0.1")), new Uint8Array(32).fill(2));
  assert.equal(of.keyFor(BOB, at("192.0.2.1")), 'the key "bob" may not be used from there');
  assert.equal(of.keyFor("cc".repeat(16), at("192.0.2.1")), "its key is not known");
  of.replace(access({}, { exports: [{ name: "disk", allow: null, permissions: { bob: "read" } }] }));
  assert.equal(of.keyFor(ALICE, at("192.0.2.1")), 'the key "alice" may use no export');
});

Deno.test("other rules take the old secrets away, and keep who is there and what was tried", () => {
  const before = access({ attempts: { burst: 1, perMinute: 1 }, connectionsPerAddress: 1 });
  const { of } = admission(before);
  of.receive(at("192.0.2.1"), 0);
  of.failed(at("192.0.2.2"), 0);
  of.replace(access({ attempts: { burst: 1, perMinute: 1 }, connectionsPerAddress: 1 }));
  for (const { secret } of before.secrets) assert.deepEqual(secret, new Uint8Array(32));
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "surplus");
  assert.equal(of.receive(at("192.0.2.2"), 0).kind, "surplus");
  of.replace(access({ attempts: { burst: 2, perMinute: 1 }, connectionsPerAddress: 2 }));
  assert.equal(of.receive(at("192.0.2.1"), 0).kind, "stranger");
  assert.equal(of.receive(at("192.0.2.2"), 0).kind, "stranger", "other limits begin anew");
});

Deno.test("lines about the refused are limited, and the rest is counted", () => {
  const rules = access({ logLinesPerMinute: 2 });
  const { of, lines } = admission(rules);
  for (let i = 0; i < 5; i++) of.log(`line ${i}`, i);
  assert.deepEqual(lines, ["line 0", "line 1"]);
  assert.ok(of.isHolding);
  of.tick(59_999);
  assert.equal(lines.length, 2);
  of.tick(60_000);
  assert.equal(lines[2], "… and 3 more such lines in the last minute");
  assert.ok(!of.isHolding);
  of.log("again", 60_001);
  assert.equal(lines[3], "again");
  for (let i = 0; i < 2; i++) of.log("more", 60_002);
  of.close();
  assert.deepEqual(lines.slice(4), ["more", "… and 1 more such line in the last minute"]);
  for (const { secret } of rules.secrets) assert.deepEqual(secret, new Uint8Array(32));
});
