import assert from "node:assert/strict";
import { makeKey, readKeyFile, writeKeyFile } from "../../engine/control/key_file.ts";
import type { DaemonChild } from "../../engine/control/child.ts";
import { Cipher, Digest } from "../../protocol/wire.ts";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { Peer } from "../protocol/peer.ts";
import { countInMemory } from "./memory.ts";
import { Workplace } from "./program.ts";

/** Makes keys of these names in the workplace: NAME.key each. */
function keys(place: Workplace, ...names: string[]): void {
  for (const name of names) writeKeyFile(`${place.folder}/${name}.key`, makeKey(name));
}

/** Writes the configuration of two memory disks, "disk" and "other". */
function configure(place: Workplace, permissions: { disk: string; other: string }, more = "", keyNames = "alice bob") {
  const sections = keyNames.split(" ").map((name) => `[[keys]]\nfile = "${name}.key"\n`);
  Deno.writeTextFileSync(
    `${place.folder}/exporter.toml`,
    `listen = "127.0.0.1:0"\nstate_dir = "state"\n${more}\n${sections.join("")}` +
      `[[exports]]\npath = "mem:4M"\nname = "disk"\npermissions = { ${permissions.disk} }\n` +
      `[[exports]]\npath = "mem:4M"\nname = "other"\npermissions = { ${permissions.other} }\n`,
  );
}

/** Starts what is configured; gives the address. */
async function exporter(place: Workplace, ...args: string[]): Promise<{ daemon: DaemonChild; address: string }> {
  const daemon = place.daemon("export", "--config", "exporter.toml", ...args);
  return { daemon, address: String((await daemon.waitFor("listening")).address) };
}

/** Sends SIGHUP and waits for what comes of it. */
async function reload(daemon: DaemonChild, event: "reloaded" | "refused"): Promise<string> {
  daemon.signal("SIGHUP");
  return String((await daemon.waitFor(event)).reason ?? "");
}

/** The sessions of the one exporter there is, as `dst status --json` has them. */
async function sessions(place: Workplace): Promise<Record<string, unknown>[]> {
  const { exports } = JSON.parse((await place.run("status", "--json")).stdout);
  return exports[0].status.exports.flatMap((one: { name: string; sessions: Record<string, unknown>[] }) =>
    one.sessions.map((session) => ({ ...session, export: one.name }))
  );
}

/** Reads a block. */
async function read(disk: NbdDisk, offset: number): Promise<Uint8Array> {
  const into = new Uint8Array(4096);
  await disk.read(offset, into);
  return into;
}

/** How often a line was written to the log. */
function count(log: string, line: RegExp): number {
  return log.split("\n").filter((one) => line.test(one)).length;
}

Deno.test(
  "with a key a disk is served encrypted, over several lanes, and the status says so",
  Workplace.test(async (place) => {
    keys(place, "alice");
    const { address } = await place.exporter("disk=mem:4M", "--key", "alice.key", "--workers", "2");
    const nbd = `unix:${place.folder}/nbd.sock`;
    const attached = place.daemon("attach", `${address}/disk`, "--key", "alice.key", "--lanes", "2", "--nbd", nbd);
    await attached.waitFor("attached");
    const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
    await disk.write(4096, new Uint8Array(4096).fill(7));
    assert.deepEqual(await read(disk, 4096), new Uint8Array(4096).fill(7));
    await disk.close();
    const [session, ...others] = await sessions(place);
    assert.deepEqual(others, []);
    const { key, cipher, digest, lanes, access } = session;
    assert.deepEqual({ key, cipher, digest, lanes, access }, {
      key: "alice",
      cipher: "chacha20-poly1305",
      digest: "none",
      lanes: 2,
      access: "read-write",
    });
    const { stdout } = await place.run("status");
    assert.match(stdout, /^CLIENT .*\n.* disk +read-write +chacha20-poly1305, key alice, 2 lanes$/m);
  }),
);

Deno.test(
  "a client that is attached has its key once for each lane, which may have to connect again, and an exporter has it once",
  Workplace.test(async (place) => {
    keys(place, "alice");
    const { secret } = readKeyFile(`${place.folder}/alice.key`);
    const { daemon, address } = await place.exporter("disk=mem:4M", "--key", "alice.key", "--workers", "2");
    const nbd = `unix:${place.folder}/nbd.sock`;
    const attached = place.daemon("attach", `${address}/disk`, "--key", "alice.key", "--lanes", "2", "--nbd", nbd);
    await attached.waitFor("attached");
    assert.equal(countInMemory(daemon.pid, secret), 1);
    assert.equal(countInMemory(attached.pid, secret), 2);
  }),
);

Deno.test(
  "whoever has no key, another, or the right id alone does not come in, and the log tells them apart",
  Workplace.test(async (place) => {
    keys(place, "alice", "eve");
    const { daemon, address } = await place.exporter("disk=mem:4M", "--key", "alice.key");
    await place.fails(1, /without a key/, "list", address);
    const unknown = await place.run("list", address, "--key", "eve.key");
    assert.equal(unknown.code, 1);
    // One who has only seen the id on the wire.
    const { hostname, port } = new URL(`tcp://${address}`);
    const { id } = readKeyFile(`${place.folder}/alice.key`);
    const options = { host: hostname, port: Number(port), cipher: Cipher.CHACHA20_POLY1305, digest: Digest.NONE };
    const secret = new Uint8Array(32).fill(1);
    await assert.rejects(Peer.greet({ ...options, key: { id, secret }, feeding: "whole", seed: 1 }), /ended/);
    assert.equal((await place.run("list", address, "--key", "alice.key")).code, 0);
    const { code, stderr } = await daemon.stop();
    assert.equal(code, 0);
    assert.equal(count(stderr, /sent away: it named no key$/), 1);
    assert.equal(count(stderr, /Refused .*: its key is not known$/), 1);
    assert.equal(count(stderr, /Refused .*: it does not have the key "alice", which it named$/), 1);
    const hex = readKeyFile(`${place.folder}/alice.key`).secret.toHex();
    assert.ok(!stderr.includes(hex) && !unknown.stderr.includes(hex));
  }),
);

Deno.test(
  "a list of ciphers without a common one is an error on both sides that names both lists",
  Workplace.test(async (place) => {
    keys(place, "alice");
    const { daemon, address } = await place.exporter(
      ...["disk=mem:4M", "--key", "alice.key", "--cipher", "none", "--digest", "hmac-sha256"],
    );
    const args = ["list", address, "--key", "alice.key", "--cipher", "chacha20-poly1305"];
    await place.fails(1, /accepts none, this side chacha20-poly1305/, ...args);
    const { stderr } = await daemon.stop();
    const both = /nothing in common: it offers .*chacha20-poly1305.*; accepted are the ciphers none .*hmac-sha256$/;
    assert.equal(count(stderr, both), 1);
  }),
);

Deno.test(
  "other machines are served with a key only, or where the user insists",
  Workplace.test(async (place) => {
    keys(place, "alice");
    const state = ["--state-dir", `${place.folder}/state`];
    const open = ["export", "mem:1M", "--listen", "0.0.0.0:0", ...state];
    await place.fails(2, /^dst: Refused to serve on 0\.0\.0\.0:0 without a key: .*--key FILE.*--insecure/, ...open);
    await place.fails(
      2,
      /^dst: Refused to serve NBD on 0\.0\.0\.0:0: NBD has no keys/,
      ...["export", "mem:1M", ...place.exportOptions(), "--nbd", "0.0.0.0:0", "--key", "alice.key"],
    );
    await place.fails(
      2,
      /^dst: Refused to serve NBD on 0\.0\.0\.0:0: NBD has no keys/,
      ...["attach", "127.0.0.1:1/disk", "--nbd", "0.0.0.0:0", "--key", "alice.key"],
    );
    Deno.writeTextFileSync(`${place.folder}/open.toml`, 'listen = "[::]:0"\n[[exports]]\npath = "mem:1M"\n');
    await place.fails(
      2,
      /^dst: Refused to serve on \[::\]:0 without a key/,
      "export",
      "--config",
      "open.toml",
      ...state,
    );
    for (const more of [["--insecure"], ["--key", "alice.key"]]) {
      const daemon = place.daemon(...open, ...more);
      const { address } = await daemon.waitFor("listening");
      const port = String(address).split(":").at(-1);
      const { code, stderr } = await place.run(
        "list",
        `127.0.0.1:${port}`,
        ...more.filter((word) => word !== "--insecure"),
      );
      assert.equal(code, 0, stderr);
      assert.equal((await daemon.stop()).code, 0);
    }
  }),
);

Deno.test(
  "what keys, ciphers and ranges cannot be is said in a line",
  Workplace.test(async (place) => {
    keys(place, "alice");
    const fails = (message: RegExp, ...args: string[]) =>
      place.fails(2, message, "export", "mem:1M", ...place.exportOptions(), ...args);
    await fails(/Cannot use the key file none\.key: there is no such file/, "--key", "none.key");
    await fails(/--key alice\.key: .*another key named "alice"/, "--key", "alice.key", "--key", "alice.key");
    Deno.chmodSync(`${place.folder}/alice.key`, 0o640);
    await fails(/Cannot use the key file alice\.key: others may use it/, "--key", "alice.key");
    Deno.chmodSync(`${place.folder}/alice.key`, 0o600);
    await fails(/--cipher: "aes" is not one of/, "--key", "alice.key", "--cipher", "aes");
    await fails(/The cipher chacha20-poly1305 needs a key/, "--cipher", "chacha20-poly1305");
    await fails(/The digest xxh64 proves nothing/, "--key", "alice.key", "--cipher", "none", "--digest", "xxh64");
    await fails(/--allow: Cannot read the address range "10\.1\.0\.0\/8"/, "--allow", "10.1.0.0/8");
    await fails(/--crypto: "fast" is not one of auto, wasm, openssl/, "--crypto", "fast");
  }),
);

Deno.test(
  "a key reads or writes what its permissions say, and the rest is not there for it",
  Workplace.test(async (place) => {
    keys(place, "alice", "bob");
    configure(place, { disk: 'alice = "read-write", bob = "read"', other: 'alice = "read-write"' });
    const { daemon, address } = await exporter(place);
    const list = async (name: string) => {
      const { stdout } = await place.run("list", address, "--json", "--key", `${name}.key`);
      return stdout.trim().split("\n").map((line) => JSON.parse(line)).map(({ name, access }) => [name, access]);
    };
    assert.deepEqual(await list("alice"), [["disk", "read-write"], ["other", "read-write"]]);
    assert.deepEqual(await list("bob"), [["disk", "read-only"]]);
    const attach = (
      name: string,
      ...args: string[]
    ) => ["attach", `${address}/${name}`, "--key", "bob.key", "--nbd", `unix:${place.folder}/nbd.sock`, ...args];
    await place.fails(1, /may only read the export "disk"/, ...attach("disk"));
    const hidden = await place.run(...attach("other", "--read-only"));
    const absent = await place.run(...attach("nosuch", "--read-only"));
    assert.equal(hidden.code, 1);
    assert.equal(hidden.stderr.replaceAll("other", "nosuch"), absent.stderr);
    await place.fails(1, /there is no export "other"/, "info", `${address}/other`, "--key", "bob.key");
    const attached = place.daemon(...attach("disk", "--read-only"));
    assert.equal((await attached.waitFor("attached")).readOnly, true);
    await attached.stop();
    const { stderr } = await daemon.stop();
    assert.equal(count(stderr, /Refused .*: the key "bob" may only read the export "disk"$/), 1);
    assert.equal(count(stderr, /Refused .*: the key "bob" may not use the export "other"$/), 2);
    assert.equal(count(stderr, /Refused .*: there is no export "nosuch"$/), 1);
  }),
);

Deno.test(
  "addresses that are not allowed are not served",
  Workplace.test(async (place) => {
    const { daemon, address } = await place.exporter("disk=mem:4M", "--allow", "192.0.2.0/24");
    assert.equal((await place.run("list", address)).code, 1);
    assert.equal(count((await daemon.stop()).stderr, /Refused 127\.0\.0\.1:\d+: nobody may connect from there$/), 1);
    const allowed = await place.exporter("disk=mem:4M", "--allow", "192.0.2.0/24", "--allow", "127.0.0.0/8");
    assert.equal((await place.run("list", allowed.address)).code, 0);
  }),
);

Deno.test(
  "a reload ends the sessions whose rights it takes, and the others do not notice",
  Workplace.test(async (place) => {
    keys(place, "alice", "bob", "carol");
    configure(place, { disk: 'alice = "read-write", bob = "read"', other: 'bob = "read-write"' });
    const { daemon, address } = await exporter(place, "--workers", "2");
    const attach = async (key: string, name: string, ...args: string[]) => {
      const nbd = `unix:${place.folder}/${key}-${name}.sock`;
      const child = place.daemon("attach", `${address}/${name}`, "--key", `${key}.key`, "--nbd", nbd, ...args);
      await child.waitFor("attached");
      return child;
    };
    await attach("alice", "disk", "--lanes", "2");
    await attach("bob", "disk", "--read-only");
    await attach("bob", "other", "--lanes", "2");
    const disk = await NbdDisk.connect(`${place.folder}/alice-disk.sock`);
    await disk.write(0, new Uint8Array(4096).fill(1));
    const before = (await sessions(place)).filter(({ key }) => key === "alice");

    // Nothing that matters: only more.
    configure(place, { disk: '"*" = "read-write"', other: 'bob = "read-write"' }, "", "alice bob carol");
    assert.equal(await reload(daemon, "reloaded"), "");
    assert.equal((await sessions(place)).length, 3);
    assert.equal((await place.run("info", `${address}/disk`, "--key", "carol.key")).code, 0);
    // Bob may only read now, what he reads already and what he has written.
    configure(place, { disk: '"*" = "read", alice = "read-write"', other: 'bob = "read"' });
    await reload(daemon, "reloaded");
    while ((await sessions(place)).length !== 2);
    assert.deepEqual((await sessions(place)).map(({ key, export: name }) => [key, name]), [
      ["alice", "disk"],
      ["bob", "disk"],
    ]);
    assert.equal((await place.run("info", `${address}/disk`, "--key", "carol.key")).code, 1, "her key is gone");
    // Bob's key is gone.
    configure(place, { disk: 'alice = "read-write"', other: "" }, "", "alice");
    await reload(daemon, "reloaded");
    while ((await sessions(place)).length !== 1);
    assert.deepEqual((await sessions(place)).map((session) => ({ ...session })), before, "Alice has not noticed");
    await disk.write(0, new Uint8Array(4096).fill(2));
    assert.deepEqual(await read(disk, 0), new Uint8Array(4096).fill(2));
    await disk.close();
    const { stderr } = await daemon.stop();
    assert.equal(count(stderr, /attached "disk" read-write with the key "alice"/), 1);
    assert.equal(count(stderr, /is taken from .*, whose rights have changed/), 2);
    assert.equal(count(stderr, /Reloaded exporter\.toml$/), 1);
    assert.equal(count(stderr, /Reloaded exporter\.toml; 1 session ends, whose rights are gone/), 2);
  }),
);

Deno.test(
  "a configuration that is wrong, or cannot be changed, changes nothing",
  Workplace.test(async (place) => {
    keys(place, "alice", "bob");
    configure(place, { disk: 'alice = "read-write"', other: "" }, "", "alice");
    const { daemon, address } = await exporter(place);
    const works = async () => assert.equal((await place.run("list", address, "--key", "alice.key")).code, 0);
    const refused = async (message: RegExp, change: (text: string) => string) => {
      const path = `${place.folder}/exporter.toml`;
      const text = Deno.readTextFileSync(path);
      Deno.writeTextFileSync(path, change(text));
      assert.match(await reload(daemon, "refused"), message);
      Deno.writeTextFileSync(path, text);
      await works();
    };
    await refused(
      /^Not reloaded, all stays as it was: exporter\.toml:\d+: unknown key lissen/,
      (t) => `lissen = 1\n${t}`,
    );
    await refused(
      /exporter\.toml:\d+: Cannot use the key file .*nobody\.key/,
      (t) => t.replace("alice.key", "nobody.key"),
    );
    await refused(/workers cannot be changed by a reload: restart/, (t) => `workers = 2\n${t}`);
    await refused(/listen cannot be changed by a reload: restart/, (t) => t.replace("127.0.0.1:0", "0.0.0.0:0"));
    await refused(/"disk": path, .* cannot be changed by a reload: restart/, (t) => t.replace("mem:4M", "mem:8M"));
    Deno.removeSync(`${place.folder}/exporter.toml`);
    assert.match(await reload(daemon, "refused"), /Cannot read the configuration exporter\.toml/);
    await works();
    assert.equal((await daemon.stop()).code, 0);
  }),
);

Deno.test(
  "exports come and go by a reload, and the others do not notice",
  Workplace.test(async (place) => {
    place.file("a.img", 1024 * 1024);
    place.file("b.img", 2 * 1024 * 1024);
    const write = (...paths: string[]) => {
      const sections = paths.map((path) => `[[exports]]\npath = "${path}"\n`);
      const top = `listen = "127.0.0.1:0"\nstate_dir = "state"\nnbd = "unix:${place.folder}/nbd.sock"\n`;
      Deno.writeTextFileSync(`${place.folder}/exporter.toml`, top + sections.join(""));
    };
    write("mem:1M", "a.img");
    const { daemon, address } = await exporter(place, "--workers", "2");
    const list = async () => {
      const { stdout } = await place.run("list", address, "--json");
      return stdout.trim().split("\n").map((line) => JSON.parse(line)).map(({ name, size }) => [name, size]);
    };
    let attached = 0;
    const attach = async (name: string) => {
      const socket = `${place.folder}/${++attached}.sock`;
      const args = ["attach", `${address}/${name}`, "--lanes", "2", "--nbd", `unix:${socket}`];
      await place.daemon(...args).waitFor("attached");
      return await NbdDisk.connect(socket);
    };
    const memory = await attach("mem");
    await memory.write(0, new Uint8Array(4096).fill(1));
    const a = await attach("a.img");
    await a.write(4096, new Uint8Array(4096).fill(0xa));

    write("b.img", "mem:1M", "a.img");
    await reload(daemon, "reloaded");
    assert.deepEqual(await list(), [["a.img", 1024 * 1024], ["b.img", 2 * 1024 * 1024], ["mem", 1024 * 1024]]);
    const b = await attach("b.img");
    await b.write(8192, new Uint8Array(4096).fill(0xb));
    await b.close();
    const { exports } = JSON.parse((await place.run("status", "--json")).stdout);
    const shown = exports[0].status.exports.map((
      { name, sessions }: { name: string; sessions: unknown[] },
    ) => [name, sessions.length]);
    assert.deepEqual(shown, [["b.img", 1], ["mem", 1], ["a.img", 1]]);

    write("mem:1M");
    await reload(daemon, "reloaded");
    assert.deepEqual(await list(), [["mem", 1024 * 1024]]);
    assert.deepEqual(await read(memory, 0), new Uint8Array(4096).fill(1));
    await memory.close();
    // The files are free again, with what was written to them.
    for (const [name, offset, byte] of [["a.img", 4096, 0xa], ["b.img", 8192, 0xb]] as const) {
      const other = place.daemon("export", name, ...place.exportOptions());
      await other.waitFor("listening");
      assert.equal((await other.stop()).code, 0);
      assert.equal(Deno.readFileSync(`${place.folder}/${name}`)[offset], byte);
    }
    write("mem:1M", "a.img");
    await reload(daemon, "reloaded");
    assert.deepEqual((await list()).map(([name]) => name), ["a.img", "mem"]);
    // Whoever had it finds it again.
    assert.deepEqual(await read(a, 4096), new Uint8Array(4096).fill(0xa));
    await a.close();

    // One that cannot be opened: all stays as it was.
    write("mem:1M", "b.img", "nothing.img");
    assert.match(await reload(daemon, "refused"), /Cannot export .*nothing\.img: /);
    assert.deepEqual((await list()).map(([name]) => name), ["a.img", "mem"]);
    const other = place.daemon("export", "b.img", ...place.exportOptions());
    await other.waitFor("listening");
    const { code, stderr } = await daemon.stop();
    assert.equal(code, 0, stderr);
    assert.equal(count(stderr, /"(a|b)\.img" is exported no more$/), 2);
  }),
);

Deno.test(
  "an address that fails too often is told to wait, until the limits change",
  Workplace.test(async (place) => {
    keys(place, "alice", "eve");
    const limits = (burst: number) => `[limits]\nattempts_burst = ${burst}\nattempts_per_minute = 1\n`;
    const permissions = { disk: 'alice = "read"', other: "" };
    configure(place, permissions, limits(2), "alice");
    const { daemon, address } = await exporter(place);
    for (let i = 0; i < 5; i++) assert.equal((await place.run("list", address, "--key", "alice.key")).code, 0);
    for (let i = 0; i < 2; i++) assert.equal((await place.run("list", address, "--key", "eve.key")).code, 1);
    await place.fails(1, /no room|too many/i, "list", address, "--key", "alice.key");
    configure(place, permissions, limits(3), "alice");
    await reload(daemon, "reloaded");
    assert.equal((await place.run("list", address, "--key", "alice.key")).code, 0);
    assert.equal(count((await daemon.stop()).stderr, /it has failed to prove who it is too often$/), 1);
  }),
);

Deno.test(
  "connections that say nothing are limited, and whoever comes on top of them is told so",
  Workplace.test(async (place) => {
    keys(place, "alice");
    configure(place, { disk: 'alice = "read"', other: "" }, "[limits]\nconnections_per_address = 2\n", "alice");
    const { daemon, address } = await exporter(place);
    const { hostname, port } = new URL(`tcp://${address}`);
    const idle = [
      await Deno.connect({ hostname, port: Number(port) }),
      await Deno.connect({ hostname, port: Number(port) }),
    ];
    await place.fails(1, /no room|too many/i, "list", address, "--key", "alice.key");
    for (const connection of idle) connection.close();
    const list = () => place.run("list", address, "--key", "alice.key");
    while ((await list()).code !== 0);
    const { stderr } = await daemon.stop();
    assert.ok(count(stderr, /Refused .*: 2 connections from there have not proved yet who they are$/) > 0);
  }),
);

Deno.test(
  "without a configuration SIGHUP ends an exporter, as its terminal's end does",
  Workplace.test(async (place) => {
    const { daemon } = await place.exporter("disk=mem:4M");
    assert.equal((await daemon.stop("SIGHUP")).code, 0);
  }),
);
