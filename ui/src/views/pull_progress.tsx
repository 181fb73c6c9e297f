/** Progress of a pull, as a bar and in words. */

import type { Model } from "../api/models.ts";
import { percent, shortName } from "../text/format.ts";
import { pullText } from "../text/progress.ts";

export function PullProgress({ model }: { model: Model }) {
  if (!model.pull) return null;
  const share = percent(model.pull.completedBytes, model.pull.totalBytes);
  return (
    <div class="pull">
      <progress
        max={100}
        {...(share === null ? {} : { value: share })}
        aria-label={`Pull of ${shortName(model.name)}`}
      />
      <span>Pulled {pullText(model)}</span>
    </div>
  );
}
