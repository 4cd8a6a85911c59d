import assert from "node:assert/strict";
import { Errno } from "../ffi/errno.ts";
import { Access, Feature, type Grant } from "../protocol/grant.ts";
import { Status } from "../protocol/status.ts";
import { isOtherInstance, objectionToGrant, objectionToRefusal } from "./resume.ts";

const id = (fill: number) => new Uint8Array(16).fill(fill);

const GRANT: Grant = {
  size: 2 ** 40,
  logicalBlock: 4096,
  physicalBlock: 4096,
  optimalIo: 65536,
  discardGranularity: 4096,
  access: Access.READ_WRITE,
  features: Feature.DISCARD,
  identities: { instance: id(1), durability: id(2), storage: id(3), writeEpoch: 2 ** 50 },
  slots: 32,
  maxPayload: 65536,
  payloadBytes: 2 ** 21,
  leaseMs: 1000,
  lanes: 1,
};

function withIdentity(more: Partial<Grant["identities"]>, grant: Grant = GRANT): Grant {
  return { ...grant, identities: { ...grant.identities, ...more } };
}

Deno.test("another instance, durability epoch, size or credit is no reason to end a session", () => {
  assert.equal(objectionToGrant(GRANT, withIdentity({ instance: id(9), durability: id(9) })), null);
  assert.equal(objectionToGrant(GRANT, { ...GRANT, size: 4096, slots: 1, maxPayload: 4096, logicalBlock: 512 }), null);
  assert(isOtherInstance(GRANT, withIdentity({ instance: id(9) })));
  assert(!isOtherInstance(GRANT, withIdentity({ durability: id(9) })));
});

Deno.test("another disk ends a session, also one that only reads", () => {
  const reader = { ...GRANT, access: Access.READ };
  for (const before of [GRANT, reader]) {
    const objection = objectionToGrant(before, withIdentity({ storage: id(9) }, before));
    assert.match(objection!.reason, /another disk/);
    assert.equal(objection!.errno, -Errno.ESTALE);
  }
});

Deno.test("another write epoch ends a session that writes, unless the export is shared", () => {
  const now = withIdentity({ writeEpoch: 2 ** 50 + 1 });
  assert.match(objectionToGrant(GRANT, now)!.reason, /another client/);
  assert.equal(objectionToGrant({ ...GRANT, access: Access.READ }, { ...now, access: Access.READ }), null);
  const shared = { ...GRANT, features: Feature.SHARED };
  assert.equal(objectionToGrant(shared, { ...now, features: Feature.SHARED }), null);
  assert.match(objectionToGrant(shared, now)!.reason, /another client/);
});

Deno.test("whoever was the only writer does not go on as one of several", () => {
  const now = { ...GRANT, features: GRANT.features | Feature.SHARED };
  assert.match(objectionToGrant(GRANT, now)!.reason, /shared/);
  // Others may have written meanwhile, who leave no trace in the write epoch.
  const other = withIdentity({ writeEpoch: 2 ** 50 + 1 }, now);
  assert.equal(objectionToGrant(GRANT, other)!.errno, -Errno.ESTALE);
  assert.equal(objectionToGrant({ ...GRANT, access: Access.READ }, { ...now, access: Access.READ }), null);
});

Deno.test("a disk that is not what its users were told it is ends a session", () => {
  assert.match(objectionToGrant(GRANT, { ...GRANT, logicalBlock: 8192 })!.reason, /8192 bytes now, and had 4096/);
  assert.match(objectionToGrant(GRANT, { ...GRANT, features: Feature.VOLATILE_CACHE })!.reason, /volatile cache/);
  assert.match(objectionToGrant(GRANT, { ...GRANT, access: Access.READ })!.reason, /access/);
});

Deno.test("of the refusals only those that say that all is different now are for good", () => {
  for (const status of Object.values(Status)) {
    const isForGood = status === Status.STORAGE_CHANGED || status === Status.EPOCH_CHANGED;
    assert.equal(objectionToRefusal(status) !== null, isForGood, `status ${status}`);
  }
});
