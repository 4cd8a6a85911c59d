/**
 * Connections to exporters on an engine's loop: a socket, then the protocol's door.
 *
 * @module
 */
import { cipherName, digestName } from "../engine/control/algorithms.ts";
import type { Engine } from "../engine/engine.ts";
import { type Stream, STREAM_SCRATCH_BYTES, type StreamOwner } from "../engine/stream.ts";
import { SocketLevel, SocketOption } from "../ffi/constants.ts";
import { Errno, errnoMessage } from "../ffi/errno.ts";
import type { CompletionHandler } from "../ffi/loop.ts";
import { encodeSockaddr, formatSocketAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import {
  CLIENT_DOOR_SCRATCH_BYTES,
  ClientDoor,
  type ClientDoorConfig,
  type ClientDoorHost,
} from "../protocol/client_door.ts";
import type { DoorKey } from "../protocol/client_hello.ts";
import type { Handoff } from "../protocol/codec.ts";
import { ProtocolError, protocolErrorText } from "../protocol/error.ts";
import type { Description, Grant, Holder, ListEntry } from "../protocol/grant.ts";
import { KEY_BYTES } from "../protocol/guard.ts";
import { HANDSHAKE_TIME_MS } from "../protocol/limits.ts";
import { Status } from "../protocol/status.ts";
import { Cipher } from "../protocol/wire.ts";

/** How long the kernel may try to reach one address, in milliseconds: two lost SYNs (1 + 2 s) are survived. */
export const CONNECT_MS = 5000;
/** How often at least it is looked whether an answer is overdue, in milliseconds. */
const WATCH_MS = 1000;
/** Connections that may be in the making at once. */
const CONNECTING_MAX = 64;
/** Digits of a key's id in messages. */
const KEY_ID_DIGITS = 8;

if (CLIENT_DOOR_SCRATCH_BYTES > STREAM_SCRATCH_BYTES) throw new Error("The door's scratch does not fit its stream's");

/** The key of a connection, with its name for messages. */
export interface ChannelKey extends DoorKey {
  readonly name: string;
}

/** Where an exporter is, and how it is spoken to. */
export interface ConnectTarget {
  /** As people write it: `HOST:PORT`. */
  readonly where: string;
  /** What its name stands for, in the order in which to try them; at least one. */
  readonly addresses: readonly SocketAddress[];
  /** The wire's numbers of the ciphers that are acceptable, the best first; none at all where it is left out. */
  readonly ciphers?: readonly number[];
  /** The wire's numbers of the digests that are acceptable, the best first. */
  readonly digests: readonly number[];
  /** The key that both sides have; without one nobody proves who they are. */
  readonly key?: ChannelKey | null;
  /** How long to try each address, in milliseconds; {@link CONNECT_MS} where it is left out. */
  readonly connectMs?: number;
  /** How long each answer at the door may take, in milliseconds; `HANDSHAKE_TIME_MS` where it is left out. */
  readonly answerMs?: number;
}

/** Who goes on with a connection that has become a lane. */
export interface GrantedLane extends Pick<StreamOwner, "onSent" | "onClosed"> {
  /** Called from within the machine's `granted`; the stream's events follow. */
  connect(stream: Stream, handoff: Handoff): void;
  /** Bytes have arrived. */
  onHeard(): void;
}

/** What is done at the door. */
export interface DoorVisit {
  /** The door is open: make the request. */
  ready(door: ClientDoor): void;
  listed?(entries: readonly ListEntry[], more: boolean): void;
  described?(description: Description): void;
  /** The connection is a lane: the answer is the session that goes on with it, or null to end it. */
  granted?(grant: Grant): GrantedLane | null;
  /** The answer waits until the exporter has finished what was sent before: it is alive. */
  fencing?(): void;
  /** The request was refused; the connection is to be ended, or another request made. */
  refused(status: number, text: string, current: Holder | null): void;
  /**
   * There is no connection (any more), and it was not this side that ended it.
   *
   * @param reason for people
   * @param isRefusal the exporter is there and does not speak with this client, and that does not pass by itself
   */
  failed(reason: string, isRefusal: boolean): void;
}

/** Makes the connections of one engine. */
export class Connector implements CompletionHandler {
  readonly engine: Engine;
  readonly #kind: number;
  readonly #connecting: (DoorConnection | null)[] = new Array<DoorConnection | null>(CONNECTING_MAX).fill(null);

  constructor(engine: Engine) {
    this.engine = engine;
    this.#kind = engine.loop.register(this);
  }

  /** Connects, and goes to the door. What comes of it is told from a later turn of the engine. */
  connect(target: ConnectTarget, visit: DoorVisit): DoorConnection {
    return new DoorConnection(this, target, visit);
  }

  /** @ignore by {@link DoorConnection}: false when there is no room. */
  start(connection: DoorConnection, fd: number, sockaddrAt: number, sockaddrBytes: number): boolean {
    const tag = this.#connecting.indexOf(null);
    if (tag < 0) return false;
    this.#connecting[tag] = connection;
    this.engine.loop.connect(fd, sockaddrAt, sockaddrBytes, this.#kind, tag, 0);
    return true;
  }

  complete(tag: number, _generation: number, result: number): void {
    const connection = this.#connecting[tag]!;
    this.#connecting[tag] = null;
    connection.connected(result);
  }
}

/** One connection, until it is a session's or ended. */
export class DoorConnection implements StreamOwner, ClientDoorHost {
  readonly #connector: Connector;
  readonly #target: ConnectTarget;
  readonly #visit: DoorVisit;
  readonly #reasons: string[] = [];
  #next = 0;
  #fd = -1;
  /** A slot for the address, while the kernel reads it. */
  #slots: Uint32Array | null = null;
  #stream: Stream | null = null;
  #door: ClientDoor | null = null;
  #session: GrantedLane | null = null;
  /** When the answer that is awaited has to be there, in the engine's milliseconds. */
  #dueAt = 0;
  #failure: string | null = null;
  #isRefusal = false;
  #ended = false;

  /** @ignore made by {@link Connector.connect} */
  constructor(connector: Connector, target: ConnectTarget, visit: DoorVisit) {
    this.#connector = connector;
    this.#target = target;
    this.#visit = visit;
    // From a turn, so that the visit never hears of it from within connect().
    connector.engine.timers.schedule({ expire: () => this.#tryNext() }, 0, connector.engine.now);
  }

  /** The one of the target's addresses that was reached. From `ready` on. */
  get address(): SocketAddress {
    return this.#target.addresses[this.#next - 1];
  }

  /** The cipher that was agreed on: the wire's number. From `ready` on. */
  get cipher(): number {
    return this.#door!.cipher;
  }

  /** The digest that was agreed on: the wire's number. From `ready` on. */
  get digest(): number {
    return this.#door!.digest;
  }

  /** Whether nothing of it is left, neither in the kernel nor in the engine. Not for one that has become a session's. */
  get isGone(): boolean {
    return this.#stream === null && this.#slots === null;
  }

  /** Ends the connection; the visit hears of nothing any more. */
  end(): void {
    this.#ended = true;
    this.#stream?.close();
  }

  /** @ignore by {@link Connector} */
  connected(result: number): void {
    const { engine } = this.#connector;
    engine.slots.release(this.#slots!);
    this.#slots = null;
    if (result < 0 || this.#ended) {
      engine.loop.calls.close(this.#fd);
      this.#miss(result);
      return;
    }
    engine.loop.calls.setNoDelay(this.#fd);
    // From here on pings find a dead peer.
    engine.loop.calls.setOption(this.#fd, SocketLevel.TCP, SocketOption.TCP_USER_TIMEOUT, 0);
    const stream = engine.streams.open(this.#fd, this);
    if (stream === null) {
      engine.loop.calls.close(this.#fd);
      this.#visit.failed("there is no memory for a connection", false);
      return;
    }
    this.#stream = stream;
    this.#door = new ClientDoor(engine.arena, engine.cryptography, stream.scratchAt, doorConfigOf(this.#target), this);
    stream.start(this.#door);
    this.#door.start();
    this.#awaitAnswer();
    this.#watch();
  }

  // The machine's host.

  transmit(at: number, bytes: number): void {
    this.#stream!.transmit(at, bytes);
  }

  ready(): void {
    this.#awaitAnswer();
    this.#visit.ready(this.#door!);
  }

  listed(entries: readonly ListEntry[], more: boolean): void {
    this.#awaitAnswer();
    this.#visit.listed?.(entries, more);
  }

  described(description: Description): void {
    this.#awaitAnswer();
    this.#visit.described?.(description);
  }

  granted(grant: Grant): void {
    const session = this.#visit.granted?.(grant) ?? null;
    if (session === null) {
      this.end();
      return;
    }
    this.#session = session;
    session.connect(this.#stream!, this.#door!.handoff());
    this.#door!.close();
  }

  refused(status: number, text: string, current: Holder | null): void {
    this.#awaitAnswer();
    this.#visit.refused(status, text, current);
  }

  /** The exporter is alive, and ends what the present holder still does. */
  fencing(): void {
    this.#awaitAnswer();
    this.#visit.fencing?.();
  }

  failed(text: string, status: number): void {
    this.#failure = this.#explain(text, status);
    const { error } = this.#door!;
    this.#isRefusal = status === Status.OK
      ? error === ProtocolError.AUTHENTICATION || error === ProtocolError.MAGIC
      : status !== Status.TOO_MANY;
  }

  // The stream's owner, until there is a session.

  onHeard(): void {
    this.#session?.onHeard();
  }

  onSent(stream: Stream, token: number): void {
    this.#session?.onSent(stream, token);
  }

  onDrained(): void {}

  onClosed(stream: Stream, errno: number): void {
    this.#stream = null;
    if (this.#session !== null) {
      this.#session.onClosed(stream, errno);
      return;
    }
    const reason = this.#failure ?? this.#explainEnd(errno);
    const isRefusal = this.#isRefusal || (this.#failure === null && this.#door!.isAuthenticating);
    this.#door!.close();
    if (!this.#ended) this.#visit.failed(reason, isRefusal);
  }

  #tryNext(): void {
    // Before it has begun.
    if (this.#ended) return;
    const address = this.#target.addresses[this.#next++];
    const { engine } = this.#connector;
    this.#fd = engine.loop.calls.streamSocket(address);
    if (this.#fd < 0) {
      this.#miss(this.#fd);
      return;
    }
    // The kernel itself gives up then: a connect under way can be interrupted in no other way that both loops know.
    engine.loop.calls.setOption(
      this.#fd,
      SocketLevel.TCP,
      SocketOption.TCP_USER_TIMEOUT,
      this.#target.connectMs ?? CONNECT_MS,
    );
    this.#slots = engine.slots.reserve(1);
    const sockaddr = encodeSockaddr(address);
    const at = this.#slots === null ? 0 : engine.slots.payloadAt(this.#slots[0]);
    if (this.#slots !== null) engine.arena.bytes.set(sockaddr, at);
    if (this.#slots === null || !this.#connector.start(this, this.#fd, at, sockaddr.length)) {
      engine.loop.calls.close(this.#fd);
      if (this.#slots !== null) engine.slots.release(this.#slots);
      this.#slots = null;
      this.#visit.failed("there is no memory for a connection", false);
    }
  }

  /** An address could not be reached: the next, or the end. */
  #miss(errno: number): void {
    if (this.#ended) return;
    const { addresses, where } = this.#target;
    const address = formatSocketAddress(addresses[this.#next - 1]);
    this.#reasons.push(unreachable(errno, address === where ? where : `${where} (${address})`));
    if (this.#next < addresses.length) this.#tryNext();
    else this.#visit.failed([...new Set(this.#reasons)].join("; "), false);
  }

  /** Why the exporter has ended the connection without a word, before there was a session. */
  #explainEnd(errno: number): string {
    const { where } = this.#target;
    if (this.#door!.isAuthenticating) {
      return `authentication failed: ${where} ended the connection during the handshake: the ${this.#keyName} is not ` +
        "known there, or is not the same, or does not admit this address (see --key)";
    }
    const why = errno === 0 ? "closed the connection" : `dropped the connection (${errnoMessage(errno)})`;
    if (this.#door!.cipher >= 0) {
      return `${where} ${why} before it had answered: it was stopped, or somebody else has taken the export meanwhile`;
    }
    return `${where} ${why} before it had answered: is it a DST exporter, and does it admit this address?`;
  }

  /** For messages: enough of the id to compare it with what the other side shows. */
  get #keyName(): string {
    const { name, id } = this.#target.key!;
    return `key ${name} (id ${id.toHex().slice(0, KEY_ID_DIGITS)}...)`;
  }

  #explain(text: string, status: number): string {
    const { where } = this.#target;
    const { error } = this.#door!;
    switch (status) {
      case Status.OK:
        if (error === ProtocolError.MAGIC) return `what listens on ${where} is not a DST exporter`;
        if (error === ProtocolError.AUTHENTICATION) {
          return `authentication failed: what answers on ${where} does not have the ${this.#keyName}, or somebody on ` +
            "the way changes what is said (see --key)";
        }
        return `the answer of ${where} makes no sense: ${protocolErrorText(error)}`;
      case Status.VERSION:
        return `${where} speaks another version of the protocol (${text}): update the older of the two`;
      case Status.NO_COMMON_ALGORITHM:
        return this.#explainAlgorithms();
      case Status.KEY_REQUIRED:
        return `${where} admits nobody without a key: give it with --key FILE (dst keygen makes one, for both sides)`;
      case Status.TOO_MANY:
        return `${where} has too many connections at the moment (${text}): try again later`;
      default:
        return `${where} refuses: ${text}`;
    }
  }

  /** What of the two lists does not go together. */
  #explainAlgorithms(): string {
    const { where, digests, ciphers = [Cipher.NONE] } = this.#target;
    const { acceptedCiphers, acceptedDigests } = this.#door!;
    if (!ciphers.some((cipher) => acceptedCiphers.includes(cipher))) {
      // Nothing but "none" is what an exporter accepts that has no key.
      const isOpen = acceptedCiphers.every((cipher) => cipher === Cipher.NONE);
      return `there is no cipher in common: ${where} accepts ${listOf(acceptedCiphers, cipherName)}, this side ` +
        `${listOf(ciphers, cipherName)} (${isOpen ? "was the exporter started without --key? " : ""}see --cipher)`;
    }
    return `there is no digest in common: ${where} accepts ${listOf(acceptedDigests, digestName)}, this side ` +
      `${listOf(digests, digestName)} (see --digest)`;
  }

  /** From now on the exporter has its time for the next answer, which single bytes do not prolong. */
  #awaitAnswer(): void {
    // Not the turn's time: that is from before the turn has waited.
    this.#dueAt = this.#connector.engine.now + this.#answerMs;
  }

  get #answerMs(): number {
    return this.#target.answerMs ?? HANDSHAKE_TIME_MS;
  }

  /** Ends a connection whose exporter does not answer. */
  #watch(): void {
    const { engine } = this.#connector;
    if (this.#stream === null || this.#session !== null) return;
    if (engine.now >= this.#dueAt) {
      this.#failure ??= `${this.#target.where} timed out: it gave no answer within ${this.#answerMs / 1000} s`;
      this.#stream.close();
      return;
    }
    // Not later, or the timers of connections that have long ended would add up where each of many lives shortly.
    engine.timers.schedule({ expire: () => this.#watch() }, 0, Math.min(this.#dueAt, engine.now + WATCH_MS));
  }
}

function doorConfigOf({ ciphers = [Cipher.NONE], digests, key = null }: ConnectTarget): ClientDoorConfig {
  const ephemeral = new Uint8Array(KEY_BYTES);
  return { ciphers, digests, key, ephemeral: key === null ? ephemeral : crypto.getRandomValues(ephemeral) };
}

function listOf(numbers: readonly number[], nameOf: (number: number) => string): string {
  return numbers.map(nameOf).join(", ") || "none known here";
}

/** Why an address could not be reached. */
function unreachable(errno: number, where: string): string {
  switch (-errno) {
    case Errno.ECONNREFUSED:
      return `the connection was refused by ${where}: is the exporter running, and listening on that address?`;
    case Errno.ETIMEDOUT:
      return `${where} timed out: is it there, and does a firewall let the port through?`;
    case Errno.EHOSTUNREACH:
    case Errno.ENETUNREACH:
      return `${where} is unreachable (${errnoMessage(errno)})`;
    default:
      return `${where} could not be reached: ${errnoMessage(errno)}`;
  }
}
