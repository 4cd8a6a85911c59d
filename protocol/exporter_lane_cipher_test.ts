import assert from "node:assert/strict";
import { pattern } from "../tests/vectors/primitives.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "./codec.ts";
import { ProtocolError } from "./error.ts";
import { ExporterLane, type ExporterLaneHost, LANE_CONTROL_BYTES } from "./exporter_lane.ts";
import { concat, Feeder, type Fields, makeMemory, type Received } from "./harness_test.ts";
import { Operation, PENDING } from "./request.ts";
import { Status } from "./status.ts";
import * as wire from "./wire.ts";

const KEYS = { send: pattern(32, 1), receive: pattern(32, 2) };
const PIECE = 65_536;
const MAX_PAYLOAD = 4 * PIECE;
const DEPTH = 4;
const PREFIX_BYTES = 128;
const LANE = 3;
const FLUSH = { type: Operation.FLUSH, sequence: 1 };

/** The client's end: its frames are made and opened by a codec of its own. */
class Peer {
  readonly memory = makeMemory(CODEC_SCRATCH_BYTES + PREFIX_BYTES + MAX_PAYLOAD);
  readonly codec: FrameCodec;
  readonly #at = CODEC_SCRATCH_BYTES;

  constructor() {
    const keys = { send: KEYS.receive, receive: KEYS.send };
    const handoff = { cipher: 1, digest: 0, keys, sent: 0, received: 0 };
    this.codec = new FrameCodec(this.memory, this.memory.cryptography, 0, handoff);
  }

  /** The bytes of the next frame. */
  frame(fields: Fields): Uint8Array {
    const payload = fields.payload ?? new Uint8Array(0);
    const at = this.#at;
    const payloadAt = at + this.codec.prefixBytes;
    const { type, flags = 0, slot = 0, sequence = 0, offset = 0, length = payload.length, status = 0 } = fields;
    const range = [Number(offset), Number(length)] as const;
    wire.writeHeader(this.memory, at, type, flags, slot, LANE, sequence, ...range, payload.length, status);
    this.memory.bytes.set(payload, payloadAt);
    while (!this.codec.seal(at, payloadAt, payload.length));
    return this.memory.bytes.slice(at, payloadAt + payload.length);
  }

  /** Opens frames one after the other. */
  open(bytes: Uint8Array): Received[] {
    const frames: Received[] = [];
    const { memory, codec } = this;
    const at = this.#at;
    for (let done = 0; done < bytes.length;) {
      memory.bytes.set(bytes.subarray(done, done + codec.prefixBytes), at);
      assert.equal(codec.openPrefix(at), 0);
      done += codec.prefixBytes;
      const payloadBytes = wire.framePayloadBytes(memory, at);
      const payloadAt = at + codec.prefixBytes;
      memory.bytes.set(bytes.subarray(done, done + payloadBytes), payloadAt);
      let error = payloadBytes > 0 ? -1 : 0;
      while (error < 0) error = codec.openPayload(payloadAt, payloadBytes);
      assert.equal(error, 0);
      done += payloadBytes;
      frames.push({
        type: wire.frameType(memory, at),
        flags: wire.frameFlags(memory, at),
        slot: wire.frameSlot(memory, at),
        lane: wire.frameLane(memory, at),
        sequence: wire.frameSequence(memory, at),
        offset: wire.frameOffset(memory, at),
        length: wire.frameLength(memory, at),
        status: wire.frameStatus(memory, at),
        payload: memory.bytes.slice(payloadAt, payloadAt + payloadBytes),
      });
    }
    return frames;
  }
}

/** A lane over a cipher, its disk, and turns that pass one by one. */
class Setup implements ExporterLaneHost {
  readonly memory;
  readonly lane: ExporterLane;
  readonly peer = new Peer();
  readonly feeder: Feeder;
  readonly writes: Uint8Array[] = [];
  executed = 0;
  closings = 0;
  turn = 0;
  isAgainWanted = false;
  /** What is not complete when it is submitted: it waits for `lane.complete`. */
  isPending = false;
  readonly #payloadAt: number[];
  #sent: Uint8Array[] = [];

  constructor() {
    const controlAt = CODEC_SCRATCH_BYTES;
    const slotsAt = controlAt + LANE_CONTROL_BYTES;
    this.#payloadAt = Array.from(
      { length: DEPTH },
      (_, i) => slotsAt + i * (PREFIX_BYTES + MAX_PAYLOAD) + PREFIX_BYTES,
    );
    const stagingAt = slotsAt + DEPTH * (PREFIX_BYTES + MAX_PAYLOAD);
    this.memory = makeMemory(stagingAt + 512);
    this.lane = new ExporterLane(this.memory, {
      lane: LANE,
      depth: DEPTH,
      maxPayload: MAX_PAYLOAD,
      payloadAt: this.#payloadAt,
      controlAt,
      size: 2 ** 30,
      logicalBlock: 512,
      readOnly: false,
    }, this);
    const handoff = { cipher: 1, digest: 0, keys: KEYS, sent: 0, received: 0 };
    const codec = new FrameCodec(this.memory, this.memory.cryptography, 0, handoff);
    this.lane.connect(codec, wire.FrameType.OPEN, 1, new Uint8Array(24), 0);
    this.feeder = new Feeder(this.memory, stagingAt, this.lane);
    assert.equal(this.frames()[0].type, wire.FrameType.OPEN | wire.REPLY);
    this.next();
  }

  execute(laneSlot: number, operation: number, [offset, length]: Float64Array): number {
    this.executed++;
    const at = this.#payloadAt[laneSlot];
    if (operation === Operation.READ) this.memory.bytes.set(pattern(length, offset / 512), at);
    if (operation === Operation.WRITE) this.writes.push(this.memory.bytes.slice(at, at + length));
    return this.isPending ? PENDING : 0;
  }
  extentBytes(): number {
    return 16;
  }
  transmit(at: number, bytes: number): void {
    this.#sent.push(this.memory.bytes.slice(at, at + bytes));
  }
  closeSession(): void {
    this.closings++;
  }
  again(): void {
    this.isAgainWanted = true;
  }

  send(...frames: Fields[]): void {
    this.feeder.feed(concat(...frames.map((fields) => this.peer.frame(fields))));
  }

  /** The next turn. */
  next(): void {
    this.turn++;
    if (!this.isAgainWanted) return;
    this.isAgainWanted = false;
    this.lane.run();
    if (this.feeder.waiting) this.feeder.resume();
  }

  /** Turns until nothing is left to do. */
  settle(): number {
    const before = this.turn;
    while (this.isAgainWanted) {
      assert.ok(this.turn < before + 1000, "turns are not wanted for ever");
      this.next();
    }
    return this.turn - before;
  }

  /** What was sent since the last call. */
  takeBytes(): Uint8Array[] {
    return this.#sent.splice(0);
  }

  frames(): Received[] {
    return this.peer.open(concat(...this.takeBytes()));
  }
}

const read = (slot: number, length: number, sequence = 1): Fields => ({
  type: Operation.READ,
  slot,
  sequence,
  offset: slot * 512,
  length,
});

Deno.test("replies leave in order, a piece a turn, and say what was read", () => {
  const setup = new Setup();
  setup.send(read(0, 3 * PIECE), read(1, 512), read(2, 2 * PIECE));
  assert.equal(setup.executed, 3);
  assert.deepEqual(setup.frames(), []);
  assert.ok(setup.lane.isSending);
  assert.ok(setup.settle() >= 5);
  const frames = setup.frames();
  assert.deepEqual(frames.map(({ type, slot, status }) => [type, slot, status]), [0, 1, 2].map((i) => [0x81, i, 0]));
  for (const [i, length] of [3 * PIECE, 512, 2 * PIECE].entries()) {
    assert.deepEqual(frames[i].payload, pattern(length, i));
  }
  assert.ok(!setup.lane.isSending);
});

Deno.test("a WRITE is executed when its last piece is open, with what the client has sealed", () => {
  const setup = new Setup();
  const payload = pattern(4 * PIECE, 9);
  setup.send({ type: Operation.WRITE, slot: 1, sequence: 1, payload });
  assert.equal(setup.executed, 0);
  setup.next();
  setup.next();
  assert.equal(setup.executed, 0);
  setup.settle();
  assert.deepEqual(setup.writes, [payload]);
  assert.deepEqual(setup.frames().map(({ type, status }) => [type, status]), [[0x82, 0]]);
});

Deno.test("a WRITE with a wrong bit in any piece never reaches the disk, and ends the lane", () => {
  for (const at of [0, PIECE, 3 * PIECE - 1]) {
    const setup = new Setup();
    const bytes = setup.peer.frame({ type: Operation.WRITE, slot: 1, sequence: 1, payload: pattern(3 * PIECE, 9) });
    bytes[setup.peer.codec.prefixBytes + at] ^= 1;
    setup.feeder.feed(bytes);
    setup.settle();
    assert.deepEqual([setup.executed, setup.feeder.closed, setup.lane.error], [0, true, ProtocolError.PAYLOAD_TAG]);
    assert.deepEqual(setup.frames(), []);
  }
});

Deno.test("headers that have to wait for a turn are opened once", () => {
  const setup = new Setup();
  const writes = Array.from({ length: 40 }, (_, i) => ({
    type: Operation.WRITE,
    slot: i % DEPTH,
    sequence: 1 + Math.floor(i / DEPTH),
    payload: pattern(8192, i),
  }));
  setup.send(...writes);
  assert.ok(setup.feeder.waiting && setup.executed < 9);
  assert.ok(setup.settle() >= 4);
  assert.deepEqual([setup.executed, setup.lane.error, setup.feeder.unread], [40, 0, 0]);
  assert.deepEqual(setup.writes, writes.map(({ payload }) => payload));
  assert.equal(setup.frames().length, 40);
});

Deno.test("a slot whose reply waits to be sent takes no request: its client cannot have the reply", () => {
  for (const sequence of [1, 2]) {
    const setup = new Setup();
    setup.send(read(0, 2 * PIECE), read(1, 512), { ...read(1, 512), sequence });
    setup.settle();
    assert.deepEqual([setup.executed, setup.feeder.closed, setup.lane.error], [2, true, ProtocolError.SLOT_BUSY]);
  }
});

Deno.test("a flood of PINGs waits while others' replies are sealed, and every one is answered in order", () => {
  const setup = new Setup();
  const pings = Array.from({ length: 100 }, (_, i) => ({ type: wire.FrameType.PING, offset: i, length: 0 }));
  setup.send(read(0, 4 * PIECE), ...pings);
  assert.ok(setup.feeder.waiting && setup.feeder.unread > 0);
  setup.settle();
  const [reply, ...pongs] = setup.frames();
  assert.deepEqual(reply.payload, pattern(4 * PIECE, 0));
  assert.deepEqual(pongs.map(({ type, offset }) => [type, offset]), pings.map(({ offset }) => [0x90, offset]));
  assert.equal(setup.lane.error, 0);
});

Deno.test("a lane that is to finish sends what it has and takes nothing more", () => {
  const setup = new Setup();
  setup.send(read(0, 3 * PIECE), { type: Operation.WRITE, slot: 1, sequence: 1, payload: pattern(2 * PIECE, 9) });
  setup.lane.fenced();
  setup.lane.finish();
  setup.send({ ...FLUSH, slot: 2 });
  setup.settle();
  assert.ok(!setup.lane.isSending && setup.feeder.waiting);
  assert.equal(setup.executed, 1);
  assert.deepEqual(setup.frames().map(({ type }) => type), [0x81, wire.FrameType.FENCED]);
});

Deno.test("a WRITE that is fenced while its payload arrives is not executed", () => {
  const setup = new Setup();
  setup.send({ type: Operation.WRITE, slot: 1, sequence: 1, payload: pattern(3 * PIECE, 9) });
  setup.lane.fenced();
  setup.settle();
  assert.equal(setup.executed, 0);
  const [fenced, reply] = setup.frames();
  assert.deepEqual([fenced.type, reply.type, reply.status], [wire.FrameType.FENCED, 0x82, Status.EPOCH_CHANGED]);
});

Deno.test("what waits to be sent when the connection ends is told when it is asked for again", () => {
  const setup = new Setup();
  setup.isPending = true;
  setup.send(read(0, 3 * PIECE), { ...FLUSH, slot: 1 });
  setup.lane.complete(0, 0);
  setup.lane.complete(1, 0);
  assert.ok(setup.lane.isSending);
  setup.lane.disconnect();
  assert.ok(!setup.lane.isSending);
  assert.deepEqual([setup.lane.executing, setup.frames()], [0, []]);
  setup.next();
  const handoff = { cipher: 1, digest: 0, keys: KEYS, sent: 0, received: 0 };
  const codec = new FrameCodec(setup.memory, setup.memory.cryptography, 0, handoff);
  const peer = new Peer();
  setup.lane.connect(codec, wire.FrameType.JOIN, 2, new Uint8Array(8), 0);
  setup.isPending = false;
  setup.feeder.feed(concat(peer.frame({ ...FLUSH, slot: 1, length: 0 }), peer.frame(read(0, 3 * PIECE))));
  setup.settle();
  const frames = peer.open(concat(...setup.takeBytes()));
  assert.deepEqual(frames.map(({ type }) => type), [0xa3, 0x83, 0x81]);
  assert.deepEqual(frames[2].payload, pattern(3 * PIECE, 0));
});
