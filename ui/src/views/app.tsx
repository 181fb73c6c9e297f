/** The page: header, the current view, and the dialog for the API key. */

import { useEffect, useState } from "preact/hooks";
import { useConversation } from "../state/use_conversation.ts";
import { useFeed } from "../state/use_feed.ts";
import { useKey } from "../state/use_key.ts";
import { useRoute } from "../state/use_route.ts";
import { ChatView } from "./chat_view.tsx";
import { ConnectionBanner } from "./connection_banner.tsx";
import { Header } from "./header.tsx";
import { KeyDialog } from "./key_dialog.tsx";
import { ModelsView } from "./models_view.tsx";

export function App() {
  const [key, storeKey] = useKey();
  const [attempt, setAttempt] = useState(0);
  const [asking, setAsking] = useState<string | null>(null);
  const route = useRoute();
  const feed = useFeed(key, attempt);
  const conversation = useConversation(key, setAsking);
  const { connection } = feed;
  useEffect(() => {
    if (connection.kind === "unauthorized") setAsking(connection.reason);
  }, [connection]);
  const save = (entered: string) => {
    storeKey(entered);
    setAttempt((before) => before + 1);
    setAsking(null);
  };
  return (
    <>
      <Header
        view={route.view}
        connection={connection}
        hasKey={key !== ""}
        version={feed.version}
        onKey={() => setAsking("")}
      />
      <ConnectionBanner connection={connection} retry={feed.retry} enterKey={() => setAsking("")} />
      <main id="main" tabIndex={-1}>
        {route.view === "models" ? (
          <ModelsView models={feed.models} connection={connection} apiKey={key} onUnauthorized={setAsking} />
        ) : (
          <ChatView models={feed.models} name={route.model} conversation={conversation} />
        )}
      </main>
      {asking !== null && <KeyDialog reason={asking} stored={key} save={save} close={() => setAsking(null)} />}
    </>
  );
}
