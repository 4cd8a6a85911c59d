import assert from "node:assert/strict";
import { Command, NbdError } from "../../protocol/nbd/wire.ts";
import { Place } from "./place.ts";
import { RawClient } from "./raw_client.ts";
import { clientTest, fail, QemuIo, qemuIo, qemuIoFails, succeed } from "./tools.ts";

clientTest("errors of the remote disk reach the client as what they are", () =>
  Place.use(async (place) => {
    const attach = async (what: string) => {
      const exporter = await place.exporter("unix", "disk=mem:8M", "--layer", `error:${what}`);
      return await place.attachment("unix", exporter, "disk");
    };
    const reads = await attach("read,offset=1M,length=4K");
    await qemuIo(reads.uri("disk"), "write -P 1 0 8M", "read -P 1 0 1M");
    await qemuIoFails(/read failed: Input\/output error/, reads.uri("disk"), "read 1M 4k");
    await qemuIoFails(/read failed: Input\/output error/, reads.uri("disk"), "read 0 8M");
    await fail(/Input\/output error/, "nbdcopy", reads.uri("disk"), "null:");
    await qemuIo(reads.uri("disk"), "read -P 1 1028k 1M");
    const writes = await attach("write,offset=1M,length=4K,errno=ENOSPC");
    await qemuIoFails(/write failed: No space left on device/, writes.uri("disk"), "write 0 8M");
    await qemuIo(writes.uri("disk"), "write -P 2 2M 1M", "read -P 2 2M 1M");
    const flushes = await attach("flush,count=1");
    const client = await RawClient.connect(flushes, "disk");
    assert.equal(await client.do(Command.FLUSH, 0, 0), NbdError.EIO);
    client.close();
    const status = await attach("block-status");
    await fail(/Input\/output error/, "nbdinfo", "--map", status.uri("disk"));
  }));

clientTest("a read-only attachment is read and not written, also beside a writer", () =>
  Place.use(async (place) => {
    const path = place.image("disk.img", 8);
    const exporter = await place.exporter("unix", path);
    const writer = await place.attachment("unix", exporter, "disk.img");
    const reader = await place.attachment("unix", exporter, "disk.img", "--read-only");
    const uri = reader.uri("disk.img");
    const { exports: [shown] } = JSON.parse(await succeed("nbdinfo", "--json", uri));
    assert.equal(shown.is_read_only, true);
    await succeed("qemu-img", "compare", "-f", "raw", "-F", "raw", path, uri);
    await qemuIoFails(/Permission denied/, uri, "write 0 4k");
    const client = await RawClient.connect(reader, "disk.img");
    assert.equal(await client.do(Command.WRITE, 0, 512, new Uint8Array(512)), NbdError.EPERM);
    client.close();
    await qemuIo(writer.uri("disk.img"), "write -P 6 1M 64k");
    await succeed("qemu-io", "-r", "-f", "raw", "-c", "read -P 6 1M 64k", uri);
  }));

clientTest("NBD clients of the exporter and an attachment exclude each other", () =>
  Place.use(async (place) => {
    const exporter = await place.exporter("unix", "disk=mem:8M");
    const uri = exporter.uri("disk");
    const client = new QemuIo(uri);
    await client.do("read 0 512", /read 512\/512/);
    await assert.rejects(place.attachment("unix", exporter, "disk"), /NBD clients/);
    await client.kill();
    await qemuIo(uri, "write -P 1 0 512");
    const attachment = await place.attachment("unix", exporter, "disk");
    await fail(new RegExp(`held by|${Deno.hostname()}`), "qemu-io", "-f", "raw", "-c", "read 0 512", uri);
    await qemuIo(attachment.uri("disk"), "read -P 1 0 512");
    assert.equal((await attachment.daemon.stop()).code, 0);
    await qemuIo(uri, "read -P 1 0 512");
  }));

clientTest(
  "a flush through an attachment saves what another client has written, and FUA saves itself",
  () =>
    Place.use(async (place) => {
      const path = place.file("disk", "disk.img", 8);
      const serve = () => place.exporter("unix", path, "--layer", "volatile:8M");
      let exporter = await serve();
      const attachment = await place.attachment("unix", exporter, "disk.img");
      const writer = new QemuIo(attachment.uri("disk.img"));
      await writer.do("write -P 1 0 64k", /wrote 65536\/65536/);
      const other = new QemuIo(attachment.uri("disk.img"));
      await other.do("read -P 1 0 64k", /read 65536\/65536/);
      await other.do("flush", /qemu-io> /);
      await other.do("write -P 2 2M 64k", /wrote 65536\/65536/);
      await other.do("write -f -P 3 1M 64k", /wrote 65536\/65536/);
      await Place.kill(exporter);
      await writer.kill();
      await other.kill();
      exporter = await serve();
      await qemuIo(exporter.uri("disk.img"), "read -P 1 0 64k", "read -P 3 1M 64k", "read -P 0 2M 64k");
    }),
);
