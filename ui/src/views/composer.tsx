/** The field for a message, with images. Enter sends, Shift+Enter starts a new line. */

import { useRef, useState } from "preact/hooks";
import { messageOf } from "../api/http.ts";
import type { Picture } from "../state/conversation.ts";
import { ACCEPTED, isPicture, pictureUrl, readPicture } from "../state/pictures.ts";
import { CloseIcon, ImageIcon, SendIcon, StopIcon } from "./icons.tsx";

interface Props {
  /** Whether there is a Model to send to. */
  readonly ready: boolean;
  readonly vision: boolean;
  readonly running: boolean;
  readonly send: (text: string, pictures: readonly Picture[]) => void;
  readonly stop: () => void;
}

export function Composer({ ready, vision, running, send, stop }: Props) {
  const [text, setText] = useState("");
  const [pictures, setPictures] = useState<readonly Picture[]>([]);
  const [error, setError] = useState("");
  const attach = async (files: Iterable<File>) => {
    setError("");
    try {
      const read = await Promise.all([...files].filter(isPicture).map(readPicture));
      setPictures((before) => [...before, ...read]);
    } catch (caught) {
      setError(messageOf(caught));
    }
  };
  const sendable = ready && !running && (text.trim() !== "" || pictures.length > 0);
  const submit = () => {
    if (!sendable) return;
    send(text.trim(), vision ? pictures : []);
    setText("");
    setPictures([]);
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onDragOver={(event) => vision && event.preventDefault()}
      onDrop={(event) => {
        if (!vision || !event.dataTransfer) return;
        event.preventDefault();
        void attach(event.dataTransfer.files);
      }}
    >
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {vision && (
        <Attached pictures={pictures} remove={(at) => setPictures(pictures.filter((_, each) => each !== at))} />
      )}
      <div class="field">
        {vision && <AttachButton attach={attach} />}
        <Field text={text} change={setText} submit={submit} paste={vision ? attach : undefined} />
        {running ? (
          <button type="button" class="primary square" aria-label="Stop" onClick={stop}>
            <StopIcon />
          </button>
        ) : (
          <button type="submit" class="primary square" aria-label="Send" disabled={!sendable}>
            <SendIcon />
          </button>
        )}
      </div>
    </form>
  );
}

interface FieldProps {
  readonly text: string;
  readonly change: (text: string) => void;
  readonly submit: () => void;
  readonly paste: ((files: Iterable<File>) => Promise<void>) | undefined;
}

function Field({ text, change, submit, paste }: FieldProps) {
  const keyDown = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  };
  const pasted = (event: ClipboardEvent) => {
    const files = event.clipboardData?.files;
    if (!paste || !files?.length) return;
    event.preventDefault();
    void paste(files);
  };
  return (
    <textarea
      rows={1}
      aria-label="Message"
      placeholder="Message"
      value={text}
      onInput={(event) => change(event.currentTarget.value)}
      onKeyDown={keyDown}
      onPaste={pasted}
    />
  );
}

function AttachButton({ attach }: { attach: (files: Iterable<File>) => Promise<void> }) {
  const input = useRef<HTMLInputElement>(null);
  const chosen = async () => {
    const field = input.current;
    if (!field?.files) return;
    await attach(field.files);
    field.value = ""; // so that the same file can be chosen again
  };
  return (
    <>
      <input ref={input} type="file" accept={ACCEPTED} multiple hidden onChange={() => void chosen()} />
      <button type="button" class="plain square" aria-label="Attach images" onClick={() => input.current?.click()}>
        <ImageIcon />
      </button>
    </>
  );
}

function Attached({ pictures, remove }: { pictures: readonly Picture[]; remove: (at: number) => void }) {
  if (pictures.length === 0) return null;
  return (
    <ul class="pictures" aria-label="Attached images">
      {pictures.map((picture, at) => (
        <li key={at}>
          <img src={pictureUrl(picture)} alt={picture.name} />
          <button type="button" class="square" aria-label={`Remove ${picture.name}`} onClick={() => remove(at)}>
            <CloseIcon />
          </button>
        </li>
      ))}
    </ul>
  );
}
