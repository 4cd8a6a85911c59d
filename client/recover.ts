/**
 * Attachments whose daemon was killed: their devices are taken over, or taken away.
 *
 * The device is there all the time, and what is asked of it waits. The session at the exporter may be there, or its lease may
 * have ended, or the exporter may be away: a session that is recovered is one that has lost its connection, and comes back in
 * the same way.
 *
 * @module
 */
import { formatHostPort, formatRemote } from "../engine/control/address.ts";
import { cipherNumbers, digestNumbers } from "../engine/control/algorithms.ts";
import { Failure } from "../engine/control/failure.ts";
import { type Key, readKeyFile } from "../engine/control/key_file.ts";
import { logger } from "../engine/control/log.ts";
import { printable } from "../engine/control/printable.ts";
import { type DaemonRecord, processStartOf, type RuntimeDirectory } from "../engine/control/runtime.ts";
import { SLOT_PAYLOAD_BYTES } from "../engine/slots.ts";
import { UblkControl } from "../ffi/ublk_control.ts";
import type { UblkDeviceInfo } from "../ffi/ublk_wire.ts";
import { Access } from "../protocol/grant.ts";
import { because, running, type RunningAttachment } from "./attach.ts";
import { unlessInterrupted } from "./interrupt.ts";
import { LaneThreads } from "./lane_threads.ts";
import { isAddress, lookUp } from "./open.ts";
import { cryptoFor, holderOf } from "./options.ts";
import { GENERATION_STEP } from "./reconnect.ts";
import { grantOf, patienceOf, type Recovery, RecoveryKeeper } from "./recovery_record.ts";
import { serveQueues, ublkFrontend } from "./ublk_attachment.ts";
import { sleep, UblkDevice } from "./ublk_device.ts";

const log = logger("client");

/** How long a process that was killed may take to be gone, in milliseconds: it may have much memory to give back. */
const DYING_MS = 60_000;
const DYING_POLL_MS = 20;
/** In that time every thread has made a turn, in milliseconds. */
const FETCH_MS = 200;
/** The highest generation of the wire (SPEC.md, section 6). */
const GENERATION_MAX = 0xffff_ffff;

/** What {@link recover} goes on with. */
export interface Recovered {
  readonly attachment: RunningAttachment;
  /** `HOST:PORT/NAME`. */
  readonly remote: string;
}

/**
 * Takes over a device whose daemon is gone, with its session.
 *
 * @param wanted its id or path; null: the only one there is
 * @param interrupted gives up; the device waits on
 * @throws {Failure} one line that says why not, and what to do; the device waits as before, unless it is gone
 */
export async function recover(
  runtime: RuntimeDirectory,
  wanted: string | null,
  interrupted: AbortSignal,
): Promise<Recovered> {
  const record = choose(runtime, wanted);
  const what = `recover device ${record.id}`;
  return await because(what, takeOver(runtime, record, interrupted));
}

/**
 * Takes a device away whose daemon is gone.
 *
 * @returns what was lost by that, and who loses it, for people
 * @throws {Failure} why not
 */
export async function removeWaiting(runtime: RuntimeDirectory, record: DaemonRecord): Promise<string> {
  return await because(`remove device ${record.id}`, remove(runtime, record));
}

/** The attachment that a person means. */
export function choose(runtime: RuntimeDirectory, wanted: string | null): DaemonRecord {
  const waiting = runtime.waiting();
  const present = waiting.map(({ id, attachment }) => `${id} (${attachment?.device}, ${attachment?.remote})`).join(
    ", ",
  );
  if (wanted === null) {
    if (waiting.length === 1) return waiting[0];
    if (waiting.length > 1) throw new Failure(`Which one is to be recovered? Give its ID: ${printable(present)}`);
    throw new Failure("There is nothing to recover: no attachment of this machine has lost its daemon");
  }
  const found = waiting.find(({ id, attachment }) => id === wanted || isDevice(attachment?.device ?? "", wanted));
  if (found !== undefined) return found;
  const isOurs = (record: DaemonRecord) => record.kind === "attach" && record.id === wanted;
  const served = runtime.list().find((record) =>
    isOurs(record) || record.attachment !== null && isDevice(record.attachment.device ?? "", wanted)
  );
  if (served !== undefined) throw new Failure(`Device ${served.id} needs no recovery: process ${served.pid} serves it`);
  throw new Failure(
    `"${printable(wanted)}" is not to be recovered; ${
      present === "" ? "nothing is" : `there is ${printable(present)}`
    }`,
  );
}

function isDevice(device: string, text: string): boolean {
  return device === text || device === `/dev/${text}`;
}

async function takeOver(runtime: RuntimeDirectory, record: DaemonRecord, interrupted: AbortSignal): Promise<Recovered> {
  const keeper = RecoveryKeeper.take(runtime, record.id);
  let control: UblkControl | null = null;
  let threads: LaneThreads | null = null;
  try {
    await unlessInterrupted(untilGone(record), interrupted);
    control = UblkControl.open();
    const info = await deviceOf(control, keeper, record.id);
    const { recovery } = keeper;
    const generation = recovery.generation + GENERATION_STEP;
    if (generation > GENERATION_MAX) throw new Failure("it was recovered too often; detach and attach it anew");
    const key = readKey(recovery);
    try {
      // Before any lane uses one of the generations.
      keeper.mustUpdate({ generation });
      threads = await LaneThreads.open(laneOptions(recovery, generation, key), interrupted);
    } finally {
      key?.secret.fill(0);
    }
    keeper.mustUpdate({ servers: [info.serverPid, Deno.pid], isTaking: true });
    if (recovery.isTaking && info.queues > 1) await completeServers(control, info, threads);
    const device = await unlessInterrupted(UblkDevice.takeOver(control, info), interrupted);
    await serveQueues(device, threads);
    await device.resume();
    keeper.mustUpdate({ servers: [Deno.pid], isTaking: false });
    const frontend = ublkFrontend(device, threads, keeper, device.sizeBytes());
    const { host, port, name } = recovery;
    return { attachment: running(threads, frontend, key?.name ?? null), remote: formatRemote(host, port, name) };
  } catch (error) {
    // Neither the device nor the session is ended: both wait for the next one who tries.
    threads?.end();
    control?.close();
    keeper.release();
    throw error;
  }
}

/**
 * Sees to it that either all queues of a device have had a server, or none, where somebody was killed while taking it over. The
 * driver does not survive START_USER_RECOVERY otherwise: it looks for the dead server of each queue (`ublk_queue_reinit`, until
 * Linux 6.15). So the rest get one, which has to die like the others: it is this process.
 */
async function completeServers(control: UblkControl, info: UblkDeviceInfo, threads: LaneThreads): Promise<void> {
  const device = await UblkDevice.begun(control, info);
  const queues = await device.unserved();
  if (queues.length === 0 || queues.length === info.queues) return device.letGo();
  const { charFd: fd, depth } = device;
  for (const queue of queues) await threads.ask(queue, { ask: "serveUblk", fd, queue, depth });
  // The requests for requests go to the driver with the threads' next turn.
  await sleep(FETCH_MS);
  throw new Failure(
    "whoever tried before was killed in the middle of it, and what it left is put right now: try again",
  );
}

function laneOptions(recovery: Recovery, generation: number, key: Key | null) {
  const { host, port, name, session, lanes, address, cipher, digest, ciphers, digests, depth, failure } = recovery;
  const where = formatHostPort(host, port);
  const grant = grantOf(recovery.grant);
  const target = {
    where,
    ciphers: cipherNumbers(ciphers),
    digests: digestNumbers(digests),
    key,
    addresses: [address],
  };
  return {
    open: {
      target,
      name,
      readOnly: grant.access !== Access.READ_WRITE,
      steal: false,
      depth,
      holder: holderOf(Deno.hostname(), Deno.pid),
      patience: patienceOf(recovery.patience),
    },
    lookUp: isAddress(recovery) ? null : () => lookUp({ host, port }),
    lanes,
    replayBytes: recovery.replayBytes,
    frontend: "ublk",
    loop: "uring",
    crypto: cryptoFor({ key, crypto: recovery.crypto }),
    recovered: { session: Uint8Array.fromHex(session), grant, address, cipher, digest, generation, failure },
  } as const;
}

/** The exporter lets the session go on only under the key that opened it. */
function readKey({ key }: Recovery): Key | null {
  if (key === null) return null;
  const found = readKeyFile(key.path);
  if (found.id.toHex() === key.id) return found;
  found.secret.fill(0);
  throw new Failure(`the key file ${key.path} has another key than when it was attached: put the old one back`);
}

/** The driver's device, if it is still the one that was recorded, and was in use. */
async function deviceOf(control: UblkControl, keeper: RecoveryKeeper, id: string): Promise<UblkDeviceInfo> {
  const info = await control.deviceInfo(Number(id));
  const isOurs = info !== null && (info.state === "dead" || keeper.recovery.servers.includes(info.serverPid));
  if (!isOurs) {
    keeper.remove();
    throw new Failure("its device is gone");
  }
  if (info.state === "dead") {
    // It was never started, or was being detached: nobody can have it open.
    await UblkDevice.abandoned(control, info).delete();
    keeper.remove();
    throw new Failure("its device was not in use any more, or not yet: it is removed");
  }
  if (info.maximumIoBytes > SLOT_PAYLOAD_BYTES) {
    throw new Failure(
      "its requests are too long for this version of the program: use the one that it was attached with",
    );
  }
  return info;
}

async function remove(runtime: RuntimeDirectory, record: DaemonRecord): Promise<string> {
  const keeper = RecoveryKeeper.take(runtime, record.id);
  const control = UblkControl.open();
  try {
    await untilGone(record);
    const info = await deviceOf(control, keeper, record.id);
    const device = UblkDevice.abandoned(control, info);
    const users = device.users();
    await device.stop();
    await device.delete();
    keeper.remove();
    return `what was not yet written is lost${users === null ? "" : `, its users get errors: ${users}`}`;
  } catch (error) {
    control.close();
    keeper.release();
    throw error;
  }
}

/**
 * Waits until all threads of a process have ended: the driver must not be asked for a device before that
 * (`ublk_queue_reinit` warns in the kernel's log), and a process is a zombie already when its first thread has ended.
 */
async function untilGone({ pid, processStart }: DaemonRecord): Promise<void> {
  const deadline = performance.now() + DYING_MS;
  let isTold = false;
  while (hasThreads(pid, processStart)) {
    if (performance.now() > deadline) throw new Failure(`process ${pid}, which served it, was killed and does not end`);
    if (!isTold) log.info("{text}", { text: `Process ${pid}, which served the device, is not quite gone yet` });
    isTold = true;
    await sleep(DYING_POLL_MS);
  }
}

/** Whether a thread of that very process still runs; proc(5). */
export function hasThreads(pid: number, processStart: string): boolean {
  const start = processStartOf(pid);
  if (start !== null && start !== processStart) return false;
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      if (isAlive(`/proc/${pid}/task/${name}/stat`)) return true;
    }
  } catch {
    // It went away while it was looked at.
  }
  return false;
}

/** The state is the first field after the name, which is in parentheses and may contain any. */
function isAlive(path: string): boolean {
  try {
    const stat = Deno.readTextFileSync(path);
    const state = stat[stat.lastIndexOf(")") + 2];
    return state !== "Z" && state !== "X";
  } catch {
    return false;
  }
}
