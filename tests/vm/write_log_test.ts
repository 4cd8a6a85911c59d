import assert from "node:assert/strict";
import { applyWrite, readWriteLog, WriteFlag } from "./write_log.ts";

/** A log as the kernel writes it, with sectors of 512 bytes. */
function makeLog(entries: { sector: number; sectors: number; flags: number; mark?: string; fill?: number }[]) {
  const parts: Uint8Array[] = [];
  const head = new DataView(new ArrayBuffer(512));
  [0x6a736677736872n, 1n, BigInt(entries.length)].forEach((value, i) => head.setBigUint64(8 * i, value, true));
  head.setUint32(24, 512, true);
  parts.push(new Uint8Array(head.buffer));
  for (const { sector, sectors, flags, mark = "", fill } of entries) {
    const entry = new DataView(new ArrayBuffer(512));
    [sector, sectors, flags, mark.length].forEach((value, i) => entry.setBigUint64(8 * i, BigInt(value), true));
    const bytes = new Uint8Array(entry.buffer);
    new TextEncoder().encodeInto(mark, bytes.subarray(32));
    parts.push(bytes);
    if (fill !== undefined) parts.push(new Uint8Array(sectors * 512).fill(fill));
  }
  return parts;
}

function withFiles(parts: Uint8Array[], use: (log: Deno.FsFile, image: Deno.FsFile) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    using log = Deno.openSync(`${folder}/log`, { read: true, write: true, create: true });
    for (const part of parts) log.writeSync(part);
    using image = Deno.openSync(`${folder}/image`, { read: true, write: true, create: true });
    image.truncateSync(4096);
    use(log, image);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("a log of writes is read and done again, entry by entry", () => {
  const log = makeLog([
    { sector: 1, sectors: 2, flags: 0, fill: 1 },
    { sector: 0, sectors: 0, flags: WriteFlag.FLUSH },
    { sector: 0, sectors: 0, flags: WriteFlag.MARK, mark: "first" },
    { sector: 2, sectors: 1, flags: WriteFlag.FUA, fill: 2 },
    { sector: 1, sectors: 1, flags: WriteFlag.DISCARD },
    { sector: 7, sectors: 1, flags: WriteFlag.FLUSH | WriteFlag.FUA, fill: 3 },
  ]);
  withFiles(log, (file, image) => {
    const entries = readWriteLog(file);
    assert.deepEqual(entries.map(({ offset, length, flags, mark }) => [offset, length, flags, mark]), [
      [512, 1024, 0, ""],
      [0, 0, WriteFlag.FLUSH, ""],
      [0, 0, WriteFlag.MARK, "first"],
      [1024, 512, WriteFlag.FUA, ""],
      [512, 512, WriteFlag.DISCARD, ""],
      [3584, 512, WriteFlag.FLUSH | WriteFlag.FUA, ""],
    ]);
    const sectors = () => {
      const bytes = new Uint8Array(4096);
      image.seekSync(0, Deno.SeekMode.Start);
      assert.equal(image.readSync(bytes), 4096);
      return Array.from({ length: 8 }, (_, i) => bytes[512 * i + 511]);
    };
    applyWrite(file, entries[0], image);
    assert.deepEqual(sectors(), [0, 1, 1, 0, 0, 0, 0, 0]);
    for (const entry of entries.slice(1)) applyWrite(file, entry, image);
    assert.deepEqual(sectors(), [0, 0, 2, 0, 0, 0, 0, 3]);
  });
});

Deno.test("what is no log of writes, or ends too early, is refused", () => {
  withFiles([new Uint8Array(512)], (file) => assert.throws(() => readWriteLog(file), /another form/));
  const log = makeLog([{ sector: 1, sectors: 2, flags: 0 }, { sector: 0, sectors: 0, flags: WriteFlag.FLUSH }]);
  withFiles(log, (file) => assert.throws(() => readWriteLog(file), /ends before/));
});
