/** The theme: the system's, until the user chooses one. CSS reads `data-theme` of the root element. */

import { useEffect, useState } from "preact/hooks";

export type Theme = "light" | "dark";

const STORED = "corral.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosenTheme(): Theme | null {
  const stored = localStorage.getItem(STORED);
  return stored === "light" || stored === "dark" ? stored : null;
}

function systemTheme(): Theme {
  return dark.matches ? "dark" : "light";
}

/** Return the theme and a function that switches to the other one. */
export function useTheme(): [Theme, () => void] {
  const [chosen, setChosen] = useState(chosenTheme);
  const [system, setSystem] = useState(systemTheme);
  useEffect(() => {
    const follow = () => setSystem(systemTheme());
    dark.addEventListener("change", follow);
    return () => dark.removeEventListener("change", follow);
  }, []);
  const theme = chosen ?? system;
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
  }, [theme]);
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    localStorage.setItem(STORED, next);
    setChosen(next);
  };
  return [theme, toggle];
}
