import assert from "node:assert/strict";
import fc from "fast-check";
import { ProtocolError } from "../../protocol/error.ts";
import { FrameType } from "../../protocol/wire.ts";
import { type FrameFields, headerOf, randomOf } from "../protocol/bytes.ts";
import { tagBytes } from "../protocol/channel.ts";
import { anyFrame, fuzzedSuites, ground, type Harm, harm, harmed, tlvs } from "./fuzz.ts";
import { Speaker } from "./speaker.ts";
import type { Line } from "./stream.ts";
import { BLOCK_BYTES } from "./ground.ts";
import { EXPORT_NAME, LEASE_MS, World } from "./world.ts";
import { keyOf } from "../protocol/keys.ts";
import { openTlvs } from "../protocol/door_messages.ts";

/** Fixed, so that every run is the same; fast-check prints what replays a failure. */
const SEED = 20_08_11;
const RUNS = Deno.env.get("DST_TEST_LONG") === "1" ? 50_000 : 3000;
const ERRORS: readonly number[] = Object.values(ProtocolError);
/** Turns in which anything that has come is dealt with. */
const TURNS = 40;
const KEY = keyOf(new Uint8Array(32).fill(0x46));
const PRIVATE_KEY = new Uint8Array(32).fill(3);

type Step =
  | { readonly do: "request"; readonly fields: FrameFields }
  | { readonly do: "frame"; readonly fields: FrameFields }
  | { readonly do: "around"; readonly fields: FrameFields; readonly tag: number; readonly payload: Uint8Array }
  | { readonly do: "bytes"; readonly bytes: Uint8Array }
  | { readonly do: "door"; readonly type: number; readonly payload: Uint8Array }
  | { readonly do: "skip" }
  | { readonly do: "other key" }
  | { readonly do: "turns" };

/** Frames that a lane takes, so that the others meet a lane in every state. */
const goodFrame: fc.Arbitrary<FrameFields> = fc.record({
  type: fc.integer({ min: 1, max: 9 }),
  slot: fc.nat(3),
  sequence: fc.integer({ min: 1, max: 2 }),
  block: fc.constantFrom(0, 1, 127),
  blocks: fc.nat(2),
}).map(({ type, slot, sequence, block, blocks }) => {
  if (type === 3) return { type, slot, sequence };
  const length = blocks * BLOCK_BYTES;
  const payload = type === 2 ? new Uint8Array(length).fill(slot + 1) : undefined;
  return { type, slot, sequence, offset: block * BLOCK_BYTES, length, payload };
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: goodFrame.map((fields): Step => ({ do: "request", fields })) },
  { weight: 3, arbitrary: anyFrame.map((fields): Step => ({ do: "frame", fields })) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("around" as const),
      fields: fc.oneof(anyFrame, goodFrame),
      tag: fc.nat(255),
      payload: fc.uint8Array({ maxLength: 600 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes): Step => ({ do: "bytes", bytes })),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("door" as const),
      type: fc.integer({ min: 0x1f, max: 0x25 }),
      payload: tlvs,
    }),
  },
  { weight: 1, arbitrary: fc.constantFrom<Step>({ do: "skip" }, { do: "other key" }) },
  { weight: 4, arbitrary: fc.constant<Step>({ do: "turns" }) },
);

/** What the client says at the door: nonsense well sealed first, then OPEN. */
const door = fc.record({
  asks: fc.array(fc.tuple(fc.integer({ min: 0x1f, max: 0x25 }), tlvs), { maxLength: 3 }),
  waits: fc.boolean(),
});

/** One client that says whatever, and an exporter of its own. */
class Attempt {
  readonly world: World;
  readonly line: Line;
  readonly #speaker: Speaker;
  readonly #keyed: boolean;
  readonly #hasTags: boolean;
  readonly #harm: Harm | null;
  /** Messages that were sent, and the requests among them that may have come to be executed. */
  #messages = 0;
  requests = 0;
  /** What was sent is not any more what the exporter has to take. */
  #isSpoilt = false;

  constructor(suite: (typeof fuzzedSuites)[number], harm: Harm | null, seed: number) {
    ground.reset();
    const { keyed, cipher, digest } = suite;
    const random = randomOf(seed);
    const keys = new Map(keyed ? [[KEY.id.toHex(), KEY.secret]] : []);
    const config = { ciphers: [cipher], digests: [digest], keys };
    this.world = new World(ground, config, (limit) => Math.floor(random() * limit));
    this.#keyed = keyed;
    this.#hasTags = tagBytes({ cipher, digest }) > 0;
    this.#harm = harm;
    this.line = this.world.connect()!;
    this.line.tampersUp = (bytes) => {
      if (this.#messages++ !== harm?.message) return bytes;
      this.#isSpoilt = true;
      return harmed(bytes, harm);
    };
    this.#speaker = new Speaker(this.line, { cipher, digest }, keyed ? KEY : null, PRIVATE_KEY);
  }

  /** Whether a message was harmed. */
  get wasHarmed(): boolean {
    return this.#harm !== null && this.#harm.message < this.#messages;
  }

  turns(count = TURNS): void {
    for (let i = 0; i < count; i++) this.world.turn(1);
  }

  /** Hello and handshake; whether it can speak now. */
  enters(): boolean {
    for (let i = 0; i < TURNS && !this.#speaker.isReady; i++) {
      this.turns(1);
      this.#listen();
    }
    return this.#speaker.isReady;
  }

  /** Says something without ever having come to speak. */
  shouts(): void {
    this.line.write(Uint8Array.from({ length: 300 }, (_, i) => i));
    this.turns();
  }

  says(what: Step): void {
    const speaker = this.#speaker;
    switch (what.do) {
      case "turns":
        return this.turns(5);
      case "skip":
        speaker.sent++;
        return this.#spoil();
      case "other key":
        speaker.sender = speaker.receiver;
        return this.#keyed ? this.#spoil() : undefined;
      case "bytes":
        this.line.write(what.bytes);
        return this.#spoil();
      case "door":
        return speaker.send({ type: what.type, payload: what.payload });
      case "around": {
        this.#countRequest();
        const tag = new Uint8Array(speaker.sender.tagBytes).fill(what.tag);
        const number = speaker.sent++;
        return this.line.write(speaker.sender.sealAround(number, headerOf(number, what.fields), tag, what.payload));
      }
      default:
        this.#countRequest();
        speaker.send(what.fields);
        return this.#listen();
    }
  }

  #spoil(): void {
    this.#isSpoilt = true;
  }

  #countRequest(): void {
    // Without tags there is no telling.
    if (!this.#isSpoilt || !this.#hasTags) this.requests++;
  }

  #listen(): void {
    try {
      this.#speaker.poll();
    } catch {
      // Who was harmed, or did not wait, has no claim to understand the answer.
    }
  }
}

for (const suite of fuzzedSuites) {
  Deno.test(`whatever comes, sealed or not, an exporter answers or ends the connection (${suite.name})`, () => {
    let lanes = 0;
    let ended = 0;
    const property = fc.property(
      door,
      fc.array(step, { maxLength: 25 }),
      fc.option(harm),
      fc.integer({ min: 1 }),
      ({ asks, waits }, steps, harm, seed) => {
        const attempt = new Attempt(suite, harm, seed);
        const { world, line } = attempt;
        if (attempt.enters() || !suite.keyed) {
          for (const [type, payload] of asks) {
            attempt.says({ do: "door", type, payload });
            if (waits) attempt.turns();
          }
          attempt.says({ do: "door", type: FrameType.OPEN, payload: openTlvs(EXPORT_NAME) });
          attempt.turns();
          if (world.lanes.size > 0) lanes++;
          for (const what of steps) attempt.says(what);
        } else {
          attempt.shouts();
          assert.equal(world.sessions.size, 0, "nobody comes in without a handshake");
        }
        attempt.turns();
        const { requests } = attempt;
        assert.ok(world.executed <= requests, `${world.executed} requests are executed of ${requests}`);
        for (const error of world.errors.keys()) assert.ok(ERRORS.includes(error));
        // What was changed under a key is found out as soon as it is there.
        if (suite.keyed && harm?.kind === "flip" && attempt.wasHarmed) assert.ok(line.isEnded, "a change is found out");
        if (line.isEnded) ended++;
        line.close();
        for (let turn = 0; turn < TURNS && !world.isEmpty; turn++) world.turn(LEASE_MS / 10, false);
        assert.ok(world.isEmpty && ground.isWhole, "nothing is left behind");
      },
    );
    fc.assert(property, { seed: SEED, numRuns: RUNS });
    assert.ok(lanes > RUNS / 8 && ended > RUNS / 4, `${lanes} lanes, ${ended} connections ended`);
  });
}
