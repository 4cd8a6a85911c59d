import assert from "node:assert/strict";
import { FRAMES, REKEY_FRAMES, seal, SUITES } from "../vectors/frames.ts";
import { concat, hex, pattern, unhex } from "../vectors/primitives.ts";
import { Direction, NoiseClient, NoiseExporter } from "./channel.ts";
import { HEADER } from "./bytes.ts";

type Vector = Record<string, string | number>;

/** The vectors of a file, as they are committed. */
async function read(name: string): Promise<Vector[]> {
  return JSON.parse(await Deno.readTextFile(new URL(`../vectors/${name}`, import.meta.url))).vectors;
}

Deno.test("the peers' handshake is that of the vectors, from both sides", async () => {
  for (const vector of await read("noise.json")) {
    const bytes = (name: string) => unhex(String(vector[name]));
    const client = new NoiseClient(bytes("prologue"), bytes("psk"), bytes("client_ephemeral"));
    const exporter = new NoiseExporter(bytes("prologue"), bytes("psk"), bytes("exporter_ephemeral"));
    const first = client.message();
    assert.equal(hex(first), vector.client_message);
    assert.ok(exporter.take(first));
    const { message, keys } = exporter.answer();
    assert.equal(hex(message), vector.exporter_message);
    assert.deepEqual(client.finish(message), keys);
    assert.deepEqual([hex(keys.client), hex(keys.exporter)], [vector.client_key, vector.exporter_key]);
  }
});

Deno.test("a peer's handshake ends at another key, another prologue, and any byte that changed", () => {
  const prologue = pattern(100, 1);
  const secret = pattern(32, 2);
  const first = () => new NoiseClient(prologue, secret).message();
  assert.ok(new NoiseExporter(prologue, secret).take(first()));
  assert.ok(!new NoiseExporter(prologue, pattern(32, 3)).take(first()));
  assert.ok(!new NoiseExporter(pattern(100, 4), secret).take(first()));
  for (const at of [0, 31, 32, 47]) {
    const message = first();
    message[at] ^= 0x80;
    assert.ok(!new NoiseExporter(prologue, secret).take(message), `byte ${at} of the first message`);
    const client = new NoiseClient(prologue, secret);
    const exporter = new NoiseExporter(prologue, secret);
    assert.ok(exporter.take(client.message()));
    const answer = exporter.answer().message;
    answer[at] ^= 0x80;
    assert.equal(client.finish(answer), null, `byte ${at} of the second message`);
  }
});

Deno.test("the peers seal and open every frame of the vectors, under every suite", async () => {
  for (const suite of SUITES) {
    for (const vector of await read(`frames-${suite.name}.json`)) {
      const what = `${suite.name}: ${vector.name}, n = ${vector.n}`;
      const number = Number(vector.n);
      const key = suite.keyed ? unhex(String(vector.key)) : null;
      const [header, payload] = [unhex(String(vector.plain_header)), unhex(String(vector.plain_payload))];
      const sealed = new Direction(suite, key).seal(number, header, payload);
      assert.equal(hex(sealed), vector.frame, what);
      const receiver = new Direction(suite, key);
      const prefix = sealed.slice(0, HEADER + 2 * receiver.tagBytes);
      assert.deepEqual(receiver.openPrefix(number, prefix), header, what);
      assert.deepEqual(receiver.openPayload(number, prefix, sealed.slice(prefix.length)), payload, what);
      if (suite.tagBytes === 0) continue;
      for (const at of [0, HEADER, prefix.length - 1]) {
        const changed = prefix.slice();
        changed[at] ^= 1;
        assert.equal(receiver.openPrefix(number, changed), null, `${what}: byte ${at}`);
      }
      if (suite.cipher !== 0) assert.equal(receiver.openPrefix(number + 1, prefix), null, what);
      if (payload.length === 0) continue;
      const changed = sealed.slice(prefix.length);
      changed[changed.length - 1] ^= 1;
      assert.equal(receiver.openPayload(number, prefix, changed), null, what);
    }
  }
});

Deno.test("the peers change keys where the vectors do, in any order of frames", () => {
  const frame = FRAMES.find(({ name }) => name === "WRITE")!;
  for (const suite of SUITES.filter(({ keyed }) => keyed)) {
    const key = pattern(32, 5);
    const direction = new Direction(suite, key);
    const numbers = [0, REKEY_FRAMES - 1, REKEY_FRAMES, 1, 3 * REKEY_FRAMES, 2 * REKEY_FRAMES, 8 * REKEY_FRAMES];
    for (const number of numbers) {
      const { header, payloadTag, headerTag, payload } = seal(suite, key, frame, number);
      const prefix = concat(header, payloadTag, headerTag);
      assert.notEqual(direction.openPrefix(number, prefix), null, `${suite.name}, n = ${number}`);
      assert.deepEqual(direction.openPayload(number, prefix, payload), frame.payload, `${suite.name}, n = ${number}`);
    }
  }
});
