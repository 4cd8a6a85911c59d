import assert from "node:assert/strict";
import { type Frame, seal, type Suite, SUITES } from "../tests/vectors/frames.ts";
import { concat, hex, pattern } from "../tests/vectors/primitives.ts";
import { extent, LANE, LaneBench } from "./client_lane_support_test.ts";
import { Arena, Room } from "./client_support_test.ts";
import { ProtocolError } from "./error.ts";
import { Operation } from "./request.ts";
import { FrameType } from "./wire.ts";

const PIECE = 65_536;
const ROOM = 2;
const CHACHA = SUITES.find(({ name }) => name === "chacha20-poly1305")!;
const CIPHERS = SUITES.filter(({ cipher }) => cipher !== 0);

/** A lane over a cipher, connected with the first keys. */
function makeBench(suite: Suite = CHACHA): LaneBench {
  const arena = new Arena(4, ROOM);
  const bench = new LaneBench(suite, { maxPayload: 4 * PIECE }, arena, new Room(arena, ROOM));
  bench.turn++;
  return bench;
}

/** A WRITE of the pattern with the seed. */
function write(bench: LaneBench, slot: number, bytes: number, seed: number): void {
  bench.arena.core.bytes.set(pattern(bytes, seed), bench.arena.payloadAt(slot));
  bench.request(slot, Operation.WRITE, 0, bytes);
}

/** What the independent script sends for the WRITE as the n-th frame under the key. */
function expectedWrite(
  bench: LaneBench,
  key: Uint8Array,
  n: number,
  slot: number,
  bytes: number,
  seed: number,
): string {
  const frame: Frame = {
    name: "",
    from: "client",
    type: 0x02,
    lane: LANE,
    slot,
    sequence: 1,
    length: bytes,
    payload: pattern(bytes, seed),
  };
  const sealed = seal(bench.suite, key, frame, n);
  return hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload));
}

for (const suite of CIPHERS) {
  Deno.test(`a request resent on a new connection after sealing carries the right plaintext (${suite.name})`, () => {
    const bench = makeBench(suite);
    write(bench, 0, 4096, 5);
    const [first] = bench.sent;
    assert.equal(hex(first), expectedWrite(bench, bench.keys.send, 2, 0, 4096, 5));
    assert.deepEqual(bench.payload(0, 4096), pattern(4096, 5));
    // Its bytes are still queued when the connection ends, and in the kernel's sight until then.
    const { at, bytes } = bench.places[0];
    const ciphertext = bench.arena.core.bytes.slice(at, at + bytes);
    assert.deepEqual(ciphertext, first);
    bench.lane.disconnect();

    for (let connection = 2; connection < 6; connection++) {
      bench.keys = { send: pattern(32, 10 * connection), receive: pattern(32, 10 * connection + 1) };
      bench.connect();
      bench.lane.resend(0);
      assert.equal(hex(bench.sent[0]), expectedWrite(bench, bench.keys.send, 2, 0, 4096, 5));
      assert.deepEqual(bench.payload(0, 4096), pattern(4096, 5));
      if (connection < 5) bench.lane.disconnect();
    }
    bench.receive({ type: 0x82, slot: 0, sequence: 1 });
    assert.deepEqual(bench.takeEvents(), ["completed 0 0 0"]);
  });

  Deno.test(`a request that was half sealed is sealed again from its beginning (${suite.name})`, () => {
    const bench = makeBench(suite);
    write(bench, 1, 3 * PIECE, 6);
    bench.request(2, Operation.FLUSH, 0, 0);
    bench.next();
    assert.deepEqual(bench.sent, []);
    bench.lane.disconnect();
    assert.ok(bench.lane.isUnsent(1) && bench.lane.isUnsent(2));
    bench.keys = { send: pattern(32, 7), receive: pattern(32, 8) };
    bench.connect();
    bench.next();
    bench.lane.resend(1);
    bench.lane.resend(2);
    bench.settle();
    assert.equal(bench.sent.length, 2);
    assert.equal(hex(bench.sent[0]), expectedWrite(bench, bench.keys.send, 2, 1, 3 * PIECE, 6));
  });
}

Deno.test("no message that is sent lies where the plaintext is kept", () => {
  const bench = makeBench();
  write(bench, 0, 4096, 1);
  write(bench, 1, 4096, 2);
  const slotsEnd = bench.arena.payloadAt(bench.arena.slots) - 4096;
  for (const { at } of bench.places) assert.ok(at >= slotsEnd);
  // Both rooms are taken until their messages are sent.
  write(bench, 2, 4096, 3);
  bench.next();
  assert.equal(bench.sent.length, 2);
  bench.lane.sent();
  bench.settle();
  assert.equal(bench.sent.length, 3);
  assert.equal(bench.places[2].at, bench.places[0].at);
  for (const [slot, seed] of [[0, 1], [1, 2], [2, 3]]) {
    assert.equal(hex(bench.sent[slot]), expectedWrite(bench, bench.keys.send, 2 + slot, slot, 4096, seed));
    assert.deepEqual(bench.payload(slot, 4096), pattern(4096, seed));
  }
});

Deno.test("a READ's data is told when its last piece is open", () => {
  const bench = makeBench();
  bench.request(0, Operation.READ, 0, 4 * PIECE);
  const reply = bench.script.next({ lane: LANE, type: 0x81, slot: 0, sequence: 1, payload: pattern(4 * PIECE, 3) });
  bench.next();
  bench.feed.push(reply);
  for (let turn = 0; turn < 4; turn++) {
    assert.deepEqual(bench.takeEvents(), []);
    bench.next();
  }
  assert.deepEqual(bench.takeEvents(), [`completed 0 0 ${4 * PIECE}`]);
  assert.deepEqual(bench.payload(0, 4 * PIECE), pattern(4 * PIECE, 3));
});

Deno.test("a READ or BLOCK_STATUS with a wrong bit in any piece is not told, and ends the lane", () => {
  for (const at of [0, PIECE, 3 * PIECE - 1]) {
    const bench = makeBench();
    bench.request(0, Operation.READ, 0, 3 * PIECE);
    const reply = bench.script.next({ lane: LANE, type: 0x81, slot: 0, sequence: 1, payload: pattern(3 * PIECE, 3) });
    reply[80 + at] ^= 0x80;
    bench.feed.push(reply);
    bench.settle();
    assert.deepEqual([bench.takeEvents(), bench.feed.isClosed, bench.lane.error], [
      [],
      true,
      ProtocolError.PAYLOAD_TAG,
    ]);
    assert.ok(bench.lane.isBusy(0));
  }
  const bench = makeBench();
  bench.request(0, Operation.BLOCK_STATUS, 0, 4096);
  const reply = bench.script.next({ lane: LANE, type: 0x87, slot: 0, sequence: 1, payload: extent(4096, 1) });
  reply[80] ^= 1;
  bench.feed.push(reply);
  assert.deepEqual([bench.takeEvents(), bench.lane.error], [[], ProtocolError.PAYLOAD_TAG]);
});

Deno.test("replies that have to wait for a turn are opened once, and told in order", () => {
  const bench = makeBench();
  const reads = [0, 1, 2, 3];
  for (const slot of reads) bench.request(slot, Operation.READ, slot * PIECE, PIECE / 2);
  bench.next();
  const replies = reads.map((slot) =>
    bench.script.next({ lane: LANE, type: 0x81, slot, sequence: 1, payload: pattern(PIECE / 2, slot) })
  );
  bench.feed.push(concat(...replies));
  assert.ok(bench.feed.isWaiting);
  bench.settle();
  assert.deepEqual(bench.takeEvents(), reads.map((slot) => `completed ${slot} 0 ${PIECE / 2}`));
  for (const slot of reads) assert.deepEqual(bench.payload(slot, PIECE / 2), pattern(PIECE / 2, slot));
  assert.equal(bench.lane.error, 0);
});

Deno.test("an exporter that answers what waits to be sent has guessed, and its lane ends", () => {
  for (const [slot, type, payload] of [[1, 0x81, pattern(512, 1)], [0, 0x82, undefined]] as const) {
    const bench = makeBench();
    write(bench, 0, 3 * PIECE, 1);
    bench.request(1, Operation.READ, 0, 512);
    assert.deepEqual(bench.sent, []);
    bench.feed.push(bench.script.next({ lane: LANE, type, slot, sequence: 1, payload }));
    assert.deepEqual([bench.takeEvents(), bench.lane.error], [[], ProtocolError.UNEXPECTED_REPLY]);
  }
});

Deno.test("a flood of PINGs waits while there is no room to encrypt, and every one is answered in order", () => {
  const bench = makeBench();
  for (const slot of [0, 1, 2]) write(bench, slot, 512, slot);
  assert.equal(bench.sent.length, 2);
  const pings = Array.from(
    { length: 100 },
    (_, i) => bench.script.next({ lane: LANE, type: FrameType.PING, offset: 1000 + i }),
  );
  bench.feed.push(concat(...pings));
  bench.settle();
  assert.ok(bench.feed.isWaiting && bench.feed.pendingBytes > 80 * 80);
  assert.equal(bench.sent.length, 2);
  bench.lane.sent();
  bench.settle();
  assert.deepEqual([bench.feed.pendingBytes, bench.sent.length, bench.lane.error], [0, 103, 0]);
  for (const [i, bytes] of bench.sent.slice(3).entries()) {
    const pong: Frame = { name: "", from: "client", lane: LANE, type: 0x90, offset: 1000 + i };
    const { header, payloadTag, headerTag } = seal(CHACHA, bench.keys.send, pong, 5 + i);
    assert.equal(hex(bytes), hex(concat(header, payloadTag, headerTag)), `PING ${i}`);
  }
});

Deno.test("a cipher without room for what it makes is a programmer's error", () => {
  assert.throws(() => new LaneBench(CHACHA), /ciphertext has its own room/);
});
