/**
 * `dst set`.
 *
 * @module
 */
import type { Command, OptionSpec } from "../engine/control/arguments.ts";
import { findAttachment, placeField, placeOf } from "../engine/control/command_status.ts";
import { usageFailure } from "../engine/control/failure.ts";
import { announce } from "../engine/control/output.ts";
import { RuntimeDirectory } from "../engine/control/runtime.ts";
import { callControl } from "../engine/control/socket.ts";
import { writeDuration } from "../engine/duration.ts";
import { givenPatience, PATIENCE_OPTIONS } from "./options.ts";
import { type ShownPatience, shownPatience } from "./settings.ts";

/** A daemon has nothing to wait for before it answers; it may be on a machine that is very busy. */
const SET_TIMEOUT_MS = 10_000;

/** Those of an attachment, whose defaults do not count here: what is not given stays as it is. */
const OPTIONS: readonly OptionSpec[] = PATIENCE_OPTIONS.map((option) => ({
  ...option,
  help: option.help.replace(/ \(default: [^)]*\)$/, ""),
}));

/** The command. */
export const command: Command = {
  spec: {
    name: "set",
    summary: "Changes how patient an attachment is, while it runs",
    positionals: "DEVICE|ID",
    count: [1, 1],
    options: [...OPTIONS, { name: "--json", help: "print the event as JSON" }],
    notes: [
      "It counts at once, on all connections, and for requests that wait already: a longer time saves those that would " +
      "fail soon, a shorter one may have them fail now. What is not given stays as it is. It lasts until the disk is " +
      "detached; client.toml is for longer. dst status shows what counts.",
    ],
    examples: [
      ["set /dev/ublkb0 --resends forever", "no request fails for want of a connection, however long it takes"],
      ["set 0 --resend-interval 1s --resends 30", "from now on a request fails after 30 s without life"],
    ],
  },
  async run(args) {
    const change = shownPatience(givenPatience(args));
    if (Object.values(change).every((value) => value === undefined)) {
      throw usageFailure(`Nothing to set: give one of ${OPTIONS.map(({ name }) => name).join(", ")}`);
    }
    const runtime = RuntimeDirectory.open();
    const record = findAttachment(runtime.list(), args.positionals[0]);
    const path = runtime.socketPath("attach", record.id);
    const present = await callControl(path, { command: "set", settings: change }, SET_TIMEOUT_MS) as ShownPatience;
    announce({
      json: { event: "set", id: record.id, ...placeField(record), ...present },
      text: `${placeOf(record)}: ${patienceText(present)}`,
    }, args.has("--json"));
    return 0;
  },
};

function patienceText(patience: ShownPatience): string {
  const { resendIntervalMs, resends, connectTimeoutMs, pingIntervalMs, deadAfterMs } = patience;
  return `resend interval ${writeDuration(resendIntervalMs)}, resends ${resends}, ` +
    `connect timeout ${writeDuration(connectTimeoutMs)}, ping interval ${writeDuration(pingIntervalMs)}, ` +
    `dead after ${writeDuration(deadAfterMs)}`;
}
