import { basics, DISK, DISK_MIB } from "./basics.ts";
import { Place } from "./place.ts";
import { clientTest } from "./tools.ts";

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
