import assert from "node:assert/strict";
import { Command, NbdError } from "../../protocol/nbd/wire.ts";
import { findProgram } from "../packages.ts";
import { CLIENT_FLAGS } from "./client.ts";
import { type NbdTarget, Place } from "./place.ts";
import { RawClient, RefusedError } from "./raw_client.ts";
import {
  clientTest,
  fail,
  fioVerifies,
  type MapEntry,
  mapOf,
  QemuIo,
  qemuIo,
  qemuIoFails,
  run,
  succeed,
} from "./tools.ts";

const MIB = 1024 * 1024;
const LOOPS = ["uring", "poll"] as const;
/** Clients that come and vanish. */
const ROUNDS = 200;
/** Clients that can be in transmission at once: the slots of the exporter's Worker suffice for 62. */
const CLIENTS_OF_EXPORTER = 55;
/** And those of an attachment for 32. */
const CLIENTS_OF_ATTACHMENT = 30;

/** How often a client is refused at most before others must have gone, and how long it waits then. */
const REFUSALS_MAX = 1000;
const REFUSED_WAIT_MS = 10;

/**
 * A client that is refused as long as those that vanished still hold memory: what they began must end first, for their
 * memory is in use until then.
 */
async function connectPatiently(target: NbdTarget): Promise<RawClient> {
  for (let refusals = 0; refusals < REFUSALS_MAX; refusals++) {
    try {
      return await RawClient.connect(target, "disk");
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, REFUSED_WAIT_MS));
    }
  }
  throw new Error("the server has no memory any more");
}

/** A client comes, begins much, and is gone. */
async function vanish(target: NbdTarget, round: number): Promise<void> {
  if (round % 10 === 0) {
    const connection = await target.connect();
    await connection.write(CLIENT_FLAGS.subarray(0, 1 + round % 4));
    connection.close();
    return;
  }
  const client = await connectPatiently(target);
  const begun = (async () => {
    for (let i = 0; i < round % 70; i++) await client.ask(Command.READ, i * MIB / 2, MIB / 2);
    await client.ask(Command.WRITE, 32 * MIB, 4 * MIB, new Uint8Array(round % 7 * 100_000));
  })().catch(() => {});
  // As it takes no replies, the server may stop taking requests: then it goes while it is still asking.
  await new Promise((resolve) => setTimeout(resolve, round % 8));
  client.close();
  await begun;
}

/** Many of them, while others work, on a disk of 64 MiB. */
async function vanishMany(target: NbdTarget, clientsAtOnce: number): Promise<void> {
  const uri = target.uri("disk");
  const verified = run("fio", ...fioVerifies(uri, 2, 8), "--loops=8");
  // Both its jobs are connected when each has written into its 8 MiB.
  const isWritten = (map: MapEntry[], at: number) =>
    map.some(({ type, offset, length }) => type === 0 && offset < at + 8 * MIB && offset + length > at);
  let ended = false;
  verified.then(() => ended = true);
  for (let map: MapEntry[] = []; !ended && !(isWritten(map, 0) && isWritten(map, 8 * MIB));) map = await mapOf(uri);
  for (let round = 0; round < ROUNDS; round += 4) {
    await Promise.all([0, 1, 2, 3].map((i) => vanish(target, round + i)));
  }
  const { code, stdout, stderr } = await verified;
  assert.equal(code, 0, stdout + stderr);
  for (let i = 0; i < 5; i++) {
    const killed = new QemuIo(uri);
    await killed.do("aio_write -P 1 16M 16M", /qemu-io>/);
    await killed.kill();
  }
  // Were a slot lost each time, there would be none left; now there is room for as many as ever.
  const clients = [];
  for (let i = 0; i < clientsAtOnce; i++) clients.push(await connectPatiently(target));
  for (const client of clients) assert.equal(await client.do(Command.FLUSH, 0, 0), 0);
  for (const client of clients) client.close();
  await qemuIo(uri, "write -P 9 0 1M", "read -P 9 0 1M");
}

for (const loop of LOOPS) {
  const nbd = loop === "uring" ? "unix" : "tcp";

  clientTest(
    `clients that vanish in the middle disturb nobody and leave nothing behind: ${loop}`,
    () =>
      Place.use(async (place) => {
        const exporter = await place.exporter(nbd, "disk=mem:64M", "--loop", loop);
        await vanishMany(exporter, CLIENTS_OF_EXPORTER);
      }),
  );

  clientTest(`clients that vanish leave nothing behind in an attachment: ${loop}`, () =>
    Place.use(async (place) => {
      const exporter = await place.exporter("unix", "disk=mem:64M", "--loop", loop);
      const attachment = await place.attachment(nbd, exporter, "disk", "--loop", loop);
      await vanishMany(attachment, CLIENTS_OF_ATTACHMENT);
    }));

  clientTest(`a client that does not take its replies holds nobody up: ${loop}`, () =>
    Place.use(async (place) => {
      const exporter = await place.exporter("tcp", "disk=mem:64M", "--loop", loop);
      const stalled = await RawClient.connect(exporter, "disk");
      for (let i = 0; i < 64; i++) await stalled.ask(Command.READ, 0, 32 * MIB);
      await succeed("fio", ...fioVerifies(exporter.uri("disk"), 2, 16));
      stalled.close();
    }));
}

clientTest("a read-only export is read and not written", () =>
  Place.use(async (place) => {
    const path = place.image("disk.img", 8);
    const exporter = await place.exporter("unix", path, "--read-only");
    const uri = exporter.uri("disk.img");
    const { exports: [shown] } = JSON.parse(await succeed("nbdinfo", "--json", uri));
    assert.equal(shown.is_read_only, true);
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", path, uri);
    await fail(/read-only|not permitted/i, "nbdcopy", path, uri);
    await qemuIoFails(/Permission denied/, uri, "write 0 4k");
    const client = await RawClient.connect(exporter, "disk.img");
    assert.equal(await client.do(Command.WRITE, 0, 512, new Uint8Array(512)), NbdError.EPERM);
    for (const command of [Command.TRIM, Command.WRITE_ZEROES]) {
      assert.equal(await client.do(command, 0, 4096), NbdError.EPERM);
    }
    assert.equal(await client.do(Command.FLUSH, 0, 0), 0);
    client.close();
  }));

clientTest("an unknown export, an empty name and the list of several", () =>
  Place.use(async (place) => {
    const exporter = await place.exporter("unix", "a=mem:1M", "b c/ü=mem:2M");
    const { exports } = JSON.parse(await succeed("nbdinfo", "--list", "--json", exporter.uri("")));
    assert.deepEqual(
      exports.map((one: Record<string, unknown>) => [one["export-name"], one["export-size"]]),
      [["a", MIB], ["b c/ü", 2 * MIB]],
    );
    assert.equal(await succeed("nbdinfo", "--size", exporter.uri(encodeURIComponent("b c/ü"))), `${2 * MIB}\n`);
    await fail(/No such file or directory/, "nbdinfo", exporter.uri("c"));
    // There is no default among several.
    await fail(/No such file or directory/, "nbdinfo", exporter.uri(""));
    await place.exporter("unix", "single=mem:3M").then(async (other) => {
      assert.equal(await succeed("nbdinfo", "--size", other.uri("")), `${3 * MIB}\n`);
    });
  }));

clientTest("errors of the disk reach the client that asked, and nobody else", () =>
  Place.use(async (place) => {
    const one = (what: string) => place.exporter("unix", "disk=mem:8M", "--layer", `error:${what}`);
    const reads = await one("read,offset=1M,length=4K");
    await qemuIo(reads.uri("disk"), "write -P 1 0 8M", "read -P 1 0 1M");
    await qemuIoFails(/read failed: Input\/output error/, reads.uri("disk"), "read 1M 4k");
    await qemuIoFails(/read failed: Input\/output error/, reads.uri("disk"), "read 0 8M");
    await fail(/Input\/output error/, "nbdcopy", reads.uri("disk"), "null:");
    await qemuIo(reads.uri("disk"), "read -P 1 1028k 1M");
    const writes = await one("write,offset=1M,length=4K,errno=ENOSPC");
    await qemuIoFails(/write failed: No space left on device/, writes.uri("disk"), "write 0 8M");
    await qemuIo(writes.uri("disk"), "write -P 2 2M 1M", "read -P 2 2M 1M");
    const flushes = await one("flush,count=1");
    // qemu-io does not say more than that it failed.
    await qemuIoFails(/wrote 4096\/4096/, flushes.uri("disk"), "write -P 3 0 4k", "flush");
    const client = await RawClient.connect(flushes, "disk");
    assert.equal(await client.do(Command.FLUSH, 0, 0), 0);
    client.close();
    const status = await one("block-status");
    await fail(/Input\/output error/, "nbdinfo", "--map", status.uri("disk"));
    await qemuIo(status.uri("disk"), "write -P 4 0 4k", "read -P 4 0 4k");
  }));

const mountable = Deno.uid() === 0 && findProgram("mount") !== null;
clientTest(
  "a full disk is ENOSPC at the client",
  () =>
    Place.use(async (place) => {
      const folder = `${place.folder}/small`;
      Deno.mkdirSync(folder);
      await succeed("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder);
      try {
        Deno.writeFileSync(`${folder}/disk.img`, new Uint8Array(0));
        Deno.truncateSync(`${folder}/disk.img`, 32 * MIB);
        const exporter = await place.exporter("unix", `${folder}/disk.img`);
        const uri = exporter.uri("disk.img");
        await qemuIoFails(/write failed: No space left on device/, uri, "write -P 1 0 16M");
        await fail(/No space left on device/, "nbdcopy", place.image("image", 32), uri);
        // What is given back can be used again.
        await qemuIo(uri, "discard 0 32M", "write -P 2 20M 1M", "read -P 2 20M 1M");
        assert.equal((await exporter.daemon.stop()).code, 0);
      } finally {
        await succeed("umount", folder);
      }
    }),
  mountable ? null : "it needs root and mount(8)",
);

clientTest(
  "a flush of one client saves what another has written, and FUA saves itself",
  () =>
    Place.use(async (place) => {
      const path = place.file("disk", "disk.img", 8);
      const serve = () => place.exporter("unix", path, "--layer", "volatile:8M");
      let exporter = await serve();
      let writer = new QemuIo(exporter.uri("disk.img"));
      await writer.do("write -P 1 0 64k", /wrote 65536\/65536/);
      await writer.do("write -f -P 2 1M 64k", /wrote 65536\/65536/);
      await Place.kill(exporter);
      await writer.kill();
      // Nobody had asked for the first one to be kept.
      exporter = await serve();
      await qemuIo(exporter.uri("disk.img"), "read -P 0 0 64k", "read -P 2 1M 64k");

      writer = new QemuIo(exporter.uri("disk.img"));
      await writer.do("write -P 3 0 64k", /wrote 65536\/65536/);
      const other = new QemuIo(exporter.uri("disk.img"));
      await other.do("read -P 3 0 64k", /read 65536\/65536/);
      await other.do("flush", /qemu-io> /);
      await other.do("read 0 512", /read 512\/512/);
      await Place.kill(exporter);
      await writer.kill();
      await other.kill();
      exporter = await serve();
      await qemuIo(exporter.uri("disk.img"), "read -P 3 0 64k");
    }),
);

clientTest("an exporter that is told to end while clients work ends well", () =>
  Place.use(async (place) => {
    for (const loop of LOOPS) {
      const path = place.file("disk", "disk.img", 32);
      const exporter = await place.exporter("unix", path, "--loop", loop);
      const uri = exporter.uri("disk.img");
      const idle = new QemuIo(uri);
      await idle.do("write -P 5 31M 64k", /wrote 65536\/65536/);
      const busy = run("fio", ...fioVerifies(uri, 2, 8), "--time_based", "--runtime=30");
      let ended = false;
      busy.then(() => ended = true);
      while (!ended && (await mapOf(uri)).length < 3);
      const { code, stderr } = await exporter.daemon.stop();
      assert.equal(code, 0, stderr);
      assert.notEqual((await busy).code, 0);
      await idle.kill();
      await succeed("qemu-io", "-r", "-f", "raw", "-c", "read -P 5 31M 64k", path);
    }
  }));

clientTest(
  "an exporter that is told to end does not wait for ever for a client that takes no replies",
  () =>
    Place.use(async (place) => {
      const exporter = await place.exporter("tcp", "disk=mem:64M");
      const stalled = await RawClient.connect(exporter, "disk");
      for (let i = 0; i < 64; i++) await stalled.ask(Command.READ, 0, 32 * MIB);
      const { code, stderr } = await exporter.daemon.stop();
      assert.equal(code, 0, stderr);
      stalled.close();
    }),
);
