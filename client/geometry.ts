/**
 * What a granted export is like, and what it can do, in the words of the block interface.
 *
 * @module
 */
import { type Geometry, Operation } from "../engine/block.ts";
import { Access, Feature, type Grant } from "../protocol/grant.ts";

/** The disk that a session has. */
export function geometryOf(grant: Grant): Geometry {
  const readOnly = grant.access !== Access.READ_WRITE;
  return {
    size: grant.size,
    logicalBlock: grant.logicalBlock,
    physicalBlock: grant.physicalBlock,
    optimalIo: grant.optimalIo,
    discardGranularity: (grant.features & Feature.DISCARD) !== 0 ? grant.discardGranularity : 0,
    readOnly,
    volatileCache: !readOnly && (grant.features & Feature.VOLATILE_CACHE) !== 0,
    fastZero: (grant.features & Feature.FAST_ZERO) !== 0,
  };
}

/**
 * Whether an operation is worth asking for.
 *
 * @param features a `Feature` set
 */
export function canDo(features: number, operation: number): boolean {
  switch (operation) {
    case Operation.DISCARD:
      return (features & Feature.DISCARD) !== 0;
    case Operation.WRITE_ZEROES:
      return (features & Feature.WRITE_ZEROES) !== 0;
    case Operation.CACHE:
      return (features & Feature.CACHE) !== 0;
    case Operation.BLOCK_STATUS:
      return (features & Feature.BLOCK_STATUS) !== 0;
    default:
      return true;
  }
}
