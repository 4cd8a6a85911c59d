/**
 * What every NBD client must be able to do with every disk, however it is served.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Random } from "../../engine/random.ts";
import { Command, NbdError } from "../../protocol/nbd/wire.ts";
import type { NbdTarget, Place } from "./place.ts";
import { RawClient } from "./raw_client.ts";
import { fail, fioVerifies, mapOf, qemuIo, qemuIoFails, succeed } from "./tools.ts";

const MIB = 1024 * 1024;
/** The size of the disk in mebibytes. */
export const DISK_MIB = 48;
const DISK_BYTES = DISK_MIB * MIB;
/** The disk's name. */
export const DISK = "disk";

/** Commands of qemu-io in {@link randomCommands}. */
const COMMANDS = 250;
const SECTOR_BYTES = 512;
/** The random commands work on so much, at both ends of the disk, so that they meet often. */
const SECTORS = 2048;

/** Writes, zeroes and discards at random, and reads that know what must be there. */
function randomCommands(random: Random, base: number): string[] {
  const sectors = new Int16Array(SECTORS).fill(-1);
  const commands: string[] = [];
  while (commands.length < COMMANDS) {
    const from = random.below(SECTORS);
    const count = 1 + random.below(Math.min(SECTORS - from, random.next() < 0.8 ? 32 : 1024));
    const range = `${base + from * SECTOR_BYTES} ${count * SECTOR_BYTES}`;
    const kind = random.next();
    if (kind < 0.4) {
      const pattern = 1 + random.below(255);
      commands.push(`write ${random.next() < 0.2 ? "-f " : ""}-P ${pattern} ${range}`);
      sectors.fill(pattern, from, from + count);
    } else if (kind < 0.55) {
      commands.push(`write -z ${random.next() < 0.5 ? "-u " : ""}${range}`);
      sectors.fill(0, from, from + count);
    } else if (kind < 0.65) {
      // NBD leaves open what a trimmed range reads as.
      commands.push(`discard ${range}`);
      sectors.fill(-1, from, from + count);
    } else if (sectors[from] >= 0) {
      let end = from;
      while (end < SECTORS && sectors[end] === sectors[from]) end++;
      commands.push(`read -P ${sectors[from]} ${base + from * SECTOR_BYTES} ${(end - from) * SECTOR_BYTES}`);
    }
  }
  return commands;
}

/**
 * Runs them all, on an empty disk.
 *
 * @param path the file that the disk is, where it is one
 */
export async function basics(t: Deno.TestContext, place: Place, target: NbdTarget, path: string | null): Promise<void> {
  const uri = target.uri(DISK);
  const image = place.image("image", DISK_MIB);

  await t.step("nbdinfo shows the disk and what it can do", async () => {
    const { exports: [shown] } = JSON.parse(await succeed("nbdinfo", "--json", uri));
    assert.equal(shown["export-name"], DISK);
    assert.equal(shown["export-size"], DISK_BYTES);
    assert.equal(shown.is_read_only, false);
    assert.deepEqual(shown.contexts, ["base:allocation"]);
    for (const ability of ["cache", "df", "flush", "fua", "multi_conn", "trim", "zero", "fast_zero"]) {
      assert.equal(shown[`can_${ability}`], true, ability);
    }
    assert.equal(shown.block_size_minimum, 512);
    assert.equal(shown.block_size_maximum, 32 * MIB);
    assert.deepEqual(await mapOf(uri), [{ offset: 0, length: DISK_BYTES, type: 3, description: "hole,zero" }]);
    await fail(/No such file or directory/, "nbdinfo", target.uri("nothing"));
    const { exports } = JSON.parse(await succeed("nbdinfo", "--list", "--json", target.uri("")));
    assert(exports.some((one: Record<string, unknown>) => one["export-name"] === DISK));
  });

  await t.step("nbdcopy copies to the disk and from it, on 4 connections, holes included", async () => {
    await succeed("nbdcopy", "--connections=4", "--flush", image, uri);
    const back = `${place.tmpfs}/back`;
    await succeed("nbdcopy", "--connections=4", uri, back);
    await succeed("cmp", image, back);
    if (path !== null) await succeed("cmp", image, path);
    await succeed("nbdcopy", "--connections=4", `--request-size=${32 * MIB}`, "--no-extents", uri, back);
    await succeed("cmp", image, back);
    Deno.removeSync(back);
    const holes = (await mapOf(uri)).filter(({ type }) => type === 3);
    assert(holes.length >= DISK_MIB / 2 - 1, "holes are still there");
  });

  await t.step("qemu-img converts, compares and maps", async () => {
    await qemuIo(uri, `write -P 255 0 ${32 * MIB}`);
    await succeed("qemu-img", "convert", "-n", "-W", "-f", "raw", "-O", "raw", image, uri);
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri);
    const qcow2 = `${place.tmpfs}/image.qcow2`;
    await succeed("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, qcow2);
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, qcow2);
    Deno.removeSync(qcow2);
    const map: { start: number; length: number; zero: boolean }[] = JSON.parse(
      await succeed("qemu-img", "map", "-f", "raw", "--output=json", uri),
    );
    assert.equal(map.reduce((sum, { length }) => sum + length, 0), DISK_BYTES);
    assert(map.some(({ zero }) => zero) && map.some(({ zero }) => !zero));
  });

  await t.step("qemu-io writes, reads and flushes: 32 MiB at once, single sectors, the last block", async () => {
    await qemuIo(
      uri,
      `write -P 7 ${8 * MIB} ${32 * MIB}`,
      `read -P 7 ${8 * MIB} ${32 * MIB}`,
      "write -P 3 512 1536",
      "write -f -P 4 2048 512",
      "flush",
      "read -P 3 512 1536",
      "read -P 4 2048 512",
      `write -f -P 5 ${DISK_BYTES - 512} 512`,
      `read -P 5 ${DISK_BYTES - 512} 512`,
      `write -f -P 6 ${9 * MIB + 512} ${5 * MIB}`,
      `read -P 6 ${9 * MIB + 512} ${5 * MIB}`,
      `read -P 7 ${9 * MIB} 512`,
      `read -P 7 ${14 * MIB + 512} ${26 * MIB - 512}`,
    );
  });

  await t.step("discarded and zeroed ranges read as zeroes, and the map tells which of them are holes", async () => {
    await qemuIo(
      uri,
      `write -P 1 0 ${32 * MIB}`,
      `discard ${MIB} ${MIB}`,
      `read -P 0 ${MIB} ${MIB}`,
      `write -z -u ${3 * MIB} ${MIB}`,
      `read -P 0 ${3 * MIB} ${MIB}`,
      `write -z ${5 * MIB} ${MIB}`,
      `read -P 0 ${5 * MIB} ${MIB}`,
      `read -P 1 ${6 * MIB} ${26 * MIB}`,
      `write -z ${7 * MIB + 512} 1024`,
      `read -P 0 ${7 * MIB + 512} 1024`,
      `read -P 1 ${7 * MIB} 512`,
      `read -P 1 ${7 * MIB + 1536} 512`,
    );
    const map = await mapOf(uri);
    const isHole = (at: number) => map.find(({ offset, length }) => offset <= at && at < offset + length)!.type === 3;
    assert.deepEqual([0, 1, 2, 3, 4, 5, 6].map((at) => isHole(at * MIB)), [
      false,
      true,
      false,
      true,
      false,
      false,
      false,
    ]);
  });

  await t.step("qemu-io reads what it wrote, zeroed and discarded at random", async () => {
    const seed = Number(Deno.env.get("DST_SEED") ?? Date.now() % 2 ** 31);
    const random = new Random(seed);
    for (const base of [0, DISK_BYTES - SECTORS * SECTOR_BYTES]) {
      await qemuIo(uri, ...randomCommands(random, base)).catch((error: Error) => {
        throw new Error(`replay with DST_SEED=${seed}: ${error.message}`, { cause: error });
      });
    }
  });

  await t.step("fio verifies mixed sizes at depth 32, in several jobs", async () => {
    const output = await succeed("fio", ...fioVerifies(uri, 3, DISK_MIB / 3));
    assert.match(output, /err= 0/);
  });

  await t.step("one client reads what the other has written, and both may flush", async () => {
    const writer = await RawClient.connect(target, DISK);
    const other = await RawClient.connect(target, DISK);
    const payload = crypto.getRandomValues(new Uint8Array(8192));
    assert.equal(await writer.do(Command.WRITE, 4096, payload.length, payload), 0);
    assert.equal(await other.do(Command.FLUSH, 0, 0), 0);
    assert.equal(await other.do(Command.READ, 4096, payload.length), 0);
    assert.deepEqual(await other.read(payload.length), payload);
    writer.close();
    assert.equal(await other.do(Command.FLUSH, 0, 0), 0);
    other.close();
  });

  await t.step("what is not on the disk is refused, and the client goes on", async () => {
    await qemuIoFails(/Input\/output error|out of|past/, uri, `read ${DISK_BYTES} 512`);
    const client = await RawClient.connect(target, DISK);
    const sector = new Uint8Array(512);
    for (const [offset, length] of [[DISK_BYTES, 512], [DISK_BYTES - 512, 1024], [2 ** 53, 512], [2 ** 63, 512]]) {
      assert.equal(await client.do(Command.READ, offset, length), NbdError.EINVAL);
    }
    assert.equal(await client.do(Command.READ, 1, 512), NbdError.EINVAL);
    assert.equal(await client.do(Command.READ, 0, 32 * MIB + 512), NbdError.EINVAL);
    assert.equal(await client.do(Command.WRITE, DISK_BYTES, 512, sector), NbdError.ENOSPC);
    assert.equal(await client.do(Command.TRIM, DISK_BYTES - 512, 1024), NbdError.EINVAL);
    assert.equal(await client.do(Command.WRITE, DISK_BYTES - 512, 512, sector), 0);
    client.close();
  });
}
