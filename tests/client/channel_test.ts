/**
 *   engine of the test ── key, cipher, digest ──▶ exporter that has the key (or not)
 *
 * @module
 */
import assert from "node:assert/strict";
import { listExports } from "../../client/query.ts";
import { copy } from "../../client/copy.ts";
import { bench } from "../../client/bench.ts";
import { LaneThreads } from "../../client/lane_threads.ts";
import { resolveTarget } from "../../client/open.ts";
import { cipherName, digestName, suitesOf } from "../../engine/control/algorithms.ts";
import { Operation, RequestFlag } from "../../engine/block.ts";
import { type Key, makeKey } from "../../engine/control/key_file.ts";
import { availableCiphers, type CryptoChoice } from "../../engine/cryptography.ts";
import { SLOT_PAYLOAD_BYTES } from "../../engine/slots.ts";
import { openLocal } from "../../exporter/local.ts";
import {
  exportOf,
  type LoopName,
  MIB,
  pattern,
  startTestExporter,
  TestClient,
  testEachLoop,
  type TestExporter,
  type TestOpen,
} from "./fixture.ts";

/** What two sides with a key may agree on, and who can do it. */
interface Suite {
  readonly cipher: string;
  readonly digest: string;
  readonly crypto: CryptoChoice;
}

const SUITES: readonly Suite[] = [
  { cipher: "chacha20-poly1305", digest: "none", crypto: "wasm" },
  { cipher: "chacha20-poly1305", digest: "none", crypto: "openssl" },
  { cipher: "aes-256-gcm", digest: "none", crypto: "openssl" },
  { cipher: "none", digest: "blake2b-256", crypto: "wasm" },
  { cipher: "none", digest: "hmac-sha256", crypto: "wasm" },
  { cipher: "none", digest: "hmac-sha256", crypto: "openssl" },
];

const hasOpenSsl = isThere(() => availableCiphers("openssl"));

function isThere(look: () => unknown): boolean {
  try {
    look();
    return true;
  } catch {
    return false;
  }
}

/** A copy, as every process that reads the key file has one: whoever is given a key wipes it. */
function copyOf({ name, id, secret }: Key): Key {
  return { name, id: id.slice(), secret: secret.slice() };
}

/** An exporter with one key, or without. */
function exporterOf(
  loop: LoopName,
  key: Key | null,
  more: { ciphers?: readonly string[]; digests?: readonly string[]; crypto?: CryptoChoice; workers?: number } = {},
): Promise<TestExporter> {
  const keys = key === null ? [] : [{ key: copyOf(key), allow: null }];
  const { crypto = "auto", digests = ["blake2b-256", "hmac-sha256", "xxh64"] } = more;
  const { ciphers = ["chacha20-poly1305", "aes-256-gcm", "none"] } = more;
  // What the machine has, as the command does.
  const suites = suitesOf(ciphers, digests, key !== null, availableCiphers(crypto));
  const options = { ...more, crypto, keys, ciphers: suites.ciphers };
  return startTestExporter(loop, [exportOf("disk", "mem:16M")], digests, options);
}

/** Opens what cannot be opened; gives the reason. */
async function refusal(loop: LoopName, exporter: TestExporter, options: TestOpen): Promise<string> {
  await using client = new TestClient(loop, "auto");
  let reason = "";
  await assert.rejects(client.open(exporter, options), (error: Error) => {
    reason = error.message;
    return true;
  });
  for (const secret of [options.key?.secret.toHex(), options.key?.secret.toBase64()]) {
    if (secret !== undefined) assert(!reason.includes(secret));
  }
  return reason;
}

for (const { cipher, digest, crypto } of SUITES) {
  const needsOpenSsl = crypto === "openssl" && !hasOpenSsl;
  const what = `${cipher === "none" ? digest : cipher} by ${crypto}${needsOpenSsl ? " (needs OpenSSL 3)" : ""}`;
  testEachLoop(`what is written with ${what} is read back, whatever its size`, async (loop) => {
    const key = makeKey("a-test");
    await using exporter = await exporterOf(loop, key, { crypto });
    await using client = new TestClient(loop, crypto);
    const digests = cipher === "none" ? [digest] : ["blake2b-256"];
    await client.open(exporter, { key, ciphers: [cipher], digests });
    assert.deepEqual([cipherName(client.cipher), digestName(client.digest)], [cipher, digest]);
    for (const bytes of [512, 4096, 64 * 1024, 64 * 1024 + 512, SLOT_PAYLOAD_BYTES - 512, SLOT_PAYLOAD_BYTES]) {
      assert.equal(await client.write(MIB - 512, pattern(bytes, bytes), RequestFlag.FUA), 0);
      assert.deepEqual(await client.read(MIB - 512, bytes), pattern(bytes, bytes));
    }
    // Many at a time, more than there is room to encrypt in.
    const each = 256 * 1024;
    for (let i = 0; i < 48; i++) {
      client.payload(i, each).set(pattern(each, i));
      client.begin(i, Operation.WRITE, i * each, each);
    }
    await client.until(() => client.session!.inFlight === 0);
    for (let i = 0; i < 48; i++) {
      assert.deepEqual(client.payload(i, each), pattern(each, i), "the plaintext stays as it was");
      client.begin(i, Operation.READ, (47 - i) * each, each);
    }
    await client.until(() => client.session!.inFlight === 0);
    for (let i = 0; i < 48; i++) assert.deepEqual(client.payload(i, each), pattern(each, 47 - i));
    assert.equal(await client.leave(), true);
  }, needsOpenSsl);
}

testEachLoop("the first of the client's ciphers that the exporter accepts is taken", async (loop) => {
  const key = makeKey("a-test");
  await using exporter = await exporterOf(loop, key, { ciphers: ["none", "chacha20-poly1305"] });
  for (const ciphers of [["chacha20-poly1305", "none"], ["none", "chacha20-poly1305"]]) {
    await using client = new TestClient(loop, "auto");
    await client.open(exporter, { key, ciphers, digests: ["hmac-sha256"] });
    assert.equal(cipherName(client.cipher), ciphers[0]);
    await client.leave();
  }
});

testEachLoop("lists, copies and measurements go with a key too, and wipe it", async (loop) => {
  const key = makeKey("a-test");
  await using exporter = await exporterOf(loop, key);
  const { host, port } = exporter;
  const channel = { ciphers: ["chacha20-poly1305"], digests: ["blake2b-256"], crypto: "auto" as const, loop };
  const names = (await listExports(host, port, { ...channel, key: copyOf(key) })).map(({ name }) => name);
  assert.deepEqual(names, ["disk"]);
  const remote = { kind: "remote", host, port, name: "disk" } as const;
  const folder = Deno.makeTempDirSync({ prefix: "dst-channel-" });
  const path = { kind: "path", path: `${folder}/disk.img` } as const;
  Deno.writeFileSync(path.path, pattern(16 * MIB, 7));
  for (const [from, to] of [[path, remote], [remote, path]]) {
    const options = {
      ...channel,
      key: copyOf(key),
      depth: 16,
      holder: "a test",
      verify: true,
      onProgress: null,
      signal: new AbortController().signal,
    };
    assert.equal((await copy(from, to, options, openLocal)).size, 16 * MIB);
    assert.deepEqual(options.key.secret, new Uint8Array(32));
  }
  assert.deepEqual(Deno.readFileSync(path.path), pattern(16 * MIB, 7));
  Deno.removeSync(folder, { recursive: true });
  const options = { ...channel, ...remote, key: copyOf(key), depth: 1, holder: "a test", seconds: 0.05, write: false };
  const rows: string[] = [];
  await bench(options, ({ cipher, digest, crypto }) => rows.push(`${cipher} ${digest} ${crypto}`));
  assert.match(rows[0], /^chacha20-poly1305 none (wasm|openssl)$/);
  assert.deepEqual(options.key.secret, new Uint8Array(32));
});

testEachLoop("each lane has its own handshake, and they carry one session", async (loop) => {
  const key = makeKey("a-test");
  await using exporter = await exporterOf(loop, key, { workers: 2 });
  const channel = { ciphers: ["chacha20-poly1305"], digests: ["blake2b-256"], key: copyOf(key) };
  const target = await resolveTarget(exporter, channel);
  const open = { target, name: "disk", readOnly: false, steal: false, depth: 16, holder: "a test" };
  const options = { open, lookUp: null, lanes: 3, frontend: "nbd", loop, crypto: "auto" } as const;
  const threads = await LaneThreads.open(options, new AbortController().signal);
  assert.equal(threads.count, 3);
  assert.equal(cipherName(threads.shape.cipher), "chacha20-poly1305");
  const [session] = (await exporter.running.status()).exports[0].sessions;
  assert.deepEqual([session.lanes, session.key, session.cipher], [3, "a-test", "chacha20-poly1305"]);
  await threads.ask(2, { ask: "flush" });
  await threads.leave();
});

testEachLoop("an unknown key, a wrong secret and none at all are each refused in a line that helps", async (loop) => {
  const key = makeKey("backup");
  const ciphers = ["chacha20-poly1305"];
  await using exporter = await exporterOf(loop, key);
  const where = `127.0.0.1:${exporter.port}`;
  const stranger = makeKey("stranger");
  for (const other of [stranger, { ...key, secret: stranger.secret }]) {
    assert.equal(
      await refusal(loop, exporter, { key: other, ciphers }),
      `authentication failed: ${where} ended the connection during the handshake: the key ${other.name} (id ` +
        `${other.id.toHex().slice(0, 8)}...) is not known there, or is not the same, or does not admit this address ` +
        "(see --key)",
    );
  }
  assert.equal(
    await refusal(loop, exporter, {}),
    `${where} admits nobody without a key: give it with --key FILE (dst keygen makes one, for both sides)`,
  );
  await using client = new TestClient(loop, "auto");
  await client.open(exporter, { key, ciphers });
});

testEachLoop(
  "an exporter without a key, or with other ciphers or digests, is refused with both lists",
  async (loop) => {
    const key = makeKey("backup");
    const ciphers = ["chacha20-poly1305"];
    await using open = await exporterOf(loop, null, { ciphers: ["none"] });
    assert.equal(
      await refusal(loop, open, { key, ciphers }),
      `there is no cipher in common: 127.0.0.1:${open.port} accepts none, this side chacha20-poly1305 (was the exporter ` +
        "started without --key? see --cipher)",
    );
    await using digesting = await exporterOf(loop, key, { ciphers: ["none"], digests: ["hmac-sha256"] });
    assert.equal(
      await refusal(loop, digesting, { key, ciphers: ["none"], digests: ["blake2b-256"] }),
      `there is no digest in common: 127.0.0.1:${digesting.port} accepts hmac-sha256, this side blake2b-256 (see --digest)`,
    );
    await using sealing = await exporterOf(loop, key, { ciphers: ["chacha20-poly1305"] });
    assert.equal(
      await refusal(loop, sealing, { key, ciphers: ["none"], digests: ["blake2b-256"] }),
      `there is no cipher in common: 127.0.0.1:${sealing.port} accepts chacha20-poly1305, this side none (see --cipher)`,
    );
  },
);

testEachLoop("whoever answers without having the key is found out, and hears nothing more", async (loop) => {
  // The answer to a hello: one cipher (chacha20-poly1305, 1), one digest (none, 0), STATUS 0; then random bytes.
  const answer = new Uint8Array(16 + 3 * 16 + 48);
  const view = new DataView(answer.buffer);
  answer.set(new TextEncoder().encode("DSTREPLY"));
  view.setUint16(8, 1, true);
  view.setUint32(12, 48, true);
  for (const [i, [type, bytes, value]] of [[1, 2, 1], [2, 2, 0], [4, 4, 0]].entries()) {
    view.setUint16(16 + 16 * i, type, true);
    view.setUint32(20 + 16 * i, bytes, true);
    view.setUint16(24 + 16 * i, value, true);
  }
  crypto.getRandomValues(answer.subarray(64));
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let heard = 0;
  const served = listener.accept().then(async (connection) => {
    const buffer = new Uint8Array(1024);
    await connection.read(buffer);
    await connection.write(answer);
    for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) {
      heard += count;
    }
    connection.close();
  });
  await using client = new TestClient(loop, "auto");
  const { port } = listener.addr;
  const key = makeKey("backup");
  await assert.rejects(
    client.open({ host: "127.0.0.1", port }, { key, ciphers: ["chacha20-poly1305"] }),
    /^Error: authentication failed: what answers on 127\.0\.0\.1:\d+ does not have the key backup \(id [0-9a-f]{8}\.\.\.\)/,
  );
  await served;
  assert.equal(heard, 48, "its own message of the handshake");
  listener.close();
});
