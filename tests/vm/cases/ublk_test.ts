/**
 * The ublk binding on the real driver.
 *
 * @module
 */
import { runUblkDeviceSuite } from "../../ffi/ublk_device_suite.ts";

runUblkDeviceSuite();
