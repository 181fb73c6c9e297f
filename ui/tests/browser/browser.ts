/** Chromium for the tests: one process, a fresh context for each test, and no error of the page unnoticed. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 740 };
/** Milliseconds that a condition may take on a busy machine; a fulfilled one takes no time. */
export const DEADLINE = 60_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `the variable ${name} is not set`);
  return value;
}

export function launch(): Promise<Browser> {
  // A sandbox needs user namespaces, which containers and root do not have.
  return chromium.launch({
    executablePath: setting("CHROMIUM"),
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    timeout: DEADLINE,
  });
}

export interface View {
  readonly size?: typeof DESKTOP;
  readonly theme?: "light" | "dark";
  /** Errors in the console that the test makes itself. */
  readonly expected?: RegExp;
}

/** Open the address in a fresh context and hand the page to `use`. Fails if the page reported an error. */
export async function withPage(
  browser: Browser,
  url: string,
  use: (page: Page, context: BrowserContext) => Promise<void>,
  { size = DESKTOP, theme = "light", expected }: View = {},
): Promise<void> {
  const context = await browser.newContext({ viewport: size, colorScheme: theme, locale: "en-US" });
  context.setDefaultTimeout(DEADLINE);
  const errors: string[] = [];
  try {
    const page = await context.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      // Failed requests are a part of some tests; a violation of the Content-Security-Policy is none of these.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
        errors.push(message.text());
    });
    await page.goto(url);
    await use(page, context);
  } finally {
    await context.close();
  }
  assert.deepEqual(
    errors.filter((error) => !expected?.test(error)),
    [],
  );
}

/** Fail with axe's words for each violation of WCAG 2.2 AA and of its best practices. */
export async function assertAccessible(page: Page, what: string): Promise<void> {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
  const violations = await page.evaluate(async () => {
    const axe = (globalThis as unknown as { axe: typeof import("axe-core") }).axe;
    const found = await axe.run(document);
    return found.violations.flatMap((rule) =>
      rule.nodes.map((node) => `${rule.id}: ${node.html}: ${node.failureSummary ?? ""}`),
    );
  });
  assert.deepEqual(violations, [], what);
}

/** Return the number of pixels by which the page, or the conversation in it, is wider than its window. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate(() => {
    const windows = [document.documentElement, ...document.querySelectorAll(".scroller")];
    return Math.max(...windows.map((each) => each.scrollWidth - each.clientWidth));
  });
}

/** Wait until `condition` returns something truthy, and return it. */
export async function until<T>(condition: () => T | Promise<T>, what: string): Promise<NonNullable<T>> {
  const deadline = performance.now() + DEADLINE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(performance.now() < deadline, `not within ${DEADLINE / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
