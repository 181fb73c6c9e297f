/** The page against `corral serve`: the gateway's own files, events and answers, and a real model. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, setting, withPage } from "./browser.ts";
import { POLICY } from "./scripted_gateway.ts";

const PAGE = `${setting("CORRAL_URL")}/ui`;
let browser: Browser;

before(async () => {
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

test("loads a Model by the first question, streams the answer, and unloads the Model", async () => {
  await withPage(browser, PAGE, async (page) => {
    const card = page.getByRole("article", { name: "tiny", exact: true });
    await card.getByText("Idle", { exact: true }).waitFor();
    await page.getByRole("link", { name: "Chat with tiny" }).click();
    await page.getByLabel("Message").fill("What is the capital of France? Answer in one sentence.");
    await page.keyboard.press("Enter");
    await page.getByText(/\d+ tokens · [\d.,]+ tokens\/s · first token after/).waitFor();
    assert.match((await page.locator(".markdown").textContent()) ?? "", /Paris/);
    await page.getByRole("link", { name: "Models" }).click();
    await card.getByText("Ready", { exact: true }).waitFor();
    await card.getByText("1 of 1", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Unload tiny" }).click();
    await card.getByText("Idle", { exact: true }).waitFor();
  });
});

test("loads a Model by its button, and shows its thinking", async () => {
  await withPage(browser, PAGE, async (page) => {
    await page.getByRole("button", { name: "Load clever" }).click();
    await page.getByRole("button", { name: "Unload clever" }).waitFor();
    await page.getByRole("link", { name: "Chat with clever" }).click();
    await page.getByLabel("Message").fill("Where is Rome?");
    await page.keyboard.press("Enter");
    await page.getByText(/\d+ tokens? · /).waitFor();
    await page.getByText("Thinking", { exact: true }).last().click();
    await page.getByText("Rome is a city.").waitFor();
    assert.match((await page.locator(".markdown").textContent()) ?? "", /Rome is in Italy/);
  });
});

test("is served with a policy that admits no inline script", async () => {
  const refused = /violates the following Content Security Policy directive/;
  await withPage(
    browser,
    PAGE,
    async (page) => {
      assert.ok(page.url().endsWith("/ui/"));
      const response = await page.reload();
      assert.equal(response?.headers()["content-security-policy"], POLICY);
      await page.getByText("Live", { exact: true }).waitFor();
      const ran = await page.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.head.append(script);
        return "injected" in window;
      });
      assert.equal(ran, false);
    },
    { expected: refused },
  );
});
