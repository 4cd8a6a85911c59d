/**
 * What another process of the same user has in its memory, by Linux's /proc: to look for secrets that were to be wiped.
 *
 * @module
 */
import { Buffer } from "node:buffer";

/** Memory that is reserved in such lengths is an arena, hardly any of which was ever touched; keys are not in there. */
const MAPPING_BYTES_MAX = 256 * 1024 * 1024;
const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Counts the places of a process's memory, of the heap and the rest that it can write, in which these bytes are.
 *
 * @param bytes at least 1
 */
export function countInMemory(pid: number, bytes: Uint8Array): number {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  using memory = Deno.openSync(`/proc/${pid}/mem`);
  let count = 0;
  for (const mapping of Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n")) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(mapping);
    if (range === null) continue;
    const [from, to] = [parseInt(range[1], 16), parseInt(range[2], 16)];
    if (to - from > MAPPING_BYTES_MAX) continue;
    // Chunks overlap by what could lie across two of them.
    for (let at = from; at < to; at += CHUNK_BYTES - bytes.length + 1) {
      const wanted = chunk.subarray(0, Math.min(CHUNK_BYTES, to - at));
      const read = wanted.subarray(0, readAt(memory, at, wanted));
      for (let i = read.indexOf(bytes); i >= 0; i = read.indexOf(bytes, i + 1)) count++;
    }
  }
  return count;
}

/** Reads what can be read: a mapping may be gone by now. */
function readAt(memory: Deno.FsFile, at: number, into: Uint8Array): number {
  try {
    memory.seekSync(at, Deno.SeekMode.Start);
    return memory.readSync(into) ?? 0;
  } catch {
    return 0;
  }
}
