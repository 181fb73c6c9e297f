/** Chat with one Model. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { canChat, type Model } from "../api/models.ts";
import type { Conversation } from "../state/use_conversation.ts";
import { chatHash } from "../state/use_route.ts";
import { useSetting } from "../state/use_setting.ts";
import { rate, shortName } from "../text/format.ts";
import { Announcer } from "./announcer.tsx";
import { Composer } from "./composer.tsx";
import { PlusIcon } from "./icons.tsx";
import { PhaseBadge } from "./phase_badge.tsx";
import { parseThink, ThinkSelect } from "./think_select.tsx";
import { TurnList } from "./turn_list.tsx";

interface Props {
  readonly models: readonly Model[] | null;
  /** The Model of the address; empty for the first one. */
  readonly name: string;
  readonly conversation: Conversation;
}

export function ChatView({ models, name, conversation }: Props) {
  const chatting = (models ?? []).filter(canChat);
  const model = findModel(chatting, name);
  const chosen = model?.name ?? name;
  const [setting, setSetting] = useSetting("corral.think", "on");
  const think = model ? parseThink(setting, model) : undefined;
  const last = conversation.turns.at(-1);
  return (
    <div class="chat">
      <h1 class="hidden">Chat</h1>
      <div class="bar">
        <label>
          <span class="hidden">Model</span>
          <select value={chosen} onChange={(event) => location.assign(chatHash(event.currentTarget.value))}>
            {chosen && !model && <option value={chosen}>{shortName(chosen)}</option>}
            {!chosen && <option value="">No Model</option>}
            {chatting.map((each) => (
              <option key={each.name} value={each.name}>
                {shortName(each.name)}
              </option>
            ))}
          </select>
        </label>
        {model && <PhaseBadge phase={model.phase} />}
        {conversation.turns.length > 0 && (
          <button type="button" class="plain new" aria-label="New chat" onClick={conversation.clear}>
            <PlusIcon /> <span>New chat</span>
          </button>
        )}
        {model?.tokensPerSecond ? <span class="hint speed">{rate(model.tokensPerSecond)} tokens/s</span> : null}
        {model && <ThinkSelect model={model} setting={setting} choose={setSetting} />}
      </div>
      <Scroller follow={conversation.turns}>
        {conversation.turns.length === 0 && <Empty name={chosen} known={models !== null} />}
        <TurnList turns={conversation.turns} models={chatting} again={() => conversation.again(chosen, think)} />
      </Scroller>
      <Announcer turn={last?.role === "assistant" ? last : undefined} />
      <Composer
        ready={chosen !== ""}
        vision={model?.capabilities.includes("vision") === true}
        running={conversation.running}
        send={(text, pictures) => conversation.ask(chosen, think, text, pictures)}
        stop={conversation.stop}
      />
    </div>
  );
}

function findModel(models: readonly Model[], name: string): Model | undefined {
  return name ? models.find((model) => model.name === name || model.names.includes(name)) : models[0];
}

function Empty({ name, known }: { name: string; known: boolean }) {
  if (!name) return <p class="empty">{known ? "There is no Model that can chat." : "Connecting to the gateway…"}</p>;
  return (
    <div class="empty">
      <p class="big">{shortName(name)}</p>
      <p>Ask something. If the model is not loaded, the first request loads it.</p>
    </div>
  );
}

/** Pixels from the end within which the view follows the text. */
const NEAR = 80;

/** A region that stays at its end while text is added, unless the user has scrolled up. */
function Scroller({ follow, children }: { follow: unknown; children: ComponentChildren }) {
  const region = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const scrolled = () => {
    const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = region.current ?? {};
    atEnd.current = scrollHeight - scrollTop - clientHeight < NEAR;
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text has changed when `follow` has
  useEffect(() => {
    if (atEnd.current) region.current?.scrollTo({ top: region.current.scrollHeight });
  }, [follow]);
  return (
    // It scrolls by keyboard only if it can be focused.
    // biome-ignore lint/a11y/noNoninteractiveTabindex: see above
    <section class="scroller" ref={region} onScroll={scrolled} tabIndex={0} aria-label="Conversation">
      <div class="column">{children}</div>
    </section>
  );
}
