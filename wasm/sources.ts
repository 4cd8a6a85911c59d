/**
 * What the generated module in `pkg/` was made from, and its record `pkg/SOURCES.sha256`: lines as of sha256sum(1), so
 * that `sha256sum --check pkg/SOURCES.sha256` in this folder verifies them without us.
 *
 * @module
 */

/** The crate's folder, with a slash at its end. */
export const CRATE = new URL("./", import.meta.url);
/** The record, relative to the crate. */
export const RECORD = "pkg/SOURCES.sha256";
/** What a build leaves in the crate that is committed, relative to it. */
export const GENERATED = ["pkg/dst_core_bg.wasm", "pkg/dst_core_bg.wasm.d.ts"] as const;

/** What decides the module's bytes beside the sources: dependencies, their lock, compiler flags, toolchain. */
const SETTINGS = [".cargo/config.toml", "Cargo.lock", "Cargo.toml", "rust-toolchain.toml"] as const;

/** Every file that the module is made from, relative to the crate, in order. */
export function sourceFiles(crate: URL): string[] {
  const files = [...SETTINGS, ...rustFiles(crate, "src/")];
  return files.sort();
}

/**
 * The record as it is to be: a line for each source and for each generated file.
 *
 * @throws Deno.errors.NotFound if one of them is missing
 */
export async function makeRecord(crate: URL): Promise<string> {
  let record = "";
  for (const path of [...sourceFiles(crate), ...GENERATED]) {
    const bytes = await Deno.readFile(new URL(path, crate));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    record += `${digest.toHex()}  ${path}\n`;
  }
  return record;
}

function* rustFiles(crate: URL, folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(new URL(folder, crate))) {
    const path = `${folder}${entry.name}`;
    if (entry.isDirectory) yield* rustFiles(crate, `${path}/`);
    else if (path.endsWith(".rs")) yield path;
  }
}
