import assert from "node:assert/strict";
import { ProtocolError } from "./error.ts";
import { DOOR_SCRATCH_BYTES, ExporterDoor, type ExporterDoorHost } from "./exporter_door.ts";
import type { HelloConfig } from "./exporter_hello.ts";
import type { Description, JoinRequest, ListEntry, OpenRequest } from "./grant.ts";
import {
  concat,
  CUTS,
  Feeder,
  type Fields,
  frame,
  makeMemory,
  parseFrames,
  type Received,
  tlv,
  uint16s,
  uint32s,
  uint64,
} from "./harness_test.ts";
import { CONTROL_BYTES_MAX, DOOR_REQUESTS_MAX, HELLO_BODY_BYTES_MAX } from "./limits.ts";
import { Status } from "./status.ts";

const SCRATCH_AT = 64;
const STAGING_AT = SCRATCH_AT + DOOR_SCRATCH_BYTES;
const CONFIG: HelloConfig = { ciphers: [0], digests: [2, 1, 0], keyRequired: false };
const SESSION = Uint8Array.from({ length: 16 }, (_, i) => i);
const LIST = 0x20, DESCRIBE = 0x21, OPEN = 0x22, JOIN = 0x23;

function identity(fill: number): Uint8Array {
  return new Uint8Array(16).fill(fill);
}

const DESCRIPTION: Description = {
  size: 2 ** 33,
  logicalBlock: 512,
  physicalBlock: 4096,
  optimalIo: 65_536,
  discardGranularity: 4096,
  access: 1,
  features: 3,
  identities: { instance: identity(1), durability: identity(2), storage: identity(3), writeEpoch: 2 ** 50 },
  current: { access: 1, text: "host at 192.0.2.1:5" },
};

/** A door with its host and stream. */
class Setup implements ExporterDoorHost {
  readonly memory = makeMemory(STAGING_AT + 512);
  readonly door: ExporterDoor;
  readonly feeder: Feeder;
  readonly opens: OpenRequest[] = [];
  readonly joins: JoinRequest[] = [];
  readonly listed: string[] = [];
  entries: ListEntry[] = [];
  more = false;
  onOpen = () => {};
  #sent: Uint8Array[] = [];
  #digest = 0;
  #framesIn = 0;
  #framesOut = 0;

  constructor(config: HelloConfig = CONFIG) {
    this.door = new ExporterDoor(this.memory, this.memory.cryptography, SCRATCH_AT, config, this);
    this.feeder = new Feeder(this.memory, STAGING_AT, this.door);
  }

  transmit(at: number, bytes: number): void {
    assert.ok(at >= SCRATCH_AT && at + bytes <= STAGING_AT, "only the scratch area is sent");
    this.#sent.push(this.memory.bytes.slice(at, at + bytes));
  }
  keyOf(): Uint8Array | null {
    return null;
  }
  randomBytes(): Uint8Array {
    return assert.fail("without a handshake nothing is drawn");
  }
  list(after: string) {
    this.listed.push(after);
    return { entries: this.entries, more: this.more };
  }
  describe(name: string) {
    return name === "disk" ? DESCRIPTION : null;
  }
  open(request: OpenRequest): void {
    this.opens.push(request);
    this.onOpen();
  }
  join(request: JoinRequest): void {
    this.joins.push(request);
  }

  /** What was sent since the last call. */
  sent(): Uint8Array {
    return concat(...this.#sent.splice(0));
  }

  /** Gets through the hello. */
  hello(digest: number): this {
    this.feeder.feed(hello([0], [digest]));
    assert.equal(replyOf(this.sent()).status, Status.OK);
    this.#digest = digest;
    return this;
  }

  /** The next frame from the client. */
  frame(fields: Fields): Uint8Array {
    return frame(fields, this.#framesIn++, this.#digest);
  }

  frames(): Received[] {
    const frames = parseFrames(this.sent(), this.#digest, this.#framesOut);
    this.#framesOut += frames.length;
    return frames;
  }

  ask(type: number, ...tlvs: Uint8Array[]): Received[] {
    this.feeder.feed(this.frame({ type, payload: concat(...tlvs) }));
    return this.frames();
  }
}

function helloBytes(body: Uint8Array, low = 1, high = 1, bodyBytes = body.length): Uint8Array {
  return concat(
    new TextEncoder().encode("DSTHELLO"),
    Uint8Array.from([...uint16s(low, high), ...uint32s(bodyBytes)]),
    body,
  );
}

function hello(ciphers: number[], digests: number[], ...more: Uint8Array[]): Uint8Array {
  return helloBytes(concat(tlv(1, uint16s(...ciphers), 1), tlv(2, uint16s(...digests), 1), ...more));
}

/** Takes the exporter's hello apart. */
function replyOf(bytes: Uint8Array) {
  assert.equal(new TextDecoder().decode(bytes.subarray(0, 8)), "DSTREPLY");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assert.equal(view.getUint16(10, true), 0);
  assert.equal(view.getUint32(12, true), bytes.length - 16);
  const fields = tlvsOf(bytes.subarray(16));
  const list = (type: number) => {
    const value = fields.get(type)?.[0];
    return value === undefined ? null : [...new Uint16Array(value.slice().buffer)];
  };
  return {
    version: view.getUint16(8, true),
    status: new Uint32Array(fields.get(4)![0].slice().buffer)[0],
    ciphers: list(1),
    digests: list(2),
    text: new TextDecoder().decode(fields.get(5)?.[0]),
  };
}

function tlvsOf(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const found = new Map<number, Uint8Array[]>();
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = 0; at < bytes.length;) {
    const length = view.getUint32(at + 4, true);
    const type = view.getUint16(at, true);
    found.set(type, [...found.get(type) ?? [], bytes.slice(at + 8, at + 8 + length)]);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

const OPEN_TLVS = [tlv(16, "disk"), tlv(17, SESSION), tlv(18, uint32s(1)), tlv(19, "client")];
const JOIN_TLVS = [tlv(17, SESSION), tlv(26, uint32s(3)), tlv(27, uint32s(2))];

Deno.test("a hello is answered with the first of the client's algorithms that the exporter accepts", () => {
  for (const cut of CUTS) {
    for (const [offered, chosen] of [[[1, 2], 1], [[2, 1], 2], [[9, 0], 0], [[4, 3, 2], 2]] as const) {
      const setup = new Setup();
      setup.feeder.feed(hello([1, 0], [...offered]), cut);
      const reply = replyOf(setup.sent());
      const { version, status, ciphers, digests } = reply;
      assert.deepEqual({ version, status, ciphers, digests }, {
        version: 1,
        status: Status.OK,
        ciphers: [0],
        digests: [chosen],
      });
      assert.equal(setup.feeder.closed, false);
      assert.equal(setup.door.headerBytes, chosen === 0 ? 48 : 64);
    }
  }
});

Deno.test("a hello that cannot be agreed to is answered with the reason, and the connection ends", () => {
  const good = concat(tlv(1, uint16s(0)), tlv(2, uint16s(1)));
  const key = tlv(3, SESSION, 1);
  const { OK, VERSION, BAD_REQUEST, UNKNOWN_REQUIRED, NO_COMMON_ALGORITHM, TOO_MANY } = Status;
  const keyed: HelloConfig = { ciphers: [], digests: [2], keyRequired: false };
  const cases: [string, Uint8Array, number, HelloConfig?][] = [
    ["several versions", helloBytes(good, 0, 9), OK],
    ["an unknown TLV", helloBytes(concat(good, tlv(99, "x"))), OK],
    ["only later versions", helloBytes(good, 2, 9), VERSION],
    ["only earlier versions", helloBytes(good, 0, 0), VERSION],
    ["a later version with a body of its own", helloBytes(new Uint8Array(5), 2, 2), VERSION],
    ["versions in the wrong order", helloBytes(good, 1, 0), BAD_REQUEST],
    ["no body", helloBytes(new Uint8Array(0)), BAD_REQUEST],
    ["no digests", helloBytes(tlv(1, uint16s(0))), BAD_REQUEST],
    ["no ciphers", helloBytes(tlv(2, uint16s(0))), BAD_REQUEST],
    ["half a number", helloBytes(concat(tlv(1, [0]), tlv(2, uint16s(1)))), BAD_REQUEST],
    ["two lists", helloBytes(concat(good, good)), BAD_REQUEST],
    ["a key id of 15 bytes", helloBytes(concat(good, tlv(3, SESSION.subarray(1)))), BAD_REQUEST],
    ["a cut TLV", helloBytes(good.subarray(0, 30)), BAD_REQUEST],
    ["an unknown required TLV", helloBytes(concat(good, tlv(99, "x", 1))), UNKNOWN_REQUIRED],
    ["unknown digests", hello([0], [7, 8]), NO_COMMON_ALGORITHM],
    ["empty lists", hello([], []), NO_COMMON_ALGORITHM],
    ["unknown ciphers", hello([7], [1]), NO_COMMON_ALGORITHM],
    ["a key, but no digest that can be keyed", hello([0], [1, 2], key), NO_COMMON_ALGORITHM],
    ["a key, and digests that are not accepted", hello([0], [3, 4], key), NO_COMMON_ALGORITHM],
    ["an exporter that is full", hello([0], [1]), TOO_MANY, { ...CONFIG, full: true }],
    ["an exporter without the cipher", hello([0], [2]), NO_COMMON_ALGORITHM, keyed],
  ];
  for (const [name, bytes, status, config] of cases) {
    for (const cut of CUTS) {
      const setup = new Setup(config);
      setup.feeder.feed(bytes, cut);
      const sent = setup.sent();
      assert.ok(sent.length <= 512);
      const reply = replyOf(sent);
      assert.equal(reply.status, status, name);
      assert.equal(reply.version, status === VERSION ? 0 : 1);
      assert.equal(setup.feeder.closed, status !== OK);
      if (status === OK) continue;
      assert.notEqual(reply.text, "");
      const isMalformed = status === BAD_REQUEST || status === UNKNOWN_REQUIRED;
      assert.equal(setup.door.error, isMalformed ? ProtocolError.HELLO : ProtocolError.REFUSED);
      const all = status === NO_COMMON_ALGORITHM;
      assert.deepEqual(reply.ciphers, all ? [...(config ?? CONFIG).ciphers] : null);
      assert.deepEqual(reply.digests, all ? [...(config ?? CONFIG).digests] : null);
    }
  }
});

Deno.test("bytes that are no hello end the connection without an answer", () => {
  for (const cut of CUTS) {
    const setup = new Setup();
    setup.feeder.feed(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), cut);
    assert.deepEqual([setup.feeder.closed, setup.door.error], [true, ProtocolError.MAGIC]);
    assert.equal(setup.sent().length, 0);
  }
});

Deno.test("a hello's body has a limit", () => {
  const good = concat(tlv(1, uint16s(0)), tlv(2, uint16s(1)));
  const longest = concat(good, tlv(99, new Uint8Array(HELLO_BODY_BYTES_MAX - good.length - 8)));
  assert.equal(longest.length, HELLO_BODY_BYTES_MAX);
  const setup = new Setup();
  setup.feeder.feed(helloBytes(longest));
  assert.equal(replyOf(setup.sent()).status, Status.OK);
  for (const bodyBytes of [HELLO_BODY_BYTES_MAX + 1, 0xffff_ffff]) {
    const other = new Setup();
    other.feeder.feed(helloBytes(longest, 1, 1, bodyBytes));
    assert.equal(replyOf(other.sent()).status, Status.BAD_REQUEST);
    assert.deepEqual([other.feeder.closed, other.door.error], [true, ProtocolError.HELLO]);
  }
});

for (const digest of [0, 1, 2]) {
  Deno.test(`LIST gives the host's entries (digest ${digest})`, () => {
    for (const cut of CUTS) {
      const setup = new Setup().hello(digest);
      setup.entries = [{ name: "a", size: 512, access: 0, features: 1 }, {
        name: "é",
        size: 2 ** 40,
        access: 1,
        features: 64,
      }];
      setup.feeder.feed(setup.frame({ type: LIST }), cut);
      const [first, ...others] = setup.frames();
      assert.deepEqual([first.type, first.status, first.lane, others.length], [LIST | 0x80, 0, 0, 0]);
      const expected = concat(
        tlv(38, [...uint64(512), ...uint32s(0, 1), 97]),
        tlv(38, [...uint64(2 ** 40), ...uint32s(1, 64), 0xc3, 0xa9]),
      );
      assert.deepEqual(first.payload, expected);
      setup.more = true;
      setup.feeder.feed(setup.frame({ type: LIST, payload: tlv(29, "a") }), cut);
      assert.deepEqual(setup.frames()[0].payload, concat(expected, tlv(39, [])));
      assert.deepEqual(setup.listed, ["", "a"]);
    }
  });

  Deno.test(`DESCRIBE gives the export, and a stranger's export is not found (digest ${digest})`, () => {
    for (const cut of CUTS) {
      const setup = new Setup().hello(digest);
      setup.feeder.feed(setup.frame({ type: DESCRIBE, payload: tlv(16, "disk") }), cut);
      const [reply] = setup.frames();
      assert.equal(reply.status, Status.OK);
      const expected = concat(
        tlv(32, uint64(2 ** 33)),
        tlv(33, uint32s(512, 4096, 65_536, 4096)),
        tlv(18, uint32s(1)),
        tlv(36, uint64(3)),
        tlv(35, [...identity(1), ...identity(2), ...identity(3), ...uint64(2 ** 50)]),
        tlv(37, [...uint32s(1, 0), ...new TextEncoder().encode("host at 192.0.2.1:5")]),
      );
      assert.deepEqual(reply.payload, expected);
      assert.equal(setup.ask(DESCRIBE, tlv(16, "other"))[0].status, Status.NOT_FOUND);
      assert.equal(setup.ask(DESCRIBE)[0].status, Status.BAD_REQUEST);
      assert.equal(setup.feeder.closed, false);
    }
  });

  Deno.test(`OPEN waits for the host, who may refuse it, and the door goes on (digest ${digest})`, () => {
    for (const cut of CUTS) {
      const setup = new Setup().hello(digest);
      setup.feeder.feed(setup.frame({ type: OPEN, payload: concat(...OPEN_TLVS) }), cut);
      assert.deepEqual([setup.feeder.waiting, setup.door.isPending, setup.opens.length], [true, true, 1]);
      assert.equal(setup.sent().length, 0);
      setup.door.fencing(3);
      setup.feeder.resume();
      assert.deepEqual([setup.feeder.waiting, setup.opens.length], [true, 1]);
      setup.door.fencing(2 ** 20);
      setup.door.refuse(Status.BUSY, "held", DESCRIPTION.current);
      const [fencing, again, refusal, ...others] = setup.frames();
      assert.deepEqual([fencing.type, fencing.length, again.length, others.length], [0x33, 3, 2 ** 20, 0]);
      assert.deepEqual([refusal.type, refusal.status], [OPEN | 0x80, Status.BUSY]);
      const held = [...uint32s(1, 0), ...new TextEncoder().encode("host at 192.0.2.1:5")];
      assert.deepEqual(refusal.payload, concat(tlv(5, "held"), tlv(37, held)));
      setup.feeder.resume();
      assert.equal(setup.ask(LIST)[0].status, Status.OK);
    }
  });

  Deno.test(`a host that takes the connection over goes on with the numbers of the frames (digest ${digest})`, () => {
    const setup = new Setup().hello(digest);
    setup.ask(LIST);
    setup.feeder.feed(setup.frame({ type: JOIN, payload: concat(...JOIN_TLVS) }));
    setup.door.fencing(1);
    assert.deepEqual(setup.door.handoff(), { cipher: 0, digest, keys: null, sent: 2, received: 2 });
    setup.feeder.resume();
    assert.equal(setup.feeder.waiting, true);
    assert.throws(() => setup.door.refuse(Status.BUSY, ""), /Assertion/);
    assert.throws(() => setup.door.handoff(), /Assertion/);
  });

  Deno.test(`the frame rules hold at the door (digest ${digest})`, () => {
    const cases: [string, Fields, number, number?][] = [
      ["magic", { type: LIST, magic: 1 }, ProtocolError.MAGIC],
      ["zero byte", { type: LIST, zero: 1 }, ProtocolError.FIELD],
      ["lane", { type: LIST, lane: 1 }, ProtocolError.LANE],
      ["flags", { type: LIST, flags: 1 }, ProtocolError.FIELD],
      ["slot", { type: LIST, slot: 1 }, ProtocolError.FIELD],
      ["sequence", { type: LIST, sequence: 1 }, ProtocolError.FIELD],
      ["offset", { type: LIST, offset: 1 }, ProtocolError.FIELD],
      ["large offset", { type: LIST, offset: 2n ** 63n }, ProtocolError.FIELD],
      ["length", { type: LIST, length: 1 }, ProtocolError.FIELD],
      ["status", { type: LIST, status: 1 }, ProtocolError.FIELD],
      ["type 0", { type: 0 }, ProtocolError.TYPE],
      ["a reply", { type: LIST | 0x80 }, ProtocolError.TYPE],
      ["an exporter's type", { type: 0x30 }, ProtocolError.TYPE],
      ["READ", { type: 1, sequence: 1, length: 512 }, ProtocolError.PHASE, 0x81],
      ["a later request", { type: 15 }, ProtocolError.PHASE, 0x8f],
      ["PING", { type: 0x10, offset: 7 }, ProtocolError.PHASE, 0x90],
      ["CLOSE", { type: 0x24 }, ProtocolError.PHASE, 0xa4],
      ["payload", { type: LIST, payloadBytes: CONTROL_BYTES_MAX + 1 }, ProtocolError.PAYLOAD_TOO_LONG],
      ["payload", { type: LIST, payloadBytes: 0xffff_ffff }, ProtocolError.PAYLOAD_TOO_LONG],
    ];
    for (const [name, fields, error, reply] of cases) {
      const setup = new Setup().hello(digest);
      setup.feeder.feed(concat(setup.frame(fields), new Uint8Array(100)));
      assert.deepEqual([setup.feeder.closed, setup.door.error], [true, error], name);
      const frames = setup.frames();
      assert.deepEqual(frames.map(({ type }) => type), reply === undefined ? [] : [reply]);
      assert.ok(frames.every(({ status }) => status === Status.BAD_REQUEST));
    }
  });
}

Deno.test("a corrupted payload ends the connection before anybody sees it", () => {
  const setup = new Setup().hello(2);
  const bytes = setup.frame({ type: OPEN, payload: concat(...OPEN_TLVS) });
  bytes[80] ^= 1;
  setup.feeder.feed(bytes);
  assert.deepEqual([setup.feeder.closed, setup.door.error], [true, ProtocolError.PAYLOAD_TAG]);
  assert.equal(setup.opens.length, 0);
});

Deno.test("an OPEN's fields reach the host, wishes within their limits", () => {
  const setup = new Setup().hello(1);
  setup.onOpen = () => setup.door.refuse(Status.DENIED, "");
  assert.deepEqual(setup.ask(OPEN, ...OPEN_TLVS).map(({ status, payload }) => [status, payload.length]), [[33, 0]]);
  const none = { leaseMs: null, depth: null, maxPayload: null, lanes: null, steal: false, resume: null };
  const least = { export: "disk", session: SESSION, access: 1, holder: "client" };
  assert.deepEqual(setup.opens.pop(), { ...least, ...none });

  const resume = [...identity(3), ...identity(2), ...uint64(2 ** 50)];
  setup.ask(
    OPEN,
    ...OPEN_TLVS,
    tlv(20, uint32s(60_000)),
    tlv(21, uint32s(32)),
    tlv(22, uint32s(65_536)),
    tlv(23, uint32s(2)),
    tlv(24, [], 1),
    tlv(25, resume, 1),
  );
  assert.deepEqual(setup.opens.pop(), {
    ...least,
    leaseMs: 60_000,
    depth: 32,
    maxPayload: 65_536,
    lanes: 2,
    steal: true,
    resume: { storage: identity(3), durability: identity(2), writeEpoch: 2 ** 50 },
  });

  for (const [asked, got] of [[0, [0, 1, 4096, 1]], [0xffff_ffff, [86_400_000, 1024, 2 ** 20, 64]]] as const) {
    setup.ask(OPEN, ...OPEN_TLVS, ...[20, 21, 22, 23].map((type) => tlv(type, uint32s(asked))));
    const { leaseMs, depth, maxPayload, lanes } = setup.opens.pop()!;
    assert.deepEqual([leaseMs, depth, maxPayload, lanes], got);
  }
});

Deno.test("a malformed OPEN or JOIN is refused, and the door goes on", () => {
  const replaced = (tlvs: Uint8Array[], index: number, other: Uint8Array) => tlvs.with(index, other);
  const without = (tlvs: Uint8Array[], index: number) => tlvs.filter((_, i) => i !== index);
  const bad: [number, Uint8Array[]][] = [
    [OPEN, []],
    [JOIN, []],
    ...[0, 1, 2, 3].map((i): [number, Uint8Array[]] => [OPEN, without(OPEN_TLVS, i)]),
    ...[0, 1, 2].map((i): [number, Uint8Array[]] => [JOIN, without(JOIN_TLVS, i)]),
    ...[0, 1, 2, 3].map((i): [number, Uint8Array[]] => [OPEN, [...OPEN_TLVS, OPEN_TLVS[i]]]),
    [OPEN, replaced(OPEN_TLVS, 0, tlv(16, ""))],
    [OPEN, replaced(OPEN_TLVS, 0, tlv(16, "a\0"))],
    [OPEN, replaced(OPEN_TLVS, 1, tlv(17, new Uint8Array(16)))],
    [OPEN, replaced(OPEN_TLVS, 1, tlv(17, new Uint8Array(15).fill(1)))],
    [OPEN, replaced(OPEN_TLVS, 2, tlv(18, uint32s(2)))],
    [OPEN, replaced(OPEN_TLVS, 3, tlv(19, "x".repeat(256)))],
    [OPEN, [...OPEN_TLVS, tlv(24, "x", 1)]],
    [OPEN, [...OPEN_TLVS, tlv(25, identity(1), 1)]],
    [OPEN, [...OPEN_TLVS, tlv(25, [...identity(1), ...identity(2), ...uint64(2n ** 53n)], 1)]],
    [JOIN, replaced(JOIN_TLVS, 0, tlv(17, new Uint8Array(16)))],
    [JOIN, replaced(JOIN_TLVS, 1, tlv(26, uint32s(64)))],
    [JOIN, replaced(JOIN_TLVS, 2, tlv(27, uint32s(0)))],
  ];
  const setup = new Setup().hello(2);
  for (const [type, tlvs] of bad) {
    const [reply, ...others] = setup.ask(type, ...tlvs);
    assert.deepEqual([reply.type, reply.status, others.length], [type | 0x80, Status.BAD_REQUEST, 0]);
  }
  assert.equal(setup.ask(OPEN, ...OPEN_TLVS, tlv(99, [], 1))[0].status, Status.UNKNOWN_REQUIRED);
  assert.equal(setup.ask(LIST, tlv(29, "\n"))[0].status, Status.BAD_REQUEST);
  assert.deepEqual([setup.opens.length, setup.joins.length, setup.feeder.closed], [0, 0, false]);
});

Deno.test("a JOIN's fields reach the host", () => {
  const setup = new Setup().hello(0);
  setup.ask(JOIN, ...JOIN_TLVS, tlv(28, [], 1), tlv(21, uint32s(8)));
  const expected = { session: SESSION, lane: 3, generation: 2, depth: 8, maxPayload: null, fresh: true };
  assert.deepEqual(setup.joins, [expected]);
  assert.equal(setup.feeder.waiting, true);
});

Deno.test("a LIST that does not fit one answer says that there is more", () => {
  const setup = new Setup().hello(2);
  setup.entries = Array.from({ length: 1000 }, (_, i) => ({
    name: `${i}`.padStart(255, "0"),
    size: i,
    access: 0,
    features: 0,
  }));
  const [reply] = setup.ask(LIST);
  assert.ok(reply.payload.length <= CONTROL_BYTES_MAX);
  const tlvs = tlvsOf(reply.payload);
  assert.ok(tlvs.get(38)!.length >= 200);
  assert.equal(tlvs.get(39)?.length, 1);
});

Deno.test("a connection does not live at the door", () => {
  const setup = new Setup().hello(1);
  for (let i = 0; i < DOOR_REQUESTS_MAX; i++) assert.equal(setup.ask(LIST)[0].status, Status.OK);
  assert.equal(setup.ask(LIST)[0].status, Status.TOO_MANY);
  assert.deepEqual([setup.feeder.closed, setup.door.error], [true, ProtocolError.DOOR_REQUESTS]);
});

Deno.test("bytes after a pending OPEN stay unread until it is answered", () => {
  for (const cut of CUTS) {
    const setup = new Setup().hello(2);
    const open = setup.frame({ type: OPEN, payload: concat(...OPEN_TLVS) });
    setup.feeder.feed(concat(open, setup.frame({ type: LIST })), cut);
    assert.deepEqual([setup.feeder.waiting, setup.feeder.unread, setup.listed.length], [true, 64, 0]);
    setup.door.refuse(Status.DENIED, "no");
    setup.feeder.resume();
    assert.deepEqual(setup.frames().map(({ type }) => type), [OPEN | 0x80, LIST | 0x80]);
  }
});

Deno.test("a door for algorithms that do not exist is a programmer's error", () => {
  assert.throws(() => new Setup({ ciphers: [3], digests: [2], keyRequired: false }), /Assertion/);
  assert.throws(() => new Setup({ ciphers: [0], digests: [5], keyRequired: false }), /Assertion/);
});
