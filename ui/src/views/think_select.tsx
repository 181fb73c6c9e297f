/** Whether a Model thinks before it answers, for Models that can. */

import type { Think } from "../api/chat.ts";
import type { Model } from "../api/models.ts";

const SWITCH = ["on", "off"];
/** gpt-oss cannot be told not to think (https://docs.ollama.com/capabilities/thinking). */
const LEVELS = ["low", "medium", "high"];

function choices(model: Model): string[] {
  return model.family.replace(/[-_]/g, "") === "gptoss" ? LEVELS : SWITCH;
}

function current(setting: string, model: Model): string {
  const known = choices(model);
  return known.includes(setting) ? setting : known === LEVELS ? "medium" : "on";
}

/** Return `think` of a request; undefined for a Model without the capability, whose requests may not have it. */
export function parseThink(setting: string, model: Model): Think | undefined {
  if (!model.capabilities.includes("thinking")) return undefined;
  const chosen = current(setting, model);
  return chosen === "on" || chosen === "off" ? chosen === "on" : (chosen as Think);
}

interface Props {
  readonly model: Model;
  readonly setting: string;
  readonly choose: (setting: string) => void;
}

export function ThinkSelect({ model, setting, choose }: Props) {
  if (!model.capabilities.includes("thinking")) return null;
  return (
    <label class="think">
      Thinking
      <select value={current(setting, model)} onChange={(event) => choose(event.currentTarget.value)}>
        {choices(model).map((choice) => (
          <option key={choice} value={choice}>
            {choice}
          </option>
        ))}
      </select>
    </label>
  );
}
