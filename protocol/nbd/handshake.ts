/**
 * The handshake phase of the NBD server: greeting, client flags, and options until transmission begins. This is the
 * control phase: it makes strings and objects freely, but its answers come from one fixed area, so a client that sends
 * options without taking the answers is made to wait.
 *
 * @module
 */
import { assert } from "../assert.ts";
import { type Memory, type StreamConsumer, Verdict } from "../consumer.ts";
import { type NbdExport, type NbdHost, type NbdRefusal, OPEN_PENDING } from "./host.ts";
import { type MetaQuery, type OpenQuery, readMetaQuery, readOpenQuery, readString } from "./option.ts";
import { ReplyArea } from "./reply_area.ts";
import {
  ALLOCATION_CONTEXT,
  BLOCK_BYTES_MAX,
  CLIENT_FLAGS_BYTES,
  HandshakeFlag,
  Info,
  Magic,
  MINIMUM_BLOCK_BYTES_MAX,
  Option,
  OPTION_BYTES,
  OptionReply,
  PREFERRED_BLOCK_BYTES_MIN,
  TransmissionFlag,
} from "./wire.ts";

/** The longest option data that is looked at: the longest export name, and as much again for queries. */
export const OPTION_DATA_BYTES_MAX = 16 * 1024;
/** Where replies wait until they are sent. */
const REPLY_AREA_BYTES = 32 * 1024;
/** All the replies to one option, but for LIST: INFO with a name and a description of 4096 bytes each, rounded up. */
const REPLIES_BYTES_MAX = 12 * 1024;
/** What a {@link Handshake} needs of the arena. */
export const HANDSHAKE_SCRATCH_BYTES = OPTION_DATA_BYTES_MAX + REPLY_AREA_BYTES;
/** The id of the one metadata context. */
export const ALLOCATION_CONTEXT_ID = 1;

/** What was agreed. */
export interface Agreement {
  readonly exported: NbdExport;
  readonly structured: boolean;
  /** BLOCK_STATUS with `base:allocation` was selected for this export. */
  readonly allocation: boolean;
}

/** The handshake of one connection. When {@link Handshake.agreement} is set, it's over and transmission begins. */
export class Handshake implements StreamConsumer {
  headerBytes = CLIENT_FLAGS_BYTES;
  payloadAt = -1;
  payloadBytes = 0;
  /** Null until the client enters transmission. */
  agreement: Agreement | null = null;
  /** New work is refused: every option but ABORT is answered with ERR_SHUTDOWN. */
  shuttingDown = false;

  readonly #memory: Memory;
  readonly #host: NbdHost;
  readonly #dataAt: number;
  readonly #replies: ReplyArea;
  #noZeroes = false;
  #structured = false;
  /** The export whose metadata context was selected, as the client wrote it. */
  #contextOf: string | null = null;
  #option = 0;
  #optionBytes = 0;
  /** The option's data is being dropped: only its size counts. */
  #tooBig = false;
  #listing: readonly { readonly name: string; readonly description: string }[] | null = null;
  #listed = 0;
  #opening = false;
  #opened: NbdExport | NbdRefusal | null = null;

  /** @param scratchAt arena offset of {@link HANDSHAKE_SCRATCH_BYTES} bytes */
  constructor(memory: Memory, host: NbdHost, scratchAt: number) {
    this.#memory = memory;
    this.#host = host;
    this.#dataAt = scratchAt;
    this.#replies = new ReplyArea(memory, host, scratchAt + OPTION_DATA_BYTES_MAX, REPLY_AREA_BYTES);
  }

  /** Sends the greeting. */
  start(): void {
    this.#replies.greeting(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES);
    this.#replies.send();
  }

  /** One transmission without a slot was sent. */
  sent(): void {
    this.#replies.sent();
  }

  /** The outcome of an open that was pending. The host resumes the stream after it. */
  opened(outcome: NbdExport | NbdRefusal): void {
    if (!this.#opening) return;
    this.#opened = outcome;
  }

  onHeader(at: number): Verdict {
    if (this.headerBytes === CLIENT_FLAGS_BYTES) return this.#onClientFlags(this.#memory.view.getUint32(at));
    const view = this.#memory.view;
    if (view.getUint32(at) !== Magic.OPTION_HIGH || view.getUint32(at + 4) !== Magic.OPTION_LOW) return Verdict.CLOSE;
    if (!this.#replies.hasRoom(REPLIES_BYTES_MAX)) return Verdict.WAIT;
    this.#option = view.getUint32(at + 8);
    this.#optionBytes = view.getUint32(at + 12);
    if (this.#optionBytes === 0) return this.#finish(this.#onOption());
    this.#tooBig = this.#optionBytes > OPTION_DATA_BYTES_MAX;
    this.payloadAt = this.#tooBig ? -1 : this.#dataAt;
    this.payloadBytes = this.#optionBytes;
    return Verdict.PAYLOAD;
  }

  onPayload(): Verdict {
    if (!this.#tooBig) return this.#finish(this.#onOption());
    this.#tooBig = false;
    if (this.#option === Option.EXPORT_NAME) return Verdict.CLOSE;
    if (this.#option === Option.ABORT) return this.#finish(this.#onAbort());
    return this.#finish(this.#error(OptionReply.ERR_TOO_BIG, "the option's data is too long"));
  }

  #onClientFlags(flags: number): Verdict {
    const known = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES;
    if ((flags & ~known) !== 0) return Verdict.CLOSE;
    this.#noZeroes = (flags & HandshakeFlag.NO_ZEROES) !== 0;
    this.headerBytes = OPTION_BYTES;
    return Verdict.NEXT;
  }

  /** Every way out of an option goes through here: what was written for it is sent. */
  #finish(verdict: Verdict): Verdict {
    this.#replies.send();
    return verdict;
  }

  #onOption(): Verdict {
    if (this.#option === Option.ABORT) return this.#onAbort();
    if (this.shuttingDown) {
      if (this.#option === Option.EXPORT_NAME) return Verdict.CLOSE;
      return this.#error(OptionReply.ERR_SHUTDOWN, "the server is shutting down");
    }
    switch (this.#option) {
      case Option.EXPORT_NAME:
        return this.#onExportName();
      case Option.LIST:
        return this.#onList();
      case Option.INFO:
      case Option.GO:
        return this.#onOpen();
      case Option.STRUCTURED_REPLY:
        return this.#onStructuredReply();
      case Option.LIST_META_CONTEXT:
      case Option.SET_META_CONTEXT:
        return this.#onMetaContext();
      default:
        return this.#error(OptionReply.ERR_UNSUP, "this server does not know the option");
    }
  }

  #onAbort(): Verdict {
    this.#replies.ack(this.#option);
    return Verdict.CLOSE;
  }

  #onStructuredReply(): Verdict {
    if (this.#optionBytes !== 0) return this.#error(OptionReply.ERR_INVALID, "the option has no data");
    this.#structured = true;
    return this.#ack();
  }

  #onList(): Verdict {
    if (this.#optionBytes !== 0) return this.#error(OptionReply.ERR_INVALID, "the option has no data");
    if (this.#listing === null) {
      this.#listing = this.#host.listExports();
      this.#listed = 0;
    }
    while (this.#listed < this.#listing.length) {
      // The area takes a part of a long list at a time; the rest follows when that is sent.
      if (!this.#replies.hasRoom(REPLIES_BYTES_MAX)) return Verdict.WAIT;
      const entry = this.#listing[this.#listed++];
      this.#replies.server(this.#option, entry.name, entry.description);
    }
    this.#listing = null;
    return this.#ack();
  }

  #onMetaContext(): Verdict {
    const set = this.#option === Option.SET_META_CONTEXT;
    if (set) this.#contextOf = null;
    if (!this.#structured) return this.#error(OptionReply.ERR_INVALID, "structured replies must be negotiated first");
    const query: MetaQuery | null = readMetaQuery(this.#memory, this.#dataAt, this.#optionBytes);
    if (query === null) return this.#error(OptionReply.ERR_INVALID, "the option's data is malformed");
    const found = set
      ? query.queries.includes(ALLOCATION_CONTEXT)
      : query.queries.length === 0 || query.queries.some((text) => text === "base:" || text === ALLOCATION_CONTEXT);
    if (found) {
      // Ids in a list are reserved and zero.
      this.#replies.metaContext(this.#option, set ? ALLOCATION_CONTEXT_ID : 0, ALLOCATION_CONTEXT);
      if (set) this.#contextOf = query.name;
    }
    return this.#ack();
  }

  #onExportName(): Verdict {
    const name = readString(this.#memory, this.#dataAt, this.#optionBytes);
    if (name === null) return Verdict.CLOSE;
    const outcome = this.#open(name, true);
    if (outcome === null) return Verdict.WAIT;
    if ("refused" in outcome) return Verdict.CLOSE;
    this.#replies.exportName(outcome.size, this.#transmissionFlags(outcome), !this.#noZeroes);
    this.#agree(outcome, name);
    return Verdict.NEXT;
  }

  #onOpen(): Verdict {
    const query: OpenQuery | null = readOpenQuery(this.#memory, this.#dataAt, this.#optionBytes);
    if (query === null) return this.#error(OptionReply.ERR_INVALID, "the option's data is malformed");
    const enter = this.#option === Option.GO;
    const outcome = this.#open(query.name, enter);
    if (outcome === null) return Verdict.WAIT;
    if ("refused" in outcome) return this.#error(outcome.refused, outcome.message);
    this.#replies.infoExport(this.#option, outcome.size, this.#transmissionFlags(outcome));
    if (query.infos.includes(Info.NAME)) this.#replies.infoText(this.#option, Info.NAME, outcome.name);
    if (query.infos.includes(Info.DESCRIPTION) && outcome.description !== "") {
      this.#replies.infoText(this.#option, Info.DESCRIPTION, outcome.description);
    }
    if (query.infos.includes(Info.BLOCK_SIZE)) {
      const preferred = preferredBlock(outcome);
      this.#replies.infoBlockSize(this.#option, outcome.minimumBlock, preferred, BLOCK_BYTES_MAX);
    }
    this.#replies.ack(this.#option);
    if (enter) this.#agree(outcome, query.name);
    return Verdict.NEXT;
  }

  /** The export or the refusal; null while the host is still at it. */
  #open(name: string, enter: boolean): NbdExport | NbdRefusal | null {
    let outcome: NbdExport | NbdRefusal | null = this.#opened;
    this.#opened = null;
    if (!this.#opening) {
      const answer = this.#host.openExport(name, enter);
      this.#opening = answer === OPEN_PENDING;
      if (answer !== OPEN_PENDING) outcome = answer;
    }
    if (outcome === null) return null;
    this.#opening = false;
    if (!("refused" in outcome)) {
      const block = outcome.minimumBlock;
      assert(Number.isSafeInteger(outcome.size) && outcome.size >= 0, "an export's size is a safe integer");
      assert(block >= 1 && block <= MINIMUM_BLOCK_BYTES_MAX, "a minimum block has 1 to 65536 bytes");
      assert((block & (block - 1)) === 0, "a minimum block is a power of two");
    }
    return outcome;
  }

  #agree(exported: NbdExport, name: string): void {
    this.agreement = { exported, structured: this.#structured, allocation: this.#contextOf === name };
  }

  #transmissionFlags(exported: NbdExport): number {
    let flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA |
      TransmissionFlag.SEND_CACHE;
    if (this.#structured) flags |= TransmissionFlag.SEND_DF;
    if (exported.multiConn) flags |= TransmissionFlag.CAN_MULTI_CONN;
    if (exported.readOnly) return flags | TransmissionFlag.READ_ONLY;
    flags |= TransmissionFlag.SEND_WRITE_ZEROES;
    if (exported.canTrim) flags |= TransmissionFlag.SEND_TRIM;
    if (exported.fastZero) flags |= TransmissionFlag.SEND_FAST_ZERO;
    return flags;
  }

  #ack(): Verdict {
    this.#replies.ack(this.#option);
    return Verdict.NEXT;
  }

  #error(reply: number, message: string): Verdict {
    this.#replies.text(this.#option, reply, message);
    return Verdict.NEXT;
  }
}

/** What may be advertised as preferred: a power of two, at least 512 and the minimum, at most the maximum. */
function preferredBlock(exported: NbdExport): number {
  let bytes = Math.max(PREFERRED_BLOCK_BYTES_MIN, exported.minimumBlock);
  while (bytes < exported.preferredBlock && bytes < BLOCK_BYTES_MAX) bytes *= 2;
  return bytes;
}
