import assert from "node:assert/strict";
import { Access, Feature, type OpenRequest } from "../protocol/grant.ts";
import { Status } from "../protocol/status.ts";
import { FrameType } from "../protocol/wire.ts";
import { type Caller, Coordinator } from "./coordinator.ts";
import { nbdSession, type ToData } from "./messages.ts";
import { Permissions } from "./permissions.ts";
import { type Refusal, type RegisteredExport, Registry, type Session } from "./registry.ts";
import { type DiskRecord, newRecord } from "./state.ts";

type Said<Say extends ToData["say"]> = Extract<ToData, { say: Say }>;

/** A connection at the door that remembers what it was told. */
class Peer implements Caller {
  readonly socketAddress = { family: "ipv4", host: "192.0.2.1", port: 1000 } as const;
  readonly address = "192.0.2.1:1000";
  token = 0;
  isWaiting = true;
  session: Session | null = null;
  lane = 0;
  generation = 0;
  answerType = 0;
  refusal: Refusal | null = null;
  executing: number[] = [];
  isPrepared = false;

  constructor(readonly keyId: string | null = null) {}

  refuse(refusal: Refusal): void {
    this.refusal = refusal;
    this.isWaiting = false;
  }

  fencing(executing: number): void {
    this.executing.push(executing);
  }

  prepared(): void {
    this.isPrepared = true;
  }
}

/** A coordinator whose Workers are played by the test. */
class Scene {
  readonly saved: DiskRecord[] = [];
  readonly logged: string[] = [];
  readonly coordinator: Coordinator;
  readonly registry: Registry;
  nowMs = 0;
  #said: { worker: number; message: ToData }[] = [];
  #peers = 0;

  constructor(
    readonly workers: number,
    features = 0,
    oneWorker = false,
    save: (record: DiskRecord) => void = () => {},
  ) {
    const shape = { size: 1 << 20, logicalBlock: 512, physicalBlock: 4096, optimalIo: 4096, discardGranularity: 512 };
    const one: RegisteredExport = {
      index: 0,
      name: "disk",
      shape,
      features,
      durability: new Uint8Array(16),
      oneWorker,
      record: newRecord("a disk", 1000),
    };
    const rules = { allow: null, keys: [], exports: [{ name: "disk", allow: null, permissions: null }] };
    const limits = { sessions: 100, lanes: 64 };
    this.registry = new Registry(new Uint8Array(16), [one], new Permissions(rules), limits);
    const state = {
      save: (record: DiskRecord) => {
        save(record);
        this.saved.push(record);
      },
    };
    this.coordinator = new Coordinator(this.registry, state, workers, () => this.nowMs, {
      log: (_level, text) => this.logged.push(text),
      // As between threads.
      say: (worker, message, transfer = []) =>
        this.#said.push({ worker, message: structuredClone(message, { transfer }) }),
    });
  }

  /** All that Workers were told since the last time, as (worker, what). */
  said(): [number, ToData["say"]][] {
    return this.take().map(({ worker, message }) => [worker, message.say]);
  }

  take() {
    const said = this.#said;
    this.#said = [];
    return said;
  }

  /** The one thing that was said. */
  only<Say extends ToData["say"]>(say: Say): { worker: number; message: Said<Say> } {
    const said = this.take();
    assert.deepEqual(said.map(({ message }) => message.say), [say]);
    return said[0] as { worker: number; message: Said<Say> };
  }

  wish(more: Partial<OpenRequest> = {}): OpenRequest {
    return {
      export: "disk",
      session: new Uint8Array(16).fill(++this.#peers),
      access: Access.READ_WRITE,
      holder: `client ${this.#peers}`,
      leaseMs: null,
      depth: null,
      maxPayload: null,
      lanes: null,
      steal: false,
      resume: null,
      ...more,
    };
  }

  /** Opens a session, whose lane 0 is handed over; answers it and the Worker of its lane 0. */
  open(more: Partial<OpenRequest> = {}): { session: Session; id: Uint8Array; worker: number } {
    const peer = new Peer();
    const request = this.wish(more);
    this.coordinator.open(peer, request);
    return { session: peer.session!, id: request.session, worker: this.#handOver(peer) };
  }

  /** Joins a lane, which is handed over; answers its Worker. */
  join(id: Uint8Array, lane: number, generation = 1): number {
    const peer = this.ask(id, lane, generation);
    return this.#handOver(peer);
  }

  /** Asks for a lane. */
  ask(id: Uint8Array, lane: number, generation = 1): Peer {
    const peer = new Peer();
    this.coordinator.join(peer, { session: id, lane, generation, depth: null, maxPayload: null, fresh: false });
    return peer;
  }

  #handOver(peer: Peer): number {
    assert.equal(peer.refusal, null);
    const { worker, message } = this.only("prepare");
    this.coordinator.hear(worker, { say: "prepared", token: message.token, depth: 8, maxPayload: 4096 });
    assert.ok(peer.isPrepared);
    const keys = { send: new Uint8Array(32).fill(1), receive: new Uint8Array(32).fill(2) };
    const handoff = { cipher: 1, digest: 0, keys, sent: 1, received: 1 };
    this.coordinator.connect(peer, 7, handoff, 8, 4096);
    const connect = this.only("connect");
    assert.deepEqual(connect.message.handoff, handoff);
    assert.deepEqual([keys.send.length, keys.receive.length], [32, 32], "the door still has its own, to wipe them");
    assert.equal(connect.worker, worker, "the socket goes where the lane was prepared");
    assert.equal(connect.message.lane, message.lane);
    return worker;
  }
}

Deno.test("the lanes of a session live one Worker after the other, beginning where there are the fewest", () => {
  const scene = new Scene(3, Feature.SHARED);
  const first = scene.open({ lanes: 4 });
  assert.equal(first.worker, 0);
  // Lanes that are granted count, joined or not: Worker 0 has two of them, the others one each.
  const second = scene.open({ lanes: 2 });
  assert.equal(second.worker, 1);
  assert.equal(scene.join(first.id, 3), 0);
  assert.equal(scene.join(first.id, 1), 1);
  assert.equal(scene.join(first.id, 2), 2);
  assert.equal(scene.join(second.id, 1), 2);
  assert.equal(scene.open().worker, 0, "all have two");
  assert.equal(scene.join(first.id, 1, 2), 1, "a lane stays where it is");
});

Deno.test("an export whose layers have state lives in the first Worker with all its lanes", () => {
  const scene = new Scene(3, Feature.SHARED, true);
  for (let i = 0; i < 3; i++) {
    const { id, worker } = scene.open({ lanes: 3 });
    assert.deepEqual([worker, scene.join(id, 1), scene.join(id, 2)], [0, 0, 0]);
  }
});

Deno.test("a session lives as long as one of its lanes has a connection", () => {
  const scene = new Scene(2);
  const { session, id } = scene.open({ lanes: 2 });
  scene.join(id, 1);
  scene.coordinator.hear(0, { say: "lost", session: session.key, lane: 0, generation: 1 });
  assert.deepEqual(scene.said(), []);
  scene.coordinator.hear(1, { say: "lost", session: session.key, lane: 1, generation: 1 });
  assert.deepEqual(scene.said(), [[0, "end"], [1, "end"]]);
  scene.coordinator.hear(1, { say: "ended", session: session.key });
  assert.notEqual(scene.registry.find(session.id), null, "the other Worker has a part of it");
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  assert.equal(scene.registry.find(session.id), null);
});

Deno.test("a lease begins with the last connection's end, and a JOIN stops it", () => {
  const scene = new Scene(2);
  const { session, id } = scene.open({ lanes: 2, leaseMs: 1000 });
  scene.join(id, 1);
  scene.coordinator.hear(0, { say: "lost", session: session.key, lane: 0, generation: 1 });
  assert.ok(!scene.coordinator.hasLeases);
  scene.coordinator.hear(1, { say: "lost", session: session.key, lane: 1, generation: 1 });
  assert.ok(scene.coordinator.hasLeases);
  scene.nowMs = 999;
  scene.coordinator.expire();
  scene.join(id, 1, 2);
  assert.ok(!scene.coordinator.hasLeases);
  scene.nowMs = 5000;
  scene.coordinator.expire();
  assert.deepEqual(scene.said(), []);
  scene.coordinator.hear(1, { say: "lost", session: session.key, lane: 1, generation: 1 });
  assert.ok(!scene.coordinator.hasLeases, "the end of an older connection changes nothing");
  scene.coordinator.hear(1, { say: "lost", session: session.key, lane: 1, generation: 2 });
  scene.nowMs = 6000;
  scene.coordinator.expire();
  assert.deepEqual(scene.said(), [[0, "end"], [1, "end"]]);
});

Deno.test("a thief waits for every Worker, and is told the sum of what executes", () => {
  const scene = new Scene(3);
  const { session, id } = scene.open({ lanes: 3 });
  scene.join(id, 1);
  const thief = new Peer();
  scene.coordinator.open(thief, scene.wish({ steal: true }));
  const ends = scene.take();
  assert.deepEqual(ends.map(({ worker, message }) => [worker, message.say]), [[0, "end"], [1, "end"]]);
  for (const { message } of ends) assert.equal((message as Said<"end">).manner, "fenced");
  scene.coordinator.hear(0, { say: "ending", session: session.key, executing: 3 });
  scene.coordinator.hear(1, { say: "ending", session: session.key, executing: 4 });
  scene.coordinator.hear(0, { say: "ending", session: session.key, executing: 1 });
  assert.deepEqual(thief.executing, [3, 7, 5]);
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  scene.coordinator.hear(0, { say: "ending", session: session.key, executing: 9 });
  scene.coordinator.hear(1, { say: "ending", session: session.key, executing: 2 });
  assert.deepEqual(thief.executing, [3, 7, 5, 2]);
  assert.deepEqual(scene.said(), []);
  scene.coordinator.hear(1, { say: "ended", session: session.key });
  assert.deepEqual(scene.said(), [[0, "prepare"]]);
  assert.equal(thief.session!.export.record.writeEpoch, session.export.record.writeEpoch);
  assert.equal(scene.saved.length, 2, "each writer was recorded");
});

Deno.test("a CLOSE is answered when nothing executes in any Worker, and the session is forgotten first", () => {
  const scene = new Scene(3);
  const { session, id } = scene.open({ lanes: 3, leaseMs: 1000 });
  scene.join(id, 1);
  scene.join(id, 2);
  scene.coordinator.hear(2, { say: "closing", session: session.key });
  assert.deepEqual(scene.said(), [[0, "close"], [1, "close"], [2, "close"]]);
  assert.equal(scene.ask(id, 1, 2).refusal!.status, Status.NO_SESSION);
  const next = new Peer();
  scene.coordinator.open(next, scene.wish());
  assert.deepEqual(scene.said(), [], "whoever comes meanwhile waits");
  scene.coordinator.hear(2, { say: "closed", session: session.key });
  scene.coordinator.hear(0, { say: "ending", session: session.key, executing: 2 });
  assert.deepEqual(next.executing, [2]);
  scene.coordinator.hear(0, { say: "closed", session: session.key });
  assert.notEqual(scene.registry.find(session.id), null);
  // All lanes of the part went by themselves.
  scene.coordinator.hear(1, { say: "closed", session: session.key });
  assert.equal(scene.registry.find(session.id), null);
  assert.deepEqual(scene.said(), [[0, "release"], [1, "release"], [2, "release"], [0, "prepare"]]);
  scene.coordinator.hear(2, { say: "ended", session: session.key });
  scene.coordinator.hear(2, { say: "lost", session: session.key, lane: 2, generation: 1 });
  assert.equal(scene.registry.findKey(next.session!.key), next.session);
});

Deno.test("a part of a closing session that has ended by itself counts as closed", () => {
  const scene = new Scene(2);
  const { session, id } = scene.open({ lanes: 2 });
  scene.join(id, 1);
  scene.coordinator.hear(0, { say: "closing", session: session.key });
  scene.take();
  scene.coordinator.hear(0, { say: "closed", session: session.key });
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  assert.notEqual(scene.registry.find(session.id), null);
  scene.coordinator.hear(1, { say: "ended", session: session.key });
  assert.equal(scene.registry.find(session.id), null);
  assert.deepEqual(scene.said(), []);
});

Deno.test("a CLOSE of a session that is being stolen is not answered", () => {
  const scene = new Scene(2);
  const { session } = scene.open();
  scene.coordinator.open(new Peer(), scene.wish({ steal: true }));
  assert.deepEqual(scene.said(), [[0, "end"]]);
  scene.coordinator.hear(0, { say: "closing", session: session.key });
  assert.deepEqual(scene.said(), []);
});

Deno.test("whoever waits for a lane is sent away by a higher generation and by the session's end", () => {
  const scene = new Scene(2);
  const { session, id } = scene.open({ lanes: 2 });
  const older = scene.ask(id, 1, 1);
  const newer = scene.ask(id, 1, 2);
  assert.equal(older.refusal!.status, Status.OLD_GENERATION);
  const [{ message: first }, { message: second }] = scene.take();
  scene.coordinator.hear(1, {
    say: "prepared",
    token: (first as Said<"prepare">).token,
    depth: 8,
    maxPayload: 4096,
  });
  assert.ok(!older.isPrepared);
  // It may be prepared already, and still say FENCING.
  scene.coordinator.hear(1, {
    say: "prepared",
    token: (second as Said<"prepare">).token,
    depth: 8,
    maxPayload: 4096,
  });
  assert.ok(newer.isPrepared);
  scene.coordinator.hear(0, { say: "closing", session: session.key });
  assert.equal(newer.refusal!.status, Status.NO_SESSION);
});

Deno.test("a lane that cannot be made leaves the session as it was", () => {
  const scene = new Scene(2);
  const { id } = scene.open({ lanes: 2 });
  const peer = scene.ask(id, 1, 5);
  const { worker, message } = scene.only("prepare");
  const text = "no room";
  scene.coordinator.hear(worker, { say: "unprepared", token: message.token, status: Status.NO_RESOURCES, text });
  assert.deepEqual([peer.refusal!.status, peer.refusal!.text], [Status.NO_RESOURCES, text]);
  assert.equal(scene.join(id, 1, 1), 1, "its generation was never reached");
});

Deno.test("a session whose first lane cannot be made is none, whatever its lease", () => {
  const scene = new Scene(1);
  const peer = new Peer();
  scene.coordinator.open(peer, scene.wish({ leaseMs: 60_000 }));
  const session = peer.session!;
  const { message } = scene.only("prepare");
  scene.coordinator.hear(0, { say: "unprepared", token: message.token, status: Status.NO_RESOURCES, text: "" });
  assert.equal(peer.refusal!.status, Status.NO_RESOURCES);
  assert.deepEqual(scene.said(), [[0, "end"]]);
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  assert.equal(scene.registry.find(session.id), null);
  assert.deepEqual(scene.logged, [], "it never attached");
});

Deno.test("a peer that leaves while its lane is prepared loses the lane", () => {
  const scene = new Scene(1);
  const peer = new Peer();
  scene.coordinator.open(peer, scene.wish());
  const { message } = scene.only("prepare");
  peer.isWaiting = false;
  scene.coordinator.left(peer);
  assert.deepEqual(scene.said(), [[0, "end"]]);
  scene.coordinator.hear(0, { say: "prepared", token: message.token, depth: 8, maxPayload: 4096 });
  assert.ok(!peer.isPrepared);
});

Deno.test("a thief that leaves while it waits takes nothing", () => {
  const scene = new Scene(1);
  const { session } = scene.open();
  const thief = new Peer();
  scene.coordinator.open(thief, scene.wish({ steal: true }));
  scene.take();
  thief.isWaiting = false;
  scene.coordinator.left(thief);
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  assert.deepEqual(scene.said(), []);
  assert.equal(thief.session, null);
});

Deno.test("who writes is on stable storage before anybody is granted it, or nobody is", () => {
  const scene = new Scene(1, 0, false, () => {
    throw new Error("the disk is full");
  });
  const peer = new Peer();
  scene.coordinator.open(peer, scene.wish());
  assert.equal(peer.refusal!.status, Status.NO_RESOURCES);
  assert.deepEqual(scene.said(), []);
  assert.deepEqual(scene.logged, ["the disk is full"]);
  const reader = new Peer();
  scene.coordinator.open(reader, scene.wish({ access: Access.READ }));
  assert.deepEqual(scene.said(), [[0, "prepare"]]);
});

Deno.test("an answer names what was granted", () => {
  const scene = new Scene(1);
  const peer = new Peer();
  scene.coordinator.open(peer, scene.wish({ depth: 5000, maxPayload: 2 ** 30, lanes: 7 }));
  const { message } = scene.only("prepare");
  assert.deepEqual([message.depth, message.maxPayload, message.readOnly], [1024, 1048576, false]);
  assert.deepEqual([peer.answerType, peer.lane, peer.generation], [FrameType.OPEN, 0, 1]);
  assert.equal(peer.session!.lanesGranted, 7);
});

Deno.test("NBD clients of an export are one session of the Worker that serves them", () => {
  const scene = new Scene(2);
  const { session } = scene.open();
  scene.coordinator.hear(0, { say: "nbdOpen", export: 0, address: "this machine" });
  assert.match(scene.only("nbdOpened").message.refusal!, /is held read-write by client 1/);
  scene.coordinator.hear(0, { say: "lost", session: session.key, lane: 0, generation: 1 });
  assert.deepEqual(scene.said(), [[0, "end"]]);
  scene.coordinator.hear(0, { say: "nbdOpen", export: 0, address: "this machine" });
  assert.deepEqual(scene.said(), [], "it waits for the end of the session");
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  assert.equal(scene.only("nbdOpened").message.refusal, null);
  const thief = new Peer();
  scene.coordinator.open(thief, scene.wish({ steal: true }));
  assert.equal(scene.only("end").message.session, nbdSession(0));
  scene.coordinator.hear(0, { say: "nbdClosed", export: 0 });
  assert.equal(scene.only("prepare").worker, 0);
});

Deno.test("a session whose rights are gone is told that the exporter ends, and nobody else takes over by that", () => {
  const scene = new Scene(2);
  const { session, id } = scene.open({ lanes: 2, leaseMs: 1000 });
  scene.join(id, 1);
  const epoch = session.export.record.writeEpoch;
  scene.coordinator.end(session, "dismissed");
  const ends = scene.take();
  assert.deepEqual(ends.map(({ worker, message }) => [worker, (message as Said<"end">).manner]), [
    [0, "dismissed"],
    [1, "dismissed"],
  ]);
  assert.equal(scene.ask(id, 0, 2).refusal!.status, Status.NO_SESSION);
  scene.coordinator.hear(1, { say: "closing", session: session.key });
  assert.deepEqual(scene.said(), [], "who closes it now is not answered");
  scene.coordinator.hear(0, { say: "lost", session: session.key, lane: 0, generation: 1 });
  scene.coordinator.hear(0, { say: "ended", session: session.key });
  scene.coordinator.hear(1, { say: "ended", session: session.key });
  assert.equal(scene.registry.find(session.id), null);
  assert.equal(session.export.record.writeEpoch, epoch);
  assert.ok(!scene.coordinator.hasLeases);
});

Deno.test("a session knows what its latest connection agreed on", () => {
  const scene = new Scene(1);
  const { session } = scene.open();
  assert.deepEqual(session.suite, { cipher: 1, digest: 0 });
});
