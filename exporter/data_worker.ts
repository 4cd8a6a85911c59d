/**
 * A data-path thread of the exporter.
 *
 * @module
 */
import { post } from "../engine/mailbox.ts";
import { serveThread } from "../engine/thread.ts";
import { DataPath } from "./data.ts";
import type { DataInit, DataQuestion, ThreadEvent, ToData } from "./messages.ts";

serveThread<DataInit, DataQuestion, ThreadEvent>(({ engine, mailbox, init, tell }) => {
  const data = new DataPath(
    engine,
    init,
    (message) => post(init.door, message),
    (text) => tell({ event: "log", level: "warning", text }),
  );
  mailbox.listen(init.door.port, (message) => data.hear(message as ToData));
  return (question, reply) => {
    if (question.ask === "shape") return reply.answer(data.shape(question.index));
    if (question.ask === "add") {
      data.add(question.index, question.export);
      return reply.answer();
    }
    if (question.ask === "remove") return data.remove(question.index, reply);
    if (question.ask === "stop") return data.stop(reply);
    data.reload(question.rules);
    reply.answer();
  };
});
