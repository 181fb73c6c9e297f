/** Says that the page shows old values, and why. */

import type { Connection } from "../api/feed.ts";

interface Props {
  readonly connection: Connection;
  readonly retry: () => void;
  readonly enterKey: () => void;
}

export function ConnectionBanner({ connection, retry, enterKey }: Props) {
  return (
    <div role="status" aria-label="Connection">
      {connection.kind === "lost" && (
        <div class="banner">
          <p>
            <strong>The connection is lost.</strong> {connection.reason} Next attempt in{" "}
            {Math.max(1, Math.round(connection.retryInMs / 1000))} s.
          </p>
          <button type="button" onClick={retry}>
            Try now
          </button>
        </div>
      )}
      {connection.kind === "unauthorized" && (
        <div class="banner">
          <p>
            <strong>The gateway asks for an API key.</strong> {connection.reason}
          </p>
          <button type="button" onClick={enterKey}>
            Enter key
          </button>
        </div>
      )}
    </div>
  );
}
