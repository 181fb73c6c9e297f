import assert from "node:assert/strict";
import { test } from "node:test";
import {
  failed,
  isRunning,
  messages,
  question,
  received,
  stopped,
  type Turns,
  waiting,
  withoutAnswer,
} from "../../src/state/conversation.ts";
import { chatHash, parseRoute } from "../../src/state/use_route.ts";

const asked = (text: string, before: Turns = []) => waiting(question(before, text, []), "m");

test("an answer grows by its chunks and ends with its figures", () => {
  const turns = received(asked("a"), [{ message: { thinking: "hm" } }, { message: { content: "b" } }], 700);
  assert.equal(isRunning(turns), true);
  const chunk = { message: { content: "c" }, done: true, done_reason: "length", eval_count: 10, eval_duration: 2e9 };
  const ended = received(turns, [chunk], 900).at(-1);
  assert.ok(ended?.role === "assistant");
  const { text, thinking, state, tokensPerSecond, firstTextMs, cut } = ended;
  const found = [text, thinking, state, tokensPerSecond, firstTextMs, cut];
  assert.deepEqual(found, ["bc", "hm", "done", 5, 700, true]);
});

test("a request has the earlier turns, and no question whose answer has no text", () => {
  const first = stopped(received(asked("a"), [{ message: { content: "b" } }], 1));
  const second = failed(asked("lost", first), "no capacity");
  const picture = { name: "p", data: "AAAA", type: "image/png" };
  assert.deepEqual(messages(question(second, "c", [picture])), [
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
    { role: "user", content: "c", images: ["AAAA"] },
  ]);
});

test("a question can be sent again without its answer", () => {
  const turns = failed(asked("a"), "no capacity");
  assert.equal(isRunning(turns), false);
  assert.deepEqual(messages(withoutAnswer(turns)), [{ role: "user", content: "a" }]);
});

test("the name of a Model survives in the address", () => {
  assert.deepEqual(parseRoute(chatHash("team/llama3.2:1b")), { view: "chat", model: "team/llama3.2:1b" });
  assert.deepEqual(parseRoute("#/chat"), { view: "chat", model: "" });
  assert.deepEqual(parseRoute("#/chat/%"), { view: "chat", model: "" });
  assert.deepEqual(parseRoute("#elsewhere"), { view: "models" });
});
