/**
 * A session as the suite drives it: one lane, or one object for each lane, over a raw {@link Peer}, with sequences kept
 * per slot.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import type { Frame } from "./bytes.ts";
import { type GrantFields, joinTlvs, type OpenFields, openTlvs, readGrant } from "./door_messages.ts";
import { Peer, type PeerOptions } from "./peer.ts";

/** So many FENCING frames mean that the answer never comes: they are a second apart. */
const FENCING_MOST = 20;

/** What a request may have beside its range. */
export interface RequestExtras {
  readonly slot?: number;
  readonly flags?: number;
  readonly payload?: Uint8Array;
}

/** One session and one lane of it. */
export class Session {
  peer: Peer;
  grant: GrantFields;
  generation: number;
  /** FENCING frames that came before the latest answer to OPEN or JOIN. */
  fencing: Frame[] = [];
  /** The sequence of each slot's latest request. */
  readonly sequences: number[];
  readonly #options: PeerOptions;

  private constructor(
    readonly id: Uint8Array,
    options: PeerOptions,
    peer: Peer,
    grant: GrantFields,
    readonly lane = 0,
    generation = 1,
  ) {
    this.#options = options;
    this.peer = peer;
    this.grant = grant;
    this.generation = generation;
    this.sequences = new Array<number>(grant.slots).fill(0);
  }

  /** Opens a session, which must be granted. */
  static async open(options: PeerOptions, name: string, fields: OpenFields = {}): Promise<Session> {
    const peer = await Peer.greet(options);
    const id = fields.session ?? crypto.getRandomValues(new Uint8Array(16));
    const { answer, fencing } = await ask(peer, FrameType.OPEN, openTlvs(name, { ...fields, session: id }));
    assert.equal(answer.status, Status.OK, "the status of OPEN");
    const session = new Session(id, options, peer, readGrant(answer.payload));
    session.fencing = fencing;
    peer.enterLane(0);
    return session;
  }

  /** Opens a session with so many lanes, which must be granted, and joins all of them; answers one object for each. */
  static async openLanes(
    options: PeerOptions,
    name: string,
    lanes: number,
    fields: OpenFields = {},
  ): Promise<Session[]> {
    const first = await Session.open(options, name, { lanes, ...fields });
    assert.equal(first.grant.lanes, lanes, "the lanes that were granted");
    const sessions = [first];
    for (let lane = 1; lane < lanes; lane++) sessions.push(await first.join(lane));
    return sessions;
  }

  /** Joins another lane of the session, which must be granted. */
  async join(lane: number, generation = 1): Promise<Session> {
    const peer = await Peer.greet(this.#options);
    const { answer } = await ask(peer, FrameType.JOIN, joinTlvs(this.id, { lane, generation }));
    assert.equal(answer.status, Status.OK, `the status of JOIN of lane ${lane}`);
    peer.enterLane(lane);
    return new Session(this.id, this.#options, peer, readGrant(answer.payload), lane, generation);
  }

  [Symbol.dispose](): void {
    this.peer.close();
  }

  /** Joins the lane again, on a new connection; the old one is left as it is unless it was closed. */
  async rejoin(fresh = false): Promise<void> {
    const peer = await Peer.greet(this.#options);
    this.generation++;
    const tlvs = joinTlvs(this.id, { lane: this.lane, generation: this.generation, fresh });
    const { answer, fencing } = await ask(peer, FrameType.JOIN, tlvs);
    assert.equal(answer.status, Status.OK, "the status of JOIN");
    this.peer = peer;
    this.grant = readGrant(answer.payload);
    this.fencing = fencing;
    if (fresh) this.sequences.fill(0);
    peer.enterLane(this.lane);
  }

  /** Sends a new request; answers its sequence. */
  async send(type: number, offset: number, length: number, extras: RequestExtras = {}): Promise<number> {
    const slot = extras.slot ?? 0;
    const sequence = this.sequences[slot] = (this.sequences[slot] + 1) >>> 0;
    await this.peer.send({ type, slot, sequence, offset, length, flags: extras.flags, payload: extras.payload });
    return sequence;
  }

  /** Sends the slot's latest request again. */
  async resend(type: number, offset: number, length: number, extras: RequestExtras = {}): Promise<Frame> {
    const slot = extras.slot ?? 0;
    const { flags, payload } = extras;
    await this.peer.send({ type, slot, sequence: this.sequences[slot], offset, length, flags, payload });
    return await this.reply(type, slot);
  }

  /** The next frame, which must be the reply to the latest request of that slot. */
  async reply(type: number, slot = 0): Promise<Frame> {
    const reply = await this.peer.receive();
    assert.equal(reply.type, type | REPLY, "the reply's type");
    const { flags, lane, offset, length, sequence } = reply;
    assert.deepEqual(
      { slot: reply.slot, flags, lane, offset, length, sequence },
      { slot, flags: 0, lane: this.peer.lane, offset: 0, length: 0, sequence: this.sequences[slot] },
    );
    if (reply.status !== Status.OK) assert.equal(reply.payload.length, 0, "an error has no payload");
    return reply;
  }

  /** Sends a request and takes its reply. */
  async request(type: number, offset: number, length: number, extras: RequestExtras = {}): Promise<Frame> {
    await this.send(type, offset, length, extras);
    return await this.reply(type, extras.slot);
  }

  /** Writes bytes; it must succeed. */
  async write(offset: number, payload: Uint8Array, flags = 0, slot = 0): Promise<void> {
    const { status } = await this.request(Operation.WRITE, offset, payload.length, { payload, flags, slot });
    assert.equal(status, Status.OK, `the status of WRITE at ${offset}`);
  }

  /** Reads bytes; it must succeed. */
  async read(offset: number, length: number, slot = 0): Promise<Uint8Array> {
    const { status, payload } = await this.request(Operation.READ, offset, length, { slot });
    assert.equal(status, Status.OK, `the status of READ at ${offset}`);
    assert.equal(payload.length, length, "the bytes of a READ");
    return payload;
  }

  /** Ends the session properly: CLOSE, its answer, and the end of the connection. */
  async close(): Promise<void> {
    const reply = await this.peer.call({ type: FrameType.CLOSE });
    assert.equal(reply.type, FrameType.CLOSE | REPLY);
    assert.equal(reply.status, Status.OK);
    await this.peer.ended();
  }
}

/** Asks the door for something; FENCING frames on the way are collected. */
export async function ask(
  peer: Peer,
  type: number,
  payload: Uint8Array,
): Promise<{ answer: Frame; fencing: Frame[] }> {
  await peer.send({ type, payload });
  return await answerOf(peer, type);
}

/** The answer to what the door was asked for. */
export async function answerOf(peer: Peer, type: number): Promise<{ answer: Frame; fencing: Frame[] }> {
  const fencing: Frame[] = [];
  for (;;) {
    const answer = await peer.receive();
    if (answer.type === FrameType.FENCING) {
      fencing.push(answer);
      assert.ok(fencing.length < FENCING_MOST, "a fence comes to its end");
      continue;
    }
    assert.equal(answer.type, type | REPLY, "the answer's type");
    const { flags, slot, lane, sequence, offset, length } = answer;
    assert.deepEqual([flags, slot, lane, sequence, offset, length], [0, 0, 0, 0, 0, 0], "the answer's fields");
    return { answer, fencing };
  }
}
