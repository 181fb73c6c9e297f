import assert from "node:assert/strict";
import { test } from "node:test";
import { apiUrl, eventsUrl } from "../../src/api/address.ts";
import { parseChunk } from "../../src/api/chat.ts";
import { retryDelay } from "../../src/api/feed.ts";
import { ApiError, errorText } from "../../src/api/http.ts";
import { LineBuffer } from "../../src/api/lines.ts";
import { parseModels } from "../../src/api/models.ts";
import { ServerEventParser } from "../../src/api/server_events.ts";

test("addresses stay below the path prefix of the page", () => {
  assert.equal(apiUrl("chat", "https://host/team/llm/ui/"), "https://host/team/llm/api/chat");
  assert.equal(apiUrl("chat", "https://host/ui/index.html"), "https://host/api/chat");
  assert.equal(eventsUrl("https://host/team/llm/ui/"), "https://host/team/llm/ui/events");
});

test("lines are complete however the text is cut", () => {
  const text = "one\r\ntwo\n\nthree";
  for (let cut = 0; cut <= text.length; cut += 1) {
    const lines = new LineBuffer();
    assert.deepEqual([...lines.feed(text.slice(0, cut)), ...lines.feed(text.slice(cut))], ["one", "two", ""]);
    assert.equal(lines.end(), "three");
  }
});

test("server-sent events are found however the text is cut", () => {
  const text = ": comment\n\nevent: models\ndata: {\ndata:  1}\nid: 7\n\ndata\n\nretry: 1\n\nevent: lost\ndata: x\n";
  const expected = [
    { event: "models", data: "{\n 1}" },
    { event: "message", data: "" },
  ];
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new ServerEventParser();
    assert.deepEqual([...parser.feed(text.slice(0, cut)), ...parser.feed(text.slice(cut))], expected);
  }
});

test("an event without a list of Models is an error", () => {
  assert.throws(() => parseModels("{}"), SyntaxError);
  assert.deepEqual(parseModels('{"models": [], "version": "1"}'), { models: [], version: "1" });
});

test("attempts to connect become rarer, up to a bound", () => {
  const longest = [1, 2, 3, 9, 99].map((failures) => retryDelay(failures, 1));
  assert.deepEqual(longest, [500, 1000, 2000, 30_000, 30_000]);
  assert.equal(retryDelay(2, 0), 500);
});

test("an error is the API's text, or its status for a page of a proxy", () => {
  assert.equal(errorText('{"error": "model not found"}', 404), "model not found");
  assert.equal(errorText("upstream timed out\n", 504), "upstream timed out");
  assert.equal(errorText("<html>504</html>", 504), "The gateway answered with status 504.");
  assert.equal(errorText("", 502), "The gateway answered with status 502.");
});

test("an error within a streamed answer is thrown", () => {
  assert.throws(() => parseChunk('{"error": "stopped"}'), new ApiError(500, "stopped"));
  assert.equal(parseChunk('{"message": {"content": "a"}}').message?.content, "a");
});
