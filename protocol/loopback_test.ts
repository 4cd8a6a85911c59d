/**
 * Both ends joined through memory:
 *
 *     ClientDoor, ClientLane ── bytes, in pieces ──> ExporterDoor, ExporterLane ──> a disk that is an array
 *                            <─ bytes, in pieces ──
 *
 * Connections are cut at random; the client joins again and resends.
 */
import assert from "node:assert/strict";
import { type Suite, SUITES } from "../tests/vectors/frames.ts";
import { concat, pattern } from "../tests/vectors/primitives.ts";
import { makeArena } from "../wasm/core.ts";
import { ClientDoor } from "./client_door.ts";
import { ClientLane } from "./client_lane.ts";
import { Arena, Feed, Random, Room, XXH64 } from "./client_support_test.ts";
import { CODEC_SCRATCH_BYTES, FrameCodec } from "./codec.ts";
import { DOOR_SCRATCH_BYTES, ExporterDoor } from "./exporter_door.ts";
import { ExporterLane, LANE_CONTROL_BYTES } from "./exporter_lane.ts";
import { coreCryptography } from "./guard_support_test.ts";
import { encodeGrant, type Grant, type JoinRequest, type OpenRequest } from "./grant.ts";
import { Operation, PENDING } from "./request.ts";
import { Errno, Status } from "./status.ts";
import { Cipher, Digest, FrameType, writeUint64 } from "./wire.ts";

const BLOCK = 512;
const DISK_BYTES = 1024 * 1024;
const DEPTH = 8;
/** More than two pieces of a cipher. */
const PAYLOAD = 160 * 1024;
/** Of most requests. */
const SMALL_PAYLOAD = 4096;
const KEY = { id: pattern(16, 4), secret: pattern(32, 5) };
/** Payloads that the client has room to encrypt: so few that it has to wait. */
const ROOM = 1;
/** How many frames a key serves here: so few that connections use several, more than a door sends. */
const REKEY_FRAMES = 24;
const FENCINGS_MAX = 8;
const SESSION = pattern(16, 9);
const SHAPE = { size: DISK_BYTES, logicalBlock: BLOCK, physicalBlock: 4096, optimalIo: 4096, discardGranularity: 512 };
const IDENTITIES = {
  instance: pattern(16, 1),
  durability: pattern(16, 2),
  storage: pattern(16, 3),
  writeEpoch: 1_700_000_000_000_000,
};
const GRANT: Grant = {
  ...SHAPE,
  access: 1,
  features: 63,
  identities: IDENTITIES,
  slots: DEPTH,
  maxPayload: PAYLOAD,
  payloadBytes: DEPTH * PAYLOAD,
  leaseMs: 1000,
  lanes: 1,
};

/** Bytes queued on one side and not yet taken by the other: read from their place only when they are sent. */
class Pipe {
  #queue: { at: number; bytes: number; takesRoom: boolean }[] = [];

  /** @param sent is told of each message that took room, when it is taken */
  constructor(readonly memory: Uint8Array, readonly sent: () => void = () => {}) {}

  transmit = (at: number, bytes: number, takesRoom = false): void => {
    this.#queue.push({ at, bytes, takesRoom });
  };

  /** Whether nothing is under way. */
  get isEmpty(): boolean {
    return this.#queue.length === 0;
  }

  /** Takes so many bytes at most. */
  take(most: number): Uint8Array {
    const parts: Uint8Array[] = [];
    while (most > 0 && this.#queue.length > 0) {
      const first = this.#queue[0];
      const bytes = Math.min(most, first.bytes);
      parts.push(this.memory.slice(first.at, first.at + bytes));
      first.at += bytes;
      first.bytes -= bytes;
      most -= bytes;
      if (first.bytes > 0) continue;
      this.#queue.shift();
      if (first.takesRoom) this.sent();
    }
    return concat(...parts);
  }

  /** The connection is cut. */
  clear(): void {
    this.#queue = [];
  }
}

/** An exporter of one disk and one session, whose lane outlives its connections. */
class Exporter {
  readonly core = makeArena(2 ** 23);
  readonly cryptography = coreCryptography(this.core);
  readonly stagingAt = this.core.freeFrom;
  /** What the present connection has to send. */
  pipe = new Pipe(this.core.bytes);
  /** The same of the connection that the lane is on, which may be one that is gone without the lane knowing. */
  #lanePipe = this.pipe;
  readonly disk = new Uint8Array(DISK_BYTES);
  readonly lane: ExporterLane;
  /** How often each WRITE was executed, by slot and what the client wrote into its first bytes. */
  readonly executions = new Map<string, number>();
  feed!: Feed;
  door!: ExporterDoor;
  isCloseAsked = false;
  /** The lane has more to do, in a turn to come. */
  isAgainWanted = false;
  turn = 0;
  /** Turns in which a lane has gone on. */
  waits = 0;
  readonly #codecAt = this.stagingAt + 1024;
  readonly #doorAt = this.#codecAt + CODEC_SCRATCH_BYTES;
  readonly #controlAt = this.#doorAt + DOOR_SCRATCH_BYTES;
  readonly #payloadAt: number[];
  /** Requests that execute, by slot. */
  readonly #executing = new Map<number, () => number>();
  #isPending = false;
  #fencings = 0;
  #join: JoinRequest | null = null;
  #extentBytes = 0;

  constructor(readonly random: Random) {
    const turn = () => this.turn;
    const slotsAt = Math.ceil((this.#controlAt + LANE_CONTROL_BYTES) / 4096) * 4096 + 4096;
    this.#payloadAt = Array.from({ length: DEPTH }, (_, slot) => slotsAt + slot * (PAYLOAD + 4096));
    this.lane = new ExporterLane(this.core, {
      lane: 0,
      depth: DEPTH,
      maxPayload: PAYLOAD,
      payloadAt: this.#payloadAt,
      controlAt: this.#controlAt,
      size: DISK_BYTES,
      logicalBlock: BLOCK,
      readOnly: false,
    }, {
      execute: (slot, operation, [offset, length]) => this.#execute(slot, operation, offset, length),
      extentBytes: () => this.#extentBytes,
      transmit: (at, bytes) => this.#lanePipe.transmit(at, bytes),
      closeSession: () => this.isCloseAsked = true,
      again: () => this.isAgainWanted = true,
      get turn() {
        return turn();
      },
    });
  }

  /** A turn begins. */
  goOn(): void {
    this.turn++;
    if (!this.isAgainWanted) return;
    this.isAgainWanted = false;
    this.waits++;
    this.lane.run();
    if (this.feed.isWaiting && this.feed.consumer === this.lane) this.feed.resume();
  }

  /** A connection has come in. */
  accept(): void {
    this.pipe = new Pipe(this.core.bytes);
    this.#fencings = 0;
    this.#isPending = false;
    this.#join = null;
    this.door = new ExporterDoor(this.core, this.cryptography, this.#doorAt, {
      ciphers: [Cipher.NONE, Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM],
      digests: [Digest.CRC32C, Digest.XXH64, Digest.NONE, Digest.BLAKE2B_256, Digest.HMAC_SHA_256],
      keyRequired: false,
    }, {
      transmit: this.pipe.transmit,
      keyOf: (id) => id.every((byte, i) => byte === KEY.id[i]) ? KEY.secret : null,
      randomBytes: (count) => this.random.bytes(count),
      list: (after) => ({
        entries: ["a", "b", "disk"].filter((name) => name > after)
          .map((name) => ({ name, size: DISK_BYTES, access: 1, features: 63 })),
        more: false,
      }),
      describe: (name) =>
        name === "disk" ? { ...SHAPE, access: 1, features: 63, identities: IDENTITIES, current: null } : null,
      open: (request) => this.#open(request),
      join: (request) => this.#join = request,
    });
    this.feed = new Feed(this, this.door);
  }

  #open(request: OpenRequest): void {
    this.#isPending = true;
    this.#join = null;
    assert.deepEqual(request.session, SESSION);
    assert.deepEqual([request.export, request.holder, request.access], ["disk", "tester", 1]);
  }

  /** Does what follows after a door's request, once the machine has answered WAIT. */
  settle(): void {
    if (!this.feed.isWaiting) return;
    if (this.#isPending) {
      this.#isPending = false;
      this.#connect(FrameType.OPEN, 1);
    } else if (this.#join !== null) {
      if (this.lane.isConnected) this.lane.disconnect();
      if (this.#join.generation <= this.lane.generation) {
        this.#join = null;
        this.door.refuse(Status.OLD_GENERATION, "an old generation");
        this.feed.resume();
      } else if (this.lane.executing > 0) {
        if (this.pipe.isEmpty && this.#fencings++ < FENCINGS_MAX) this.door.fencing(this.lane.executing);
      } else if (this.pipe.isEmpty) {
        const { generation } = this.#join;
        this.#join = null;
        this.#connect(FrameType.JOIN, generation);
      }
    }
  }

  #connect(type: number, generation: number): void {
    const codec = new FrameCodec(this.core, this.cryptography, this.#codecAt, this.door.handoff(), REKEY_FRAMES);
    this.door.close();
    this.#lanePipe = this.pipe;
    this.lane.connect(codec, type, generation, encodeGrant(GRANT), 0);
    this.feed.takeOver(this.lane);
  }

  #execute(slot: number, operation: number, offset: number, length: number): number {
    const at = this.#payloadAt[slot];
    const { bytes, view } = this.core;
    const act = (): number => {
      if (operation === Operation.READ) bytes.set(this.disk.subarray(offset, offset + length), at);
      else if (operation === Operation.WRITE) {
        const key = `${slot} ${view.getUint32(at, true)}`;
        this.executions.set(key, (this.executions.get(key) ?? 0) + 1);
        this.disk.set(bytes.subarray(at, at + length), offset);
      } else if (operation === Operation.WRITE_ZEROES) this.disk.fill(0, offset, offset + length);
      else if (operation === Operation.BLOCK_STATUS) {
        this.#extentBytes = 16;
        writeUint64(view, at, Math.min(length, 65536));
        writeUint64(view, at + 8, 0);
      } else if (operation === Operation.CACHE) return -Errno.EIO;
      return 0;
    };
    if (operation === Operation.BLOCK_STATUS || this.random.below(2) === 0) return act();
    this.#executing.set(slot, act);
    return PENDING;
  }

  /** One of the requests that execute ends, if there is one. */
  completeOne(): void {
    const slots = [...this.#executing.keys()];
    if (slots.length === 0) return;
    const slot = slots[this.random.below(slots.length)];
    const act = this.#executing.get(slot)!;
    this.#executing.delete(slot);
    this.lane.complete(slot, act());
  }
}

/** A client that keeps a mirror of what it wrote, and reconnects. */
class Client {
  readonly arena = new Arena(DEPTH, ROOM);
  readonly room = new Room(this.arena, ROOM);
  readonly pipe = new Pipe(this.arena.core.bytes, () => this.lane.sent());
  readonly mirror = new Uint8Array(DISK_BYTES);
  readonly lane: ClientLane;
  readonly log: string[] = [];
  feed!: Feed;
  door!: ClientDoor;
  generation = 0;
  completed = 0;
  /** The lane has more to do, in a turn to come. */
  isAgainWanted = false;
  turn = 0;
  /** Turns in which a lane has gone on. */
  waits = 0;
  isClosed = false;
  #written = 0;
  readonly #operation = new Array<number>(DEPTH).fill(0);
  readonly #offset = new Array<number>(DEPTH).fill(0);
  readonly #length = new Array<number>(DEPTH).fill(0);

  constructor(readonly random: Random, readonly suite: Suite) {
    const turn = () => this.turn;
    this.lane = new ClientLane(this.arena.core, {
      lane: 0,
      depth: DEPTH,
      maxPayload: PAYLOAD,
      controlAt: this.arena.scratchAt,
      logicalBlock: BLOCK,
    }, {
      transmit: this.pipe.transmit,
      completed: (slot, status, payloadBytes) => this.#onCompleted(slot, status, payloadBytes),
      resized: (size) => this.log.push(`resized ${size}`),
      shuttingDown: () => this.log.push("shutting down"),
      fenced: () => this.log.push("fenced"),
      closed: () => this.isClosed = true,
      again: () => this.isAgainWanted = true,
      get turn() {
        return turn();
      },
    });
  }

  /** A turn begins. */
  goOn(): void {
    this.turn++;
    if (!this.isAgainWanted) return;
    this.isAgainWanted = false;
    this.waits++;
    this.lane.run();
    if (this.feed.isWaiting) this.feed.resume();
  }

  connect(): void {
    this.pipe.clear();
    this.door = new ClientDoor(this.arena.core, this.arena.cryptography, this.arena.scratchAt, {
      ciphers: [this.suite.cipher],
      digests: [this.suite.digest],
      key: this.suite.keyed ? KEY : null,
      ephemeral: this.random.bytes(32),
    }, {
      transmit: this.pipe.transmit,
      ready: () => this.door.list("a"),
      listed: (entries) => {
        assert.deepEqual(entries.map((entry) => entry.name), ["b", "disk"]);
        this.door.describe("none");
      },
      refused: (status) => {
        assert.equal(status, Status.NOT_FOUND);
        this.door.describe("disk");
      },
      described: (description) => {
        assert.equal(description.size, DISK_BYTES);
        const wishes = { depth: null, maxPayload: null };
        this.generation++;
        if (this.generation > 1) {
          this.door.join({ session: SESSION, lane: 0, generation: this.generation, fresh: false, ...wishes });
          return;
        }
        const more = { leaseMs: null, lanes: null, steal: false, resume: null };
        this.door.open({ export: "disk", session: SESSION, access: 1, holder: "tester", ...wishes, ...more });
      },
      fencing: (executing) => this.log.push(`fencing ${executing}`),
      granted: (grant) => {
        assert.deepEqual(grant, GRANT);
        const { core, cryptography, codecAt } = this.arena;
        const codec = new FrameCodec(core, cryptography, codecAt, this.door.handoff(), REKEY_FRAMES);
        this.door.close();
        this.lane.connect(codec, 0, this.room);
        this.feed.consumer = this.lane;
        for (let slot = 0; slot < DEPTH; slot++) if (this.lane.isUnsent(slot)) this.lane.resend(slot);
      },
      failed: (text) => assert.fail(text),
    });
    this.feed = new Feed(this.arena, this.door);
    this.door.start();
  }

  /** A new request in a free slot, unless it overlaps what is under way. */
  issue(): void {
    const slot = this.random.below(DEPTH);
    if (this.lane.isBusy(slot)) return;
    const operation = 1 + this.random.below(7);
    const most = this.random.below(10) === 0 ? PAYLOAD : SMALL_PAYLOAD;
    let length = BLOCK * (1 + this.random.below(most / BLOCK));
    let offset = BLOCK * this.random.below((DISK_BYTES - length) / BLOCK + 1);
    if (operation === Operation.FLUSH) length = offset = 0;
    for (let other = 0; other < DEPTH; other++) {
      const end = this.#offset[other] + this.#length[other];
      if (this.lane.isBusy(other) && offset < end && this.#offset[other] < offset + length) return;
    }
    const at = this.arena.payloadAt(slot);
    if (operation === Operation.WRITE) {
      this.arena.core.bytes.set(this.random.bytes(length), at);
      this.arena.core.view.setUint32(at, this.#written++, true);
      this.mirror.set(this.arena.core.bytes.subarray(at, at + length), offset);
    } else if (operation === Operation.WRITE_ZEROES) this.mirror.fill(0, offset, offset + length);
    this.#operation[slot] = operation;
    this.#offset[slot] = offset;
    this.#length[slot] = length;
    this.lane.request(slot, at, operation, Float64Array.of(offset, length), 0);
  }

  #onCompleted(slot: number, status: number, payloadBytes: number): void {
    const at = this.arena.payloadAt(slot);
    const length = this.#length[slot];
    assert.equal(status, this.#operation[slot] === Operation.CACHE ? -Errno.EIO : 0);
    if (this.#operation[slot] === Operation.READ) {
      assert.equal(payloadBytes, length);
      const expected = this.mirror.subarray(this.#offset[slot], this.#offset[slot] + length);
      assert.deepEqual(this.arena.core.bytes.subarray(at, at + length), expected);
    } else assert.equal(payloadBytes, this.#operation[slot] === Operation.BLOCK_STATUS ? 16 : 0);
    this.completed++;
  }
}

/** So many bytes go over at once, at most. */
const MOVES = [40, 4000, 4000, 4000, PAYLOAD];

/** Everything between two ends, driven by one random generator. */
class World {
  readonly random: Random;
  readonly exporter: Exporter;
  readonly client: Client;
  cuts = 0;

  constructor(readonly seed: number, suite: Suite) {
    this.random = new Random(seed);
    this.exporter = new Exporter(this.random);
    this.client = new Client(this.random, suite);
    this.connect();
  }

  connect(): void {
    this.exporter.accept();
    this.client.connect();
  }

  /** Some bytes go over in one direction or the other. */
  move(most: number): void {
    const { client, exporter } = this;
    if (this.random.below(2) === 0) exporter.feed.push(client.pipe.take(1 + this.random.below(most)));
    else client.feed.push(exporter.pipe.take(1 + this.random.below(most)));
    // Turns are scarce, so that lanes have to wait for them.
    if (this.random.below(8) === 0) client.goOn();
    if (this.random.below(8) === 0) exporter.goOn();
    exporter.settle();
    assert.equal(client.lane.error, 0, `seed ${this.seed}`);
    assert.equal(exporter.lane.error, 0, `seed ${this.seed}`);
    assert.ok(!exporter.feed.isClosed, `seed ${this.seed}`);
  }

  /** The connection is lost, both ends notice, the client comes back. */
  cut(): void {
    this.cuts++;
    // The exporter notices now, or only when the lane is joined again.
    if (this.exporter.lane.isConnected && this.random.below(2) === 0) this.exporter.lane.disconnect();
    this.client.lane.disconnect();
    this.connect();
  }

  /** Until everything is answered. */
  drain(): void {
    for (let turn = 0; !this.client.lane.isConnected || this.client.lane.busy > 0; turn++) {
      assert.ok(turn < 200_000, `seed ${this.seed}: nothing moves any more`);
      this.move(PAYLOAD);
      if (turn % 4 === 0) this.exporter.completeOne();
    }
  }
}

for (const [index, suite] of SUITES.entries()) {
  Deno.test(`both ends agree about everything through lost connections, with ${suite.name}`, () => {
    const seed = 4711 + index;
    const world = new World(seed, suite);
    const { client, exporter, random } = world;
    for (let step = 0; step < 12_000; step++) {
      const choice = random.below(100);
      if (choice < 15) client.issue();
      else if (choice < 20) exporter.completeOne();
      else world.move(MOVES[random.below(MOVES.length)]);
      if (random.below(300) === 0) world.cut();
    }
    world.drain();
    assert.ok(world.cuts > 10 && client.completed > 500, `seed ${seed}: ${world.cuts} cuts, ${client.completed} done`);
    assert.ok(client.log.some((line) => line.startsWith("fencing")), `seed ${seed}`);
    assert.deepEqual(exporter.disk, client.mirror, `seed ${seed}`);
    if (suite.tagBytes >= 16) {
      assert.ok(client.waits > 0 && exporter.waits > 0, `seed ${seed}: nobody had to wait for turns`);
    }
    if (suite.cipher > 0) assert.ok(client.room.refused > 0, `seed ${seed}: nobody had to wait for room`);
    for (const [key, count] of exporter.executions) assert.equal(count, 1, `seed ${seed}: WRITE ${key}`);
  });
}

Deno.test("both ends ping, resize, shut down and close with each other", () => {
  const world = new World(1, XXH64);
  const { client, exporter } = world;
  world.drain();
  const settle = () => {
    for (let turn = 0; turn < 100; turn++) world.move(4096);
  };
  client.lane.tick(5000);
  exporter.lane.tick(5000);
  settle();
  client.lane.heard(5000);
  exporter.lane.heard(5000);
  // Both have their answers: the next ping goes out.
  client.lane.tick(7000);
  assert.ok(!client.pipe.isEmpty);
  settle();
  exporter.lane.resized(DISK_BYTES / 2);
  exporter.lane.shutdown();
  settle();
  assert.deepEqual(client.log, [`resized ${DISK_BYTES / 2}`, "shutting down"]);
  client.lane.close();
  settle();
  assert.ok(exporter.isCloseAsked && !client.isClosed);
  exporter.lane.closed();
  settle();
  assert.ok(client.isClosed && client.feed.isClosed);
});

Deno.test("a session that was taken over ends at the client", () => {
  const world = new World(2, SUITES[1]);
  world.drain();
  world.exporter.lane.fenced();
  for (let turn = 0; turn < 20; turn++) world.move(4096);
  assert.deepEqual(world.client.log, ["fenced"]);
  assert.ok(world.client.feed.isClosed);
});
