/** One Model: what it is, what it does, and the buttons that load and unload it. */

import type { ComponentChildren } from "preact";
import { canChat, isLoaded, type Model } from "../api/models.ts";
import { useAction } from "../state/use_action.ts";
import { useNow } from "../state/use_now.ts";
import { chatHash } from "../state/use_route.ts";
import { bytes, plural, rate, shortName, until } from "../text/format.ts";
import { phaseTone } from "../text/progress.ts";
import { PhaseBadge } from "./phase_badge.tsx";
import { PullProgress } from "./pull_progress.tsx";

interface Props {
  readonly model: Model;
  readonly apiKey: string;
  readonly onUnauthorized: (reason: string) => void;
}

export function ModelCard({ model, apiKey, onUnauthorized }: Props) {
  const id = `model-${model.namespace ?? ""}-${model.name}`.replace(/[^\w-]/g, "_");
  return (
    <article class="card" aria-labelledby={id}>
      <header>
        <h2 id={id}>{shortName(model.name)}</h2>
        <PhaseBadge phase={model.phase} />
      </header>
      <Facts model={model} />
      {model.phase === "Pulling" && <PullProgress model={model} />}
      {shownReason(model) && <p class={`reason ${phaseTone(model.phase)}`}>{model.reason}</p>}
      {(isLoaded(model) || model.pending > 0) && <Figures model={model} />}
      <Actions model={model} apiKey={apiKey} onUnauthorized={onUnauthorized} />
    </article>
  );
}

/** The phases that mean all is well explain themselves. */
function shownReason(model: Model): boolean {
  return model.reason !== "" && model.phase !== "Ready" && !(model.phase === "Pulling" && model.pull);
}

function Facts({ model }: { model: Model }) {
  const other = model.names.filter((name) => name !== model.name);
  const facts = [
    model.namespace,
    model.family,
    model.parameterSize,
    model.quantization,
    model.sizeBytes === null ? null : bytes(model.sizeBytes),
    model.contextLength === null ? null : `context ${model.contextLength.toLocaleString("en")}`,
  ].filter(Boolean);
  const abilities = model.capabilities.filter((name) => name !== "completion");
  return (
    <>
      <p class="facts">{facts.join(" · ")}</p>
      {other.length > 0 && <p class="facts">Also named {other.map(shortName).join(", ")}</p>}
      {abilities.length > 0 && (
        <ul class="chips" aria-label="Capabilities">
          {abilities.map((name) => (
            <li key={name}>{name}</li>
          ))}
        </ul>
      )}
    </>
  );
}

function Figures({ model }: { model: Model }) {
  const now = useNow(model.expiresAt === null ? null : 1000);
  const unloads = model.expiresAt === null ? null : until(Date.parse(model.expiresAt), now);
  return (
    <dl class="figures">
      <Figure name="Tokens/s">{model.tokensPerSecond === null ? null : rate(model.tokensPerSecond)}</Figure>
      <Figure name="Requests">{requests(model)}</Figure>
      <Figure name="Memory">{model.memoryBytes ? bytes(model.memoryBytes) : null}</Figure>
      <Figure name="GPUs">{isLoaded(model) ? gpus(model) : null}</Figure>
      <Figure name="Replicas">{isLoaded(model) ? `${model.replicasReady} of ${model.replicas}` : null}</Figure>
      <Figure name="Unloads">{unloads}</Figure>
      <Figure name={model.nodes.length > 1 ? "Nodes" : "Node"} wide>
        {model.nodes.join(", ")}
      </Figure>
    </dl>
  );
}

/** A value that is not known is left out. */
function Figure({ name, wide, children }: { name: string; wide?: boolean; children: ComponentChildren }) {
  if (children === null || children === "") return null;
  return (
    <div class={wide ? "wide" : undefined}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function requests(model: Model): string {
  const slots = `${model.slotsUsed} of ${plural(model.slots, "slot")}`;
  if (model.slots === 0) return `${model.pending} pending`;
  return model.pending > 0 ? `${slots}, ${model.pending} pending` : slots;
}

function gpus(model: Model): string | null {
  if (model.gpus === null) return null;
  if (model.gpus === 0) return "none";
  return model.vramBytes ? `${model.gpus} (${bytes(model.vramBytes)})` : String(model.gpus);
}

function Actions({ model, apiKey, onUnauthorized }: Props) {
  const action = useAction(model, apiKey, onUnauthorized);
  const loaded = isLoaded(model);
  const name = shortName(model.name);
  return (
    <footer>
      {action.error && (
        <p class="error" role="alert">
          {action.error}
        </p>
      )}
      <div class="actions">
        {canChat(model) && (
          <a class="button primary" href={chatHash(model.name)} aria-label={`Chat with ${name}`}>
            Chat
          </a>
        )}
        {action.running === "load" ? (
          <button type="button" onClick={action.cancel} aria-label={`Cancel the load of ${name}`}>
            <span class="spinner" /> Cancel
          </button>
        ) : (
          <button
            type="button"
            disabled={action.running !== null}
            onClick={loaded ? action.unload : action.load}
            aria-label={`${loaded ? "Unload" : "Load"} ${name}`}
          >
            {loaded ? "Unload" : "Load"}
          </button>
        )}
      </div>
    </footer>
  );
}
