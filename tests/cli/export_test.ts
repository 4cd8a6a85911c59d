import assert from "node:assert/strict";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

Deno.test(
  "an exporter says where it listens, shows in the status, and ends well on each signal",
  Workplace.test(async (place) => {
    place.file("disk.img", 8 * MIB);
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const { daemon, address } = await place.exporter("disk.img", "small=mem:1M");
      assert.match(address, /^127\.0\.0\.1:\d+$/);
      const { exports } = JSON.parse((await place.run("status", "--json")).stdout);
      assert.equal(exports.length, 1);
      assert.equal(exports[0].pid, daemon.pid);
      assert.deepEqual(exports[0].listening, [{ protocol: "dst", address }]);
      const shown = exports[0].status.exports.map(({ name, size }: { name: string; size: number }) => [name, size]);
      assert.deepEqual(shown, [["disk.img", 8 * MIB], ["small", MIB]]);
      const { stdout } = await place.run("status");
      assert.match(stdout, /disk\.img +disk\.img +8 MiB +read-write .*no clients/);
      const { code, stdout: last } = await daemon.stop(signal);
      assert.equal(code, 0);
      assert.match(last, /"event":"stopped"/);
      assert.equal((await place.run("status")).stdout, "nothing is attached or exported here\n");
    }
  }),
);

Deno.test(
  "what cannot be exported is a line on standard error and exit code 1",
  Workplace.test(async (place) => {
    place.file("disk.img", MIB);
    place.file("empty.img", 0);
    const options = place.exportOptions();
    await place.fails(1, /Cannot export nothing\.img: /, "export", "nothing.img", ...options);
    await place.fails(1, /Cannot export \.: .*directory/, "export", "x=.", ...options);
    await place.fails(1, /Cannot export empty\.img: /, "export", "empty.img", ...options);
    await place.fails(1, /Cannot export \/dev\/null: /, "export", "/dev/null", ...options);
    await place.fails(1, /mem:lots/, "export", "mem:lots", ...options);
    await place.fails(1, /nonsense/, "export", "disk.img", "--layer", "nonsense", ...options);
    const state = ["--state-dir", `${place.folder}/state`];
    await place.fails(
      1,
      /Cannot listen on 192\.0\.2\.1:7700: /,
      "export",
      "disk.img",
      "--listen",
      "192.0.2.1",
      "--insecure",
      ...state,
    );
  }),
);

Deno.test(
  "a port in use and a file that is exported already are refused",
  Workplace.test(async (place) => {
    place.file("disk.img", MIB);
    const { address } = await place.exporter("disk.img");
    await place.fails(1, /already exported by another process/, "export", "disk.img", ...place.exportOptions());
    const other = ["export", "mem:1M", "--state-dir", `${place.folder}/other`];
    await place.fails(1, /Cannot listen on .*in use/, ...other, "--listen", address);
  }),
);

Deno.test(
  "an export in the background is ready when the command returns, and what stops it is the command's error",
  Workplace.test(async (place) => {
    place.file("disk.img", MIB);
    const args = ["disk.img", "--background", ...place.exportOptions()];
    const { code, stdout, stderr } = await place.run("export", ...args);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^serving disk\.img by DST on 127\.0\.0\.1:\d+\n$/);
    const { exports } = JSON.parse((await place.run("status", "--json")).stdout);
    assert.equal(exports[0].error, null);
    await place.fails(1, /already exported by another process/, "export", ...args);
    Deno.kill(exports[0].pid, "SIGTERM");
    while (JSON.parse((await place.run("status", "--json")).stdout).exports.length > 0);
    assert.deepEqual([...Deno.readDirSync(`${place.folder}/run`)].map(({ name }) => name), []);
  }),
);

Deno.test(
  "a daemon that was killed leaves no trace in the status, and its file can be exported again",
  Workplace.test(async (place) => {
    place.file("disk.img", MIB);
    const { daemon } = await place.exporter("disk.img");
    await daemon.stop("SIGKILL");
    assert.equal((await place.run("status")).stdout, "nothing is attached or exported here\n");
    await place.exporter("disk.img");
  }),
);

Deno.test(
  "a configuration file serves what it says",
  Workplace.test(async (place) => {
    place.file("disk.img", MIB);
    Deno.writeTextFileSync(
      `${place.folder}/exporter.toml`,
      'listen = "127.0.0.1:0"\nstate_dir = "state"\n' +
        '[[exports]]\npath = "disk.img"\nname = "a"\nread_only = true\n[[exports]]\npath = "mem:2M"\n',
    );
    const daemon = place.daemon("export", "--config", "exporter.toml");
    const { address } = await daemon.waitFor("listening");
    const { stdout } = await place.run("list", String(address), "--json");
    const listed = stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(listed.map(({ name, size, access }) => [name, size, access]), [
      ["a", MIB, "read-only"],
      ["mem", 2 * MIB, "read-write"],
    ]);
  }),
);

Deno.test(
  "a daemon that cannot say that it is ready ends, and leaves nothing behind",
  Workplace.test(async (place) => {
    const args = ["mem:1M", "--nbd", `unix:${place.folder}/nbd.sock`, ...place.exportOptions()];
    const { code, stderr } = await place.runInto("/dev/full", "export", ...args);
    assert.equal(code, 1);
    assert.match(stderr, /^dst: Cannot write to standard output: No space left/);
    assert.deepEqual([...Deno.readDirSync(`${place.folder}/run`)], []);
    assert.throws(() => Deno.lstatSync(`${place.folder}/nbd.sock`), Deno.errors.NotFound);
  }),
);
