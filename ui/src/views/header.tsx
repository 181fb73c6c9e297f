/** The header: name, views, state of the connection, API key and theme. */

import type { Connection } from "../api/feed.ts";
import { useTheme } from "../state/use_theme.ts";
import { KeyIcon, Logo, MoonIcon, SunIcon } from "./icons.tsx";

const STATES: Readonly<Record<Connection["kind"], string>> = {
  connecting: "Connecting",
  open: "Live",
  lost: "Connection lost",
  unauthorized: "API key needed",
};

interface Props {
  readonly view: "models" | "chat";
  readonly connection: Connection;
  readonly hasKey: boolean;
  readonly version: string;
  readonly onKey: () => void;
}

export function Header({ view, connection, hasKey, version, onKey }: Props) {
  const [theme, toggle] = useTheme();
  const other = theme === "dark" ? "light" : "dark";
  return (
    <header class="top">
      <button type="button" class="skip" onClick={skip}>
        Skip to content
      </button>
      <a class="brand" href="#/" title={version ? `Corral ${version}` : undefined}>
        <Logo />
        <span>Corral</span>
      </a>
      <nav aria-label="Views">
        <a href="#/" aria-current={view === "models" ? "page" : undefined}>
          Models
        </a>
        <a href="#/chat" aria-current={view === "chat" ? "page" : undefined}>
          Chat
        </a>
      </nav>
      <span class={`live ${connection.kind}`}>
        <span class="dot" />
        <span class="label">{STATES[connection.kind]}</span>
      </span>
      <button
        type="button"
        class="plain square"
        aria-label={hasKey ? "Change API key" : "Enter API key"}
        onClick={onKey}
      >
        <KeyIcon />
      </button>
      <button type="button" class="plain square" aria-label={`Switch to ${other} theme`} onClick={toggle}>
        {theme === "dark" ? <SunIcon /> : <MoonIcon />}
      </button>
    </header>
  );
}

/** Focus the content; a link could not do that, because the address after `#` is the view's. */
function skip(): void {
  document.getElementById("main")?.focus();
}
