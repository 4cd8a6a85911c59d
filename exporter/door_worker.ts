/**
 * The door's thread.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { post } from "../engine/mailbox.ts";
import { serveThread } from "../engine/thread.ts";
import { Door } from "./door.ts";
import type { DoorInit, DoorQuestion, ThreadEvent, ToDoor } from "./messages.ts";
import { StateDirectory } from "./state.ts";

serveThread<DoorInit, DoorQuestion, ThreadEvent>(({ engine, mailbox, init, tell }) => {
  const door = new Door(engine, init, new StateDirectory(init.stateDir), new Uint8Array(randomBytes(16)), {
    log: (level, text) => tell({ event: "log", level, text }),
    say: (worker, message, transfer) => post(init.data[worker], message, transfer),
  });
  for (const [worker, { port }] of init.data.entries()) {
    mailbox.listen(port, (message) => door.hear(worker, message as ToDoor));
  }
  return (question, reply) => {
    if (question.ask === "status") return reply.answer(door.status());
    if (question.ask === "reload") {
      return reply.answer(door.reload(question.access, question.added, question.removed, question.resized));
    }
    if (question.ask === "gone") return door.whenGone(question.index, () => reply.answer());
    door.stop();
    reply.answer();
  };
});
