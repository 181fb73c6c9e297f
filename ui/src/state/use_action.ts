/** Loads and unloads one Model. */

import { useEffect, useRef, useState } from "preact/hooks";
import { isAborted, isUnauthorized, messageOf } from "../api/http.ts";
import { load, type Model, unload } from "../api/models.ts";

export interface Action {
  readonly running: "load" | "unload" | null;
  readonly error: string;
  readonly load: () => void;
  readonly unload: () => void;
  readonly cancel: () => void;
}

export function useAction(model: Model, key: string, onUnauthorized: (reason: string) => void): Action {
  const [running, setRunning] = useState<Action["running"]>(null);
  const [error, setError] = useState("");
  const abort = useRef<AbortController | null>(null);
  useEffect(() => () => abort.current?.abort(), []);
  const run = async (what: "load" | "unload") => {
    const controller = new AbortController();
    abort.current = controller;
    setRunning(what);
    setError("");
    try {
      await (what === "load" ? load : unload)(model, key, controller.signal);
    } catch (caught) {
      if (isUnauthorized(caught)) onUnauthorized(messageOf(caught));
      if (!isAborted(caught)) setError(messageOf(caught));
    } finally {
      setRunning(null);
    }
  };
  return {
    running,
    error,
    load: () => void run("load"),
    unload: () => void run("unload"),
    cancel: () => abort.current?.abort(),
  };
}
