/** The page against a gateway whose events and answers are written here. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { assertAccessible, launch, overflow, PHONE, setting, until, withPage } from "./browser.ts";
import { examples, model } from "./models.ts";
import { type Call, end, refuse, ScriptedGateway, stream } from "./scripted_gateway.ts";

const gateway = new ScriptedGateway(setting("PAGE"));
const QWEN = model({
  name: "qwen3:8b",
  phase: "Ready",
  replicas: 1,
  replicasReady: 1,
  capabilities: ["completion", "thinking"],
});
const GEMMA = model({
  name: "gemma3",
  phase: "Ready",
  replicas: 1,
  replicasReady: 1,
  capabilities: ["completion", "vision"],
});
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
let browser: Browser;

before(async () => {
  await gateway.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await gateway.stop();
});

beforeEach(() => gateway.reset([]));

function call(number = 0): Promise<Call> {
  return until(() => gateway.calls[number], `request ${number} to the API`);
}

async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel("Message").fill(text);
  await page.keyboard.press("Enter");
}

const card = (page: Page, name: string) => page.getByRole("article", { name, exact: true });

test("shows the figures of a Model, and what is not known not at all", async () => {
  gateway.reset(examples(Date.now()));
  await withPage(browser, gateway.url, async (page) => {
    const ready = card(page, "qwen3:8b");
    for (const text of ["Ready", "142", "4 of 4 slots, 2 pending", "1.2 GB", "1 (9.8 GB)", "gpu-node-1", "1 of 1"]) {
      await ready.getByText(text, { exact: true }).waitFor();
    }
    await card(page, "qwen3:32b").getByText("No node has a free GPU with 24 GB").waitFor();
    await page.getByText("1 of 6 loaded · 142 tokens/s · 6 requests pending").waitFor();
    assert.equal(await card(page, "llama3.2").getByText("Tokens/s").count(), 0);
  });
});

test("follows the events of the gateway", async () => {
  gateway.reset([model({ phase: "Pulling", pull: { completedBytes: 43, totalBytes: 100 } })]);
  await withPage(browser, gateway.url, async (page) => {
    await page.getByText("Pulled 43 %").waitFor();
    gateway.show([model({ phase: "Loading", replicas: 1 })]);
    await card(page, "llama3.2").getByText("Loading", { exact: true }).waitFor();
    gateway.show([]);
    await page.getByText("There are no Models yet").waitFor();
  });
});

test("loads a Model, cancels the load, and unloads it", async () => {
  gateway.reset([model()]);
  await withPage(browser, gateway.url, async (page) => {
    await page.getByRole("button", { name: "Load llama3.2" }).click();
    const load = await call();
    assert.deepEqual([load.path, load.body], ["/api/generate", { model: "llama3.2", stream: false }]);
    await page.getByRole("button", { name: "Cancel the load of llama3.2" }).click();
    await until(() => load.closed, "the end of the request");
    gateway.show([model({ phase: "Ready", replicas: 1, replicasReady: 1 })]);
    await page.getByRole("button", { name: "Unload llama3.2" }).click();
    assert.deepEqual((await call(1)).body, { model: "llama3.2", keep_alive: 0, stream: false });
    refuse(await call(1), 500, "the runner does not answer");
    await page.getByRole("alert").getByText("the runner does not answer").waitFor();
  });
});

test("tells what a request waits for until the answer begins", async () => {
  const pulling = model({ phase: "Pulling", pull: { completedBytes: 43, totalBytes: 100 } });
  gateway.reset([pulling]);
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    await page.getByText("Ask something.").waitFor();
    await say(page, "Hello");
    await page.getByRole("status").getByText("Pulling 43 %, 43 B of 100 B, then loading").waitFor();
    gateway.show([model({ phase: "WaitingForCapacity", reason: "all 4 GPUs are in use" })]);
    await page.getByText("Waiting for a GPU: all 4 GPUs are in use").waitFor();
    gateway.show([model({ phase: "Loading" })]);
    await page.getByText("Loading into memory").waitFor();
    stream(await call(), { message: { content: "Good " } });
    await page.getByText("Good", { exact: true }).waitFor();
    assert.equal(await page.getByText("Loading into memory").count(), 0);
    end(await call(), { message: { content: "day." } });
    await page.getByText("128 tokens · 40 tokens/s").waitFor();
    await page.getByTestId("announced").getByText("Good day.").waitFor({ state: "attached" });
  });
});

test("shows thinking apart from the answer, and closes it when the answer begins", async () => {
  gateway.reset([QWEN]);
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    await page.getByLabel("Thinking").waitFor();
    await say(page, "Why?");
    assert.equal((await call()).body["think"], true);
    stream(await call(), { message: { thinking: "Let me see." } });
    await page.getByText("Let me see.").waitFor();
    end(await call(), { message: { content: "Because." } });
    await page.getByText("Because.", { exact: true }).first().waitFor();
    await page.getByText("Let me see.").waitFor({ state: "hidden" });
    await page.getByText("Thinking", { exact: true }).last().click();
    await page.getByText("Let me see.").waitFor();
    await page.getByLabel("Thinking").selectOption("off");
    await say(page, "And?");
    assert.equal((await call(1)).body["think"], false);
    assert.deepEqual((await call(1)).body["messages"], [
      { role: "user", content: "Why?" },
      { role: "assistant", content: "Because." },
      { role: "user", content: "And?" },
    ]);
  });
});

test("stops an answer and keeps its text", async () => {
  gateway.reset([model({ phase: "Ready" })]);
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    await page.getByText("Ask something.").waitFor();
    await say(page, "Count");
    assert.equal("think" in (await call()).body, false);
    stream(await call(), { message: { content: "one two" } });
    await page.getByText("one two").waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await until(async () => (await call()).closed, "the end of the request");
    await page.getByText("Stopped").waitFor();
    await page.getByText("one two").waitFor();
    await page.getByRole("button", { name: "Try again" }).click();
    assert.deepEqual((await call(1)).body["messages"], [{ role: "user", content: "Count" }]);
  });
});

test("draws Markdown, and never the HTML, scripts or images of a model", async () => {
  gateway.reset([model({ phase: "Ready" })]);
  const text =
    '# Title\n\n<img src="x" onerror="document.title=1"><script>document.title=2</script>\n\n' +
    "![pixel](https://example.com/p.png) [bad](javascript:alert(1)) [good](https://example.com/) `a<b` &lt;\n\n" +
    "```js\nlet x = 1;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    await page.getByText("Ask something.").waitFor();
    await say(page, "Go");
    end(await call(), { message: { content: text } });
    await page.getByRole("heading", { name: "Title" }).waitFor();
    const drawn = page.locator(".markdown");
    await drawn.getByText("let x = 1;").waitFor();
    await drawn.getByRole("cell", { name: "2" }).waitFor();
    assert.equal(await drawn.locator("img, script").count(), 0);
    assert.deepEqual(
      await drawn.getByRole("link").evaluateAll((links) => links.map((link) => link.getAttribute("href"))),
      ["https://example.com/p.png", "https://example.com/"],
    );
    assert.match((await drawn.textContent()) ?? "", /<script>document\.title=2<\/script>/);
    assert.equal(await page.title(), "Corral");
  });
});

test("sends images as Ollama's API has them, and shows the runner's limits", async () => {
  gateway.reset([GEMMA]);
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    const picture = { name: "pixel.png", mimeType: "image/png", buffer: Buffer.from(PIXEL, "base64") };
    await page.getByRole("button", { name: "Attach images" }).waitFor();
    await page.locator("input[type=file]").setInputFiles([picture, picture]);
    await page.getByRole("button", { name: "Remove pixel.png" }).first().click();
    await page.getByLabel("Attached images").getByRole("img").waitFor();
    await say(page, "What is this?");
    assert.deepEqual((await call()).body["messages"], [{ role: "user", content: "What is this?", images: [PIXEL] }]);
    refuse(await call(), 400, "an image has 21 bytes, at most 20 are allowed");
    await page.getByRole("alert").getByText("an image has 21 bytes, at most 20 are allowed").waitFor();
  });
});

test("reports an error in the middle of an answer", async () => {
  gateway.reset([model({ phase: "Ready" })]);
  await withPage(browser, `${gateway.url}#/chat`, async (page) => {
    await page.getByText("Ask something.").waitFor();
    await say(page, "Go");
    stream(await call(), { message: { content: "Half an" } }, { error: "the runner was stopped" });
    (await call()).response.end();
    await page.getByRole("alert").getByText("the runner was stopped").waitFor();
    await page.getByText("Half an").waitFor();
  });
});

test("tells that the connection is lost, and connects again", async () => {
  gateway.reset([model()]);
  await withPage(browser, gateway.url, async (page) => {
    await page.getByText("Live", { exact: true }).waitFor();
    gateway.broken = true;
    gateway.dropStreams();
    await page.getByText("The connection is lost.").waitFor();
    await card(page, "llama3.2").waitFor(); // the last known state stays
    gateway.broken = false;
    await page.getByText("Live", { exact: true }).waitFor();
    await page.getByText("The connection is lost.").waitFor({ state: "detached" });
  });
});

test("asks for an API key, and keeps it for this tab only", async () => {
  gateway.reset([model()]);
  gateway.key = "sk-test";
  await withPage(browser, gateway.url, async (page, context) => {
    await page.getByRole("dialog").getByText("missing API key").waitFor();
    await page.getByLabel("Key for this gateway").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").getByText("invalid API key").waitFor();
    await page.getByLabel("Key for this gateway").fill("sk-test");
    await page.getByRole("button", { name: "Use key" }).click();
    await card(page, "llama3.2").waitFor();
    await page.reload();
    await card(page, "llama3.2").waitFor();
    assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage }).includes("sk-test")), false);
    const other = await context.newPage();
    await other.goto(gateway.url);
    await other.getByRole("dialog").getByText("missing API key").waitFor();
  });
});

test("keeps the theme that the user chooses", async () => {
  await withPage(
    browser,
    gateway.url,
    async (page) => {
      const theme = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
      await page.getByRole("button", { name: "Switch to light theme" }).click();
      assert.equal(await until(async () => (await theme()) === "light" && "light", "the light theme"), "light");
      await page.reload();
      await page.getByRole("button", { name: "Switch to dark theme" }).waitFor();
      assert.equal(await theme(), "light");
    },
    { theme: "dark" },
  );
});

test("can be used with the keyboard alone", async () => {
  gateway.reset([model({ phase: "Ready", replicas: 1, replicasReady: 1 })]);
  await withPage(browser, gateway.url, async (page) => {
    await card(page, "llama3.2").waitFor();
    const reach = (name: string) =>
      until(async () => {
        await page.keyboard.press("Tab");
        return page.evaluate((wanted) => {
          const active = document.activeElement;
          const found = active?.getAttribute("aria-label") ?? active?.textContent?.trim();
          return found === wanted && active && getComputedStyle(active).outlineStyle !== "none";
        }, name);
      }, `the focus on ${name}, and visible`);
    await reach("Skip to content");
    await page.keyboard.press("Enter");
    await reach("Chat with llama3.2");
    await page.keyboard.press("Enter");
    await page.getByText("Ask something.").waitFor();
    await page.getByLabel("Message").focus();
    await page.keyboard.type("One");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("Two");
    await page.keyboard.press("Enter");
    assert.deepEqual((await call()).body["messages"], [{ role: "user", content: "One\nTwo" }]);
  });
});

for (const theme of ["light", "dark"] as const) {
  for (const size of [undefined, PHONE]) {
    test(`has no accessibility problem that axe finds, ${theme}, ${size ? "360 px" : "1280 px"} wide`, async () => {
      gateway.reset([...examples(Date.now()), GEMMA]);
      const view = size ? { theme, size } : { theme };
      await withPage(browser, gateway.url, (page) => inspect(page, size === PHONE), view);
    });
  }
}

async function inspect(page: Page, dialog: boolean): Promise<void> {
  await card(page, "qwen3:8b").waitFor();
  await assertAccessible(page, "Models");
  assert.equal(await overflow(page), 0);
  if (dialog) {
    await page.getByRole("button", { name: "Enter API key" }).click();
    await page.getByRole("dialog").waitFor();
    await assertAccessible(page, "dialog");
    await page.keyboard.press("Escape");
  }
  await page.getByRole("link", { name: "Chat with qwen3:8b" }).click();
  await say(page, "A table, please");
  stream(await call(), { message: { thinking: "A table." } });
  await page.getByText("A table.", { exact: true }).waitFor();
  end(await call(), {
    message: { content: `| ${"wide ".repeat(30)} | b |\n|---|---|\n| 1 | 2 |\n\n\`\`\`\n${"x".repeat(200)}\n\`\`\`` },
  });
  await page.getByRole("cell", { name: "2" }).waitFor();
  gateway.dropStreams();
  gateway.broken = true;
  await page.getByText("The connection is lost.").waitFor();
  await assertAccessible(page, "chat");
  assert.equal(await overflow(page), 0);
}
