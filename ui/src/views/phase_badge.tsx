/** A Model's phase, in a colour and in words. */

import { phaseLabel, phaseTone } from "../text/progress.ts";

export function PhaseBadge({ phase }: { phase: string }) {
  return (
    <span class={`badge ${phaseTone(phase)}`}>
      <span class="dot" />
      {phaseLabel(phase)}
    </span>
  );
}
