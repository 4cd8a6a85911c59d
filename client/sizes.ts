/**
 * How large an export is, and what whoever uses it here sees of that.
 *
 * @module
 */
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import { formatSize } from "../engine/size.ts";
import type { Frontend } from "./attach.ts";
import type { LaneThreads } from "./lane_threads.ts";

const log = logger("client");

/** A device is smaller than its export by less than this: the largest block of one is a page. */
const BLOCK_BYTES_MAX = 4096;

/** What is told of it. */
export interface SizesState {
  /** What the device has, in bytes. */
  readonly size: number;
  /** What the export has. */
  readonly exportSize: number;
  /** What there is to say to people since the export has another size, or null. */
  readonly resized: string | null;
}

/** What has sizes: the front-end of an attachment. */
type Resizable = Pick<Frontend, "device" | "nbd" | "size" | "resize">;

/** The sizes of one attachment. */
export class Sizes {
  readonly #frontend: Resizable;
  #size: number;
  #exportSize: number;
  #resized: string | null = null;
  #following: Promise<void> = Promise.resolve();

  /** @param threads tell when the export has another size */
  constructor(threads: Pick<LaneThreads, "shape" | "onResized">, frontend: Resizable) {
    this.#frontend = frontend;
    this.#size = frontend.size;
    this.#exportSize = threads.shape.geometry.size;
    // A device that is gone on with may have been left behind by its export.
    const behind = this.#exportSize - this.#size;
    if (behind < 0 || behind >= BLOCK_BYTES_MAX) this.#queue();
    threads.onResized((size) => {
      this.#exportSize = size;
      this.#queue();
    });
  }

  /** How it is now. */
  get state(): SizesState {
    return { size: this.#size, exportSize: this.#exportSize, resized: this.#resized };
  }

  /** Resolves when whoever uses it sees what there is to see of the sizes that were told so far. */
  get settled(): Promise<void> {
    return this.#following;
  }

  /** One after the other, each to what the export has by then. */
  #queue(): void {
    this.#following = this.#following.then(() => this.#follow());
  }

  async #follow(): Promise<void> {
    const bytes = this.#exportSize;
    const { device, nbd } = this.#frontend;
    const place = device ?? nbd;
    let size: number | null = null;
    try {
      size = await this.#frontend.resize(bytes);
    } catch (error) {
      log.warning("{text}", { text: `${place} keeps its size: ${messageOf(error)}` });
    }
    const now = `the export has ${formatSize(bytes)} now`;
    if (size === null) {
      const beyond = bytes < this.#size ? "what is beyond its end fails; " : "";
      this.#resized = `${now}, ${place} ${formatSize(this.#size)}: ${beyond}detach and attach to see the new size`;
      log.warning("{text}", { text: capitalized(this.#resized) });
      return;
    }
    this.#size = size;
    this.#resized = device === null ? `${now}: NBD clients that connect from now on see it` : null;
    log.info("{text}", { text: capitalized(this.#resized ?? `${now}, and so has ${place}`) });
  }
}

function capitalized(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}
