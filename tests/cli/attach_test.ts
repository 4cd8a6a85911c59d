import assert from "node:assert/strict";
import { verifyPattern, writePattern } from "../../client/demo_disk.ts";
import { NbdDisk } from "../../client/demo_nbd.ts";
import { close } from "../../ffi/libc.ts";
import { listenOn, localAddress } from "../../ffi/socket.ts";
import { Workplace } from "./program.ts";

const MIB = 1024 * 1024;

Deno.test(
  "an attachment by NBD is written through, shows in the status, and is detached",
  Workplace.test(async (place) => {
    place.file("disk.img", 8 * MIB);
    const { address } = await place.exporter("disk.img");
    const nbd = `unix:${place.folder}/nbd.sock`;
    const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd);
    const event = await daemon.waitFor("attached");
    assert.equal(event.nbd, nbd);
    assert.equal(event.size, 8 * MIB);
    const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
    await writePattern(disk, 4 * MIB, 5);
    await verifyPattern(disk, 4 * MIB, 5);
    await disk.close();
    const { attachments } = JSON.parse((await place.run("status", "--json")).stdout);
    assert.equal(attachments.length, 1);
    assert.equal(attachments[0].remote, `${address}/disk.img`);
    assert.equal(attachments[0].status.connected, true);
    assert.match((await place.run("status")).stdout, /held by .* \(pid \d+\)/);
    const { code, stdout, stderr } = await place.run("detach", nbd);
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `${nbd} is detached\n`);
    assert.equal((await daemon.result()).code, 0);
    await place.fails(1, /is not attached here; nothing is/, "detach", nbd);
  }),
);

Deno.test(
  "a second writer is refused with the holder's name and address, a reader is admitted",
  Workplace.test(async (place) => {
    const { address } = await place.exporter("disk=mem:4M");
    const socket = (name: string) => ["--nbd", `unix:${place.folder}/${name}`];
    const writer = place.daemon("attach", `${address}/disk`, ...socket("a"));
    await writer.waitFor("attached");
    const holder = new RegExp(`${Deno.hostname()} \\(pid ${writer.pid}\\) at 127\\.0\\.0\\.1`);
    await place.fails(1, holder, "attach", `${address}/disk`, ...socket("b"));
    const reader = place.daemon("attach", `${address}/disk`, "--read-only", ...socket("c"));
    assert.equal((await reader.waitFor("attached")).readOnly, true);
    const { stdout } = await place.run("info", `${address}/disk`);
    assert.match(stdout, /^held by .*at 127\.0\.0\.1/m);
    const thief = place.daemon("attach", `${address}/disk`, "--steal", ...socket("d"));
    await thief.waitFor("attached");
  }),
);

Deno.test(
  "several clients may write to a shared export",
  Workplace.test(async (place) => {
    const { address } = await place.exporter("disk=mem:4M", "--shared");
    for (const name of ["a", "b"]) {
      await place.daemon("attach", `${address}/disk`, "--nbd", `unix:${place.folder}/${name}`).waitFor("attached");
    }
  }),
);

Deno.test(
  "what cannot be attached is a line on standard error and exit code 1",
  Workplace.test(async (place) => {
    const { daemon, address } = await place.exporter("disk=mem:1M", "--read-only");
    const nbd = ["--nbd", `unix:${place.folder}/nbd.sock`];
    await place.fails(1, /nothing/, "attach", `${address}/nothing`, ...nbd);
    await place.fails(1, /read-only|permission/, "attach", `${address}/disk`, ...nbd);
    await place.fails(1, /nothing/, "info", `${address}/nothing`);
    await daemon.stop();
    await place.fails(1, /Cannot .*refused/, "attach", `${address}/disk`, ...nbd);
    await place.fails(1, /Cannot .*refused/, "list", address);
    // Something that listens there, but is no exporter.
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const served = listener.accept().then((connection) => connection.close());
    await place.fails(1, /Cannot /, "list", `127.0.0.1:${listener.addr.port}`);
    await served;
    listener.close();
  }),
);

Deno.test(
  "a copy goes to an export and back, and is verified",
  Workplace.test(async (place) => {
    const path = place.file("source.img", 8 * MIB);
    using file = Deno.openSync(path, { write: true });
    file.seekSync(3 * MIB, Deno.SeekMode.Start);
    file.writeSync(crypto.getRandomValues(new Uint8Array(65536)));
    const { address } = await place.exporter("disk=mem:8M");
    const there = await place.run("copy", "source.img", `${address}/disk`, "--verify");
    assert.equal(there.code, 0, there.stderr);
    const back = await place.run("copy", `${address}/disk`, "back.img", "--verify", "--json");
    assert.equal(back.code, 0, back.stderr);
    const { event, size, moved, digest } = JSON.parse(back.stdout);
    assert.deepEqual([event, size], ["copied", 8 * MIB]);
    assert(moved < 4 * MIB, "holes are not moved");
    assert.match(digest, /^xxh64:/);
    assert.deepEqual(Deno.readFileSync(`${place.folder}/back.img`), Deno.readFileSync(path));
    await place.fails(1, /nothing\.img/, "copy", "nothing.img", `${address}/disk`);
  }),
);

Deno.test(
  "the demo works from end to end, by NBD",
  Workplace.test(async (place) => {
    const { code, stdout, stderr } = await place.run("demo", "--nbd");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /all of it worked, in [\d.]+ s, by an NBD socket\n$/);
  }),
);

for (const signal of ["SIGINT", "SIGHUP"] as const) {
  Deno.test(
    `a demo that ${signal} interrupts says so, and leaves nothing behind`,
    Workplace.test(async (place) => {
      const demo = place.daemon("demo", "--nbd");
      // Its image, its exporter, its attachment: it is writing from then on.
      for (let steps = 0; steps < 3; steps++) await demo.waitFor("step");
      const { code, stderr } = await demo.stop(signal);
      assert.equal(code, 1, stderr);
      assert.equal(stderr, `dst: Cannot finish the demo: ${signal} came; what it had made is removed\n`);
      assert.deepEqual([...Deno.readDirSync(place.folder)], []);
    }),
  );
}

Deno.test(
  "a second interrupt ends a copy whose exporter hangs",
  Workplace.test(async (place) => {
    place.file("source.img", 4 * MIB);
    const { daemon, address } = await place.exporter("disk=mem:4M", "--layer", "delay:30000");
    const copy = place.daemon("copy", "source.img", `${address}/disk`);
    const holds = async () => (await place.run("info", `${address}/disk`)).stdout.includes(`pid ${copy.pid}`);
    while (!await holds());
    // Signals that come at the same time are one.
    const interrupts = setInterval(() => copy.signal("SIGINT"), 50);
    const { code, stderr } = await copy.result();
    clearInterval(interrupts);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /^dst: Cannot finish the copy: SIGINT came again; the destination is incomplete\n$/);
    await daemon.stop("SIGKILL");
  }),
);

for (const way of ["a signal", "dst detach"] as const) {
  Deno.test(
    `writes that are lost with the exporter's memory make ${way} end with exit code 1 and say what may be lost`,
    Workplace.test(async (place) => {
      place.file("disk.img", 8 * MIB);
      // It keeps what no flush covers in its memory.
      const served = ["disk.img", "--layer", "volatile:8M"];
      const { daemon: exporter, address } = await place.exporter(...served);
      const nbd = `unix:${place.folder}/nbd.sock`;
      const fails = ["--on-exporter-restart", "fail"];
      const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd, ...fails);
      await daemon.waitFor("attached");
      const disk = await NbdDisk.connect(`${place.folder}/nbd.sock`);
      await writePattern(disk, 4 * MIB, 5);
      await disk.write(0, new Uint8Array(4096));
      await exporter.stop("SIGKILL");
      await place.exporterAt(address, ...served);
      // It waits for the exporter, and then there is nothing that a write could stand on.
      await assert.rejects(disk.write(0, new Uint8Array(4096)), /error/);
      await assert.rejects(disk.flush(), /error/);
      await disk.read(0, new Uint8Array(4096));
      await disk.close();
      const { connected, failure } = JSON.parse((await place.run("status", "--json")).stdout).attachments[0].status;
      assert.equal(connected, true);
      assert.match(failure, /what was written last and not flushed is lost/);
      if (way === "a signal") Deno.kill(daemon.pid, "SIGTERM");
      else await place.fails(1, /is detached, but .* may be lost/, "detach", nbd);
      const { code, stderr } = await daemon.result();
      assert.equal(code, 1);
      assert.match(stderr, /dst: .*is detached, but .* may be lost/);
      await place.fails(1, /is not attached here; nothing is/, "detach", nbd);
    }),
  );
}

Deno.test(
  "without a connection what is not flushed is not detached, unless forced; what is flushed is",
  Workplace.test(async (place) => {
    place.file("disk.img", 8 * MIB);
    const { daemon: exporter, address } = await place.exporter("disk.img", "--layer", "volatile:8M");
    const nbd = (name: string) => `unix:${place.folder}/${name}.sock`;
    const attached = async (name: string) => {
      const daemon = place.daemon("attach", `${address}/disk.img`, "--nbd", nbd(name));
      await daemon.waitFor("attached");
      const disk = await NbdDisk.connect(`${place.folder}/${name}.sock`);
      await disk.write(0, new Uint8Array(4096));
      if (name === "flushed") await disk.flush();
      await disk.read(0, new Uint8Array(4096));
      await disk.close();
      return daemon;
    };
    const flushed = await attached("flushed");
    assert.equal((await place.run("detach", nbd("flushed"))).code, 0);
    assert.equal((await flushed.result()).code, 0);
    const again = await attached("flushed");
    exporter.signal("SIGKILL");
    await exporter.result();
    const away = /reconnecting, [\d.]+ s, 0 transactions waiting, (next try in [\d.]+ s|trying now)/;
    while (!away.test((await place.run("status")).stdout));
    const { code, stderr } = await place.run("detach", nbd("flushed"));
    assert.equal(code, 0, stderr);
    const result = await again.result();
    assert.equal(result.code, 0);
    assert.match(
      result.stderr,
      /^[^\n]* \[warning\] [^\n]*; requests wait until [^\n]*\n[^\n]* The exporter is told nothing[^\n]*\n$/,
    );

    const { daemon: second } = await place.exporterAt(address, "disk.img", "--layer", "volatile:8M");
    const daemon = await attached("dirty");
    await second.stop("SIGKILL");
    while (!away.test((await place.run("status")).stdout));
    await place.fails(
      1,
      /has had no connection for .* what was written last is not flushed: .*--force/,
      "detach",
      nbd("dirty"),
    );
    daemon.signal("SIGTERM");
    assert.match(String((await daemon.waitFor("refused")).reason), /has had no connection for/);
    assert.equal((await place.run("detach", nbd("dirty"), "--force")).code, 0);
    assert.match((await daemon.result()).stderr, /\[error\] [^\n]*As it was forced: the last flush failed/);
  }),
);

for (const stage of ["it connects", "it waits for an answer"] as const) {
  Deno.test(
    `an attachment that is interrupted while ${stage} gives up and says so`,
    Workplace.test(async (place) => {
      const { port, waiting, close } = stage === "it connects" ? await fullListener() : silentListener();
      const daemon = place.daemon("attach", `127.0.0.1:${port}/disk`, "--nbd", `unix:${place.folder}/nbd.sock`);
      await waiting();
      const { code, stdout, stderr } = await daemon.stop("SIGINT");
      close();
      assert.deepEqual([code, stdout], [1, ""]);
      assert.equal(stderr, `dst: Cannot attach 127.0.0.1:${port}/disk: SIGINT came\n`);
      assert.throws(() => Deno.statSync(`${place.folder}/nbd.sock`), Deno.errors.NotFound);
    }),
  );
}

/** Somebody to connect to; `waiting` resolves when somebody has come and waits. */
interface DeafListener {
  readonly port: number;
  waiting(): Promise<void>;
  close(): void;
}

/** Takes connections and says nothing. */
function silentListener(): DeafListener {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let connection: Deno.Conn;
  return {
    port: listener.addr.port,
    waiting: async () => {
      connection = await listener.accept();
      await connection.read(new Uint8Array(16));
    },
    close: () => {
      connection.close();
      listener.close();
    },
  };
}

/** Has no room for connections: the kernel lets whoever comes try again and again. */
async function fullListener(): Promise<DeafListener> {
  const fd = listenOn({ family: "ipv4", host: "127.0.0.1", port: 0 }, 0);
  const { port } = localAddress(fd) as { port: number };
  // A queue of length 0 has room for one.
  const first = await Deno.connect({ hostname: "127.0.0.1", port });
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 02 `;
  return {
    port,
    waiting: async () => {
      // State 02 is SYN_SENT (include/net/tcp_states.h).
      while (!(await Deno.readTextFile("/proc/net/tcp")).includes(remote)) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    close: () => {
      first.close();
      close(fd);
    },
  };
}
