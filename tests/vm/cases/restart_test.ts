/**
 *                                                     kill -9, again and again
 *   fio and fsync on ext4 on /dev/ublkbN ── dst attach ════════▶ dst export ──▶ file
 *
 * @module
 */
import { KILL_ROUNDS } from "../guest_tools.ts";
import { killExporterUnderLoad } from "../kill_rounds.ts";

Deno.test(`an exporter that is killed ${KILL_ROUNDS} times under load is missed by nobody`, () =>
  killExporterUnderLoad(() => [], ["--lanes", "2"]));
