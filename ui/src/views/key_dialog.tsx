/** Dialog for the API key. */

import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  /** Why the gateway asks; empty if the user has opened the dialog. */
  readonly reason: string;
  readonly stored: string;
  readonly save: (key: string) => void;
  readonly close: () => void;
}

export function KeyDialog({ reason, stored, save, close }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [entered, setEntered] = useState(stored);
  useEffect(() => {
    dialog.current?.showModal(); // returns the focus when it is closed
  }, []);
  const submit = (event: Event) => {
    event.preventDefault();
    save(entered.trim());
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onClose={close}>
      <form onSubmit={submit}>
        <h2 id="key-title">API key</h2>
        {reason && <p class="error">{reason}</p>}
        <label>
          Key for this gateway
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={entered}
            onInput={(event) => setEntered(event.currentTarget.value)}
          />
        </label>
        <p class="hint">It is kept in this tab and is gone when the tab is closed.</p>
        <div class="actions">
          <button type="submit" class="primary">
            Use key
          </button>
          {stored && (
            <button type="button" onClick={() => save("")}>
              Remove key
            </button>
          )}
          <button type="button" class="plain" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
