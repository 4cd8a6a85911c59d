/**
 * The part of the loops' suite that is about sockets.
 *
 * @module
 */
import assert from "node:assert/strict";
import * as libc from "../../ffi/libc.ts";
import { MessageFlag, Shutdown } from "../../ffi/constants.ts";
import { Errno } from "../../ffi/errno.ts";
import { Buffer, LOOPBACK, Message, pattern, type RegisterTest } from "./loop_fixture.ts";
import { encodeSockaddr, type SocketAddress } from "../../ffi/sockaddr.ts";
import * as socket from "../../ffi/socket.ts";

/** Registers the tests. */
export function registerSocketTests(test: RegisterTest, suiteName: string): void {
  test("sends from several pieces and receives what is there", ({ loop, kind, one, pair }) => {
    const [left, right] = pair();
    const out = new Buffer(300, pattern);
    const into = new Buffer(1000);
    const message = new Message({ address: out.address, bytes: 100 }, { address: out.address + 100, bytes: 200 });
    loop.sendmsg(left, message.address, 0, kind, 1, 1);
    assert.equal(one(), 300);
    loop.recv(right, into.address, 120, 0, kind, 2, 1);
    assert.equal(one(), 120);
    loop.recv(right, into.address + 120, 880, 0, kind, 2, 1);
    assert.equal(one(), 180);
    assert.deepEqual(into.bytes.slice(0, 300), out.bytes);
  });

  test("a receive waits until something is sent", ({ loop, kind, until, pair, recorder }) => {
    const [left, right] = pair();
    const into = new Buffer(10);
    loop.recv(right, into.address, 10, 0, kind, 7, 9);
    assert.equal(loop.turn(0), 0);
    assert.equal(loop.turn(1), 0);
    assert.equal(loop.pending, 1);
    assert.equal(recorder.seen.length, 0);
    const out = new Buffer(3, pattern);
    loop.sendmsg(left, new Message({ address: out.address, bytes: 3 }).address, 0, kind, 8, 9);
    const seen = until(2).toSorted((a, b) => a.tag - b.tag);
    assert.deepEqual(seen, [{ tag: 7, generation: 9, result: 3 }, { tag: 8, generation: 9, result: 3 }]);
    assert.equal(loop.pending, 0);
  });

  test("MSG_WAITALL collects the whole length", ({ loop, kind, one, pair, until, recorder }) => {
    const [left, right] = pair();
    const out = new Buffer(10, pattern);
    const into = new Buffer(10);
    const message = new Message({ address: out.address, bytes: 5 });
    loop.recv(right, into.address, 10, MessageFlag.WAITALL, kind, 1, 0);
    loop.sendmsg(left, message.address, 0, kind, 2, 0);
    assert.equal(one(), 5);
    assert.equal(loop.turn(1), 0);
    assert.equal(socket.sendmsg(left, new Message({ address: out.address + 5, bytes: 5 }).address, 0), 5);
    until(2);
    assert.deepEqual(recorder.seen[1], { tag: 1, generation: 0, result: 10 });
    assert.deepEqual(into.bytes, out.bytes);
  });

  test("MSG_WAITALL ends short at the end of the stream", ({ loop, kind, one, pair, until }) => {
    const [left, right] = pair();
    const out = new Buffer(4, pattern);
    const into = new Buffer(10);
    loop.recv(right, into.address, 10, MessageFlag.WAITALL, kind, 1, 0);
    loop.sendmsg(left, new Message({ address: out.address, bytes: 4 }).address, 0, kind, 2, 0);
    assert.equal(one(), 4);
    socket.shutdown(left, Shutdown.WRITE);
    assert.deepEqual(until(2)[1], { tag: 1, generation: 0, result: 4 });
  });

  test("the end of the stream is 0", ({ loop, kind, one, pair }) => {
    const [left, right] = pair();
    const into = new Buffer(10);
    loop.recv(right, into.address, 10, 0, kind, 1, 0);
    assert.equal(loop.turn(0), 0);
    socket.shutdown(left, Shutdown.WRITE);
    assert.equal(one(), 0);
  });

  test("shutting one's own socket down ends its pending receive", ({ loop, kind, one, pair }) => {
    const [, right] = pair();
    const into = new Buffer(10);
    loop.recv(right, into.address, 10, 0, kind, 1, 0);
    assert.equal(loop.turn(0), 0);
    socket.shutdown(right, Shutdown.BOTH);
    assert.equal(one(), 0);
  });

  test("shutting one's own socket down ends its pending send", ({ loop, kind, one, pair, until }) => {
    const [left] = pair();
    const out = new Buffer(1 << 20);
    const message = new Message({ address: out.address, bytes: out.bytes.length });
    loop.sendmsg(left, message.address, 0, kind, 1, 0);
    assert.ok(one() < out.bytes.length);
    loop.sendmsg(left, message.address, 0, kind, 2, 0);
    assert.equal(loop.turn(0), 0);
    socket.shutdown(left, Shutdown.BOTH);
    assert.equal(until(2)[1].result, -Errno.EPIPE);
  });

  test("sending to a closed peer is EPIPE, without a signal", ({ loop, kind, one, pair }) => {
    const [left, right] = pair();
    socket.shutdown(right, Shutdown.BOTH);
    const out = new Buffer(4);
    loop.sendmsg(left, new Message({ address: out.address, bytes: 4 }).address, 0, kind, 1, 0);
    assert.equal(one(), -Errno.EPIPE);
  });

  test("a full socket makes a send wait, and partial sends add up", ({ loop, kind, pair, recorder, until }) => {
    const [left, right] = pair();
    const total = 4 << 20;
    const out = new Buffer(total, pattern);
    const into = new Buffer(total);
    let sent = 0;
    let received = 0;
    // The kernel reads a message at the latest when the turn submits it, but the garbage collector must not free it.
    const messages: Message[] = [];
    const send = () => {
      messages.push(new Message({ address: out.address + sent, bytes: total - sent }));
      loop.sendmsg(left, messages[messages.length - 1].address, 0, kind, 1, 0);
    };
    const receive = () => loop.recv(right, into.address + received, total - received, 0, kind, 2, 0);
    recorder.then = ({ tag, result }) => {
      assert.ok(result > 0, `result ${result}`);
      if (tag === 1) sent += result;
      else received += result;
      if (tag === 1 && sent < total) send();
      if (tag === 2 && received < total) receive();
    };
    send();
    receive();
    for (let turns = 0; received < total; turns++) {
      assert.ok(turns < 100_000);
      loop.turn(1000);
    }
    until(recorder.seen.length);
    assert.equal(sent, total);
    assert.deepEqual(into.bytes, out.bytes);
    assert.ok(messages.length > 1);
  });

  const listeners: SocketAddress[] = [
    LOOPBACK,
    { family: "ipv6", host: "::1", port: 0, scopeId: 0 },
    { family: "unix", path: `@dst-loop-test-${suiteName}-${crypto.randomUUID()}` },
  ];
  for (const where of listeners) {
    test(`connects and accepts over ${where.family}, and echoes`, ({ loop, kind, until, keep, recorder, one }) => {
      const listener = keep(socket.listenOn(where, 8));
      const address = socket.localAddress(listener)!;
      const sockaddr = encodeSockaddr(address);
      const client = keep(socket.streamSocket(address));
      loop.accept(listener, kind, 1, 0);
      assert.equal(loop.turn(0), 0);
      loop.connect(client, libc.addressOf(sockaddr), sockaddr.length, kind, 2, 0);
      const seen = until(2);
      assert.equal(seen.find((completion) => completion.tag === 2)!.result, 0);
      const server = keep(seen.find((completion) => completion.tag === 1)!.result);
      assert.deepEqual(socket.peerAddress(client), address);
      assert.notEqual(libc.fcntl(server, 3, 0) & 0o4000, 0, "accepted sockets are non-blocking");
      assert.equal(libc.fcntl(server, 1, 0), 1, "accepted sockets are close-on-exec");
      assert.equal(libc.fcntl(client, 3, 0) & 0o4000, 0, "a blocking socket stays one");

      const out = new Buffer(2000, pattern);
      const echo = new Buffer(2000);
      const into = new Buffer(2000);
      loop.recv(client, into.address, 2000, MessageFlag.WAITALL, kind, 3, 0);
      loop.recv(server, echo.address, 2000, MessageFlag.WAITALL, kind, 4, 0);
      assert.equal(loop.turn(0), 0, "non-blocking sockets wait in the loop");
      loop.sendmsg(client, new Message({ address: out.address, bytes: 2000 }).address, 0, kind, 5, 0);
      until(4);
      loop.sendmsg(server, new Message({ address: echo.address, bytes: 2000 }).address, 0, kind, 6, 0);
      until(6);
      assert.deepEqual(recorder.seen.slice(2).map(({ result }) => result), [2000, 2000, 2000, 2000]);
      assert.deepEqual(into.bytes, out.bytes);

      loop.recv(server, echo.address, 2000, 0, kind, 7, 0);
      socket.shutdown(client, Shutdown.BOTH);
      assert.equal(one(), 0);
    });
  }

  test("accepts several connections, one for each operation", ({ loop, kind, until, keep }) => {
    const listener = keep(socket.listenOn(LOOPBACK, 8));
    const sockaddr = encodeSockaddr(socket.localAddress(listener)!);
    for (let tag = 0; tag < 3; tag++) loop.accept(listener, kind, tag, 0);
    assert.equal(loop.turn(0), 0);
    for (let i = 0; i < 3; i++) {
      const client = keep(socket.streamSocket(LOOPBACK));
      assert.equal(socket.connectAt(client, libc.addressOf(sockaddr), sockaddr.length), 0);
    }
    const accepted = until(3);
    assert.deepEqual(accepted.map(({ tag }) => tag).toSorted(), [0, 1, 2]);
    assert.equal(new Set(accepted.map(({ result }) => keep(result))).size, 3);
  });

  test("a refused connection is ECONNREFUSED", ({ loop, kind, one, keep }) => {
    const listener = socket.listenOn(LOOPBACK, 1);
    const sockaddr = encodeSockaddr(socket.localAddress(listener)!);
    libc.close(listener);
    const client = keep(socket.streamSocket(LOOPBACK));
    loop.connect(client, libc.addressOf(sockaddr), sockaddr.length, kind, 1, 0);
    assert.equal(one(), -Errno.ECONNREFUSED);
  });

  test("connecting to a unix path that is not there is ENOENT", ({ loop, kind, one, keep }) => {
    const address: SocketAddress = { family: "unix", path: "/nonexistent/socket" };
    const sockaddr = encodeSockaddr(address);
    const client = keep(socket.streamSocket(address));
    loop.connect(client, libc.addressOf(sockaddr), sockaddr.length, kind, 1, 0);
    assert.equal(one(), -Errno.ENOENT);
  });
}
