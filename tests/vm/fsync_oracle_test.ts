import assert from "node:assert/strict";
import { findLosses, type Legal, SyncedWork } from "./fsync_oracle.ts";

/** A folder in which work was done, with what it was after each step. */
function worked(use: (folder: string, legal: Legal, earlier: Legal) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    const work = new SyncedWork(folder, 5);
    for (let step = 0; step < 20; step++) work.step();
    const earlier = { synced: work.synced, written: work.written };
    for (let step = 0; step < 60; step++) work.step();
    use(folder, { synced: work.synced, written: work.written }, earlier);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("what was written is legal, also where it need not be there yet, and too much is not", () => {
  worked((folder, { synced, written }, earlier) => {
    assert(written.journal > 0 && written.table.every((version) => version > 0));
    assert(written.documents.some((version) => version > 2));
    assert.deepEqual(findLosses(folder, { synced, written }), []);
    assert.deepEqual(findLosses(folder, { synced: written, written }), []);
    assert.deepEqual(findLosses(folder, { synced: earlier.synced, written }), []);
    assert(findLosses(folder, earlier).length > 0);
  });
});

Deno.test("every kind of loss is found", () => {
  const harms: [RegExp, (folder: string, legal: Legal) => void][] = [
    [/the journal/, (folder) => Deno.truncateSync(`${folder}/journal`, 100)],
    [/the journal/, (folder) => Deno.removeSync(`${folder}/journal`)],
    [/block 47 of the table has version 0/, (folder) => Deno.truncateSync(`${folder}/table`, 47 * 4096)],
    [/block 3 of the table has version null/, (folder) => patch(`${folder}/table`, 3 * 4096 + 2048, 0)],
    [/document \d has version 0/, (folder, legal) => Deno.truncateSync(document(folder, legal), 0)],
    [/document \d has version null/, (folder, legal) => Deno.removeSync(document(folder, legal))],
    [/document \d has version \d+,/, (folder, legal) => Deno.truncateSync(document(folder, legal), 4096)],
  ];
  for (const [loss, harm] of harms) {
    worked((folder, legal) => {
      // All of it, so that there is a document of several blocks that must be there.
      const all = { synced: legal.written, written: legal.written };
      harm(folder, all);
      const losses = findLosses(folder, all);
      assert(losses.length > 0);
      for (const one of losses) assert.match(one, loss);
    });
  }
});

/** One that is there and has more than one block. */
function document(folder: string, { synced }: Legal): string {
  const found = synced.documents.findIndex((version) => version % 2 === 1 && version % 5 > 0);
  assert(found >= 0);
  return `${folder}/document-${found}`;
}

function patch(path: string, offset: number, value: number): void {
  using file = Deno.openSync(path, { write: true });
  file.seekSync(offset, Deno.SeekMode.Start);
  file.writeSync(new Uint8Array(4).fill(value));
}
