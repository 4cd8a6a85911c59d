import assert from "node:assert/strict";
import { CLIENT_FLAGS, meta, open, option, readOptionAnswers, text, u32 } from "../../tests/nbd/client.ts";
import { concat, fromHex, TestHost, type TestHostOptions, toHex } from "../../tests/nbd/host.ts";
import { OPTION_DATA_BYTES_MAX } from "./handshake.ts";
import { Option } from "./wire.ts";

const GREETING = "4e42444d41474943 49484156454f5054 0003";
const REPLY = "0003e889045565a9";

/** A host after greeting and client flags. */
function greeted(options: TestHostOptions = {}, flags: Uint8Array = CLIENT_FLAGS): TestHost {
  const host = new TestHost(options);
  host.feed(flags);
  host.takeOutput();
  return host;
}

/** What the server answers to some bytes. */
function replyTo(host: TestHost, bytes: Uint8Array): string {
  host.feed(bytes);
  return toHex(host.takeOutput());
}

function hex(spaced: string): string {
  return spaced.replace(/\s+/g, "");
}

function textOf(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}

Deno.test("the server greets first, with fixed newstyle and no zeroes", () => {
  const host = new TestHost();
  assert.equal(toHex(host.takeOutput()), hex(GREETING));
});

Deno.test("unknown client flags close the connection", () => {
  for (const flags of ["00000004", "80000003", "ffffffff"]) {
    const host = greeted({}, fromHex(flags));
    assert(host.closed);
  }
});

Deno.test("client flags may be any subset of those offered", () => {
  for (const flags of [0, 1, 2, 3]) assert(!greeted({}, u32(flags)).closed);
});

Deno.test("a wrong option magic closes the connection", () => {
  const host = greeted();
  host.feed(fromHex("49484156454f5055 00000003 00000000"));
  assert(host.closed);
});

Deno.test("EXPORT_NAME is answered with size and flags, and 124 zeroes unless declined", () => {
  const size = 0x1_0000_0200;
  for (const flags of [1, 3]) {
    const host = greeted({ exported: { size } }, u32(flags));
    const reply = replyTo(host, option(Option.EXPORT_NAME, text("disk")));
    // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO
    assert.equal(reply, hex("0000000100000200 0d6d") + (flags === 1 ? "00".repeat(124) : ""));
    assert(!host.closed && host.server.exported !== null);
  }
});

Deno.test("EXPORT_NAME of an unknown export closes the connection, the empty name is the default export", () => {
  const unknown = greeted();
  assert.equal(replyTo(unknown, option(Option.EXPORT_NAME, text("nothing"))), "");
  assert(unknown.closed);
  const byDefault = greeted();
  assert.notEqual(replyTo(byDefault, option(Option.EXPORT_NAME)), "");
  assert(!byDefault.closed);
});

Deno.test("a name that is no string of the specification is refused", () => {
  for (const name of [fromHex("ff"), fromHex("610062"), text("n".repeat(4097))]) {
    const host = greeted();
    host.feed(option(Option.EXPORT_NAME, name));
    assert(host.closed);
    const polite = greeted();
    polite.feed(option(Option.GO, u32(name.length), name, fromHex("0000")));
    assert.equal(readOptionAnswers(polite.takeOutput())[0].type, 0x80000003);
    assert(!polite.closed);
  }
});

Deno.test("GO answers the export's information and then ACK", () => {
  const host = greeted({ exported: { size: 4096, readOnly: true, multiConn: false } });
  const reply = replyTo(host, open(Option.GO, "disk"));
  // HAS_FLAGS, READ_ONLY, FLUSH, FUA, CACHE
  const info = `${REPLY} 00000007 00000003 0000000c 0000 0000000000001000 040f`;
  assert.equal(reply, hex(`${info} ${REPLY} 00000007 00000001 00000000`));
  assert.deepEqual(host.opens, [{ name: "disk", enter: true }]);
});

Deno.test("GO gives name, description and block sizes to whoever asks", () => {
  const host = greeted({ exported: { description: "a disk", minimumBlock: 512, preferredBlock: 5000, size: 1 << 20 } });
  host.feed(open(Option.GO, "", [3, 1, 2, 77]));
  const answers = readOptionAnswers(host.takeOutput());
  assert.deepEqual(answers.map((answer) => answer.type), [3, 3, 3, 3, 1]);
  assert.equal(textOf(answers[1].data), "\0\x01disk");
  assert.equal(textOf(answers[2].data), "\0\x02a disk");
  assert.equal(toHex(answers[3].data), hex("0003 00000200 00002000 02000000"));
});

Deno.test("the preferred block size is a power of two within the limits", () => {
  const cases = [[1, 1, 512], [4096, 512, 4096], [1, 4096, 4096], [1, 65537, 131072], [1, 1 << 30, 32 << 20]];
  for (const [minimumBlock, preferredBlock, expected] of cases) {
    const host = greeted({ exported: { minimumBlock, preferredBlock } });
    host.feed(open(Option.INFO, "disk", [3]));
    const data = readOptionAnswers(host.takeOutput())[1].data;
    assert.equal(new DataView(data.buffer).getUint32(6), expected);
  }
});

Deno.test("INFO describes without entering, GO may follow", () => {
  const host = greeted();
  host.feed(open(Option.INFO, "disk"));
  assert.equal(host.server.exported, null);
  host.feed(open(Option.GO, "disk"));
  assert.notEqual(host.server.exported, null);
  assert.deepEqual(host.opens.map((entry) => entry.enter), [false, true]);
});

Deno.test("a refused export is answered with the host's error and text, and options go on", () => {
  const host = greeted();
  host.feed(concat(open(Option.GO, "nothing"), open(Option.INFO, "held"), open(Option.GO, "disk")));
  const answers = readOptionAnswers(host.takeOutput());
  assert.deepEqual(answers.map((answer) => answer.type), [0x80000006, 0x80000002, 3, 1]);
  assert.equal(textOf(answers[0].data), 'there is no export "nothing"');
  assert.equal(textOf(answers[1].data), "held by another");
});

Deno.test("an open that is pending at the host is answered when its outcome comes", () => {
  const cases = [open(Option.GO, "disk"), open(Option.INFO, "disk"), open(Option.GO, "no"), open(Option.GO, "")];
  for (const bytes of cases) {
    const now = replyTo(greeted(), bytes);
    const host = greeted({ openPending: true });
    assert.equal(replyTo(host, bytes), now);
    assert.equal(host.opens.length, 1);
  }
  const named = greeted({ openPending: true });
  named.feed(option(Option.EXPORT_NAME, text("disk")));
  assert.notEqual(named.server.exported, null);
});

Deno.test("malformed data of INFO and GO is ERR_INVALID", () => {
  const cases = [
    "",
    "00000000",
    "00000001 61 00",
    "00000005 6469736b 0000",
    "ffffffff 6469736b 0000",
    "00000004 6469736b 0001",
    "00000004 6469736b 0000 00",
    "00000004 6469736b ffff 0000",
  ];
  for (const type of [Option.INFO, Option.GO]) {
    for (const data of cases) {
      const host = greeted();
      host.feed(option(type, fromHex(data)));
      const answers = readOptionAnswers(host.takeOutput());
      assert.deepEqual([answers.length, answers[0].type], [1, 0x80000003], data);
      assert(!host.closed);
    }
  }
});

Deno.test("LIST names every export, and takes no data", () => {
  const exports = [{ name: "a", description: "" }, { name: "bé", description: "second" }];
  const host = greeted({ exports });
  const entries = `${REPLY} 00000003 00000002 00000005 00000001 61` +
    `${REPLY} 00000003 00000002 0000000d 00000003 62c3a9 7365636f6e64`;
  assert.equal(replyTo(host, option(Option.LIST)), hex(`${entries} ${REPLY} 00000003 00000001 00000000`));
  host.feed(option(Option.LIST, text("x")));
  assert.equal(readOptionAnswers(host.takeOutput())[0].type, 0x80000003);
});

Deno.test("a list longer than the reply area arrives whole", () => {
  const exports = Array.from({ length: 500 }, (_, i) => ({ name: `export-${i}`.padEnd(300, "."), description: "d" }));
  for (const seed of [undefined, 7]) {
    const host = greeted({ exports, seed });
    host.feed(concat(option(Option.LIST), option(Option.LIST)));
    const answers = readOptionAnswers(host.takeOutput());
    assert.equal(answers.length, 2 * (exports.length + 1));
    answers.slice(0, 500).forEach((answer, i) => assert.equal(textOf(answer.data.slice(4, 304)), exports[i].name));
    assert.deepEqual([answers[500].type, answers[1001].type], [1, 1]);
  }
});

Deno.test("a client that sends options and takes no answers is made to wait", () => {
  const host = greeted();
  host.peerStalls = true;
  const bytes = option(99);
  for (let i = 0; i < 2000; i++) host.feed(bytes);
  assert(host.hasInput && !host.closed);
  host.peerStalls = false;
  host.run();
  assert(!host.hasInput);
  assert.equal(readOptionAnswers(host.takeOutput()).length, 2000);
});

Deno.test("names and descriptions are cut to what a string may be, between characters", () => {
  const host = greeted({ exports: [{ name: "é".repeat(3000), description: "x".repeat(5000) }] });
  host.feed(option(Option.LIST));
  const data = readOptionAnswers(host.takeOutput())[0].data;
  assert.equal(data.length, 4 + 4096 + 4096);
  assert.equal(textOf(data.slice(4, 4100)), "é".repeat(2048));
});

Deno.test("ABORT is acknowledged and closes, with data or without", () => {
  for (const data of [new Uint8Array(0), text("bye"), new Uint8Array(OPTION_DATA_BYTES_MAX + 1)]) {
    const host = greeted();
    assert.equal(replyTo(host, option(Option.ABORT, data)), hex(`${REPLY} 00000002 00000001 00000000`));
    assert(host.closed);
  }
});

Deno.test("STARTTLS and unknown options are ERR_UNSUP, with data or without", () => {
  const host = greeted();
  for (const type of [0, Option.STARTTLS, 4, 11, 12345, 0xffffffff]) {
    for (const data of [new Uint8Array(0), text("data")]) {
      host.feed(option(type, data));
      const [answer] = readOptionAnswers(host.takeOutput());
      assert.deepEqual([answer.option, answer.type], [type, 0x80000001]);
    }
  }
  assert(!host.closed);
});

Deno.test("data of exactly the limit is read, longer data is skipped and answered ERR_TOO_BIG", () => {
  const host = greeted();
  host.feed(option(99, new Uint8Array(OPTION_DATA_BYTES_MAX)));
  assert.equal(readOptionAnswers(host.takeOutput())[0].type, 0x80000001);
  host.feed(option(Option.GO, new Uint8Array(OPTION_DATA_BYTES_MAX + 1)), 1000);
  assert.equal(readOptionAnswers(host.takeOutput())[0].type, 0x80000009);
  host.feed(open(Option.GO, "disk"));
  assert.notEqual(host.server.exported, null);
  const named = greeted();
  named.feed(option(Option.EXPORT_NAME, new Uint8Array(OPTION_DATA_BYTES_MAX + 1)));
  assert(named.closed);
});

Deno.test("STRUCTURED_REPLY is acknowledged, shows in the flags, and takes no data", () => {
  const host = greeted();
  host.feed(option(Option.STRUCTURED_REPLY, text("x")));
  assert.equal(readOptionAnswers(host.takeOutput())[0].type, 0x80000003);
  assert.equal(replyTo(host, option(Option.STRUCTURED_REPLY)), hex(`${REPLY} 00000008 00000001 00000000`));
  host.feed(open(Option.INFO, "disk"));
  const info = readOptionAnswers(host.takeOutput())[0].data;
  assert.equal(toHex(info.slice(10)), "0ded");
});

Deno.test("TRIM and FAST_ZERO are only offered where the export has them", () => {
  const host = greeted({ exported: { canTrim: false, fastZero: false } });
  host.feed(open(Option.INFO, "disk"));
  assert.equal(toHex(readOptionAnswers(host.takeOutput())[0].data.slice(10)), "054d");
});

Deno.test("metadata options need structured replies", () => {
  const host = greeted();
  for (const type of [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT]) {
    host.feed(meta(type, "disk", "base:allocation"));
    assert.equal(readOptionAnswers(host.takeOutput())[0].type, 0x80000003);
  }
});

Deno.test("SET_META_CONTEXT selects base:allocation and nothing else", () => {
  const host = greeted();
  host.feed(option(Option.STRUCTURED_REPLY));
  host.takeOutput();
  const context = `${REPLY} 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e`;
  const ack = `${REPLY} 0000000a 00000001 00000000`;
  const set = (...queries: string[]): string => replyTo(host, meta(Option.SET_META_CONTEXT, "disk", ...queries));
  assert.equal(set("base:allocation"), hex(context + ack));
  assert.equal(set("qemu:dirty-bitmap:x", "base:allocation", "base:allocation"), hex(context + ack));
  for (const other of [[], ["base:"], ["base:other"], ["x-foo:bar"], ["nocolon"], [""]]) {
    assert.equal(set(...other), hex(ack));
  }
});

Deno.test("LIST_META_CONTEXT knows the wildcard and the empty query", () => {
  const host = greeted();
  host.feed(option(Option.STRUCTURED_REPLY));
  host.takeOutput();
  const context = `${REPLY} 00000009 00000004 00000013 00000000 626173653a616c6c6f636174696f6e`;
  const ack = `${REPLY} 00000009 00000001 00000000`;
  const list = (...queries: string[]): string => replyTo(host, meta(Option.LIST_META_CONTEXT, "disk", ...queries));
  for (const queries of [[], ["base:"], ["base:allocation"], ["x:", "base:"]]) {
    assert.equal(list(...queries), hex(context + ack));
  }
  for (const queries of [["base:other"], ["qemu:"]]) assert.equal(list(...queries), hex(ack));
});

Deno.test("malformed data of the metadata options is ERR_INVALID", () => {
  const cases = [
    "",
    "00000004 6469736b",
    "00000004 6469736b 00000001",
    "00000004 6469736b 00000001 00000005 62617365",
    "00000004 6469736b 00000000 00",
    "00000004 6469736b ffffffff 00000000",
    "00000004 6469736b 00000001 00000001 ff",
    "00000004 6469736b 00000002 00000004 00000000",
    "ffffffff 6469736b 00000000",
  ];
  for (const type of [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT]) {
    for (const data of cases) {
      const host = greeted();
      host.feed(concat(option(Option.STRUCTURED_REPLY), option(type, fromHex(data))));
      assert.deepEqual(readOptionAnswers(host.takeOutput()).map((answer) => answer.type), [1, 0x80000003], data);
    }
  }
});

Deno.test("a server that shuts down refuses options but ABORT", () => {
  const host = greeted();
  host.server.shutDown();
  host.feed(concat(open(Option.GO, "disk"), option(Option.LIST), option(99), option(Option.ABORT)));
  const types = readOptionAnswers(host.takeOutput()).map((answer) => answer.type);
  assert.deepEqual(types, [0x80000007, 0x80000007, 0x80000007, 1]);
  const named = greeted();
  named.server.shutDown();
  named.feed(option(Option.EXPORT_NAME, text("disk")));
  assert(named.closed);
});

Deno.test("the handshake is the same whole, byte by byte and in random pieces, with slow sends and pending opens", () => {
  const bytes = concat(
    CLIENT_FLAGS,
    option(Option.STARTTLS),
    option(Option.STRUCTURED_REPLY),
    option(Option.LIST),
    meta(Option.LIST_META_CONTEXT, "disk"),
    meta(Option.SET_META_CONTEXT, "disk", "base:allocation"),
    option(77, new Uint8Array(OPTION_DATA_BYTES_MAX + 700)),
    open(Option.INFO, "nothing"),
    open(Option.INFO, "disk", [0, 1, 2, 3]),
    open(Option.GO, "disk", [3]),
  );
  const whole = new TestHost();
  whole.feed(bytes);
  const expected = toHex(whole.takeOutput());
  assert.notEqual(whole.server.exported, null);
  for (const piece of [1, 2, 17, 0]) {
    for (const openPending of [false, true]) {
      const host = new TestHost({ seed: 11, openPending });
      host.feed(bytes, piece);
      assert.equal(toHex(host.takeOutput()), expected);
      assert.notEqual(host.server.exported, null);
    }
  }
});
