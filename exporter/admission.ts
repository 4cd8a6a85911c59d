/**
 * Whom the door lets in: rules, keys, and the limits for those who have not proved who they are. Without I/O; the time
 * is an argument.
 *
 * @module
 */
import type { SocketAddress } from "../ffi/sockaddr.ts";
import type { Limits } from "./config_security.ts";
import { type AccessRules, Permissions } from "./permissions.ts";
import { type AttemptLimits, LogLimiter, networkOf, RateLimiter } from "./rate_limit.ts";

/** All that can change while the exporter runs. It can be sent to another thread. */
export interface Access {
  readonly rules: AccessRules;
  /** The secrets of the rules' keys, whose ids have 32 hexadecimal digits. They become the receiver's. */
  readonly secrets: readonly { readonly id: string; readonly secret: Uint8Array<ArrayBuffer> }[];
  /** Numbers of the ciphers and digests that are accepted, the best first. */
  readonly ciphers: readonly number[];
  readonly digests: readonly number[];
  readonly limits: Limits;
}

/**
 * How a connection is received: as one that may prove who it is; as one that is told that there is no room; or not at
 * all. Until it has proved itself, and as long as it is there, it counts.
 */
export type Reception =
  | { readonly kind: "stranger" }
  | { readonly kind: "surplus"; readonly reason: string }
  | { readonly kind: "closed"; readonly reason: string };

/** Connections that are told at once that there is no room for them. Beyond it they are closed without a word. */
export const SURPLUS_MAX = 64;
/** Addresses whose attempts are remembered. */
const ADDRESSES_REMEMBERED = 4096;

/** Lets in, or not. */
export class Admission {
  permissions!: Permissions;
  readonly #write: (text: string) => void;
  #access!: Access;
  #secrets = new Map<string, Uint8Array>();
  #attemptLimits: AttemptLimits | null = null;
  #attempts!: RateLimiter;
  #log: LogLimiter | null = null;
  #strangers = 0;
  readonly #strangersOf = new Map<string, number>();
  #surplus = 0;

  /** @param write gets a line for the log */
  constructor(access: Access, write: (text: string) => void) {
    this.#write = write;
    this.replace(access);
  }

  /** What is accepted now. */
  get access(): Access {
    return this.#access;
  }

  /** Whether {@link tick} has to be called again. */
  get isHolding(): boolean {
    return this.#log!.isHolding;
  }

  /** Everything is decided by other rules from now on. Who is in stays in. */
  replace(access: Access): void {
    for (const secret of this.#secrets.values()) secret.fill(0);
    this.#secrets = new Map(access.secrets.map(({ id, secret }) => [id, secret]));
    this.#access = access;
    this.permissions = new Permissions(access.rules);
    const { attempts, logLinesPerMinute } = access.limits;
    const before = this.#attemptLimits;
    if (before === null || before.burst !== attempts.burst || before.perMinute !== attempts.perMinute) {
      this.#attemptLimits = { ...attempts, remembered: ADDRESSES_REMEMBERED };
      this.#attempts = new RateLimiter(this.#attemptLimits);
    }
    this.#log?.flush();
    this.#log = new LogLimiter(
      logLinesPerMinute,
      this.#write,
      (omitted) => `… and ${omitted} more such ${omitted === 1 ? "line" : "lines"} in the last minute`,
    );
  }

  /** A connection has come. If it was received as a stranger or as surplus, {@link gone} is to be called at its end. */
  receive(address: SocketAddress | null, nowMs: number): Reception {
    if (!this.permissions.admitsAddress(address)) return closed("nobody may connect from there");
    const reason = this.#noRoomFor(address, nowMs);
    if (reason === null) {
      this.#strangers++;
      this.#count(address, 1);
      return { kind: "stranger" };
    }
    if (this.#surplus >= SURPLUS_MAX) return closed(reason);
    this.#surplus++;
    return { kind: "surplus", reason };
  }

  /** One that was received is no stranger any more, or has gone. */
  gone(kind: "stranger" | "surplus", address: SocketAddress | null): void {
    if (kind === "surplus") {
      this.#surplus--;
      return;
    }
    this.#strangers--;
    this.#count(address, -1);
  }

  /**
   * The secret of a key; or why a peer is not to come in by it.
   *
   * @param id 32 hexadecimal digits
   */
  keyFor(id: string, address: SocketAddress | null): Uint8Array | string {
    return this.permissions.whyNot(id, address) ?? this.#secrets.get(id)!;
  }

  /** A peer has tried to prove who it is, and failed. */
  failed(address: SocketAddress | null, nowMs: number): void {
    if (address !== null) this.#attempts.take(address, nowMs);
  }

  /** A line about somebody who was refused: there are only so many in a minute. */
  log(text: string, nowMs: number): void {
    this.#log!.line(text, nowMs);
  }

  /** To be called now and then while {@link isHolding}. */
  tick(nowMs: number): void {
    this.#log!.tick(nowMs);
  }

  /** At the end: says what has not been said, and forgets the keys. */
  close(): void {
    this.#log!.flush();
    for (const secret of this.#secrets.values()) secret.fill(0);
  }

  #noRoomFor(address: SocketAddress | null, nowMs: number): string | null {
    if (address !== null && !this.#attempts.allows(address, nowMs)) {
      return "it has failed to prove who it is too often";
    }
    const { connections, connectionsPerAddress } = this.#access.limits;
    if (this.#strangers >= connections) return `${connections} connections have not proved yet who they are`;
    const network = address === null ? null : networkOf(address);
    if (network !== null && (this.#strangersOf.get(network) ?? 0) >= connectionsPerAddress) {
      return `${connectionsPerAddress} connections from there have not proved yet who they are`;
    }
    return null;
  }

  #count(address: SocketAddress | null, change: number): void {
    const network = address === null ? null : networkOf(address);
    if (network === null) return;
    const count = (this.#strangersOf.get(network) ?? 0) + change;
    if (count === 0) this.#strangersOf.delete(network);
    else this.#strangersOf.set(network, count);
  }
}

function closed(reason: string): Reception {
  return { kind: "closed", reason };
}
