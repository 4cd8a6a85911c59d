/**
 * `dst keygen`: makes the key that two machines share.
 *
 * @module
 */
import { asUsage, type Command } from "./arguments.ts";
import { usageFailure } from "./failure.ts";
import { checkKeyName, checkNothingIsAt, type Key, keyFromPassphrase, makeKey, writeKeyFile } from "./key_file.ts";
import { logger } from "./log.ts";
import { announce } from "./output.ts";
import { askPassphrase, isShort, PASSPHRASE_CHARACTERS_SAFE } from "./passphrase.ts";

/** The command. */
export const keygenCommand: Command = {
  spec: {
    name: "keygen",
    summary: "Makes a key that exporter and client share",
    positionals: "NAME",
    // More than one is refused by the command itself, which never repeats what may be a passphrase.
    count: [1, Infinity],
    options: [
      { name: "--out", value: "FILE", help: "where the key goes (default: NAME.key in this folder)" },
      { name: "--passphrase", help: "derive the key from a passphrase, which is asked for, instead of drawing it" },
      { name: "--json", help: "print the event as JSON" },
    ],
    notes: [
      "Whoever has the key can attach what it permits, or pose as the exporter: the file is for its user alone (mode " +
      "0600), and one that is there is never overwritten. NAME, of up to 64 characters of A-Z a-z 0-9 . _ -, says to the exporter " +
      "who somebody is.",
      "With --passphrase the same NAME and passphrase give the same key on every machine, so that no file has to be " +
      "carried. It is asked for twice on the terminal, or read as one line from standard input where that is none.",
    ],
    examples: [
      ["keygen backup", "makes backup.key, to be copied to the other machine"],
      ["keygen backup --passphrase", "asks for the passphrase; the same command makes the same key over there"],
      ["keygen backup --out /etc/dst/backup.key", "makes the key somewhere else"],
    ],
  },
  async run(args) {
    const [name, ...rest] = args.positionals;
    asUsage(() => checkKeyName(name));
    const asks = args.has("--passphrase");
    if (rest.length > 0) {
      throw usageFailure(
        asks
          ? "A passphrase does not belong on the command line, where others can see it: leave it out, and it is asked for"
          : "Too many arguments: one NAME is enough (see dst keygen --help)",
      );
    }
    const path = args.value("--out") ?? `${name}.key`;
    // Nobody types a passphrase twice to hear only then that there is no place for its key.
    checkNothingIsAt(path);
    const key = asks ? await derived(name) : makeKey(name);
    try {
      writeKeyFile(path, key);
    } finally {
      key.secret.fill(0);
    }
    const id = key.id.toHex();
    announce(
      { json: { event: "key", name, id, path, derived: asks }, text: textOf(name, id, path, asks) },
      args.has("--json"),
    );
    return 0;
  },
};

async function derived(name: string): Promise<Key> {
  const passphrase = await askPassphrase(`the key ${name}`);
  if (isShort(passphrase)) {
    logger("keygen").warning(
      "The passphrase has fewer than {characters} characters: whoever records one connection can guess it at leisure",
      { characters: PASSPHRASE_CHARACTERS_SAFE },
    );
  }
  return await keyFromPassphrase(name, passphrase);
}

function textOf(name: string, id: string, path: string, isDerived: boolean): string {
  return [
    `key ${name} (id ${id}) is in ${path}`,
    isDerived
      ? "Run the same command with the same passphrase on the other machine, or copy the file."
      : "Copy the file to the other machine in a way that nobody else can read, such as scp.",
    `Then give it to both sides: dst export ... --key ${path}, and dst attach ... --key ${path}`,
  ].join("\n");
}
