import assert from "node:assert/strict";
import { type DaemonSelf, processStartOf, RuntimeDirectory } from "../engine/control/runtime.ts";
import type { Grant } from "../protocol/grant.ts";
import { choose, hasThreads } from "./recover.ts";
import {
  grantOf,
  patienceOf,
  recordedGrant,
  recordedPatience,
  type Recovery,
  RecoveryKeeper,
} from "./recovery_record.ts";

const GRANT: Grant = {
  size: 2 ** 52,
  logicalBlock: 512,
  physicalBlock: 4096,
  optimalIo: 0,
  discardGranularity: 4096,
  access: 1,
  features: 255,
  identities: {
    instance: new Uint8Array(16).fill(1),
    durability: new Uint8Array(16).fill(2),
    storage: new Uint8Array(16).fill(0xfe),
    writeEpoch: Number.MAX_SAFE_INTEGER,
  },
  slots: 128,
  maxPayload: 1 << 20,
  payloadBytes: 2 ** 33,
  leaseMs: 0,
  lanes: 4,
};

const RECOVERY: Recovery = {
  version: 1,
  host: "server",
  port: 7700,
  name: "disk.img",
  session: "00112233445566778899aabbccddeeff",
  lanes: 2,
  generation: 1,
  grant: recordedGrant(GRANT),
  address: { family: "ipv6", host: "fe80::1", port: 7700, scopeId: 3 },
  cipher: 1,
  digest: 0,
  key: { path: "/etc/dst/backup.key", id: "0123456789abcdef0123456789abcdef" },
  ciphers: ["chacha20-poly1305"],
  digests: ["blake2b-256"],
  crypto: "auto",
  depth: 128,
  patience: { resendMs: 5000, resends: null, connectMs: 5000, pingIdleMs: 1000, deadMs: 15_000 },
  replayBytes: 65536,
  servers: [17],
  isTaking: false,
  failure: null,
};

function withDirectory(work: (runtime: RuntimeDirectory, self: DaemonSelf) => void | Promise<void>) {
  return async () => {
    const folder = Deno.makeTempDirSync();
    try {
      Deno.writeTextFileSync(`${folder}/ublkc0`, "");
      const attachment = {
        remote: "server:7700/disk.img",
        device: `${folder}/ublkb0`,
        nbd: null,
        size: 4096,
        readOnly: false,
      };
      const self = { kind: "attach" as const, id: "0", log: null, attachment, listening: [] };
      await work(RuntimeDirectory.open(`${folder}/dst`), self);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

/** Makes a record that of a process that is gone. */
async function orphan(runtime: RuntimeDirectory, id: string): Promise<void> {
  const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
  const processStart = processStartOf(child.pid)!;
  child.kill("SIGKILL");
  await child.status;
  rewrite(runtime, id, (record) => Object.assign(record, { pid: child.pid, processStart }));
}

// deno-lint-ignore no-explicit-any -- a test may spoil any part of it
function rewrite(runtime: RuntimeDirectory, id: string, change: (record: any) => void): void {
  const path = runtime.recoveryPath(id);
  const record = JSON.parse(Deno.readTextFileSync(path));
  change(record);
  Deno.writeTextFileSync(path, JSON.stringify(record));
}

Deno.test("a grant and a patience come back from a record as they were", () => {
  assert.deepEqual(grantOf(JSON.parse(JSON.stringify(recordedGrant(GRANT)))), GRANT);
  for (const resends of [1, Infinity]) {
    const patience = { resendMs: 1, resends, connectMs: 2, pingIdleMs: 3, deadMs: 4 };
    assert.deepEqual(patienceOf(JSON.parse(JSON.stringify(recordedPatience(patience)))), patience);
  }
});

Deno.test(
  "a record is its user's alone, follows its daemon, and is the next one's once the process is gone",
  withDirectory(async (runtime, self) => {
    const keeper = RecoveryKeeper.begin(runtime, self, RECOVERY);
    assert.equal(Deno.statSync(runtime.recoveryPath("0")).mode! & 0o777, 0o600);
    assert.deepEqual(runtime.waiting(), []);
    keeper.update({ failure: "all is lost" });
    assert.throws(() => RecoveryKeeper.take(runtime, "0"), new RegExp(`process ${Deno.pid} serves device 0`));
    keeper.release();
    // The lock is gone first, where a process dies slowly.
    assert.throws(() => RecoveryKeeper.take(runtime, "0"), new RegExp(`process ${Deno.pid} serves device 0`));
    await orphan(runtime, "0");
    assert.deepEqual(runtime.waiting().map(({ id }) => id), ["0"]);
    const next = RecoveryKeeper.take(runtime, "0");
    assert.throws(() => RecoveryKeeper.take(runtime, "0"), /another process serves device 0 or is taking it over/);
    assert.deepEqual(next.recovery, { ...RECOVERY, failure: "all is lost" });
    next.mustUpdate({ generation: 65_537 });
    assert.deepEqual(runtime.waiting(), []);
    next.remove();
    assert.deepEqual([...Deno.readDirSync(runtime.path)], []);
    assert.throws(() => RecoveryKeeper.take(runtime, "0"), /it was detached meanwhile/);
  }),
);

Deno.test(
  "the record of a device that is gone, or of another boot, is removed",
  withDirectory(async (runtime, self) => {
    for (
      const change of [{ bootId: "another" }, { attachment: { ...self.attachment, device: "/nonexistent/ublkb0" } }]
    ) {
      RecoveryKeeper.begin(runtime, self, RECOVERY).release();
      await orphan(runtime, "0");
      rewrite(runtime, "0", (record) => Object.assign(record, change));
      assert.deepEqual(runtime.waiting(), []);
      assert.deepEqual([...Deno.readDirSync(runtime.path)], []);
    }
  }),
);

Deno.test(
  "a record of another version, or one that makes no sense, is refused with what is wrong",
  withDirectory(async (runtime, self) => {
    const spoilt: [(recovery: Record<string, unknown>) => void, RegExp][] = [
      [(recovery) => recovery.version = 2, /has version 2, and this program knows version 1/],
      [(recovery) => recovery.session = "xyz", /makes no sense at recovery.session: 32 hexadecimal digits/],
      [(recovery) => recovery.generation = 2 ** 32, /makes no sense at recovery.generation/],
      [(recovery) => recovery.lanes = 65, /makes no sense at recovery.lanes/],
      [(recovery) => delete recovery.grant, /makes no sense at recovery.grant/],
      [(recovery) => (recovery.patience as Record<string, unknown>).deadMs = -1, /recovery.patience.deadMs/],
    ];
    for (const [spoil, message] of spoilt) {
      RecoveryKeeper.begin(runtime, self, RECOVERY).release();
      await orphan(runtime, "0");
      rewrite(runtime, "0", (record) => spoil(record.recovery));
      assert.throws(() => RecoveryKeeper.take(runtime, "0"), message);
    }
    Deno.writeTextFileSync(runtime.recoveryPath("0"), "{");
    assert.throws(() => RecoveryKeeper.take(runtime, "0"), /cannot be read/);
  }),
);

Deno.test(
  "the only one that waits need not be named; of several, and of none, that is said",
  withDirectory(async (runtime, self) => {
    assert.throws(() => choose(runtime, null), /nothing to recover/);
    assert.throws(() => choose(runtime, "0"), /"0" is not to be recovered; nothing is/);
    RecoveryKeeper.begin(runtime, self, RECOVERY).release();
    await orphan(runtime, "0");
    for (const wanted of [null, "0", self.attachment!.device]) assert.equal(choose(runtime, wanted).id, "0");
    RecoveryKeeper.begin(runtime, { ...self, id: "10" }, RECOVERY).release();
    await orphan(runtime, "10");
    assert.throws(() => choose(runtime, null), /Give its ID: 0 \(.*ublkb0, server:7700\/disk.img\), 10 \(/);
    assert.equal(choose(runtime, "10").id, "10");
    assert.throws(() => choose(runtime, "1"), /"1" is not to be recovered; there is 0 \(/);
    runtime.register({ ...self, id: "1", attachment: { ...self.attachment!, device: "/dev/ublkb1" } });
    for (const wanted of ["1", "/dev/ublkb1", "ublkb1"]) {
      assert.throws(
        () => choose(runtime, wanted),
        new RegExp(`Device 1 needs no recovery: process ${Deno.pid} serves it`),
      );
    }
  }),
);

Deno.test("a process is gone when its last thread has ended, and another one of its number is not it", async () => {
  const start = processStartOf(Deno.pid)!;
  assert(hasThreads(Deno.pid, start));
  assert(!hasThreads(Deno.pid, "1"));
  assert(!hasThreads(0x3fffffff, "1"));
  // Killed and not yet waited for: a zombie.
  const shell = new Deno.Command("sh", { args: ["-c", "sleep 60 & echo $!; exec sleep 1"], stdout: "piped" }).spawn();
  const line = await shell.stdout.getReader().read();
  const pid = Number(new TextDecoder().decode(line.value));
  const started = processStartOf(pid)!;
  assert(hasThreads(pid, started));
  Deno.kill(pid, "SIGKILL");
  while (processStartOf(pid) !== null) await new Promise((resolve) => setTimeout(resolve, 1));
  assert(!hasThreads(pid, started));
  await shell.status;
});
