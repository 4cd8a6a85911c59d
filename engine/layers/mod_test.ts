import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { Operation } from "../block.ts";
import { layerNeeds, parseLayer } from "./mod.ts";

Deno.test("each layer's specification is read with its options", () => {
  const delay = parseLayer("delay:read=5,write=10");
  assert.ok(delay.kind === "delay");
  assert.equal(delay.delaysMs[Operation.READ], 5);
  assert.equal(delay.delaysMs[Operation.WRITE], 10);
  assert.equal(delay.delaysMs[Operation.FLUSH], 0);

  const error = parseLayer("error:write,block-status,offset=1M,length=4K,errno=ENOSPC,after=3,probability=0.5,seed=9");
  assert.deepEqual(error, {
    kind: "error",
    operations: [Operation.WRITE, Operation.BLOCK_STATUS],
    offset: 1 << 20,
    length: 4096,
    errno: -Errno.ENOSPC,
    after: 3,
    every: 1,
    probability: 0.5,
    seed: 9,
    count: Number.MAX_SAFE_INTEGER,
  });
  assert.deepEqual(structuredClone(error), error);
  assert.equal(parseLayer("error").kind, "error");
  assert.deepEqual(parseLayer("volatile:1M"), { kind: "volatile", bytes: 1 << 20, through: 0, seed: 1 });
  const through = { kind: "volatile", bytes: 4096, through: 0.25, seed: 9 };
  assert.deepEqual(parseLayer("volatile:4K,seed=9,through=0.25"), through);
});

Deno.test("a bad specification is refused with the whole text and the reason", () => {
  const cases: [string, RegExp][] = [
    ["", /there are the layers/],
    ["slow:1", /there are the layers/],
    ["delay", /needs a delay/],
    ["delay:", /must be a number/],
    ["delay:-1", /must be a number/],
    ["delay:raed=5", /"raed" is none of read, write/],
    ["error:", /"" is none of/],
    ["error:wriet", /"wriet" is none of/],
    ["error:toString", /is none of/],
    ["error:errno=EWHAT", /no errno "EWHAT"/],
    ["error:length=x", /Cannot read the size/],
    ["error:every=0", /every must be/],
    ["error:every=1.5", /whole number/],
    ["error:probability=2", /from 0 to 1/],
    ["error:seed=1,seed=2", /given twice/],
    ["error:colour=red", /no option "colour"/],
    ["volatile", /one size/],
    ["volatile:1M,2M", /one size/],
    ["volatile:0", /more than 0/],
    ["volatile:seed=1", /one size/],
    ["volatile:", /Cannot read the size/],
    ["volatile:1M,through=2", /from 0 to 1/],
    ["volatile:1M,seed=1.5", /whole number/],
    ["volatile:1M,seed=1,seed=2", /given twice/],
    ["volatile:1M,after=3", /no option "after"/],
  ];
  for (const [text, reason] of cases) {
    assert.throws(() => parseLayer(text), (error) => {
      assert.ok(error instanceof RangeError);
      assert.ok(error.message.startsWith(`Cannot use the layer "${text}": `), error.message);
      assert.match(error.message, reason);
      return true;
    });
  }
});

Deno.test("a layer says what it takes of its Worker", () => {
  assert.deepEqual(layerNeeds(parseLayer("delay:1")), { slots: 0, timersPerSlot: 1, oneWorker: false });
  assert.deepEqual(layerNeeds(parseLayer("error")), { slots: 0, timersPerSlot: 0, oneWorker: false });
  for (const counting of ["after=1", "every=2", "count=1", "probability=0.5"]) {
    assert.equal(layerNeeds(parseLayer(`error:${counting}`)).oneWorker, true, counting);
  }
  assert.deepEqual(layerNeeds(parseLayer("volatile:257K")), { slots: 3, timersPerSlot: 0, oneWorker: true });
});
