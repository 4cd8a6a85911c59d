import assert from "node:assert/strict";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

async function read(disk: NbdDisk, offset: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(4096);
  await disk.read(offset, bytes);
  return bytes;
}

Deno.test(
  "an export that grows or shrinks tells its clients when the exporter reloads, and loses nobody",
  Workplace.test(async (place) => {
    const path = place.file("disk.img", 4 * MIB);
    Deno.writeTextFileSync(`${place.folder}/e.toml`, '[[exports]]\npath = "disk.img"\n');
    const { daemon: exporter, address } = await place.exporter("--config", "e.toml");
    const nbd = `${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", `unix:${nbd}`, "--lanes", "2");
    await daemon.waitFor("attached");
    const old = await NbdDisk.connect(nbd);
    assert.equal(old.size, 4 * MIB);
    const reload = async (size: number) => {
      Deno.truncateSync(path, size);
      exporter.signal("SIGHUP");
      await exporter.waitFor("reloaded");
      for (;;) {
        const [{ status }] = JSON.parse((await place.run("status", "--json")).stdout).attachments;
        if (status.exportSize === size - size % 512) return status;
      }
    };

    const grown = await reload(8 * MIB + 100);
    assert.equal(grown.size, 8 * MIB);
    assert.match(grown.resized, /^the export has 8 MiB now: NBD clients that connect from now on see it$/);
    assert.match((await place.run("status")).stdout, /connected; the export has 8 MiB now/);
    assert.match((await place.run("info", `${address}/disk.img`)).stdout, /8 MiB/);
    // Both lanes take clients: of several each has some.
    const fresh = await Promise.all([0, 1, 2, 3].map(() => NbdDisk.connect(nbd)));
    for (const [index, disk] of fresh.entries()) {
      assert.equal(disk.size, 8 * MIB);
      const bytes = new Uint8Array(4096).fill(index + 1);
      await disk.write(8 * MIB - (index + 1) * 4096, bytes);
      assert.deepEqual(await read(disk, 8 * MIB - (index + 1) * 4096), bytes);
    }

    await reload(2 * MIB);
    await assert.rejects(read(fresh[0], 8 * MIB - 4096));
    await assert.rejects(fresh[0].write(2 * MIB, new Uint8Array(4096)));
    await old.write(MIB, new Uint8Array(4096).fill(7));
    await assert.rejects(read(old, 3 * MIB));
    assert.equal(Deno.statSync(path).size, 2 * MIB, "nothing is written beyond the end");
    const small = await NbdDisk.connect(nbd);
    assert.equal(small.size, 2 * MIB);
    assert.deepEqual(await read(small, MIB), new Uint8Array(4096).fill(7));
    await Promise.all([old, small, ...fresh].map((disk) => disk.close()));

    Deno.truncateSync(path, 0);
    exporter.signal("SIGHUP");
    const { reason } = await exporter.waitFor("refused");
    assert.match(String(reason), /Not reloaded, all stays as it was: Cannot export .*disk\.img: it is empty/);
  }),
);
