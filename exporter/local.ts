/**
 * Disks of this machine for other uses than exporting: with the same locks, and the same back-ends.
 *
 * @module
 */
import type { BlockDevice } from "../engine/block.ts";
import type { Engine } from "../engine/engine.ts";
import { closeBackend, ExportError, makeBackend, makeStickyWord, openBackend } from "./backends/open.ts";

/**
 * Opens a file or block device on an engine.
 *
 * @param write otherwise it is opened for reading, beside other readers
 * @throws {Error} one line that says what could not be opened and why
 */
export function openLocal(path: string, write: boolean, engine: Engine): { device: BlockDevice; close(): void } {
  try {
    const disk = openBackend({ path, readOnly: !write, direct: false });
    try {
      const device = makeBackend(disk, engine.loop, engine.slots, makeStickyWord());
      return {
        device,
        close: () => {
          device.close();
          closeBackend(disk);
        },
      };
    } catch (error) {
      closeBackend(disk);
      throw error;
    }
  } catch (error) {
    if (!(error instanceof ExportError)) throw error;
    throw new Error(error.message.replace(/^Cannot export /, "Cannot open "));
  }
}
