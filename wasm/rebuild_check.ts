/**
 * Builds the committed module anew, in another folder, and compares every byte: `deno run -A wasm/rebuild_check.ts`.
 * Ends with status 1 if they differ. A stage of its own in the full test, as it may take minutes the first time.
 *
 * Then the crate's own tests run, compiled for this machine's processor.
 *
 * @module
 */
import { build, BuildError, hasRust } from "./build.ts";
import { CRATE, GENERATED, RECORD, sourceFiles } from "./sources.ts";

/** Copies the sources to a new folder and builds there. Answers the folder. */
async function rebuildElsewhere(): Promise<URL> {
  const folder = new URL(`file://${await Deno.makeTempDir({ prefix: "dst-core-" })}/`);
  for (const path of sourceFiles(CRATE)) {
    const copy = new URL(path, folder);
    await Deno.mkdir(new URL("./", copy), { recursive: true });
    await Deno.copyFile(new URL(path, CRATE), copy);
  }
  await build(folder);
  return folder;
}

/** The files of the crate that differ in the other folder, or are missing from one of them. */
async function differing(folder: URL): Promise<string[]> {
  const differ: string[] = [];
  for (const path of [...GENERATED, RECORD]) {
    const committed = await Deno.readFile(new URL(path, CRATE));
    const rebuilt = await Deno.readFile(new URL(path, folder));
    if (committed.toHex() !== rebuilt.toHex()) differ.push(path);
  }
  return differ;
}

async function main(): Promise<number> {
  if (!await hasRust()) {
    console.log("there is no Rust here: the committed WebAssembly module is not rebuilt and compared");
    return 0;
  }
  let folder: URL | undefined;
  try {
    folder = await rebuildElsewhere();
    const differ = await differing(folder);
    for (const path of differ) console.error(`wasm/${path} is not what its sources give: run deno task build:wasm`);
    if (differ.length > 0) return 1;
    console.log("the committed WebAssembly module is what its sources give, byte by byte");
    const { code } = await new Deno.Command("cargo", { args: ["test", "--release", "--locked"], cwd: folder }).spawn()
      .status;
    return code;
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(error.message);
    return 1;
  } finally {
    if (folder !== undefined) await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) Deno.exit(await main());
