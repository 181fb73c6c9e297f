import assert from "node:assert/strict";
import { test } from "node:test";
import { sentenceEnd } from "../../src/text/announce.ts";
import { bytes, percent, rate, shortName, until } from "../../src/text/format.ts";
import { safeLink, unescaped } from "../../src/text/markdown.tsx";
import { pullText, waitText } from "../../src/text/progress.ts";
import { model } from "../browser/models.ts";

test("sizes have two or three digits", () => {
  const sizes = [0, 999, 1000, 99_400, 999_600, 4_920_000_000, 20_200_000_000, 5e15];
  assert.deepEqual(sizes.map(bytes), ["0 B", "999 B", "1 kB", "99.4 kB", "1 MB", "4.9 GB", "20.2 GB", "5000 TB"]);
});

test("100 % means complete, and without a total there is no share", () => {
  assert.equal(percent(999, 1000), 99);
  assert.equal(percent(1000, 1000), 100);
  assert.equal(percent(5, null), null);
  assert.equal(percent(0, 0), null);
});

test("a time is relative, and one that is very far away is none", () => {
  const at = (seconds: number) => until(seconds * 1000, 0);
  assert.deepEqual([-5, 30, 272, 7300, 90_000, 1e9].map(at), [
    "now",
    "in 30 s",
    "in 5 min",
    "in 2 h",
    "in 1 day",
    null,
  ]);
  assert.equal(until(Number.NaN, 0), null);
});

test("the tag latest is not shown", () => {
  assert.deepEqual(["a:latest", "a:1b", "team/a:latest"].map(shortName), ["a", "a:1b", "team/a"]);
});

test("a rate has one decimal when it is small", () => {
  assert.deepEqual([0, 0.26, 9.96, 41.3, 1234.5].map(rate), ["0", "0.3", "10.0", "41", "1,235"]);
});

test("each phase says what a request waits for", () => {
  const pull = { completedBytes: 43, totalBytes: 100 };
  const texts = [
    model({ phase: "Pulling", pull }),
    model({ phase: "Pulling" }),
    model({ phase: "WaitingForCapacity", reason: "all 4 GPUs are in use" }),
    model({ phase: "WaitingForCapacity", reason: "no node has 8 GB" }),
    model({ phase: "Loading" }),
    model({ phase: "Failed", reason: "no such file" }),
    model({ phase: "Ready", slots: 1, slotsUsed: 1, pending: 2 }),
    model({ phase: "Ready", slots: 2, slotsUsed: 1 }),
    undefined,
  ].map(waitText);
  assert.deepEqual(texts, [
    "Pulling 43 %, 43 B of 100 B, then loading",
    "Pulling the weights, then loading",
    "Waiting for a GPU: all 4 GPUs are in use",
    "Waiting for free memory: no node has 8 GB",
    "Loading into memory",
    "The model does not start: no such file",
    "Waiting for a free slot, 2 requests pending",
    "Reading the prompt",
    "Waiting for the model",
  ]);
  assert.equal(pullText(model({ pull: { completedBytes: 5, totalBytes: null } })), "5 B");
});

test("whole sentences are announced", () => {
  assert.equal(sentenceEnd("One. Two? Thr", 0), 10);
  assert.equal(sentenceEnd("One. Two? Thr", 10), 10);
  assert.equal(sentenceEnd("costs 1.5 and", 0), 0);
  assert.equal(sentenceEnd("- item\n- it", 0), 7);
});

test("only harmless absolute links are links", () => {
  assert.equal(safeLink("https://example.com/a"), "https://example.com/a");
  for (const href of [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "/api/delete",
    "blob:x",
    "file:///x",
  ]) {
    assert.equal(safeLink(href), null);
  }
});

test("character references of a model's text are shown as characters", () => {
  assert.equal(unescaped("a &lt; b &amp;amp; &unknown;"), "a < b &amp; &unknown;");
});
