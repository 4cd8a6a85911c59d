/**
 * Questions to an exporter that need no session.
 *
 * @module
 */
import { formatHostPort } from "../engine/control/address.ts";
import { messageOf } from "../engine/control/failure.ts";
import { Access, type Description as WireDescription, Feature, type ListEntry } from "../protocol/grant.ts";
import type { ClientDoor } from "../protocol/client_door.ts";
import { Connector, type ConnectTarget, type DoorVisit } from "./connector.ts";
import { makeLocalEngine, turnUntil } from "./local_engine.ts";
import { nameOfRemote, refusalText, resolveTarget } from "./open.ts";
import { type ChannelOptions, cryptoFor } from "./options.ts";

/** Slots of the engine: one for the address, one for the connection. */
const SLOTS = 2;

/** An export as a list shows it. */
export interface ListedExport {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** What this client may do at most. */
  readonly access: "read-only" | "read-write";
  /** Names of what it can do: `volatile-cache`, `discard`, `write-zeroes`, `fast-zero`, `block-status`, `cache`, ... */
  readonly features: readonly string[];
}

/** All that an exporter says of an export to somebody who does not hold it. */
export interface Description extends ListedExport {
  /** Block sizes and granularity, in bytes. */
  readonly logicalBlock: number;
  readonly physicalBlock: number;
  readonly optimalIo: number;
  readonly discardGranularity: number;
  /** 32 hexadecimal digits each; the write epoch is a decimal number. */
  readonly identities: {
    readonly instance: string;
    readonly durabilityEpoch: string;
    readonly storage: string;
    readonly writeEpoch: string;
  };
  /** Who holds it read-write (`NAME at ADDRESS`), or null. */
  readonly holder: string | null;
}

/** Names of the wire's features, in the order in which they are shown. */
const FEATURE_NAMES: readonly (readonly [number, string])[] = [
  [Feature.READ_ONLY, "read-only"],
  [Feature.SHARED, "shared"],
  [Feature.VOLATILE_CACHE, "volatile-cache"],
  [Feature.DISCARD, "discard"],
  [Feature.WRITE_ZEROES, "write-zeroes"],
  [Feature.FAST_ZERO, "fast-zero"],
  [Feature.BLOCK_STATUS, "block-status"],
  [Feature.CACHE, "cache"],
];

/**
 * All exports that this client may use, sorted by name.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function listExports(host: string, port: number, options: ChannelOptions): Promise<ListedExport[]> {
  const what = `list the exports of ${formatHostPort(host, port)}`;
  return visit<ListedExport[]>(what, host, port, "", options, (answer, door) => {
    const found: ListedExport[] = [];
    return {
      ready: () => door().list(""),
      listed: (entries, more) => {
        for (const entry of entries) found.push(listedOf(entry));
        if (more) door().list(entries[entries.length - 1].name);
        else answer(found);
      },
    };
  });
}

/**
 * Describes one export.
 *
 * @throws {Error} one line that says what could not be done and why
 */
export function describeExport(
  host: string,
  port: number,
  name: string,
  options: ChannelOptions,
): Promise<Description> {
  const what = `describe ${nameOfRemote({ host, port, name })}`;
  return visit<Description>(what, host, port, name, options, (answer, door) => ({
    ready: () => door().describe(name),
    described: (description) => answer(descriptionOf(name, description)),
  }));
}

/** Goes to an exporter's door, and gives the answer that is got there. */
async function visit<Answer>(
  what: string,
  host: string,
  port: number,
  name: string,
  options: ChannelOptions,
  plan: (answer: (value: Answer) => void, door: () => ClientDoor) => Pick<DoorVisit, "listed" | "described"> & {
    ready(): void;
  },
): Promise<Answer> {
  let outcome: { readonly value: Answer } | { readonly reason: string } | null = null;
  try {
    const target: ConnectTarget = await resolveTarget({ host, port }, options);
    const engine = makeLocalEngine(options.loop, SLOTS, cryptoFor(options));
    try {
      let door: ClientDoor;
      const steps = plan((value) => outcome = { value }, () => door);
      const connection = new Connector(engine).connect(target, {
        ...steps,
        ready: (opened) => {
          door = opened;
          steps.ready();
        },
        refused: (status, text, current) => {
          outcome = { reason: refusalText({ target, name, readOnly: true, steal: false }, status, text, current) };
        },
        failed: (reason) => outcome = { reason },
      });
      await turnUntil(engine, () => outcome !== null);
      connection.end();
      await turnUntil(engine, () => connection.isGone);
    } finally {
      engine.close();
    }
  } catch (error) {
    outcome = { reason: messageOf(error) };
  }
  const { value, reason } = outcome! as { value?: Answer; reason?: string };
  if (reason !== undefined) throw new Error(`Cannot ${what}: ${reason}`);
  return value!;
}

function listedOf({ name, size, access, features }: ListEntry): ListedExport {
  return {
    name,
    size,
    access: access === Access.READ_WRITE ? "read-write" : "read-only",
    features: FEATURE_NAMES.filter(([bit]) => (features & bit) !== 0).map(([, text]) => text),
  };
}

function descriptionOf(name: string, description: WireDescription): Description {
  const { identities } = description;
  return {
    ...listedOf({ ...description, name }),
    logicalBlock: description.logicalBlock,
    physicalBlock: description.physicalBlock,
    optimalIo: description.optimalIo,
    discardGranularity: description.discardGranularity,
    identities: {
      instance: identities.instance.toHex(),
      durabilityEpoch: identities.durability.toHex(),
      storage: identities.storage.toHex(),
      writeEpoch: String(identities.writeEpoch),
    },
    holder: description.current?.text ?? null,
  };
}
