/** A text that this browser remembers. */

import { useState } from "preact/hooks";

export function useSetting(name: string, unset: string): [string, (value: string) => void] {
  const [value, setValue] = useState(() => localStorage.getItem(name) ?? unset);
  const store = (next: string) => {
    localStorage.setItem(name, next);
    setValue(next);
  };
  return [value, store];
}
