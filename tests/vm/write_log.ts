/**
 * The log of the kernel's `dm-log-writes`: all that was written to a disk, in the order in which a disk that loses
 * everything that is not flushed would have kept it. To end after any entry is what a loss of power may leave.
 *
 * The form is that of `struct log_write_super` and `struct log_write_entry` (drivers/md/dm-log-writes.c): the first
 * sector has the magic (u64), the version (u64), the number of entries (u64) and the bytes of a sector (u32); then each
 * entry has a sector with its first sector on the disk, its sectors, flags and the bytes of its mark (u64 each, followed
 * by the mark), and behind it what was written. Everything is little-endian.
 *
 * @module
 */

/** `WRITE_LOG_MAGIC` and `WRITE_LOG_VERSION`. */
const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
/** `sizeof(struct log_write_entry)`. */
const ENTRY_BYTES = 32;

/** `LOG_*_FLAG`. */
export const WriteFlag = { FLUSH: 1, FUA: 2, DISCARD: 4, MARK: 8 } as const;

/** What happened to the disk. */
export interface WriteEntry {
  /** On the disk, in bytes. */
  readonly offset: number;
  readonly length: number;
  /** A `WriteFlag` set. */
  readonly flags: number;
  /** What `dmsetup message … mark` was given; empty for all else. */
  readonly mark: string;
  /** Where in the log its data is. */
  readonly dataAt: number;
}

/** Reads what is in a log, whose device must be gone. */
export function readWriteLog(log: Deno.FsFile): WriteEntry[] {
  const head = new DataView(readAt(log, 0, 28).buffer);
  if (head.getBigUint64(0, true) !== MAGIC || head.getBigUint64(8, true) !== VERSION) {
    throw new Error("Cannot read the log of writes: it has another form");
  }
  const count = number(head, 16);
  const sectorBytes = head.getUint32(24, true);
  const entries: WriteEntry[] = [];
  let at = sectorBytes;
  for (let i = 0; i < count; i++) {
    const bytes = readAt(log, at, sectorBytes);
    const view = new DataView(bytes.buffer);
    const flags = number(view, 16);
    const mark = new TextDecoder().decode(bytes.subarray(ENTRY_BYTES, ENTRY_BYTES + number(view, 24)));
    const length = number(view, 8) * sectorBytes;
    entries.push({
      offset: number(view, 0) * sectorBytes,
      length,
      flags,
      mark: (flags & WriteFlag.MARK) === 0 ? "" : mark,
      dataAt: at + sectorBytes,
    });
    at += sectorBytes;
    if ((flags & WriteFlag.DISCARD) === 0) at += length;
  }
  return entries;
}

/** Does to the image of a disk what was done to the disk. What was discarded is zero. */
export function applyWrite(log: Deno.FsFile, { offset, length, flags, dataAt }: WriteEntry, image: Deno.FsFile): void {
  if (length === 0) return;
  const data = (flags & WriteFlag.DISCARD) === 0 ? readAt(log, dataAt, length) : new Uint8Array(length);
  image.seekSync(offset, Deno.SeekMode.Start);
  for (let done = 0; done < length;) done += image.writeSync(data.subarray(done));
}

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let done = 0; done < length;) {
    const read = file.readSync(bytes.subarray(done));
    if (read === null) throw new Error(`Cannot read the log of writes: it ends before byte ${offset + length}`);
    done += read;
  }
  return bytes;
}

function number(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}
