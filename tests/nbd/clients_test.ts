import assert from "node:assert/strict";
import { Command } from "../../protocol/nbd/wire.ts";
import { basics, DISK, DISK_MIB } from "./basics.ts";
import { Place } from "./place.ts";
import { RawClient } from "./raw_client.ts";
import { clientTest, mapOf, qemuIo, succeed } from "./tools.ts";

const GIB = 1024 ** 3;

/** Each back-end on each loop; each kind of socket with each of both. */
const EXPORTS = [
  { loop: "uring", backend: "tmpfs", nbd: "unix" },
  { loop: "uring", backend: "disk", nbd: "tcp" },
  { loop: "uring", backend: "memory", nbd: "tcp" },
  { loop: "poll", backend: "tmpfs", nbd: "tcp" },
  { loop: "poll", backend: "disk", nbd: "unix" },
  { loop: "poll", backend: "memory", nbd: "unix" },
] as const;

for (const { loop, backend, nbd } of EXPORTS) {
  clientTest(`real clients use an export: ${loop}, ${backend}, by ${nbd}`, (t) =>
    Place.use(async (place) => {
      const path = backend === "memory" ? null : place.file(backend, "disk.img", DISK_MIB);
      const disk = `${DISK}=${path ?? `mem:${DISK_MIB}M`}`;
      const exporter = await place.exporter(nbd, disk, "other=mem:1M", "--loop", loop);
      await basics(t, place, exporter, path);
    }));
}

/** The exporter's loop and back-end, and the attachment's loop and socket. */
const ATTACHMENTS = [
  { loop: "uring", backend: "disk", own: "uring", nbd: "unix" },
  { loop: "poll", backend: "tmpfs", own: "uring", nbd: "tcp" },
  { loop: "uring", backend: "memory", own: "poll", nbd: "unix" },
] as const;

for (const { loop, backend, own, nbd } of ATTACHMENTS) {
  clientTest(
    `real clients use an attached export: ${loop}, ${backend}, attached by ${own}, by ${nbd}`,
    (t) =>
      Place.use(async (place) => {
        const path = backend === "memory" ? null : place.file(backend, "disk.img", DISK_MIB);
        const disk = `${DISK}=${path ?? `mem:${DISK_MIB}M`}`;
        const exporter = await place.exporter("unix", disk, "other=mem:1M", "--loop", loop);
        const attachment = await place.attachment(nbd, exporter, DISK, "--loop", own);
        await basics(t, place, attachment, path);
      }),
  );
}

clientTest(
  "real clients use a disk of 8 TiB, directly and attached",
  () =>
    Place.use(async (place) => {
      const size = 8192 * GIB;
      for (const attached of [false, true]) {
        const exporter = await place.exporter("unix", `${DISK}=mem:8T`);
        const target = attached ? await place.attachment("unix", exporter, DISK) : exporter;
        const uri = target.uri(DISK);
        assert.equal(await succeed("nbdinfo", "--size", uri), `${size}\n`);
        const middle = 4 * GIB;
        await qemuIo(
          uri,
          `write -P 1 ${middle - 8192} 16384`,
          `write -f -P 2 ${size - 4096} 4096`,
          `read -P 1 ${middle - 8192} 16384`,
          `read -P 2 ${size - 4096} 4096`,
          "read -P 0 0 8192",
        );
        assert.deepEqual((await mapOf(uri)).map(({ offset, length, type }) => [offset, length, type]), [
          [0, middle - 8192, 3],
          [middle - 8192, 16384, 0],
          [middle + 8192, size - 4096 - (middle + 8192), 3],
          [size - 4096, 4096, 0],
        ]);
        await qemuIo(
          uri,
          `write -P 3 ${middle + GIB} 65536`,
          `discard ${middle - 4096} ${2 * GIB - 4096}`,
          `read -P 1 ${middle - 8192} 4096`,
          `read -P 0 ${middle - 4096} 12288`,
          `read -P 0 ${middle + GIB} 65536`,
          `write -P 4 ${middle} 4096`,
        );
        // As long as a length of 32 bits can be, which none of the programs asks for.
        const client = await RawClient.connect(target, DISK);
        const longest = 2 ** 32 - 512;
        for (const command of [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE]) {
          assert.equal(await client.do(command, middle - 512, longest), 0);
        }
        client.close();
        await qemuIo(
          uri,
          `read -P 1 ${middle - 8192} 4096`,
          `read -P 0 ${middle} 8192`,
          `read -P 2 ${size - 4096} 4096`,
        );
      }
    }),
);
