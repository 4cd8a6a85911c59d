import assert from "node:assert/strict";
import { stat } from "./stat.ts";
import { UblkControl } from "./ublk_control.ts";

function hasUblk(): boolean {
  try {
    return stat("/dev/ublk-control").kind === "character";
  } catch {
    return false;
  }
}

Deno.test({
  name: "a kernel without ublk is told apart, with what to do",
  ignore: hasUblk(),
  fn() {
    assert.throws(() => UblkControl.open(), { message: "ublk is not in this kernel: load `ublk_drv`, or use --nbd" });
  },
});
