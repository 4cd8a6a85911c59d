import { runLoopSuite } from "../tests/ffi/loop_suite.ts";
import { PollLoop } from "./poll.ts";

runLoopSuite({ name: "poll", start: (pendingMax) => new PollLoop({ pendingMax }) });
