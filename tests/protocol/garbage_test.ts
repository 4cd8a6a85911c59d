/**
 * The data path makes no garbage: over a million I/Os of a warmed-up exporter V8 has nothing to scavenge.
 *
 * The exporter's V8 reports every collection with its isolate and the milliseconds since that isolate began. Around the
 * I/Os that count nothing is done for a while, so that it is clear which collections fall among them.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Operation } from "../../protocol/request.ts";
import { Digest } from "../../protocol/wire.ts";
import { join, randomOf } from "./bytes.ts";
import { Session } from "./session.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
/** I/Os before those that count: V8 optimizes the data path anew several times at first. */
const WARM_UP_IOS = 300_000;
const IOS = 1_000_000;
/** V8 may optimize something anew later still, or collect what is left of the warm-up: once or twice. What an I/O leaves is
 * there in every round. */
const ROUNDS = 3;
/** Requests that are sent together; each has a slot of its own. */
const BATCH = 128;
const BLOCK = 4096;
/** Offsets beyond 4 GiB are no small integers. */
const DISK_BYTES = 6 * 1024 ** 3;
/** Where each slot has a region of its own, so that no two WRITEs in flight overlap. */
const REGIONS_AT = 5 * 1024 ** 3;
const REGION_BYTES = 1024 * 1024;
/** Longer than it takes to start an exporter's threads, so that their clocks agree to within this. */
const PAUSE_MS = 1500;

/** Collections of the young generation by isolate, from one moment of its life to another; in ms. */
function scavengesIn(trace: string, fromMs: number, untilMs: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [, isolate, ms] of trace.matchAll(/^\[\d+:(0x[0-9a-f]+)(?::\d+)?\]\s+(\d+) ms: Scavenge/gm)) {
    if (Number(ms) >= fromMs && Number(ms) <= untilMs) counts.set(isolate, (counts.get(isolate) ?? 0) + 1);
  }
  return counts;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

/** Does so many I/Os: half READs, half WRITEs of a block, at random places. */
async function drive(session: Session, ios: number, seed: number): Promise<void> {
  const { peer } = session;
  const random = randomOf(seed);
  const payload = new Uint8Array(BLOCK).fill(7);
  for (let done = 0; done < ios; done += BATCH) {
    const frames: Uint8Array[] = [];
    for (let slot = 0; slot < BATCH; slot++) {
      const isRead = slot % 2 === 0;
      const sequence = session.sequences[slot] = session.sequences[slot] + 1;
      const offset = REGIONS_AT + slot * REGION_BYTES + BLOCK * Math.floor(random() * (REGION_BYTES / BLOCK));
      frames.push(peer.next({
        type: isRead ? Operation.READ : Operation.WRITE,
        slot,
        sequence,
        offset,
        length: BLOCK,
        payload: isRead ? undefined : payload,
      }));
    }
    await Promise.all([peer.write(join(...frames)), peer.drop(BATCH)]);
  }
}

for (const [loop, digest] of [["uring", Digest.XXH64], ["poll", Digest.NONE]] as const) {
  Deno.test(`${loop}, digest ${digest}: a million I/Os leave no garbage`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "dst-garbage-" });
    const startedMs = performance.now();
    const args = ["run", "--quiet", "-A", "--v8-flags=--trace-gc", MAIN, "export", `disk=mem:${DISK_BYTES}`];
    args.push("--listen", "127.0.0.1:0", "--state-dir", folder, "--loop", loop, "--json");
    const exporter = new Deno.Command(Deno.execPath(), {
      args,
      env: { NO_COLOR: "1", DST_RUNTIME_DIR: folder },
      stdin: "null",
      stdout: "piped",
    }).spawn();
    let hasEnded = false;
    exporter.status.then(() => hasEnded = true);
    try {
      let output = "";
      const listening = Promise.withResolvers<number>();
      const reading = (async () => {
        for await (const text of exporter.stdout.pipeThrough(new TextDecoderStream())) {
          output += text;
          const address = /^\{"event":"listening".*"address":"127\.0\.0\.1:(\d+)"/m.exec(output);
          if (address !== null) listening.resolve(Number(address[1]));
        }
        listening.reject(new Error(`The exporter has ended: ${output}`));
      })();
      const port = await listening.promise;
      const options = { host: "127.0.0.1", port, cipher: 0, digest, key: null, feeding: "whole" as const, seed: 1 };
      using session = await Session.open(options, "disk", { depth: BATCH });
      await drive(session, WARM_UP_IOS, 1);
      await pause();
      const rounds: string[] = [];
      do {
        const fromMs = performance.now() - startedMs - PAUSE_MS / 2;
        await drive(session, IOS, 2);
        const untilMs = performance.now() - startedMs;
        await pause();
        const scavenges = scavengesIn(output, fromMs, untilMs);
        rounds.push([...scavenges].map(([isolate, count]) => `${count} in isolate ${isolate}`).join(", "));
      } while (rounds.at(-1) !== "" && rounds.length < ROUNDS);
      session.peer.close();
      exporter.kill("SIGTERM");
      await Promise.all([reading, exporter.status]);
      assert.match(output, /ms: Scavenge/, "collections are reported");
      assert.equal(rounds.at(-1), "", `scavenges during ${IOS} I/Os: ${rounds.join("; ")}`);
    } finally {
      if (!hasEnded) exporter.kill("SIGKILL");
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
