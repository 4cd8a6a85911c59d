import assert from "node:assert/strict";
import {
  decodeSockaddr,
  encodeSockaddr,
  formatIpv6,
  formatSocketAddress,
  ipAddress,
  parseIpv4,
  parseIpv6,
  type SocketAddress,
  UNIX_PATH_BYTES_MAX,
} from "./sockaddr.ts";

Deno.test("IPv4 addresses are parsed strictly", () => {
  assert.deepEqual([...parseIpv4("192.0.2.255")!], [192, 0, 2, 255]);
  for (
    const wrong of ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.", "a.b.c.d", " 1.2.3.4", "-1.2.3.4"]
  ) {
    assert.equal(parseIpv4(wrong), null, wrong);
  }
});

Deno.test("IPv6 addresses are parsed in all their forms, and written in one", () => {
  const cases: [string, string][] = [
    ["::", "::"],
    ["::1", "::1"],
    ["1::", "1::"],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:db8::0:1", "2001:db8::1"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"],
    ["1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"],
    ["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
    ["::ffff:192.0.2.1", "::ffff:c000:201"],
    ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
    ["0:0:0:1:0:0:0:0", "0:0:0:1::"],
  ];
  for (const [text, canonical] of cases) {
    const bytes = parseIpv6(text);
    assert.ok(bytes, text);
    assert.equal(formatIpv6(bytes), canonical);
    assert.deepEqual(parseIpv6(canonical), bytes);
  }
});

Deno.test("what is no IPv6 address is refused", () => {
  const wrong = [
    "",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4::5:6:7:8",
    "12345::",
    "g::",
    "1.2.3.4",
  ];
  wrong.push("1.2.3.4::", "::1.2.3", "::1.2.3.4:5", ":1::2", "1:", "::1:", " ::1", "::1%1");
  for (const text of wrong) assert.equal(parseIpv6(text), null, text);
});

Deno.test("socket addresses have the layout of the kernel's structures", () => {
  const cases: [SocketAddress, string][] = [
    [{ family: "ipv4", host: "127.0.0.1", port: 7700 }, "02001e147f0000010000000000000000"],
    [
      { family: "ipv6", host: "::1", port: 65_535, scopeId: 3 },
      "0a00ffff00000000" + "0".repeat(31) + "1" + "03000000",
    ],
    [{ family: "unix", path: "/a" }, "01002f6100"],
    [{ family: "unix", path: "@ab" }, "0100006162"],
  ];
  for (const [address, hex] of cases) {
    const bytes = encodeSockaddr(address);
    assert.equal(bytes.toHex(), hex);
    assert.deepEqual(decodeSockaddr(bytes, bytes.length), address);
  }
});

Deno.test("what the kernel cut off or does not name is null or unnamed", () => {
  assert.deepEqual(decodeSockaddr(new Uint8Array([1, 0]), 2), { family: "unix", path: "" });
  assert.deepEqual(decodeSockaddr(new Uint8Array([1, 0, 47, 97]), 4), { family: "unix", path: "/a" });
  assert.equal(decodeSockaddr(new Uint8Array([2, 0, 1, 2, 3, 4, 5]), 7), null);
  assert.equal(decodeSockaddr(new Uint8Array(27).fill(10), 27), null);
  assert.equal(decodeSockaddr(new Uint8Array([16, 0, 0, 0]), 4), null);
  assert.equal(decodeSockaddr(new Uint8Array([2]), 1), null);
  assert.equal(decodeSockaddr(new Uint8Array(16), 17), null);
});

Deno.test("ports and paths out of range are refused", () => {
  for (const port of [-1, 65_536, 1.5, NaN]) {
    assert.throws(() => encodeSockaddr({ family: "ipv4", host: "127.0.0.1", port }), RangeError);
  }
  assert.throws(() => encodeSockaddr({ family: "ipv4", host: "localhost", port: 1 }), TypeError);
  assert.throws(() => encodeSockaddr({ family: "ipv6", host: "1.2.3.4", port: 1, scopeId: 0 }), TypeError);
  const longest = "/" + "x".repeat(UNIX_PATH_BYTES_MAX - 1);
  assert.equal(encodeSockaddr({ family: "unix", path: longest }).length, 110);
  for (const path of [longest + "x", "", "@", "/" + "é".repeat(54)]) {
    assert.throws(() => encodeSockaddr({ family: "unix", path }), RangeError);
  }
  assert.throws(() => encodeSockaddr({ family: "unix", path: "/a\0b" }), TypeError);
});

Deno.test("hosts become addresses, with a numeric zone where there is one", () => {
  assert.deepEqual(ipAddress("10.0.0.1", 80), { family: "ipv4", host: "10.0.0.1", port: 80 });
  assert.deepEqual(ipAddress("FE80::1%2", 80), { family: "ipv6", host: "fe80::1", port: 80, scopeId: 2 });
  for (const host of ["localhost", "", "::1%eth0", "::1%", "::1%1%2", "1.2.3.4%1"]) {
    assert.equal(ipAddress(host, 80), null, host);
  }
});

Deno.test("addresses are written as people write them", () => {
  assert.equal(formatSocketAddress({ family: "ipv4", host: "10.0.0.1", port: 80 }), "10.0.0.1:80");
  assert.equal(formatSocketAddress({ family: "ipv6", host: "::1", port: 80, scopeId: 0 }), "[::1]:80");
  assert.equal(formatSocketAddress({ family: "ipv6", host: "fe80::1", port: 80, scopeId: 2 }), "[fe80::1%2]:80");
  assert.equal(formatSocketAddress({ family: "unix", path: "/run/dst.sock" }), "unix:/run/dst.sock");
});
