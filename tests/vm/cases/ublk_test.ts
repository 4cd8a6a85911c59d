/**
 * The ublk binding on the real driver.
 *
 * @module
 */
import { runUblkDeviceSuite } from "../../ffi/ublk_device_suite.ts";
import { switchProcessor } from "../guest_tools.ts";

// It asks through each of two queues.
Deno.test.beforeAll(() => switchProcessor(1, true));
Deno.test.afterAll(() => switchProcessor(1, false));

runUblkDeviceSuite();
