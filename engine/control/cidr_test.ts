import assert from "node:assert/strict";
import { ipAddress, type SocketAddress } from "../../ffi/sockaddr.ts";
import { formatRange, ipBytes, isInRange, parseRange } from "./cidr.ts";

function address(host: string): SocketAddress {
  const found = ipAddress(host, 7700);
  assert.ok(found !== null, host);
  return found;
}

Deno.test("a range holds the addresses from its first to its last, and no others", () => {
  const cases: [range: string, within: string[], outside: string[]][] = [
    ["10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "10.1.2.3"], ["9.255.255.255", "11.0.0.0", "127.0.0.1"]],
    ["192.168.1.5", ["192.168.1.5"], ["192.168.1.4", "192.168.1.6", "192.168.2.5"]],
    ["192.168.1.4/31", ["192.168.1.4", "192.168.1.5"], ["192.168.1.3", "192.168.1.6"]],
    ["172.16.0.0/12", ["172.16.0.0", "172.31.255.255"], ["172.15.255.255", "172.32.0.0"]],
    ["128.0.0.0/1", ["128.0.0.0", "255.255.255.255"], ["127.255.255.255", "0.0.0.0"]],
    ["0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "::1", "2001:db8::1"]],
    ["2001:db8::/32", ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"], ["2001:db7:ffff::", "2001:db9::"]],
    ["2001:db8::/33", ["2001:db8:7fff::"], ["2001:db8:8000::"]],
    ["fe80::/10", ["fe80::1%3", "febf::1"], ["fec0::1", "fe7f::1"]],
    ["::1", ["::1"], ["::", "::2", "127.0.0.1", "0.0.0.1"]],
    ["::/0", ["::", "ffff::", "::1"], ["0.0.0.0", "127.0.0.1"]],
  ];
  for (const [text, within, outside] of cases) {
    const range = parseRange(text);
    for (const host of within) assert.ok(isInRange(range, address(host)), `${host} is in ${text}`);
    for (const host of outside) assert.ok(!isInRange(range, address(host)), `${host} is not in ${text}`);
    assert.equal(formatRange(range), text);
    assert.deepEqual(parseRange(formatRange(range)), range);
  }
});

Deno.test("an IPv4 address that came as an IPv4-mapped one is in the ranges of its IPv4 address alone", () => {
  const mapped = address("::ffff:10.1.2.3");
  assert.equal(mapped.family, "ipv6");
  assert.ok(isInRange(parseRange("10.0.0.0/8"), mapped));
  assert.ok(isInRange(parseRange("0.0.0.0/0"), mapped));
  assert.ok(!isInRange(parseRange("11.0.0.0/8"), mapped));
  assert.ok(!isInRange(parseRange("::/0"), mapped));
  assert.deepEqual([...ipBytes(mapped)!], [10, 1, 2, 3]);
  // Near it, and not it.
  assert.ok(!isInRange(parseRange("10.0.0.0/8"), address("::fffe:10.1.2.3")));
  assert.ok(!isInRange(parseRange("10.0.0.0/8"), address("::1:ffff:10.1.2.3")));
  assert.ok(isInRange(parseRange("::/0"), address("::fffe:10.1.2.3")));
});

Deno.test("a range of IPv4-mapped addresses is one of IPv4 addresses", () => {
  assert.equal(formatRange(parseRange("::ffff:10.0.0.0/104")), "10.0.0.0/8");
  assert.equal(formatRange(parseRange("::ffff:10.1.2.3")), "10.1.2.3");
  assert.equal(formatRange(parseRange("::ffff:0.0.0.0/96")), "0.0.0.0/0");
  assert.ok(isInRange(parseRange("::ffff:10.0.0.0/104"), address("10.9.9.9")));
});

Deno.test("what has no IP address is in no range", () => {
  const unix: SocketAddress = { family: "unix", path: "/run/x" };
  for (const text of ["0.0.0.0/0", "::/0"]) assert.ok(!isInRange(parseRange(text), unix));
  assert.equal(ipBytes(unix), null);
});

Deno.test("a range is written in one way", () => {
  assert.equal(formatRange(parseRange("2001:DB8:0:0::/32")), "2001:db8::/32");
  assert.equal(formatRange(parseRange("10.0.0.1/32")), "10.0.0.1");
  assert.equal(formatRange(parseRange("::1/128")), "::1");
});

Deno.test("an address within a range is refused, with the range that may be meant", () => {
  assert.throws(() => parseRange("10.1.2.3/8"), /write 10\.0\.0\.0\/8 for all of it, or 10\.1\.2\.3 for that address/);
  assert.throws(() => parseRange("2001:db8::1/32"), /write 2001:db8::\/32 for all/);
  assert.throws(() => parseRange("192.168.1.5/31"), /write 192\.168\.1\.4\/31/);
  assert.throws(() => parseRange("255.255.255.255/0"), /write 0\.0\.0\.0\/0/);
});

Deno.test("what is no range is refused", () => {
  const wrong = [
    "",
    "/8",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/08",
    "10.0.0.0/8/8",
    "10.0.0.0/x",
    "10/8",
  ];
  wrong.push(
    "::/129",
    "server",
    "10.0.0.0 /8",
    " 10.0.0.0/8",
    "10.0.0.0/8 ",
    "256.0.0.0/8",
    "1e1.0.0.0/8",
    "*",
    "2001:db8/32",
  );
  wrong.push("10.0.0.0/1e0", "10.0.0.0/+8");
  for (const text of wrong) assert.throws(() => parseRange(text), RangeError, text);
  assert.throws(() => parseRange("fe80::1%2"), /cannot have a zone/);
});

Deno.test("every prefix length holds exactly what shares that many bits", () => {
  for (const host of ["170.85.170.85", "aaaa:5555:aaaa:5555:aaaa:5555:aaaa:5555"]) {
    const bytes = ipBytes(address(host))!;
    for (let bits = 0; bits <= bytes.length * 8; bits++) {
      const first = new Uint8Array(bytes);
      for (let i = bits; i < bytes.length * 8; i++) first[i >> 3] &= ~(0x80 >> (i & 7));
      const range = { bytes: first, prefixBits: bits };
      assert.deepEqual(parseRange(formatRange(range)), range);
      assert.ok(isInRange(range, address(host)), `${bits} bits`);
      if (bits === 0) continue;
      const other = new Uint8Array(bytes);
      other[(bits - 1) >> 3] ^= 0x80 >> ((bits - 1) & 7);
      const otherHost = formatRange({ bytes: other, prefixBits: other.length * 8 });
      assert.ok(!isInRange(range, address(otherHost)), `${otherHost} in ${bits} bits`);
    }
  }
});
