/** The API key, kept in this tab's session storage: it is gone when the tab is closed. */

import { useState } from "preact/hooks";

const STORED = "corral.key";

export function useKey(): [string, (key: string) => void] {
  const [key, setKey] = useState(() => sessionStorage.getItem(STORED) ?? "");
  const store = (value: string) => {
    if (value) sessionStorage.setItem(STORED, value);
    else sessionStorage.removeItem(STORED);
    setKey(value);
  };
  return [key, store];
}
