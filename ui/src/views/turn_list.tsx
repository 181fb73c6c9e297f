/** The turns of a conversation. */

import { memo } from "preact/compat";
import { useState } from "preact/hooks";
import type { Model } from "../api/models.ts";
import type { ModelTurn, Turns, UserTurn } from "../state/conversation.ts";
import { pictureUrl } from "../state/pictures.ts";
import { useNow } from "../state/use_now.ts";
import { percent, plural, rate, seconds, shortName } from "../text/format.ts";
import { Markdown } from "../text/markdown.tsx";
import { waitText } from "../text/progress.ts";

interface Props {
  readonly turns: Turns;
  readonly models: readonly Model[];
  readonly again: () => void;
}

export function TurnList({ turns, models, again }: Props) {
  return (
    <ol class="turns">
      {turns.map((turn, at) => (
        <li key={turn.id} class={turn.role}>
          {turn.role === "user" ? (
            <Question turn={turn} />
          ) : (
            <Answer
              turn={turn}
              model={models.find((model) => model.name === turn.model || model.names.includes(turn.model))}
              again={at === turns.length - 1 ? again : undefined}
            />
          )}
        </li>
      ))}
    </ol>
  );
}

const Question = memo(function Question({ turn }: { turn: UserTurn }) {
  return (
    <div class="question">
      <span class="hidden">You:</span>
      {turn.pictures.length > 0 && (
        <ul class="pictures">
          {turn.pictures.map((picture, at) => (
            <li key={at}>
              <img src={pictureUrl(picture)} alt={picture.name} />
            </li>
          ))}
        </ul>
      )}
      {turn.text && <p class="said">{turn.text}</p>}
    </div>
  );
});

interface AnswerProps {
  readonly turn: ModelTurn;
  readonly model: Model | undefined;
  /** Of the last answer only. */
  readonly again: (() => void) | undefined;
}

function Answer({ turn, model, again }: AnswerProps) {
  const ended = turn.state !== "waiting" && turn.state !== "streaming";
  return (
    <div class="answer" aria-busy={!ended}>
      <p class="author">{shortName(turn.model)}</p>
      {turn.state === "waiting" && <Waiting model={model} />}
      {turn.thinking && <Thinking turn={turn} />}
      {turn.text && <Markdown text={turn.text} />}
      {turn.state === "failed" && (
        <p class="error" role="alert">
          {turn.error}
        </p>
      )}
      {ended && (
        <p class="hint">
          {figures(turn)}
          {again && (
            <button type="button" class="plain small" onClick={again}>
              {turn.state === "done" ? "Answer again" : "Try again"}
            </button>
          )}
        </p>
      )}
    </div>
  );
}

function figures(turn: ModelTurn): string {
  const parts: string[] = [];
  if (turn.state === "stopped") parts.push("Stopped");
  if (turn.cut) parts.push("Cut at the limit of tokens");
  if (turn.tokens !== null) parts.push(plural(turn.tokens, "token"));
  if (turn.tokensPerSecond !== null) parts.push(`${rate(turn.tokensPerSecond)} tokens/s`);
  if (turn.firstTextMs !== null) parts.push(`first token after ${seconds(turn.firstTextMs)}`);
  return parts.join(" · ");
}

/** Progress of a cold start, from the Model's live state. */
function Waiting({ model }: { model: Model | undefined }) {
  const [start] = useState(Date.now);
  const elapsed = Math.max(0, Math.round((useNow(1000) - start) / 1000));
  const share =
    model?.phase === "Pulling" && model.pull ? percent(model.pull.completedBytes, model.pull.totalBytes) : null;
  return (
    <div class="waiting">
      <p>
        <span class="spinner" />
        <span role="status">{waitText(model)}</span>
        {elapsed >= 2 && <span class="elapsed">{elapsed} s</span>}
      </p>
      {share !== null && <progress max={100} value={share} aria-label="Pull" />}
    </div>
  );
}

/** Open while the model thinks; afterwards as the user leaves it, at first closed. */
function Thinking({ turn }: { turn: ModelTurn }) {
  const running = turn.state === "streaming" && turn.text === "";
  const [chosen, setChosen] = useState<boolean | null>(null);
  const open = chosen ?? running;
  return (
    <details
      class="thinking"
      open={open}
      onToggle={(event) => {
        if (event.currentTarget.open !== open) setChosen(event.currentTarget.open);
      }}
    >
      <summary>{running ? "Thinking…" : "Thinking"}</summary>
      <div class="said">{turn.thinking}</div>
    </details>
  );
}
