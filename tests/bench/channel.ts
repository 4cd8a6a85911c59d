/**
 * What protection costs: the same file served by DST to its own client session (`dst bench`) without any, with a
 * checksum, and under each cipher by each provider; and by nbdkit, plain and with TLS, to fio. All over TCP on this
 * machine, in one run, one after the other.
 *
 * The two clients differ, so a row compares whole systems: server and client as people would run them.
 *
 * @module
 */
import { availableCiphers } from "../../engine/cryptography.ts";
import { makeKey, writeKeyFile } from "../../engine/control/key_file.ts";
import { Cipher } from "../../protocol/wire.ts";
import { findProgram } from "../packages.ts";
import { TextLineStream } from "../vm/lines.ts";
import {
  DST,
  measure,
  type Mix,
  type Place,
  processorSeconds,
  type Sample,
  startExporter,
  startServer,
} from "./servers.ts";
import { formatTable } from "./table.ts";

/** As `dst bench` names and makes them. */
const MIXES: readonly Mix[] = [
  { name: "4k random read 32", options: ["--rw=randread", "--bs=4k", "--iodepth=32"] },
  { name: "4k random read 1", options: ["--rw=randread", "--bs=4k", "--iodepth=1"] },
  { name: "256k sequential read 32", options: ["--rw=read", "--bs=256k", "--iodepth=32"] },
  { name: "4k random write 32", options: ["--rw=randwrite", "--bs=4k", "--iodepth=32"] },
  { name: "4k random write 1", options: ["--rw=randwrite", "--bs=4k", "--iodepth=1"] },
  { name: "256k sequential write 32", options: ["--rw=write", "--bs=256k", "--iodepth=32"] },
];
/** Of nbdkit's; it takes no zero. */
const PORT_FIRST = 20_000;
const PORTS = 20_000;

/** One way to protect a connection, and what it reached by mix. */
interface Row {
  readonly name: string;
  readonly samples: Map<string, Sample>;
}

/**
 * Measures every way to protect a connection and prints a table for each mix.
 *
 * @param folder for keys and certificates
 * @param file of which everything may be overwritten
 * @param seconds for each mix
 */
export async function benchChannel(folder: string, file: string, seconds: number): Promise<void> {
  const key = `${folder}/bench.key`;
  writeKeyFile(key, makeKey("bench"));
  const ways: { name: string; options: string[] }[] = [
    { name: "dst none", options: ["--digest", "none"] },
    { name: "dst xxh64", options: ["--digest", "xxh64"] },
    { name: "dst chacha20-poly1305 wasm", options: ["--key", key, "--crypto", "wasm"] },
  ];
  if (availableCiphers("auto").includes(Cipher.AES_256_GCM)) {
    const openssl = ["--key", key, "--crypto", "openssl", "--cipher"];
    ways.push({ name: "dst chacha20-poly1305 openssl", options: [...openssl, "chacha20-poly1305"] });
    ways.push({ name: "dst aes-256-gcm openssl", options: [...openssl, "aes-256-gcm"] });
  } else console.log("\nlibcrypto.so.3 is missing: no figures with it");
  const rows: Row[] = [];
  for (const { name, options } of ways) rows.push({ name, samples: await measureDst(file, options, seconds) });
  rows.push({ name: "nbdkit plain", samples: await measureNbdkit("nbdkit", file, null, seconds) });
  if (findProgram("certtool") === null) console.log("\ncerttool is missing: no figures of nbdkit with TLS");
  else {
    const home = makeCertificates(folder);
    rows.push({ name: "nbdkit TLS", samples: await measureNbdkit("nbdkit", file, home, seconds) });
  }
  printTables(rows);
}

/** Server and client with the same options about protection. */
async function measureDst(file: string, options: readonly string[], seconds: number): Promise<Map<string, Sample>> {
  await using exporter = await startExporter([`disk=${file}`, ...options]);
  const [program, ...args] = [...DST, "bench", `${exporter.address}/disk`, "--write", "--json", ...options];
  const child = new Deno.Command(program, {
    args: [...args, "--seconds", `${seconds}`],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const samples = new Map<string, Sample>();
  let before = processorSeconds(exporter.pid);
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
  for await (const line of lines) {
    const row = JSON.parse(line);
    const after = processorSeconds(exporter.pid);
    samples.set(`${row.mix} ${row.depth}`, {
      operationsPerSecond: row.operations / row.elapsedMs * 1000,
      bytesPerSecond: row.bytes / row.elapsedMs * 1000,
      serverUs: (after - before) * 1e6 / row.allOperations,
      clientUs: row.cpuUs,
    });
    before = after;
  }
  if (!(await child.status).success) throw new Error("Cannot measure DST: dst bench failed");
  return samples;
}

/** @param home of fio, where libnbd looks for certificates; null without TLS */
async function measureNbdkit(
  name: string,
  file: string,
  home: string | null,
  seconds: number,
): Promise<Map<string, Sample>> {
  const place: Place = { hostname: "127.0.0.1", port: PORT_FIRST + Deno.pid % PORTS + (home === null ? 0 : 1) };
  const tls = home === null ? [] : ["--tls=require", `--tls-certificates=${home}`];
  const command = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", `${place.port}`, ...tls, "file", file];
  const uri = `${home === null ? "nbd" : "nbds"}://localhost:${place.port}/`;
  await using server = await startServer(name, command, place, uri);
  const samples = new Map<string, Sample>();
  for (const mix of MIXES) samples.set(mix.name, await measure(server, mix, seconds, [], { HOME: home ?? "/" }));
  return samples;
}

/**
 * A certificate that signs itself, for server and client.
 *
 * @returns the folder for nbdkit, which is also a home in which libnbd finds what it trusts
 */
function makeCertificates(folder: string): string {
  const run = (...args: string[]) => {
    const { success, stderr } = new Deno.Command("certtool", { args, stdout: "null", stderr: "piped" }).outputSync();
    if (!success) throw new Error(`Cannot make a certificate: ${new TextDecoder().decode(stderr)}`);
  };
  const [key, certificate] = [`${folder}/server-key.pem`, `${folder}/server-cert.pem`];
  Deno.writeTextFileSync(
    `${folder}/template`,
    "cn = localhost\ndns_name = localhost\nca\ncert_signing_key\ntls_www_server\nexpiration_days = 1\n",
  );
  run("--generate-privkey", "--key-type=ecdsa", "--outfile", key);
  run("--generate-self-signed", "--load-privkey", key, "--template", `${folder}/template`, "--outfile", certificate);
  Deno.copyFileSync(certificate, `${folder}/ca-cert.pem`);
  Deno.mkdirSync(`${folder}/.pki/libnbd`, { recursive: true });
  Deno.copyFileSync(certificate, `${folder}/.pki/libnbd/ca-cert.pem`);
  return folder;
}

function printTables(rows: readonly Row[]): void {
  const head = ["", "IOPS", "MB/s", "server µs/op", "client µs/op", "IOPS to the last row"];
  const last = rows[rows.length - 1];
  for (const { name } of MIXES) {
    const base = last.samples.get(name)!.operationsPerSecond;
    const cells = rows.map((row) => {
      const { operationsPerSecond, bytesPerSecond, serverUs, clientUs } = row.samples.get(name)!;
      const ratio = (operationsPerSecond / base).toFixed(2);
      const cost = [serverUs, clientUs].map((value) => value.toFixed(1));
      return [row.name, operationsPerSecond.toFixed(0), (bytesPerSecond / 1e6).toFixed(0), ...cost, ratio];
    });
    console.log(`\n${name}, over TCP`);
    console.log(formatTable([head, ...cells]));
  }
}
