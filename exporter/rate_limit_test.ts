import assert from "node:assert/strict";
import { ipAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import { LogLimiter, RateLimiter } from "./rate_limit.ts";

function address(host: string, port = 1234): SocketAddress {
  const found = ipAddress(host, port);
  assert.ok(found !== null, host);
  return found;
}

/** How many of the attempts are within the limit. */
function taken(limiter: RateLimiter, from: SocketAddress, attempts: number, nowMs: number): number {
  let count = 0;
  for (let i = 0; i < attempts; i++) if (limiter.take(from, nowMs)) count++;
  return count;
}

Deno.test("an address may try as often as the burst, and then as often as it gets back", () => {
  const limiter = new RateLimiter({ burst: 5, perMinute: 60, remembered: 10 });
  const from = address("192.0.2.1");
  assert.equal(taken(limiter, from, 20, 0), 5);
  assert.equal(taken(limiter, from, 20, 999), 0);
  assert.equal(taken(limiter, from, 20, 1000), 1);
  assert.equal(taken(limiter, from, 20, 3500), 2);
  // The half of an attempt is not lost.
  assert.equal(taken(limiter, from, 20, 4000), 1);
  // However long it was quiet, the burst is the most.
  assert.equal(taken(limiter, from, 20, 1e9), 5);
});

Deno.test("asking whether an attempt is allowed costs none, and remembers nobody", () => {
  const limiter = new RateLimiter({ burst: 1, perMinute: 60, remembered: 10 });
  const from = address("192.0.2.1");
  for (let i = 0; i < 5; i++) assert.ok(limiter.allows(from, 0));
  assert.equal(limiter.size, 0);
  assert.ok(limiter.take(from, 0));
  assert.ok(!limiter.allows(from, 999));
  assert.ok(limiter.allows(from, 1000));
  assert.ok(limiter.allows({ family: "unix", path: "" }, 0));
});

Deno.test("attempts that come too often do not put off the next one", () => {
  const limiter = new RateLimiter({ burst: 1, perMinute: 60, remembered: 10 });
  const from = address("192.0.2.1");
  assert.ok(limiter.take(from, 0));
  let allowed = 0;
  for (let now = 1; now <= 10_000; now++) if (limiter.take(from, now)) allowed++;
  assert.equal(allowed, 10);
});

Deno.test("one address does not use up another's attempts, whatever its port", () => {
  const limiter = new RateLimiter({ burst: 3, perMinute: 1, remembered: 10 });
  assert.equal(taken(limiter, address("192.0.2.1", 1), 2, 0), 2);
  assert.equal(taken(limiter, address("192.0.2.1", 2), 2, 0), 1);
  assert.equal(taken(limiter, address("192.0.2.2"), 5, 0), 3);
});

Deno.test("a network of IPv6 counts as one, and an IPv4-mapped address as its IPv4 address", () => {
  const limiter = new RateLimiter({ burst: 2, perMinute: 1, remembered: 10 });
  assert.equal(taken(limiter, address("2001:db8:1:2::1"), 1, 0), 1);
  assert.equal(taken(limiter, address("2001:db8:1:2:ffff::9"), 5, 0), 1);
  assert.equal(taken(limiter, address("2001:db8:1:3::1"), 5, 0), 2);
  assert.equal(taken(limiter, address("::ffff:192.0.2.1"), 1, 0), 1);
  assert.equal(taken(limiter, address("192.0.2.1"), 5, 0), 1);
  assert.equal(limiter.size, 3);
});

Deno.test("so many addresses are remembered, and the one that was quiet for longest is forgotten first", () => {
  const limiter = new RateLimiter({ burst: 1, perMinute: 1, remembered: 3 });
  const from = (i: number) => address(`192.0.2.${i}`);
  for (let i = 1; i <= 3; i++) assert.ok(limiter.take(from(i), i));
  // The first comes again, so that the second is now the quietest.
  assert.ok(!limiter.take(from(1), 4));
  assert.ok(limiter.take(from(4), 5));
  assert.equal(limiter.size, 3);
  assert.ok(!limiter.take(from(1), 6));
  assert.ok(!limiter.take(from(3), 6));
  assert.ok(limiter.take(from(2), 6));
  for (let i = 0; i < 1000; i++) limiter.take(address(`10.0.${i >> 8}.${i & 255}`), 7);
  assert.equal(limiter.size, 3);
});

Deno.test("who has no IP address is not limited, and not remembered", () => {
  const limiter = new RateLimiter({ burst: 1, perMinute: 1, remembered: 3 });
  assert.equal(taken(limiter, { family: "unix", path: "" }, 100, 0), 100);
  assert.equal(limiter.size, 0);
});

Deno.test("a clock that stands still or goes back gives nobody attempts", () => {
  const limiter = new RateLimiter({ burst: 2, perMinute: 60, remembered: 3 });
  assert.equal(taken(limiter, address("192.0.2.1"), 5, 10_000), 2);
  assert.equal(taken(limiter, address("192.0.2.1"), 5, 0), 0);
  assert.equal(taken(limiter, address("192.0.2.1"), 5, 10_000), 0);
});

Deno.test("so many lines are written in a minute, and then one for all the others", () => {
  const lines: string[] = [];
  const limiter = new LogLimiter(2, (text) => lines.push(text), (omitted) => `and ${omitted} more`);
  for (let i = 0; i < 5; i++) limiter.line(`line ${i}`, 1000 + i);
  assert.deepEqual(lines, ["line 0", "line 1"]);
  assert.ok(limiter.isHolding);
  limiter.tick(60_999);
  assert.equal(lines.length, 2);
  limiter.tick(61_000);
  limiter.tick(61_001);
  assert.deepEqual(lines.slice(2), ["and 3 more"]);
  assert.ok(!limiter.isHolding);
});

Deno.test("a line of the next minute comes after the summary of the last one", () => {
  const lines: string[] = [];
  const limiter = new LogLimiter(1, (text) => lines.push(text), (omitted) => `and ${omitted} more`);
  limiter.line("a", 0);
  limiter.line("b", 59_999);
  limiter.line("c", 60_000);
  limiter.line("d", 119_999);
  assert.deepEqual(lines, ["a", "and 1 more", "c"]);
  limiter.flush();
  limiter.flush();
  assert.deepEqual(lines.slice(3), ["and 1 more"]);
});

Deno.test("lines that come slowly are all written, without a summary", () => {
  const lines: string[] = [];
  const limiter = new LogLimiter(1, (text) => lines.push(text), (omitted) => `and ${omitted} more`);
  for (let i = 0; i < 10; i++) limiter.line(`${i}`, i * 60_000);
  limiter.tick(1e9);
  assert.equal(lines.join(""), "0123456789");
  assert.ok(!limiter.isHolding);
});
