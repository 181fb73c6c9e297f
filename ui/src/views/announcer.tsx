/** Announces the answer to screen readers sentence by sentence; the text on the screen changes too often for that. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { ModelTurn } from "../state/conversation.ts";
import { sentenceEnd } from "../text/announce.ts";

/** Milliseconds between two announcements. */
const EVERY = 1500;

export function Announcer({ turn }: { turn: ModelTurn | undefined }) {
  const [spoken, setSpoken] = useState("");
  const latest = useRef(turn);
  latest.current = turn;
  // biome-ignore lint/correctness/useExhaustiveDependencies: every answer is announced from its start
  useEffect(() => {
    let start = 0;
    const speak = () => {
      const now = latest.current;
      if (!now) return;
      const running = now.state === "waiting" || now.state === "streaming";
      const end = running ? sentenceEnd(now.text, start) : now.text.length;
      if (end > start) setSpoken(now.text.slice(start, end));
      else if (!running && start === end && now.error) setSpoken(now.error);
      start = Math.max(start, end);
      if (!running) clearInterval(timer);
    };
    const timer = setInterval(speak, EVERY);
    return () => clearInterval(timer);
  }, [turn?.id]);
  return (
    <div class="hidden" aria-live="polite" data-testid="announced">
      {spoken}
    </div>
  );
}
