/**
 * An attachment as a ublk device: made, recorded for the day that its daemon is killed, and taken away.
 *
 * @module
 */
import { formatRemote } from "../engine/control/address.ts";
import { backgroundLog } from "../engine/control/background.ts";
import { messageOf } from "../engine/control/failure.ts";
import { logger } from "../engine/control/log.ts";
import type { RuntimeDirectory } from "../engine/control/runtime.ts";
import { close } from "../ffi/libc.ts";
import type { UblkControl } from "../ffi/ublk_control.ts";
import { SECTOR_BYTES } from "../ffi/ublk_wire.ts";
import type { AttachOptions, Frontend } from "./attach.ts";
import type { LaneThreads } from "./lane_threads.ts";
import { recordedGrant, recordedPatience, RecoveryKeeper } from "./recovery_record.ts";
import { UblkDevice, ublkParameters } from "./ublk_device.ts";

const log = logger("client");

/**
 * Makes a device and serves it.
 *
 * @throws {Error} why not; nothing is left then
 */
export async function serveUblk(control: UblkControl, threads: LaneThreads, options: AttachOptions): Promise<Frontend> {
  const parameters = ublkParameters(threads.shape);
  const { runtime } = options;
  const device = await UblkDevice.make(control, parameters, threads.count, threads.shape.depth, runtime !== null);
  let keeper: RecoveryKeeper | null = null;
  let isServed = false;
  try {
    // Before anybody can use the device.
    if (runtime !== null && device.isRecoverable) {
      keeper = beginRecord(runtime, options, threads, device, parameters.sizeBytes);
    }
    await serveQueues(device, threads);
    isServed = true;
    await device.start();
  } catch (error) {
    await removeUblk(device, isServed ? threads : null, keeper, true, -1);
    throw error;
  }
  return ublkFrontend(device, threads, keeper, parameters.sizeBytes);
}

/** Has the threads serve a device: the first lane the first queue, and so on. */
export async function serveQueues({ charFd: fd, depth, queues }: UblkDevice, threads: LaneThreads): Promise<void> {
  await threads.askAll((queue) => ({ ask: "serveUblk", fd, queue, depth }), queues);
}

/**
 * A device that is served.
 *
 * @param keeper of its record; null: it is not {@link UblkDevice.isRecoverable}
 * @param size in bytes
 */
export function ublkFrontend(
  device: UblkDevice,
  threads: LaneThreads,
  keeper: RecoveryKeeper | null,
  size: number,
): Frontend {
  const block = Math.max(threads.shape.geometry.logicalBlock, SECTOR_BYTES);
  let present = size;
  if (keeper !== null) threads.onChange(() => keepUpToDate(keeper, threads));
  return {
    id: device.id,
    device: device.path,
    nbd: null,
    size,
    resize: async (bytes) => {
      const whole = bytes - bytes % block;
      if (whole === present) return present;
      // A device has at least one block.
      if (whole === 0 || !await device.resize(whole)) return null;
      present = whole;
      return present;
    },
    stop: async (force, isAway) => {
      const claim = force ? -1 : await device.claim();
      const users = force ? device.users() : null;
      if (users !== null) log.warning(`${device.path} is taken away from its users: ${users}`);
      // What nobody uses is written; the flush alone would be left to do.
      const isSpared = isAway && users === null;
      const synced = isSpared ? syncedSoFar(threads) : device.sync(force);
      const loss = await threads.orAbort(synced, force).then(
        () => null,
        // Where nothing failed that was to be written, it is the flush at the end, which is looked at by itself.
        (error) => threads.hasFailed ? `what was not yet written is lost (${messageOf(error)})` : null,
      );
      await removeUblk(device, threads, keeper, force, claim);
      return loss;
    },
    // The driver ends a device whose server is gone; what it keeps of it is removed here.
    abandon: keeper !== null ? null : async () => {
      await device.stop();
      await device.delete();
    },
  };
}

/** As a sync would without a connection: it fails where a write has, of which perhaps nobody was told but the page cache. */
function syncedSoFar(threads: LaneThreads): Promise<void> {
  return threads.hasFailed ? Promise.reject(new Error("there was no connection for too long")) : Promise.resolve();
}

/**
 * Takes a device away.
 *
 * @param threads its servers; null: it has none
 * @param claim the descriptor of `claim`, or -1
 */
async function removeUblk(
  device: UblkDevice,
  threads: LaneThreads | null,
  keeper: RecoveryKeeper | null,
  force: boolean,
  claim: number,
): Promise<void> {
  try {
    const stopped = device.stop();
    await (threads?.orAbort(stopped, force) ?? stopped);
  } finally {
    // Held until nobody can mount it any more, and no longer: the driver forgets no device that is open.
    if (claim >= 0) close(claim);
  }
  await threads?.askAll(() => ({ ask: "queueEnd" }), device.queues);
  await device.delete();
  keeper?.remove();
}

/** Records what is to be known before the device is relied on. */
function beginRecord(
  runtime: RuntimeDirectory,
  options: AttachOptions,
  threads: LaneThreads,
  device: UblkDevice,
  size: number,
): RecoveryKeeper {
  const { host, port, name, readOnly, key, keyPath, ciphers, digests, crypto, depth, patience, replayBytes } = options;
  const { shape } = threads;
  const attachment = { remote: formatRemote(host, port, name), device: device.path, nbd: null, size, readOnly };
  const self = { kind: "attach" as const, id: String(device.id), log: backgroundLog(), attachment, listening: [] };
  if (key !== null && keyPath === null) throw new Error("a key without a file cannot be recovered");
  return RecoveryKeeper.begin(runtime, self, {
    version: 1,
    host,
    port,
    name,
    session: threads.session.toHex(),
    lanes: threads.count,
    generation: 1,
    grant: recordedGrant(shape.grant),
    address: shape.address,
    cipher: shape.cipher,
    digest: shape.digest,
    key: key === null ? null : { path: keyPath!, id: key.id.toHex() },
    ciphers: [...ciphers],
    digests: [...digests],
    crypto,
    depth,
    patience: recordedPatience(patience),
    replayBytes,
    servers: [Deno.pid],
    isTaking: false,
    failure: null,
  });
}

/** What was lost stays lost, whoever serves; and an epoch counts once nothing of the one before is at stake. */
function keepUpToDate(keeper: RecoveryKeeper, threads: LaneThreads): void {
  keeper.update({ patience: recordedPatience(threads.patience) });
  if (threads.isLost) keeper.update({ failure: threads.failure ?? "what was written last and not flushed is lost" });
  else if (threads.grant !== null) keeper.update({ grant: recordedGrant(threads.grant) });
}
