/**
 * What the demo writes to and reads from, and the pattern that it writes.
 *
 * @module
 */

/** A disk that the demo drives. */
export interface DemoDisk {
  /** How many requests are worth having under way at once. */
  readonly concurrency: number;
  /** In bytes. */
  readonly size: number;
  write(offset: number, data: Uint8Array): Promise<void>;
  read(offset: number, into: Uint8Array): Promise<void>;
  /** What was written is on stable storage afterwards. */
  flush(): Promise<void>;
  /** What is read afterwards comes from the disk, not from this machine's memory. */
  dropCache(): Promise<void>;
  close(): Promise<void>;
}

/** A file or block device, through the page cache. */
export class FileDisk implements DemoDisk {
  /** The page cache makes the requests; the file's one position allows one caller. */
  readonly concurrency = 1;
  #file: Deno.FsFile;

  private constructor(readonly path: string, file: Deno.FsFile, readonly size: number) {
    this.#file = file;
  }

  /** Opens it for reading and writing. */
  static open(path: string): FileDisk {
    const file = Deno.openSync(path, { read: true, write: true });
    return new FileDisk(path, file, file.seekSync(0, Deno.SeekMode.End));
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    await this.#file.seek(offset, Deno.SeekMode.Start);
    for (let written = 0; written < data.length;) written += await this.#file.write(data.subarray(written));
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#file.seek(offset, Deno.SeekMode.Start);
    for (let filled = 0; filled < into.length;) {
      const count = await this.#file.read(into.subarray(filled));
      if (count === null) throw new Error(`${this.path} ends at ${offset + filled}`);
      filled += count;
    }
  }

  async flush(): Promise<void> {
    await this.#file.sync();
  }

  /** The kernel drops a block device's pages when its last user closes it. */
  dropCache(): Promise<void> {
    this.#file.close();
    this.#file = Deno.openSync(this.path, { read: true, write: true });
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#file.close();
    return Promise.resolve();
  }
}

/** The pieces in which the demo writes and reads. */
export const CHUNK_BYTES = 256 * 1024;

/** Fills a chunk with what belongs at its place: a stream of xorshift32 numbers, another one for each seed and chunk. */
export function fillPattern(chunk: Uint32Array, seed: number, index: number): void {
  let state = (Math.imul(seed ^ index, 0x9e3779b1) ^ (index + 1)) | 1;
  for (let i = 0; i < chunk.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    chunk[i] = state;
  }
}

/** Writes the pattern to the first so many bytes, a multiple of the chunk, and flushes. */
export async function writePattern(disk: DemoDisk, bytes: number, seed: number): Promise<void> {
  await eachChunk(disk, bytes, async (index, chunk) => {
    fillPattern(chunk, seed, index);
    await disk.write(index * CHUNK_BYTES, new Uint8Array(chunk.buffer));
  });
  await disk.flush();
}

/**
 * Reads the first so many bytes and compares them with the pattern.
 *
 * @throws {Error} that says where the first difference is
 */
export async function verifyPattern(disk: DemoDisk, bytes: number, seed: number): Promise<void> {
  const expected = new Uint32Array(CHUNK_BYTES / 4);
  await eachChunk(disk, bytes, async (index, chunk) => {
    await disk.read(index * CHUNK_BYTES, new Uint8Array(chunk.buffer));
    // Filled after the read: it is shared by all that run at once, and nothing here waits any more.
    fillPattern(expected, seed, index);
    const wrong = firstDifference(chunk, expected);
    if (wrong >= 0) {
      throw new Error(`What was read differs from what was written at byte ${index * CHUNK_BYTES + wrong * 4}`);
    }
  });
}

/** The index of the first word that differs, or -1. A loop, as it must keep up with the disk. */
export function firstDifference(found: Uint32Array, expected: Uint32Array): number {
  const words = Math.min(found.length, expected.length);
  for (let i = 0; i < words; i++) if (found[i] !== expected[i]) return i;
  return found.length === expected.length ? -1 : words;
}

async function eachChunk(
  disk: DemoDisk,
  bytes: number,
  work: (index: number, chunk: Uint32Array<ArrayBuffer>) => Promise<void>,
): Promise<void> {
  const count = bytes / CHUNK_BYTES;
  let next = 0;
  const runner = async () => {
    const chunk = new Uint32Array(CHUNK_BYTES / 4);
    while (next < count) await work(next++, chunk);
  };
  await Promise.all(Array.from({ length: disk.concurrency }, runner));
}
