import assert from "node:assert/strict";
import { parseRemote } from "../engine/control/address.ts";
import { parseArguments } from "../engine/control/arguments.ts";
import { makeKey, writeKeyFile } from "../engine/control/key_file.ts";
import { TomlFile } from "../engine/control/toml_file.ts";
import { command } from "./command_attach.ts";
import { ClientConfig, type ClientSettings, NO_SETTINGS, readClientConfig } from "./config.ts";
import { forgetKey, patienceOptions, replayBytesOption, sessionOptions } from "./options.ts";
import { PATIENCE, patienceOf } from "./patience.ts";

function settingsOf(content: string, remote = "server/disk", path = "c.toml"): ClientSettings {
  return new ClientConfig(new TomlFile(content, path)).settingsOf(parseRemote(remote));
}

function argumentsOf(...args: string[]) {
  return parseArguments(command.spec, ["server/disk", ...args])!;
}

/** What a file says, without what it leaves out. */
function said({ refuse: _, ...settings }: ClientSettings): Record<string, unknown> {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

Deno.test("an empty file says nothing", () => {
  assert.deepEqual(said(settingsOf("")), {});
  assert.deepEqual(patienceOf(settingsOf("")), PATIENCE);
});

Deno.test("a file says how patient attachments are, in seconds or with units", () => {
  const content = 'resend_interval = "500ms"\nresends = "forever"\nconnect_timeout = 2.5\nping_interval = 1\n' +
    'dead_after = "2m"\n';
  const patience = { resendMs: 500, resends: Infinity, connectMs: 2500, pingIdleMs: 1000, deadMs: 120_000 };
  assert.deepEqual(said(settingsOf(content)), patience);
  assert.deepEqual(patienceOptions(argumentsOf(), settingsOf(content)), patience);
});

Deno.test("a file says what becomes of what an exporter loses with its memory", () => {
  const content = 'on_exporter_restart = "fail"\n[[attachments]]\nremote = "server/disk"\n' +
    'on_exporter_restart = "replay"\nreplay_buffer = "1.5G"\n';
  const replayBytes = 1.5 * 1024 ** 3;
  assert.deepEqual(said(settingsOf(content, "server/other")), { onExporterRestart: "fail" });
  assert.deepEqual(said(settingsOf(content, "server/disk")), { onExporterRestart: "replay", replayBytes });
  assert.throws(
    () => replayBytesOption(argumentsOf(), 1, settingsOf(content, "server/disk")),
    /c\.toml:5: replay_buffer: 1\.5 GiB is not between 1 MiB and 1 GiB/,
  );
});

Deno.test("a section of its own goes before what the file says of all, and the command line before both", () => {
  const content = 'lanes = 2\ndepth = 64\nresends = 7\nkey = "all.key"\n[[attachments]]\nremote = "server/disk"\n' +
    'lanes = 4\nresends = "forever"\n[[attachments]]\nremote = "server:7701/disk"\ndepth = 32\n';
  const settings = settingsOf(content);
  assert.deepEqual(said(settings), { lanes: 4, depth: 64, resends: Infinity, key: "./all.key" });
  assert.deepEqual(
    said(settingsOf(content, "dst://SERVER:7700/disk")),
    said(settings),
    "another way to write the same",
  );
  assert.deepEqual(said(settingsOf(content, "server:7701/disk")), {
    lanes: 2,
    depth: 32,
    resends: 7,
    key: "./all.key",
  });
  assert.deepEqual(said(settingsOf(content, "server/other")), { lanes: 2, depth: 64, resends: 7, key: "./all.key" });
  assert.equal(patienceOptions(argumentsOf("--resends=3"), settings).resends, 3);
  const { key: _, ...keyless } = settings;
  assert.equal(sessionOptions(argumentsOf("--depth=1"), keyless).depth, 1);
  assert.equal(sessionOptions(argumentsOf(), keyless).depth, 64);
});

Deno.test("a mistake is reported with its line", () => {
  const section = '[[attachments]]\nremote = "server/disk"\n';
  const rows: [content: string, message: RegExp][] = [
    ["lanes = 0", /^c\.toml:1: lanes: expected a whole number from 1 to 64$/],
    ["\ndepth = 1025", /^c\.toml:2: depth: expected a whole number from 1 to 1024$/],
    ["resends = 0", /^c\.toml:1: resends: expected a whole number from 1 to 1000000/],
    ['resends = "never"', /^c\.toml:1: resends: expected a whole number from 1 to 1000000, or "forever"$/],
    ['dead_after = "1 day"', /^c\.toml:1: dead_after: Cannot read the duration "1 day"/],
    ["dead_after = true", /^c\.toml:1: dead_after: expected a time/],
    ["connect_timeout = 90000", /^c\.toml:1: connect_timeout: .*at most 24 h/],
    ['on_exporter_restart = "wait"', /^c\.toml:1: on_exporter_restart: expected "replay" or "fail"$/],
    ['replay_buffer = "much"', /^c\.toml:1: replay_buffer: Cannot read the size "much"/],
    ["laens = 1", /^c\.toml:1: unknown key laens; did you mean lanes\?$/],
    [`${section}dpeth = 1`, /^c\.toml:3: unknown key dpeth; did you mean depth\?$/],
    ["[[attachments]]\nlanes = 1", /^c\.toml:1: remote is missing$/],
    ['[[attachments]]\nremote = "server"', /^c\.toml:2: remote: .*expected HOST\[:PORT\]\/NAME/],
    [
      `${section}${section.replace("server", "server:7700")}`,
      /^c\.toml:4: remote: another section is about it already$/,
    ],
    ['ciphers = ["rot13"]', /^c\.toml:1: ciphers: /],
    ['crypto = "me"', /^c\.toml:1: crypto: expected "auto"/],
    ["lanes = ", /^c\.toml:1: /],
  ];
  for (const [content, message] of rows) assert.throws(() => settingsOf(content), { exitCode: 2, message }, content);
});

Deno.test("times that do not go together are reported where they stand, also of sections that are not asked for", () => {
  const message = (line: number, name: string) =>
    new RegExp(`^c\\.toml:${line}: ${name}: a connection that is given up`);
  const other = '[[attachments]]\nremote = "other/disk"\n';
  assert.throws(() => settingsOf("\nping_interval = 15"), { exitCode: 2, message: message(2, "ping_interval") });
  assert.throws(() => settingsOf("ping_interval = 2\ndead_after = 2"), { message: message(2, "dead_after") });
  assert.throws(() => settingsOf(`dead_after = 5\n${other}ping_interval = 5`), { message: message(1, "dead_after") });
  assert.throws(() => settingsOf(`ping_interval = 5\n${other}dead_after = 4`), { message: message(4, "dead_after") });
  assert.throws(() => patienceOptions(argumentsOf("--ping-interval=6"), settingsOf("dead_after = 5")), {
    message: /^--dead-after, --ping-interval: a connection/,
  });
});

Deno.test("a key is read from where the file says, and what is wrong with it is said of the file's line", () => {
  const folder = Deno.makeTempDirSync({ prefix: "dst-client-config-" });
  try {
    const path = `${folder}/client.toml`;
    writeKeyFile(`${folder}/backup.key`, makeKey("backup"));
    Deno.writeTextFileSync(path, 'key = "backup.key"\n[[attachments]]\nremote = "a/b"\nkey = "none.key"\n');
    const config = readClientConfig(path)!;
    const options = sessionOptions(argumentsOf(), config.settingsOf(parseRemote("server/disk")));
    assert.equal(options.key!.name, "backup");
    forgetKey(options);
    const missing = config.settingsOf(parseRemote("a/b"));
    assert.throws(() => sessionOptions(argumentsOf(), missing), { message: /client\.toml:4: key: .*none\.key/ });
    assert.throws(() => sessionOptions(argumentsOf("--key", `${folder}/x.key`), missing), {
      message: /^Cannot.*x\.key/,
    });
    assert.throws(() => readClientConfig(`${folder}/none.toml`), { exitCode: 2, message: /there is no such file$/ });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("ciphers and digests that do not suit the key are reported where they stand", () => {
  const aes = 'lanes = 1\nciphers = ["aes-256-gcm"]';
  assert.throws(() => sessionOptions(argumentsOf(), settingsOf(aes)), {
    exitCode: 2,
    message: /^c\.toml:2: ciphers: aes-256-gcm needs a key/,
  });
  assert.throws(() => sessionOptions(argumentsOf(), settingsOf('digests = ["hmac-sha256"]')), {
    message: /^c\.toml:1: digests: /,
  });
  assert.deepEqual(sessionOptions(argumentsOf("--cipher=none"), settingsOf(aes)).ciphers, ["none"]);
  assert.throws(() => sessionOptions(argumentsOf("--cipher=aes-256-gcm"), NO_SETTINGS), { message: /^--cipher aes/ });
});

Deno.test("the example of the documentation is a configuration, with the defaults that it says", () => {
  const page = Deno.readTextFileSync(new URL("../docs/configuration.md", import.meta.url));
  const example = [...page.matchAll(/```toml\n([^]*?)```/g)].map(([, text]) => text).at(-1)!;
  assert.match(example, /\[\[attachments\]\]/);
  const common = settingsOf(example, "nobody/nothing", "/etc/dst/client.toml");
  assert.deepEqual(patienceOf(common), PATIENCE);
  assert.deepEqual([common.lanes, common.depth, common.key], [1, 128, "/etc/dst/laptop.key"]);
  assert.equal(settingsOf(example, "server/disk.img").resends, Infinity);
});
