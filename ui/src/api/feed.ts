/**
 * The live list of Models: reads `/ui/events`, and connects again when the connection is lost.
 *
 * It is read with fetch because EventSource cannot send an API key.
 */

import { eventsUrl } from "./address.ts";
import { isUnauthorized, messageOf, send } from "./http.ts";
import { textOf } from "./lines.ts";
import { type Model, parseModels } from "./models.ts";
import { ServerEventParser } from "./server_events.ts";

/** Milliseconds without a byte after which the connection counts as lost: the gateway sends a comment every 15 s. */
const SILENCE = 40_000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;

export type Connection =
  | { readonly kind: "connecting" | "open" }
  | { readonly kind: "lost"; readonly reason: string; readonly retryInMs: number }
  | { readonly kind: "unauthorized"; readonly reason: string };

export interface FeedListener {
  models(models: Model[], version: string): void;
  connection(connection: Connection): void;
}

/** Milliseconds before the attempt after `failures` failed ones: exponential, with jitter of a half. */
export function retryDelay(failures: number, random: number = Math.random()): number {
  return Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.max(0, failures - 1)) * (0.5 + random / 2);
}

export class Feed {
  private readonly key: string;
  private readonly listener: FeedListener;
  private readonly stopped = new AbortController();
  private failures = 0;
  private wake: () => void = () => undefined;

  constructor(key: string, listener: FeedListener) {
    this.key = key;
    this.listener = listener;
  }

  /** Read until `stop`, or until the gateway asks for another key. */
  async run(): Promise<void> {
    this.report({ kind: "connecting" });
    while (!this.stopped.signal.aborted) {
      try {
        await this.readOnce();
        await this.pause("The gateway has closed the connection.");
      } catch (error) {
        if (isUnauthorized(error)) return this.report({ kind: "unauthorized", reason: messageOf(error) });
        await this.pause(messageOf(error));
      }
    }
  }

  stop(): void {
    this.stopped.abort();
    this.wake();
  }

  /** Try again at once if the connection is lost. */
  retryNow(): void {
    this.wake();
  }

  private async readOnce(): Promise<void> {
    const attempt = new AbortController();
    const giveUp = () => attempt.abort();
    this.stopped.signal.addEventListener("abort", giveUp);
    let watchdog = setTimeout(giveUp, SILENCE);
    try {
      const response = await send(eventsUrl(), this.key, { signal: attempt.signal });
      const parser = new ServerEventParser();
      for await (const text of textOf(response)) {
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, SILENCE);
        for (const event of parser.feed(text)) if (event.event === "models") this.receive(event.data);
      }
    } finally {
      clearTimeout(watchdog);
      this.stopped.signal.removeEventListener("abort", giveUp);
      attempt.abort();
    }
  }

  private receive(data: string): void {
    const { models, version } = parseModels(data);
    if (this.stopped.signal.aborted) return;
    this.failures = 0;
    this.listener.models(models, version);
    this.report({ kind: "open" });
  }

  private async pause(reason: string): Promise<void> {
    if (this.stopped.signal.aborted) return;
    this.failures += 1;
    const delay = retryDelay(this.failures);
    this.report({ kind: "lost", reason, retryInMs: delay });
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  private report(connection: Connection): void {
    if (!this.stopped.signal.aborted) this.listener.connection(connection);
  }
}
