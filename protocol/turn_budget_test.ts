import assert from "node:assert/strict";
import { TurnBudget } from "./turn_budget.ts";

Deno.test("a turn's budget is what it is, and the next turn has a whole one", () => {
  const budget = new TurnBudget();
  assert.ok(budget.spend(7, 60, 100));
  assert.ok(!budget.spend(7, 41, 100));
  assert.ok(budget.spend(7, 40, 100));
  assert.ok(!budget.spend(7, 1, 100));
  assert.ok(budget.spend(8, 100, 100));
  assert.ok(!budget.spend(8, 1, 100));
  budget.reset();
  assert.ok(budget.spend(8, 1, 100));
});

Deno.test("a fresh budget is enough for anything, so that nothing waits for ever", () => {
  const budget = new TurnBudget();
  assert.ok(budget.spend(0, 1000, 100));
  assert.ok(!budget.spend(0, 1, 100));
  assert.ok(budget.spend(1, 1000, 100));
});
