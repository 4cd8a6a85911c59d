/**
 * A client's door under test, with an exporter that says what the test wants.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Frame, FRAMES, seal, type Suite } from "../tests/vectors/frames.ts";
import { hellos } from "../tests/vectors/messages.ts";
import { concat, hex, pattern } from "../tests/vectors/primitives.ts";
import { ClientDoor, type ClientDoorConfig } from "./client_door.ts";
import { Arena, Feed, Script, XXH64 } from "./client_support_test.ts";
import type { Description, Grant, JoinRequest, ListEntry, OpenRequest } from "./grant.ts";
import { Cipher, Digest } from "./wire.ts";

/** What the client of the bench accepts by default. */
const KEYLESS: ClientDoorConfig = {
  ciphers: [Cipher.NONE],
  digests: [Digest.XXH64, Digest.CRC32C, Digest.NONE],
  key: null,
  ephemeral: new Uint8Array(0),
};
const HELLOS = hellos(pattern(16, 1));

/** The payload of a frame of the vectors. */
export function payloadOf(name: string): Uint8Array {
  const frame = FRAMES.find((candidate) => candidate.name === name);
  assert.ok(frame?.payload, name);
  return frame.payload;
}

/** The bytes of a hello of the vectors. */
export function helloOf(name: string): Uint8Array {
  const hello = HELLOS.find((candidate) => candidate.name === name);
  assert.ok(hello, name);
  return hello.bytes;
}

/** The exporter's hello that chooses a suite. */
export function answerHello(suite: Suite): Uint8Array {
  const name = suite.digest === Digest.NONE ? "no digest" : suite.name;
  return helloOf(`exporter chose none and ${name}`);
}

/** An OPEN with every wish, as in the vectors. */
export const OPEN: OpenRequest = {
  export: "disk.img",
  session: pattern(16, 1),
  access: 1,
  holder: "client.example pid 4711",
  leaseMs: 120_000,
  depth: 128,
  maxPayload: 262_144,
  lanes: 4,
  steal: true,
  resume: { storage: pattern(16, 4), durability: pattern(16, 3), writeEpoch: 1_700_000_000_000_000 },
};
/** A JOIN with every wish, as in the vectors. */
export const JOIN: JoinRequest = {
  session: pattern(16, 1),
  lane: 3,
  generation: 2,
  depth: 128,
  maxPayload: 262_144,
  fresh: true,
};

/** A door, its host's diary, and the exporter's half of the connection. */
export class DoorBench {
  readonly arena: Arena;
  readonly door: ClientDoor;
  readonly events: string[] = [];
  readonly sent: Uint8Array[] = [];
  readonly script: Script;
  readonly feed: Feed;
  grant: Grant | null = null;
  description: Description | null = null;
  entries: readonly ListEntry[] = [];
  onReady: () => void = () => {};
  onGranted: () => void = () => {};

  constructor(readonly suite: Suite = XXH64, arena = new Arena(), config: Partial<ClientDoorConfig> = {}) {
    this.arena = arena;
    const { events } = this;
    this.script = new Script(suite);
    this.door = new ClientDoor(arena.core, arena.cryptography, arena.scratchAt, { ...KEYLESS, ...config }, {
      transmit: (at, bytes) => this.sent.push(arena.core.bytes.slice(at, at + bytes)),
      ready: () => {
        events.push("ready");
        this.onReady();
      },
      listed: (entries, more) => {
        this.entries = entries;
        events.push(`listed ${entries.map((entry) => entry.name)} ${more}`);
      },
      described: (description) => {
        this.description = description;
        events.push("described");
      },
      granted: (grant) => {
        this.grant = grant;
        events.push("granted");
        this.onGranted();
      },
      refused: (status, words, current) => events.push(`refused ${status} ${words} ${current?.text ?? "-"}`),
      fencing: (executing) => events.push(`fencing ${executing}`),
      failed: (words, status) => events.push(`failed ${status} ${words}`),
    });
    this.feed = new Feed(arena, this.door);
    this.door.start();
  }

  /** Past the hello. */
  ready(): this {
    this.feed.push(answerHello(this.suite));
    assert.deepEqual(this.takeEvents(), ["ready"]);
    this.sent.length = 0;
    return this;
  }

  receive(frame: Omit<Frame, "name" | "from">): void {
    this.feed.push(this.script.next(frame));
  }

  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

/** What the independent script would send for the n-th frame of the client. */
export function expected(suite: Suite, n: number, frame: Omit<Frame, "name" | "from">): string {
  const sealed = seal(suite, new Uint8Array(32), { name: "", from: "client", ...frame }, n);
  return hex(concat(sealed.header, sealed.payloadTag, sealed.headerTag, sealed.payload));
}
