/**
 * What an attachment says and does while its exporter is out of reach, or does not let it back in.
 *
 * @module
 */
import assert from "node:assert/strict";
import { makeKey, writeKeyFile } from "../../engine/control/key_file.ts";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

/** The status of the one attachment. */
async function statusOf(place: Workplace) {
  return JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
}

Deno.test(
  "a detaching that waits for an exporter out of reach can still be forced",
  Workplace.test(async (place) => {
    place.file("disk.img", 8 * MIB);
    const { daemon: exporter, address } = await place.exporter("disk.img");
    const nbd = `unix:${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd, "--resends", "forever");
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
    await disk.write(0, new Uint8Array(4096));
    await disk.close();
    exporter.signal("SIGSTOP");
    // One of them detaches, and waits for its last flush.
    const detaching = [place.run("detach", nbd), place.run("detach", nbd)];
    const refused = await Promise.race(detaching);
    assert.deepEqual([refused.code, /is being detached already/.test(refused.stderr)], [1, true], refused.stderr);
    assert.equal((await place.run("detach", nbd, "--force")).code, 0);
    const codes = (await Promise.all(detaching)).map(({ code }) => code);
    assert.deepEqual(codes.toSorted(), [0, 1]);
    const { code, stderr } = await daemon.result();
    assert.equal(code, 0, stderr);
    assert.match(stderr, /As it was forced: the last flush failed/);
    assert.doesNotMatch(stderr, /The disk is lost/);
    exporter.signal("SIGCONT");
  }),
);

Deno.test(
  "a client whose key is taken away is told that it is kept out, and goes on when it is given back",
  Workplace.test(async (place) => {
    for (const name of ["ours", "theirs"]) writeKeyFile(`${place.folder}/${name}.key`, makeKey(name));
    place.file("disk.img", 8 * MIB);
    const configure = (...keys: string[]) => {
      const sections = keys.map((name) => `[[keys]]\nfile = "${name}.key"\n`).join("");
      Deno.writeTextFileSync(
        `${place.folder}/exporter.toml`,
        `listen = "127.0.0.1:0"\nstate_dir = "state"\n${sections}[[exports]]\npath = "disk.img"\nname = "disk"\n`,
      );
    };
    configure("ours", "theirs");
    const exporter = place.daemon("export", "--config", "exporter.toml");
    const { address } = await exporter.waitFor("listening");
    const reload = async () => {
      exporter.signal("SIGHUP");
      await exporter.waitFor("reloaded");
    };
    const nbd = `unix:${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk`, "--nbd", nbd, "--key", "ours.key", "--lanes", "2");
    await daemon.waitFor("attached");
    const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
    await disk.write(0, new Uint8Array(4096).fill(1));
    configure("theirs");
    await reload();
    const read = disk.read(0, new Uint8Array(4096));
    while (!/authentication failed/.test((await statusOf(place)).reconnecting?.reason ?? ""));
    assert.match((await place.run("status")).stdout, /reconnecting.* waiting, .*\(authentication failed: .*not known/);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    configure("ours", "theirs");
    await reload();
    await read;
    await disk.write(0, new Uint8Array(4096).fill(2));
    await disk.flush();
    await disk.close();
    while (!(await statusOf(place)).connected);
    assert.equal((await place.run("detach", nbd)).code, 0);
    const { stderr } = await daemon.result();
    const lines = stderr.trimEnd().split("\n");
    assert.equal(lines.length, 4, stderr);
    assert.match(lines[0], /The exporter is being stopped, or this client's rights have changed$/);
    assert.match(lines[1], /; requests wait until there is a connection again$/);
    assert.match(lines[2], /There is no way back in for now: authentication failed: .*; it is tried again and again$/);
    assert.match(lines[3], /Connected again after/);
  }),
);
