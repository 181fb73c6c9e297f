/** All Models with their state. */

import { useState } from "preact/hooks";
import type { Connection } from "../api/feed.ts";
import { isLoaded, type Model } from "../api/models.ts";
import { plural, rate } from "../text/format.ts";
import { ModelCard } from "./model_card.tsx";

/** Number of Models from which there is a field to search them. */
const MANY = 7;

interface Props {
  readonly models: readonly Model[] | null;
  readonly connection: Connection;
  readonly apiKey: string;
  readonly onUnauthorized: (reason: string) => void;
}

export function ModelsView({ models, connection, apiKey, onUnauthorized }: Props) {
  const [search, setSearch] = useState("");
  if (models === null) return <NoModelsYet connection={connection} />;
  const shown = models.filter((model) => matches(model, search));
  return (
    <div class="models">
      <div class="title">
        <div>
          <h1>Models</h1>
          <p class="hint">{summary(models)}</p>
        </div>
        {models.length >= MANY && (
          <input
            type="search"
            aria-label="Search Models"
            placeholder="Search"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        )}
      </div>
      {models.length === 0 && <p class="empty">There are no Models yet. Apply a Model, and it appears here.</p>}
      {models.length > 0 && shown.length === 0 && <p class="empty">No Model matches “{search}”.</p>}
      <ul class="cards">
        {shown.map((model) => (
          <li key={`${model.namespace}/${model.name}`}>
            <ModelCard model={model} apiKey={apiKey} onUnauthorized={onUnauthorized} />
          </li>
        ))}
      </ul>
    </div>
  );
}

function NoModelsYet({ connection }: { connection: Connection }) {
  return (
    <div class="models">
      <div class="title">
        <h1>Models</h1>
      </div>
      <p class="empty">{connection.kind === "connecting" ? "Connecting to the gateway…" : "No Models to show."}</p>
    </div>
  );
}

function matches(model: Model, search: string): boolean {
  const text = [model.namespace ?? "", model.name, ...model.names, model.family, model.phase].join(" ").toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** "2 of 12 loaded · 41 tokens/s · 3 requests pending". */
function summary(models: readonly Model[]): string {
  const loaded = models.filter(isLoaded).length;
  const speed = models.reduce((sum, model) => sum + (model.tokensPerSecond ?? 0), 0);
  const pending = models.reduce((sum, model) => sum + model.pending, 0);
  const parts = [`${loaded} of ${models.length} loaded`];
  if (speed > 0) parts.push(`${rate(speed)} tokens/s`);
  if (pending > 0) parts.push(`${plural(pending, "request")} pending`);
  return parts.join(" · ");
}
