import assert from "node:assert/strict";
import { parseConfig, readConfig } from "./config.ts";

const WHOLE = `# all there is
listen = "0.0.0.0:7701"
nbd = "unix:/run/x.sock"
state_dir = "state"
loop = "poll"
workers = 4
digests = ["crc32c"]

[[exports]]
path = "/dev/vg0/data"
name = "data"
read_only = true
shared = true
direct = true
layers = ["delay:100"]

[[exports]]
path = "disk.img"

[[exports]]
path = "mem:1G"
`;

Deno.test("a configuration says everything that the command line can", () => {
  const config = parseConfig(WHOLE, "/etc/dst/exporter.toml");
  assert.deepEqual(config, {
    listen: { host: "0.0.0.0", port: 7701 },
    nbd: { kind: "unix", path: "/run/x.sock" },
    stateDir: "/etc/dst/state",
    loop: "poll",
    workers: 4,
    digests: ["crc32c"],
    exports: [
      {
        name: "data",
        path: "/dev/vg0/data",
        readOnly: true,
        shared: true,
        direct: true,
        layers: ["delay:100"],
      },
      { name: "disk.img", path: "/etc/dst/disk.img", readOnly: false, shared: false, direct: false, layers: [] },
      { name: "mem", path: "mem:1G", readOnly: false, shared: false, direct: false, layers: [] },
    ],
  });
});

Deno.test("what a configuration does not say is left open", () => {
  const config = parseConfig('[[exports]]\npath = "/x"\n', "exporter.toml");
  assert.equal(config.listen, undefined);
  assert.equal(config.nbd, undefined);
  assert.equal(config.exports.length, 1);
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
      ['[[exports]]\npath = ""', /^e\.toml:2: path: must not be empty$/],
      ['[[exports]]\npath = "x"\nshared = 1', /^e\.toml:3: shared: expected true or false$/],
      ['[[exports]]\npath = "x"\nname = "a\\nb"', /^e\.toml:3: name: .*control characters$/],
      ['listen = "a:b:c"\n[[exports]]\npath = "x"', /^e\.toml:1: listen: .*too many colons/],
      ['nbd = "unix:"\n[[exports]]\npath = "x"', /^e\.toml:1: nbd: .*path is missing/],
      ['digests = ["md5"]\n[[exports]]\npath = "x"', /^e\.toml:1: digests: expected some of blake2b-256, hmac/],
      ["workers = 0", /^e\.toml:1: workers: expected a whole number from 1 to 64$/],
      ["workers = 65", /^e\.toml:1: workers: expected a whole number/],
      ["workers = 1.5", /^e\.toml:1: workers: expected a whole number/],
      ['workers = "2"', /^e\.toml:1: workers: expected a number/],
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
