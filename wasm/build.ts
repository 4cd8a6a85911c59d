/**
 * `deno task build:wasm`: makes `pkg/` from the Rust sources with the pinned toolchain, installing what of it is
 * missing.
 *
 * The module's bytes depend on nothing but the files that `pkg/SOURCES.sha256` lists: one code generation unit, no
 * debugging information or name section, and the crate is compiled by its relative path, so that no folder of the
 * machine gets into it. (`--remap-path-prefix` would have nothing to replace.) `rebuild_check.ts` builds in another
 * folder and compares.
 *
 * @module
 */
import { CRATE, GENERATED, makeRecord, RECORD } from "./sources.ts";

const TARGET = "wasm32-unknown-unknown";
/** What wasm-pack leaves beside the module for a browser: loading it the way a Worker needs it is `core.ts`. */
const NOT_USED = ["pkg/dst_core.js", "pkg/dst_core.d.ts", "pkg/.gitignore"];

/** What a build tool said or did not: the message is for a person. */
export class BuildError extends Error {
  /** As the class. */
  override name = "BuildError";
}

/** Whether there is a Rust of any version to start from. */
export async function hasRust(): Promise<boolean> {
  return await said("cargo", ["--version"], CRATE) !== null;
}

/**
 * Builds the crate in the folder and replaces its `pkg/`.
 *
 * @param crate the crate's folder; its `target/` and `pkg/` are written
 * @throws BuildError if a tool is missing or fails
 */
export async function build(crate: URL): Promise<void> {
  const settings = await readSettings(crate);
  await needToolchain(crate, settings.rust);
  const wasmPack = await needWasmPack(crate, settings.wasmPack);
  await run(
    wasmPack,
    ["build", "--target", "web", "--release", "--no-pack", "--out-dir", "pkg", "--", "--locked"],
    crate,
  );
  for (const path of NOT_USED) await Deno.remove(new URL(path, crate));
  await Deno.writeTextFile(new URL(RECORD, crate), await makeRecord(crate));
}

interface Settings {
  readonly rust: string;
  readonly wasmPack: string;
}

/** The pinned versions, from where the tools themselves or the record's reader find them. */
async function readSettings(crate: URL): Promise<Settings> {
  const rust = await setting(new URL("rust-toolchain.toml", crate), /^channel = "([\d.]+)"$/m);
  const wasmPack = await setting(new URL("Cargo.toml", crate), /^wasm-pack = "([\d.]+)"$/m);
  return { rust, wasmPack };
}

async function setting(file: URL, pattern: RegExp): Promise<string> {
  const match = pattern.exec(await Deno.readTextFile(file));
  if (match === null) throw new BuildError(`Cannot build the Rust core: ${file.pathname} pins no version`);
  return match[1];
}

/** The pinned compiler with the standard library of the target, installed by rustup where it is missing. */
async function needToolchain(crate: URL, version: string): Promise<void> {
  if (await hasToolchain(crate, version)) return;
  if (await said("rustup", ["--version"], CRATE) === null) {
    const found = await said("rustc", ["--version"], crate);
    throw new BuildError(
      `Cannot build the Rust core: it needs Rust ${version} with the target ${TARGET}, and ` +
        `${found === null ? "there is no Rust here" : `this is ${found.trim()}`}. ` +
        "Install rustup (https://rustup.rs), then run this again: it fetches the rest.",
    );
  }
  await run("rustup", ["toolchain", "install", version, "--profile", "minimal", "--target", TARGET], crate);
  if (!await hasToolchain(crate, version)) {
    throw new BuildError(`Cannot build the Rust core: rustup has installed Rust ${version}, but rustc is another one`);
  }
}

async function hasToolchain(crate: URL, version: string): Promise<boolean> {
  const rustc = await said("rustc", ["--version"], crate);
  if (rustc === null || !rustc.startsWith(`rustc ${version} `)) return false;
  const libraries = await said("rustc", ["--print", "target-libdir", "--target", TARGET], crate);
  if (libraries === null) return false;
  return await Deno.stat(libraries.trim()).then((info) => info.isDirectory, () => false);
}

/** Answers the pinned wasm-pack: one on the search path, or one of our own, which takes two minutes the first time. */
async function needWasmPack(crate: URL, version: string): Promise<string> {
  const tools = new URL("target/tools/", CRATE).pathname;
  const own = `${tools}bin/wasm-pack`;
  for (const candidate of ["wasm-pack", own]) {
    if ((await said(candidate, ["--version"], crate))?.trim() === `wasm-pack ${version}`) return candidate;
  }
  await run("cargo", ["install", "--locked", "wasm-pack", "--version", version, "--root", tools], crate);
  return own;
}

/** The standard output of a command, null if it is missing or fails. */
async function said(command: string, args: string[], cwd: URL): Promise<string | null> {
  try {
    const { success, stdout } = await new Deno.Command(command, { args, cwd, stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout) : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Runs a command with its output for all to see. RUSTFLAGS is taken away: it would replace the crate's own flags. */
async function run(command: string, args: string[], cwd: URL): Promise<void> {
  const { RUSTFLAGS: _, CARGO_ENCODED_RUSTFLAGS: __, CARGO_TARGET_DIR: ___, ...env } = Deno.env.toObject();
  const { code } = await new Deno.Command(command, { args, cwd, clearEnv: true, env }).spawn().status;
  if (code !== 0) throw new BuildError(`Cannot build the Rust core: ${command} ${args[0]} ended with status ${code}`);
}

if (import.meta.main) {
  try {
    await build(CRATE);
    const { size } = await Deno.stat(new URL(GENERATED[0], CRATE));
    console.log(`made wasm/${GENERATED[0]}: ${size} bytes`);
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
