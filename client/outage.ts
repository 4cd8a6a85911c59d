/**
 * What the log says of lost connections: once that they went, and once that they came back.
 *
 * @module
 */
import { logger } from "../engine/control/log.ts";
import { printable } from "../engine/control/printable.ts";
import { formatDuration } from "../engine/duration.ts";

const log = logger("client");

const MINUTE_MS = 60_000;
/** So many outages of a minute are said, however short: on a link that breaks all the time the log would fill the disk. */
const OUTAGES_PER_MINUTE = 20;
/** Of the others those are said that are longer than this, in milliseconds. */
const BRIEF_MS = 1000;

/** Where it is said. */
export interface OutageLog {
  info(text: string): void;
  warning(text: string): void;
}

const LOG: OutageLog = {
  info: (text) => log.info("{text}", { text }),
  warning: (text) => log.warning("{text}", { text }),
};

/** A time without some of a session's lanes: from the first that is lost until all are back. */
export class Outage {
  readonly #log: OutageLog;
  readonly #now: () => number;
  readonly #lanes = new Set<number>();
  /** Since when outages are counted, and how many were said since then. */
  #minuteMs = -Infinity;
  #said = 0;
  /** Those that were not said since the last that was. */
  #brief = 0;
  #isSaid = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #awayMs = 0;
  #resent = 0;
  #expired = 0;
  #isKeptOut = false;

  /** @param now milliseconds of a clock that never goes back */
  constructor(log = LOG, now = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

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
    const now = this.#now();
    if (now - this.#minuteMs >= MINUTE_MS) {
      this.#minuteMs = now;
      this.#said = 0;
    }
    this.#isSaid = false;
    if (this.#said < OUTAGES_PER_MINUTE) this.#say(reason);
    else this.#timer = setTimeout(() => this.#say(reason), BRIEF_MS);
  }

  /** A lane has a connection again. */
  ended(lane: number, awayMs: number, resent: number): void {
    this.#lanes.delete(lane);
    this.#awayMs = Math.max(this.#awayMs, awayMs);
    this.#resent += resent;
    if (this.#lanes.size > 0) return;
    clearTimeout(this.#timer);
    if (this.#isSaid || this.#expired > 0) this.#sayEnd();
    else this.#brief++;
    this.#awayMs = 0;
    this.#resent = 0;
    this.#expired = 0;
    this.#isKeptOut = false;
  }

  /** The exporter is there, but does not let a lane back in. Said once. `reason` as above. */
  keptOut(reason: string): void {
    if (this.#isKeptOut) return;
    this.#isKeptOut = true;
    this.#log.warning(`There is no way back in for now: ${printable(reason)}; it is tried again and again`);
  }

  /** So many requests have failed, since there was no connection for too long. */
  expired(count: number): void {
    if (this.#expired === 0) {
      this.#log.warning("Requests fail from now on that have waited for too long for a connection");
    }
    this.#expired += count;
  }

  #say(reason: string): void {
    this.#isSaid = true;
    this.#said++;
    this.#log.warning(`${sentence(printable(reason))}; requests wait until there is a connection again`);
  }

  #sayEnd(): void {
    const failed = this.#expired === 0 ? "" : `, ${counted(this.#expired)} had failed`;
    const before = this.#brief === 0 ? "" : ` (as ${times(this.#brief)} before, after less than a second)`;
    this.#brief = 0;
    this.#log.info(
      `Connected again after ${formatDuration(this.#awayMs)}; ${counted(this.#resent)} sent again${failed}${before}`,
    );
  }
}

function sentence(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

function counted(count: number): string {
  return count === 1 ? "1 request" : `${count} requests`;
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}
