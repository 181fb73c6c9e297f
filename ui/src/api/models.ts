/** Models as the gateway describes them in `/ui/events`; null is a value that it does not know. */

import { apiUrl } from "./address.ts";
import { send } from "./http.ts";

export interface Pull {
  readonly completedBytes: number;
  readonly totalBytes: number | null;
}

export interface Model {
  /** What requests put into `model`. */
  readonly name: string;
  readonly namespace: string | null;
  readonly names: readonly string[];
  readonly phase: string;
  readonly reason: string;
  readonly pending: number;
  readonly slotsUsed: number;
  readonly slots: number;
  readonly replicas: number;
  readonly replicasReady: number;
  readonly gpus: number | null;
  readonly memoryBytes: number | null;
  readonly vramBytes: number | null;
  readonly nodes: readonly string[];
  readonly tokensPerSecond: number | null;
  readonly pull: Pull | null;
  /** RFC 3339; when `keep_alive` ends. */
  readonly expiresAt: string | null;
  readonly sizeBytes: number | null;
  readonly family: string;
  readonly parameterSize: string;
  readonly quantization: string;
  readonly contextLength: number | null;
  readonly capabilities: readonly string[];
}

/** Parse the data of an event `models`. Throws SyntaxError. */
export function parseModels(data: string): { models: Model[]; version: string } {
  const parsed = JSON.parse(data) as { models?: Model[]; version?: string };
  if (!Array.isArray(parsed.models)) throw new SyntaxError("the event has no list of Models");
  return { models: parsed.models, version: parsed.version ?? "" };
}

/** A Model whose capabilities are not known yet may be able to chat. */
export function canChat(model: Model): boolean {
  return model.capabilities.length === 0 || model.capabilities.includes("completion");
}

/** Whether memory is taken for it, or soon will be. */
export function isLoaded(model: Model): boolean {
  return model.replicas > 0 || model.replicasReady > 0;
}

/** Load a Model; resolves when it is ready. Throws ApiError. */
export async function load(model: Model, key: string, signal: AbortSignal): Promise<void> {
  await (await send(apiUrl("generate"), key, { body: { ...target(model), stream: false }, signal })).text();
}

/** Unload a Model. Throws ApiError. */
export async function unload(model: Model, key: string, signal: AbortSignal): Promise<void> {
  const body = { ...target(model), keep_alive: 0, stream: false };
  await (await send(apiUrl("generate"), key, { body, signal })).text();
}

/** A model for embeddings is loaded and unloaded by the same request: without a prompt nothing is computed. */
function target(model: Model): { model: string } {
  return { model: model.name };
}
