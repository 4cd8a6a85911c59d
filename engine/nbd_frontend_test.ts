import assert from "node:assert/strict";
import { makeLoop } from "../ffi/mod.ts";
import { listenOn } from "../ffi/socket.ts";
import { Command, Option, OptionReply } from "../protocol/nbd/wire.ts";
import { CLIENT_FLAGS, open, option, type OptionAnswer, readOptionAnswers, request } from "../tests/nbd/client.ts";
import { makeArena } from "../wasm/core.ts";
import { arenaBytes, Engine } from "./engine.ts";
import { TestDisk } from "./layers/test_disk.ts";
import { NBD_SLOTS, type NbdArbiter, NbdFrontend, type NbdFrontendLimits } from "./nbd_frontend.ts";

/** Bytes of the greeting: NBDMAGIC, IHAVEOPT, flags. */
const GREETING_BYTES = 18;
const OPTION_REPLY_BYTES = 20;

/** A front-end on an engine of its own, which turns while the test waits for something. */
class Bench implements NbdArbiter {
  readonly engine: Engine;
  readonly frontend: NbdFrontend;
  readonly said: string[] = [];
  readonly wanted: number[] = [];
  /** Indices of exports, once for each time. */
  readonly admitted: number[] = [];
  readonly left: number[] = [];
  /** Exports that nobody may use, and learn of; with null nobody may even connect. */
  readonly hidden = new Set<string | null>();
  /** The immediate answer to each wish; undefined: none yet. */
  refusal: string | null | undefined = null;
  readonly #folder = Deno.makeTempDirSync({ prefix: "dst-nbd-" });
  readonly #path = `${this.#folder}/socket`;

  private constructor(slots: number, limits: Partial<NbdFrontendLimits>) {
    this.engine = new Engine(makeLoop("poll"), makeArena(arenaBytes(slots)));
    const disks = ["a", "b"].map((name) => ({ name, device: new TestDisk(this.engine.slots, 1024 * 1024) }));
    const all = { handshakeTimeMs: 60_000, handshakesMax: 16, ...limits };
    this.frontend = new NbdFrontend(this.engine, disks, this, (text) => this.said.push(text), all);
    const fd = listenOn({ family: "unix", path: this.#path }, 16);
    assert(fd >= 0);
    this.frontend.listen(fd);
  }

  /** Makes a test; afterwards everybody has gone and every slot is back. */
  static test(
    options: { slots?: number } & Partial<NbdFrontendLimits>,
    work: (bench: Bench) => Promise<void>,
  ): () => Promise<void> {
    return async () => {
      const bench = new Bench(options.slots ?? 256, options);
      const { freeCount } = bench.engine.slots;
      try {
        await work(bench);
        bench.frontend.stop();
        await bench.until(() => bench.frontend.isIdle);
        assert.equal(bench.engine.slots.freeCount, freeCount);
        assert.deepEqual(bench.left.sort(), bench.admitted.sort());
      } finally {
        bench.engine.close();
        Deno.removeSync(bench.#folder, { recursive: true });
      }
    };
  }

  wantExport(index: number): void {
    this.wanted.push(index);
    if (this.refusal !== undefined) this.answer(index, this.refusal);
  }

  /** The arbiter's answer. */
  answer(index: number, refusal: string | null): void {
    if (refusal === null) this.admitted.push(index);
    this.frontend.opened(index, refusal);
  }

  admits(_address: unknown, exportName: string | null): boolean {
    return !this.hidden.has(null) && !this.hidden.has(exportName);
  }

  leaveExport(index: number): void {
    this.left.push(index);
  }

  /** Turns the engine until the promise is settled. */
  async during<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const done = () => settled = true;
    promise.then(done, done);
    await this.until(() => settled);
    return await promise;
  }

  /** Turns the engine until something is the case. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      this.engine.turn(1);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }

  /** Connects, and reads the greeting; null when the connection is closed instead. */
  async connect(): Promise<Client | null> {
    const client = new Client(this, await Deno.connect({ transport: "unix", path: this.#path }));
    const greeting = await client.read(GREETING_BYTES);
    if (greeting !== null) return client;
    client.close();
    return null;
  }
}

/** The other end. */
class Client {
  constructor(readonly bench: Bench, readonly connection: Deno.Conn) {}

  /** So many bytes; null at the end of the stream. */
  async read(bytes: number): Promise<Uint8Array<ArrayBuffer> | null> {
    const all = new Uint8Array(bytes);
    for (let filled = 0; filled < bytes;) {
      const count = await this.bench.during(this.connection.read(all.subarray(filled)).catch(() => null));
      if (count === null) return null;
      filled += count;
    }
    return all;
  }

  async send(bytes: Uint8Array): Promise<void> {
    await this.bench.during(this.connection.write(bytes));
  }

  /** One reply to an option. */
  async answer(): Promise<OptionAnswer> {
    const head = (await this.read(OPTION_REPLY_BYTES))!;
    const data = (await this.read(new DataView(head.buffer).getUint32(16)))!;
    const whole = new Uint8Array(head.length + data.length);
    whole.set(head);
    whole.set(data, head.length);
    return readOptionAnswers(whole)[0];
  }

  /** Asks for an export; gives the last answer's type. */
  async go(name: string): Promise<OptionAnswer> {
    await this.send(open(Option.GO, name));
    for (;;) {
      const answer = await this.answer();
      if (answer.type !== OptionReply.INFO) return answer;
    }
  }

  /** Enters transmission. */
  async enter(name: string): Promise<void> {
    await this.send(CLIENT_FLAGS);
    assert.equal((await this.go(name)).type, OptionReply.ACK);
  }

  /** Does a FLUSH; whether it was answered with success. */
  async flushes(): Promise<boolean> {
    await this.send(request(Command.FLUSH, 7, 0, 0));
    const reply = await this.read(16);
    return reply !== null && new DataView(reply.buffer).getUint32(4) === 0;
  }

  close(): void {
    this.connection.close();
  }
}

Deno.test(
  "a client that is silent in the handshake is sent away, and one in transmission may be silent",
  Bench.test({ handshakeTimeMs: 50 }, async (bench) => {
    const worker = (await bench.connect())!;
    await worker.enter("a");
    const mute = (await bench.connect())!;
    const half = (await bench.connect())!;
    await half.send(CLIENT_FLAGS);
    assert.equal(await mute.read(1), null);
    assert.equal(await half.read(1), null);
    assert.equal(bench.said.filter((text) => text.includes("said nothing for 0.05 s")).length, 2);
    assert(await worker.flushes());
    for (const client of [worker, mute, half]) client.close();
  }),
);

Deno.test(
  "a client that comes later is watched too",
  Bench.test({ handshakeTimeMs: 20 }, async (bench) => {
    for (let i = 0; i < 3; i++) {
      const mute = (await bench.connect())!;
      assert.equal(await mute.read(1), null);
      mute.close();
    }
    assert.equal(bench.engine.timers.count, 0);
  }),
);

Deno.test(
  "the time in which a client waits for the export is not its silence",
  Bench.test({ handshakeTimeMs: 20 }, async (bench) => {
    bench.refusal = undefined;
    const client = (await bench.connect())!;
    await client.send(CLIENT_FLAGS);
    const entered = client.go("a");
    await bench.until(() => bench.wanted.length === 1);
    const from = bench.engine.now;
    await bench.until(() => bench.engine.now - from > 100);
    bench.answer(0, null);
    assert.equal((await entered).type, OptionReply.ACK);
    assert(await client.flushes());
    client.close();
  }),
);

Deno.test(
  "only so many may be in the handshake at once; those in transmission don't count",
  Bench.test({ handshakesMax: 2 }, async (bench) => {
    const first = (await bench.connect())!;
    const second = (await bench.connect())!;
    assert.equal(await bench.connect(), null);
    assert.match(bench.said[0], /2 NBD clients are in the handshake already/);
    await first.enter("a");
    const third = (await bench.connect())!;
    second.close();
    await bench.until(() => bench.frontend.clients === 2);
    await third.enter("b");
    assert(await first.flushes());
    for (const client of [first, third]) client.close();
  }),
);

Deno.test(
  "a client takes the slots of its requests when it enters transmission, and gives them back",
  Bench.test({ slots: NBD_SLOTS + 3 }, async (bench) => {
    const first = (await bench.connect())!;
    const second = (await bench.connect())!;
    await first.enter("a");
    await second.send(CLIENT_FLAGS);
    const refused = await second.go("b");
    assert.equal(refused.type, OptionReply.ERR_POLICY);
    assert.match(new TextDecoder().decode(refused.data), /no memory/);
    // Describing an export takes none.
    await second.send(open(Option.INFO, "b"));
    assert.equal((await second.answer()).type, OptionReply.INFO);
    assert.equal((await second.answer()).type, OptionReply.ACK);
    first.close();
    await bench.until(() => bench.frontend.clients === 1);
    assert.equal((await second.go("b")).type, OptionReply.ACK);
    assert(await second.flushes());
    second.close();
  }),
);

Deno.test(
  "a client that is refused an export may ask again, and its slots come back",
  Bench.test({ slots: NBD_SLOTS + 2 }, async (bench) => {
    bench.refusal = undefined;
    const client = (await bench.connect())!;
    await client.send(CLIENT_FLAGS);
    for (let i = 0; i < 3; i++) {
      const answer = client.go("a");
      await bench.until(() => bench.wanted.length === i + 1);
      bench.answer(0, "somebody holds it");
      const { type, data } = await answer;
      assert.equal(type, OptionReply.ERR_POLICY);
      assert.equal(new TextDecoder().decode(data), "somebody holds it");
    }
    bench.refusal = "it is mine";
    assert.equal(new TextDecoder().decode((await client.go("a")).data), "it is mine");
    bench.refusal = null;
    assert.equal((await client.go("a")).type, OptionReply.ACK);
    assert(await client.flushes());
    client.close();
  }),
);

Deno.test(
  "a client that goes away while it waits for the export leaves nothing behind",
  Bench.test({}, async (bench) => {
    bench.refusal = undefined;
    const client = (await bench.connect())!;
    await client.send(CLIENT_FLAGS);
    await client.send(open(Option.GO, "a"));
    await bench.until(() => bench.wanted.length === 1);
    client.close();
    bench.answer(0, null);
    await bench.until(() => bench.frontend.clients === 0);
    assert.deepEqual(bench.left, [0]);
  }),
);

Deno.test(
  "clients that abort, or are gone in the middle of an option, leave nothing behind",
  Bench.test({}, async (bench) => {
    const polite = (await bench.connect())!;
    await polite.send(CLIENT_FLAGS);
    await polite.send(option(Option.ABORT));
    assert.equal((await polite.answer()).type, OptionReply.ACK);
    assert.equal(await polite.read(1), null);
    polite.close();
    const rude = (await bench.connect())!;
    await rude.send(CLIENT_FLAGS);
    await rude.send(option(Option.LIST, new Uint8Array(100)).subarray(0, 50));
    rude.close();
    await bench.until(() => bench.frontend.clients === 0);
  }),
);

Deno.test(
  "clients that come and go, however many, leave no timers behind but one of each kind",
  Bench.test({}, async (bench) => {
    for (let i = 0; i < 100; i++) {
      const client = (await bench.connect())!;
      await client.send(CLIENT_FLAGS);
      await client.send(option(Option.ABORT));
      assert.equal((await client.answer()).type, OptionReply.ACK);
      assert.equal(await client.read(1), null);
      client.close();
    }
    assert(bench.engine.timers.count <= 2, `${bench.engine.timers.count} timers`);
  }),
);

Deno.test(
  "an export that an address may not use is not there for it, and who may not connect is not even greeted",
  Bench.test({}, async (bench) => {
    bench.hidden.add("b");
    const client = (await bench.connect())!;
    await client.send(CLIENT_FLAGS);
    await client.send(option(Option.LIST));
    const entry = await client.answer();
    assert.equal(new TextDecoder().decode(entry.data.subarray(4)), "a");
    assert.equal((await client.answer()).type, OptionReply.ACK);
    const hidden = await client.go("b");
    const absent = await client.go("c");
    assert.deepEqual([hidden.type, absent.type], [OptionReply.ERR_UNKNOWN, OptionReply.ERR_UNKNOWN]);
    assert.deepEqual(bench.wanted, []);
    assert.equal((await client.go("a")).type, OptionReply.ACK);
    client.close();
    bench.hidden.add(null);
    assert.equal(await bench.connect(), null);
    assert.match(bench.said.at(-1)!, /nobody may connect from there/);
  }),
);

Deno.test(
  "clients that may not be there any more go when what they asked for is answered, and the others stay",
  Bench.test({}, async (bench) => {
    const [a, b, early] = [(await bench.connect())!, (await bench.connect())!, (await bench.connect())!];
    await a.enter("a");
    await b.enter("b");
    bench.hidden.add("b");
    bench.frontend.review();
    assert.equal(await b.read(1), null);
    assert(await a.flushes());
    await early.send(CLIENT_FLAGS);
    assert.equal((await early.go("a")).type, OptionReply.ACK);
    bench.hidden.add(null);
    bench.frontend.review();
    assert.equal(await a.read(1), null);
    assert.equal(await early.read(1), null);
    for (const client of [a, b, early]) client.close();
  }),
);

Deno.test(
  "exports come and go while there are clients",
  Bench.test({}, async (bench) => {
    const a = (await bench.connect())!;
    await a.enter("a");
    const client = (await bench.connect())!;
    await client.send(CLIENT_FLAGS);
    assert.equal((await client.go("c")).type, OptionReply.ERR_UNKNOWN);
    bench.frontend.add(3, { name: "c", device: new TestDisk(bench.engine.slots, 4096) });
    assert.equal((await client.go("c")).type, OptionReply.ACK);
    assert.deepEqual(bench.admitted, [0, 3]);
    assert.throws(() => bench.frontend.remove(3), /in use/);
    assert(bench.frontend.disconnect(3));
    assert.equal(await client.read(1), null);
    await bench.until(() => bench.left.includes(3));
    bench.frontend.remove(3);
    bench.frontend.remove(1);
    bench.frontend.remove(9);
    const late = (await bench.connect())!;
    await late.send(CLIENT_FLAGS);
    for (const name of ["b", "c"]) assert.equal((await late.go(name)).type, OptionReply.ERR_UNKNOWN);
    // The only one that is left is the default.
    assert.equal((await late.go("")).type, OptionReply.ACK);
    assert(await a.flushes());
    for (const one of [a, client, late]) one.close();
  }),
);
