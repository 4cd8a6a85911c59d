/**
 * What is asked of an exporter's door, and what it grants (SPEC.md, section 6).
 *
 * @module
 */
import assert from "node:assert/strict";
import { Tlv } from "../../protocol/tlv.ts";
import { join, readTlvs, tlv, tlv32, tlvText } from "./bytes.ts";

/** What an OPEN asks for. */
export interface OpenFields {
  readonly session?: Uint8Array;
  /** 0 read, 1 read-write. */
  readonly access?: number;
  readonly holder?: string;
  readonly leaseMs?: number;
  readonly depth?: number;
  readonly maxPayload?: number;
  readonly lanes?: number;
  readonly steal?: boolean;
  /** Storage, durability, u64 write epoch: 40 bytes. */
  readonly resume?: Uint8Array;
}

/** The TLVs of OPEN. */
export function openTlvs(name: string, fields: OpenFields = {}): Uint8Array {
  const pieces = [
    tlvText(Tlv.EXPORT, name),
    tlv(Tlv.SESSION, fields.session ?? crypto.getRandomValues(new Uint8Array(16))),
    tlv32(Tlv.ACCESS, [fields.access ?? 1]),
    tlvText(Tlv.HOLDER, fields.holder ?? "the suite"),
  ];
  const wishes = [
    [Tlv.LEASE, fields.leaseMs],
    [Tlv.DEPTH, fields.depth],
    [Tlv.PAYLOAD, fields.maxPayload],
    [Tlv.LANES, fields.lanes],
  ] as const;
  for (const [type, value] of wishes) if (value !== undefined) pieces.push(tlv32(type, [value]));
  if (fields.steal) pieces.push(tlv(Tlv.STEAL, [], 1));
  if (fields.resume !== undefined) pieces.push(tlv(Tlv.RESUME, fields.resume, 1));
  return join(...pieces);
}

/** What a JOIN asks for. */
export interface JoinFields {
  readonly lane?: number;
  readonly generation: number;
  readonly fresh?: boolean;
}

/** The TLVs of JOIN. */
export function joinTlvs(session: Uint8Array, fields: JoinFields): Uint8Array {
  return join(
    tlv(Tlv.SESSION, session),
    tlv32(Tlv.LANE, [fields.lane ?? 0]),
    tlv32(Tlv.GENERATION, [fields.generation]),
    fields.fresh ? tlv(Tlv.FRESH, [], 1) : new Uint8Array(0),
  );
}

/** What a successful OPEN or JOIN grants. Sizes in bytes. */
export interface GrantFields {
  readonly size: number;
  readonly logicalBlock: number;
  readonly physicalBlock: number;
  readonly optimalIo: number;
  readonly discardGranularity: number;
  readonly access: number;
  readonly features: number;
  readonly slots: number;
  readonly maxPayload: number;
  readonly payloadBytes: number;
  readonly leaseMs: number;
  readonly lanes: number;
  readonly instance: Uint8Array;
  readonly durability: Uint8Array;
  readonly storage: Uint8Array;
  readonly writeEpoch: bigint;
}

/** Reads SIZE, BLOCKS, ACCESS, FEATURES, IDENTITIES and, where they are there, CREDITS, LEASE and LANES. */
export function readGrant(payload: Uint8Array): GrantFields {
  const tlvs = readTlvs(payload);
  const view = (type: number, bytes: number) => {
    const values = tlvs.get(type);
    if (values === undefined) return new DataView(new ArrayBuffer(bytes));
    assert.equal(values.length, 1, `TLV ${type} stands once`);
    assert.equal(values[0].length, bytes, `the length of TLV ${type}`);
    return new DataView(values[0].buffer, values[0].byteOffset, bytes);
  };
  for (const type of [Tlv.SIZE, Tlv.BLOCKS, Tlv.ACCESS, Tlv.FEATURES, Tlv.IDENTITIES]) {
    assert.ok(tlvs.has(type), `TLV ${type} is there`);
  }
  const blocks = view(Tlv.BLOCKS, 16);
  const credits = view(Tlv.CREDITS, 16);
  const identities = tlvs.get(Tlv.IDENTITIES)![0];
  return {
    size: Number(view(Tlv.SIZE, 8).getBigUint64(0, true)),
    logicalBlock: blocks.getUint32(0, true),
    physicalBlock: blocks.getUint32(4, true),
    optimalIo: blocks.getUint32(8, true),
    discardGranularity: blocks.getUint32(12, true),
    access: view(Tlv.ACCESS, 4).getUint32(0, true),
    features: Number(view(Tlv.FEATURES, 8).getBigUint64(0, true)),
    slots: credits.getUint32(0, true),
    maxPayload: credits.getUint32(4, true),
    payloadBytes: Number(credits.getBigUint64(8, true)),
    leaseMs: view(Tlv.LEASE, 4).getUint32(0, true),
    lanes: view(Tlv.LANES, 4).getUint32(0, true),
    instance: identities.slice(0, 16),
    durability: identities.slice(16, 32),
    storage: identities.slice(32, 48),
    writeEpoch: view(Tlv.IDENTITIES, 56).getBigUint64(48, true),
  };
}
