/** Ollama's `/api/chat`, streamed (https://docs.ollama.com/api/chat). */

import { apiUrl } from "./address.ts";
import { ApiError, send } from "./http.ts";
import { LineBuffer, textOf } from "./lines.ts";

export interface ChatMessage {
  readonly role: "user" | "assistant";
  readonly content: string;
  /** Base64, without a prefix. */
  readonly images?: readonly string[];
}

/** Off and on, or one of the levels that gpt-oss knows. */
export type Think = boolean | "low" | "medium" | "high";

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly think?: Think;
}

/** One line of the response. Durations are in nanoseconds. */
export interface ChatChunk {
  readonly message?: { readonly content?: string; readonly thinking?: string };
  readonly done?: boolean;
  readonly done_reason?: string;
  readonly eval_count?: number;
  readonly eval_duration?: number;
  readonly error?: string;
}

/** Yield the lines of the response. Throws ApiError, also for an error within the stream. */
export async function* streamChat(request: ChatRequest, key: string, signal: AbortSignal): AsyncGenerator<ChatChunk> {
  const response = await send(apiUrl("chat"), key, { body: { ...request, stream: true }, signal });
  const lines = new LineBuffer();
  let done = false;
  for await (const text of textOf(response)) {
    for (const line of lines.feed(text)) {
      if (!line) continue;
      const chunk = parseChunk(line);
      done ||= chunk.done === true;
      yield chunk;
    }
  }
  if (lines.end() || !done) throw new ApiError(502, "The connection ended before the answer was complete.");
}

/** Throws ApiError for a line that reports an error. */
export function parseChunk(line: string): ChatChunk {
  const chunk = JSON.parse(line) as ChatChunk;
  if (chunk.error !== undefined) throw new ApiError(500, chunk.error);
  return chunk;
}
