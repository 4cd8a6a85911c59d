/**
 * `dst status` and `dst detach`: both talk to the daemons of this machine.
 *
 * @module
 */
import type { Command } from "./arguments.ts";
import { Failure, messageOf } from "./failure.ts";
import { writeOutput } from "./log.ts";
import { announce, table } from "./output.ts";
import { printable } from "./printable.ts";
import { type DaemonRecord, RuntimeDirectory } from "./runtime.ts";
import { callControl } from "./socket.ts";
import { formatDuration, writeDuration } from "../duration.ts";
import { formatSize } from "../size.ts";

/** A daemon's main thread is never on the path of an I/O, so it answers at once or is in trouble. Not less, because a
 * machine may be so busy that one which has just started takes seconds for its first answer. */
const STATUS_TIMEOUT_MS = 10_000;

/** What a daemon's record and the daemon itself say. */
interface Report {
  readonly record: DaemonRecord;
  /** What it answered; null when it did not. */
  readonly status: Record<string, unknown> | null;
  /** Why it did not answer, or null. */
  readonly error: string | null;
}

/** `dst status`. */
export const statusCommand: Command = {
  spec: {
    name: "status",
    summary: "Shows the attachments and exports of this machine",
    positionals: "",
    count: [0, 0],
    options: [{ name: "--json", help: "print all that is known as one JSON object" }],
    notes: ["It shows what runs under the same user; daemons of root are seen by root."],
    examples: [
      ["status", "shows what is attached and exported, and how it is"],
      ["status --json", "the same for programs"],
    ],
  },
  async run(args) {
    const runtime = RuntimeDirectory.open();
    const reports = await Promise.all(runtime.list().map((record) => ask(runtime, record)));
    reports.push(...runtime.waiting().map((record) => ({ record, status: null, error: waitsFor(record) })));
    writeOutput(args.has("--json") ? JSON.stringify(jsonOf(reports)) + "\n" : textOf(reports));
    return 0;
  },
};

/** The state of an attachment whose daemon is gone. */
function waitsFor({ id }: DaemonRecord): string {
  return `its daemon is gone: waits for dst attach --recover ${id}`;
}

/**
 * Takes a device away whose daemon is gone.
 *
 * @returns what was lost by that, for people
 */
export type RemoveWaiting = (runtime: RuntimeDirectory, record: DaemonRecord) => Promise<string>;

/** `dst detach`. */
export const detachCommand = (removeWaiting: RemoveWaiting): Command => ({
  spec: {
    name: "detach",
    summary: "Detaches a device, when nobody uses it",
    positionals: "DEVICE|ID",
    count: [1, 1],
    options: [
      {
        name: "--force",
        help: "detach even while it is in use: WHAT WAS NOT YET WRITTEN IS LOST, its users get errors",
      },
      { name: "--json", help: "print the event as JSON" },
    ],
    notes: [
      "It finishes what is under way first. While the device is mounted, open, or part of an array it refuses and says by " +
      "whom it is used. The ID is what dst status shows.",
    ],
    examples: [
      ["detach /dev/ublkb0", "detaches the device"],
      ["detach 0 --force", "detaches it although a dead filesystem still holds it"],
    ],
  },
  async run(args) {
    const runtime = RuntimeDirectory.open();
    const waiting = runtime.waiting();
    const record = findAttachment([...runtime.list(), ...waiting], args.positionals[0]);
    const force = args.has("--force");
    if (waiting.includes(record)) {
      await removeOrphan(runtime, record, force, args.has("--json"), removeWaiting);
      return 0;
    }
    // Draining takes as long as the slowest disk: whoever does not want to wait can interrupt.
    await callControl(runtime.socketPath("attach", record.id), { command: "detach", force }, Infinity);
    const place = placeOf(record);
    announce(
      { json: { event: "detached", id: record.id, ...placeField(record) }, text: `${place} is detached` },
      args.has("--json"),
    );
    return 0;
  },
});

async function removeOrphan(
  runtime: RuntimeDirectory,
  record: DaemonRecord,
  force: boolean,
  json: boolean,
  removeWaiting: RemoveWaiting,
): Promise<void> {
  const place = placeOf(record);
  if (!force) {
    throw new Failure(
      `${place} has lost its daemon (pid ${record.pid}), and what was not yet written waits in the kernel: dst attach ` +
        `--recover ${record.id} goes on with it, and then it can be detached; --force removes it, and that is lost`,
    );
  }
  const loss = await removeWaiting(runtime, record);
  announce(
    { json: { event: "detached", id: record.id, ...placeField(record), loss }, text: `${place} is removed: ${loss}` },
    json,
  );
}

/**
 * The attachment that a person means by its id, device or NBD address.
 *
 * @throws {Failure} when there is none
 */
export function findAttachment(records: readonly DaemonRecord[], text: string): DaemonRecord {
  const attachments = records.filter(({ kind }) => kind === "attach");
  const device = text.startsWith("/") ? realPath(text) : `/dev/${text}`;
  for (const record of attachments) {
    const { attachment } = record;
    if (
      record.id === text || attachment?.nbd === text || attachment?.nbd === `unix:${text}` ||
      attachment?.device === device
    ) return record;
  }
  const present = attachments.map(placeOf).join(", ");
  throw new Failure(
    `"${printable(text)}" is not attached here; ${present === "" ? "nothing is" : `there is ${printable(present)}`}`,
  );
}

async function ask(runtime: RuntimeDirectory, record: DaemonRecord): Promise<Report> {
  const path = runtime.socketPath(record.kind, record.id);
  try {
    const status = await callControl(path, { command: "status" }, STATUS_TIMEOUT_MS);
    return { record, status: status as Record<string, unknown>, error: null };
  } catch (error) {
    return { record, status: null, error: messageOf(error) };
  }
}

function jsonOf(reports: readonly Report[]): unknown {
  const of = (kind: DaemonRecord["kind"]) =>
    reports.filter(({ record }) => record.kind === kind).map(({ record, status, error }) => {
      const { id, pid, startedAt, log, attachment, listening } = record;
      const own = kind === "attach" ? attachment : { listening };
      return { id, pid, startedAt, log, ...own, status, error };
    });
  return { attachments: of("attach"), exports: of("export") };
}

function textOf(reports: readonly Report[]): string {
  const sections: string[] = [];
  const attachments = reports.filter(({ record }) => record.kind === "attach");
  if (attachments.length > 0) {
    const rows = attachments.map(({ record, status, error }) => [
      record.id,
      placeOf(record),
      printable(record.attachment?.remote ?? ""),
      formatSize(Number(status?.size ?? record.attachment?.size ?? 0)),
      record.attachment?.readOnly === true ? "read-only" : "read-write",
      channelOf(status),
      String(record.pid),
      error ?? healthOf(status),
    ]);
    const titles = ["ID", "DEVICE", "EXPORT", "SIZE", "ACCESS", "CHANNEL", "PID", "STATE"];
    sections.push(table([titles, ...rows], [3, 6]));
  }
  const patience = attachments.flatMap(patienceRow);
  if (patience.length > 0) {
    const titles = ["ID", "RESEND INTERVAL", "RESENDS", "CONNECT TIMEOUT", "PING INTERVAL", "DEAD AFTER"];
    sections.push(table([titles, ...patience], [1, 2, 3, 4, 5]));
  }
  const rows = reports.filter(({ record }) => record.kind === "export").flatMap(exportRows);
  if (rows.length > 0) {
    sections.push(table([["EXPORT", "PATH", "SIZE", "ACCESS", "LISTENS ON", "PID", "STATE"], ...rows], [2, 5]));
  }
  const sessions = reports.filter(({ record }) => record.kind === "export").flatMap(sessionRows);
  if (sessions.length > 0) {
    sections.push(table([["CLIENT", "ADDRESS", "EXPORT", "ACCESS", "CHANNEL"], ...sessions], []));
  }
  return sections.length === 0 ? "nothing is attached or exported here\n" : sections.join("\n");
}

/** How patient an attachment is. */
function patienceRow({ record, status }: Report): string[][] {
  const patience = status?.patience as Record<string, number | "forever"> | undefined;
  if (patience === undefined) return [];
  const { resendIntervalMs, resends, connectTimeoutMs, pingIntervalMs, deadAfterMs } = patience;
  const [resend, ...times] = [resendIntervalMs, connectTimeoutMs, pingIntervalMs, deadAfterMs].map((ms) => {
    return writeDuration(Number(ms));
  });
  return [[record.id, resend, String(resends), ...times]];
}

/** What is shown of an export; the daemon's answer has more. */
interface ShownExport {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly access: string;
  readonly sessions: readonly ShownSession[];
  readonly failure: string | null;
}

/** What is shown of a session. */
interface ShownSession {
  readonly holder: string;
  readonly address: string;
  readonly access: string;
  readonly lanes: number;
  readonly key: string | null;
  readonly cipher: string | null;
  readonly digest: string | null;
}

function exportRows({ record, status, error }: Report): string[][] {
  const addresses = record.listening.map(({ protocol, address }) => protocol === "dst" ? address : `nbd ${address}`);
  const listening = printable(addresses.join(", "));
  if (status === null) return [["?", "?", "?", "?", listening, String(record.pid), error ?? ""]];
  return (status.exports as ShownExport[]).map((entry) => [
    printable(entry.name),
    printable(entry.path),
    formatSize(entry.size),
    entry.access,
    listening,
    String(record.pid),
    entry.failure ?? clientsOf(entry),
  ]);
}

function sessionRows({ status }: Report): string[][] {
  const exports = (status?.exports ?? []) as ShownExport[];
  return exports.flatMap(({ name, sessions }) =>
    sessions.map((session) => [
      printable(session.holder),
      printable(session.address),
      printable(name),
      session.access,
      // NBD clients speak no protocol of ours; a session may be without a connection for a while.
      session.cipher === null ? "nbd" : session.lanes === 0 ? "not connected" : channelOf({ ...session }),
    ])
  );
}

function clientsOf({ sessions }: ShownExport): string {
  const writer = sessions.find(({ access }) => access === "read-write");
  const readers = sessions.length - (writer === undefined ? 0 : 1);
  const parts = writer === undefined ? [] : [`held by ${printable(writer.holder)}`];
  if (readers > 0) parts.push(`${readers} other ${readers === 1 ? "client" : "clients"}`);
  return parts.length === 0 ? "no clients" : parts.join(", ");
}

/**
 * How a client and an exporter speak to each other: `chacha20-poly1305 (openssl), key backup, 2 lanes`, or just `xxh64`.
 */
export function channelOf(status: Record<string, unknown> | null): string {
  if (status === null) return "?";
  const { cipher, digest, crypto, key, lanes } = status;
  const algorithm = cipher === "none" ? String(digest) : String(cipher);
  // Who does it matters where there is a choice.
  const parts = [key === null || crypto === undefined ? algorithm : `${algorithm} (${crypto})`];
  if (key !== null) parts.push(`key ${printable(String(key))}`);
  if (Number(lanes) > 1) parts.push(`${lanes} lanes`);
  return parts.join(", ");
}

/** What is shown of an attachment's lanes that have no connection. */
interface ShownReconnecting {
  readonly lanes: number;
  readonly forMs: number;
  readonly waiting: number;
  readonly nextMs: number;
  readonly reason?: string;
}

/** What is shown of an attachment's copies of what its exporter may lose. */
interface ShownReplay {
  readonly replaying: boolean;
}

/**
 * How an attachment is: `connected`, or `reconnecting, 3.2 s, 17 transactions waiting, next try in 0.4 s`, and why there is no
 * connection.
 */
export function healthOf(status: Record<string, unknown> | null): string {
  if (typeof status?.failure === "string") return `failed: ${printable(status.failure)}`;
  const reconnecting = status?.reconnecting as ShownReconnecting | null | undefined;
  if (reconnecting !== null && reconnecting !== undefined) {
    const { lanes, forMs, waiting, nextMs, reason } = reconnecting;
    const of = Number(status!.lanes) > 1 ? ` ${lanes} of ${status!.lanes} lanes` : "";
    const many = waiting === 1 ? "1 transaction" : `${waiting} transactions`;
    const next = nextMs === 0 ? "trying now" : `next try in ${formatDuration(nextMs)}`;
    const why = reason === undefined ? "" : ` (${printable(reason)})`;
    return `reconnecting${of}, ${formatDuration(forMs)}, ${many} waiting, ${next}${why}`;
  }
  if (status?.connected === false) return "not connected";
  if ((status?.replay as ShownReplay | null | undefined)?.replaying === true) {
    return "connected, writing again what the exporter had lost";
  }
  return typeof status?.resized === "string" ? `connected; ${printable(status.resized)}` : "connected";
}

/** Where an attachment is: its device, or its NBD address. */
export function placeOf({ id, attachment }: DaemonRecord): string {
  return attachment?.device ?? attachment?.nbd ?? id;
}

/** The same as a field of an event. */
export function placeField({ attachment }: DaemonRecord): Record<string, unknown> {
  return attachment?.device == null ? { nbd: attachment?.nbd ?? null } : { device: attachment.device };
}

function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}
