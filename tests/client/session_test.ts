import assert from "node:assert/strict";
import { EXTENT_BYTES, ExtentFlag, Operation, RequestFlag } from "../../engine/block.ts";
import { SLOT_PAYLOAD_BYTES } from "../../engine/slots.ts";
import { Errno } from "../../ffi/errno.ts";
import { Access } from "../../protocol/grant.ts";
import { Digest } from "../../protocol/wire.ts";
import { Connector } from "../../client/connector.ts";
import { resolveTarget } from "../../client/open.ts";
import { ClientSession } from "../../client/session.ts";
import { exportOf, MIB, pattern, plainChannel, startTestExporter, TestClient, testEachLoop } from "./fixture.ts";
import { Workplace } from "../cli/program.ts";

const GIB = 1024 * MIB;

testEachLoop(
  "what is written at the first, the last and any block is read back, on both sides of 4 GiB",
  async (loop) => {
    const size = 6 * GIB + 512;
    await using exporter = await startTestExporter(loop, [exportOf("disk", `mem:${size}`)]);
    await using client = new TestClient(loop);
    const session = await client.open(exporter);
    assert.equal(session.geometry.size, size);
    assert.equal(session.geometry.readOnly, false);
    const places = [0, 512, 4 * GIB - 512, 4 * GIB - 4096, 4 * GIB, size - 512];
    for (const [i, offset] of places.entries()) {
      assert.equal(await client.write(offset, pattern(512, i), i % 2 === 0 ? RequestFlag.FUA : 0), 0);
      assert.deepEqual(await client.read(offset, 512), pattern(512, i));
    }
    const whole = pattern(SLOT_PAYLOAD_BYTES, 77);
    assert.equal(await client.write(5 * GIB, whole), 0);
    assert.deepEqual(await client.read(5 * GIB, whole.length), whole);
    assert.equal(await client.ask(Operation.FLUSH, 0, 0), 0);
    assert.equal(await client.leave(), true);
    assert.deepEqual(client.told, []);
  },
);

testEachLoop("discards, zeroes, cache and block status go through, longer than a slot too", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:64M")]);
  await using client = new TestClient(loop);
  await client.open(exporter);
  const data = pattern(SLOT_PAYLOAD_BYTES, 5);
  assert.equal(await client.write(8 * MIB, data), 0);
  assert.equal(await client.write(63 * MIB, data), 0);
  assert.equal(await client.ask(Operation.CACHE, 0, 64 * MIB), 0);
  assert.equal(await client.ask(Operation.BLOCK_STATUS, 0, 64 * MIB), 0);
  const { view } = client.engine.arena;
  const at = client.engine.slots.payloadAt(client.slots[0]);
  const extents: [number, number][] = [];
  for (let i = 0; i < client.session!.extentBytes(client.slots[0]); i += EXTENT_BYTES) {
    extents.push([view.getUint32(at + i, true), view.getUint32(at + i + 8, true)]);
  }
  const hole = ExtentFlag.HOLE | ExtentFlag.ZERO;
  assert.deepEqual(extents, [
    [8 * MIB, hole],
    [data.length, 0],
    [55 * MIB - data.length, hole],
    [data.length, 0],
    [MIB - data.length, hole],
  ]);
  assert.equal(await client.ask(Operation.WRITE_ZEROES, 8 * MIB, 32 * MIB, RequestFlag.NO_UNMAP), 0);
  assert.deepEqual(await client.read(8 * MIB, data.length), new Uint8Array(data.length));
  assert.equal(await client.ask(Operation.DISCARD, 0, 64 * MIB), 0);
  assert.deepEqual(await client.read(63 * MIB, data.length), new Uint8Array(data.length));
});

testEachLoop("an empty range is done at once, and what lies beyond the end is refused", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M")]);
  await using client = new TestClient(loop);
  await client.open(exporter);
  for (const operation of [Operation.READ, Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES]) {
    assert.equal(await client.ask(operation, 0, 0), 0);
  }
  assert.equal(await client.ask(Operation.READ, MIB, 512), -Errno.EINVAL);
  assert.equal(await client.ask(Operation.WRITE, MIB - 512, 1024), -Errno.ENOSPC);
  assert.equal(await client.ask(Operation.READ, 1, 512), -Errno.EINVAL);
  assert.equal(await client.ask(Operation.READ, 0, 512), 0);
});

testEachLoop("more requests than the lane has slots or credit wait their turn, and none is lost", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:64M")]);
  await using client = new TestClient(loop);
  const session = await client.open(exporter, { depth: 3 });
  assert.equal(session.grant.slots, 3);
  const bytes = SLOT_PAYLOAD_BYTES;
  for (let i = 0; i < 128; i++) {
    client.payload(i, bytes).set(pattern(bytes, i));
    client.begin(i, Operation.WRITE, i * bytes, bytes);
  }
  assert.equal(session.inFlight, 128);
  await client.until(() => session.inFlight === 0);
  for (let i = 0; i < 128; i++) client.begin(i, Operation.READ, i * bytes, bytes);
  await client.until(() => session.inFlight === 0);
  for (let i = 0; i < 128; i++) {
    assert.equal(client.completions[client.slots[i]], 2);
    assert.equal(client.statuses[client.slots[i]], 0);
    assert.deepEqual(client.payload(i, bytes).slice(), pattern(bytes, i));
  }
});

testEachLoop("requests longer than the maximum payload are sent in parts", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:8M")]);
  await using client = new TestClient(loop);
  const control = client.engine.slots.reserve(1)!;
  const target = await resolveTarget(exporter, { ...plainChannel(loop), digests: ["crc32c"] });
  const connection = new Connector(client.engine).connect(target, {
    ready: (door) =>
      door.open({
        export: "disk",
        session: crypto.getRandomValues(new Uint8Array(16)),
        access: Access.READ_WRITE,
        holder: "a test",
        leaseMs: null,
        depth: 4,
        maxPayload: 5000,
        lanes: null,
        steal: false,
        resume: null,
      }),
    granted: (grant) => client.session = new ClientSession(client.engine, control, grant, client),
    refused: (_, text) => assert.fail(text),
    failed: (reason) => assert.fail(reason),
  });
  await client.until(() => client.session !== null);
  assert.equal(connection.digest, Digest.CRC32C);
  assert.equal(client.session!.partBytes, 4608);
  for (const bytes of [512, 4096, 4608, 5120, 9216, SLOT_PAYLOAD_BYTES - 512, SLOT_PAYLOAD_BYTES]) {
    assert.equal(await client.write(MIB - 512, pattern(bytes, bytes)), 0);
    assert.deepEqual(await client.read(MIB - 512, bytes), pattern(bytes, bytes));
  }
  const statuses = await client.ask(Operation.WRITE, 8 * MIB - 9216, SLOT_PAYLOAD_BYTES);
  assert.equal(statuses, -Errno.ENOSPC, "a part that fails fails the whole");
});

testEachLoop("a read-only session reads, and every mutation is refused", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M")]);
  await using writer = new TestClient(loop);
  await writer.open(exporter);
  assert.equal(await writer.write(0, pattern(512, 1)), 0);
  await using reader = new TestClient(loop);
  const session = await reader.open(exporter, { readOnly: true });
  assert.equal(session.geometry.readOnly, true);
  assert.deepEqual(await reader.read(0, 512), pattern(512, 1));
  for (const operation of [Operation.WRITE, Operation.DISCARD, Operation.WRITE_ZEROES]) {
    assert.equal(await reader.ask(operation, 0, 512), -Errno.EROFS);
  }
});

testEachLoop("whoever is robbed of the export hears why, and every request of it is ESTALE", async (loop) => {
  const layers = ["delay:read=200"];
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M", { layers })]);
  await using victim = new TestClient(loop);
  await victim.open(exporter);
  await using thief = new TestClient(loop);
  const opening = thief.open(exporter, { steal: true });
  await victim.until(() => victim.told.length > 0);
  await opening;
  assert.deepEqual(victim.told, ["lost: another client has taken over the export"]);
  assert.equal(await victim.ask(Operation.WRITE, 0, 512), -Errno.ESTALE);
  assert.equal(victim.session!.isConnected, false);
  assert.equal(await thief.write(0, pattern(512, 1)), 0);
});

testEachLoop("after leaving, the export is free at once", async (loop) => {
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M")]);
  for (let i = 0; i < 3; i++) {
    await using client = new TestClient(loop);
    await client.open(exporter);
    assert.equal(await client.write(0, pattern(512, i)), 0);
    assert.equal(await client.leave(), true);
  }
});

testEachLoop("an exporter that is stopped finishes what it has begun, and says that it ends", async (loop) => {
  const layers = ["delay:write=100"];
  await using exporter = await startTestExporter(loop, [exportOf("disk", "mem:1M", { layers })]);
  await using client = new TestClient(loop);
  const session = await client.open(exporter);
  for (let i = 0; i < 8; i++) client.begin(i, Operation.WRITE, i * 512, 512);
  client.engine.turn(0);
  // So that the exporter has them before it is told to stop.
  assert.equal(await client.ask(Operation.READ, 0, 512, 0, 20), 0);
  const stopping = exporter.stop();
  await client.until(() => client.told.length === 2);
  await stopping;
  const reason = "the exporter was stopped, or this client's rights have changed";
  assert.deepEqual(client.told, ["shutting down", `lost: ${reason}`]);
  for (let i = 0; i < 8; i++) {
    assert.equal(client.completions[client.slots[i]], 1);
    assert.equal(client.statuses[client.slots[i]], 0);
  }
  assert.equal(session.failure, reason);
  assert.equal(await client.ask(Operation.READ, 0, 512), -Errno.EIO);
});

for (const loop of ["uring", "poll"] as const) {
  Deno.test(
    `${loop}: when the exporter is killed every request fails with EIO, exactly once, and so do later ones`,
    Workplace.test(async (place) => {
      const { daemon, address } = await place.exporter("disk=mem:64M", "--layer", "delay:5000", "--loop", loop);
      await using client = new TestClient(loop);
      const port = Number(address.split(":")[1]);
      const session = await client.open({ host: "127.0.0.1", port }, { depth: 16 });
      for (let i = 0; i < 100; i++) {
        client.begin(i, i % 2 === 0 ? Operation.WRITE : Operation.READ, i * SLOT_PAYLOAD_BYTES, SLOT_PAYLOAD_BYTES);
      }
      for (let i = 0; i < 5; i++) client.engine.turn(1);
      assert.equal(session.inFlight, 100);
      await daemon.stop("SIGKILL");
      await client.until(() => client.told.length > 0);
      assert.equal(client.told.length, 1);
      assert.match(client.told[0], /^lost: the (connection was lost|exporter closed)/);
      assert.equal(session.inFlight, 0);
      for (let i = 0; i < 100; i++) {
        assert.equal(client.completions[client.slots[i]], 1);
        assert.equal(client.statuses[client.slots[i]], -Errno.EIO);
      }
      assert.equal(await client.ask(Operation.FLUSH, 0, 0), -Errno.EIO);
      assert.equal(await client.leave(), false);
    }),
  );
}
