/**
 * The NBD protocol, server side, without I/O.
 *
 * @module
 */
export { NBD_PREFIX_BYTES, type NbdExport, type NbdHost, type NbdRefusal, OPEN_PENDING } from "./host.ts";
export { NBD_SCRATCH_BYTES, NbdServer, type NbdServerOptions } from "./server.ts";
export { OptionReply } from "./wire.ts";
