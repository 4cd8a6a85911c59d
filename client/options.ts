/**
 * Options that the client's commands share.
 *
 * @module
 */
import type { OptionSpec, ParsedArguments } from "../engine/control/arguments.ts";
import { parseDigests, suiteDefaults } from "../engine/control/algorithms.ts";
import type { SessionOptions } from "./attach.ts";

/** As `DEPTH_MAX` of the protocol's specification. */
const DEPTH_MAX = 1024;
/** What ublk's own tools take; deep enough that a round trip of a millisecond does not limit a fast disk. */
const DEPTH_DEFAULT = 128;
/** As `NAME_BYTES_MAX` of the protocol's specification. */
const HOLDER_BYTES_MAX = 255;

/** How a session is made. */
export const SESSION_OPTIONS: readonly OptionSpec[] = [
  {
    name: "--depth",
    value: "N",
    help: `how many requests may be in flight at once on each connection (default: ${DEPTH_DEFAULT})`,
  },
  {
    name: "--digest",
    value: "LIST",
    help: "checksums to accept, the best first, of xxh64, crc32c, none (default: all)",
  },
  {
    name: "--loop",
    value: "LOOP",
    choices: ["auto", "uring", "poll"],
    help: "how to talk to the kernel (default: auto, which takes io_uring where it can)",
  },
];

/** Reads {@link SESSION_OPTIONS}. */
export function sessionOptions(args: ParsedArguments): SessionOptions {
  return {
    depth: args.integer("--depth", 1, DEPTH_MAX) ?? DEPTH_DEFAULT,
    digests: args.read("--digest", parseDigests) ?? suiteDefaults(false).digests,
    loop: args.value("--loop") as SessionOptions["loop"] | undefined ?? "auto",
    holder: holderOf(Deno.hostname(), Deno.pid),
  };
}

/** What the exporter shows to others as the holder of an export. */
export function holderOf(hostname: string, pid: number): string {
  const suffix = ` (pid ${pid})`;
  return hostname.slice(0, HOLDER_BYTES_MAX - suffix.length) + suffix;
}
