import assert from "node:assert/strict";
import { describeExport, listExports } from "../../client/query.ts";
import { Operation } from "../../engine/block.ts";
import { listenOn, localAddress } from "../../ffi/socket.ts";
import { close } from "../../ffi/libc.ts";
import { exportOf, MIB, plainChannel, startTestExporter, TestClient, testEachLoop } from "./fixture.ts";

/** Opens what cannot be opened; gives the reason. */
async function refusal(client: TestClient, ...args: Parameters<TestClient["open"]>): Promise<string> {
  try {
    await client.open(...args);
  } catch (error) {
    return (error as Error).message;
  }
  assert.fail("it was opened");
}

testEachLoop("an export that is not there, taken or read-only is refused, with what to do", async (loop) => {
  await using exporter = await startTestExporter(loop, [
    exportOf("disk", "mem:1M"),
    exportOf("fixed", "mem:1M", { readOnly: true }),
  ]);
  const where = `127.0.0.1:${exporter.port}`;
  await using client = new TestClient(loop);
  assert.equal(
    await refusal(client, exporter, { name: "nothing" }),
    `there is no export "nothing" on ${where}: see dst list ${where}`,
  );
  assert.match(await refusal(client, exporter, { name: "fixed" }), /no permission to write .*--read-only/);
  await using holder = new TestClient(loop);
  await holder.open(exporter, { holder: "the holder" });
  assert.match(
    await refusal(client, exporter),
    /^it is held by the holder at 127\.0\.0\.1:\d+: --read-only .*--steal .*--shared/,
  );
  await client.open(exporter, { readOnly: true });
});

testEachLoop("a shared export has many writers", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M", { shared: true })]);
  await using one = new TestClient(loop);
  await using two = new TestClient(loop);
  await one.open(exporter);
  await two.open(exporter);
});

testEachLoop("without a digest in common both lists are named", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M")], ["crc32c"]);
  await using client = new TestClient(loop);
  const reason = await refusal(client, exporter, { digests: ["xxh64", "none"] });
  assert.match(reason, /no digest in common: .* accepts crc32c, this side xxh64, none \(see --digest\)$/);
  await client.open(exporter, { digests: ["none", "crc32c"] });
});

testEachLoop("where nobody listens the connection is refused, on each address of the name", async (loop) => {
  await using client = new TestClient(loop);
  const port = closedPort();
  assert.match(await refusal(client, { host: "127.0.0.1", port }), /was refused by 127\.0\.0\.1:\d+: is the exporter/);
  assert.match(await refusal(client, { host: "localhost", port }), /was refused by localhost:\d+ \(127\.0\.0\.1:\d+\)/);
  await assert.rejects(client.open({ host: "nowhere.invalid", port }), /the name nowhere\.invalid is not known/);
});

testEachLoop("what an exporter says does not drive the terminal", async (loop) => {
  // The answer to a hello: BAD_REQUEST (41) in a STATUS TLV, and a TEXT with an escape sequence, padded to 8 bytes.
  const answer = new Uint8Array(48);
  const view = new DataView(answer.buffer);
  answer.set(new TextEncoder().encode("DSTREPLY"));
  view.setUint16(8, 1, true);
  view.setUint32(12, 32, true);
  view.setUint16(16, 4, true);
  view.setUint32(20, 4, true);
  view.setUint32(24, 41, true);
  view.setUint16(32, 5, true);
  view.setUint32(36, 8, true);
  answer.set(new TextEncoder().encode("\u001b[31mno!"), 40);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const served = listener.accept().then(async (connection) => {
    await connection.read(new Uint8Array(512));
    await connection.write(answer);
    connection.close();
  });
  await using client = new TestClient(loop);
  assert.match(await refusal(client, { host: "127.0.0.1", port: listener.addr.port }), /refuses: \[31mno!$/);
  await served;
  listener.close();
});

testEachLoop("an exporter that answers byte by byte gets no more time for that", async (loop) => {
  // The answer to a hello: VERSION (43) in a STATUS TLV, padded to 8 bytes.
  const answer = new Uint8Array(32);
  const view = new DataView(answer.buffer);
  answer.set(new TextEncoder().encode("DSTREPLY"));
  view.setUint32(12, 16, true);
  view.setUint16(16, 4, true);
  view.setUint32(20, 4, true);
  view.setUint32(24, 43, true);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const served = listener.accept().then(async (connection) => {
    await connection.read(new Uint8Array(512));
    for (let i = 0; i < answer.length; i++) {
      await connection.write(answer.subarray(i, i + 1));
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    connection.close();
  }).catch(() => {});
  await using client = new TestClient(loop);
  const reason = await refusal(client, { host: "127.0.0.1", port: listener.addr.port }, { answerMs: 400 });
  assert.match(reason, /timed out: it gave no answer within 0\.4 s$/);
  await served;
  listener.close();
});

testEachLoop("whoever waits for the present holder to end is told so, and waits longer", async (loop) => {
  // Longer than an answer may take, but the exporter says every second that it is alive.
  const layers = ["delay:write=2500"];
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M", { layers })]);
  await using victim = new TestClient(loop);
  await victim.open(exporter);
  victim.begin(0, Operation.WRITE, 0, 512);
  assert.equal(await victim.ask(Operation.READ, 0, 512, 0, 1), 0);
  await using thief = new TestClient(loop);
  await thief.open(exporter, { steal: true, answerMs: 1800 });
});

testEachLoop("a peer that is no exporter is called so", async (loop) => {
  const answers: [string, RegExp][] = [
    ["", /closed the connection before it had answered: is it a DST exporter, and does it admit this address\?$/],
    ["HTTP/1.1 400 Bad Request\r\n\r\n", /what listens on .* is not a DST exporter/],
  ];
  for (const [answer, message] of answers) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const served = listener.accept().then(async (connection) => {
      await connection.read(new Uint8Array(16));
      await connection.write(new TextEncoder().encode(answer));
      connection.close();
    });
    await using client = new TestClient(loop);
    assert.match(await refusal(client, { host: "127.0.0.1", port: listener.addr.port }), message);
    await served;
    listener.close();
  }
});

testEachLoop("exports are listed by name and described", async (loop) => {
  await using exporter = await startTestExporter(loop, [
    exportOf("z", "mem:1M"),
    exportOf("a", "mem:2M", { readOnly: true }),
    exportOf("m", "mem:3M", { shared: true }),
  ]);
  const options = plainChannel(loop);
  const { host, port } = exporter;
  const list = await listExports(host, port, options);
  assert.deepEqual(list.map(({ name, size, access }) => [name, size, access]), [
    ["a", 2 * MIB, "read-only"],
    ["m", 3 * MIB, "read-write"],
    ["z", MIB, "read-write"],
  ]);
  assert.deepEqual(list[0].features, ["read-only", "block-status", "cache"]);
  assert(list[1].features.includes("shared"));
  const free = await describeExport(host, port, "z", options);
  assert.equal(free.holder, null);
  assert.equal(free.logicalBlock, 512);
  assert.match(free.identities.storage, /^[0-9a-f]{32}$/);
  await using client = new TestClient(loop);
  await client.open(exporter, { name: "z", holder: "somebody" });
  const held = await describeExport(host, port, "z", options);
  assert.match(held.holder!, /^somebody at 127\.0\.0\.1:\d+$/);
  assert.equal(BigInt(held.identities.writeEpoch), BigInt(free.identities.writeEpoch) + 1n);
  await assert.rejects(describeExport(host, port, "nothing", options), {
    message: `Cannot describe 127.0.0.1:${port}/nothing: there is no export "nothing" on 127.0.0.1:${port}: ` +
      `see dst list 127.0.0.1:${port}`,
  });
});

/** A port of this machine where nobody listens. */
function closedPort(): number {
  const fd = listenOn({ family: "ipv4", host: "127.0.0.1", port: 0 }, 1);
  const { port } = localAddress(fd) as { port: number };
  close(fd);
  return port;
}
