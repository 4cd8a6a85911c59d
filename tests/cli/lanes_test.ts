import assert from "node:assert/strict";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Proxy } from "./proxy.ts";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

for (const loop of ["uring", "poll"]) {
  Deno.test(
    `${loop}: an attachment with several lanes serves many NBD clients, shows its lanes, and leaves without a word`,
    Workplace.test(async (place) => {
      place.file("disk.img", 64 * MIB);
      const { daemon: exporter, address } = await place.exporter("disk.img", "--workers", "2", "--loop", loop);
      const nbd = `unix:${place.folder}/nbd.sock`;
      const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd, "--lanes", "3", "--loop", loop);
      await daemon.waitFor("attached");
      const disks: NbdDisk[] = [];
      for (let i = 0; i < 8; i++) disks.push(await NbdDisk.connect(`${place.folder}/nbd.sock`));
      const block = (number: number) => new Uint8Array(MIB).fill(number);
      await Promise.all(disks.map(async (disk, i) => {
        for (let k = 0; k < 4; k++) await disk.write((4 * i + k) * MIB, block(4 * i + k + 1));
      }));
      // Each reads what another has written.
      await Promise.all(disks.map(async (disk, i) => {
        for (let k = 0; k < 4; k++) {
          const number = (4 * (i + 1) + k) % 32;
          const found = block(0);
          await disk.read(number * MIB, found);
          assert.deepEqual(found, block(number + 1));
        }
      }));
      await disks[0].flush();
      const status = JSON.parse((await place.run("status", "--json")).stdout);
      assert.equal(status.attachments[0].status.lanes, 3);
      assert.equal(status.exports[0].status.exports[0].sessions[0].lanes, 3);
      await place.fails(1, /is in use: 8 NBD clients are connected/, "detach", nbd);
      for (const disk of disks) await disk.close();
      const detached = await place.run("detach", nbd);
      assert.equal(detached.code, 0, detached.stderr);
      assert.deepEqual(await daemon.result().then(({ code, stderr }) => [code, stderr]), [0, ""]);
      const { code, stderr } = await exporter.stop();
      assert.equal(code, 0);
      // It attached and it left, once.
      assert.match(stderr, /^[^\n]* attached "disk.img" read-write\n[^\n]* left "disk.img"\n$/);
    }),
  );
}

Deno.test(
  "a lane that is lost comes back by itself, in two lines of the log; its requests wait, and the others' do not",
  Workplace.test(async (place) => {
    const { address } = await place.exporter("disk=mem:8M", "--workers", "2");
    using proxy = new Proxy(Number(address.split(":")[1]));
    const nbd = `unix:${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `127.0.0.1:${proxy.port}/disk`, "--nbd", nbd, "--lanes", "4");
    await daemon.waitFor("attached");
    assert.equal(proxy.count, 4);
    const disks = await Promise.all([1, 2, 3, 4, 5, 6].map(() => NbdDisk.connect(`${place.folder}/nbd.sock`)));
    const data = new Uint8Array(4096);
    for (const disk of disks) await disk.write(0, data.fill(1));
    await disks[0].flush();
    proxy.cut(2);
    // Whichever lane serves it.
    for (const [i, disk] of disks.entries()) {
      await disk.write(4096 * i, data.fill(i + 1));
      await disk.read(4096 * i, data);
      assert.deepEqual(data, new Uint8Array(4096).fill(i + 1));
    }
    while (proxy.count < 5) await disks[0].read(0, data);
    const status = async () => JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
    while (!(await status()).connected);
    for (const disk of disks) await disk.close();
    const detached = await place.run("detach", nbd);
    assert.equal(detached.code, 0, detached.stderr);
    const { code, stderr } = await daemon.result();
    assert.equal(code, 0, stderr);
    assert.match(
      stderr,
      /^[^\n]* \[warning\] client: The [^\n]*; requests wait [^\n]*\n[^\n]* \[info\] client: Connected again after [^\n]*\n$/,
    );
  }),
);

Deno.test(
  "a number of lanes that cannot be is a line on standard error and exit code 2",
  Workplace.test(async (place) => {
    for (const lanes of ["0", "65", "many"]) {
      await place.fails(2, /--lanes: expected a whole number from 1 to 64/, "attach", "h/disk", "--lanes", lanes);
    }
  }),
);
