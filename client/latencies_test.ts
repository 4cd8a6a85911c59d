import assert from "node:assert/strict";
import { Latencies } from "./latencies.ts";

Deno.test("nothing added has no latency", () => {
  assert.equal(new Latencies().percentile(99), 0);
});

Deno.test("percentiles are within a bucket of the truth, whatever the size", () => {
  for (const unit of [0.001, 0.02, 1, 1000]) {
    const latencies = new Latencies();
    for (let i = 1; i <= 1000; i++) latencies.add(i * unit);
    for (const percent of [1, 50, 99, 100]) {
      const truthUs = percent * 10 * unit * 1000;
      const found = latencies.percentile(percent);
      assert(found >= truthUs && found <= truthUs * 1.04 + 1, `${percent} % of ${unit}: ${found} for ${truthUs}`);
    }
    latencies.reset();
    assert.equal(latencies.percentile(50), 0);
  }
});

Deno.test("what is out of range counts as the least or the most", () => {
  const latencies = new Latencies();
  latencies.add(0);
  assert.equal(latencies.percentile(100), 2);
  for (const ms of [2 ** 32 / 1000, 2 ** 33 / 1000 + 1, 1e12]) {
    latencies.reset();
    latencies.add(ms);
    assert.equal(latencies.percentile(100), 2 ** 32);
  }
});
