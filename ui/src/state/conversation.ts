/** A conversation as a value: its turns, and what happens to them. */

import type { ChatChunk, ChatMessage } from "../api/chat.ts";

export interface Picture {
  readonly name: string;
  /** Base64, without a prefix. */
  readonly data: string;
  readonly type: string;
}

export interface UserTurn {
  readonly role: "user";
  readonly id: number;
  readonly text: string;
  readonly pictures: readonly Picture[];
}

export interface ModelTurn {
  readonly role: "assistant";
  readonly id: number;
  readonly model: string;
  readonly text: string;
  readonly thinking: string;
  readonly state: "waiting" | "streaming" | "done" | "stopped" | "failed";
  readonly error: string;
  /** Milliseconds from the request to the first text; null before it. */
  readonly firstTextMs: number | null;
  readonly tokens: number | null;
  readonly tokensPerSecond: number | null;
  /** Whether the answer was cut at the limit of tokens. */
  readonly cut: boolean;
}

export type Turn = UserTurn | ModelTurn;
export type Turns = readonly Turn[];

export function question(turns: Turns, text: string, pictures: readonly Picture[]): Turns {
  return [...turns, { role: "user", id: turns.length, text, pictures }];
}

export function waiting(turns: Turns, model: string): Turns {
  const turn: ModelTurn = {
    role: "assistant",
    id: turns.length,
    model,
    text: "",
    thinking: "",
    state: "waiting",
    error: "",
    firstTextMs: null,
    tokens: null,
    tokensPerSecond: null,
    cut: false,
  };
  return [...turns, turn];
}

/** Add chunks of the stream to the last turn; `elapsedMs` is the time since the request. */
export function received(turns: Turns, chunks: readonly ChatChunk[], elapsedMs: number): Turns {
  return changed(turns, (turn) => chunks.reduce((before, chunk) => withChunk(before, chunk, elapsedMs), turn));
}

function withChunk(turn: ModelTurn, chunk: ChatChunk, elapsedMs: number): ModelTurn {
  const text = turn.text + (chunk.message?.content ?? "");
  const thinking = turn.thinking + (chunk.message?.thinking ?? "");
  const first = turn.firstTextMs ?? (text || thinking ? elapsedMs : null);
  const next: ModelTurn = { ...turn, text, thinking, firstTextMs: first, state: "streaming" };
  if (!chunk.done) return next;
  const { eval_count: tokens = null, eval_duration: nanoseconds } = chunk;
  const tokensPerSecond = tokens !== null && nanoseconds ? tokens / (nanoseconds / 1e9) : null;
  return { ...next, state: "done", tokens, tokensPerSecond, cut: chunk.done_reason === "length" };
}

export function stopped(turns: Turns): Turns {
  return changed(turns, (turn) => ({ ...turn, state: "stopped" }));
}

export function failed(turns: Turns, error: string): Turns {
  return changed(turns, (turn) => ({ ...turn, state: "failed", error }));
}

/** Remove the last answer, so that its question can be sent again. */
export function withoutAnswer(turns: Turns): Turns {
  return turns.at(-1)?.role === "assistant" ? turns.slice(0, -1) : turns;
}

function changed(turns: Turns, change: (turn: ModelTurn) => ModelTurn): Turns {
  const last = turns.at(-1);
  return last?.role === "assistant" ? [...turns.slice(0, -1), change(last)] : turns;
}

export function isRunning(turns: Turns): boolean {
  const last = turns.at(-1);
  return last?.role === "assistant" && (last.state === "waiting" || last.state === "streaming");
}

/** The messages of a request. A question whose answer has no text is left out: templates expect turns to alternate. */
export function messages(turns: Turns): ChatMessage[] {
  const kept = turns.filter((turn, at) => {
    const answer = turn.role === "user" ? turns[at + 1] : turn;
    return answer?.role !== "assistant" || answer.text !== "";
  });
  return kept.map((turn) => {
    if (turn.role === "assistant") return { role: turn.role, content: turn.text };
    const message = { role: turn.role, content: turn.text };
    return turn.pictures.length ? { ...message, images: turn.pictures.map((picture) => picture.data) } : message;
  });
}
