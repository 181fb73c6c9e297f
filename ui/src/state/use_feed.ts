/** The live Models and the state of their connection. */

import { useEffect, useRef, useState } from "preact/hooks";
import { type Connection, Feed } from "../api/feed.ts";
import type { Model } from "../api/models.ts";

export interface FeedState {
  /** Null before the first event. */
  readonly models: readonly Model[] | null;
  readonly version: string;
  readonly connection: Connection;
  readonly retry: () => void;
}

/** Read the feed with this key; another key, or the same one entered again (`attempt`), connects again. */
export function useFeed(key: string, attempt: number): FeedState {
  const [models, setModels] = useState<readonly Model[] | null>(null);
  const [version, setVersion] = useState("");
  const [connection, setConnection] = useState<Connection>({ kind: "connecting" });
  const feed = useRef<Feed | null>(null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: attempt is there to connect again
  useEffect(() => {
    const current = new Feed(key, {
      models: (found, from) => {
        setModels(found);
        setVersion(from);
      },
      connection: setConnection,
    });
    feed.current = current;
    setModels(null); // another key may see other Models
    void current.run();
    const retry = () => current.retryNow();
    addEventListener("online", retry);
    return () => {
      removeEventListener("online", retry);
      current.stop();
    };
  }, [key, attempt]);
  return { models, version, connection, retry: () => feed.current?.retryNow() };
}
