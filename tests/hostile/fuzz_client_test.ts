import assert from "node:assert/strict";
import fc from "fast-check";
import { ProtocolError } from "../../protocol/error.ts";
import { Operation } from "../../protocol/request.ts";
import { errnoOfStatus, Status } from "../../protocol/status.ts";
import { FrameType, REPLY } from "../../protocol/wire.ts";
import { type FrameFields, headerOf, randomBytes } from "../protocol/bytes.ts";
import { tagBytes } from "../protocol/channel.ts";
import { anyFrame, fuzzedSuites, ground, type Harm, harm, harmed, tlvs } from "./fuzz.ts";
import { FuzzedClient, REQUESTS, Responder } from "./client.ts";
import { keyOf } from "../protocol/keys.ts";
import { extents, grantTlvs } from "../protocol/scripted_exporter.ts";

/** Fixed, so that every run is the same; fast-check prints what replays a failure. */
const SEED = 20_08_12;
const RUNS = Deno.env.get("DST_TEST_LONG") === "1" ? 50_000 : 3000;
const ERRORS: readonly number[] = Object.values(ProtocolError);
const KEY = keyOf(new Uint8Array(32).fill(0x47));
const DATA = randomBytes(1, 1024);

type Step =
  | { readonly do: "reply"; readonly slot: number; readonly status: number; readonly change: FrameFields | null }
  | { readonly do: "frame"; readonly fields: FrameFields }
  | { readonly do: "around"; readonly fields: FrameFields; readonly tag: number; readonly payload: Uint8Array }
  | { readonly do: "bytes"; readonly bytes: Uint8Array }
  | { readonly do: "skip" };

/** One field of a reply that is another one: see {@link Step}. `type` is filled in where it is not what changes. */
const change: fc.Arbitrary<FrameFields> = fc.constantFrom<Partial<FrameFields>[]>(
  { zero: 1 },
  { flags: 1 },
  { slot: 4 },
  { lane: 1 },
  { sequence: 0 },
  { sequence: 2 },
  { offset: 1 },
  { length: 512 },
  { magic: 0x31545345 },
  { number: 77 },
  { payload: new Uint8Array(1) },
  { payload: DATA.slice(0, 1023) },
  { payloadBytes: 2 ** 20 },
  { payloadBytes: 0xffff_ffff },
).map((fields) => ({ type: 0, ...fields }));

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("reply" as const),
      slot: fc.nat(3),
      status: fc.constantFrom(0, 0, 0, 1, 8, 9999),
      change: fc.constant(null),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("reply" as const), slot: fc.nat(3), status: fc.constant(0), change }),
  },
  { weight: 2, arbitrary: anyFrame.map((fields): Step => ({ do: "frame", fields })) },
  {
    weight: 2,
    arbitrary: fc.constantFrom<FrameFields[]>(
      { type: FrameType.PING, offset: 7 },
      { type: FrameType.RESIZED, offset: 2 ** 40 },
      { type: FrameType.SHUTTING_DOWN },
    ).map((fields): Step => ({ do: "frame", fields })),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("around" as const),
      fields: anyFrame,
      tag: fc.integer({ min: 1, max: 255 }),
      payload: fc.uint8Array({ maxLength: 1100 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes): Step => ({ do: "bytes", bytes })),
  },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "skip" }) },
);

/** The reply to the request of a slot, as it should be. */
function replyOf(slot: number, status: number): FrameFields {
  const { operation } = REQUESTS[slot];
  const payload = status !== Status.OK
    ? undefined
    : operation === Operation.READ
    ? DATA
    : operation === Operation.BLOCK_STATUS
    ? extents([4096, 1])
    : undefined;
  return { type: operation | REPLY, slot, sequence: 1, status, payload };
}

/** One exporter that says whatever, and a client of its own. */
class Attempt {
  readonly client: FuzzedClient;
  /** The statuses of good replies that were sent before anything was spoilt, by slot. */
  readonly replied = new Map<number, number>();
  readonly #responder: Responder;
  readonly #harm: Harm | null;
  readonly #hasTags: boolean;
  #messages = 0;
  #isSpoilt = false;
  /** Frames that nobody can call good or bad in advance were sent. */
  isVague = false;

  constructor(suite: (typeof fuzzedSuites)[number], harm: Harm | null) {
    ground.reset();
    const { cipher, digest, keyed } = suite;
    const key = keyed ? KEY : null;
    this.#harm = harm;
    this.#hasTags = tagBytes(suite) > 0;
    this.client = new FuzzedClient(ground.core, ground.cryptography, { cipher, digest }, key);
    this.#responder = new Responder(this.client, { cipher, digest }, key);
    this.client.line.tampersUp = (bytes) => {
      if (this.#messages++ !== harm?.message) return bytes;
      this.#isSpoilt = true;
      // Without tags it may become anything, and without a key nobody looks after the hello.
      this.isVague ||= !this.#hasTags || (!keyed && harm.message === 0);
      return harmed(bytes, harm);
    };
  }

  get wasHarmed(): boolean {
    return this.#harm !== null && this.#harm.message < this.#messages;
  }

  opens(grant: Uint8Array): void {
    this.#responder.greets();
    this.client.settle();
    this.#responder.send({ type: FrameType.OPEN | REPLY, payload: grant });
    this.client.settle();
  }

  says(what: Step): void {
    const responder = this.#responder;
    const wasSpoilt = this.#isSpoilt;
    // The first of two copies is good.
    const isGood = () => !wasSpoilt && (!this.#isSpoilt || this.#harm!.kind === "repeat");
    if (what.do === "skip") {
      responder.sent++;
      this.#isSpoilt = true;
    } else if (what.do === "bytes") {
      this.client.line.write(what.bytes);
      this.#isSpoilt = true;
      // What should not be there may be what was cut out.
      this.isVague ||= this.#messages - 1 === this.#harm?.message;
    } else if (what.do === "around") {
      const number = responder.sent++;
      const tag = new Uint8Array(responder.sender.tagBytes).fill(what.tag);
      this.isVague ||= !this.#hasTags;
      this.client.line.write(
        responder.sender.sealAround(number, headerOf(number, what.fields), tag, what.payload),
      );
    } else if (what.do === "frame") {
      // By chance it is the reply to something.
      const { type, slot = 0, sequence } = what.fields;
      if (type === (REQUESTS[slot]?.operation | REPLY) && sequence === 1) this.isVague = true;
      responder.send(what.fields);
    } else {
      const good = replyOf(what.slot, what.status);
      const { type: _, ...changed } = what.change ?? { type: 0 };
      responder.send({ ...good, ...changed });
      if (what.change !== null) this.#isSpoilt = true;
      else if (isGood() && !this.replied.has(what.slot)) this.replied.set(what.slot, what.status);
    }
    this.client.settle();
  }
}

for (const suite of fuzzedSuites) {
  Deno.test(`whatever comes, sealed or not, a client believes replies only (${suite.name})`, () => {
    let lanes = 0;
    let completions = 0;
    let ended = 0;
    const property = fc.property(
      fc.oneof({ weight: 8, arbitrary: fc.constant(grantTlvs()) }, { weight: 1, arbitrary: tlvs }),
      fc.array(step, { maxLength: 12 }),
      fc.option(harm),
      (grant, steps, harm) => {
        const attempt = new Attempt(suite, harm);
        const { client, replied } = attempt;
        attempt.opens(grant);
        if (client.lane !== null) lanes++;
        for (const what of steps) attempt.says(what);
        const error = client.lane?.error || client.door.error;
        assert.ok(ERRORS.includes(error));
        if (error !== 0) assert.ok(client.stream.isClosed, "an error ends the connection");
        if (suite.keyed && harm?.kind === "flip" && attempt.wasHarmed) {
          assert.ok(client.stream.isClosed, "a change is found out");
        }
        const seen = new Set<number>();
        for (const { slot, status, payload } of client.completions) {
          assert.ok(!seen.has(slot), "a request ends once");
          seen.add(slot);
          completions++;
          if (attempt.isVague) continue;
          const said = replied.get(slot);
          assert.ok(said !== undefined, "nobody has replied");
          const { operation } = REQUESTS[slot];
          assert.equal(status, errnoOfStatus(said, operation === Operation.WRITE));
          assert.deepEqual(payload, replyOf(slot, said).payload ?? new Uint8Array(0));
        }
        if (client.stream.isClosed) ended++;
        client.stream.close();
        assert.equal(ground.guards, 0, "nothing is left behind");
      },
    );
    fc.assert(property, { seed: SEED, numRuns: RUNS });
    const counts = `${lanes} lanes, ${completions} completions, ${ended} connections ended`;
    assert.ok(lanes > RUNS / 4 && completions > RUNS / 4 && ended > RUNS / 4, counts);
  });
}
