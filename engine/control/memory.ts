/**
 * What keeps a daemon going when memory is short. The kernel may have to wait for this process to write dirty pages, or to
 * read what a process is to go on with: so this process must not wait for such writes itself, and must not be the one that
 * is killed to make room.
 *
 * @module
 */
import { ProcessControl } from "../../ffi/constants.ts";
import { errnoMessage } from "../../ffi/errno.ts";
import { execute, prctl } from "../../ffi/libc.ts";
import { logger } from "./log.ts";

/** In the environment of a process that has executed itself for {@link beIoFlusher}: it does not do so again. */
const EXECUTED_VARIABLE = "DST_EXECUTED";
/** Deno gives what is in it to V8; flags with commas in between. */
const V8_FLAGS_VARIABLE = "DENO_V8_FLAGS";
/**
 * V8 guards the pages of its compiled code by the processor's protection keys, where there are such, and keeps a registry of
 * those pages for it, which has aborted a process at the start of a Worker ("Check failed: it->second.Size() > offset").
 * Other processors than x86-64 do not have the flag.
 */
const V8_FLAGS = Deno.build.arch === "x86_64" ? ["--no-memory-protection-keys"] : [];

const OOM_SCORE_PATH = "/proc/self/oom_score_adj";
/** proc(5): never to be killed for want of memory, and as the kernel finds it. */
const OOM_SCORES = [-1000, 0];

/** The variables with which this program starts itself, beside those that there are. */
export function ownEnvironment(): Record<string, string> {
  const present = (Deno.env.get(V8_FLAGS_VARIABLE) ?? "").split(",").filter((flag) => flag !== "");
  const flags = new Set([...present, ...V8_FLAGS]);
  return flags.size === 0 ? {} : { [V8_FLAGS_VARIABLE]: [...flags].join(",") };
}

/**
 * Marks the calling thread as one that must not wait for I/O when it needs memory (PR_SET_IO_FLUSHER). Threads and processes
 * that it makes from now on have that from it.
 *
 * @returns whether it is one; not without CAP_SYS_RESOURCE
 */
export function markIoFlusher(): boolean {
  const result = prctl(ProcessControl.SET_IO_FLUSHER, 1);
  if (result >= 0) return true;
  logger("memory").debug("{text}", {
    text: `This process is no I/O flusher (${
      errnoMessage(result)
    }): when memory is short, it may wait for what it serves`,
  });
  return false;
}

/**
 * Makes every thread of this process an I/O flusher. The threads of Deno and V8 are there already: so this process executes
 * itself, with the same arguments, as the same process, and all its threads are made by one that is marked. Where that is
 * done, or cannot be, the call returns.
 */
export function beIoFlusher(): void {
  const isDone = Deno.env.get(EXECUTED_VARIABLE) !== undefined;
  Deno.env.delete(EXECUTED_VARIABLE);
  // It is the start of this process that was marked.
  if (isDone || prctl(ProcessControl.GET_IO_FLUSHER, 0) > 0) return;
  if (!markIoFlusher()) return;
  const args = new TextDecoder().decode(Deno.readFileSync("/proc/self/cmdline")).split("\0").slice(0, -1);
  const environment = { ...Deno.env.toObject(), ...ownEnvironment(), [EXECUTED_VARIABLE]: "1" };
  const errno = execute(Deno.execPath(), args, environment);
  logger("memory").debug("{text}", {
    text: `Some threads of this process are no I/O flushers, as it cannot execute itself: ${errnoMessage(errno)}`,
  });
}

/** Has the kernel kill others before this process when there is no memory left, as far as that is permitted. */
export function spareFromOutOfMemory(): void {
  const present = Number(Deno.readTextFileSync(OOM_SCORE_PATH));
  for (const score of OOM_SCORES.filter((score) => score < present)) {
    try {
      Deno.writeTextFileSync(OOM_SCORE_PATH, String(score));
      return;
    } catch {
      logger("memory").debug("{text}", { text: `An oom_score_adj of ${score} is not permitted` });
    }
  }
}
