/**
 * Opening a session and joining its lanes: resolving the exporter's name, asking for the export, and saying why not.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { formatHostPort, formatRemote, type HostPort } from "../engine/control/address.ts";
import { cipherNumbers, digestNumbers } from "../engine/control/algorithms.ts";
import { printable } from "../engine/control/printable.ts";
import type { Engine } from "../engine/engine.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import { ipAddress, type SocketAddress } from "../ffi/sockaddr.ts";
import { Access, type Grant, type Holder, IDENTITY_BYTES } from "../protocol/grant.ts";
import { Status } from "../protocol/status.ts";
import type { ClientDoor } from "../protocol/client_door.ts";
import type { Connector, ConnectTarget } from "./connector.ts";
import { KEEPER_SLOTS } from "./keeper.ts";
import { MutationLedger } from "./ledger.ts";
import type { ChannelOptions } from "./options.ts";
import { OverlapTable } from "./overlap.ts";
import { leaseMs, type Patience } from "./patience.ts";
import type { ReconnectPlan } from "./reconnect.ts";
import type { ReplayRoom } from "./replay_log.ts";
import { ClientSession, type LanePlace, type SessionOwner } from "./session.ts";

/** What is to be opened, and how. It can be sent to another thread. */
export interface OpenOptions {
  readonly target: ConnectTarget;
  /** Of the export. */
  readonly name: string;
  readonly readOnly: boolean;
  /** Take it from whoever holds it. */
  readonly steal: boolean;
  /** Requests that may be in flight at once; the exporter may grant another number. */
  readonly depth: number;
  /** Who the client is, for people. */
  readonly holder: string;
  /** How many lanes are wished for, where more than the one is; the exporter may grant fewer. */
  readonly lanes?: number;
  /** The session's id, where its lanes are to be joined: 16 random bytes. */
  readonly session?: Uint8Array;
  /** The memory of the session's {@link MutationLedger}, where several threads share it. */
  readonly ledger?: SharedArrayBuffer;
  /** The memory of its {@link OverlapTable}, likewise, with room for the slots of each lane's thread. */
  readonly overlaps?: { readonly memory: SharedArrayBuffer; readonly slotsOfLane: number };
  /** Room for copies of what the exporter may lose with its memory; without it that is lost. Only with patience. */
  readonly replay?: ReplayRoom;
  /** How long the session lives without its connection; without it no longer than that. */
  readonly patience?: Patience;
}

/** What a patient session needs of the world. */
export type Surroundings = Pick<ReconnectPlan, "lookup" | "random">;

const ALONE: Surroundings = { lookup: null, random: Math.random };

/** A session that was granted. */
export interface OpenedSession {
  readonly session: ClientSession;
  /** The wire's number of the cipher that was agreed on. */
  readonly cipher: number;
  /** The wire's number of the digest that was agreed on. */
  readonly digest: number;
  /** Where the exporter was reached. */
  readonly address: SocketAddress;
}

/**
 * Looks up an exporter's addresses.
 *
 * @param channel how it is to be spoken to; the target has the very key, not a copy
 * @throws {Error} when the name stands for none; the message does not say what for
 */
export async function resolveTarget(
  { host, port }: HostPort,
  { ciphers, digests, key }: Pick<ChannelOptions, "ciphers" | "digests" | "key">,
): Promise<ConnectTarget> {
  const where = formatHostPort(host, port);
  const target = { where, ciphers: cipherNumbers(ciphers), digests: digestNumbers(digests), key };
  const addresses = await lookUp({ host, port });
  if (addresses.length === 0) throw new Error(`the name ${host} is not known`);
  return { ...target, addresses };
}

/** What a host's name stands for at the moment, or what its address is; none where it is not known. */
export async function lookUp({ host, port }: HostPort): Promise<SocketAddress[]> {
  const numeric = ipAddress(host, port);
  if (numeric !== null) return [numeric];
  const found = await lookup(host, { all: true }).catch(() => []);
  return found.map(({ address }) => ipAddress(address, port))
    .filter((address): address is SocketAddress => address !== null);
}

/** Whether a host is named by its address, so that there is nothing to look up. */
export function isAddress({ host, port }: HostPort): boolean {
  return ipAddress(host, port) !== null;
}

/** A session in the making. */
export interface Opening {
  /** Gives up: neither `opened` nor `failed` is called any more. Not after one of them. */
  cancel(): void;
}

/**
 * Opens a session, without waiting: `opened` or `failed` is called from a later turn of the engine.
 *
 * @param owner is told of the session's end
 * @param failed gets the reason, for people, without a capital or a full stop
 * @param around how a patient session finds its way back; without it by the addresses that are known
 */
export function openSession(
  connector: Connector,
  options: OpenOptions,
  owner: SessionOwner,
  opened: (result: OpenedSession) => void,
  failed: (reason: string) => void,
  around = ALONE,
): Opening {
  const request = {
    export: options.name,
    session: options.session ?? crypto.getRandomValues(new Uint8Array(IDENTITY_BYTES)),
    access: options.readOnly ? Access.READ : Access.READ_WRITE,
    holder: options.holder,
    leaseMs: options.patience === undefined ? null : leaseMs(options.patience),
    depth: options.depth,
    maxPayload: SLOT_PAYLOAD_BYTES,
    lanes: options.lanes ?? 1,
    steal: options.steal,
    resume: null,
  };
  const { session } = request;
  return enter(connector, { ...options, session }, 0, (door) => door.open(request), owner, opened, failed, around);
}

/**
 * Joins a lane of a session that was opened on another connection, perhaps by another thread; as {@link openSession}.
 *
 * @param options with those the session was opened, its id among them
 * @param lane 1 to one less than the granted number
 */
export function joinLane(
  connector: Connector,
  options: OpenOptions & { readonly session: Uint8Array },
  lane: number,
  owner: SessionOwner,
  opened: (result: OpenedSession) => void,
  failed: (reason: string) => void,
  around = ALONE,
): Opening {
  const { session, depth } = options;
  const request = { session, lane, generation: 1, depth, maxPayload: SLOT_PAYLOAD_BYTES, fresh: false };
  return enter(connector, options, lane, (door) => door.join(request), owner, opened, failed, around);
}

/** What is known of a session whose process is gone. It can be sent to another thread. */
export interface RecoveredSession {
  /** What the exporter has granted last. */
  readonly grant: Grant;
  /** Where it was reached. */
  readonly address: SocketAddress;
  /** The wire's numbers of what was agreed on. */
  readonly cipher: number;
  readonly digest: number;
  /** No lane of it has had a higher generation. */
  readonly generation: number;
}

/**
 * Makes a lane of a session whose process is gone. It has no connection yet and is on its way back already, so that requests
 * wait; whether the exporter lets it come back, the owner is told.
 *
 * @param options with those the session was opened, its id and its patience among them
 * @throws {Error} without memory for it
 */
export function recoverLane(
  connector: Connector,
  options: OpenOptions & { readonly session: Uint8Array },
  lane: number,
  { grant, address, generation }: RecoveredSession,
  owner: SessionOwner,
  around: Surroundings,
): ClientSession {
  const { engine } = connector;
  const plan = planOf(connector, options, lane, address, around);
  if (plan === null) throw new Error("a session without patience cannot be recovered");
  const controlSlots = engine.slots.reserve(sessionSlots(options));
  if (controlSlots === null) throw new Error("there is no memory for a session");
  const place = placeOf(engine, options, lane, { ...plan, generation }, controlSlots);
  return new ClientSession(engine, controlSlots, grant, owner, { ...place, isRecovered: true });
}

function enter(
  connector: Connector,
  options: OpenOptions & { readonly session: Uint8Array },
  lane: number,
  ask: (door: ClientDoor) => void,
  owner: SessionOwner,
  opened: (result: OpenedSession) => void,
  failed: (reason: string) => void,
  around: Surroundings,
): Opening {
  const { engine } = connector;
  const { patience } = options;
  const controlSlots = engine.slots.reserve(sessionSlots(options));
  if (controlSlots === null) {
    let isCancelled = false;
    const tell = () => isCancelled || failed("there is no memory for a session");
    engine.timers.schedule({ expire: tell }, 0, engine.now);
    return { cancel: () => isCancelled = true };
  }
  let session: ClientSession | null = null;
  const target = patience === undefined ? options.target : { ...options.target, connectMs: patience.connectMs };
  const connection = connector.connect(target, {
    ready: ask,
    granted: (grant) => {
      // Once the session has its stream, and the lane's first frames are taken.
      const { cipher, digest, address } = connection;
      const plan = planOf(connector, options, lane, address, around);
      const place = placeOf(engine, options, lane, plan, controlSlots);
      const granted = new ClientSession(engine, controlSlots, grant, owner, place);
      session = granted;
      const tell = () => session !== null && opened({ session: granted, cipher, digest, address });
      engine.timers.schedule({ expire: tell }, 0, engine.now);
      return granted;
    },
    refused: (status, text, current) => {
      connection.end();
      engine.slots.release(controlSlots);
      failed(refusalText(options, status, text, current));
    },
    failed: (reason) => {
      engine.slots.release(controlSlots);
      failed(reason);
    },
  });
  return {
    cancel: () => {
      if (session !== null) {
        session.close();
        session = null;
        return;
      }
      connection.end();
      engine.slots.release(controlSlots);
    },
  };
}

/** How many of the Worker's slots a session takes: the first for its own messages. */
function sessionSlots({ replay }: Pick<OpenOptions, "replay">): number {
  return replay === undefined ? 1 : 1 + KEEPER_SLOTS;
}

function placeOf(
  engine: Engine,
  options: OpenOptions,
  lane: number,
  plan: ReconnectPlan | null,
  slots: Uint32Array,
): LanePlace {
  const { overlaps, replay: room } = options;
  const ledger = new MutationLedger(options.ledger);
  const replay = room === undefined ? null : { room, slots: slots.slice(1) };
  if (overlaps === undefined) return { lane, ledger, plan, replay };
  if (engine.slots.count > overlaps.slotsOfLane) throw new Error("There is no room for all slots of the lane's thread");
  return { lane, ledger, plan, replay, overlaps: new OverlapTable(overlaps.memory, lane * overlaps.slotsOfLane) };
}

function planOf(
  connector: Connector,
  options: OpenOptions & { readonly session: Uint8Array },
  lane: number,
  address: SocketAddress,
  around: Surroundings,
): ReconnectPlan | null {
  const { patience, target, session, name, readOnly, holder, depth, lanes = 1 } = options;
  if (patience === undefined) return null;
  const wishes = { session, lane, name, readOnly, holder, depth, maxPayload: SLOT_PAYLOAD_BYTES, lanes };
  return { connector, target, patience, address, ...wishes, ...around };
}

/** What an export is called in messages: `HOST/NAME`, or with the port where it is not the usual one. */
export function nameOfRemote({ host, port, name }: HostPort & { readonly name: string }): string {
  return printable(formatRemote(host, port, name));
}

/** Why an exporter did not grant a session or tell about an export, and what to do. */
export function refusalText(
  { target, name, readOnly, steal }: Pick<OpenOptions, "target" | "name" | "readOnly" | "steal">,
  status: number,
  text: string,
  current: Holder | null,
): string {
  const { where } = target;
  const shown = printable(name);
  switch (status) {
    case Status.NOT_FOUND:
      return `there is no export "${shown}" on ${where}: see dst list ${where}`;
    case Status.DENIED:
      return readOnly
        ? `${where} does not permit it: ${printable(text)}`
        : `no permission to write (${printable(text)}): reading alone may do, with --read-only`;
    case Status.BUSY: {
      const holder = current === null ? "somebody else" : printable(current.text);
      return `it is held by ${holder}: --read-only reads beside it, --steal takes it over${
        steal ? " (which was tried)" : ""
      }, and with --shared at the exporter several may write`;
    }
    case Status.NO_RESOURCES:
      return `${where} cannot take another client: ${printable(text)}`;
    case Status.NO_SESSION:
      return `${where} has ended the session meanwhile: ${printable(text)}`;
    default:
      return `${where} refuses: ${printable(text)}`;
  }
}
