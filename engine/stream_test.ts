import assert from "node:assert/strict";
import { MessageFlag } from "../ffi/constants.ts";
import { Errno } from "../ffi/errno.ts";
import { close } from "../ffi/libc.ts";
import { recv, socketPair } from "../ffi/socket.ts";
import { Buffer } from "../tests/ffi/loop_fixture.ts";
import { Ask, Bench, concat, message, pattern, WORDS } from "./stream_bench.ts";
import { type StreamOwner, UNSENT_MESSAGES_MAX } from "./stream.ts";

for (const loop of ["uring", "poll"] as const) {
  const test = (name: string, body: (bench: Bench) => void) =>
    Deno.test(`${loop}: ${name}`, () => {
      using bench = new Bench(loop);
      body(bench);
    });

  test("a header that arrives byte by byte is one header", (bench) => {
    for (const byte of message(0)) {
      assert.equal(bench.machine.calls, 0);
      bench.sendAll(Uint8Array.of(byte));
    }
    bench.until(() => bench.machine.headers.length === 1);
    assert.equal(bench.machine.calls, 1);
    assert.ok(bench.heard >= 1);
  });

  test("many messages in one piece are each given once, in order", (bench) => {
    bench.sendAll(concat(...Array.from({ length: 500 }, (_, i) => message(pattern(i % 7)))));
    bench.until(() => bench.machine.headers.length === 500);
    assert.deepEqual(bench.machine.headers.map(([length]) => length), Array.from({ length: 500 }, (_, i) => i % 7));
  });

  test("payloads of every size arrive whole, with a message behind them", (bench) => {
    const sizes = [1, 7, 4095, 16383, 16384, 16385, 131071, 131072, 131073, 200_000, 262_144];
    for (const size of sizes) {
      const before = bench.machine.headers.length;
      bench.sendAll(concat(message(pattern(size)), message(0)));
      bench.until(() => bench.machine.headers.length === before + 2);
      assert.deepEqual(bench.machine.payloads.at(-1), pattern(size), `${size} bytes`);
    }
    assert.ok(!bench.stream.hasMore);
  });

  test("a payload cut into pieces of any length arrives whole", (bench) => {
    for (const piece of [1, 1000, 16384, 50_000]) {
      const size = piece === 1 ? 300 : 150_000;
      const bytes = concat(message(pattern(size)), message(3));
      for (let at = 0; at < bytes.length; at += piece) bench.sendAll(bytes.subarray(at, at + piece));
      bench.until(() => bench.machine.payloads.length > 0 && bench.machine.payloads.length % 2 === 0);
      assert.deepEqual(bench.machine.payloads.at(-2), pattern(size), `pieces of ${piece}`);
    }
  });

  test("a payload that is dropped goes nowhere, and what is behind it is not lost", (bench) => {
    for (const size of [1, 20_000, 300_000, 1_000_000]) {
      const before = bench.machine.headers.length;
      bench.sendAll(message(size, Ask.DROP));
      bench.sendAll(message(pattern(10)));
      bench.until(() => bench.machine.headers.length === before + 2);
      assert.deepEqual(bench.machine.payloads.pop(), pattern(10));
    }
    assert.equal(bench.machine.payloads.length, 0);
  });

  test("after WAIT the same header is given again, and only after resume", (bench) => {
    bench.sendAll(concat(message(0, Ask.WAIT), message(0)));
    bench.until(() => bench.machine.calls === 1);
    bench.sendAll(message(0));
    bench.idle();
    assert.equal(bench.machine.calls, 1);
    assert.ok(bench.stream.hasMore);
    bench.stream.resume();
    assert.equal(bench.machine.calls, 2, "it is asked again, and waits again");
    bench.machine.ready = true;
    bench.stream.resume();
    bench.until(() => bench.machine.headers.length === 3);
    bench.stream.resume();
    assert.equal(bench.machine.calls, 5);
  });

  test("after WAIT the same payload is given again", (bench) => {
    bench.sendAll(concat(message(pattern(20_000), Ask.WAIT_IN_PAYLOAD), message(0)));
    bench.until(() => bench.machine.calls === 2);
    bench.idle();
    assert.equal(bench.machine.payloads.length, 0);
    bench.machine.ready = true;
    bench.stream.resume();
    bench.until(() => bench.machine.headers.length === 2);
    assert.deepEqual(bench.machine.payloads, [pattern(20_000)]);
  });

  test("a resume from within the machine is not lost", (bench) => {
    bench.sendAll(concat(message(0, Ask.RESUME_WITHIN), message(0)));
    bench.until(() => bench.machine.headers.length === 2);
    assert.equal(bench.machine.calls, 3);
  });

  test("CLOSE sends the last words, and nothing more is taken", (bench) => {
    bench.sendAll(concat(message(0, Ask.CLOSE_WITH_WORDS), message(0)));
    assert.deepEqual(bench.receiveAll(WORDS.length), WORDS);
    bench.ends();
    assert.equal(bench.machine.headers.length, 1);
    assert.equal(bench.receive(), null);
  });

  test("CLOSE without words ends the stream at once", (bench) => {
    bench.sendAll(message(0, Ask.CLOSE));
    bench.ends();
  });

  test("the end of the peer's stream ends this one, also in the middle of a message", (bench) => {
    bench.sendAll(message(pattern(50_000)).subarray(0, 30_000));
    bench.leave("half");
    bench.ends();
    assert.equal(bench.machine.payloads.length, 0);
  });

  test("a peer that vanishes while it is sent to is an error or an end, told once", (bench) => {
    for (let i = 0; i < 8; i++) bench.stream.transmit(bench.machine.intoAt, 262_144, i);
    bench.engine.turn(5);
    bench.leave("close");
    bench.until(() => bench.closedWith.length > 0);
    bench.idle();
    assert.equal(bench.closedWith.length, 1);
    assert.ok([0, -Errno.EPIPE, -Errno.ECONNRESET].includes(bench.closedWith[0]), `errno ${-bench.closedWith[0]}`);
    assert.equal(bench.engine.slots.freeCount, bench.slotsBefore);
  });

  test("close is told once and later, with what is under way in both directions", (bench) => {
    for (let i = 0; i < 8; i++) bench.stream.transmit(bench.machine.intoAt, 262_144, i);
    bench.engine.turn(5);
    bench.stream.close();
    bench.stream.close();
    bench.stream.finish();
    assert.deepEqual(bench.closedWith, [], "not from within the call");
    bench.ends();
    bench.stream.transmit(bench.machine.intoAt, 10, 99);
    bench.stream.resume();
    bench.stream.close();
    bench.idle();
    assert.equal(bench.closedWith.length, 1);
    assert.ok(!bench.sentTokens.includes(99));
  });

  test("the errno given to close is the one that is told", (bench) => {
    bench.stream.close(-Errno.ETIMEDOUT);
    bench.ends(-Errno.ETIMEDOUT);
  });

  test("what is transmitted arrives in order, and its tokens come back in order", (bench) => {
    const count = 1200;
    const at = bench.machine.intoAt;
    bench.engine.arena.bytes.set(pattern(count), at);
    // More than one sendmsg can take, of lengths that differ; some of them without a token.
    for (let i = 0; i < count; i++) bench.stream.transmit(at + i, 1, i % 3 === 0 ? -1 : i);
    assert.deepEqual(bench.receiveAll(count), pattern(count));
    bench.until(() => bench.drained === 1);
    assert.deepEqual(bench.sentTokens, Array.from({ length: count }, (_, i) => i).filter((i) => i % 3 !== 0));
  });

  test("a message larger than the socket's buffer is sent to its end", (bench) => {
    const at = bench.machine.intoAt;
    bench.engine.arena.bytes.set(pattern(262_144), at);
    for (let i = 0; i < 6; i++) bench.stream.transmit(at, 262_144, i);
    const all = bench.receiveAll(6 * 262_144);
    for (let i = 0; i < 6; i++) assert.deepEqual(all.subarray(i * 262_144, (i + 1) * 262_144), pattern(262_144));
    bench.until(() => bench.sentTokens.length === 6);
  });

  test("finish sends what is queued, and then ends", (bench) => {
    const at = bench.machine.intoAt;
    for (let i = 0; i < 4; i++) bench.stream.transmit(at, 262_144);
    bench.stream.finish();
    assert.ok(!bench.stream.isOpen && bench.stream.canTransmit);
    bench.stream.transmit(at, 5);
    bench.receiveAll(4 * 262_144 + 5);
    bench.ends();
  });

  test("last words that nobody reads are given up after their time", (bench) => {
    for (let i = 0; i < 8; i++) bench.stream.transmit(bench.machine.intoAt, 262_144);
    bench.engine.turn(5);
    bench.stream.finish();
    bench.idle();
    assert.deepEqual(bench.closedWith, []);
    bench.later(60_000);
    bench.ends();
  });

  test("who does not read what it asked for is not served on", (bench) => {
    const at = bench.machine.intoAt;
    // Each message is answered by one that its sender does not take.
    const answering = bench.machine;
    const onHeader = answering.onHeader.bind(answering);
    answering.onHeader = (headerAt) => {
      bench.stream.transmit(at, 8192, answering.headers.length);
      return onHeader(headerAt);
    };
    bench.sendAll(concat(...Array.from({ length: 2000 }, () => message(0))));
    bench.idle();
    const served = answering.headers.length;
    assert.ok(served >= UNSENT_MESSAGES_MAX && served < 2000, `${served} of 2000 were served`);
    assert.ok(served - bench.sentTokens.length <= UNSENT_MESSAGES_MAX);
    bench.receiveAll(2000 * 8192);
    bench.until(() => bench.sentTokens.length === 2000);
    assert.equal(answering.headers.length, 2000);
  });

  test("a stream is handed over with its descriptor while it waits, and not otherwise", (bench) => {
    assert.equal(bench.stream.detach(), -1, "it receives");
    bench.sendAll(concat(message(0, Ask.WAIT), message(0)));
    bench.until(() => bench.machine.calls === 1);
    assert.equal(bench.stream.detach(), -1, "more has arrived");
    bench.machine.ready = true;
    bench.stream.resume();
    bench.until(() => bench.machine.headers.length === 2);
    bench.machine.ready = false;
    bench.sendAll(message(4, Ask.WAIT_IN_PAYLOAD));
    bench.until(() => bench.machine.calls === 5);
    bench.stream.transmit(bench.machine.intoAt, 3);
    assert.equal(bench.stream.detach(), -1, "something is to be sent");
    bench.receiveAll(3);
    bench.until(() => bench.drained === 1);
    const fd = bench.stream.detach();
    assert.ok(fd >= 0);
    assert.equal(bench.engine.slots.freeCount, bench.slotsBefore);
    bench.sendAll(Uint8Array.of(42));
    const into = new Buffer(10);
    assert.equal(recv(fd, into.address, 10, MessageFlag.DONTWAIT), 1);
    assert.equal(into.bytes[0], 42);
    close(fd);
    bench.idle();
    assert.deepEqual(bench.closedWith, []);
  });

  Deno.test(`${loop}: a stream that takes the place of one with last words keeps its own time`, () => {
    using bench = new Bench(loop);
    bench.stream.transmit(bench.machine.intoAt, 10);
    bench.stream.finish();
    bench.ends();
    const pair = socketPair();
    assert.ok(typeof pair !== "number");
    const closed: number[] = [];
    const owner: StreamOwner = {
      onHeard() {},
      onSent() {},
      onDrained() {},
      onClosed: (_, errno) => closed.push(errno),
    };
    const next = bench.engine.streams.open(pair[0], owner)!;
    for (let i = 0; i < 8; i++) next.transmit(bench.machine.intoAt, 262_144);
    bench.engine.turn(5);
    // The other one's time runs out a moment after this one's has begun.
    bench.later(bench.engine.timers.nextDeadline() - 10 - bench.engine.now);
    next.finish();
    bench.later(10);
    bench.idle();
    assert.deepEqual(closed, []);
    assert.equal(bench.engine.timers.count, 1);
    bench.later(60_000);
    bench.until(() => closed.length === 1);
    close(pair[1]);
  });

  Deno.test(`${loop}: there is an end to streams and slots`, () => {
    using bench = new Bench(loop);
    const owner: StreamOwner = { onHeard() {}, onSent() {}, onDrained() {}, onClosed() {} };
    const rest = bench.engine.slots.reserve(bench.engine.slots.freeCount)!;
    const pair = socketPair();
    assert.ok(typeof pair !== "number");
    assert.equal(bench.engine.streams.open(pair[0], owner), null);
    bench.engine.slots.release(rest);
    const stream = bench.engine.streams.open(pair[0], owner)!;
    stream.close();
    bench.idle();
    assert.equal(bench.engine.slots.freeCount, bench.slotsBefore - 1);
    close(pair[1]);
  });
}
