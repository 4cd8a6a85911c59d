/**
 * The rules that hold the parts of the repository apart: who may import whom, what the protocol may not touch, how long
 * a file may be, and what may not be in the repository at all.
 *
 * @module
 */
import assert from "node:assert/strict";

/** The checkout. */
const REPOSITORY = new URL("..", import.meta.url).pathname;
/** What building leaves behind, what is generated, and what is not ours. */
const NOT_OURS = [".git", "node_modules", "target", "pkg", "vectors"];
/** A longer file holds more than one thing. */
const LONGEST_FILE_LINES = 600;
/** Which folders a folder's own sources may import from, beside itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  protocol: [],
  ffi: [],
  wasm: [],
  engine: ["protocol", "ffi", "wasm"],
  exporter: ["engine", "protocol", "ffi", "wasm"],
  client: ["engine", "protocol", "ffi", "wasm"],
};
/**
 * What a folder's unit tests may import on top, folders or files: the protocol, to which cryptography is given, is tested
 * with the real one.
 */
const TESTS_MAY_IMPORT: Record<string, readonly string[]> = { protocol: ["wasm", "engine/noise_primitives.ts"] };
/** Packages that only tests may use. */
const TEST_PACKAGES = /^(fast-check|@noble\/|node:assert)/;
/**
 * The one production file that has the noble libraries, for the few short messages of a handshake. Everywhere else they
 * are the oracle that the own kernels are tested against, which they could not be if those stood on them.
 */
const NOBLE_FILE = "engine/noise_primitives.ts";
/** What a sans-I/O module has no business with. `Date` also stands for the clock, `crypto` for randomness. */
const NOT_IN_PROTOCOL =
  /\b(Deno|Date|performance|crypto|setTimeout|setInterval|queueMicrotask|fetch|WebSocket)\b|\b(Math\.random|process\.|console\.|new Worker)/;
/** Machines and folders that only exist where something was developed. Assembled, so that this file does not match. */
const FOREIGN = new RegExp(
  [
    ["registry", "npmjs", "org"].join("\\."),
    ["(?:static|index)", "crates", "io"].join("\\."),
    ["(?:deb|security)", "debian", "org"].join("\\."),
    ["files", "pythonhosted", "org"].join("\\."),
    ["proxy", "golang", "org"].join("\\."),
    `(?<![\\w.])/${"work"}/(?:main|shared)\\b`,
    `(?<![\\w.])/${"home"}/\\w+/`,
    `(?<![\\w.~])/${"root"}/\\.`,
  ].join("|"),
);

interface Source {
  /** Relative to the checkout. */
  readonly path: string;
  readonly text: string;
}

function* walk(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(`${REPOSITORY}${folder}`)) {
    const path = `${folder}${entry.name}`;
    if (entry.isDirectory && !NOT_OURS.includes(entry.name)) yield* walk(`${path}/`);
    if (entry.isFile) yield path;
  }
}

const sources: Source[] = [...walk("")]
  .filter((path) => /(\.(ts|js|mjs|rs|c|h|toml|json|md|sh|yml)|\/run|\/init|Kconfig|Makefile)$/.test(path))
  .map((path) => ({ path, text: Deno.readTextFileSync(`${REPOSITORY}${path}`) }));
const modules = sources.filter((source) => source.path.endsWith(".ts"));

function isTest(path: string): boolean {
  return path.startsWith("tests/") || /_(test|bench)\.ts$/.test(path);
}

/** Every module that the source names: imported, exported from, loaded later, or given to a Worker as a URL. */
function imported(source: Source): string[] {
  const text = withoutComments(source.text);
  const forms = [
    /^\s*(?:import|export)\b[^;"']*?\bfrom\s*["']([^"']+)["']/gm,
    /^\s*import\s*["']([^"']+)["']/gm,
    /\bimport\(\s*["']([^"']+)["']/g,
    /\bnew URL\(\s*["']([^"']+\.ts)["']\s*,\s*import\.meta\.url/g,
  ];
  return forms.flatMap((form) => [...text.matchAll(form)].map((match) => match[1]));
}

/** Good enough for formatted sources: `//` counts where a line or a space precedes it, so not within an address. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

/** The path, relative to the checkout, that a relative specifier means; null for a package. */
function target(source: Source, specifier: string): string | null {
  if (!specifier.startsWith(".") && !specifier.startsWith("/")) return null;
  return new URL(specifier, `file:///${source.path}`).pathname.slice(1);
}

function offences(check: (source: Source) => string[]): string[] {
  return modules.flatMap((source) => check(source).map((what) => `${source.path}: ${what}`));
}

Deno.test("a folder imports only from the folders that it stands on", () => {
  const found = offences((source) => {
    const folder = source.path.split("/")[0];
    if (isTest(source.path) || !(folder in MAY_IMPORT)) return [];
    const allowed = [folder, ...MAY_IMPORT[folder]];
    return imported(source).filter((specifier) => {
      const path = target(source, specifier);
      return path !== null && !allowed.includes(path.split("/")[0]);
    });
  });
  assert.deepEqual(found, []);
});

Deno.test("a unit test imports what its folder may, and the helpers in tests/", () => {
  const found = offences((source) => {
    const folder = source.path.split("/")[0];
    if (!isTest(source.path) || !(folder in MAY_IMPORT)) return [];
    const allowed = [folder, "tests", ...MAY_IMPORT[folder], ...TESTS_MAY_IMPORT[folder] ?? []];
    return imported(source).filter((specifier) => {
      const path = target(source, specifier);
      return path !== null && !allowed.includes(path.split("/")[0]) && !allowed.includes(path);
    });
  });
  assert.deepEqual(found, []);
});

Deno.test("nothing but tests imports tests, and what only tests may use", () => {
  const found = offences((source) => {
    if (isTest(source.path)) return [];
    return imported(source).filter((specifier) => {
      const path = target(source, specifier);
      if (source.path === NOBLE_FILE && specifier.startsWith("@noble/")) return false;
      return path === null ? TEST_PACKAGES.test(specifier) : isTest(path);
    });
  });
  assert.deepEqual(found, []);
});

Deno.test("the protocol has no clock, no randomness, no input and output, and no packages", () => {
  const found = offences((source) => {
    if (isTest(source.path) || !source.path.startsWith("protocol/")) return [];
    const packages = imported(source).filter((specifier) => target(source, specifier) === null);
    const lines = withoutComments(source.text).split("\n").map((line) => line.trim());
    return [...packages, ...lines.filter((line) => NOT_IN_PROTOCOL.test(line))];
  });
  assert.deepEqual(found, []);
});

Deno.test("there is one place for each of the two libraries where it is opened", () => {
  const opens = modules.filter((source) =>
    /\bDeno\.dlopen\b/.test(withoutComments(source.text)) && !isTest(source.path)
  );
  assert.deepEqual(opens.map((source) => source.path).sort(), ["ffi/libc.ts", "ffi/libcrypto.ts"]);
});

Deno.test("no file is too long", () => {
  const written = sources.filter((source) => /\.(ts|rs|c|h)$/.test(source.path));
  const long = written.map((source) => [source.path, source.text.split("\n").length - 1] as const)
    .filter(([, lines]) => lines > LONGEST_FILE_LINES);
  assert.deepEqual(long, []);
});

Deno.test("no source names a package registry's host or a folder of one machine", () => {
  const found = sources.flatMap((source) => {
    const lines = source.text.split("\n").filter((line) => FOREIGN.test(line));
    return lines.map((line) => `${source.path}: ${line.trim()}`);
  });
  assert.deepEqual(found, []);
});

Deno.test("the lock file says what to get and never where from", () => {
  const lock = Deno.readTextFileSync(`${REPOSITORY}deno.lock`);
  assert.deepEqual(lock.split("\n").filter((line) => /https?:\/\//.test(line)), []);
});

Deno.test("the rules see what they are to forbid", () => {
  const source = {
    path: "protocol/a/b.ts",
    text: [
      'import { a } from "../../ffi/a.ts";',
      "import {\n  type B,\n} from './b.ts';",
      'import "../c.ts";',
      'export * from "../d.ts";',
      'const e = await import("../e.ts");',
      'const f = new URL("./f.ts", import.meta.url);',
      '/** import { g } from "../g.ts"; */',
      '// import { h } from "../h.ts";',
    ].join("\n"),
  };
  const specifiers = ["../../ffi/a.ts", "./b.ts", "../d.ts", "../c.ts", "../e.ts", "./f.ts"];
  assert.deepEqual(imported(source), specifiers);
  assert.equal(target(source, "../../ffi/a.ts"), "ffi/a.ts");
  assert.equal(target(source, "valibot"), null);
  for (const line of ["const t = Date.now();", "Deno.exit()", "crypto.getRandomValues(b)", "Math.random()"]) {
    assert.match(line, NOT_IN_PROTOCOL);
  }
  assert.doesNotMatch("const cryptoKeys = updateDate2;", NOT_IN_PROTOCOL);
  assert.match(`see /${"work"}/main/a.ts`, FOREIGN);
});
