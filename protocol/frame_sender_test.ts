import assert from "node:assert/strict";
import { pattern } from "../tests/vectors/primitives.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec, type Handoff } from "./codec.ts";
import { FrameSender, NO_SLOT, type TransmitRoom } from "./frame_sender.ts";
import { makeMemory } from "./harness_test.ts";
import { FrameType, PREFIX_BYTES_MAX, writeHeader } from "./wire.ts";

const DEPTH = 8;
/** From one payload to the next: the largest payload of the tests, and a prefix. */
const STRIDE = 200_000;
const SLOTS_AT = 4096;
const ROOM_AT = SLOTS_AT + (DEPTH + 1) * STRIDE;
const ROOM = 2;
const KEY = pattern(32, 1);
const OTHER_KEY = pattern(32, 2);
const CHACHA: Handoff = { cipher: 1, digest: 0, keys: { send: KEY, receive: OTHER_KEY }, sent: 0, received: 0 };
const XXH64: Handoff = { cipher: 0, digest: 2, keys: null, sent: 0, received: 0 };
const NONE: Handoff = { cipher: 0, digest: 0, keys: null, sent: 0, received: 0 };

/** A sender, its host, and a peer that opens what was sent. */
class Setup {
  readonly memory = makeMemory(ROOM_AT + (ROOM + 1) * STRIDE + 8192);
  turn = 0;
  agains = 0;
  /** What was transmitted and not yet opened. */
  readonly transmitted: { bytes: Uint8Array; at: number; takesRoom: boolean }[] = [];
  taken = 0;
  given = 0;
  readonly room: TransmitRoom = {
    take: () => this.taken === ROOM ? -1 : (this.taken++, ROOM_AT + PREFIX_BYTES_MAX + this.given++ % ROOM * STRIDE),
    giveBack: () => void this.taken--,
    clear: () => void (this.taken = 0),
  };
  readonly sender: FrameSender;
  prefixBytes = 0;
  #peer!: FrameCodec;

  constructor(handoff: Handoff = CHACHA) {
    const turn = () => this.turn;
    this.sender = new FrameSender(this.memory, DEPTH, {
      get turn() {
        return turn();
      },
      again: () => this.agains++,
      transmit: (at, bytes, takesRoom) =>
        this.transmitted.push({ bytes: this.memory.bytes.slice(at, at + bytes), at, takesRoom }),
    });
    this.connect(handoff);
  }

  connect(handoff: Handoff): void {
    const codec = new FrameCodec(this.memory, this.memory.cryptography, 0, handoff);
    this.prefixBytes = codec.prefixBytes;
    this.sender.connect(codec, this.room);
    const peerMemory = makeMemory(CODEC_SCRATCH_BYTES + STRIDE);
    const keys = handoff.keys === null ? null : { send: handoff.keys.receive, receive: handoff.keys.send };
    this.#peer = new FrameCodec(peerMemory, peerMemory.cryptography, 0, { ...handoff, keys });
    this.open = () => {
      const { bytes } = this.transmitted.shift()!;
      const at = CODEC_SCRATCH_BYTES;
      peerMemory.bytes.set(bytes, at);
      assert.equal(this.#peer.openPrefix(at), 0);
      const payloadBytes = bytes.length - this.prefixBytes;
      let error = payloadBytes > 0 ? -1 : 0;
      while (error < 0) error = this.#peer.openPayload(at + this.prefixBytes, payloadBytes);
      assert.equal(error, 0);
      const payloadAt = at + this.prefixBytes;
      return {
        slot: peerMemory.view.getUint16(at + 8, true),
        payload: peerMemory.bytes.slice(payloadAt, payloadAt + payloadBytes),
      };
    };
  }

  /** Opens the first frame that was transmitted. */
  open!: () => { slot: number; payload: Uint8Array };

  payloadAt(slot: number): number {
    return SLOTS_AT + slot * STRIDE + PREFIX_BYTES_MAX;
  }

  payload(slot: number, bytes: number): Uint8Array {
    return this.memory.bytes.slice(this.payloadAt(slot), this.payloadAt(slot) + bytes);
  }

  /** Sends a frame of the slot with a payload that says whose it is. */
  send(slot: number, payloadBytes: number, keepsPlaintext = false): void {
    const at = this.payloadAt(slot) - this.prefixBytes;
    this.memory.bytes.set(pattern(payloadBytes, slot), this.payloadAt(slot));
    writeHeader(this.memory, at, FrameType.WRITE, 0, slot, 0, 1, 0, payloadBytes, payloadBytes, 0);
    this.sender.send(slot, at, payloadBytes, keepsPlaintext);
  }

  control(n: number): void {
    const at = SLOTS_AT + DEPTH * STRIDE + n * PREFIX_BYTES_MAX;
    writeHeader(this.memory, at, FrameType.PING, 0, 100 + n, 0, 0, 0, 0, 0, 0);
    this.sender.send(NO_SLOT, at, 0, false);
  }

  /** The next turn. */
  next(): void {
    this.turn++;
    this.sender.run();
  }
}

Deno.test("a frame is sealed and transmitted at once while the turn has time", () => {
  const setup = new Setup();
  setup.send(0, 65_536 - 80);
  assert.deepEqual([setup.transmitted.length, setup.agains, setup.sender.isBusy], [1, 0, false]);
  assert.deepEqual(setup.open(), { slot: 0, payload: pattern(65_536 - 80, 0) });
  // Nothing is left of this turn.
  setup.send(1, 0);
  assert.deepEqual([setup.transmitted.length, setup.agains, setup.sender.isBusy], [0, 1, true]);
  assert.ok(setup.sender.holds(1) && !setup.sender.holds(0));
  setup.sender.run();
  assert.equal(setup.transmitted.length, 0);
  setup.next();
  assert.deepEqual(setup.open(), { slot: 1, payload: new Uint8Array(0) });
  assert.ok(!setup.sender.holds(1) && !setup.sender.isBusy);
});

Deno.test("a large payload takes a turn for each piece, and what comes after waits behind it", () => {
  const setup = new Setup();
  setup.send(3, 3 * 65_536 + 1);
  setup.send(4, 16);
  setup.control(0);
  setup.send(5, 16);
  for (let turn = 0; turn < 3; turn++) {
    assert.deepEqual([setup.transmitted.length, setup.sender.holds(3)], [0, true], `turn ${turn}`);
    setup.next();
  }
  // Its last byte leaves time for the others.
  assert.deepEqual(setup.transmitted.length, 4);
  assert.deepEqual(setup.open(), { slot: 3, payload: pattern(3 * 65_536 + 1, 3) });
  assert.deepEqual(setup.open(), { slot: 4, payload: pattern(16, 4) });
  assert.equal(setup.open().slot, 100);
  assert.deepEqual(setup.open(), { slot: 5, payload: pattern(16, 5) });
  assert.ok(!setup.sender.isBusy);
});

Deno.test("no turn seals more than a piece with a cipher, some with a fast digest, and all with none", () => {
  for (const [handoff, most] of [[CHACHA, 65_536], [XXH64, 8 * 65_536], [NONE, Infinity]] as const) {
    const setup = new Setup(handoff);
    for (let slot = 0; slot < DEPTH; slot++) setup.send(slot, 130_000);
    let frames = 0;
    for (let turn = 0; setup.sender.isBusy; turn++) {
      assert.ok(turn < 100);
      frames = setup.transmitted.length;
      setup.next();
      assert.ok((setup.transmitted.length - frames) * 130_000 <= most + 130_000);
    }
    assert.equal(setup.transmitted.length, DEPTH);
    for (let slot = 0; slot < DEPTH; slot++) assert.deepEqual(setup.open(), { slot, payload: pattern(130_000, slot) });
    assert.equal(setup.turn > 0, most < DEPTH * 130_000);
  }
});

Deno.test("a payload whose plaintext is kept is encrypted elsewhere, and one that is not in place", () => {
  const setup = new Setup();
  setup.send(0, 5000, true);
  setup.send(1, 5000, false);
  assert.deepEqual(setup.payload(0, 5000), pattern(5000, 0));
  assert.notDeepEqual(setup.payload(1, 5000), pattern(5000, 1));
  assert.deepEqual(setup.transmitted.map(({ takesRoom }) => takesRoom), [true, false]);
  assert.ok(setup.transmitted[0].at >= ROOM_AT && setup.transmitted[1].at < ROOM_AT);
  for (const slot of [0, 1]) assert.deepEqual(setup.open(), { slot, payload: pattern(5000, slot) });
  // A frame without payload has nothing to keep, and a digest leaves the payload as it is.
  setup.send(2, 0, true);
  const plain = new Setup(XXH64);
  plain.send(0, 5000, true);
  for (const { takesRoom, at } of [...setup.transmitted, ...plain.transmitted]) {
    assert.ok(!takesRoom && at < ROOM_AT);
  }
});

Deno.test("a frame waits for room, and goes on in the turn after some was given back", () => {
  const setup = new Setup();
  for (let slot = 0; slot < 4; slot++) setup.send(slot, 1000, true);
  setup.control(0);
  assert.deepEqual([setup.transmitted.length, setup.agains], [2, 0]);
  // Turns alone change nothing, and are not asked for.
  setup.next();
  assert.deepEqual([setup.transmitted.length, setup.agains], [2, 0]);
  setup.sender.sent();
  assert.deepEqual([setup.transmitted.length, setup.agains], [2, 1]);
  setup.next();
  assert.equal(setup.transmitted.length, 3);
  setup.sender.sent();
  setup.sender.sent();
  setup.next();
  assert.equal(setup.transmitted.length, 5);
  for (let slot = 0; slot < 4; slot++) assert.deepEqual(setup.open(), { slot, payload: pattern(1000, slot) });
  assert.equal(setup.open().slot, 100);
});

Deno.test("with many frames without a slot waiting, the sender says so until they have left", () => {
  const setup = new Setup();
  setup.send(0, 65_536);
  setup.control(0);
  assert.ok(!setup.sender.isCongested);
  for (let n = 1; n < 16; n++) setup.control(n);
  assert.ok(setup.sender.isCongested);
  setup.next();
  assert.ok(!setup.sender.isCongested);
  assert.equal(setup.transmitted.length, 17);
  // There is room for the end's own on top, and for one of each slot; more is a programmer's error.
  setup.next();
  setup.send(0, 65_536);
  for (let slot = 1; slot < DEPTH; slot++) setup.send(slot, 0);
  for (let n = 0; n < 32; n++) setup.control(n);
  setup.next();
  setup.next();
  assert.ok(!setup.sender.isBusy);
});

Deno.test("what waits when the connection ends is forgotten, and its half sealed frame with it", () => {
  const setup = new Setup();
  setup.send(0, 200, true);
  setup.send(1, 150_000, true);
  setup.send(2, 100, true);
  setup.control(0);
  assert.equal(setup.transmitted.length, 1);
  setup.sender.disconnect();
  assert.ok(!setup.sender.isBusy && ![0, 1, 2].some((slot) => setup.sender.holds(slot)));
  assert.equal(setup.taken, 0);
  // What the kernel says of the old connection's messages means nothing any more.
  setup.sender.sent();
  setup.transmitted.length = 0;
  setup.connect({ ...CHACHA, keys: { send: OTHER_KEY, receive: KEY } });
  setup.send(1, 150_000, true);
  setup.next();
  setup.next();
  assert.deepEqual(setup.open(), { slot: 1, payload: pattern(150_000, 1) });
});
