import assert from "node:assert/strict";
import { concat, pattern, text, unhex } from "../tests/vectors/primitives.ts";
import { ProtocolError } from "./error.ts";
import { assertNothingDone, contains, KEY, Loopback, type LoopbackOptions, OPEN } from "./handshake_support_test.ts";

/** What can be had with a key: its name, cipher and digest, and the bytes of a tag. */
const SUITES = [
  { name: "chacha20-poly1305", cipher: 1, digest: 0, tagBytes: 16 },
  { name: "aes-256-gcm", cipher: 2, digest: 0, tagBytes: 16 },
  { name: "blake2b-256", cipher: 0, digest: 3, tagBytes: 32 },
  { name: "hmac-sha256", cipher: 0, digest: 4, tagBytes: 32 },
];

/** A client that accepts nothing but the suite. */
function only({ cipher, digest }: { cipher: number; digest: number }): LoopbackOptions["client"] {
  return { ciphers: [cipher], digests: cipher === 0 ? [digest] : [] };
}

for (const suite of SUITES) {
  Deno.test(`two that have the same key agree, ask and answer, and hand over (${suite.name})`, () => {
    for (const pieceBytes of [2 ** 20, 1, 7]) {
      const loopback = new Loopback({ client: only(suite), pieceBytes });
      loopback.onReady = () => loopback.client.list("");
      loopback.start();
      assert.deepEqual(loopback.events, ["ready", "listed disk false"]);
      assert.deepEqual([loopback.client.cipher, loopback.client.digest], [suite.cipher, suite.digest]);
      assert.deepEqual(loopback.exporter.keyId, KEY.id);
      assert.equal(loopback.exporter.headerBytes, 48 + 2 * suite.tagBytes);
      loopback.client.describe("other");
      loopback.run();
      loopback.client.open(OPEN);
      loopback.run();
      assert.deepEqual(loopback.calls, ["list", "describe other", `open ${OPEN.export}`]);
      loopback.exporter.fencing(3);
      loopback.run();
      assert.deepEqual(loopback.events.splice(0).slice(2), ["refused 32", "fencing 3"]);

      const { client, exporter, clientCodec, exporterCodec } = loopback.grantOpen();
      const { cipher, digest } = suite;
      assert.deepEqual([client.cipher, client.digest, client.sent, client.received], [cipher, digest, 3, 4]);
      assert.deepEqual([exporter.cipher, exporter.digest, exporter.sent, exporter.received], [cipher, digest, 3, 3]);
      assert.deepEqual(client.keys!.send, exporter.keys!.receive);
      assert.deepEqual(client.keys!.receive, exporter.keys!.send);
      assert.notDeepEqual(client.keys!.send, client.keys!.receive);
      for (const bytes of [1, 512, 65_536]) {
        assert.ok(Loopback.passes(clientCodec, "client", exporterCodec, pattern(bytes, bytes)));
        assert.ok(Loopback.passes(exporterCodec, "exporter", clientCodec, pattern(bytes, bytes + 1)));
      }
      clientCodec.close();
      exporterCodec.close();
      loopback.close();
    }
  });
}

Deno.test("the export's name is seen on the wire without a cipher, and not with one", () => {
  for (const suite of SUITES) {
    const loopback = new Loopback({ client: only(suite) });
    loopback.onReady = () => loopback.client.open(OPEN);
    loopback.start();
    assert.deepEqual(loopback.calls, [`open ${OPEN.export}`]);
    assert.equal(contains(loopback.captured, text(OPEN.export)), suite.cipher === 0, suite.name);
    assert.equal(contains(loopback.captured, OPEN.session), suite.cipher === 0, suite.name);
    // Which key it is has to be in clear; the key never is.
    assert.ok(contains(loopback.captured, KEY.id));
    assert.ok(!contains(loopback.captured, KEY.secret.slice(0, 8)));
    loopback.close();
  }
});

Deno.test("every connection has keys of its own", () => {
  const seen = new Set<string>();
  for (let i = 0; i < 4; i++) {
    const loopback = new Loopback({ client: only(SUITES[2]) });
    loopback.onReady = () => loopback.client.open(OPEN);
    loopback.start();
    const { client, clientCodec, exporterCodec } = loopback.grantOpen();
    seen.add(client.keys!.send.join()).add(client.keys!.receive.join());
    clientCodec.close();
    exporterCodec.close();
    loopback.close();
  }
  assert.equal(seen.size, 8);
});

Deno.test("both doors say what the golden vectors say", async () => {
  const file = new URL("../tests/vectors/noise.json", import.meta.url);
  const { vectors } = JSON.parse(await Deno.readTextFile(file)) as { vectors: Record<string, string>[] };
  const keyed = vectors.filter((vector) => vector.name.startsWith("keyed hello"));
  const accepted = { "chacha20-poly1305": [1], "aes-256-gcm": [2], "blake2b-256": [0] };
  assert.equal(keyed.length, 3);
  for (const vector of keyed) {
    const bytes = (name: string) => unhex(vector[name]);
    const ciphers = accepted[vector.name.slice("keyed hello, ".length) as keyof typeof accepted];
    // The client's hello ends with the id of its key.
    const helloBytes = 16 + 56;
    const key = { id: bytes("prologue").slice(helloBytes - 16, helloBytes), secret: bytes("psk") };
    const loopback = new Loopback({
      client: { ciphers: [1, 2, 0], digests: [3, 4], key, ephemeral: bytes("client_ephemeral") },
      exporter: { ciphers },
      keys: [key],
      random: (count) => concat(bytes("exporter_ephemeral"), new Uint8Array(count - 32)),
    }).start();
    const { client, exporter } = loopback.sent;
    assert.deepEqual(concat(client[0], exporter[0]), bytes("prologue"), vector.name);
    assert.deepEqual([client[1], exporter[1]], [bytes("client_message"), bytes("exporter_message")], vector.name);
    loopback.client.open(OPEN);
    loopback.run();
    const handed = loopback.grantOpen();
    assert.deepEqual(handed.client.keys, { send: bytes("client_key"), receive: bytes("exporter_key") }, vector.name);
    handed.clientCodec.close();
    handed.exporterCodec.close();
    loopback.close();
  }
});

Deno.test("doors without a key go without a handshake", () => {
  const loopback = new Loopback({ client: { ciphers: [0], digests: [2, 1], key: null } });
  loopback.onReady = () => loopback.client.open(OPEN);
  loopback.start();
  assert.deepEqual(loopback.calls, [`open ${OPEN.export}`]);
  assert.deepEqual(loopback.randomDrawn, []);
  assert.deepEqual([loopback.exporter.keyId, loopback.exporter.claimedKeyId], [null, null]);
  const { client, exporter } = loopback.grantOpen();
  assert.deepEqual(client, { cipher: 0, digest: 2, keys: null, sent: 1, received: 1 });
  // The lane's codec has sent the answer.
  assert.deepEqual(exporter, { cipher: 0, digest: 2, keys: null, sent: 0, received: 1 });
});

Deno.test("each side can name both sides' lists when they have nothing in common", () => {
  const loopback = new Loopback({
    client: { ciphers: [2, 0], digests: [4] },
    exporter: { ciphers: [1], digests: [3, 2] },
  }).start();
  assert.deepEqual(loopback.events, [
    "failed 44 this exporter accepts none of the ciphers or none of the digests that were offered",
  ]);
  assert.deepEqual([loopback.client.acceptedCiphers, loopback.client.acceptedDigests], [[1], [3, 2]]);
  assert.deepEqual(loopback.exporter.offered, { ciphers: [2, 0], digests: [4] });
  assert.equal(loopback.exporter.error, ProtocolError.REFUSED);
  assertNothingDone(loopback, "nothing in common");
});

Deno.test("a peer without a key is told that it needs one, and what it offered is known", () => {
  const loopback = new Loopback({
    client: { ciphers: [0], digests: [2], key: null },
    exporter: { ciphers: [1], digests: [3], keyRequired: true },
  }).start();
  assert.deepEqual(loopback.events, ["failed 45 this exporter admits only peers that have a key"]);
  assert.deepEqual([loopback.client.acceptedCiphers, loopback.client.acceptedDigests], [[], []]);
  assert.deepEqual(loopback.exporter.offered, { ciphers: [0], digests: [2] });
  assertNothingDone(loopback, "no key");
});

Deno.test("what is secret is wiped: the ephemeral keys at once, the keys of the connection when a door is closed", () => {
  const zeroes = new Uint8Array(32);
  const secret = KEY.secret.slice();
  const drawn: Uint8Array[] = [];
  const loopback = new Loopback({
    random: (count) => {
      drawn.push(pattern(count, 31));
      return drawn[0];
    },
  });
  loopback.onReady = () => loopback.client.open(OPEN);
  loopback.start();
  assert.deepEqual(loopback.ephemeral, zeroes);
  assert.deepEqual(drawn, [new Uint8Array(64)]);
  const { client, exporter, clientCodec, exporterCodec } = loopback.grantOpen();
  const keys = [client.keys!.send, client.keys!.receive, exporter.keys!.send, exporter.keys!.receive];
  assert.ok(keys.every((key) => key.some((byte) => byte !== 0)));
  loopback.close();
  assert.deepEqual(keys, [zeroes, zeroes, zeroes, zeroes]);
  // The lane's codecs have their own.
  assert.ok(Loopback.passes(clientCodec, "client", exporterCodec, pattern(512, 1)));
  assert.deepEqual(KEY.secret, secret);
  loopback.close();
});

Deno.test("a key that a door or a lane has used is nowhere in memory when it is closed", () => {
  const loopback = new Loopback({ client: only(SUITES[0]) });
  loopback.onReady = () => loopback.client.open(OPEN);
  loopback.start();
  const { exporter, clientCodec, exporterCodec } = loopback.grantOpen();
  const keys = [exporter.keys!.send.slice(), exporter.keys!.receive.slice()];
  loopback.close();
  // The lane's codec works with them, which shows that they could be found.
  assert.deepEqual(keys.map((key) => Loopback.exporterHolds(key)), [true, true]);
  exporterCodec.close();
  assert.deepEqual(keys.map((key) => Loopback.exporterHolds(key)), [false, false]);
  clientCodec.close();
  assert.equal(Loopback.exporterHolds(KEY.secret), false);
});

Deno.test("a door that is closed in the middle leaves no ephemeral key behind", () => {
  for (const messages of [0, 1]) {
    const loopback = new Loopback({ keys: [] });
    if (messages > 0) loopback.start();
    loopback.close();
    assert.deepEqual(loopback.ephemeral, new Uint8Array(32));
  }
});

Deno.test("a caller's mistakes with keys are assertions", () => {
  assert.throws(() => new Loopback({ client: { ciphers: [] } }), /cipher is acceptable/);
  assert.throws(() => new Loopback({ client: { ciphers: [3] } }), /ciphers are there/);
  assert.throws(() => new Loopback({ client: { ciphers: [1], key: null } }), /ciphers are there/);
  assert.throws(() => new Loopback({ client: { ciphers: [1, 0], digests: [] } }), /digest is acceptable/);
  assert.throws(() => new Loopback({ client: { digests: [5] } }), /digests exist/);
  assert.throws(() => new Loopback({ client: { key: { id: KEY.id, secret: pattern(31, 1) } } }), /32 bytes/);
  assert.throws(() => new Loopback({ client: { key: { id: pattern(15, 1), secret: KEY.secret } } }), /its id 16/);
  assert.throws(() => new Loopback({ client: { ephemeral: pattern(31, 1) } }), /ephemeral/);
  assert.throws(() => new Loopback({ exporter: { ciphers: [3] } }), /ciphers are there/);
  const loopback = new Loopback().start();
  assert.throws(() => loopback.client.handoff(), /granted/);
  assert.throws(() => loopback.exporter.handoff(), /pending/);
  loopback.close();
});
