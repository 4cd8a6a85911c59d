/**
 * A link that breaks in every way, under load: nothing fails, nothing is read wrong, and it goes on soon.
 *
 *   workload ── NBD ──▶ dst attach ──▶ proxy ──▶ dst export (a file)
 *
 * @module
 */
import assert from "node:assert/strict";
import { Workplace } from "../cli/program.ts";
import { FaultyLink, type ProxyOrder } from "./proxy.ts";
import { Workload } from "./workload.ts";

const MIB = 1024 * 1024;
const SIZE = 32 * MIB;
/** Requests between two faults, so that each meets a lane in full swing. */
const BETWEEN = 100;
const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);

interface Fault {
  readonly name: string;
  readonly order: ProxyOrder;
  /** How long it lasts before the link is repaired, in milliseconds. */
  readonly forMs: number;
  /** How often. */
  readonly rounds: number;
  /** Options of the attachment. */
  readonly options?: readonly string[];
  /** Whether it is in the way of nobody: no connection is lost. */
  readonly isHarmless?: boolean;
}

/** A connection is soon taken for dead, so that the tests need not wait for that. */
const HASTY = ["--ping-interval", "200ms", "--dead-after", "600ms", "--resend-interval", "300ms", "--resends", "300"];

const FAULTS: readonly Fault[] = [
  { name: "cut", order: { do: "cut" }, forMs: 0, rounds: 10 },
  { name: "reset in the middle of a frame", order: { do: "reset", withinBytes: 100_000 }, forMs: 200, rounds: 10 },
  { name: "out of order for a while", order: { do: "refuse" }, forMs: 1500, rounds: 2 },
  {
    name: "stalled for less than a connection lives",
    order: { do: "stall" },
    forMs: 1500,
    rounds: 2,
    isHarmless: true,
  },
  {
    name: "stalled for longer than a connection lives",
    order: { do: "stall" },
    forMs: 2000,
    rounds: 2,
    options: HASTY,
  },
  { name: "half-open", order: { do: "halfOpen" }, forMs: 0, rounds: 3, options: HASTY },
  {
    name: "slow, at 200 kB/s",
    order: { do: "slow", bytesPerSecond: 200_000 },
    forMs: 3000,
    rounds: 1,
    options: HASTY,
    isHarmless: true,
  },
  {
    name: "100 ms long with one piece of a hundred lost",
    order: { do: "lose", delayMs: 100, lossPercent: 1 },
    forMs: 8000,
    rounds: 1,
  },
];

/** Attaches through a link, and lets a fault happen under load; what the attachment has logged. */
async function suffer(place: Workplace, fault: Fault, lanes: number, channel: readonly string[] = []): Promise<string> {
  const { name, order, forMs, rounds, options = [] } = fault;
  console.log(`SEED=${seed}`);
  place.file("disk.img", SIZE);
  const keyed = channel.filter((_, i) => channel[i] === "--key" || channel[i - 1] === "--key");
  const { address } = await place.exporter("disk.img", "--workers", "2", ...keyed);
  using link = await FaultyLink.to(address, seed);
  const nbd = `${place.folder}/nbd.sock`;
  const lane = ["--lanes", String(lanes)];
  const attached = [
    "attach",
    `127.0.0.1:${link.port}/disk.img`,
    "--nbd",
    `unix:${nbd}`,
    ...lane,
    ...options,
    ...channel,
  ];
  const daemon = place.daemon(...attached);
  await daemon.waitFor("attached");
  const load = await Workload.start(nbd, SIZE, 2 * lanes, seed);
  for (let round = 0; round < rounds; round++) {
    await load.progress(BETWEEN);
    await link.do(order);
    await new Promise((resolve) => setTimeout(resolve, forMs));
    const doneBefore = load.done;
    await link.do({ do: "pass" });
    const repairedMs = performance.now();
    await load.progress(1);
    const ms = Math.round(performance.now() - repairedMs);
    if (load.done > doneBefore) {
      console.log(
        `${name}, ${lanes} lane(s), round ${round + 1}: ${ms} ms from the restored link to the first completed I/O`,
      );
    }
  }
  await load.progress(BETWEEN);
  await load.finish();
  const { count } = await link.do({ do: "pass" });
  while (!JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status.connected);
  assert(fault.isHarmless === true ? count === lanes : count! > lanes, `${count} connections for ${lanes} lanes`);
  const { code, stderr } = await place.run("detach", `unix:${nbd}`);
  assert.equal(code, 0, stderr);
  return (await daemon.result()).stderr;
}

for (const fault of FAULTS) {
  for (const lanes of [1, 3]) {
    Deno.test(
      `a link that is ${fault.name}: ${lanes} lane(s)`,
      Workplace.test(async (place) => {
        const said = await suffer(place, fault, lanes);
        const lines = said.trimEnd().split("\n").filter((line) => line !== "");
        // Once that it went and once that it came back, and nothing else.
        for (const [i, line] of lines.entries()) {
          assert.match(line, i % 2 === 0 ? /\[warning\] .*; requests wait/ : /\[info\] .* Connected again after/, said);
        }
        assert.equal(lines.length % 2, 0, said);
        assert.equal(lines.length > 0, fault.isHarmless !== true, said);
      }),
    );
  }
}

for (const channel of [[], ["--digest", "blake2b-256"], ["--key", "test.key"]]) {
  Deno.test(
    `a link that changes bits, ${channel.join(" ") || "with the usual digest"}`,
    Workplace.test(async (place) => {
      if (channel.includes("--key")) {
        const { code, stderr } = await place.run("keygen", "test");
        assert.equal(code, 0, stderr);
      }
      const order = { do: "corrupt", everyBytes: 400_000 } as const;
      const said = await suffer(place, { name: "changes bits", order, forMs: 4000, rounds: 1 }, 2, channel);
      assert.match(said, /corrupted|out of order|not of this protocol|closed the connection|authentic/);
    }),
  );
}
