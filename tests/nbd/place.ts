/**
 * Exporters and attachments, as processes, for the tests with real NBD clients.
 *
 * @module
 */
import { type ChildResult, DaemonChild } from "../../engine/control/child.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const PROGRAM = ["run", "--quiet", "-A", MAIN];
const MIB = 1024 * 1024;

/** How to reach an NBD server. */
export class NbdTarget {
  /** @param address as the program printed it: `unix:/run/disk.sock` or `127.0.0.1:10809` */
  constructor(readonly daemon: DaemonChild, readonly address: string) {}

  /** What NBD clients call an export. */
  uri(name: string): string {
    if (this.address.startsWith("unix:")) return `nbd+unix:///${name}?socket=${this.address.slice(5)}`;
    return `nbd://${this.address}/${name}`;
  }

  /** A plain connection. */
  connect(): Promise<Deno.Conn> {
    if (this.address.startsWith("unix:")) return Deno.connect({ transport: "unix", path: this.address.slice(5) });
    const [hostname, port] = this.address.split(":");
    return Deno.connect({ hostname, port: Number(port) });
  }
}

/** An exporter that serves by NBD too. */
export class Exporter extends NbdTarget {
  /** @param dst where it serves by DST */
  constructor(daemon: DaemonChild, nbd: string, readonly dst: string) {
    super(daemon, nbd);
  }
}

/** A folder on the disk, one on tmpfs, and the daemons that run in them. */
export class Place {
  readonly folder = Deno.makeTempDirSync({ dir: "/var/tmp", prefix: "dst-nbd-" });
  readonly tmpfs = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "dst-nbd-" });
  readonly #daemons: DaemonChild[] = [];
  #sockets = 0;

  /** Lets a test work in a place of its own. */
  static async use(work: (place: Place) => Promise<void>): Promise<void> {
    const place = new Place();
    try {
      await work(place);
    } finally {
      for (const daemon of place.#daemons.reverse()) await daemon.stop("SIGKILL");
      Deno.removeSync(place.folder, { recursive: true });
      Deno.removeSync(place.tmpfs, { recursive: true });
    }
  }

  /** Makes a sparse file; gives its path. */
  file(where: "disk" | "tmpfs", name: string, mebibytes: number): string {
    const path = `${where === "disk" ? this.folder : this.tmpfs}/${name}`;
    Deno.writeFileSync(path, new Uint8Array(0));
    Deno.truncateSync(path, mebibytes * MIB);
    return path;
  }

  /** Makes a file with random data in some places and holes in others; gives its path. */
  image(name: string, mebibytes: number): string {
    const path = this.file("tmpfs", name, mebibytes);
    using file = Deno.openSync(path, { write: true });
    const piece = new Uint8Array(65536);
    // Every other mebibyte, and the first and the last 64 KiB of the disk.
    const places = Array.from({ length: mebibytes / 2 }, (_, i) => (2 * i + 1) * MIB - 3 * 512);
    for (const at of [0, ...places, mebibytes * MIB - piece.length]) {
      for (let i = 0; i < 8 && at + (i + 1) * piece.length <= mebibytes * MIB; i++) {
        crypto.getRandomValues(piece);
        file.seekSync(at + i * piece.length, Deno.SeekMode.Start);
        file.writeSync(piece);
      }
    }
    return path;
  }

  /** An address for an NBD server. A port is the kernel's choice. */
  address(kind: "unix" | "tcp"): string {
    return kind === "tcp" ? "127.0.0.1:0" : `unix:${this.folder}/nbd${this.#sockets++}.sock`;
  }

  /** Starts an exporter. */
  async exporter(nbd: "unix" | "tcp", ...args: string[]): Promise<Exporter> {
    const own = ["--listen", "127.0.0.1:0", "--state-dir", `${this.folder}/state`, "--nbd", this.address(nbd)];
    const daemon = this.#start("export", ...args, ...own);
    const addresses = new Map<unknown, string>();
    while (addresses.size < 2) {
      const { protocol, address } = await daemon.waitFor("listening");
      addresses.set(protocol, String(address));
    }
    return new Exporter(daemon, addresses.get("nbd")!, addresses.get("dst")!);
  }

  /** Attaches an export, to be served by NBD. */
  async attachment(nbd: "unix" | "tcp", exporter: Exporter, name: string, ...args: string[]): Promise<NbdTarget> {
    const daemon = this.#start("attach", `${exporter.dst}/${name}`, "--nbd", this.address(nbd), ...args);
    const event = await daemon.waitFor("attached");
    return new NbdTarget(daemon, String(event.nbd));
  }

  /** Kills a daemon, which then has no time for anything. */
  static kill({ daemon }: NbdTarget): Promise<ChildResult> {
    return daemon.stop("SIGKILL");
  }

  #start(...args: string[]): DaemonChild {
    const env = { DST_RUNTIME_DIR: `${this.folder}/run` };
    const daemon = new DaemonChild(args, { program: PROGRAM, cwd: this.folder, env });
    this.#daemons.push(daemon);
    return daemon;
  }
}
