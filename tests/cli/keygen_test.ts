import assert from "node:assert/strict";
import { readKeyFile } from "../../engine/control/key_file.ts";
import { Workplace } from "./program.ts";

const PROGRAM = [Deno.execPath(), "run", "--quiet", "-A", new URL("../../main.ts", import.meta.url).pathname];
/** Of SPEC.md's vectors: tests/vectors/passphrase.json. */
const PASSPHRASE = { name: "backup-2", text: "correct horse battery staple", id: "f7cda5e8814f7e8f9e5970d84fe090f0" };

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program in a folder, with this on its standard input. */
async function runWith(input: string | Uint8Array, folder: string, program: readonly string[]): Promise<Outcome> {
  const [executable, ...args] = program;
  const child = new Deno.Command(executable, {
    args: [...args],
    cwd: folder,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  const written = writer.write(typeof input === "string" ? new TextEncoder().encode(input) : input)
    .then(() => writer.close())
    // Whoever refuses at once need not have read it.
    .catch(() => {});
  const { code, stdout, stderr } = await child.output();
  await written;
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

function keygen(input: string | Uint8Array, folder: string, ...args: string[]): Promise<Outcome> {
  return runWith(input, folder, [...PROGRAM, "keygen", ...args]);
}

function filesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

Deno.test(
  "a key gets a file of its name that only its user may read, and what it prints is no secret",
  Workplace.test(async (place) => {
    const { code, stdout, stderr } = await place.run("keygen", "alice");
    assert.equal(code, 0, stderr);
    const path = `${place.folder}/alice.key`;
    const key = readKeyFile(path);
    assert.equal(key.name, "alice");
    assert.equal(Deno.statSync(path).mode! & 0o7777, 0o600);
    assert.match(stdout, new RegExp(`^key alice \\(id ${key.id.toHex()}\\) is in alice\\.key\n`));
    assert.match(stdout, /--key alice\.key/);
    assert.ok(!(stdout + stderr).includes(key.secret.toHex()));
    const other = await place.run("keygen", "alice", "--out", "other.key", "--json");
    const id = readKeyFile(`${place.folder}/other.key`).id.toHex();
    assert.notEqual(id, key.id.toHex());
    assert.deepEqual(JSON.parse(other.stdout), { event: "key", name: "alice", id, path: "other.key", derived: false });
  }),
);

Deno.test(
  "a key is never overwritten, and a name or place that cannot be is refused",
  Workplace.test(async (place) => {
    Deno.writeTextFileSync(`${place.folder}/a.key`, "mine");
    await Promise.all([
      place.fails(1, /Cannot write the key file a\.key: there is something already, .*--out/, "keygen", "a"),
      place.fails(1, /no\/such\.key: there is no such folder/, "keygen", "a", "--out", "no/such.key"),
      place.fails(2, /The name of a key has 1 to 64 characters/, "keygen", "a/b"),
      place.fails(2, /The name of a key has 1 to 64 characters/, "keygen", "x".repeat(65)),
      place.fails(2, /Missing argument: dst keygen NAME/, "keygen"),
      place.fails(2, /Too many arguments/, "keygen", "a", "b"),
    ]);
    assert.equal(Deno.readTextFileSync(`${place.folder}/a.key`), "mine");
  }),
);

Deno.test(
  "a disk that is full leaves no half of a key behind",
  Workplace.test(async (place) => {
    // No file may grow: writing fails as on a full disk.
    const shell = `trap '' XFSZ; ulimit -f 0; exec "$@"`;
    const { code, stderr } = await runWith("", place.folder, ["sh", "-c", shell, "sh", ...PROGRAM, "keygen", "a"]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /^dst: Cannot write the key file a\.key: .+$/m);
    assert.deepEqual(filesIn(place.folder), []);
  }),
);

Deno.test(
  "a passphrase is the first line of standard input, and gives the key that SPEC.md has for it",
  Workplace.test(async (place) => {
    const { name, text, id } = PASSPHRASE;
    const outcomes = await Promise.all([
      keygen(`${text}\nmore\n`, place.folder, name, "--passphrase"),
      keygen(text, place.folder, name, "--passphrase", "--out", "without-newline.key", "--json"),
    ]);
    for (const { code, stdout, stderr } of outcomes) {
      assert.equal(code, 0, stderr);
      assert.equal(stderr, "");
      assert.ok(stdout.includes(id) && !stdout.includes(text), stdout);
    }
    for (const file of [`${name}.key`, "without-newline.key"]) {
      assert.equal(readKeyFile(`${place.folder}/${file}`).id.toHex(), id);
    }
  }),
);

Deno.test(
  "a passphrase that is none is refused, and a short one is warned about",
  Workplace.test(async (place) => {
    const refusals: [string | Uint8Array, RegExp][] = [
      ["", /^dst: The passphrase is empty$/m],
      ["\nlater\n", /^dst: The passphrase is empty$/m],
      ["hush-hush\r\n", /^dst: The passphrase contains a control character/m],
      [Uint8Array.of(0xff, 10), /^dst: The passphrase is not UTF-8 text$/m],
      ["x".repeat(100_000), /^dst: The passphrase has more than 1024 bytes$/m],
    ];
    await Promise.all(refusals.map(async ([input, message]) => {
      const { code, stderr } = await keygen(input, place.folder, "a", "--passphrase");
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.ok(!stderr.includes("hush"));
    }));
    assert.deepEqual(filesIn(place.folder), []);
    const { code, stderr } = await keygen("hush-hush\n", place.folder, "a", "--passphrase");
    assert.equal(code, 0, stderr);
    assert.match(stderr, /\[warning\] keygen: The passphrase has fewer than 12 characters/);
    assert.ok(!stderr.includes("hush"));
  }),
);

Deno.test(
  "a passphrase on the command line is refused, and not repeated",
  Workplace.test(async (place) => {
    const wrong = [["a", "--passphrase", "hush-hush"], ["a", "--passphrase=hush-hush"], ["a", "hush-hush"]];
    for (const args of wrong) {
      const { code, stdout, stderr } = await place.run("keygen", ...args);
      assert.equal(code, 2, stderr);
      assert.ok(!(stdout + stderr).includes("hush"), stderr);
    }
    assert.deepEqual(filesIn(place.folder), []);
  }),
);

/** A terminal in which keygen asks for a passphrase, with the terminal's settings before and after. */
class Terminal {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #done: Promise<void>;
  #shown = "";
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(folder: string, ...args: string[]) {
    const words = [...PROGRAM, "keygen", ...args].map((word) => `'${word}'`).join(" ");
    const command = `trap : INT; stty -g; sh -c 'echo "pid $$"; exec "$0" "$@"' ${words}; echo "exit $?"; stty -g`;
    this.#process = new Deno.Command("script", {
      args: ["-q", "-e", "-c", command, "/dev/null"],
      cwd: folder,
      env: { NO_COLOR: "1", SHELL: "/bin/sh" },
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#process.stdin.getWriter();
    this.#done = this.#read();
  }

  /** Of keygen. */
  get pid(): number {
    return Number(/^pid (\d+)/m.exec(this.#shown)![1]);
  }

  async type(keys: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(keys));
  }

  /** Waits until the text was shown. */
  async shows(text: string): Promise<void> {
    while (!this.#shown.includes(text)) {
      if (this.#ended) throw new Error(`"${text}" was never shown, but ${this.#shown}`);
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** All that was shown, once the program and the shell have ended. */
  async end(): Promise<string> {
    await this.#done;
    await this.#process.status;
    await this.#writer.close().catch(() => {});
    return this.#shown;
  }

  async #read(): Promise<void> {
    for await (const chunk of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      this.#shown += chunk;
      this.#wake?.();
    }
    this.#ended = true;
    this.#wake?.();
  }
}

/** Checks that the terminal's settings are the same at both ends of what was shown, and gives what keygen ended with. */
function exitOf(shown: string): number {
  const lines = shown.trim().split(/\r?\n/);
  assert.match(lines[0], /^[0-9a-f:]+$/);
  assert.equal(lines.at(-1), lines[0], shown);
  return Number(/^exit (\d+)$/.exec(lines.at(-2)!)?.[1]);
}

Deno.test(
  "on a terminal the passphrase is asked for twice and not shown",
  Workplace.test(async (place) => {
    const terminal = new Terminal(place.folder, PASSPHRASE.name, "--passphrase");
    await terminal.shows("Passphrase for the key backup-2: ");
    await terminal.type(`wrong\x15${PASSPHRASE.text}!\x7f\r`);
    await terminal.shows("The same again: ");
    await terminal.type(`${PASSPHRASE.text}\r`);
    const shown = await terminal.end();
    assert.equal(exitOf(shown), 0, shown);
    assert.ok(!shown.includes("correct") && !shown.includes("wrong"), shown);
    assert.equal(readKeyFile(`${place.folder}/${PASSPHRASE.name}.key`).id.toHex(), PASSPHRASE.id);
  }),
);

Deno.test(
  "on a terminal both lines may come at once, and two that differ make no key",
  Workplace.test(async (place) => {
    const terminal = new Terminal(place.folder, "a", "--passphrase");
    await terminal.shows("Passphrase for");
    await terminal.type("correct horse\rcorrect house\r");
    const shown = await terminal.end();
    assert.equal(exitOf(shown), 2, shown);
    assert.match(shown, /dst: The two passphrases are not the same/);
    assert.deepEqual(filesIn(place.folder), []);
  }),
);

Deno.test(
  "Ctrl-C and signals leave the terminal as it was, and no key",
  Workplace.test(async (place) => {
    const keys = new Terminal(place.folder, "a", "--passphrase");
    await keys.shows("Passphrase for");
    await keys.type("corr\x03");
    const interrupted = await keys.end();
    assert.equal(exitOf(interrupted), 130, interrupted);
    assert.match(interrupted, /dst: Interrupted: nothing was made/);
    const signalled = new Terminal(place.folder, "a", "--passphrase");
    await signalled.shows("Passphrase for");
    Deno.kill(signalled.pid, "SIGTERM");
    assert.equal(exitOf(await signalled.end()), 143);
    assert.deepEqual(filesIn(place.folder), []);
  }),
);
