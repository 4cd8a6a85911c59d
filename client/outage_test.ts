import assert from "node:assert/strict";
import { Outage } from "./outage.ts";

/** An outage that writes down what it says, by a clock that the test sets. */
function bench() {
  const said: string[] = [];
  const clock = { now: 0 };
  const write = (text: string) => said.push(text);
  return { said, clock, outage: new Outage({ info: write, warning: write }, () => clock.now) };
}

Deno.test("that lanes went and that they came back is said once, for all of them", () => {
  const { said, outage } = bench();
  outage.began(1, "the connection was lost: connection reset");
  outage.began(0, "the exporter closed the connection");
  assert.deepEqual([...outage.lanes], [1, 0]);
  outage.ended(1, 200, 3);
  outage.keptOut("the exporter refuses: no");
  outage.keptOut("the exporter refuses: again");
  outage.expired(1);
  outage.expired(2);
  outage.ended(0, 1500, 1);
  outage.began(0, "the exporter closed the connection");
  outage.ended(0, 400, 0);
  assert.deepEqual(said, [
    "The connection was lost: connection reset; requests wait until there is a connection again",
    "There is no way back in for now: the exporter refuses: no; it is tried again and again",
    "Requests fail from now on that have waited for too long for a connection",
    "Connected again after 1.5 s; 4 requests sent again, 3 requests had failed",
    "The exporter closed the connection; requests wait until there is a connection again",
    "Connected again after 0.4 s; 0 requests sent again",
  ]);
});

Deno.test("of a link that breaks all the time not every moment is said, but each long one", async () => {
  const { said, clock, outage } = bench();
  for (let i = 0; i < 50; i++) {
    outage.began(0, "the connection was lost");
    outage.ended(0, 5, 1);
  }
  assert.equal(said.length, 40);
  outage.began(0, "the connection was lost");
  await new Promise((resolve) => setTimeout(resolve, 1200));
  outage.ended(0, 1200, 2);
  assert.deepEqual(said.slice(40), [
    "The connection was lost; requests wait until there is a connection again",
    "Connected again after 1.2 s; 2 requests sent again (as 30 times before, after less than a second)",
  ]);
  outage.began(0, "the connection was lost");
  outage.ended(0, 5, 1);
  assert.equal(said.length, 42);
  clock.now = 60_000;
  outage.began(0, "the connection was lost");
  outage.ended(0, 5, 1);
  assert.match(said.at(-1)!, /\(as once before, after less than a second\)$/);
});
