/**
 * A disk in a block device.
 *
 * @module
 */
import { BlockIoctl } from "../../ffi/constants.ts";
import { errnoMessage } from "../../ffi/errno.ts";
import { ioctlNumber } from "../../ffi/libc.ts";
import type { Geometry } from "../../engine/block.ts";
import { ExportError, powerOfTwoWithin, SECTOR_BYTES } from "./disk.ts";
import { FileBackend } from "./file.ts";

/**
 * A block device is driven like a file, fallocate included: its PUNCH_HOLE has the device unmap the range so that it
 * reads as zeroes (or answers EOPNOTSUPP), its ZERO_RANGE zeroes it allocated and falls back to writing zeroes (fs of
 * block devices, `blkdev_fallocate`). The ioctls BLKDISCARD and BLKZEROOUT do the same work, but they block the calling
 * Worker until the device is done, for seconds on a large range, and the ring cannot carry them; and they leave stale
 * pages in the cache, which fallocate drops.
 */
export class BlockDeviceBackend extends FileBackend {
  /** No system call tells what is allocated, so all of it is. */
  protected override blockStatus(slot: number): number {
    this.addExtent(slot, this.slots.length[slot], 0);
    return 0;
  }
}

/** What is known of a block device. */
export interface BlockDeviceStatus {
  readonly size: number;
  /** Everything of the geometry but the size. */
  readonly geometry: Omit<Geometry, "size">;
  /** The device zeroes a range by itself. */
  readonly zeroes: boolean;
  /** See `OpenedDisk`. */
  readonly forcesWrites: boolean;
}

/**
 * Examines an open block device.
 *
 * @param path as the user gave it, for messages
 * @param direct it is open with O_DIRECT
 * @throws {ExportError}
 */
export function examineBlockDevice(
  path: string,
  fd: number,
  major: number,
  minor: number,
  readOnly: boolean,
  direct: boolean,
): BlockDeviceStatus {
  const ask = (request: number, what: string): number => {
    const answer = ioctlNumber(fd, request);
    if (answer < 0) throw new ExportError(path, `it does not tell its ${what}: ${errnoMessage(answer)}`);
    return answer;
  };
  if (!readOnly && ask(BlockIoctl.READ_ONLY, "access mode") !== 0) {
    throw new ExportError(path, "the device is read-only; export it with --read-only");
  }
  const logicalBlock = Math.max(SECTOR_BYTES, ask(BlockIoctl.LOGICAL_BLOCK, "logical block size"));
  const physicalBlock = Math.max(logicalBlock, ask(BlockIoctl.PHYSICAL_BLOCK, "physical block size"));
  const optimalIo = ask(BlockIoctl.OPTIMAL_IO, "optimal I/O size");
  const queue = openQueue(major, minor);
  const zeroes = Number(queue("write_zeroes_max_bytes")) > 0;
  const writesThrough = queue("write_cache") === "write through";
  // A device that discards but cannot promise zeroes gets no PUNCH_HOLE from the kernel.
  const discards = zeroes && Number(queue("discard_max_bytes")) > 0;
  return {
    size: ask(BlockIoctl.SIZE, "size"),
    zeroes,
    // Where the kernel would follow up each write with a flush of its own, one for all that wait is better. A file is
    // out of the question: its file system may use the page cache in spite of O_DIRECT.
    forcesWrites: direct && (writesThrough || queue("fua") === "1"),
    geometry: {
      logicalBlock,
      physicalBlock,
      // A stripe of, say, three chunks is no alignment that front-ends can express.
      optimalIo: powerOfTwoWithin(optimalIo, physicalBlock, optimalIo) === optimalIo ? optimalIo : physicalBlock,
      discardGranularity: discards ? Math.max(logicalBlock, Number(queue("discard_granularity"))) : 0,
      readOnly,
      // Without O_DIRECT the page cache is one, whatever the device has.
      volatileCache: !direct || !writesThrough,
      fastZero: zeroes,
    },
  };
}

/**
 * The reader of the device's queue attributes (Documentation/ABI/stable/sysfs-block); a partition has its disk's. What
 * is missing is answered as an empty text.
 */
function openQueue(major: number, minor: number): (attribute: string) => string {
  let folder: string;
  try {
    folder = Deno.realPathSync(`/sys/dev/block/${major}:${minor}`);
    if (readOrEmpty(`${folder}/partition`) !== "") folder = folder.slice(0, folder.lastIndexOf("/"));
  } catch {
    return () => "";
  }
  return (attribute) => readOrEmpty(`${folder}/queue/${attribute}`);
}

function readOrEmpty(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch {
    return "";
  }
}
