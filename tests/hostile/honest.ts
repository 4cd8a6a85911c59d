/**
 * An honest client of a {@link World}: writes to its own part of the disk, reads what it has written, loses its connection
 * now and then, comes back and sends again what was not answered. Whatever others do, its data must be right.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import type { Frame, FrameFields } from "../protocol/bytes.ts";
import type { Algorithms, PresharedKey } from "../protocol/channel.ts";
import { joinTlvs, openTlvs } from "../protocol/door_messages.ts";
import { Speaker } from "./speaker.ts";
import type { Line } from "./stream.ts";
import { BLOCK_BYTES, DEPTH } from "./ground.ts";
import { type Below, EXPORT_NAME, type World } from "./world.ts";

/** Bytes of the disk that are one client's alone. */
export const REGION_BYTES = 8 * 1024;
const BLOCKS = REGION_BYTES / BLOCK_BYTES;
const { READ, WRITE, FLUSH, WRITE_ZEROES } = Operation;

/** A request without its reply. */
interface Request {
  readonly fields: FrameFields;
  /** The first block and how many; -1: none. */
  readonly block: number;
  readonly blocks: number;
}

export class HonestClient {
  readonly id: Uint8Array;
  /** What its region holds, the mutations that are under way included: others never touch the same blocks meanwhile. */
  readonly model = new Uint8Array(REGION_BYTES);
  readonly regionAt: number;
  speaker: Speaker | null = null;
  isDone = false;
  /** Requests that were answered. */
  answered = 0;
  /** All its connections so far. */
  readonly lines: Line[] = [];
  readonly #world: World;
  readonly #below: Below;
  readonly #algorithms: Algorithms;
  readonly #key: PresharedKey | null;
  readonly #requests: (Request | null)[] = new Array(DEPTH).fill(null);
  readonly #sequences = new Array<number>(DEPTH).fill(0);
  #generation = 0;
  #asked = false;
  #inLane = false;
  #isClosing = false;
  #goal: number;

  /** @param goal how many requests it wants to have answered before it leaves */
  constructor(world: World, algorithms: Algorithms, key: PresharedKey | null, region: number, goal: number) {
    this.#world = world;
    this.#below = world.below;
    this.#algorithms = algorithms;
    this.#key = key;
    this.regionAt = region * REGION_BYTES;
    this.#goal = goal;
    this.id = Uint8Array.from({ length: 16 }, (_, i) => i === 0 ? region + 1 : world.below(256));
  }

  /** Does something. */
  act(): void {
    if (this.isDone) return;
    if (this.speaker === null) return this.#connect();
    const { speaker } = this;
    const { line } = speaker;
    let frames: Frame[];
    try {
      frames = speaker.poll();
    } catch (error) {
      // What somebody on the way has changed is found out; anything else would be the exporter's fault.
      if (!line.wasTampered) throw error;
      return this.#lose();
    }
    for (const frame of frames) this.#take(frame);
    if (this.isDone || this.speaker === null) return;
    if (line.isOver) {
      assert.ok(line.wasTampered, "an honest client's connection is not ended");
      return this.#lose();
    }
    if (speaker.isReady && !this.#asked) this.#ask(speaker);
    if (!this.#inLane) return;
    if (this.#below(40) === 0) return this.#lose();
    this.#request(speaker);
  }

  #connect(): void {
    const line = this.#world.connect();
    // The door is full: later.
    if (line === null) return;
    this.lines.push(line);
    const privateKey = new Uint8Array(32).fill(1 + this.#below(4));
    this.speaker = new Speaker(line, this.#algorithms, this.#key, privateKey);
    this.#asked = this.#inLane = false;
  }

  #ask(speaker: Speaker): void {
    this.#asked = true;
    if (this.#generation === 0) {
      speaker.send({ type: FrameType.OPEN, payload: openTlvs(EXPORT_NAME, { session: this.id, leaseMs: 60_000 }) });
    } else {
      const payload = joinTlvs(this.id, { generation: this.#generation + 1 });
      speaker.send({ type: FrameType.JOIN, payload });
    }
  }

  #lose(): void {
    this.speaker!.line.close();
    this.speaker = null;
    // Whether an answer came to be is not known: the generation counts as used.
    if (this.#asked && this.#generation > 0 && !this.#inLane) this.#generation++;
    this.#inLane = false;
  }

  #take(frame: Frame): void {
    const speaker = this.speaker;
    if (speaker === null) return;
    if (frame.type === FrameType.PING) {
      return speaker.send({ type: FrameType.PING | REPLY, offset: frame.offset });
    }
    if (frame.type === FrameType.FENCING) return;
    if (!this.#inLane) return this.#takeAnswer(frame, speaker);
    if (frame.type === (FrameType.CLOSE | REPLY)) {
      assert.ok(this.#isClosing && frame.status === Status.OK);
      this.isDone = true;
      return speaker.line.close();
    }
    const request = this.#requests[frame.slot];
    assert.ok(request !== null && request !== undefined, "a reply to what was asked");
    const { type, sequence } = request.fields;
    assert.deepEqual([frame.type, frame.sequence, frame.status], [type | REPLY, sequence, Status.OK]);
    if (type === READ) {
      const at = request.block * BLOCK_BYTES;
      const expected = this.model.subarray(at, at + request.blocks * BLOCK_BYTES);
      assert.deepEqual(frame.payload, expected.slice(), `the data at ${this.regionAt + at}`);
    }
    this.#requests[frame.slot] = null;
    this.answered++;
  }

  #takeAnswer(frame: Frame, speaker: Speaker): void {
    const isOpen = this.#generation === 0;
    assert.equal(frame.type, (isOpen ? FrameType.OPEN : FrameType.JOIN) | REPLY);
    if (frame.status === Status.NO_RESOURCES) {
      this.#asked = false;
      return;
    }
    // The OPEN before was answered, and the answer lost: it is joined.
    if (frame.status === Status.SESSION_EXISTS && isOpen) {
      this.#generation = 1;
      this.#asked = false;
      return;
    }
    if (frame.status === Status.OLD_GENERATION) {
      this.#generation++;
      this.#asked = false;
      return;
    }
    if (frame.status === Status.NO_SESSION && this.#isClosing) {
      // It was closed, and the answer lost.
      this.isDone = true;
      return speaker.line.close();
    }
    assert.equal(frame.status, Status.OK, "an honest client's OPEN or JOIN");
    this.#generation++;
    this.#inLane = true;
    if (this.#isClosing) return speaker.send({ type: FrameType.CLOSE });
    for (const request of this.#requests) if (request !== null) speaker.send(request.fields);
  }

  #request(speaker: Speaker): void {
    if (this.#isClosing) return;
    const slot = this.#requests.indexOf(null);
    if (this.answered >= this.#goal) {
      if (this.#requests.some((request) => request !== null)) return;
      this.#isClosing = true;
      return speaker.send({ type: FrameType.CLOSE });
    }
    if (slot < 0) return;
    const blocks = 1 + this.#below(7);
    const block = this.#below(BLOCKS - blocks + 1);
    const type = [READ, READ, WRITE, WRITE, WRITE_ZEROES, FLUSH][this.#below(6)];
    const sequence = this.#sequences[slot] + 1;
    if (type === FLUSH) return this.#start(speaker, slot, { fields: { type, slot, sequence }, block: -1, blocks: 0 });
    const overlaps = this.#requests.some((other) =>
      other !== null && other.block < block + blocks && block < other.block + other.blocks
    );
    if (overlaps) return;
    const at = block * BLOCK_BYTES;
    const length = blocks * BLOCK_BYTES;
    const fields: FrameFields = { type, slot, sequence, offset: this.regionAt + at, length };
    if (type === WRITE_ZEROES) this.model.fill(0, at, at + length);
    if (type !== WRITE) return this.#start(speaker, slot, { fields, block, blocks });
    const payload = new Uint8Array(length).fill(1 + this.#below(255));
    payload[this.#below(length)] ^= 0xff;
    this.model.set(payload, at);
    this.#start(speaker, slot, { fields: { ...fields, payload }, block, blocks });
  }

  #start(speaker: Speaker, slot: number, request: Request): void {
    this.#sequences[slot]++;
    this.#requests[slot] = request;
    speaker.send(request.fields);
  }
}
