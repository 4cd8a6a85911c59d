/**
 * The data path makes no garbage, at neither end: a million I/Os between a session and its lane leave nothing for V8 to
 * collect. They lie beyond 4 GiB, and are so many that the keys change among them; a copy of each write is kept until it is
 * flushed.
 *
 * @module
 */
import assert from "node:assert/strict";
import { availableCiphers, type CryptoChoice } from "../../engine/cryptography.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";

const PROGRAM = new URL("./garbage_program.ts", import.meta.url).pathname;
/** I/Os before those that count: V8 optimizes the data path anew several times at first. */
const WARM_UP_IOS = 200_000;
const IOS = 1_000_000;
/** Collections that the program asks for before the I/Os that count, and again after them. */
const GROUP = 4;
/**
 * What the heap may grow by: the smallest object takes 12 bytes, so this is one for every fourth I/O. The keys that change
 * leave about a megabyte, most of it what V8 keeps of code that runs for the first time.
 */
const GROWTH_MB_MAX = 3;

const AVAILABLE = availableCiphers("auto");
const RUNS: readonly { loop: string; crypto: CryptoChoice; cipher: number; digest: number; keyed: boolean }[] = [
  { loop: "uring", crypto: "wasm", cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE, keyed: true },
  { loop: "poll", crypto: "auto", cipher: Cipher.AES_256_GCM, digest: Digest.NONE, keyed: true },
  { loop: "uring", crypto: "wasm", cipher: Cipher.NONE, digest: Digest.XXH64, keyed: false },
];

for (const { loop, crypto, cipher, digest, keyed } of RUNS) {
  Deno.test({
    name: `${loop}, ${crypto}, cipher ${cipher}, digest ${digest}: a million I/Os leave no garbage at either end`,
    ignore: cipher !== Cipher.NONE && !AVAILABLE.includes(cipher),
    async fn() {
      const args = [loop, crypto, cipher, digest, keyed, WARM_UP_IOS, IOS].map(String);
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "-A", "--v8-flags=--trace-gc,--expose-gc", PROGRAM, ...args],
        env: { NO_COLOR: "1" },
        stdin: "null",
      }).output();
      const output = new TextDecoder().decode(stdout);
      assert.ok(success, new TextDecoder().decode(stderr));
      const collections = output.split("\n").filter((line) => /ms: (Scavenge|Mark-Compact)/.test(line));
      const asked = collections.flatMap((line, i) => /testing; GC/.test(line) ? [i] : []);
      assert.equal(asked.length, 2 * GROUP, output);
      const between = collections.slice(asked[GROUP - 1] + 1, asked[GROUP]);
      assert.deepEqual(between, [], `collections during ${IOS} I/Os`);
      const [, after] = heapOf(collections[asked[GROUP - 1]]);
      const [before] = heapOf(collections[asked[GROUP]]);
      assert.ok(before - after <= GROWTH_MB_MAX, `the heap grew from ${after} to ${before} MB`);
    },
  });
}

/** The megabytes in use before and after a collection. */
function heapOf(line: string): [number, number] {
  const [, before, after] = /(?:Scavenge|Mark-Compact)[^0-9]*([\d.]+) \([\d.]+\) -> ([\d.]+) /.exec(line)!;
  return [Number(before), Number(after)];
}
