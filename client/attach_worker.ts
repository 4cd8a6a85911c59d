/**
 * The attachment's thread.
 *
 * @module
 */
import { serveThread } from "../engine/thread.ts";
import { Attachment } from "./attachment.ts";
import type { AttachEvent, AttachInit, AttachQuestion } from "./messages.ts";

serveThread<AttachInit, AttachQuestion, AttachEvent>((context) => {
  const attachment = new Attachment(context);
  return (question, reply) => attachment.answer(question, reply);
});
