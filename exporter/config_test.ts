import assert from "node:assert/strict";
import { formatRange, parseRange } from "../engine/control/cidr.ts";
import { type Key, makeKey, writeKeyFile } from "../engine/control/key_file.ts";
import { parseConfig, readConfig } from "./config.ts";
import { accessRules, clashOf, LIMIT_DEFAULTS } from "./config_security.ts";
import { Permissions } from "./permissions.ts";

const WHOLE = `# all there is
listen = "0.0.0.0:7701"
nbd = "unix:/run/x.sock"
state_dir = "state"
loop = "poll"
workers = 4
ciphers = ["aes-256-gcm", "none"]
digests = ["crc32c"]
crypto = "openssl"
insecure = true
allow = ["10.0.0.0/8", "::1"]

[limits]
connections = 50
connections_per_address = 40
sessions = 10
lanes = 2
attempts_burst = 5
attempts_per_minute = 6
log_lines_per_minute = 7

[[exports]]
path = "/dev/vg0/data"
name = "data"
read_only = true
shared = true
direct = true
layers = ["delay:100"]
allow = ["10.1.0.0/16"]
permissions = { "*" = "read" }

[[exports]]
path = "disk.img"

[[exports]]
path = "mem:1G"
`;

const PLAIN = { readOnly: false, shared: false, direct: false, layers: [], allow: null, permissions: null };

Deno.test("a configuration says everything that the command line can", () => {
  const config = parseConfig(WHOLE, "/etc/dst/exporter.toml");
  assert.deepEqual(config, {
    listen: { host: "0.0.0.0", port: 7701 },
    nbd: { kind: "unix", path: "/run/x.sock" },
    stateDir: "/etc/dst/state",
    loop: "poll",
    workers: 4,
    ciphers: ["aes-256-gcm", "none"],
    digests: ["crc32c"],
    crypto: "openssl",
    insecure: true,
    allow: [parseRange("10.0.0.0/8"), parseRange("::1")],
    keys: [],
    limits: {
      connections: 50,
      connectionsPerAddress: 40,
      sessions: 10,
      lanes: 2,
      attempts: { burst: 5, perMinute: 6 },
      logLinesPerMinute: 7,
    },
    exports: [
      {
        name: "data",
        path: "/dev/vg0/data",
        readOnly: true,
        shared: true,
        direct: true,
        layers: ["delay:100"],
        allow: [parseRange("10.1.0.0/16")],
        permissions: { "*": "read" },
      },
      { name: "disk.img", path: "/etc/dst/disk.img", ...PLAIN },
      { name: "mem", path: "mem:1G", ...PLAIN },
    ],
  });
});

Deno.test("what a configuration does not say is left open", () => {
  const config = parseConfig('[[exports]]\npath = "/x"\n', "exporter.toml");
  assert.equal(config.listen, undefined);
  assert.equal(config.nbd, undefined);
  assert.deepEqual(config.exports, [{ name: "x", path: "/x", ...PLAIN }]);
  for (const value of [config.ciphers, config.digests, config.crypto, config.workers, config.insecure, config.allow]) {
    assert.equal(value, undefined);
  }
  assert.deepEqual(config.limits, LIMIT_DEFAULTS);
  assert.deepEqual(config.keys, []);
});

Deno.test("a mistake is reported with its line", () => {
  for (
    const [content, message] of [
      ["listen = \n", /^e\.toml:1: /],
      ["\n\n[[exports]\n", /^e\.toml:3: /],
      ["", /^e\.toml: there must be at least one \[\[exports\]\] section$/],
      ["exports = []", /there must be at least one/],
      ["exports = 3", /^e\.toml:1: exports: expected \[\[exports\]\] sections/],
      ['lisen = "x"\n[[exports]]\npath = "x"', /^e\.toml:1: unknown key lisen; did you mean listen\?$/],
      ['[[exports]]\npath = "x"\n[[exports]]\npath = "y"\nreadonly = true', /^e\.toml:5: unknown key readonly; did/],
      ['[[exports]]\npath = "x"\n\n[[exports]]\nname = "y"', /^e\.toml:4: path is missing$/],
      ["[[exports]]\npath = 3", /^e\.toml:2: path: expected text in quotes$/],
      ['[[exports]]\npaht = "x"', /^e\.toml:2: unknown key paht; did you mean path\?$/],
      ['[[exports]]\npath = ""', /^e\.toml:2: path: must not be empty$/],
      ['[[exports]]\npath = "x"\nshared = 1', /^e\.toml:3: shared: expected true or false$/],
      ['[[exports]]\npath = "x"\nname = "a\\nb"', /^e\.toml:3: name: .*control characters$/],
      ['listen = "a:b:c"\n[[exports]]\npath = "x"', /^e\.toml:1: listen: .*too many colons/],
      ['nbd = "unix:"\n[[exports]]\npath = "x"', /^e\.toml:1: nbd: .*path is missing/],
      ['digests = ["md5"]\n[[exports]]\npath = "x"', /^e\.toml:1: digests: "md5" is not one of blake2b-256, hmac/],
      ['ciphers = ["aes-256-gmc"]', /^e\.toml:1: ciphers: .*; did you mean aes-256-gcm\?$/],
      ["ciphers = []", /^e\.toml:1: ciphers: must not be empty$/],
      ['ciphers = ["none", "none"]', /^e\.toml:1: ciphers: "none" is given twice$/],
      ['ciphers = "none"', /^e\.toml:1: ciphers: expected a list of texts$/],
      ['crypto = "fast"', /^e\.toml:1: crypto: expected "auto", "wasm" or "openssl"$/],
      ['insecure = "yes"', /^e\.toml:1: insecure: expected true or false$/],
      ['allow = "10.0.0.0/8"', /^e\.toml:1: allow: expected a list of texts$/],
      ['allow = ["::1",\n"10.1.0.0/8"]', /^e\.toml:1: allow: .*"10\.1\.0\.0\/8": .* write 10\.0\.0\.0\/8/],
      ['[[exports]]\npath = "x"\nallow = ["server"]', /^e\.toml:3: allow: .*"server" is not an IP address/],
      ['[[keys]]\nfile = "k"\nname = "x"', /^e\.toml:3: unknown key name$/],
      ["[[keys]]\nallow = []", /^e\.toml:1: file is missing$/],
      ['[[keys]]\nfile = "a"\n[[keys]]\nfiel = "b"', /^e\.toml:4: unknown key fiel; did you mean file\?$/],
      ['keys = ["a"]', /^e\.toml:1: keys: /],
      ["[limits]\nlanse = 1", /^e\.toml:2: unknown key lanse; did you mean lanes\?$/],
      ["[limits]\nlanes = 65", /^e\.toml:2: lanes: expected a whole number from 1 to 64$/],
      ["[limits]\nattempts_per_minute = 0", /^e\.toml:2: attempts_per_minute: expected a whole number from 1 to/],
      ["limits = 3", /^e\.toml:1: limits: expected a \[limits\] section$/],
      ['[[exports]]\npath = "x"\n[exports.permissions]\nalice = "write"', /^e\.toml:4: alice: expected "read" or "re/],
      ['[[exports]]\npath = "x"\npermissions = "read"', /^e\.toml:3: permissions: expected a section$/],
      [
        '[[exports]]\npath = "x"\n[exports.permissions]\nalice = "read"',
        /^e\.toml:4: there is no key named "alice" \(/,
      ],
      ["workers = 0", /^e\.toml:1: workers: expected a whole number from 1 to 64$/],
      ["workers = 65", /^e\.toml:1: workers: expected a whole number/],
      ["workers = 1.5", /^e\.toml:1: workers: expected a whole number/],
      ['workers = "2"', /^e\.toml:1: workers: expected a whole number/],
      ['loop = "x"\n[[exports]]\npath = "x"', /^e\.toml:1: loop: expected "auto"/],
    ] as const
  ) assert.throws(() => parseConfig(content, "e.toml"), { name: "Failure", exitCode: 2, message }, content);
});

Deno.test("a file that cannot be read is named", () => {
  assert.throws(
    () => readConfig("/nonexistent.toml"),
    /Cannot read the configuration \/nonexistent\.toml: there is no/,
  );
  assert.throws(() => readConfig("/tmp"), /Cannot read the configuration \/tmp: /);
});

/** Calls a function with a folder that has key files of these names. */
function withKeys(names: readonly string[], work: (folder: string, keys: Key[]) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "dst-config-" });
  try {
    const keys = names.map((name) => makeKey(name));
    for (const key of keys) writeKeyFile(`${folder}/${key.name}.key`, key);
    work(folder, keys);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const KEYS = `[[keys]]
file = "alice.key"

[[keys]]
file = "bob.key"
allow = ["10.0.0.0/8"]

[[exports]]
path = "/x"
[exports.permissions]
alice = "read-write"
bob = "read"

[[exports]]
path = "/y"
`;

Deno.test("keys are read from the file's folder, and rules come of all together that have no secret", () => {
  withKeys(["alice", "bob"], (folder, [alice, bob]) => {
    const config = parseConfig(KEYS, `${folder}/e.toml`);
    assert.deepEqual(config.keys!.map(({ key }) => key.secret.toHex()), [alice.secret.toHex(), bob.secret.toHex()]);
    const rules = accessRules({ allow: null, keys: config.keys!, exports: config.exports });
    assert.deepEqual(rules.keys.map(({ name, allow }) => [name, allow?.map(formatRange)]), [
      ["alice", undefined],
      ["bob", ["10.0.0.0/8"]],
    ]);
    assert.ok(!JSON.stringify(rules).includes(alice.secret.toHex()) && !("secret" in rules.keys[0]));
    const permissions = new Permissions(rules);
    const from = (host: string) => ({ family: "ipv4", host, port: 1 }) as const;
    assert.equal(permissions.accessTo("x", alice.id.toHex(), from("127.0.0.1")), "read-write");
    assert.equal(permissions.accessTo("x", bob.id.toHex(), from("127.0.0.1")), null);
    assert.equal(permissions.accessTo("x", bob.id.toHex(), from("10.0.0.1")), "read");
    assert.equal(permissions.accessTo("y", bob.id.toHex(), from("10.0.0.1")), "read-write");
  });
});

Deno.test("permissions may name a key that was given elsewhere", () => {
  withKeys(["alice"], (folder) => {
    const content = KEYS.replace('[[keys]]\nfile = "bob.key"\nallow = ["10.0.0.0/8"]\n', "");
    const path = `${folder}/e.toml`;
    assert.throws(
      () => parseConfig(content, path),
      /e\.toml:9: there is no key named "bob" \(see \[\[keys\]\] and --key\)$/,
    );
    assert.equal(parseConfig(content, path, [makeKey("bob")]).keys!.length, 1);
    const typo = content.replace("bob", "alcie");
    assert.throws(() => parseConfig(typo, path), /e\.toml:9: there is no key named "alcie"; did you mean alice\?$/);
  });
});

Deno.test("a key that cannot be used is reported with the line that names it", () => {
  withKeys(["alice", "bob"], (folder, [alice]) => {
    const path = `${folder}/e.toml`;
    const refused = (message: RegExp, given: Key[] = []) => {
      assert.throws(() => parseConfig(KEYS, path, given), { name: "Failure", exitCode: 2, message });
    };
    Deno.chmodSync(`${folder}/bob.key`, 0o644);
    refused(/e\.toml:5: Cannot use the key file .*\/bob\.key: others may use it too \(mode 0644\): run chmod 600/);
    Deno.removeSync(`${folder}/bob.key`);
    refused(/e\.toml:5: Cannot use the key file .*\/bob\.key: there is no such file/);
    writeKeyFile(`${folder}/bob.key`, makeKey("alice"));
    refused(/e\.toml:5: there is another key named "alice"/);
    Deno.removeSync(`${folder}/bob.key`);
    writeKeyFile(`${folder}/bob.key`, { ...alice, name: "bob" });
    refused(/e\.toml:5: "bob" is the same key as "alice"$/);
    refused(/e\.toml:2: there is another key named "alice"/, [makeKey("alice")]);
  });
});

Deno.test("keys that cannot be told apart are found", () => {
  const [a, b] = [makeKey("a"), makeKey("b")];
  assert.equal(clashOf([a, b]), null);
  assert.equal(clashOf([]), null);
  assert.equal(clashOf([a, b, makeKey("a")])!.index, 2);
  assert.match(clashOf([a, { ...a, name: "c" }, b])!.message, /^"c" is the same key as "a"$/);
});

Deno.test("the example of the documentation is a configuration, with the defaults that it says", () => {
  const page = Deno.readTextFileSync(new URL("../docs/configuration.md", import.meta.url));
  const example = /```toml\n([^]*?)```/.exec(page)![1];
  withKeys(["laptop", "backup"], (folder, [, backup]) => {
    const config = parseConfig(example, `${folder}/exporter.toml`);
    assert.deepEqual(config.limits, LIMIT_DEFAULTS);
    assert.deepEqual(config.exports.map(({ name, permissions }) => [name, permissions]), [
      ["data", { laptop: "read-write", backup: "read" }],
      ["disk.img", null],
    ]);
    const rules = accessRules({ allow: config.allow!, keys: config.keys!, exports: config.exports });
    const from = (host: string) => ({ family: "ipv4", host, port: 1 }) as const;
    const access = (host: string) => new Permissions(rules).accessTo("data", backup.id.toHex(), from(host));
    assert.deepEqual([access("192.168.7.5"), access("192.168.7.6")], ["read", null]);
  });
});
