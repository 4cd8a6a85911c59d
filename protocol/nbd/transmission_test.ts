import assert from "node:assert/strict";
import { Operation, RequestFlag } from "../request.ts";
import { request, TestClient } from "../../tests/nbd/client.ts";
import {
  concat,
  fromHex,
  randomFrom,
  SLOT_BYTES,
  TestHost,
  type TestHostOptions,
  toHex,
} from "../../tests/nbd/host.ts";
import { Command, CommandFlag, NbdError } from "./wire.ts";

const MiB = 1 << 20;
const GiB = 1 << 30;

interface Setup {
  structured?: boolean;
  allocation?: boolean;
}

/** A client in transmission, and its host. */
function connect(options: TestHostOptions = {}, setup: Setup = {}): { host: TestHost; client: TestClient } {
  const host = new TestHost(options);
  return { host, client: new TestClient(host, setup) };
}

/** Bytes that differ from place to place. */
function pattern(bytes: number, seed: number): Uint8Array {
  const random = randomFrom(seed);
  const data = new Uint8Array(bytes);
  const view = new DataView(data.buffer);
  for (let at = 0; at + 4 <= bytes; at += 4) view.setUint32(at, random() * 0x100000000);
  return data;
}

function equalBytes(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(actual.length, expected.length);
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  assert.equal(at, -1, `bytes differ at ${at}`);
}

/** The transmission reply in hexadecimal to one request, given in full. */
function transcript(options: TestHostOptions, setup: Setup, bytes: Uint8Array): string {
  const { host } = connect(options, setup);
  host.feed(bytes);
  return toHex(host.takeOutput());
}

Deno.test("a simple READ is a header with the cookie and the data behind it", () => {
  const { host } = connect();
  host.disk.write(512, fromHex("00112233"));
  host.feed(request(Command.READ, 0x0123456789abcdefn, 512, 4));
  assert.equal(toHex(host.takeOutput()), "67446698" + "00000000" + "0123456789abcdef" + "00112233");
});

Deno.test("a structured READ is a data chunk with its offset", () => {
  const { host } = connect({}, { structured: true });
  host.disk.write(512, fromHex("00112233"));
  host.feed(request(Command.READ, 0xffffffff00000001n, 512, 4));
  const header = "668e33ef" + "0001" + "0001" + "ffffffff00000001" + "0000000c";
  assert.equal(toHex(host.takeOutput()), header + "0000000000000200" + "00112233");
});

Deno.test("a structured error is a chunk with its text, a simple one a header", () => {
  const bytes = request(Command.READ, 5, MiB, 1);
  const message = "the range ends past the end of the export";
  const length = message.length.toString(16).padStart(4, "0");
  const total = (message.length + 6).toString(16).padStart(8, "0");
  assert.equal(
    transcript({}, { structured: true }, bytes),
    `668e33ef00018001${"0000000000000005"}${total}00000016${length}` + toHex(new TextEncoder().encode(message)),
  );
  assert.equal(transcript({}, {}, bytes), "67446698000000160000000000000005");
});

Deno.test("BLOCK_STATUS is one chunk with the context's id and its descriptors", () => {
  const options = { extents: [[4096, 0], [8192, 3]] as [number, number][] };
  const setup = { structured: true, allocation: true };
  assert.equal(
    transcript(options, setup, request(Command.BLOCK_STATUS, 9, 0, 8192)),
    "668e33ef000100050000000000000009" + "00000014" + "00000001" + "0000100000000000" + "0000200000000003",
  );
});

for (const structured of [false, true]) {
  const kind = structured ? "structured" : "simple";

  Deno.test(`what is written is read back, with ${kind} replies`, () => {
    const { host, client } = connect({ exported: { size: 4 * MiB } }, { structured });
    for (const [offset, length] of [[0, 1], [0, 512], [511, 3], [4 * MiB - 1, 1], [65535, SLOT_BYTES], [7, 3 * MiB]]) {
      const data = pattern(length, offset);
      assert.equal(client.do(Command.WRITE, offset, length, 0, data).error, 0);
      equalBytes(host.disk.read(offset, length), data);
      equalBytes(client.do(Command.READ, offset, length).data, data);
    }
    assert.equal(host.freeSlots, host.slots);
  });

  Deno.test(`offsets around 4 GiB and the last block are kept, with ${kind} replies`, () => {
    const size = 8 * GiB * 1024;
    const { host, client } = connect({ exported: { size, minimumBlock: 512 } }, { structured });
    for (const offset of [4 * GiB - 512, 4 * GiB - SLOT_BYTES - 512, 4 * GiB, size - 2 * SLOT_BYTES - 1024]) {
      const data = pattern(2 * SLOT_BYTES + 1024, offset % 1000);
      assert.equal(client.do(Command.WRITE, offset, data.length, 0, data).error, 0);
      equalBytes(host.disk.read(offset, data.length), data);
      equalBytes(client.do(Command.READ, offset, data.length).data, data);
    }
    const last = pattern(512, 3);
    assert.equal(client.do(Command.WRITE, size - 512, 512, 0, last).error, 0);
    equalBytes(client.do(Command.READ, size - 512, 512).data, last);
    assert.equal(client.do(Command.READ, size, 512).error, NbdError.EINVAL);
    assert.equal(client.do(Command.READ, size - 512, 1024).error, NbdError.EINVAL);
  });

  Deno.test(`requests of no bytes succeed and ask nothing of the disk, with ${kind} replies`, () => {
    const { host, client } = connect({}, { structured });
    for (const command of [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES]) {
      assert.equal(client.do(command, 0, 0).error, 0);
      assert.equal(client.do(command, MiB, 0).error, 0);
      const pastEnd = command === Command.WRITE || command === Command.WRITE_ZEROES ? NbdError.ENOSPC : NbdError.EINVAL;
      assert.equal(client.do(command, MiB + 1, 0).error, pastEnd);
    }
    assert.equal(host.executed.length, 0);
  });

  Deno.test(`ranges past the end are EINVAL, for writes ENOSPC, with ${kind} replies`, () => {
    const { host, client } = connect({}, { structured, allocation: structured });
    const far = [MiB, MiB - 1, 2 ** 53, 0xffffffffffffffffn, 0x8000000000000000n];
    for (const offset of far as number[]) {
      for (const command of [Command.READ, Command.TRIM, Command.CACHE, Command.BLOCK_STATUS]) {
        assert.equal(client.do(command, offset, 2).error, NbdError.EINVAL);
      }
      assert.equal(client.do(Command.WRITE_ZEROES, offset, 2).error, NbdError.ENOSPC);
      assert.equal(client.do(Command.WRITE, offset, 2, 0, fromHex("0102")).error, NbdError.ENOSPC);
    }
    assert.equal(client.do(Command.TRIM, 1, 0xffffffff).error, NbdError.EINVAL);
    assert.equal(host.executed.length, 0);
    assert.equal(client.do(Command.READ, 0, 1).error, 0);
  });

  Deno.test(`a READ of 32 MiB is served, a longer one and a longer WRITE are EINVAL, with ${kind} replies`, () => {
    const size = 64 * MiB;
    const { host, client } = connect({ exported: { size }, seed: 5 }, { structured });
    const data = pattern(1000, 1);
    host.disk.write(32 * MiB - 1000, data);
    equalBytes(client.do(Command.READ, 0, 32 * MiB).data.subarray(32 * MiB - 1000), data);
    assert.equal(client.do(Command.READ, 0, 32 * MiB + 1).error, NbdError.EINVAL);
    const before = host.executed.length;
    const tooLong = new Uint8Array(32 * MiB + 1);
    assert.equal(client.do(Command.WRITE, 0, tooLong.length, 0, tooLong).error, NbdError.EINVAL);
    assert.equal(host.executed.length, before);
    assert.equal(client.do(Command.WRITE_ZEROES, 0, size).error, 0);
  });

  Deno.test(`a single slot serves requests of many parts, with ${kind} replies`, () => {
    for (const seed of [undefined, 1, 2]) {
      const { host, client } = connect({ exported: { size: 4 * MiB }, slots: 1, seed }, { structured });
      const data = pattern(10 * SLOT_BYTES + 77, 9);
      const asked = concat(client.askWrite(3, data), client.ask(Command.FLUSH, 0, 0));
      host.feed(concat(asked, client.ask(Command.READ, 3, data.length), client.ask(Command.READ, 4, 1)));
      const answers = client.answers();
      equalBytes(answers.get(3)!.data, data);
      assert.equal(host.freeSlots, 1);
    }
  });

  Deno.test(`the first failed part fails a long WRITE, once, with ${kind} replies`, () => {
    const fault: TestHostOptions["fault"] = (asked) =>
      asked.operation === Operation.WRITE && asked.offset >= SLOT_BYTES ? (asked.offset > SLOT_BYTES ? -5 : -28) : 0;
    for (const seed of [undefined, 1, 2, 3]) {
      const { host, client } = connect({ fault, slots: 3, seed }, { structured });
      const data = pattern(6 * SLOT_BYTES, 2);
      const { error } = client.do(Command.WRITE, 0, data.length, 0, data);
      assert([NbdError.ENOSPC, NbdError.EIO].includes(error as never));
      if (seed === undefined) assert.equal(error, NbdError.ENOSPC);
      equalBytes(client.do(Command.READ, 0, 512).data, data.subarray(0, 512));
      assert.equal(host.freeSlots, host.slots);
    }
  });

  Deno.test(`errors of the disk reach their request, with ${kind} replies`, () => {
    let errno = 0;
    const { client } = connect({ fault: () => -errno }, { structured, allocation: structured });
    const commands = [Command.READ, Command.WRITE, Command.FLUSH, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES];
    if (structured) commands.push(Command.BLOCK_STATUS as never);
    for (
      const [status, error] of [[5, NbdError.EIO], [28, NbdError.ENOSPC], [30, NbdError.EPERM], [110, NbdError.EIO]]
    ) {
      errno = status;
      for (const command of commands) {
        const length = command === Command.FLUSH ? 0 : 4;
        const payload = command === Command.WRITE ? new Uint8Array(4) : undefined;
        const answer = client.do(command, 0, length, 0, payload);
        assert.equal(answer.error, error);
        assert.equal(answer.message.length > 0, structured);
      }
    }
  });

  Deno.test(`DISC answers what is under way and then closes, with ${kind} replies`, () => {
    for (const seed of [1, 2, 3, 4]) {
      const { host, client } = connect({ slots: 2, seed }, { structured });
      const data = pattern(3 * SLOT_BYTES, seed);
      const asked = concat(client.askWrite(0, data), client.ask(Command.FLUSH, 0, 0), client.ask(Command.READ, 0, 9));
      host.feed(concat(asked, request(Command.DISC, 0, 0, 0), request(Command.READ, 77, 0, 1)));
      assert(host.closed && !host.cut);
      assert.equal(client.answers().size, 3);
      assert.equal(host.freeSlots, host.slots);
    }
  });

  Deno.test(`random requests fed in any pieces leave the disk and the answers as they should be, ${kind}`, () => {
    for (const seed of [101, 102, 103]) checkRandomRequests(seed, structured);
  });
}

/** Random requests on disjoint ranges (their order is free), in rounds; against a copy of the disk. */
function checkRandomRequests(seed: number, structured: boolean): void {
  const random = randomFrom(seed);
  const pick = (limit: number): number => Math.floor(random() * limit);
  const size = 2 * MiB;
  const { host, client } = connect({ exported: { size }, slots: 1 + pick(5), seed }, { structured });
  const copy = new Uint8Array(size);
  for (let round = 0; round < 12; round++) {
    const stream: Uint8Array[] = [];
    const expected: (Uint8Array | null)[] = [];
    let from = pick(1000);
    while (from < size - 1) {
      const length = Math.min(size - from, 1 + pick(random() < 0.3 ? 6 * SLOT_BYTES : 5000));
      if (random() < 0.5) {
        const data = pattern(length, pick(1e6));
        stream.push(client.askWrite(from, data));
        copy.set(data, from);
        expected.push(null);
      } else {
        stream.push(client.ask(Command.READ, from, length));
        expected.push(copy.slice(from, from + length));
      }
      from += length + pick(200000);
    }
    host.feed(concat(...stream), [0, 1000, size * 2, 65599][round % 4]);
    const answers = [...client.answers()].sort(([a], [b]) => a - b);
    assert.equal(answers.length, expected.length, `seed ${seed}`);
    answers.forEach(([, answer], index) => {
      assert.equal(answer.error, 0, `seed ${seed}`);
      const data = expected[index];
      if (data !== null) equalBytes(answer.data, data);
    });
  }
  equalBytes(host.disk.read(0, size), copy);
  assert.equal(host.freeSlots, host.slots);
}

Deno.test("requests fed byte by byte are the same as whole", () => {
  for (const structured of [false, true]) {
    const outputs = [1, 3, 1 << 30].map((piece) => {
      const { host, client } = connect({ slots: 2 }, { structured });
      const data = pattern(SLOT_BYTES + 700, 4);
      const asked = concat(client.askWrite(100, data), client.ask(Command.READ, 100, data.length));
      host.feed(concat(asked, client.ask(99, 0, 5), client.ask(Command.READ, 0, 1)), piece);
      return toHex(host.takeOutput());
    });
    assert.equal(outputs[1], outputs[0]);
    assert.equal(outputs[2], outputs[0]);
  }
});

Deno.test("a last part shorter than a header, and one of exactly a header, arrive", () => {
  const { host, client } = connect();
  for (const tail of [1, 511, 512, 513, 1024]) {
    const data = pattern(2 * SLOT_BYTES + tail, tail);
    assert.equal(client.do(Command.WRITE, tail, data.length, 0, data).error, 0);
    equalBytes(host.disk.read(tail, data.length), data);
  }
});

Deno.test("a wrong request magic closes the connection, also behind good requests", () => {
  const { host, client } = connect();
  host.feed(concat(client.ask(Command.READ, 0, 1), new Uint8Array(28)));
  assert.equal(client.answers().size, 1);
  assert(host.closed);
});

Deno.test("unknown commands and flags are EINVAL and the connection goes on", () => {
  const { client } = connect({}, { structured: true });
  for (const command of [8, 9, 255, 0xffff]) assert.equal(client.do(command, 0, 5).error, NbdError.EINVAL);
  const cases: [command: number, flags: number][] = [
    [Command.READ, CommandFlag.NO_HOLE],
    [Command.READ, CommandFlag.REQ_ONE],
    [Command.READ, 0x8000],
    [Command.FLUSH, CommandFlag.DF],
    [Command.TRIM, CommandFlag.NO_HOLE],
    [Command.CACHE, CommandFlag.FAST_ZERO],
    [Command.WRITE_ZEROES, CommandFlag.DF],
    [Command.BLOCK_STATUS, CommandFlag.NO_HOLE],
  ];
  for (const [command, flags] of cases) assert.equal(client.do(command, 0, 0, flags).error, NbdError.EINVAL);
  assert.equal(client.do(Command.WRITE, 0, 3, CommandFlag.DF, fromHex("010203")).error, NbdError.EINVAL);
  assert.equal(client.do(Command.READ, 0, 3).error, 0);
});

Deno.test("DF without structured replies, and FAST_ZERO where it is not offered, are EINVAL", () => {
  const { client } = connect({ exported: { fastZero: false } });
  assert.equal(client.do(Command.READ, 0, 1, CommandFlag.DF).error, NbdError.EINVAL);
  assert.equal(client.do(Command.WRITE_ZEROES, 0, 1, CommandFlag.FAST_ZERO).error, NbdError.EINVAL);
});

Deno.test("FUA is taken with every command, and reaches the disk where something is written", () => {
  const { host, client } = connect({}, { structured: true, allocation: true });
  const { FUA } = CommandFlag;
  for (const command of [Command.READ, Command.CACHE, Command.BLOCK_STATUS, Command.TRIM, Command.WRITE_ZEROES]) {
    assert.equal(client.do(command, 0, 512, FUA).error, 0);
  }
  assert.equal(client.do(Command.FLUSH, 0, 0, FUA).error, 0);
  const data = new Uint8Array(2 * SLOT_BYTES);
  assert.equal(client.do(Command.WRITE, 0, data.length, FUA, data).error, 0);
  const flags = host.executed.map((asked) => [asked.operation, asked.flags]);
  assert.deepEqual(flags, [
    [Operation.READ, 0],
    [Operation.CACHE, 0],
    [Operation.BLOCK_STATUS, 0],
    [Operation.DISCARD, RequestFlag.FUA],
    [Operation.WRITE_ZEROES, RequestFlag.FUA],
    [Operation.FLUSH, 0],
    [Operation.WRITE, RequestFlag.FUA],
    [Operation.WRITE, RequestFlag.FUA],
  ]);
});

Deno.test("NO_HOLE and FAST_ZERO reach the disk, and ENOTSUP comes back only for FAST_ZERO", () => {
  const { host, client } = connect({ fault: () => -95 });
  const flags = CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO;
  assert.equal(client.do(Command.WRITE_ZEROES, 0, 512, flags).error, NbdError.ENOTSUP);
  assert.equal(client.do(Command.WRITE_ZEROES, 0, 512, CommandFlag.NO_HOLE).error, NbdError.EINVAL);
  assert.deepEqual(host.executed.map((asked) => asked.flags), [
    RequestFlag.NO_UNMAP | RequestFlag.FAST_ZERO,
    RequestFlag.NO_UNMAP,
  ]);
});

Deno.test("a FLUSH with a range is EINVAL", () => {
  const { host, client } = connect();
  assert.equal(client.do(Command.FLUSH, 0, 1).error, NbdError.EINVAL);
  assert.equal(client.do(Command.FLUSH, 1, 0).error, NbdError.EINVAL);
  assert.equal(host.executed.length, 0);
});

Deno.test("a read-only export answers EPERM to whatever writes, and takes the payload", () => {
  const { host, client } = connect({ exported: { readOnly: true } });
  const data = pattern(3 * SLOT_BYTES, 1);
  assert.equal(client.do(Command.WRITE, 0, data.length, 0, data).error, NbdError.EPERM);
  assert.equal(client.do(Command.WRITE, 0, 0).error, NbdError.EPERM);
  assert.equal(client.do(Command.TRIM, 0, 512).error, NbdError.EPERM);
  assert.equal(client.do(Command.WRITE_ZEROES, 0, 512).error, NbdError.EPERM);
  assert.equal(host.executed.length, 0);
  assert.equal(client.do(Command.READ, 0, 512).error, 0);
  assert.equal(client.do(Command.FLUSH, 0, 0).error, 0);
});

Deno.test("TRIM of an export that cannot is EINVAL", () => {
  const { client } = connect({ exported: { canTrim: false } });
  assert.equal(client.do(Command.TRIM, 0, 512).error, NbdError.EINVAL);
});

Deno.test("ranges that are not whole blocks are EINVAL", () => {
  const { host, client } = connect({ exported: { minimumBlock: 4096 } }, { structured: true, allocation: true });
  for (const command of [Command.READ, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES, Command.BLOCK_STATUS]) {
    assert.equal(client.do(command, 512, 4096).error, NbdError.EINVAL);
    assert.equal(client.do(command, 4096, 512).error, NbdError.EINVAL);
  }
  assert.equal(client.do(Command.WRITE, 1, 4096, 0, new Uint8Array(4096)).error, NbdError.EINVAL);
  assert.equal(host.executed.length, 0);
  assert.equal(client.do(Command.READ, 4096, 4096).error, 0);
});

Deno.test("DF keeps a READ in one chunk, up to a slot; longer is EOVERFLOW", () => {
  const { host, client } = connect({}, { structured: true });
  assert.equal(client.do(Command.READ, 1, SLOT_BYTES, CommandFlag.DF).chunks, 1);
  const answer = client.do(Command.READ, 1, SLOT_BYTES + 1, CommandFlag.DF);
  assert.deepEqual([answer.error, answer.chunks], [NbdError.EOVERFLOW, 0]);
  assert.equal(client.do(Command.READ, 1, SLOT_BYTES + 1).chunks, 2);
  assert.equal(host.executed.length, 3);
});

Deno.test("failed parts of a structured READ are told with their offset, the others come with data", () => {
  const fault: TestHostOptions["fault"] = (asked) => asked.offset === SLOT_BYTES + 5 ? -5 : 0;
  for (const seed of [undefined, 1, 2, 3]) {
    const { host, client } = connect({ fault, slots: 2, seed }, { structured: true });
    const data = pattern(4 * SLOT_BYTES, 6);
    host.disk.write(5, data);
    const answer = client.do(Command.READ, 5, data.length);
    assert.deepEqual([answer.error, answer.errorOffset, answer.chunks], [NbdError.EIO, SLOT_BYTES + 5, 3]);
    equalBytes(answer.data.subarray(2 * SLOT_BYTES), data.subarray(2 * SLOT_BYTES));
    assert.equal(client.do(Command.READ, SLOT_BYTES + 5, 1).errorOffset, null);
    assert.equal(host.freeSlots, host.slots);
  }
});

Deno.test("a simple READ whose first part fails is an error, and the connection goes on", () => {
  const fault: TestHostOptions["fault"] = (asked) => asked.offset < SLOT_BYTES ? -5 : 0;
  for (const slots of [1, 2, 4, 9]) {
    for (const seed of [undefined, 1, 2, 3]) {
      const { host, client } = connect({ fault, slots, seed });
      host.feed(concat(client.ask(Command.READ, 0, 7 * SLOT_BYTES), client.ask(Command.READ, SLOT_BYTES, 9)));
      const answers = client.answers();
      assert.deepEqual([answers.get(1)!.error, answers.get(2)!.error], [NbdError.EIO, 0]);
      assert.equal(host.freeSlots, host.slots);
    }
  }
});

Deno.test("a simple READ that fails after its header was sent cuts the connection", () => {
  const fault: TestHostOptions["fault"] = (asked) => asked.offset >= 2 * SLOT_BYTES ? -5 : 0;
  for (const slots of [1, 2, 4, 9]) {
    for (const seed of [undefined, 1, 2, 3]) {
      const { host, client } = connect({ fault, slots, seed });
      host.feed(concat(client.ask(Command.READ, 0, 7 * SLOT_BYTES), client.ask(Command.READ, 0, 9)));
      assert(host.cut);
      host.hangUp();
    }
  }
});

Deno.test("BLOCK_STATUS needs a context of this export", () => {
  const without = connect({}, { structured: true });
  assert.equal(without.client.do(Command.BLOCK_STATUS, 0, 512).error, NbdError.EINVAL);
  const simple = connect();
  assert.equal(simple.client.do(Command.BLOCK_STATUS, 0, 512).error, NbdError.EINVAL);
});

Deno.test("BLOCK_STATUS answers descriptors, one if so asked", () => {
  const extents: [number, number][] = [[4096, 3], [4096, 3], [8192, 0], [4096, 1]];
  const { client } = connect({ extents }, { structured: true, allocation: true });
  assert.deepEqual(client.do(Command.BLOCK_STATUS, 0, 20480).descriptors, [[8192, 3], [8192, 0], [4096, 1]]);
  assert.deepEqual(client.do(Command.BLOCK_STATUS, 0, 100).descriptors, [[8192, 3]]);
  assert.deepEqual(client.do(Command.BLOCK_STATUS, 0, 20480, CommandFlag.REQ_ONE).descriptors, [[8192, 3]]);
  assert.deepEqual(client.do(Command.BLOCK_STATUS, 0, 100, CommandFlag.REQ_ONE).descriptors, [[100, 3]]);
  assert.deepEqual(client.do(Command.BLOCK_STATUS, MiB - 512, 512).descriptors, [[512, 3]]);
  assert.equal(client.do(Command.BLOCK_STATUS, 0, 0).error, NbdError.EINVAL);
});

Deno.test("BLOCK_STATUS of a disk that says nothing is EIO", () => {
  const { client } = connect({ extents: [[0, 3]] }, { structured: true, allocation: true });
  assert.equal(client.do(Command.BLOCK_STATUS, 0, 512).error, NbdError.EIO);
});

Deno.test("a client that takes no answers is made to wait, and then everything is answered", () => {
  for (const structured of [false, true]) {
    const { host, client } = connect({ slots: 3, seed: 8 }, { structured });
    host.peerStalls = true;
    for (let i = 0; i < 5; i++) host.feed(client.ask(Command.READ, i, 5 * SLOT_BYTES));
    assert(host.hasInput);
    assert.equal(host.freeSlots, 0);
    host.peerStalls = false;
    host.run();
    assert.equal(client.answers().size, 5);
    assert.equal(host.freeSlots, host.slots);
  }
});

Deno.test("a server that shuts down answers ESHUTDOWN to new requests", () => {
  const { host, client } = connect();
  host.server.shutDown();
  assert.equal(client.do(Command.READ, 0, 1).error, NbdError.ESHUTDOWN);
  assert.equal(client.do(Command.WRITE, 0, 3, 0, new Uint8Array(3)).error, NbdError.ESHUTDOWN);
  host.feed(request(Command.DISC, 0, 0, 0));
  assert(host.closed);
});

Deno.test("whenever the client hangs up, every slot comes back", () => {
  for (const structured of [false, true]) {
    for (let seed = 1; seed <= 60; seed++) {
      const random = randomFrom(seed);
      const { host, client } = connect({ slots: 3, seed }, { structured });
      host.peerStalls = random() < 0.5;
      const data = pattern(5 * SLOT_BYTES, seed);
      const asked = [client.ask(Command.READ, 0, data.length), client.askWrite(0, data), client.askWrite(MiB, data)];
      const stream = concat(...asked.sort(() => random() - 0.5));
      host.feedWithoutCompleting(stream.subarray(0, Math.floor(random() * stream.length)));
      host.hangUp();
    }
  }
});
