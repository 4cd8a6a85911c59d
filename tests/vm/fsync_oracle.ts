/**
 * Work on a filesystem, and what of it must be there after a loss of power: whatever was synced before, in that state
 * or a later one.
 *
 * Each file is written in a way of its own: the journal grows at its end, the table is overwritten in place, documents
 * are replaced as a whole by renaming, and removed.
 *
 * @module
 */
import { Random } from "../../engine/random.ts";

const BLOCK_BYTES = 4096;
const TABLE_BLOCKS = 48;
const DOCUMENTS = 6;

/** What has been written, or synced: how far the work has come. */
export interface Progress {
  /** Bytes of the journal. */
  readonly journal: number;
  /** The version of each block of the table. */
  readonly table: readonly number[];
  /** The version of each document: odd ones are there, even ones are not. */
  readonly documents: readonly number[];
}

/** What a loss of power may leave. */
export interface Legal {
  /** What was synced: at least that is there. */
  readonly synced: Progress;
  /** What was written at all: nothing else can be there. */
  readonly written: Progress;
}

const NOTHING: Progress = {
  journal: 0,
  table: new Array<number>(TABLE_BLOCKS).fill(0),
  documents: new Array<number>(DOCUMENTS).fill(0),
};

/** Works on a folder. */
export class SyncedWork {
  synced = NOTHING;
  readonly #folder: string;
  readonly #random: Random;
  #journal = 0;
  readonly #table: number[] = [...NOTHING.table];
  readonly #documents: number[] = [...NOTHING.documents];

  constructor(folder: string, seed: number) {
    this.#folder = folder;
    this.#random = new Random(seed);
  }

  get written(): Progress {
    return { journal: this.#journal, table: [...this.#table], documents: [...this.#documents] };
  }

  /** Writes something, and syncs it in three of four cases; {@link synced} knows. */
  step(): void {
    const kind = this.#random.below(7);
    if (kind <= 1) this.#growJournal();
    else if (kind <= 3) this.#overwriteTable();
    else if (kind <= 5) this.#replaceDocument();
    else this.#removeDocument();
  }

  #growJournal(): void {
    const length = 512 * (1 + this.#random.below(64));
    using file = Deno.openSync(`${this.#folder}/journal`, { append: true, create: true });
    writeAll(file, journalBytes(this.#journal, length));
    this.#journal += length;
    if (this.#random.below(4) === 0) return;
    file.syncDataSync();
    if (this.synced.journal === 0) this.#syncFolder();
    this.synced = { ...this.synced, journal: this.#journal };
  }

  #overwriteTable(): void {
    using file = Deno.openSync(`${this.#folder}/table`, { write: true, create: true });
    const isFirst = this.#table.every((version) => version === 0);
    const blocks = isFirst
      ? this.#table.map((_, block) => block)
      : Array.from({ length: 1 + this.#random.below(12) }, () => this.#random.below(TABLE_BLOCKS));
    for (const block of blocks) {
      file.seekSync(block * BLOCK_BYTES, Deno.SeekMode.Start);
      writeAll(file, blockBytes(block, ++this.#table[block]));
    }
    if (this.#random.below(4) === 0) return;
    file.syncSync();
    if (this.synced.table[0] === 0) this.#syncFolder();
    this.synced = { ...this.synced, table: [...this.#table] };
  }

  #replaceDocument(): void {
    const document = this.#random.below(DOCUMENTS);
    const version = this.#documents[document] += this.#documents[document] % 2 === 0 ? 1 : 2;
    const path = `${this.#folder}/document-${document}`;
    {
      using file = Deno.openSync(`${path}.new`, { write: true, create: true, truncate: true });
      for (let block = 0; block < blocksOf(version); block++) writeAll(file, blockBytes(block, version));
      file.syncSync();
    }
    Deno.renameSync(`${path}.new`, path);
    this.#settleDocuments();
  }

  #removeDocument(): void {
    const document = this.#documents.findIndex((version) => version % 2 === 1);
    if (document < 0) return this.#replaceDocument();
    this.#documents[document]++;
    Deno.removeSync(`${this.#folder}/document-${document}`);
    this.#settleDocuments();
  }

  #settleDocuments(): void {
    if (this.#random.below(4) === 0) return;
    this.#syncFolder();
    this.synced = { ...this.synced, documents: [...this.#documents] };
  }

  #syncFolder(): void {
    using folder = Deno.openSync(this.#folder);
    folder.syncSync();
  }
}

/**
 * Looks whether a folder is as a loss of power may leave it.
 *
 * @returns what is not, for people
 */
export function findLosses(folder: string, { synced, written }: Legal): string[] {
  const losses: string[] = [];
  const journal = read(`${folder}/journal`) ?? new Uint8Array(0);
  if (!areEqual(journal.subarray(0, synced.journal), journalBytes(0, synced.journal))) {
    losses.push(`the journal has ${journal.length} bytes, and its first ${synced.journal}, which were synced, differ`);
  }
  if (journal.length > written.journal) losses.push(`the journal has ${journal.length} bytes of ${written.journal}`);
  const table = read(`${folder}/table`) ?? new Uint8Array(0);
  for (const [block, version] of synced.table.entries()) {
    const found = versionOf(table, block, block);
    if (found !== null && found >= version && found <= written.table[block]) continue;
    losses.push(
      `block ${block} of the table has version ${found}, ${version} was synced, ${written.table[block]} written`,
    );
  }
  for (const [document, version] of synced.documents.entries()) {
    const last = written.documents[document];
    const bytes = read(`${folder}/document-${document}`);
    const found = bytes === null ? null : versionOf(bytes, 0, 0);
    const isLegal = bytes === null || found === null
      // It was not there when it was synced, or may have been removed later.
      ? bytes === null && (version % 2 === 0 || last > version)
      : found >= version && found <= last && isWhole(bytes, found);
    if (!isLegal) losses.push(`document ${document} has version ${found}, ${version} was synced, ${last} written`);
  }
  return losses;
}

/** How many blocks a document of that version has. */
function blocksOf(version: number): number {
  return 1 + version % 5;
}

/** What stands in a block: its number and version, all over. */
function blockBytes(block: number, version: number): Uint8Array {
  const words = new Uint32Array(BLOCK_BYTES / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = block;
    words[i + 1] = version;
  }
  return new Uint8Array(words.buffer);
}

/** What stands in the journal there. */
function journalBytes(from: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => ((from + i) * 31 + ((from + i) >> 8)) & 0xff);
}

/** The version of the nth block of a file, 0 where nothing was written; null where it is none that was ever written. */
function versionOf(file: Uint8Array, nth: number, block: number): number | null {
  const bytes = file.slice(nth * BLOCK_BYTES, (nth + 1) * BLOCK_BYTES);
  if (bytes.every((byte) => byte === 0)) return 0;
  if (bytes.length < BLOCK_BYTES) return null;
  const version = new Uint32Array(bytes.buffer)[1];
  return areEqual(bytes, blockBytes(block, version)) ? version : null;
}

/** Whether a document is all of one version. */
function isWhole(bytes: Uint8Array, version: number): boolean {
  const blocks = Array.from({ length: blocksOf(version) }, (_, block) => block);
  return bytes.length === blocks.length * BLOCK_BYTES && version % 2 === 1 &&
    blocks.every((block) => versionOf(bytes, block, block) === version);
}

function areEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

function read(path: string): Uint8Array | null {
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}
