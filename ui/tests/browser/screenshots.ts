/** Writes the pictures of the documentation: PAGE=folder CHROMIUM=program node screenshots.js FOLDER */

import { join } from "node:path";
import type { Page } from "playwright-core";
import { DESKTOP, launch, PHONE, setting, until, withPage } from "./browser.ts";
import { examples } from "./models.ts";
import { end, ScriptedGateway, stream } from "./scripted_gateway.ts";

const [folder = "."] = process.argv.slice(2);
const gateway = new ScriptedGateway(setting("PAGE"));
const THOUGHT =
  "The user wants the reason in a few words. The light of the sun is scattered by molecules that are smaller than its wavelength.";
const ANSWER = `The sky is blue because of **Rayleigh scattering**: molecules of the air scatter short wavelengths more than long ones.

1. Sunlight has all colours.
2. Blue light is scattered about 5 times as much as red light.
3. So blue light reaches you from every part of the sky.

The strength falls with the fourth power of the wavelength \`λ\`:

\`\`\`python
def scattering(blue: float, red: float) -> float:
    return (red / blue) ** 4

print(scattering(450e-9, 680e-9))  # 5.2
\`\`\`
`;

async function chat(page: Page, name: string): Promise<void> {
  gateway.calls.length = 0;
  await page.goto(`${gateway.url}#/chat/${encodeURIComponent("qwen3:8b")}`);
  await page.getByLabel("Message").fill("Why is the sky blue? Show the formula as code.");
  await page.keyboard.press("Enter");
  const call = await until(() => gateway.calls[0], "the request");
  stream(call, { message: { thinking: THOUGHT } });
  end(call, { message: { content: ANSWER }, eval_count: 164, eval_duration: 1_150_000_000 });
  await page.getByText("164 tokens").waitFor();
  await page.screenshot({ path: join(folder, `ui-chat-${name}.png`) });
}

async function waiting(page: Page): Promise<void> {
  gateway.calls.length = 0;
  await page.goto(`${gateway.url}#/chat/${encodeURIComponent("gemma3:12b")}`);
  await page.getByLabel("Message").fill("Describe a summer morning in two sentences.");
  await page.keyboard.press("Enter");
  await until(() => gateway.calls[0], "the request");
  await page.getByText("Pulling 43 %").waitFor();
  await page.screenshot({ path: join(folder, "ui-waiting-phone-light.png") });
}

await gateway.start();
const browser = await launch();
try {
  for (const theme of ["light", "dark"] as const) {
    for (const [name, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
      gateway.reset(examples(Date.now()));
      const show = async (page: Page) => {
        await page.getByRole("article", { name: "qwen3:8b", exact: true }).waitFor();
        await page.screenshot({ path: join(folder, `ui-models-${name}-${theme}.png`) });
        await chat(page, `${name}-${theme}`);
      };
      await withPage(browser, gateway.url, show, { size, theme });
    }
  }
  await withPage(browser, gateway.url, waiting, { size: PHONE, theme: "light" });
} finally {
  await browser.close();
  await gateway.stop();
}
