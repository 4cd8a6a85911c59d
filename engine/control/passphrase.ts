/**
 * Asking for a passphrase: on the terminal without showing it, or from standard input. Never from the command line or the
 * environment, where others can see it.
 *
 * @module
 */
import { Failure, usageFailure } from "./failure.ts";
import { writeError } from "./log.ts";

/** Below it, guessing from a recorded handshake is within reach, however slow Argon2id makes each guess. */
export const PASSPHRASE_CHARACTERS_SAFE = 12;
/** Longer ones add nothing: the key has 32 bytes. */
const PASSPHRASE_BYTES_MAX = 1024;
/** 128 + SIGINT (2), as shells have it. */
const EXIT_INTERRUPTED = 130;
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 } as const;

/** What a byte that was typed leads to. */
export type Typed = "more" | "done" | "interrupted";

/** A line as it is typed, with the few keys that edit it. It holds its bytes until {@link wipe}. */
export class TypedLine {
  /** One more than may be, so that a longer line is told from the longest. */
  readonly #bytes = new Uint8Array(PASSPHRASE_BYTES_MAX + 1);
  #length = 0;

  /** Takes a byte that the keyboard has sent. Keys without a meaning here stay in the line, for the check to refuse. */
  type(byte: number): Typed {
    switch (byte) {
      case 0x0d: // Enter
      case 0x0a:
        return "done";
      case 0x03: // Ctrl-C
        return "interrupted";
      case 0x04: // Ctrl-D
        return this.#length === 0 ? "interrupted" : "more";
      case 0x08: // Backspace, in both of its forms
      case 0x7f:
        // The bytes of a character of several, but for the first, begin with the bits 10.
        while (this.#length > 0 && (this.#bytes[this.#length - 1] & 0xc0) === 0x80) this.#length--;
        if (this.#length > 0) this.#length--;
        return "more";
      case 0x15: // Ctrl-U
        this.#length = 0;
        return "more";
      default:
        if (this.#length < this.#bytes.length) this.#bytes[this.#length++] = byte;
        return "more";
    }
  }

  /** Takes a byte of a file: all but the end of the line is text. */
  append(byte: number): Typed {
    if (byte === 0x0a) return "done";
    if (this.#length < this.#bytes.length) this.#bytes[this.#length++] = byte;
    return "more";
  }

  /**
   * The line's text.
   *
   * @throws {Failure} when it can be no passphrase
   */
  text(): string {
    if (this.#length === 0) throw usageFailure("The passphrase is empty");
    if (this.#length > PASSPHRASE_BYTES_MAX) {
      throw usageFailure(`The passphrase has more than ${PASSPHRASE_BYTES_MAX} bytes`);
    }
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.#bytes.subarray(0, this.#length));
    } catch {
      throw usageFailure("The passphrase is not UTF-8 text");
    }
    // deno-lint-ignore no-control-regex
    if (/[\u0000-\u001f\u007f-\u009f]/.test(text)) {
      throw usageFailure(
        "The passphrase contains a control character: an arrow key, a tab, or a file's carriage return",
      );
    }
    return text;
  }

  wipe(): void {
    this.#bytes.fill(0);
    this.#length = 0;
  }
}

/** Whether a passphrase has so few characters that a machine can guess it. */
export function isShort(passphrase: string): boolean {
  return [...passphrase.normalize("NFC")].length < PASSPHRASE_CHARACTERS_SAFE;
}

/**
 * Asks for a passphrase: twice on the terminal, or by one line of standard input when that is no terminal.
 *
 * @param what it is for, to be put into the question
 * @throws {Failure} when there is none, both are not the same, or it is interrupted
 */
export async function askPassphrase(what: string): Promise<string> {
  if (!Deno.stdin.isTerminal()) return await readLine((line, byte) => line.append(byte), new Input());
  return await withoutEcho(async () => {
    const input = new Input();
    const type = (line: TypedLine, byte: number) => line.type(byte);
    const passphrase = await prompted(`Passphrase for ${what}: `, () => readLine(type, input));
    if (await prompted("The same again: ", () => readLine(type, input)) !== passphrase) {
      throw usageFailure("The two passphrases are not the same");
    }
    return passphrase;
  });
}

/** Standard input, byte by byte. What was read beyond a line is there for the next one. */
class Input {
  readonly #buffer = new Uint8Array(256);
  #at = 0;
  #end = 0;

  /** The next byte, or -1 at the end. */
  async next(): Promise<number> {
    if (this.#at === this.#end) {
      this.#at = 0;
      this.#end = await Deno.stdin.read(this.#buffer) ?? 0;
      if (this.#end === 0) return -1;
    }
    const byte = this.#buffer[this.#at];
    this.#buffer[this.#at++] = 0;
    return byte;
  }
}

async function readLine(take: (line: TypedLine, byte: number) => Typed, input: Input): Promise<string> {
  const line = new TypedLine();
  try {
    for (;;) {
      const byte = await input.next();
      const typed = byte < 0 ? "done" : take(line, byte);
      if (typed === "done") return line.text();
      if (typed === "interrupted") throw new Failure("Interrupted: nothing was made", EXIT_INTERRUPTED);
    }
  } finally {
    line.wipe();
  }
}

/** Asks on standard error, as standard output has the result. What ends the line is not shown, so it is made up for. */
async function prompted(question: string, read: () => Promise<string>): Promise<string> {
  writeError(question);
  try {
    return await read();
  } finally {
    writeError("\n");
  }
}

/** Runs something with a terminal that shows nothing of what is typed; whatever ends it, the terminal is as before. */
async function withoutEcho<T>(work: () => Promise<T>): Promise<T> {
  const listeners = Object.entries(SIGNALS).map(([name, number]) => {
    const listener = () => {
      Deno.stdin.setRaw(false);
      writeError("\n");
      Deno.exit(128 + number);
    };
    return [name as Deno.Signal, listener] as const;
  });
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  Deno.stdin.setRaw(true);
  try {
    return await work();
  } finally {
    Deno.stdin.setRaw(false);
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
  }
}
