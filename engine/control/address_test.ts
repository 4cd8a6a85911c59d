import assert from "node:assert/strict";
import {
  checkName,
  formatHostPort,
  formatNbdAddress,
  formatRemote,
  parseEndpoint,
  parseHostPort,
  parseNamedPath,
  parseNbdAddress,
  parseRemote,
} from "./address.ts";

Deno.test("a host may have a port, and an IPv6 address stands in brackets then", () => {
  assert.deepEqual(parseHostPort("server"), { host: "server", port: 7700 });
  assert.deepEqual(parseHostPort("server:1"), { host: "server", port: 1 });
  assert.deepEqual(parseHostPort("127.0.0.1:0"), { host: "127.0.0.1", port: 0 });
  assert.deepEqual(parseHostPort("[::1]"), { host: "::1", port: 7700 });
  assert.deepEqual(parseHostPort("[fe80::1%eth0]:65535"), { host: "fe80::1%eth0", port: 65535 });
  assert.deepEqual(parseHostPort("2001:db8::7"), { host: "2001:db8::7", port: 7700 });
});

Deno.test("an address that cannot be one is refused with the reason", () => {
  for (
    const [text, reason] of [
      ["", /host is missing/],
      [":7700", /host is missing/],
      ["server:", /"" is not a port/],
      ["server:65536", /not a port/],
      ["server:-1", /not a port/],
      ["server:1e3", /not a port/],
      ["a:b:c", /too many colons/],
      ["[::1", /bracket is not closed/],
      ["[server]:1", /not an IPv6 address/],
      ["[::1]7700", /only :PORT/],
      ["ser ver", /neither a host name/],
    ] as const
  ) assert.throws(() => parseHostPort(text), { name: "RangeError", message: reason }, text);
});

Deno.test("the first slash ends the host, and the name may contain others", () => {
  assert.deepEqual(parseRemote("server/a/b"), { host: "server", port: 7700, name: "a/b" });
  assert.deepEqual(parseRemote("[::1]:9/disk.img"), { host: "::1", port: 9, name: "disk.img" });
  assert.deepEqual(parseRemote("dst://server:9/x y"), { host: "server", port: 9, name: "x y" });
  assert.throws(() => parseRemote("server"), /expected HOST\[:PORT\]\/NAME/);
  assert.throws(() => parseRemote("server/"), /must not be empty/);
  assert.throws(() => parseRemote("server:0/x"), /port 0/);
  assert.throws(() => parseRemote("/etc/x"), /host is missing/);
});

Deno.test("a name has 1 to 255 bytes of UTF-8 and no control characters", () => {
  assert.equal(checkName("ü".repeat(127) + "x"), "ü".repeat(127) + "x");
  assert.throws(() => checkName("ü".repeat(128)), /at most 255 bytes, not 256/);
  assert.throws(() => checkName(""), /empty/);
  for (const bad of ["a\nb", "\u0000", "\u007f", "\u009b31m"]) assert.throws(() => checkName(bad), /control/);
});

Deno.test("an NBD address is a TCP address or a unix socket's path", () => {
  assert.deepEqual(parseNbdAddress("localhost"), { kind: "tcp", host: "localhost", port: 10809 });
  assert.deepEqual(parseNbdAddress("[::]:1"), { kind: "tcp", host: "::", port: 1 });
  assert.deepEqual(parseNbdAddress("unix:a:b"), { kind: "unix", path: "a:b" });
  assert.throws(() => parseNbdAddress("unix:"), /path is missing/);
  assert.equal(parseNbdAddress("unix:" + "x".repeat(107)).kind, "unix");
  assert.throws(() => parseNbdAddress("unix:" + "x".repeat(108)), /at most 107 bytes/);
});

Deno.test("what is formatted is parsed to the same", () => {
  for (const host of ["server", "::1", "10.0.0.1"]) {
    assert.deepEqual(parseHostPort(formatHostPort(host, 5)), { host, port: 5 });
    assert.deepEqual(parseRemote(formatRemote(host, 5, "a/b")), { host, port: 5, name: "a/b" });
    const nbd = { kind: "tcp", host, port: 5 } as const;
    assert.deepEqual(parseNbdAddress(formatNbdAddress(nbd)), nbd);
  }
  assert.equal(formatNbdAddress(parseNbdAddress("unix:/x")), "unix:/x");
});

Deno.test("a path is named after its file unless a name is given", () => {
  assert.deepEqual(parseNamedPath("/dev/vg0/data"), { name: "data", path: "/dev/vg0/data" });
  assert.deepEqual(parseNamedPath("disk.img"), { name: "disk.img", path: "disk.img" });
  assert.deepEqual(parseNamedPath("mem:64M"), { name: "mem", path: "mem:64M" });
  assert.deepEqual(parseNamedPath("a=mem:64M"), { name: "a", path: "mem:64M" });
  assert.deepEqual(parseNamedPath("a/b=c=d"), { name: "a/b", path: "c=d" });
  assert.deepEqual(parseNamedPath("./a=b.img"), { name: "a=b.img", path: "./a=b.img" });
  assert.throws(() => parseNamedPath(""), /path is missing/);
  assert.throws(() => parseNamedPath("a="), /path is missing/);
  assert.throws(() => parseNamedPath("=b"), /must not be empty/);
  assert.throws(() => parseNamedPath("/"), /must not be empty/);
});

Deno.test("a side of a copy is a path, standard input or output, or an export", () => {
  const isFolder = (path: string) => path === "images";
  assert.deepEqual(parseEndpoint("-", isFolder), { kind: "stdio" });
  for (const path of ["/a/b", "./a", "../a/b", "disk.img", "images/disk.img", "server"]) {
    assert.deepEqual(parseEndpoint(path, isFolder), { kind: "path", path });
  }
  assert.deepEqual(parseEndpoint("server/disk.img", isFolder), {
    kind: "remote",
    host: "server",
    port: 7700,
    name: "disk.img",
  });
  assert.deepEqual(parseEndpoint("dst://images/disk.img", isFolder).kind, "remote");
  assert.throws(() => parseEndpoint("", isFolder), /empty/);
});
