/**
 * What the log says of lost connections: once that they went, and once that they came back.
 *
 * @module
 */
import { logger } from "../engine/control/log.ts";
import { printable } from "../engine/control/printable.ts";
import { formatDuration } from "../engine/duration.ts";

const log = logger("client");

/** A time without some of a session's lanes: from the first that is lost until all are back. */
export class Outage {
  readonly #lanes = new Set<number>();
  #awayMs = 0;
  #resent = 0;
  #expired = 0;
  #isKeptOut = false;

  /** The lanes that have no connection. */
  get lanes(): Iterable<number> {
    return this.#lanes;
  }

  /**
   * A lane has lost its connection.
   *
   * @param reason for people, without a capital or a full stop
   */
  began(lane: number, reason: string): void {
    this.#lanes.add(lane);
    if (this.#lanes.size > 1) return;
    log.warning("{text}", { text: `${sentence(printable(reason))}; requests wait until there is a connection again` });
  }

  /** A lane has a connection again. */
  ended(lane: number, awayMs: number, resent: number): void {
    this.#lanes.delete(lane);
    this.#awayMs = Math.max(this.#awayMs, awayMs);
    this.#resent += resent;
    if (this.#lanes.size > 0) return;
    const failed = this.#expired === 0 ? "" : `, ${counted(this.#expired)} had failed`;
    log.info("{text}", {
      text: `Connected again after ${formatDuration(this.#awayMs)}; ${counted(this.#resent)} sent again${failed}`,
    });
    this.#awayMs = 0;
    this.#resent = 0;
    this.#expired = 0;
    this.#isKeptOut = false;
  }

  /** The exporter is there, but does not let a lane back in. Said once. `reason` as above. */
  keptOut(reason: string): void {
    if (this.#isKeptOut) return;
    this.#isKeptOut = true;
    log.warning("{text}", {
      text: `There is no way back in for now: ${printable(reason)}; it is tried again and again`,
    });
  }

  /** So many requests have failed, since there was no connection for too long. */
  expired(count: number): void {
    if (this.#expired === 0) {
      log.warning("{text}", { text: "Requests fail from now on that have waited for too long for a connection" });
    }
    this.#expired += count;
  }
}

function sentence(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

function counted(count: number): string {
  return count === 1 ? "1 request" : `${count} requests`;
}
