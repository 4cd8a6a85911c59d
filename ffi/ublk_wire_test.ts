import assert from "node:assert/strict";
import {
  decodeDeviceInfo,
  descriptorsBytes,
  descriptorsOffset,
  encodeControlCommand,
  encodeDeviceInfo,
  encodeParameters,
  type UblkParameters,
} from "./ublk_wire.ts";

const PARAMETERS: UblkParameters = {
  sizeBytes: 2 ** 41 + 4096,
  logicalBlock: 512,
  physicalBlock: 4096,
  optimalIo: 262_144,
  maximumIoBytes: 262_144,
  readOnly: false,
  rotational: false,
  volatileCache: true,
  fua: true,
  discardGranularity: 4096,
  maximumDiscardBytes: 2 ** 30,
  maximumWriteZeroesBytes: 2 ** 42,
};

function hex(bytes: Uint8Array): string {
  return bytes.toHex();
}

Deno.test("parameters have the layout of struct ublk_params", () => {
  const expected = [
    "40000000 03000000", // len 64, types basic | discard
    "0c000000 09 0c 12 0c", // attrs volatile cache | fua, shifts: logical, physical, optimal, minimum
    "00020000 00000000", // max_sectors 512, chunk_sectors
    "0800000001000000", // dev_sectors 2^32 + 8
    "0000000000000000", // virt_boundary_mask
    "00000000 00100000 00002000 ffffffff", // discard: alignment, granularity, 2^21 sectors, write zeroes capped
    "0100 0000", // one segment
    "00000000",
  ].join("").replaceAll(" ", "");
  assert.equal(hex(encodeParameters(PARAMETERS)), expected);
});

Deno.test("parameters without discards and zeroes leave their part out", () => {
  const bytes = encodeParameters({
    ...PARAMETERS,
    discardGranularity: 0,
    maximumDiscardBytes: 0,
    maximumWriteZeroesBytes: 0,
    readOnly: true,
    rotational: true,
    volatileCache: false,
  });
  const view = new DataView(bytes.buffer);
  assert.equal(view.getUint32(4, true), 1);
  // FUA is left out where there is no cache.
  assert.equal(view.getUint32(8, true), 0b11);
  assert.ok(bytes.subarray(40).every((byte) => byte === 0));
});

Deno.test("zeroes without discards still carry a granularity, which the driver insists on", () => {
  const view = new DataView(encodeParameters({ ...PARAMETERS, discardGranularity: 0, maximumDiscardBytes: 0 }).buffer);
  assert.equal(view.getUint32(44, true), 512);
  assert.equal(view.getUint32(48, true), 0);
});

Deno.test("an optimal size that is no power of two is rounded down, and is never below the physical block", () => {
  assert.equal(encodeParameters({ ...PARAMETERS, optimalIo: 300_000 })[14], 18);
  assert.equal(encodeParameters({ ...PARAMETERS, optimalIo: 0 })[14], 12);
});

Deno.test("parameters that the driver would refuse are refused", () => {
  const wrong: Partial<UblkParameters>[] = [
    { logicalBlock: 256 },
    { logicalBlock: 1000 },
    { logicalBlock: 8192 },
    { physicalBlock: 6000 },
    { sizeBytes: 0 },
    { sizeBytes: 1000 },
    { sizeBytes: -512 },
    { sizeBytes: 2 ** 54 },
    { sizeBytes: NaN },
  ];
  for (const change of wrong) {
    assert.throws(() => encodeParameters({ ...PARAMETERS, ...change }), RangeError, JSON.stringify(change));
  }
});

Deno.test("a device's description goes both ways", () => {
  const info = { id: 7, queues: 2, queueDepth: 128, maximumIoBytes: 524_288, features: 0x58, serverPid: 4242 };
  const bytes = encodeDeviceInfo(info);
  assert.equal(
    hex(bytes.subarray(0, 40)),
    "0200800000000000" + "0000080007000000" + "9210000000000000" + "5800000000000000".padEnd(32, "0"),
  );
  assert.deepEqual(decodeDeviceInfo(bytes), { ...info, state: "dead" });
  bytes[4] = 2;
  assert.equal(decodeDeviceInfo(bytes).state, "quiesced");
  bytes[4] = 99;
  assert.equal(decodeDeviceInfo(bytes).state, "unknown");
});

Deno.test("a control command has the layout of struct ublksrv_ctrl_cmd", () => {
  const bytes = new Uint8Array(32).fill(0xee);
  encodeControlCommand(new DataView(bytes.buffer), 3, 0x7f00_1234_5678, 64, 4242);
  assert.equal(hex(bytes), "03000000" + "ffff" + "4000" + "78563412007f0000" + "9210000000000000" + "0".repeat(16));
});

Deno.test("descriptors are mapped by whole pages, each queue at the room for the largest depth", () => {
  assert.equal(descriptorsBytes(64, 4096), 4096);
  assert.equal(descriptorsBytes(170, 4096), 4096);
  assert.equal(descriptorsBytes(171, 4096), 8192);
  assert.equal(descriptorsBytes(1, 65_536), 65_536);
  assert.equal(descriptorsOffset(0, 4096), 0);
  assert.equal(descriptorsOffset(3, 4096), 3 * 98_304);
  assert.equal(descriptorsOffset(1, 65_536), 131_072);
});
