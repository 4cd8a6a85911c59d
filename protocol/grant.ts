/**
 * What is said at the door, as objects, and the TLVs of a successful answer to OPEN or JOIN (SPEC.md, section 6).
 * Control plane only, so it may allocate.
 *
 * @module
 */
import { assert } from "./assert.ts";
import { Status } from "./status.ts";
import { Tlv, type TlvReader, TlvWriter } from "./tlv.ts";

/** What a session may do: the values of the wire. */
export const Access = { READ: 0, READ_WRITE: 1 } as const;

/** What an export is and can do, a bit set: the values of the wire. */
export const Feature = {
  VOLATILE_CACHE: 1,
  DISCARD: 2,
  WRITE_ZEROES: 4,
  FAST_ZERO: 8,
  BLOCK_STATUS: 16,
  CACHE: 32,
  SHARED: 64,
  READ_ONLY: 128,
} as const;

/** Bytes of a session id and of the opaque identities. */
export const IDENTITY_BYTES = 16;

/** What a client compares before it resumes (SPEC.md, 6.2). The first three have {@link IDENTITY_BYTES}. */
export interface Identities {
  readonly instance: Uint8Array;
  readonly durability: Uint8Array;
  readonly storage: Uint8Array;
  /** A safe integer. */
  readonly writeEpoch: number;
}

/** Sizes in bytes, of an export. */
export interface ExportShape {
  readonly size: number;
  readonly logicalBlock: number;
  readonly physicalBlock: number;
  readonly optimalIo: number;
  /** 0: DISCARD is not supported. */
  readonly discardGranularity: number;
}

/** Answer to a successful OPEN or JOIN. */
export interface Grant extends ExportShape {
  /** An {@link Access}. */
  readonly access: number;
  /** A {@link Feature} set. */
  readonly features: number;
  readonly identities: Identities;
  /** Slots of each lane: its depth. */
  readonly slots: number;
  /** The longest READ or WRITE, in bytes. */
  readonly maxPayload: number;
  /** Bytes of READs and WRITEs that may be under way on each lane. */
  readonly payloadBytes: number;
  /** How long the session stays without a lane, in ms. */
  readonly leaseMs: number;
  /** How many lanes the session may have. */
  readonly lanes: number;
}

/** Who holds an export. */
export interface Holder {
  /** An {@link Access}. */
  readonly access: number;
  /** `NAME at ADDRESS`. */
  readonly text: string;
}

/** Answer to a successful DESCRIBE. */
export interface Description extends ExportShape {
  /** The {@link Access} that this peer may have. */
  readonly access: number;
  /** A {@link Feature} set. */
  readonly features: number;
  readonly identities: Identities;
  /** Who holds the export read-write, if anybody does. */
  readonly current: Holder | null;
}

/** One export in the answer to LIST. */
export interface ListEntry {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** The {@link Access} that this peer may have. */
  readonly access: number;
  /** A {@link Feature} set. */
  readonly features: number;
}

/** What a client that comes back requires to find (OPEN's RESUME). */
export interface Resume {
  readonly storage: Uint8Array;
  readonly durability: Uint8Array;
  readonly writeEpoch: number;
}

/** OPEN: makes a session. A wish that is null is left to the exporter. */
export interface OpenRequest {
  readonly export: string;
  /** {@link IDENTITY_BYTES}, not all zero. */
  readonly session: Uint8Array;
  /** An {@link Access}. */
  readonly access: number;
  /** Who the client is, for people. */
  readonly holder: string;
  readonly leaseMs: number | null;
  readonly depth: number | null;
  readonly maxPayload: number | null;
  readonly lanes: number | null;
  /** End the present holder. */
  readonly steal: boolean;
  readonly resume: Resume | null;
}

/** JOIN: connects a lane, or connects it again. */
export interface JoinRequest {
  /** {@link IDENTITY_BYTES}, not all zero. */
  readonly session: Uint8Array;
  readonly lane: number;
  /** From 1, and above the lane's present one. */
  readonly generation: number;
  readonly depth: number | null;
  readonly maxPayload: number | null;
  /** Clear the lane's slot table. */
  readonly fresh: boolean;
}

/** The types of a {@link Grant}'s TLVs. */
export const GRANT_TLVS: readonly number[] = [
  Tlv.SIZE,
  Tlv.BLOCKS,
  Tlv.ACCESS,
  Tlv.FEATURES,
  Tlv.IDENTITIES,
  Tlv.CREDITS,
  Tlv.LEASE,
  Tlv.LANES,
];

/** Writes SIZE and BLOCKS. */
export function writeShape(writer: TlvWriter, shape: ExportShape): void {
  writer.uint64(Tlv.SIZE, shape.size);
  writer.uint32s(Tlv.BLOCKS, shape.logicalBlock, shape.physicalBlock, shape.optimalIo, shape.discardGranularity);
}

/** Writes IDENTITIES. */
export function writeIdentities(writer: TlvWriter, identities: Identities): void {
  const value = new Uint8Array(3 * IDENTITY_BYTES + 8);
  let at = 0;
  for (const identity of [identities.instance, identities.durability, identities.storage]) {
    assert(identity.length === IDENTITY_BYTES, "an identity has 16 bytes");
    value.set(identity, at);
    at += IDENTITY_BYTES;
  }
  new DataView(value.buffer).setBigUint64(at, BigInt(identities.writeEpoch), true);
  writer.value(Tlv.IDENTITIES, value);
}

/** The TLVs of a successful answer to OPEN or JOIN. */
export function encodeGrant(grant: Grant): Uint8Array {
  const writer = new TlvWriter();
  writeShape(writer, grant);
  writer.uint32s(Tlv.ACCESS, grant.access);
  writer.uint64(Tlv.FEATURES, grant.features);
  writeIdentities(writer, grant.identities);
  const credits = new Uint8Array(16);
  const view = new DataView(credits.buffer);
  view.setUint32(0, grant.slots, true);
  view.setUint32(4, grant.maxPayload, true);
  view.setBigUint64(8, BigInt(grant.payloadBytes), true);
  writer.value(Tlv.CREDITS, credits);
  writer.uint32s(Tlv.LEASE, grant.leaseMs);
  writer.uint32s(Tlv.LANES, grant.lanes);
  return writer.bytes.slice();
}

/** Reads SIZE and BLOCKS, or null if one is missing or malformed. */
export function readShape(reader: TlvReader): ExportShape | null {
  const size = reader.uint64(Tlv.SIZE);
  const blocks = reader.uint32s(Tlv.BLOCKS, 4);
  if (size === null || blocks === null || reader.status !== Status.OK) return null;
  const [logicalBlock, physicalBlock, optimalIo, discardGranularity] = blocks;
  return { size, logicalBlock, physicalBlock, optimalIo, discardGranularity };
}

/** Reads IDENTITIES, or null if it is missing or malformed. */
export function readIdentities(reader: TlvReader): Identities | null {
  const value = reader.value(Tlv.IDENTITIES, 3 * IDENTITY_BYTES + 8);
  if (value === null) return null;
  const writeEpoch = reader.uint64Of(value, 3 * IDENTITY_BYTES);
  if (reader.status !== Status.OK) return null;
  return {
    instance: value.slice(0, IDENTITY_BYTES),
    durability: value.slice(IDENTITY_BYTES, 2 * IDENTITY_BYTES),
    storage: value.slice(2 * IDENTITY_BYTES, 3 * IDENTITY_BYTES),
    writeEpoch,
  };
}

/**
 * Reads a grant as its TLVs say it, or null if one is missing or malformed. Whether its numbers are usable is for the
 * caller to check.
 *
 * @param reader over the answer's payload, accepting {@link GRANT_TLVS}
 */
export function decodeGrant(reader: TlvReader): Grant | null {
  const shape = readShape(reader);
  const identities = readIdentities(reader);
  const access = reader.uint32(Tlv.ACCESS);
  const features = reader.uint64(Tlv.FEATURES);
  const credits = reader.value(Tlv.CREDITS, 16);
  const leaseMs = reader.uint32(Tlv.LEASE);
  const lanes = reader.uint32(Tlv.LANES);
  if (shape === null || identities === null || access === null || features === null) return null;
  if (credits === null || leaseMs === null || lanes === null) return null;
  const view = new DataView(credits.buffer);
  const payloadBytes = reader.uint64Of(credits, 8);
  if (reader.status !== Status.OK) return null;
  const slots = view.getUint32(0, true);
  const maxPayload = view.getUint32(4, true);
  return { ...shape, access, features, identities, slots, maxPayload, payloadBytes, leaseMs, lanes };
}
