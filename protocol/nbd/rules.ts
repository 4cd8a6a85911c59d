/**
 * Which requests are refused without asking the disk, and why.
 *
 * @module
 */
import { Operation, RequestFlag } from "../request.ts";
import type { Agreement } from "./handshake.ts";
import type { NbdExport } from "./host.ts";
import { Reason } from "./reason.ts";
import type { Requests } from "./requests.ts";
import { BLOCK_BYTES_MAX, Command, CommandFlag } from "./wire.ts";

/** The operation that a command asks of the disk, by `Command`; DISC asks none. */
const OPERATIONS = new Uint8Array(8);
OPERATIONS[Command.READ] = Operation.READ;
OPERATIONS[Command.WRITE] = Operation.WRITE;
OPERATIONS[Command.FLUSH] = Operation.FLUSH;
OPERATIONS[Command.TRIM] = Operation.DISCARD;
OPERATIONS[Command.CACHE] = Operation.CACHE;
OPERATIONS[Command.WRITE_ZEROES] = Operation.WRITE_ZEROES;
OPERATIONS[Command.BLOCK_STATUS] = Operation.BLOCK_STATUS;

/** The `Operation` for a `Command` other than DISC. */
export function operationOf(command: number): number {
  return OPERATIONS[command];
}

/** The `RequestFlag` set for the `CommandFlag` set of a command. FUA stays only where something is written. */
export function requestFlagsOf(command: number, commandFlags: number): number {
  let flags = 0;
  if ((commandFlags & CommandFlag.FUA) !== 0 && mutates(command)) flags |= RequestFlag.FUA;
  if ((commandFlags & CommandFlag.NO_HOLE) !== 0) flags |= RequestFlag.NO_UNMAP;
  if ((commandFlags & CommandFlag.FAST_ZERO) !== 0) flags |= RequestFlag.FAST_ZERO;
  return flags;
}

/** The rules of one connection. */
export class RequestRules {
  readonly #exported: NbdExport;
  readonly #allocation: boolean;
  readonly #slotBytes: number;
  /** Flags that a command may carry, by `Command`. */
  readonly #flags: Uint16Array;

  /** @param slotBytes the longest READ that is answered in one piece */
  constructor(agreement: Agreement, slotBytes: number) {
    this.#exported = agreement.exported;
    this.#allocation = agreement.allocation;
    this.#slotBytes = slotBytes;
    // "Command flags": FUA is valid for every command.
    this.#flags = new Uint16Array(8).fill(CommandFlag.FUA);
    this.#flags[Command.WRITE_ZEROES] |= CommandFlag.NO_HOLE;
    this.#flags[Command.BLOCK_STATUS] |= CommandFlag.REQ_ONE;
    if (agreement.structured) this.#flags[Command.READ] |= CommandFlag.DF;
    if (agreement.exported.fastZero) this.#flags[Command.WRITE_ZEROES] |= CommandFlag.FAST_ZERO;
  }

  /**
   * Why a request is refused: a `Reason`, NONE if it isn't. It's given by its index, as an offset above 2^31 that is an
   * argument of its own may cost an allocation.
   */
  check(requests: Requests, request: number): number {
    const command = requests.command[request];
    const flags = requests.flags[request];
    const offset = requests.offset[request];
    const length = requests.length[request];
    if (command > Command.BLOCK_STATUS) return Reason.UNKNOWN_COMMAND;
    if ((flags & ~this.#flags[command]) !== 0) return Reason.UNKNOWN_FLAG;
    if (command === Command.FLUSH) return offset === 0 && length === 0 ? Reason.NONE : Reason.FLUSH_WITH_RANGE;
    const exported = this.#exported;
    if (exported.readOnly && mutates(command)) return Reason.READ_ONLY;
    if (command === Command.TRIM && !exported.canTrim) return Reason.NO_TRIM;
    if (offset > exported.size || length > exported.size - offset) {
      return command === Command.WRITE || command === Command.WRITE_ZEROES ? Reason.WRITE_PAST_END : Reason.PAST_END;
    }
    if (offset % exported.minimumBlock !== 0 || length % exported.minimumBlock !== 0) return Reason.UNALIGNED;
    switch (command) {
      case Command.READ:
        if (length > BLOCK_BYTES_MAX) return Reason.TOO_LONG;
        return (flags & CommandFlag.DF) !== 0 && length > this.#slotBytes ? Reason.UNFRAGMENTED_TOO_LONG : Reason.NONE;
      case Command.WRITE:
        return length > BLOCK_BYTES_MAX ? Reason.TOO_LONG : Reason.NONE;
      case Command.BLOCK_STATUS:
        if (!this.#allocation) return Reason.NO_CONTEXT;
        return length === 0 ? Reason.EMPTY_STATUS : Reason.NONE;
      default:
        return Reason.NONE;
    }
  }
}

/** Whether a command changes the export. */
function mutates(command: number): boolean {
  return command === Command.WRITE || command === Command.TRIM || command === Command.WRITE_ZEROES;
}
