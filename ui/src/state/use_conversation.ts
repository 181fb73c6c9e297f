/** Runs a conversation: sends requests, collects the streamed text, stops. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type ChatChunk, type ChatRequest, streamChat, type Think } from "../api/chat.ts";
import { isAborted, isUnauthorized, messageOf } from "../api/http.ts";
import * as conversation from "./conversation.ts";

/** Milliseconds for which chunks are collected: the text is parsed and drawn at most 20 times a second. */
const DRAWN_EVERY = 50;

export interface Conversation {
  readonly turns: conversation.Turns;
  readonly running: boolean;
  readonly ask: (
    model: string,
    think: Think | undefined,
    text: string,
    pictures: readonly conversation.Picture[],
  ) => void;
  readonly again: (model: string, think: Think | undefined) => void;
  readonly stop: () => void;
  readonly clear: () => void;
}

export function useConversation(key: string, onUnauthorized: (reason: string) => void): Conversation {
  const [turns, setTurns] = useState<conversation.Turns>([]);
  const abort = useRef<AbortController | null>(null);
  useEffect(() => () => abort.current?.abort(), []);

  const answer = async (asked: conversation.Turns, model: string, think: Think | undefined) => {
    const controller = new AbortController();
    abort.current = controller;
    setTurns(conversation.waiting(asked, model));
    const request: ChatRequest = {
      model,
      messages: conversation.messages(asked),
      ...(think === undefined ? {} : { think }),
    };
    try {
      await collect(streamChat(request, key, controller.signal), (chunks, elapsed) => {
        if (abort.current === controller) setTurns((now) => conversation.received(now, chunks, elapsed));
      });
    } catch (error) {
      if (abort.current !== controller) return; // the conversation is another one by now
      if (isUnauthorized(error)) onUnauthorized(messageOf(error));
      setTurns((now) => (isAborted(error) ? conversation.stopped(now) : conversation.failed(now, messageOf(error))));
    }
  };

  return {
    turns,
    running: conversation.isRunning(turns),
    ask: (model, think, text, pictures) => void answer(conversation.question(turns, text, pictures), model, think),
    again: (model, think) => void answer(conversation.withoutAnswer(turns), model, think),
    stop: () => abort.current?.abort(),
    clear: () => {
      abort.current?.abort();
      abort.current = null;
      setTurns([]);
    },
  };
}

/** Hand over the chunks in groups, with the milliseconds since the start. Throws what the stream throws. */
async function collect(
  stream: AsyncGenerator<ChatChunk>,
  receive: (chunks: readonly ChatChunk[], elapsed: number) => void,
): Promise<void> {
  const start = performance.now();
  let chunks: ChatChunk[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    if (chunks.length) receive(chunks, performance.now() - start);
    chunks = [];
  };
  try {
    for await (const chunk of stream) {
      chunks.push(chunk);
      timer ??= setTimeout(flush, DRAWN_EVERY);
    }
  } finally {
    flush();
  }
}
