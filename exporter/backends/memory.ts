/**
 * A disk in memory.
 *
 * @module
 */
import { errnoMessage } from "../../ffi/errno.ts";
import { close, ftruncate, memfdCreate } from "../../ffi/libc.ts";
import { ExportError } from "./disk.ts";
import { FileBackend } from "./file.ts";

/**
 * A disk in memory is a file without a name (memfd_create): sparse, with holes and everything else that a file on tmpfs
 * has, and done on the spot. It is gone with the process, flushed or not, so a FLUSH has nothing to do.
 */
export class MemoryBackend extends FileBackend {}

/**
 * Makes an empty disk in memory. Only what is written takes memory.
 *
 * @param path as the user gave it (`mem:SIZE`), for messages
 * @param size in bytes
 * @returns its descriptor
 * @throws {ExportError}
 */
export function createMemoryFile(path: string, size: number): number {
  const fd = memfdCreate("dst");
  if (fd < 0) throw new ExportError(path, errnoMessage(fd));
  const result = ftruncate(fd, size);
  if (result < 0) {
    close(fd);
    throw new ExportError(path, errnoMessage(result));
  }
  return fd;
}
