/** The view, from the part of the address after `#`: `#/` or `#/chat/<model>`. No server sees it. */

import { useEffect, useState } from "preact/hooks";

export type Route = { readonly view: "models" } | { readonly view: "chat"; readonly model: string };

export function parseRoute(hash: string): Route {
  const [, view, name = ""] = /^#\/(chat)(?:\/(.*))?$/.exec(hash) ?? [];
  return view === "chat" ? { view, model: decoded(name) } : { view: "models" };
}

/** A name like `team/llama3.2:1b` is one part of the address. */
export function chatHash(model: string): string {
  return model ? `#/chat/${encodeURIComponent(model)}` : "#/chat";
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return "";
  }
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}
